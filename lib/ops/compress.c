/*
 * A block of keys to one vector by an MLP: Linear(n d, hidden), activation, Linear(hidden, d).
 *
 * Rows are computed in tiles of one fixed size, the last one padded with zeros, so that a row's
 * bits don't depend on how many rows come with it; that they don't depend on its place in the tile
 * either is what choose_engine() looks for.
 */
#include "lib/ops/kernels/kernels.h"
#include "lib/ops/op.h"

#include <limits.h>
#include <math.h>
#include <nsa/size.h>
#include <stdlib.h>
#include <string.h>

enum { TENSOR_W1, TENSOR_B1, TENSOR_W2, TENSOR_B2, TENSOR_COUNT };
enum { DIM_HEAD, DIM_BLOCK, DIM_HIDDEN };

/* Rows of the engine trials: different rows each computed in every place of a tile. */
#define TRIAL_ROWS 3

/* Sums of magnitudes from here on may overflow float32 on the way. */
#define OVERFLOW_SCALE 0x1p120

struct compress {
    nsa_mlp mlp;
    const nsa_linear_engine *engine;
    float *memory; /* what the pointers of `mlp` point into */
};

/* Scratch of one worker: x (tile, in), hidden (tile, hidden), y (tile, out), each aligned. */
struct scratch {
    float *x, *hidden, *y;
    size_t bytes;
};

