/* Adding a learned embedding to each position of a sequence. */
#include "lib/ops/kernels/kernels.h"
#include "lib/ops/op.h"

#include <inttypes.h>
#include <nsa/size.h>
#include <stdlib.h>
#include <string.h>

enum { PARAM_OFFSET };
enum { DIM_MAX_LEN, DIM_DIM };

/* Elements that are widened and narrowed at a time, on the stack. */
#define CHUNK 512

static nsa_status posembed_load(nsa_model *model, nsa_safetensors *file, const size_t *tensors,
                                nsa_error *err)
{
    const nsa_safetensors_entry *table = nsa_safetensors_at(file, tensors[0]);
    nsa_model_info *info = &model->info;
    nsa_safetensors_want want = {.index = tensors[0]};
    size_t bytes;
    nsa_status status;

    if (info->activation != NSA_GELU || info->precision != NSA_PRECISION_F32)
        return nsa_error_set(err, NSA_EINVAL,
                             "activation and precision: expected for compress models only");
    if (table->shape.rank != 2 || table->shape.dims[0] == 0 || table->shape.dims[1] == 0) {
        char text[NSA_SHAPE_TEXT_BYTES];

        return nsa_error_set(err, NSA_EINVAL,
                             "tensor '%s': expected shape [max_len, dim] with both at least 1, got "
                             "%s",
                             table->name, nsa_shape_text(text, &table->shape));
    }
    status = nsa_shape_bytes(&bytes, &table->shape, NSA_F32, err);
    if (status != NSA_OK)
        return status;
    want.dst = malloc(bytes);
    if (!want.dst)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for %zu bytes of weights", bytes);
    model->weights = want.dst; /* (max_len, dim) */
    info->dim_count = 2;
    info->dims[DIM_MAX_LEN].name = "max_len";
    info->dims[DIM_MAX_LEN].value = table->shape.dims[0];
    info->dims[DIM_DIM].name = "dim";
    info->dims[DIM_DIM].value = table->shape.dims[1];
    return nsa_safetensors_read(file, &want, 1, info->sha256, err);
}

static void posembed_unload(nsa_model *model)
{
    free(model->weights);
}

static nsa_status posembed_plan(nsa_request *request, const nsa_model *model, nsa_error *err)
{
    const nsa_shape *shape = &request->input.shape;
    size_t max_len = model->info.dims[DIM_MAX_LEN].value;
    size_t dim = model->info.dims[DIM_DIM].value;
    int64_t offset = request->params[PARAM_OFFSET];
    size_t length;

    if (shape->rank < 2 || shape->dims[shape->rank - 1] != dim) {
        char text[NSA_SHAPE_TEXT_BYTES];

        return nsa_error_set(err, NSA_EINVAL, "x: expected shape [..., L, %zu], got %s", dim,
                             nsa_shape_text(text, shape));
    }
    length = shape->dims[shape->rank - 2];
    if (offset < 0)
        return nsa_error_set(err, NSA_EINVAL, "offset: expected at least 0, got %" PRId64, offset);
    if ((uint64_t)offset > max_len || length > max_len - (size_t)offset)
        return nsa_error_set(err, NSA_EINVAL,
                             "offset: expected offset + L to be at most max_len %zu, got %" PRId64
                             " + %zu",
                             max_len, offset, length);
    request->rows = 1;
    for (size_t i = 0; i + 1 < shape->rank; i++)
        request->rows *= shape->dims[i];
    request->outputs[0].dtype = request->input.dtype;
    request->outputs[0].shape = *shape;
    return NSA_OK;
}

/* y[i] = x[i] + e[i] for `count` elements of any floating dtype and alignment. */
static void add_elements(char *y, const char *x, nsa_dtype dtype, const float *e, size_t count)
{
    const nsa_kernels *kernels = nsa_kernels_active();
    size_t size = nsa_dtype_size(dtype);
    float in[CHUNK];
    float out[CHUNK];

    if (dtype == NSA_F32 && (uintptr_t)x % sizeof(float) == 0) {
        kernels->add((float *)(void *)y, (const float *)(const void *)x, e, count);
        return;
    }
    for (size_t begin = 0; begin < count; begin += CHUNK) {
        size_t chunk = count - begin < CHUNK ? count - begin : CHUNK;

        kernels->to_f32[dtype](in, x + begin * size, chunk);
        kernels->add(out, in, e + begin, chunk);
        kernels->from_f32[dtype](y + begin * size, out, chunk);
    }
}

static void posembed_run(const nsa_model *model, const nsa_span *spans, size_t count, void *scratch)
{
    const float *table = model->weights; /* (max_len, dim) */
    size_t dim = model->info.dims[DIM_DIM].value;

    (void)scratch;
    for (size_t s = 0; s < count; s++) {
        const nsa_request *request = spans[s].request;
        const nsa_shape *shape = &request->input.shape;
        size_t length = shape->dims[shape->rank - 2];
        size_t row_bytes = dim * nsa_dtype_size(request->input.dtype);
        size_t row = spans[s].row_begin;
        size_t end = row + spans[s].row_count;

        /* Up to the end of a sequence, rows and embeddings both follow each other in memory. */
        while (row < end) {
            size_t position = row % length;
            size_t rows = length - position < end - row ? length - position : end - row;

            add_elements((char *)request->outputs[0].data + row * row_bytes,
                         (const char *)request->input.data + row * row_bytes, request->input.dtype,
                         table + ((size_t)request->params[PARAM_OFFSET] + position) * dim,
                         rows * dim);
            row += rows;
        }
    }
}

/* The last embedding added to a pseudo-random row, by kernel and reference. */
static nsa_status posembed_self_check(nsa_model *model, nsa_error *err)
{
    size_t dim = model->info.dims[DIM_DIM].value;
    const float *embedding =
        (const float *)model->weights + (model->info.dims[DIM_MAX_LEN].value - 1) * dim;
    float *rows = calloc(dim, 3 * sizeof(float)); /* (3, dim): x, expected, got */
    nsa_status status = NSA_OK;

    if (!rows)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the self-check");
    nsa_self_check_fill(rows, dim);
    nsa_posembed_row_ref(rows + dim, rows, embedding, dim);
    add_elements((char *)(rows + 2 * dim), (const char *)rows, NSA_F32, embedding, dim);
    for (size_t i = 0; i < dim; i++) {
        float expected = rows[dim + i];
        float got = rows[2 * dim + i];

        if (expected != got && (expected == expected || got == got)) {
            status = nsa_error_set(err, NSA_ESELFCHECK,
                                   "self-check: posembed differs from the reference on this "
                                   "processor: element %zu is %.9g, expected %.9g",
                                   i, (double)got, (double)expected);
            break;
        }
    }
    free(rows);
    return status;
}

const nsa_op_row nsa_posembed_op = {
    .op = {.id = NSA_POSEMBED,
           .name = "posembed",
           .has_weights = true,
           .input = {.name = "x", .rank = 3, .dims = {[2] = "dim"}},
           .output_count = 1,
           .outputs = {{.name = "y", .rank = 3, .dims = {[2] = "dim"}}},
           .param_count = 1,
           .params = {[PARAM_OFFSET] = {"offset", NSA_PARAM_INT, .required = false}}},
    .tensor_count = 1,
    .tensors = {"embedding.weight"},
    .load = posembed_load,
    .unload = posembed_unload,
    .self_check = posembed_self_check,
    .plan = posembed_plan,
    .run = posembed_run,
    .rows_alike = true,
    .cheap_elements = 131072,
    .output_weight = 1,
};
