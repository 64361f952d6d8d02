/*
 * Kernels: plain pointers and sizes, no shapes, no errors, no allocation.
 *
 * A kernel that is not called `ref` comes in a version for each ISA and is reached through the
 * table in use. All versions of an element-wise kernel give the same bits: they are one source,
 * elementwise.h, compiled with different ISA flags and without contraction of a*b+c.
 */
#ifndef NSA_KERNELS_H
#define NSA_KERNELS_H

#include <nsa/model.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nsa_linear_engine nsa_linear_engine;

typedef struct nsa_kernels {
    const char *name;
    const nsa_linear_engine *linear; /* NULL: OpenBLAS multiplies */

    /* x[i] = activation(x[i] + bias[i]) for i < count. x and bias don't overlap. */
    void (*bias_activate[NSA_ACTIVATION_COUNT])(float *x, const float *bias, size_t count);

    /* dst[i] = a[i] + b[i] for i < count. dst overlaps neither. */
    void (*add)(float *dst, const float *a, const float *b, size_t count);

    /* Round to bfloat16 (nearest even) and widen again, in place. */
    void (*round_bf16)(float *x, size_t count);
} nsa_kernels;

extern const nsa_kernels nsa_kernels_portable;
extern const nsa_kernels nsa_kernels_avx2;   /* AVX2, FMA */
extern const nsa_kernels nsa_kernels_avx512; /* AVX-512 F, BW, CD, DQ, VL, and FMA */

/* The table in use: lib/cpu.c. */
const nsa_kernels *nsa_kernels_active(void);

/* Rows of the longest tile. */
#define NSA_MAX_TILE 128

/*
 * Matrix multiplication of a tile of rows: y = x w^T. A row's result may depend on nothing but the
 * row and w; the self-check of a model sees whether that holds here.
 */
struct nsa_linear_engine {
    const char *name;
    size_t tile;  /* rows of a call: 1 up to this many, at most NSA_MAX_TILE */
    bool padded;  /* always computes `tile` rows, of which only `rows` are of use */
    size_t unit;  /* rows below which splitting a batch over workers gains nothing */
    size_t panel; /* columns that w is packed by, see nsa_linear_pack(); 1: w as it is */

    /*
     * x (rows, in), its rows x_stride floats apart; y (rows, out rounded up to a multiple of
     * `panel`), dense; w as nsa_linear_pack() leaves it, or (out, in). When `padded`, x and y have
     * `tile` rows. y overlaps neither.
     */
    void (*run)(float *y, const float *x, size_t x_stride, const float *w, size_t rows, size_t in,
                size_t out);
};

extern const nsa_linear_engine nsa_panels_avx2;
extern const nsa_linear_engine nsa_panels_avx512;

/*
 * The engines, the preferred first, NULL past the last: the one of the kernels in use, if they have
 * one, then OpenBLAS by tiles, then plain C, which is always right.
 */
const nsa_linear_engine *nsa_linear_engine_at(size_t index);

/* `out` rounded up to whole panels. Overflow is the caller's to exclude. */
static inline size_t nsa_linear_width(const nsa_linear_engine *engine, size_t out)
{
    return (out + engine->panel - 1) / engine->panel * engine->panel;
}

/* Pack w (out, in) into panels of `panel` columns: dst (panels, in, panel), the last filled up with
 * zeros. */
void nsa_linear_pack(float *dst, const float *w, size_t in, size_t out, size_t panel);

/* Hold OpenBLAS to the calling thread. Thread-safe, idempotent. */
void nsa_linear_init(void);

/* y = x w^T in plain C for `tile` rows, x and y dense, w (out, in). */
void nsa_linear_plain(float *y, const float *x, const float *w, size_t tile, size_t in, size_t out);

/*
 * The order of scores as unsigned integers: NaN above all and equal to itself, then +inf to -inf,
 * with -0.0 equal to 0.0.
 */
static inline uint32_t nsa_score_key(float score)
{
    union {
        float number;
        uint32_t bits;
    } score_bits = {.number = score};
    uint32_t bits = score_bits.bits;

    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return UINT32_MAX;
    if (bits == 0x80000000u)
        bits = 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/*
 * indices[0..k) = positions of the k greatest of scores[0..n), greatest first, the lowest index
 * first among equals; k <= n <= UINT32_MAX. `scores` are n elements of a floating dtype, any
 * alignment. Nothing but `indices` is written.
 */
void nsa_select_row(int64_t *indices, const void *scores, nsa_dtype dtype, size_t n, size_t k);
void nsa_select_row_ref(int64_t *indices, const float *scores, size_t n, size_t k);

/* The weights of a compress model as the reference reads them. */
typedef struct nsa_mlp {
    const float *w1; /* (hidden, in) */
    const float *b1; /* (hidden) */
    const float *w2; /* (out, hidden) */
    const float *b2; /* (out) */
    size_t in, hidden, out;
    nsa_activation activation;
    nsa_precision precision;
} nsa_mlp;

/* activation(x) in double precision. */
double nsa_activation_ref(double x, nsa_activation activation);

/*
 * One row in double precision: y (out) from x (in), and `scale` (out): the sum of the magnitudes of
 * what each output sums, which any float32 evaluation's error is proportional to.
 */
void nsa_compress_row_ref(double *y, double *scale, const float *x, const nsa_mlp *mlp);

/* y[i] = x[i] + e[i] for i < dim, in double precision, rounded once. */
void nsa_posembed_row_ref(float *y, const float *x, const float *e, size_t dim);

#endif
