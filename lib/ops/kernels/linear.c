/*
 * Matrix multiplication by tiles of a fixed number of rows, short ones padded.
 *
 * OpenBLAS picks its kernel by the shape of the call, so a row's last bits depend on how many rows
 * come with it; with the number of rows fixed they don't, on most processors for most tiles: the
 * self-check of compress.c tries the engines in this order and takes the first that holds. 32 rows
 * is where a padded single row still costs little and a full tile is near the speed of large ones.
 */
#include "lib/ops/kernels/kernels.h"

#include <cblas.h>
#include <pthread.h>

#define LANES 16

static void openblas_run(float *y, const float *x, const float *w, size_t tile, size_t in,
                         size_t out)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)tile, (int)out, (int)in, 1.0f, x,
                (int)in, w, (int)in, 0.0f, y, (int)out);
}

static void openblas_32(float *y, const float *x, const float *w, size_t in, size_t out)
{
    openblas_run(y, x, w, 32, in, out);
}

static void openblas_16(float *y, const float *x, const float *w, size_t in, size_t out)
{
    openblas_run(y, x, w, 16, in, out);
}

static void openblas_8(float *y, const float *x, const float *w, size_t in, size_t out)
{
    openblas_run(y, x, w, 8, in, out);
}

static void plain_8(float *y, const float *x, const float *w, size_t in, size_t out)
{
    nsa_linear_plain(y, x, w, 8, in, out);
}

const nsa_linear_engine nsa_linear_engines[] = {
    {"openblas-32", 32, openblas_32},
    {"openblas-16", 16, openblas_16},
    {"openblas-8", 8, openblas_8},
    {"plain-8", 8, plain_8},
};
const size_t nsa_linear_engine_count = sizeof nsa_linear_engines / sizeof *nsa_linear_engines;

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
