/*
 * Multiplication by packed weights, included once for each ISA by a file that defines
 *
 *   ENGINE, ENGINE_NAME, ENGINE_INPUT (of ENGINE_INPUT_BYTES), ENGINE_ROUND,
 *   ENGINE_SUPPORTED
 *                 as in nsa_linear_engine
 *   vec           a vector of LANES float sums
 *   VEC_ZERO(), VEC_LOAD, VEC_STORE (any alignment), VEC_ADD
 *   operand       a vector of LANES elements, of what is multiplied: a float, or two bfloat16
 *   OPERAND_LOAD (any alignment), OPERAND_SPREAD (one element to all lanes)
 *   MULTIPLY_ADD(sum, x, w)   sum plus the products of the lanes
 *   HOLD(w)       have `w` stay in a register
 *   PANEL_VECS    vectors across a panel
 *
 * TILE_ROWS * PANEL_VECS sums, the weights of a step and an element of x fill the registers; each
 * step loads the weights once for all rows. Measured on a Zen 5 core: 6 x 4 vectors of AVX-512 run
 * at 0.97 of the peak from the second-level cache. Without HOLD gcc has each of 4 rows load the
 * weights again, and they run at 0.7.
 *
 * The sums of a row go over k one by one, in the same order however many rows come with it: fewer
 * rows run the same operations on fewer sums. So a row's bits can't depend on its batch. Sums go in
 * blocks of K_BLOCK, which keeps their error short and a block of weights in the cache.
 */
#include "lib/ops/kernels/kernels.h"

#include <string.h>

#define PANEL (LANES * PANEL_VECS)
#define TILE_ROWS 6
#define MAX_PANELS 4 /* of a tile */
#define K_BLOCK 256

#define VEC_BYTES (LANES * NSA_ELEMENT_BYTES)
#define STEP_BYTES (PANEL * NSA_ELEMENT_BYTES) /* of a panel's weights */
#define LINE_BYTES 64

/* Steps from one asking for weights that come later to the next. */
#define STRIDE 8
#define STRIDE_LINES (STRIDE * STEP_BYTES / LINE_BYTES)

/* How far ahead of themselves panels that are read together are asked for. */
#define AHEAD_BYTES 4096

/* What a tile multiplies: y (rows, panels, PANEL) = or += x (rows, k) w, with w (panels, k, PANEL).
 */
struct tile {
    float *y;
    size_t y_stride;      /* floats from row to row */
    const char *const *x; /* (rows) */
    size_t x_offset;      /* bytes into each row */
    const char *w;
    size_t w_stride; /* bytes from panel to panel */
    size_t k;
    bool add;
    bool far;          /* whether w is to be asked for before it is needed */
    const char *next;  /* weights to be multiplied after these */
    size_t next_lines; /* of them to ask for in each STRIDE */
};

static inline float load_f32(const char *from)
{
    float value;

    memcpy(&value, from, sizeof value);
    return value;
}

static inline int32_t load_i32(const char *from)
{
    int32_t value;

    memcpy(&value, from, sizeof value);
    return value;
}

typedef vec tile_sums[MAX_PANELS][TILE_ROWS][PANEL_VECS];

static inline __attribute__((always_inline)) void step(tile_sums sums, const struct tile *t,
                                                       size_t i, size_t rows, size_t panels)
{
#pragma GCC unroll 8
    for (size_t p = 0; p < panels; p++) {
        operand weights[PANEL_VECS];

#pragma GCC unroll 8
        for (size_t v = 0; v < PANEL_VECS; v++) {
            weights[v] = OPERAND_LOAD(t->w + p * t->w_stride + i * STEP_BYTES + v * VEC_BYTES);
            HOLD(weights[v]);
        }
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            operand value = OPERAND_SPREAD(t->x[r] + t->x_offset + i * NSA_ELEMENT_BYTES);

#pragma GCC unroll 8
            for (size_t v = 0; v < PANEL_VECS; v++)
                sums[p][r][v] = MULTIPLY_ADD(sums[p][r][v], value, weights[v]);
        }
    }
}

/*
 * Ask for the weights that the steps after `i` need. Several panels are as many streams, which the
 * memory serves well as they are; for one panel, each of the tiles that share it asks for a part of
 * the next one, so that memory is read while all of them compute.
 */
static inline __attribute__((always_inline)) void ask_ahead(const struct tile *t, size_t i,
                                                            const size_t panels)
{
    if (panels == 1) {
        const char *from = t->next + i / STRIDE * t->next_lines * LINE_BYTES;

        for (size_t line = 0; line < t->next_lines; line++)
            __builtin_prefetch(from + line * LINE_BYTES);
        return;
    }
#pragma GCC unroll 8
    for (size_t p = 0; p < panels; p++) {
        for (size_t line = 0; line < STRIDE_LINES; line++)
            __builtin_prefetch(t->w + p * t->w_stride + i * STEP_BYTES + AHEAD_BYTES +
                               line * LINE_BYTES);
    }
}

