/* Reading a compress model's weights, and finding the engine that multiplies them. */
#include "lib/ops/compress.h"

#include <limits.h>
#include <math.h>
#include <nsa/size.h>
#include <stdlib.h>
#include <string.h>

/* Different rows that a trial computes in every place of a tile. */
#define TRIAL_ROWS 3

/* A layer narrower than a panel is filled up to one: up to these, by several times. */
#define MAX_INFLATION ((size_t)4)
#define LITTLE_FLOATS ((size_t)1 << 20)

/* Sums of magnitudes from here on may overflow float32 on the way. */
#define OVERFLOW_SCALE 0x1p120

/* --- reading ------------------------------------------------------------------------------- */

/* Check the shapes of the four tensors against each other and fill the dimensions of `mlp`. */
static nsa_status check_shapes(nsa_mlp *mlp, const nsa_safetensors *file, const size_t *tensors,
                               nsa_error *err)
{
    const nsa_safetensors_entry *w1 = nsa_safetensors_at(file, tensors[COMPRESS_W1]);
    const nsa_safetensors_entry *w2 = nsa_safetensors_at(file, tensors[COMPRESS_W2]);
    size_t hidden = w1->shape.dims[0];
    size_t in = w1->shape.dims[1];
    size_t out = w2->shape.dims[0];
    const nsa_shape expected[COMPRESS_TENSORS] = {
        [COMPRESS_W1] = {2, {hidden, in}},
        [COMPRESS_B1] = {1, {hidden}},
        [COMPRESS_W2] = {2, {out, hidden}},
        [COMPRESS_B2] = {1, {out}},
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
    for (size_t i = 0; i < COMPRESS_TENSORS; i++) {
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

/* Room for two matrices of the given sizes, one behind the other, aligned; NULL if there is none.
 */
static float *allocate_pair(float **second, size_t first_floats, size_t second_floats)
{
    size_t offset;
    size_t bytes;
    char *memory;

    if (!nsa_size_mul(&offset, first_floats, sizeof(float)) ||
        !nsa_size_round_up(&offset, offset, NSA_SCRATCH_ALIGN) ||
        !nsa_size_mul(&bytes, second_floats, sizeof(float)) ||
        !nsa_size_add(&bytes, bytes, offset) ||
        !nsa_size_round_up(&bytes, bytes, NSA_SCRATCH_ALIGN))
        return NULL;
    memory = aligned_alloc(NSA_SCRATCH_ALIGN, bytes);
    if (memory)
        *second = (float *)(void *)(memory + offset);
    return (float *)(void *)memory;
}

/* What check_shapes() let pass fits: the file holds as many elements. */
static nsa_status read_weights(struct nsa_compress *compress, nsa_safetensors *file,
                               const size_t *tensors, char *sha256, nsa_error *err)
{
    nsa_mlp *mlp = &compress->mlp;
    nsa_safetensors_want wants[COMPRESS_TENSORS];
    nsa_status status;

    for (size_t i = 0; i < COMPRESS_TENSORS; i++)
        wants[i].index = tensors[i];
    compress->matrices =
        allocate_pair(&wants[COMPRESS_W2].dst, mlp->hidden * mlp->in, mlp->out * mlp->hidden);
    compress->biases = allocate_pair(&wants[COMPRESS_B2].dst, mlp->hidden, mlp->out);
    if (!compress->matrices || !compress->biases)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the weights");
    wants[COMPRESS_W1].dst = compress->matrices;
    wants[COMPRESS_B1].dst = compress->biases;
    mlp->w1 = wants[COMPRESS_W1].dst;
    mlp->b1 = wants[COMPRESS_B1].dst;
    mlp->w2 = wants[COMPRESS_W2].dst;
    mlp->b2 = wants[COMPRESS_B2].dst;
    status = nsa_safetensors_read(file, wants, COMPRESS_TENSORS, sha256, err);
    if (status == NSA_OK && mlp->precision == NSA_PRECISION_BF16) {
        nsa_kernels_active()->round_bf16(wants[COMPRESS_W1].dst, mlp->hidden * mlp->in);
        nsa_kernels_active()->round_bf16(wants[COMPRESS_W2].dst, mlp->out * mlp->hidden);
    }
    return status;
}

nsa_status nsa_compress_load(nsa_model *model, nsa_safetensors *file, const size_t *tensors,
                             nsa_error *err)
{
    struct nsa_compress *compress = calloc(1, sizeof *compress);
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
    info->dims[COMPRESS_HEAD].name = "dim_head";
    info->dims[COMPRESS_HEAD].value = mlp->out;
    info->dims[COMPRESS_BLOCK].name = "compress_block_size";
    info->dims[COMPRESS_BLOCK].value = mlp->in / mlp->out;
    info->dims[COMPRESS_HIDDEN].name = "hidden";
    info->dims[COMPRESS_HIDDEN].value = mlp->hidden;
    return read_weights(compress, file, tensors, info->sha256, err);
}

void nsa_compress_unload(nsa_model *model)
{
    struct nsa_compress *compress = model->weights;

    if (!compress)
        return;
    free(compress->packed);
    free(compress->matrices);
    free(compress->biases);
    free(compress);
}

/* --- choosing an engine -------------------------------------------------------------------- */

/* Elements of w (columns, k) as `engine` packs it; fits, as packs_well() saw. */
static size_t packed_elements(const nsa_linear_engine *engine, size_t k, size_t columns)
{
    return nsa_linear_width(engine, columns) * nsa_linear_elements(engine, k);
}

nsa_status nsa_compress_use(struct nsa_compress *compress, const nsa_linear_engine *engine,
                            nsa_error *err)
{
    const nsa_mlp *mlp = &compress->mlp;
    float *second;

    nsa_linear_init();
    free(compress->packed);
    compress->packed = NULL;
    compress->engine = engine;
    compress->w1 = (const char *)mlp->w1;
    compress->w2 = (const char *)mlp->w2;
    if (engine->panel == 1)
        return NSA_OK;
    compress->packed = allocate_pair(&second, packed_elements(engine, mlp->in, mlp->hidden),
                                     packed_elements(engine, mlp->hidden, mlp->out));
    if (!compress->packed)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the packed weights");
    nsa_linear_pack(compress->packed, engine, mlp->w1, mlp->in, mlp->hidden);
    nsa_linear_pack(second, engine, mlp->w2, mlp->hidden, mlp->out);
    compress->w1 = (const char *)compress->packed;
    compress->w2 = (const char *)second;
    return NSA_OK;
}

/* Whether each of `rows` (TRIAL_ROWS, in) gives the same bits alone and in every place of a tile.
 */
static bool places_agree(const struct nsa_compress *compress, struct nsa_compress_scratch *scratch,
                         const float *rows, float *alone)
{
    const nsa_mlp *mlp = &compress->mlp;
    size_t tile = compress->engine->tile;

    for (size_t trial = 0; trial < TRIAL_ROWS; trial++) {
        const float *row = rows + trial * mlp->in;

        nsa_compress_place(compress, scratch, 0, row, NSA_F32);
        nsa_compress_tile(compress, scratch, 1);
        memcpy(alone, scratch->y, mlp->out * sizeof(float));
        for (size_t place = 0; place < tile; place++)
            nsa_compress_place(compress, scratch, place, row, NSA_F32);
        nsa_compress_tile(compress, scratch, tile);
        for (size_t place = 0; place < tile; place++) {
            if (memcmp(alone, scratch->y + place * scratch->out_width, mlp->out * sizeof(float)) !=
                0)
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
static bool matches_reference(const struct nsa_compress *compress,
                              struct nsa_compress_scratch *scratch, const float *rows,
                              double *reference)
{
    const nsa_mlp *mlp = &compress->mlp;
    double tolerance = mlp->precision == NSA_PRECISION_BF16 ? 0x1p-8 : 0x1p-18;
    double *scale = reference + mlp->out;

    nsa_compress_row_ref(reference, scale, rows, mlp);
    nsa_compress_place(compress, scratch, 0, rows, NSA_F32);
    nsa_compress_tile(compress, scratch, 1);
    for (size_t o = 0; o < mlp->out; o++) {
        double error = fabs((double)scratch->y[o] - reference[o]);

        /* Weights that overflow float32 or are NaN give results that compare with nothing. */
        if (scale[o] < OVERFLOW_SCALE && !(error <= tolerance * scale[o]))
            return false;
    }
    return true;
}

nsa_status nsa_compress_try(bool *holds, const struct nsa_compress *compress, nsa_error *err)
{
    const nsa_mlp *mlp = &compress->mlp;
    struct nsa_compress_scratch scratch = {0};
    float *rows = calloc(mlp->in, TRIAL_ROWS * sizeof *rows);    /* (TRIAL_ROWS, in) */
    float *alone = calloc(mlp->out, sizeof *alone);              /* (out) */
    double *reference = calloc(mlp->out, 2 * sizeof *reference); /* (2, out): result, scale */
    void *memory = NULL;
    nsa_status status = NSA_OK;

    if (!nsa_compress_layout(&scratch, mlp, compress->engine, NULL)) {
        status = nsa_error_set(err, NSA_ELIMIT, "the dimensions of the weights are too large");
        goto out;
    }
    memory = aligned_alloc(NSA_SCRATCH_ALIGN, scratch.bytes);
    if (!rows || !alone || !reference || !memory) {
        status = nsa_error_set(err, NSA_ENOMEM, "out of memory for the self-check");
        goto out;
    }
    nsa_compress_layout(&scratch, mlp, compress->engine, memory);
    nsa_self_check_fill(rows, mlp->in * TRIAL_ROWS);
    *holds = places_agree(compress, &scratch, rows, alone) &&
             matches_reference(compress, &scratch, rows, reference);
out:
    free(memory);
    free(reference);
    free(alone);
    free(rows);
    return status;
}

/* Whether `engine` packs the weights into no more than a few times their size, or into little. */
static bool packs_well(const nsa_mlp *mlp, const nsa_linear_engine *engine)
{
    size_t plain = mlp->hidden * mlp->in + mlp->out * mlp->hidden;
    size_t packed = packed_elements(engine, mlp->in, mlp->hidden) +
                    packed_elements(engine, mlp->hidden, mlp->out);

    return packed / MAX_INFLATION <= plain || packed <= LITTLE_FLOATS;
}

/* Take the first engine that holds; then the weights are kept only as it wants them. */
nsa_status nsa_compress_self_check(nsa_model *model, nsa_error *err)
{
    struct nsa_compress *compress = model->weights;
    bool holds = false;

    for (size_t i = 0; !holds && nsa_linear_engine_at(compress->mlp.precision, i); i++) {
        const nsa_linear_engine *engine = nsa_linear_engine_at(compress->mlp.precision, i);
        nsa_status status;

        if (!packs_well(&compress->mlp, engine))
            continue;
        status = nsa_compress_use(compress, engine, err);
        if (status == NSA_OK)
            status = nsa_compress_try(&holds, compress, err);
        if (status != NSA_OK)
            return status;
    }
    if (!holds)
        return nsa_error_set(err, NSA_ESELFCHECK,
                             "self-check: no way of multiplying these weights on this processor "
                             "agrees with the reference");
    model->info.engine = compress->engine->name;
    if (compress->packed) {
        free(compress->matrices);
        compress->matrices = NULL;
        compress->mlp.w1 = compress->mlp.w2 = NULL;
    }
    return NSA_OK;
}
