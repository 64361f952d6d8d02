/*
 * Multiplication of bfloat16 by packed weights on the matrix unit of Intel's AMX.
 *
 * One instruction multiplies 16 rows by 16 columns over 16 elements, which are pairs. The panels
 * are those of panels.h: 16 columns of one are a tile whose rows lie a panel apart. Two tiles of
 * rows and two of columns make four of sums, which leaves each loaded tile two uses. The sums of a
 * row are the same however many rows come with it, and go over k in blocks as in panels.h.
 */
#if defined(__x86_64__)
#include "lib/ops/kernels/kernels.h"

#include <immintrin.h>
#include <string.h>

#define PANEL ((size_t)64)
#define SIDE ((size_t)16) /* rows, columns and elements of a tile */
#define LINE_BYTES (SIDE * NSA_ELEMENT_BYTES)
#define STEP_BYTES (PANEL * NSA_ELEMENT_BYTES)
#define K_BLOCK ((size_t)256)

/* Tile registers: sums of (rows, columns) 00 01 10 11, then two of x and two of w. */
#define SUMS_00 0
#define SUMS_01 1
#define SUMS_10 2
#define SUMS_11 3
#define X_0 4
#define X_1 5
#define W_0 6
#define W_1 7
#define TILE_COUNT 8

/* Have what was written be in memory: the compiler does not know that tiles are loaded from it. */
#define WRITTEN() __asm__ volatile("" ::: "memory")

/* What LDTILECFG reads, by Intel's manual. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[SIDE];
    uint8_t rows[SIDE];
};
_Static_assert(sizeof(struct tile_config) == 64, "as the processor reads it");

/* Two tiles of rows by two of columns, for k elements of a block. */
struct block {
    const char *x; /* (rows, k), its rows x_stride bytes apart */
    size_t x_stride;
    const char *w; /* (k, PANEL) */
    size_t k;
    size_t rows; /* 1 ... 2 * SIDE */
    float *y;
    size_t y_stride; /* floats */
    bool add;
};

/* Shape the tiles for so many rows in all, and zero them. */
static void configure(size_t rows)
{
    size_t first = rows < SIDE ? rows : SIDE;
    size_t second = rows > SIDE ? rows - SIDE : 0;
    struct tile_config config = {.palette = 1};

    for (size_t t = 0; t < TILE_COUNT; t++) {
        config.row_bytes[t] = LINE_BYTES;
        config.rows[t] = SIDE;
    }
    config.rows[SUMS_00] = config.rows[SUMS_01] = config.rows[X_0] = (uint8_t)first;
    /* A tile has at least one row. */
    config.rows[SUMS_10] = config.rows[SUMS_11] = config.rows[X_1] =
        (uint8_t)(second > 0 ? second : 1);
    WRITTEN();
    _tile_loadconfig(&config);
}

/* Add what `x` (rows, SIDE) and `w` (SIDE, 2 tiles of columns) make to the sums. */
static void multiply(const struct block *b, const char *x, size_t x_stride, const char *w,
                     size_t w_stride)
{
    _tile_loadd(W_0, w, w_stride);
    _tile_loadd(W_1, w + LINE_BYTES, w_stride);
    _tile_loadd(X_0, x, x_stride);
    _tile_dpbf16ps(SUMS_00, X_0, W_0);
    _tile_dpbf16ps(SUMS_01, X_0, W_1);
    if (b->rows <= SIDE)
        return;
    _tile_loadd(X_1, x + SIDE * x_stride, x_stride);
    _tile_dpbf16ps(SUMS_10, X_1, W_0);
    _tile_dpbf16ps(SUMS_11, X_1, W_1);
}

