/*
 * Matrix multiplication without kernels of our own: OpenBLAS, and plain C.
 *
 * OpenBLAS picks its kernel by the shape of the call, so a row's last bits depend on how many rows
 * come with it; with the number of rows fixed, short tiles padded, they don't, on most processors
 * for most tiles: the self-check of compress.c tries the engines in this order and takes the first
 * that holds. 32 rows is where a padded single row still costs little and a full tile is near the
 * speed of large ones.
 *
 * Kernels that have engines of their own (panels.h) come first: OpenBLAS packs the weights anew in
 * each call, so that it multiplies a few rows at a fraction of its speed, and is not invariant.
 */
#include "lib/ops/kernels/kernels.h"

#include <cblas.h>
#include <nsa/dtype.h>
#include <pthread.h>
#include <string.h>

#define LANES 16

static void openblas_run(const nsa_linear_part *part, size_t tile)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)tile, (int)part->columns,
                (int)part->k, 1.0f, (const float *)(const void *)part->x[0], (int)part->k,
                (const float *)(const void *)part->w, (int)part->k, 0.0f, part->y,
                (int)part->y_stride);
}

static void openblas_32(const nsa_linear_part *part)
{
    openblas_run(part, 32);
}

static void openblas_16(const nsa_linear_part *part)
{
    openblas_run(part, 16);
}

static void openblas_8(const nsa_linear_part *part)
{
    openblas_run(part, 8);
}

static void plain(const nsa_linear_part *part)
{
    nsa_linear_plain(part->y, (const float *)(const void *)part->x[0],
                     (const float *)(const void *)part->w, part->rows, part->k, part->columns);
}

/* w as it is, in float32, and all columns at once. */
#define UNPACKED .input = NSA_F32, .panel = 1, .chunk = NSA_WHOLE_CHUNK, .dense = true

static const nsa_linear_engine engines[] = {
    {.name = "openblas-32", UNPACKED, .tile = 32, .padded = true, .unit = 32, .run = openblas_32},
    {.name = "openblas-16", UNPACKED, .tile = 16, .padded = true, .unit = 16, .run = openblas_16},
    {.name = "openblas-8", UNPACKED, .tile = 8, .padded = true, .unit = 8, .run = openblas_8},
    {.name = "plain", UNPACKED, .tile = 8, .unit = 8, .run = plain},
};

const nsa_linear_engine *nsa_linear_engine_at(nsa_precision precision, size_t index)
{
    for (const nsa_linear_engine *const *own = nsa_kernels_active()->linear; *own; own++) {
        bool fits = (*own)->input == NSA_F32 || precision == NSA_PRECISION_BF16;

        if (fits && (!(*own)->supported || (*own)->supported()) && index-- == 0)
            return *own;
    }
    return index < sizeof engines / sizeof *engines ? &engines[index] : NULL;
}

/*
 * Rows (count, k) of w as the columns of dst (elements, panel). A row's next cache line is read to
 * its end before the next row's: all begin at about the same place of a cache.
 */
static inline __attribute__((always_inline)) void
pack_panel(uint32_t *dst, const float *w, size_t k, size_t count, size_t panel, const bool pairs)
{
    const size_t step = pairs ? 2 : 1;

    for (size_t begin = 0; begin < k; begin += LANES) {
        size_t end = k - begin < LANES ? k : begin + LANES;

        for (size_t column = 0; column < count; column++) {
            for (size_t i = begin; i < end; i += step) {
                const float *from = w + column * k + i;
                uint32_t *to = dst + i / step * panel + column;

                if (pairs)
                    nsa_from_f32(to, NSA_BF16, from, k - i < 2 ? 1 : 2);
                else
                    memcpy(to, from, sizeof *to);
            }
        }
    }
}

void nsa_linear_pack(void *dst, const nsa_linear_engine *engine, const float *w, size_t k,
                     size_t columns)
{
    size_t panel = engine->panel;
    size_t panel_elements = panel * nsa_linear_elements(engine, k);
    uint32_t *to = dst;

    for (size_t begin = 0; begin < columns; begin += panel) {
        size_t count = columns - begin < panel ? columns - begin : panel;

        if (count < panel || k % 2 == 1)
            memset(to, 0, panel_elements * NSA_ELEMENT_BYTES);
        if (engine->input == NSA_BF16)
            pack_panel(to, w + begin * k, k, count, panel, true);
        else
            pack_panel(to, w + begin * k, k, count, panel, false);
        to += panel_elements;
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

void nsa_linear_plain(float *y, const float *x, const float *w, size_t rows, size_t k,
                      size_t columns)
{
    for (size_t column = 0; column < columns; column++) {
        for (size_t row = 0; row < rows; row++)
            y[row * columns + column] = dot(x + row * k, w + column * k, k);
    }
}
