/*
 * A block of keys to one vector by an MLP: Linear(n d, hidden), activation, Linear(hidden, d).
 *
 * The rows of a batch, whichever requests they come from, are gathered into tiles; an engine that
 * has passed the self-check gives a row the same bits in every tile and place.
 */
#include "lib/ops/compress.h"

#include <math.h>
#include <nsa/size.h>
#include <string.h>

bool nsa_compress_layout(struct nsa_compress_scratch *out, const nsa_mlp *mlp,
                         const nsa_linear_engine *engine, void *base)
{
    const size_t widths[3] = {mlp->in, nsa_linear_width(engine, mlp->hidden),
                              nsa_linear_width(engine, mlp->out)};
    size_t offsets[4] = {0};

    for (size_t i = 0; i < 3; i++) {
        size_t bytes;

        if (!nsa_size_mul(&bytes, widths[i], engine->tile * sizeof(float)) ||
            !nsa_size_round_up(&bytes, bytes, NSA_SCRATCH_ALIGN) ||
            !nsa_size_add(&offsets[i + 1], offsets[i], bytes))
            return false;
    }
    out->bytes = offsets[3];
    if (base) {
        out->x = (float *)base;
        out->hidden = (float *)((char *)base + offsets[1]);
        out->y = (float *)((char *)base + offsets[2]);
    }
    return true;
}

void nsa_compress_tile(const struct nsa_compress *compress,
                       const struct nsa_compress_scratch *scratch, size_t rows)
{
    const nsa_kernels *kernels = nsa_kernels_active();
    const nsa_linear_engine *engine = compress->engine;
    const nsa_mlp *mlp = &compress->mlp;
    size_t hidden_width = nsa_linear_width(engine, mlp->hidden);
    size_t out_width = nsa_linear_width(engine, mlp->out);

    if (engine->padded && rows < engine->tile)
        memset(scratch->x + rows * mlp->in, 0, (engine->tile - rows) * mlp->in * sizeof(float));
    if (mlp->precision == NSA_PRECISION_BF16)
        kernels->round_bf16(scratch->x, rows * mlp->in);
    engine->run(scratch->hidden, scratch->x, mlp->in, compress->w1, rows, mlp->in, mlp->hidden);
    for (size_t row = 0; row < rows; row++) {
        float *hidden = scratch->hidden + row * hidden_width;

        kernels->bias_activate[mlp->activation](hidden, mlp->b1, mlp->hidden);
        if (mlp->precision == NSA_PRECISION_BF16)
            kernels->round_bf16(hidden, mlp->hidden);
    }
    engine->run(scratch->y, scratch->hidden, hidden_width, compress->w2, rows, mlp->hidden,
                mlp->out);
    for (size_t row = 0; row < rows; row++) {
        for (size_t o = 0; o < mlp->out; o++) {
            float value = scratch->y[row * out_width + o] + mlp->b2[o];

            /* One NaN for all: which of several survives a sum is up to how it was compiled. */
            scratch->y[row * out_width + o] = value != value ? NAN : value;
        }
    }
}

/* Where the result of each row of the tile that is being filled belongs. */
struct tile_row {
    const nsa_request *request;
    size_t row;
};

struct gather {
    const struct nsa_compress *compress;
    struct nsa_compress_scratch scratch;
    struct tile_row rows[NSA_MAX_TILE];
    size_t filled;
};

static void flush_tile(struct gather *gather)
{
    const nsa_mlp *mlp = &gather->compress->mlp;
    size_t out_width = nsa_linear_width(gather->compress->engine, mlp->out);

    nsa_compress_tile(gather->compress, &gather->scratch, gather->filled);
    for (size_t i = 0; i < gather->filled; i++) {
        const nsa_tensor *output = &gather->rows[i].request->outputs[0];
        size_t row_bytes = mlp->out * nsa_dtype_size(output->dtype);

        nsa_from_f32((char *)output->data + gather->rows[i].row * row_bytes, output->dtype,
                     gather->scratch.y + i * out_width, mlp->out);
    }
    gather->filled = 0;
}