/* The last k elements, fewer than a tile has, filled up with zeros. */
static void multiply_rest(const struct block *b, size_t begin)
{
    char x[2 * SIDE][LINE_BYTES] = {{0}};
    char w[SIDE][2 * LINE_BYTES] = {{0}};

    for (size_t row = 0; row < b->rows; row++)
        memcpy(x[row], b->x + row * b->x_stride + begin * NSA_ELEMENT_BYTES,
               (b->k - begin) * NSA_ELEMENT_BYTES);
    for (size_t i = begin; i < b->k; i++)
        memcpy(w[i - begin], b->w + i * STEP_BYTES, 2 * LINE_BYTES);
    WRITTEN();
    multiply(b, x[0], LINE_BYTES, w[0], 2 * LINE_BYTES);
    WRITTEN();
}

static void store(const struct block *b)
{
    float sums[2 * SIDE][2 * SIDE];
    size_t stride = sizeof sums[0];

    _tile_stored(SUMS_00, sums[0], stride);
    _tile_stored(SUMS_01, sums[0] + SIDE, stride);
    if (b->rows > SIDE) {
        _tile_stored(SUMS_10, sums[SIDE], stride);
        _tile_stored(SUMS_11, sums[SIDE] + SIDE, stride);
    }
    for (size_t row = 0; row < b->rows; row++) {
        for (size_t half = 0; half < 2; half++) {
            float *to = b->y + row * b->y_stride + half * SIDE;
            __m512 sum = _mm512_loadu_ps(sums[row] + half * SIDE);

            _mm512_storeu_ps(to, b->add ? _mm512_add_ps(_mm512_loadu_ps(to), sum) : sum);
        }
    }
}

static void multiply_block(const struct block *b)
{
    size_t i = 0;

    _tile_zero(SUMS_00);
    _tile_zero(SUMS_01);
    _tile_zero(SUMS_10);
    _tile_zero(SUMS_11);
    for (; i + SIDE <= b->k; i += SIDE)
        multiply(b, b->x + i * NSA_ELEMENT_BYTES, b->x_stride, b->w + i * STEP_BYTES, STEP_BYTES);
    if (i < b->k)
        multiply_rest(b, i);
    store(b);
}

/* One block of k of one panel, for all rows. */
static void multiply_panel(const nsa_linear_part *part, size_t panel, size_t begin)
{
    size_t configured = 0;

    for (size_t row = 0; row < part->rows; row += 2 * SIDE) {
        struct block b = {
            .x = part->x[row] + begin * NSA_ELEMENT_BYTES,
            .x_stride = part->rows > 1 ? (size_t)(part->x[1] - part->x[0]) : LINE_BYTES,
            .k = part->k - begin < K_BLOCK ? part->k - begin : K_BLOCK,
            .rows = part->rows - row < 2 * SIDE ? part->rows - row : 2 * SIDE,
            .y_stride = part->y_stride,
            .add = part->add || begin > 0,
        };

        if (b.rows != configured)
            configure(b.rows);
        configured = b.rows;
        for (size_t column = 0; column < PANEL; column += 2 * SIDE) {
            b.w = part->w + (panel * part->w_elements + begin) * STEP_BYTES +
                  column * NSA_ELEMENT_BYTES;
            b.y = part->y + row * part->y_stride + panel * PANEL + column;
            multiply_block(&b);
        }
    }
}

static void run(const nsa_linear_part *part)
{
    size_t panels = (part->columns + PANEL - 1) / PANEL;

    for (size_t begin = 0; begin < part->k; begin += K_BLOCK) {
        for (size_t panel = 0; panel < panels; panel++)
            multiply_panel(part, panel, begin);
    }
    _tile_release();
}

/* A small model takes up to 32 rows in about the time of waking another worker. */
const nsa_linear_engine nsa_panels_amx = {
    .name = "panels-amx",
    .input = NSA_BF16,
    .tile = NSA_MAX_TILE,
    .dense = true,
    .unit = 32,
    .panel = PANEL,
    .chunk = 2 * K_BLOCK,
    .run = run,
    .round = nsa_round_avx512bf16,
    .supported = nsa_cpu_has_amx,
};
#endif