/* Lay the parts out after `base` (which may be NULL, for the size alone). */
static bool scratch_layout(struct scratch *out, const nsa_mlp *mlp, size_t tile, void *base)
{
    const size_t widths[3] = {mlp->in, mlp->hidden, mlp->out};
    size_t offsets[4] = {0};

    for (size_t i = 0; i < 3; i++) {
        size_t bytes;

        if (!nsa_size_mul(&bytes, widths[i], tile * sizeof(float)) ||
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

/* y (tile, out) = the MLP of x (tile, in), by way of hidden (tile, hidden). */
static void run_tile(const nsa_mlp *mlp, const nsa_linear_engine *engine, float *y, float *hidden,
                     const float *x)
{
    const nsa_kernels *kernels = nsa_kernels_active();

    engine->run(hidden, x, mlp->w1, mlp->in, mlp->hidden);
    for (size_t row = 0; row < engine->tile; row++)
        kernels->bias_activate[mlp->activation](hidden + row * mlp->hidden, mlp->b1, mlp->hidden);
    if (mlp->precision == NSA_PRECISION_BF16)
        kernels->round_bf16(hidden, engine->tile * mlp->hidden);
    engine->run(y, hidden, mlp->w2, mlp->hidden, mlp->out);
    for (size_t row = 0; row < engine->tile; row++) {
        for (size_t o = 0; o < mlp->out; o++)
            y[row * mlp->out + o] += mlp->b2[o];
    }
}

/* --- running ------------------------------------------------------------------------------- */

/* Rows that a tile holds so far, and where their results belong. */
struct tile_row {
    const nsa_request *request;
    size_t row;
};

struct gather {
    const struct compress *compress;
    struct scratch scratch;
    struct tile_row rows[NSA_MAX_TILE];
    size_t filled;
};

static void flush_tile(struct gather *gather)
{
    const nsa_mlp *mlp = &gather->compress->mlp;
    const nsa_linear_engine *engine = gather->compress->engine;
    struct scratch *scratch = &gather->scratch;
    size_t filled = gather->filled;

    memset(scratch->x + filled * mlp->in, 0, (engine->tile - filled) * mlp->in * sizeof(float));
    if (mlp->precision == NSA_PRECISION_BF16)
        nsa_kernels_active()->round_bf16(scratch->x, filled * mlp->in);
    run_tile(mlp, engine, scratch->y, scratch->hidden, scratch->x);
    for (size_t i = 0; i < filled; i++) {
        const nsa_tensor *output = &gather->rows[i].request->outputs[0];
        size_t row_bytes = mlp->out * nsa_dtype_size(output->dtype);

        nsa_from_f32((char *)output->data + gather->rows[i].row * row_bytes, output->dtype,
                     scratch->y + i * mlp->out, mlp->out);
    }
    gather->filled = 0;
}

static void compress_run(const nsa_model *model, const nsa_span *spans, size_t count, void *scratch)
{
    struct gather gather = {.compress = model->weights};
    const nsa_mlp *mlp = &gather.compress->mlp;
    size_t tile = gather.compress->engine->tile;

    scratch_layout(&gather.scratch, mlp, tile, scratch);
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
    const struct compress *compress = model->weights;
    struct scratch scratch = {0};

    /* Checked when the engine was chosen. */
    scratch_layout(&scratch, &compress->mlp, compress->engine->tile, NULL);
    return scratch.bytes;
}

static size_t compress_row_unit(const nsa_model *model)
{
    return ((const struct compress *)model->weights)->engine->tile;
}

static nsa_status compress_plan(nsa_request *request, const nsa_model *model, nsa_error *err)
{
    const nsa_shape *shape = &request->input.shape;
    size_t d = model->info.dims[DIM_HEAD].value;
    size_t n = model->info.dims[DIM_BLOCK].value;
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

/* --- loading ------------------------------------------------------------------------------- */

/* Check the shapes of the four tensors against each other and fill the dimensions of `mlp`. */
static nsa_status check_shapes(nsa_mlp *mlp, const nsa_safetensors *file, const size_t *tensors,
                               nsa_error *err)
{
    const nsa_safetensors_entry *w1 = nsa_safetensors_at(file, tensors[TENSOR_W1]);
    const nsa_safetensors_entry *w2 = nsa_safetensors_at(file, tensors[TENSOR_W2]);
    size_t hidden = w1->shape.dims[0];
    size_t in = w1->shape.dims[1];
    size_t out = w2->shape.dims[0];
    const nsa_shape expected[TENSOR_COUNT] = {
        [TENSOR_W1] = {2, {hidden, in}},
        [TENSOR_B1] = {1, {hidden}},
        [TENSOR_W2] = {2, {out, hidden}},
        [TENSOR_B2] = {1, {out}},
    };
    char text[2][NSA_SHAPE_TEXT_BYTES];

    if (w1->shape.rank != 2 || hidden == 0 || in == 0 || hidden > INT_MAX || in > INT_MAX)
        return nsa_error_set(
            err, NSA_EINVAL,
            "tensor '%s': expected shape [hidden, n*d] with both at least 1, got %s", w1->name,
            nsa_shape_text(text[0], &w1->shape));
    if (w2->shape.rank != 2 || out == 0 || in % out != 0)
        return nsa_error_set(err, NSA_EINVAL,
                             "tensor '%s': expected shape [d, %zu] with d a divisor of %zu, got %s",
                             w2->name, hidden, in, nsa_shape_text(text[0], &w2->shape));
    for (size_t i = 0; i < TENSOR_COUNT; i++) {
        const nsa_safetensors_entry *entry = nsa_safetensors_at(file, tensors[i]);

        if (!nsa_shape_equal(&entry->shape, &expected[i]))
            return nsa_error_set(err, NSA_EINVAL, "tensor '%s': expected shape %s, got %s",
                                 entry->name, nsa_shape_text(text[0], &expected[i]),
                                 nsa_shape_text(text[1], &entry->shape));
    }
    mlp->in = in;
    mlp->hidden = hidden;
    mlp->out = out;
    return NSA_OK;
}

/* Allocate the weights in one piece and read them; compress->memory is the caller's to free. */
static nsa_status read_weights(struct compress *compress, nsa_safetensors *file,
                               const size_t *tensors, char *sha256, nsa_error *err)
{
    nsa_mlp *mlp = &compress->mlp;
    nsa_safetensors_want wants[TENSOR_COUNT];
    size_t offsets[TENSOR_COUNT + 1] = {0};
    nsa_status status;

    for (size_t i = 0; i < TENSOR_COUNT; i++) {
        size_t bytes;

        status =
            nsa_shape_bytes(&bytes, &nsa_safetensors_at(file, tensors[i])->shape, NSA_F32, err);
        if (status != NSA_OK)
            return status;
        if (!nsa_size_round_up(&bytes, bytes, NSA_SCRATCH_ALIGN) ||
            !nsa_size_add(&offsets[i + 1], offsets[i], bytes))
            return nsa_error_set(err, NSA_ELIMIT, "the weights together are too large");
    }
    compress->memory = aligned_alloc(NSA_SCRATCH_ALIGN, offsets[TENSOR_COUNT]);
    if (!compress->memory)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for %zu bytes of weights",
                             offsets[TENSOR_COUNT]);
    for (size_t i = 0; i < TENSOR_COUNT; i++) {
        wants[i].index = tensors[i];
        wants[i].dst = (float *)(void *)((char *)compress->memory + offsets[i]);
    }
    mlp->w1 = wants[TENSOR_W1].dst;
    mlp->b1 = wants[TENSOR_B1].dst;
    mlp->w2 = wants[TENSOR_W2].dst;
    mlp->b2 = wants[TENSOR_B2].dst;
    status = nsa_safetensors_read(file, wants, TENSOR_COUNT, sha256, err);
    if (status == NSA_OK && mlp->precision == NSA_PRECISION_BF16) {
        nsa_kernels_active()->round_bf16(wants[TENSOR_W1].dst, mlp->hidden * mlp->in);
        nsa_kernels_active()->round_bf16(wants[TENSOR_W2].dst, mlp->out * mlp->hidden);
    }
    return status;
}

static nsa_status compress_load(nsa_model *model, nsa_safetensors *file, const size_t *tensors,
                                nsa_error *err)
{
    struct compress *compress = calloc(1, sizeof *compress);
    nsa_model_info *info = &model->info;
    nsa_mlp *mlp;
    nsa_status status;

    if (!compress)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for a model");
    model->weights = compress;
    mlp = &compress->mlp;
    mlp->activation = info->activation;
    mlp->precision = info->precision;
    status = check_shapes(mlp, file, tensors, err);
    if (status != NSA_OK)
        return status;
    info->dim_count = 3;
    info->dims[DIM_HEAD].name = "dim_head";
    info->dims[DIM_HEAD].value = mlp->out;
    info->dims[DIM_BLOCK].name = "compress_block_size";
    info->dims[DIM_BLOCK].value = mlp->in / mlp->out;
    info->dims[DIM_HIDDEN].name = "hidden";
    info->dims[DIM_HIDDEN].value = mlp->hidden;
    return read_weights(compress, file, tensors, info->sha256, err);
}

static void compress_unload(nsa_model *model)
{
    struct compress *compress = model->weights;

    if (!compress)
        return;
    free(compress->memory);
    free(compress);
}

/* --- self-check ---------------------------------------------------------------------------- */

/* Whether each of `rows` (TRIAL_ROWS, in) gives the same bits in every place of a tile. */
static bool places_agree(const nsa_mlp *mlp, const nsa_linear_engine *engine,
                         const struct scratch *scratch, const float *rows)
{
    for (size_t trial = 0; trial < TRIAL_ROWS; trial++) {
        for (size_t place = 0; place < engine->tile; place++)
            memcpy(scratch->x + place * mlp->in, rows + trial * mlp->in, mlp->in * sizeof(float));
        run_tile(mlp, engine, scratch->y, scratch->hidden, scratch->x);
        for (size_t place = 1; place < engine->tile; place++) {
            if (memcmp(scratch->y, scratch->y + place * mlp->out, mlp->out * sizeof(float)) != 0)
                return false;
        }
    }
    return true;
}

/*
 * Whether the first of `rows` gives what the reference does, up to float32 rounding: `scale` sums
 * the magnitudes of all products, each rounding is 2^-24 of a partial sum below it, and 64 of them
 * are far more than sums in blocks come to, far less than a wrong product shows. In bfloat16 a
 * hidden value next to a rounding boundary may fall on the other side: 2^-8 of it.
 */
static bool matches_reference(const nsa_mlp *mlp, const nsa_linear_engine *engine,
                              const struct scratch *scratch, const float *rows, double *reference)
{
    double tolerance = mlp->precision == NSA_PRECISION_BF16 ? 0x1p-8 : 0x1p-18;
    double *scale = reference + mlp->out;

    nsa_compress_row_ref(reference, scale, rows, mlp);
    memset(scratch->x, 0, engine->tile * mlp->in * sizeof(float));
    memcpy(scratch->x, rows, mlp->in * sizeof(float));
    run_tile(mlp, engine, scratch->y, scratch->hidden, scratch->x);
    for (size_t o = 0; o < mlp->out; o++) {
        double error = fabs((double)scratch->y[o] - reference[o]);

        /* Weights that overflow float32 or are NaN give results that compare with nothing. */
        if (scale[o] < OVERFLOW_SCALE && !(error <= tolerance * scale[o]))
            return false;
    }
    return true;
}

/* Take the first engine that is right and gives a row the same bits in every place. */
static nsa_status choose_engine(struct compress *compress, const float *rows, double *reference,
                                nsa_error *err)
{
    const nsa_mlp *mlp = &compress->mlp;

    for (size_t i = 0; i < nsa_linear_engine_count; i++) {
        const nsa_linear_engine *engine = &nsa_linear_engines[i];
        struct scratch scratch = {0};
        void *memory;
        bool passed;

        if (!scratch_layout(&scratch, mlp, engine->tile, NULL))
            return nsa_error_set(err, NSA_ELIMIT, "the dimensions of the weights are too large");
        memory = aligned_alloc(NSA_SCRATCH_ALIGN, scratch.bytes);
        if (!memory)
            return nsa_error_set(err, NSA_ENOMEM, "out of memory for the self-check");
        scratch_layout(&scratch, mlp, engine->tile, memory);
        passed = places_agree(mlp, engine, &scratch, rows) &&
                 matches_reference(mlp, engine, &scratch, rows, reference);
        free(memory);
        if (passed) {
            compress->engine = engine;
            return NSA_OK;
        }
    }
    return nsa_error_set(err, NSA_ESELFCHECK,
                         "self-check: no way of multiplying these weights on this processor agrees "
                         "with the reference");
}

static nsa_status compress_self_check(nsa_model *model, nsa_error *err)
{
    struct compress *compress = model->weights;
    const nsa_mlp *mlp = &compress->mlp;
    float *rows = calloc(mlp->in, TRIAL_ROWS * sizeof *rows);    /* (TRIAL_ROWS, in) */
    double *reference = calloc(mlp->out, 2 * sizeof *reference); /* (2, out): result, scale */
    nsa_status status;

    nsa_linear_init();
    if (!rows || !reference) {
        status = nsa_error_set(err, NSA_ENOMEM, "out of memory for the self-check");
        goto out;
    }
    nsa_self_check_fill(rows, mlp->in * TRIAL_ROWS);
    if (mlp->precision == NSA_PRECISION_BF16)
        nsa_kernels_active()->round_bf16(rows, mlp->in * TRIAL_ROWS);
    status = choose_engine(compress, rows, reference, err);
    if (status == NSA_OK)
        model->info.engine = compress->engine->name;
out:
    free(reference);
    free(rows);
    return status;
}

const nsa_op_row nsa_compress_op = {
    .op = {.id = NSA_COMPRESS,
           .name = "compress",
           .has_weights = true,
           .input = "x",
           .output_count = 1,
           .outputs = {"y"}},
    .tensor_count = TENSOR_COUNT,
    .tensors = {[TENSOR_W1] = "mlp.1.weight",
                [TENSOR_B1] = "mlp.1.bias",
                [TENSOR_W2] = "mlp.3.weight",
                [TENSOR_B2] = "mlp.3.bias"},
    .load = compress_load,
    .unload = compress_unload,
    .self_check = compress_self_check,
    .plan = compress_plan,
    .run = compress_run,
    .scratch_bytes = compress_scratch_bytes,
    .row_unit = compress_row_unit,
    .cheap_elements = 0,
};