static void compress_run(const nsa_model *model, const nsa_span *spans, size_t count, void *scratch)
{
    struct gather gather;
    const nsa_mlp *mlp;
    size_t tile;

    gather.compress = model->weights;
    gather.filled = 0;
    mlp = &gather.compress->mlp;
    tile = gather.compress->engine->tile;
    nsa_compress_layout(&gather.scratch, mlp, gather.compress->engine, scratch);
    for (size_t s = 0; s < count; s++) {
        const nsa_request *request = spans[s].request;
        const nsa_tensor *input = &request->input;
        size_t row_bytes = mlp->in * nsa_dtype_size(input->dtype);

        for (size_t i = 0; i < spans[s].row_count; i++) {
            size_t row = spans[s].row_begin + i;

            nsa_to_f32(gather.scratch.x + gather.filled * mlp->in,
                       (const char *)input->data + row * row_bytes, input->dtype, mlp->in);
            gather.rows[gather.filled] = (struct tile_row){request, row};
            if (++gather.filled == tile)
                flush_tile(&gather);
        }
    }
    if (gather.filled > 0)
        flush_tile(&gather);
}

static size_t compress_scratch_bytes(const nsa_model *model)
{
    const struct nsa_compress *compress = model->weights;
    struct nsa_compress_scratch scratch = {0};

    /* Cannot fail: it didn't when the engine was tried. */
    nsa_compress_layout(&scratch, &compress->mlp, compress->engine, NULL);
    return scratch.bytes;
}

static size_t compress_row_unit(const nsa_model *model)
{
    return ((const struct nsa_compress *)model->weights)->engine->unit;
}

static nsa_status compress_plan(nsa_request *request, const nsa_model *model, nsa_error *err)
{
    const nsa_shape *shape = &request->input.shape;
    size_t d = model->info.dims[COMPRESS_HEAD].value;
    size_t n = model->info.dims[COMPRESS_BLOCK].value;
    size_t rank = shape->rank;
    size_t row_rank = 0; /* trailing dimensions that make a row */

    if (rank >= 2 && shape->dims[rank - 2] == n && shape->dims[rank - 1] == d)
        row_rank = 2;
    else if (rank >= 1 && shape->dims[rank - 1] == n * d)
        row_rank = 1;
    if (row_rank == 0) {
        char text[NSA_SHAPE_TEXT_BYTES];

        return nsa_error_set(err, NSA_EINVAL,
                             "x: expected shape [..., %zu, %zu] or [..., %zu], got %s", n, d, n * d,
                             nsa_shape_text(text, shape));
    }
    request->outputs[0].dtype = request->input.dtype;
    request->outputs[0].shape.rank = rank - row_rank + 1;
    request->rows = 1;
    for (size_t i = 0; i < rank - row_rank; i++) {
        request->outputs[0].shape.dims[i] = shape->dims[i];
        request->rows *= shape->dims[i];
    }
    request->outputs[0].shape.dims[rank - row_rank] = d;
    return NSA_OK;
}

const nsa_op_row nsa_compress_op = {
    .op = {.id = NSA_COMPRESS,
           .name = "compress",
           .has_weights = true,
           .input = {.name = "x",
                     .rank = 3,
                     .dims = {[1] = "compress_block_size", [2] = "dim_head"}},
           .output_count = 1,
           .outputs = {{.name = "y", .rank = 2, .dims = {[1] = "dim_head"}}}},
    .tensor_count = COMPRESS_TENSORS,
    .tensors = {[COMPRESS_W1] = "mlp.1.weight",
                [COMPRESS_B1] = "mlp.1.bias",
                [COMPRESS_W2] = "mlp.3.weight",
                [COMPRESS_B2] = "mlp.3.bias"},
    .load = nsa_compress_load,
    .unload = nsa_compress_unload,
    .self_check = nsa_compress_self_check,
    .plan = compress_plan,
    .run = compress_run,
    .scratch_bytes = compress_scratch_bytes,
    .row_unit = compress_row_unit,
    .cheap_elements = 0,
};
