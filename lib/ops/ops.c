#include <nsa/ops.h>

#include "lib/ops/op.h"

#include <string.h>

static const nsa_op_row *const rows[NSA_OP_COUNT] = {
    [NSA_SELECT] = &nsa_select_op,
    [NSA_COMPRESS] = &nsa_compress_op,
    [NSA_POSEMBED] = &nsa_posembed_op,
};

const nsa_op_row *nsa_op_row_at(nsa_op_id id)
{
    return rows[id];
}

const nsa_op *nsa_op_at(nsa_op_id id)
{
    return &rows[id]->op;
}

const nsa_op *nsa_op_find(const char *name)
{
    for (size_t i = 0; i < NSA_OP_COUNT; i++) {
        if (strcmp(rows[i]->op.name, name) == 0)
            return &rows[i]->op;
    }
    return NULL;
}

nsa_status nsa_request_plan(nsa_request *request, const nsa_model *model, nsa_error *err)
{
    const nsa_op *op = &model->row->op;
    size_t count;
    nsa_status status;

    if (!nsa_dtype_is_float(request->input.dtype))
        return nsa_error_set(err, NSA_EUNSUPPORTED,
                             "%s: expected float32, float16, bfloat16 or float64, got %s",
                             op->input.name, nsa_dtype_name(request->input.dtype));
    status = nsa_shape_count(&count, &request->input.shape, err);
    if (status != NSA_OK)
        return status;
    memset(request->outputs, 0, sizeof request->outputs);
    request->output_count = 1;
    status = model->row->plan(request, model, err);
    for (size_t i = 0; status == NSA_OK && i < request->output_count; i++) {
        size_t bytes;

        status =
            nsa_shape_bytes(&bytes, &request->outputs[i].shape, request->outputs[i].dtype, err);
    }
    return status;
}

size_t nsa_run_scratch_bytes(const nsa_model *model)
{
    return model->row->scratch_bytes ? model->row->scratch_bytes(model) : 0;
}

size_t nsa_run_row_unit(const nsa_model *model)
{
    return model->row->row_unit ? model->row->row_unit(model) : 1;
}

bool nsa_run_rows_alike(const nsa_model *model)
{
    return model->row->rows_alike;
}

void nsa_run(const nsa_model *model, const nsa_span *spans, size_t count, void *scratch)
{
    model->row->run(model, spans, count, scratch);
}

bool nsa_request_is_cheap(const nsa_request *request, const nsa_model *model)
{
    size_t input;
    size_t output;

    return nsa_shape_count(&input, &request->input.shape, NULL) == NSA_OK &&
           nsa_shape_count(&output, &request->outputs[0].shape, NULL) == NSA_OK &&
           input <= model->row->cheap_elements &&
           output <= (model->row->cheap_elements - input) / model->row->output_weight;
}

/* Knuth's MMIX generator; the upper bits of its state are good enough here. */
void nsa_self_check_fill(float *values, size_t count)
{
    uint64_t state = 20251;

    for (size_t i = 0; i < count; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        values[i] = (float)(int32_t)(state >> 32) * 0x1p-31f;
    }
}
