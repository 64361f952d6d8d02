/*
 * A block of keys to one vector by an MLP: Linear(n d, hidden), activation, Linear(hidden, d).
 *
 * The rows of a batch, whichever requests they come from, are gathered into tiles, by pointers
 * where the engine takes them as they are. Hidden values are computed, activated and multiplied on
 * by chunks, in an order that depends on the model alone; an engine that has passed the self-check
 * gives a row the same bits in every tile and place.
 */
#include "lib/ops/compress.h"

#include <nsa/size.h>
#include <string.h>

/* Numbers that are widened and narrowed at a time, on the stack. */
#define PIECE 512

/* Packed weights that stay in a core's own cache from one batch to the next. */
#define NEAR_ELEMENTS ((size_t)1 << 18)

/* Add room for tile rows of `width` elements of `size` bytes to *end; *begin is where it is. */
static bool add_room(size_t *begin, size_t *end, const nsa_linear_engine *engine, size_t width,
                     size_t size)
{
    size_t bytes;

    *begin = *end;
    return nsa_size_mul(&bytes, width, engine->tile * size) &&
           nsa_size_round_up(&bytes, bytes, NSA_SCRATCH_ALIGN) && nsa_size_add(end, *end, bytes);
}

bool nsa_compress_layout(struct nsa_compress_scratch *out, const nsa_mlp *mlp,
                         const nsa_linear_engine *engine, void *base)
{
    bool rounds = engine->input == NSA_BF16;
    size_t elements = nsa_linear_elements(engine, mlp->in);
    size_t chunk = mlp->hidden < engine->chunk ? mlp->hidden : engine->chunk;
    char *memory = base;
    size_t x, hidden, rounded, y;

    out->bytes = 0;
    out->hidden_width = nsa_linear_width(engine, chunk);
    out->out_width = nsa_linear_width(engine, mlp->out);
    if (!add_room(&x, &out->bytes, engine, elements, NSA_ELEMENT_BYTES) ||
        !add_room(&hidden, &out->bytes, engine, out->hidden_width, sizeof *out->hidden) ||
        !add_room(&rounded, &out->bytes, engine, rounds ? out->hidden_width : 0,
                  sizeof *out->rounded) ||
        !add_room(&y, &out->bytes, engine, out->out_width, sizeof *out->y))
        return false;
    out->x_bytes = elements * NSA_ELEMENT_BYTES;
    if (!base)
        return true;
    out->x = memory + x;
    out->hidden = (float *)(void *)(memory + hidden);
    out->rounded = rounds ? (uint16_t *)(void *)(memory + rounded) : NULL;
    out->y = (float *)(void *)(memory + y);
    for (size_t row = 0; row < engine->tile; row++)
        out->hidden_rows[row] =
            rounds ? memory + rounded + row * out->hidden_width * sizeof *out->rounded
                   : memory + hidden + row * out->hidden_width * sizeof *out->hidden;
    return true;
}

void nsa_compress_place(const struct nsa_compress *compress, struct nsa_compress_scratch *scratch,
                        size_t place, const void *from, nsa_dtype dtype)
{
    const nsa_kernels *kernels = nsa_kernels_active();
    const nsa_linear_engine *engine = compress->engine;
    const nsa_mlp *mlp = &compress->mlp;
    size_t size = nsa_dtype_size(dtype);
    bool rounds = mlp->precision == NSA_PRECISION_BF16 && dtype != NSA_BF16;
    char *to = scratch->x + place * scratch->x_bytes;

    if (dtype == engine->input && !rounds && !engine->dense && mlp->in * size == scratch->x_bytes) {
        scratch->x_rows[place] = from;
        return;
    }
    scratch->x_rows[place] = to;
    if (engine->input == NSA_F32) {
        float *numbers = (float *)(void *)to;

        kernels->to_f32[dtype](numbers, from, mlp->in);
        if (rounds)
            kernels->round_bf16(numbers, mlp->in);
        return;
    }
    memset(to + scratch->x_bytes - NSA_ELEMENT_BYTES, 0, NSA_ELEMENT_BYTES);
    if (dtype == NSA_F32) {
        engine->round((uint16_t *)(void *)to, from, mlp->in);
        return;
    }
    for (size_t begin = 0; begin < mlp->in; begin += PIECE) {
        size_t count = mlp->in - begin < PIECE ? mlp->in - begin : PIECE;
        float piece[PIECE];

        kernels->to_f32[dtype](piece, (const char *)from + begin * size, count);
        engine->round((uint16_t *)(void *)to + begin, piece, count);
    }
}

