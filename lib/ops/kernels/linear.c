/*
 * Matrix multiplication without kernels of our own: OpenBLAS, and plain C.
 *
 * OpenBLAS picks its kernel by the shape of the call, so a row's last bits depend on how many rows
 * come with it; with the number of rows fixed, short tiles padded, they don't, on most processors
 * for most tiles: the self-check of compress.c tries the engines in this order and takes the first
 * that holds. 32 rows is where a padded single row still costs little and a full tile is near the
 * speed of large ones.
 *
 * Kernels that have an engine of their own (panels.h) come first. Measured on an Emerald Rapids
 * core, 256 x 512 x 256: panels-avx512 172 GFLOP/s, OpenBLAS 98 by its SkylakeX kernel and 31 by
 * the one that 0.3.21 takes there by itself, as it does not know the processor; one row: 64 and
 * below 1 of 32 padded ones.
 */
#include "lib/ops/kernels/kernels.h"

#include <cblas.h>
#include <pthread.h>

#define LANES 16

static void openblas_run(float *y, const float *x, size_t x_stride, const float *w, size_t tile,
                         size_t in, size_t out)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)tile, (int)out, (int)in, 1.0f, x,
                (int)x_stride, w, (int)in, 0.0f, y, (int)out);
}

static void openblas_32(float *y, const float *x, size_t x_stride, const float *w, size_t rows,
                        size_t in, size_t out)
{
    (void)rows;
    openblas_run(y, x, x_stride, w, 32, in, out);
}

static void openblas_16(float *y, const float *x, size_t x_stride, const float *w, size_t rows,
                        size_t in, size_t out)
{
    (void)rows;
    openblas_run(y, x, x_stride, w, 16, in, out);
}

static void openblas_8(float *y, const float *x, size_t x_stride, const float *w, size_t rows,
                       size_t in, size_t out)
{
    (void)rows;
    openblas_run(y, x, x_stride, w, 8, in, out);
}

/* Only ever given dense rows, as the widths of engines without panels are. */
static void plain(float *y, const float *x, size_t x_stride, const float *w, size_t rows, size_t in,
                  size_t out)
{
    (void)x_stride;
    nsa_linear_plain(y, x, w, rows, in, out);
}

static const nsa_linear_engine engines[] = {
    {"openblas-32", 32, true, 32, 1, openblas_32},
    {"openblas-16", 16, true, 16, 1, openblas_16},
    {"openblas-8", 8, true, 8, 1, openblas_8},
    {"plain", 8, false, 8, 1, plain},
};

const nsa_linear_engine *nsa_linear_engine_at(size_t index)
{
    const nsa_linear_engine *own = nsa_kernels_active()->linear;

    if (own && index-- == 0)
        return own;
    return index < sizeof engines / sizeof *engines ? &engines[index] : NULL;
}

void nsa_linear_pack(float *dst, const float *w, size_t in, size_t out, size_t panel)
{
    for (size_t begin = 0; begin < out; begin += panel) {
        for (size_t i = 0; i < in; i++) {
            for (size_t column = begin; column < begin + panel; column++)
                *dst++ = column < out ? w[column * in + i] : 0.0f;
        }
    }
}

static void hold_to_one_thread(void)
{
    openblas_set_num_threads(1);
}

void nsa_linear_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, hold_to_one_thread);
}

/* A dot product in LANES partial sums: short error, and a loop that vectorises. */
static float dot(const float *a, const float *b, size_t count)
{
    float sums[LANES] = {0};
    size_t i = 0;

    for (; i + LANES <= count; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++)
            sums[lane] += a[i + lane] * b[i + lane];
    }
    for (size_t lane = 0; i < count; i++, lane++)
        sums[lane] += a[i] * b[i];
    for (size_t width = LANES / 2; width > 0; width /= 2) {
        for (size_t lane = 0; lane < width; lane++)
            sums[lane] += sums[lane + width];
    }
    return sums[0];
}

void nsa_linear_plain(float *y, const float *x, const float *w, size_t tile, size_t in, size_t out)
{
    for (size_t o = 0; o < out; o++) {
        for (size_t row = 0; row < tile; row++)
            y[row * out + o] = dot(x + row * in, w + o * in, in);
    }
}
