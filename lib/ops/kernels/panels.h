/*
 * Multiplication by packed weights, included once for each ISA by a file that defines
 *
 *   vec           a vector of LANES floats
 *   VEC_LOAD, VEC_STORE (any alignment), VEC_SPREAD (one float to all lanes),
 *   VEC_FMA(a, b, c) = a*b + c, VEC_ADD
 *   PANEL_VECS    vectors across a panel
 *   ENGINE, ENGINE_NAME
 *
 * TILE_ROWS * PANEL_VECS accumulators fill the registers. The sums of a row go over k one by one,
 * in the same order however many rows come with it: fewer rows run the same operations on fewer
 * accumulators. So a row's bits can't depend on its batch. Sums go in blocks of K_BLOCK, which
 * keeps their error short and a block of weights in the cache.
 */
#include "lib/ops/kernels/kernels.h"

#include <string.h>

#define PANEL (LANES * PANEL_VECS)
#define TILE_ROWS 6
#define K_BLOCK 256

/*
 * y (rows, PANEL) += x (rows, k) w for a part of a panel, w (k, PANEL); rows of y and x follow each
 * other at y_stride and x_stride floats. `rows` is a constant in each call, to be unrolled.
 */
static inline __attribute__((always_inline)) void tile(float *y, size_t y_stride, const float *x,
                                                       size_t x_stride, const float *w, size_t k,
                                                       const size_t rows)
{
    vec sums[TILE_ROWS][PANEL_VECS];

    for (size_t r = 0; r < rows; r++) {
        for (size_t v = 0; v < PANEL_VECS; v++)
            sums[r][v] = VEC_SPREAD(0.0f);
    }
    for (size_t i = 0; i < k; i++) {
        vec weights[PANEL_VECS];

        for (size_t v = 0; v < PANEL_VECS; v++)
            weights[v] = VEC_LOAD(w + i * PANEL + v * LANES);
        for (size_t r = 0; r < rows; r++) {
            vec value = VEC_SPREAD(x[r * x_stride + i]);

            for (size_t v = 0; v < PANEL_VECS; v++)
                sums[r][v] = VEC_FMA(value, weights[v], sums[r][v]);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t v = 0; v < PANEL_VECS; v++) {
            float *to = y + r * y_stride + v * LANES;

            VEC_STORE(to, VEC_ADD(VEC_LOAD(to), sums[r][v]));
        }
    }
}

/* tile() for any number of rows. */
static void tiles(float *y, size_t y_stride, const float *x, size_t x_stride, const float *w,
                  size_t k, size_t rows)
{
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
        tile(y, y_stride, x, x_stride, w, k, TILE_ROWS);
        y += TILE_ROWS * y_stride;
        x += TILE_ROWS * x_stride;
    }
    switch (rows) {
    case 5:
        tile(y, y_stride, x, x_stride, w, k, 5);
        break;
    case 4:
        tile(y, y_stride, x, x_stride, w, k, 4);
        break;
    case 3:
        tile(y, y_stride, x, x_stride, w, k, 3);
        break;
    case 2:
        tile(y, y_stride, x, x_stride, w, k, 2);
        break;
    case 1:
        tile(y, y_stride, x, x_stride, w, k, 1);
        break;
    default:
        break;
    }
}

static void run(float *y, const float *x, size_t x_stride, const float *w, size_t rows, size_t in,
                size_t out)
{
    size_t panels = (out + PANEL - 1) / PANEL;
    size_t y_stride = panels * PANEL;

    memset(y, 0, rows * y_stride * sizeof *y);
    for (size_t begin = 0; begin < in; begin += K_BLOCK) {
        size_t k = in - begin < K_BLOCK ? in - begin : K_BLOCK;

        for (size_t p = 0; p < panels; p++)
            tiles(y + p * PANEL, y_stride, x + begin, x_stride, w + (p * in + begin) * PANEL, k,
                  rows);
    }
}

/* Sixteen rows of a small model take about as long as waking another worker. */
const nsa_linear_engine ENGINE = {
    .name = ENGINE_NAME,
    .tile = NSA_MAX_TILE,
    .unit = 16,
    .panel = PANEL,
    .run = run,
};