/* Activate `rows` rows of a chunk of `count` hidden values, of which b1 are the biases. */
static void activate(const struct nsa_compress *compress,
                     const struct nsa_compress_scratch *scratch, const float *b1, size_t rows,
                     size_t count)
{
    const nsa_kernels *kernels = nsa_kernels_active();
    const nsa_mlp *mlp = &compress->mlp;

    for (size_t row = 0; row < rows; row++) {
        float *hidden = scratch->hidden + row * scratch->hidden_width;

        kernels->bias_activate[mlp->activation](hidden, b1, count);
        if (scratch->rounded) {
            uint16_t *rounded = scratch->rounded + row * scratch->hidden_width;

            compress->engine->round(rounded, hidden, count);
            if (count % 2)
                rounded[count] = 0;
        } else if (mlp->precision == NSA_PRECISION_BF16) {
            kernels->round_bf16(hidden, count);
        }
    }
}

void nsa_compress_tile(const struct nsa_compress *compress,
                       const struct nsa_compress_scratch *scratch, size_t rows)
{
    const nsa_linear_engine *engine = compress->engine;
    const nsa_mlp *mlp = &compress->mlp;
    size_t in = nsa_linear_elements(engine, mlp->in);
    bool far = in * mlp->hidden > NEAR_ELEMENTS;
    nsa_linear_part first = {.y = scratch->hidden,
                             .y_stride = scratch->hidden_width,
                             .x = scratch->x_rows,
                             .w_elements = in,
                             .k = in,
                             .rows = rows,
                             .far = far};
    nsa_linear_part second = {.y = scratch->y,
                              .y_stride = scratch->out_width,
                              .x = scratch->hidden_rows,
                              .w_elements = nsa_linear_elements(engine, mlp->hidden),
                              .rows = rows,
                              .columns = mlp->out,
                              .far = far};

    if (engine->padded && rows < engine->tile)
        memset(scratch->x + rows * scratch->x_bytes, 0, (engine->tile - rows) * scratch->x_bytes);
    for (size_t begin = 0; begin < mlp->hidden; begin += scratch->hidden_width) {
        size_t left = mlp->hidden - begin;
        size_t count = left < scratch->hidden_width ? left : scratch->hidden_width;

        first.w = compress->w1 + begin * in * NSA_ELEMENT_BYTES;
        first.columns = count;
        engine->run(&first);
        activate(compress, scratch, mlp->b1 + begin, rows, count);
        second.w =
            compress->w2 + nsa_linear_elements(engine, begin) * engine->panel * NSA_ELEMENT_BYTES;
        second.k = nsa_linear_elements(engine, count);
        second.add = begin > 0;
        engine->run(&second);
    }
    for (size_t row = 0; row < rows; row++)
        nsa_kernels_active()->add_bias(scratch->y + row * scratch->out_width, mlp->b2, mlp->out);
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
    const nsa_kernels *kernels = nsa_kernels_active();
    size_t out = gather->compress->mlp.out;

    nsa_compress_tile(gather->compress, &gather->scratch, gather->filled);
    for (size_t i = 0; i < gather->filled; i++) {
        const nsa_tensor *output = &gather->rows[i].request->outputs[0];
        size_t row_bytes = out * nsa_dtype_size(output->dtype);

        kernels->from_f32[output->dtype]((char *)output->data + gather->rows[i].row * row_bytes,
                                         gather->scratch.y + i * gather->scratch.out_width, out);
    }
    gather->filled = 0;
}

static void compress_run(const nsa_model *model, const nsa_span *spans, size_t count, void *scratch)
{
    struct gather gather;
    size_t in;
    size_t tile;

    gather.compress = model->weights;
    gather.filled = 0;
    in = gather.compress->mlp.in;
    tile = gather.compress->engine->tile;
    nsa_compress_layout(&gather.scratch, &gather.compress->mlp, gather.compress->engine, scratch);
    for (size_t s = 0; s < count; s++) {
        const nsa_request *request = spans[s].request;
        const nsa_tensor *input = &request->input;
        size_t row_bytes = in * nsa_dtype_size(input->dtype);

        for (size_t i = 0; i < spans[s].row_count; i++) {
            size_t row = spans[s].row_begin + i;

            nsa_compress_place(gather.compress, &gather.scratch, gather.filled,
                               (const char *)input->data + row * row_bytes, input->dtype);
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
    .rows_alike = true,
    .cheap_elements = 0,
    .output_weight = 1,
};