/* `rows` and `panels` are constants in each call, to be unrolled. */
static inline __attribute__((always_inline)) void multiply(const struct tile *t, size_t rows,
                                                           size_t panels)
{
    tile_sums sums;
    size_t i = 0;

#pragma GCC unroll 8
    for (size_t p = 0; p < panels; p++) {
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 8
            for (size_t v = 0; v < PANEL_VECS; v++)
                sums[p][r][v] = VEC_ZERO();
        }
    }
    for (; i + STRIDE <= t->k; i += STRIDE) {
        if (t->far)
            ask_ahead(t, i, panels);
        for (size_t j = i; j < i + STRIDE; j++)
            step(sums, t, j, rows, panels);
    }
    for (; i < t->k; i++)
        step(sums, t, i, rows, panels);
#pragma GCC unroll 8
    for (size_t p = 0; p < panels; p++) {
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 8
            for (size_t v = 0; v < PANEL_VECS; v++) {
                float *to = t->y + r * t->y_stride + p * PANEL + v * LANES;

                VEC_STORE(to, t->add ? VEC_ADD(VEC_LOAD(to), sums[p][r][v]) : sums[p][r][v]);
            }
        }
    }
}

/* Functions of their own, so that each has the registers for itself. */
#define DEFINE_TILE(rows, panels)                                                                  \
    static __attribute__((noinline)) void tile_##rows##x##panels(const struct tile *t)             \
    {                                                                                              \
        multiply(t, rows, panels);                                                                 \
    }

DEFINE_TILE(1, 1)
DEFINE_TILE(2, 1)
DEFINE_TILE(3, 1)
DEFINE_TILE(4, 1)
DEFINE_TILE(5, 1)
DEFINE_TILE(6, 1)
DEFINE_TILE(1, 4)
DEFINE_TILE(2, 2)

static void (*const tiles[TILE_ROWS + 1])(const struct tile *) = {
    NULL, tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1,
};

/* One panel for all rows; *t is the first tile's, and is used up. */
static void multiply_rows(struct tile *t, size_t rows)
{
    size_t tiles_left = (rows + TILE_ROWS - 1) / TILE_ROWS;

    t->next_lines = (STRIDE_LINES + tiles_left - 1) / tiles_left;
    for (; tiles_left > 0; tiles_left--) {
        size_t count = (rows + tiles_left - 1) / tiles_left; /* all of about one size */

        tiles[count](t);
        t->y += count * t->y_stride;
        t->x += count;
        t->next += t->k / STRIDE * t->next_lines * LINE_BYTES;
        rows -= count;
    }
}

/*
 * One or two rows don't have sums enough to keep the processor's multipliers busy: they take
 * several panels at a time. Returns for how many panels from the first on it did so.
 */
static size_t multiply_few_rows(struct tile *t, size_t rows, size_t panels)
{
    size_t together = rows == 1 ? 4 : 2;
    size_t done = 0;

    for (; rows <= 2 && done + together <= panels; done += together) {
        (rows == 1 ? tile_1x4 : tile_2x2)(t);
        t->y += together * PANEL;
        t->w += together * t->w_stride;
    }
    return done;
}

static void run(const nsa_linear_part *part)
{
    size_t panels = (part->columns + PANEL - 1) / PANEL;
    size_t w_stride = part->w_elements * STEP_BYTES;

    for (size_t begin = 0; begin < part->k; begin += K_BLOCK) {
        const char *w = part->w + begin * STEP_BYTES;
        struct tile first = {
            .y = part->y,
            .y_stride = part->y_stride,
            .x = part->x,
            .x_offset = begin * NSA_ELEMENT_BYTES,
            .w = w,
            .w_stride = w_stride,
            .k = part->k - begin < K_BLOCK ? part->k - begin : K_BLOCK,
            .add = part->add || begin > 0,
            .far = part->far,
        };

        for (size_t p = multiply_few_rows(&first, part->rows, panels); p < panels; p++) {
            struct tile t = first;

            t.y = part->y + p * PANEL;
            t.w = w + p * w_stride;
            /* Past the last panel is the same place of the next part, or nothing, which is no
             * harm to ask for. */
            t.next = p + 1 < panels ? t.w + w_stride : w + t.k * STEP_BYTES;
            multiply_rows(&t, part->rows);
        }
    }
}

/* Sixteen rows of a small model take about as long as waking another worker. */
const nsa_linear_engine ENGINE = {
    .name = ENGINE_NAME,
    .input = ENGINE_INPUT,
    .tile = NSA_MAX_TILE,
    .unit = 16,
    .panel = PANEL,
    .chunk = K_BLOCK * NSA_ELEMENT_BYTES / ENGINE_INPUT_BYTES,
    .run = run,
    .round = ENGINE_ROUND,
    .supported = ENGINE_SUPPORTED,
};
