/* The positions of the k greatest scores of each row. */
#include "lib/ops/kernels/kernels.h"
#include "lib/ops/op.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { PARAM_K, PARAM_VALUES };

/* (N) of the self-check: longer than any unrolled or vectorised step, and not a multiple of one. */
#define CHECK_BLOCKS 301

static nsa_status select_plan(nsa_request *request, const nsa_model *model, nsa_error *err)
{
    const nsa_shape *shape = &request->input.shape;
    int64_t k = request->params[PARAM_K];
    size_t n;

    (void)model;
    if (shape->rank == 0)
        return nsa_error_set(err, NSA_EINVAL, "scores: expected shape [..., num_blocks], got []");
    n = shape->dims[shape->rank - 1];
    if (n > UINT32_MAX)
        return nsa_error_set(err, NSA_ELIMIT, "scores: expected at most %u blocks a row, got %zu",
                             UINT32_MAX, n);
    if (k < 0 || (uint64_t)k > n)
        return nsa_error_set(err, NSA_EINVAL,
                             "num_selected_blocks: expected 0 to %zu (the blocks of a row), got "
                             "%" PRId64,
                             n, k);
    request->rows = k > 0; /* without a result there is nothing to compute */
    for (size_t i = 0; i + 1 < shape->rank; i++)
        request->rows *= shape->dims[i];
    request->outputs[0].dtype = NSA_I64;
    request->outputs[0].shape = *shape;
    request->outputs[0].shape.dims[shape->rank - 1] = (size_t)k;
    if (request->params[PARAM_VALUES]) {
        request->outputs[1] = request->outputs[0];
        request->outputs[1].dtype = request->input.dtype;
        request->output_count = 2;
    }
    return NSA_OK;
}

static void select_run(const nsa_model *model, const nsa_span *spans, size_t count, void *scratch)
{
    (void)model;
    (void)scratch;
    for (size_t s = 0; s < count; s++) {
        const nsa_request *request = spans[s].request;
        const nsa_shape *shape = &request->input.shape;
        size_t n = shape->dims[shape->rank - 1];
        size_t k = (size_t)request->params[PARAM_K];
        size_t size = nsa_dtype_size(request->input.dtype);

        for (size_t row = spans[s].row_begin; row < spans[s].row_begin + spans[s].row_count;
             row++) {
            const char *scores = (const char *)request->input.data + row * n * size; /* (n) */
            int64_t *indices = (int64_t *)request->outputs[0].data + row * k;        /* (k) */

            nsa_select_row(indices, scores, request->input.dtype, n, k);
            for (size_t i = 0; request->output_count > 1 && i < k; i++)
                memcpy((char *)request->outputs[1].data + (row * k + i) * size,
                       scores + (size_t)indices[i] * size, size);
        }
    }
}

static nsa_status select_self_check(nsa_model *model, nsa_error *err)
{
    float scores[CHECK_BLOCKS];
    int64_t expected[CHECK_BLOCKS];
    int64_t got[CHECK_BLOCKS];

    (void)model;
    nsa_self_check_fill(scores, CHECK_BLOCKS);
    for (size_t i = 0; i < CHECK_BLOCKS; i += 7)
        scores[i] = scores[i / 2]; /* ties */
    scores[11] = NAN;
    scores[200] = -NAN;
    scores[23] = INFINITY;
    scores[211] = -INFINITY;
    scores[31] = 0.0f;
    scores[30] = -0.0f;
    for (size_t k = 1; k <= CHECK_BLOCKS; k += 60) {
        nsa_select_row_ref(expected, scores, CHECK_BLOCKS, k);
        nsa_select_row(got, scores, NSA_F32, CHECK_BLOCKS, k);
        if (memcmp(expected, got, k * sizeof *got) != 0)
            return nsa_error_set(err, NSA_ESELFCHECK,
                                 "self-check: select of %zu from %d blocks differs from the "
                                 "reference on this processor",
                                 k, CHECK_BLOCKS);
    }
    return NSA_OK;
}

const nsa_op_row nsa_select_op = {
    .op = {.id = NSA_SELECT,
           .name = "select",
           .input = {.name = "scores", .rank = 2},
           .output_count = 2,
           .outputs = {{.name = "indices", .dtype = NSA_I64, .rank = 2},
                       {.name = "values", .rank = 2}},
           .param_count = 2,
           .params = {[PARAM_K] = {"num_selected_blocks", NSA_PARAM_INT, .required = true},
                      [PARAM_VALUES] = {"return_values", NSA_PARAM_BOOL, .required = false,
                                        .output = 1}}},
    .plan = select_plan,
    .run = select_run,
    .self_check = select_self_check,
    .cheap_elements = 16384,
};
