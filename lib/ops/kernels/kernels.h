/*
 * Kernels: plain pointers and sizes, no shapes, no errors, no allocation.
 *
 * A kernel that is not called `ref` comes in a version for each ISA and is reached through the
 * table in use. The versions of an element-wise kernel are one source, elementwise.h, compiled with
 * different ISA flags; those that round give the same bits, and so do the activations of all ISAs
 * that multiply and add at once (AVX2, AVX-512).
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
    /* Engines of its own, the preferred first, NULL past the last. */
    const nsa_linear_engine *const *linear;

    /* x[i] = activation(x[i] + bias[i]) for i < count. x and bias don't overlap. */
    void (*bias_activate[NSA_ACTIVATION_COUNT])(float *x, const float *bias, size_t count);

    /* y[i] += bias[i] for i < count, with one NaN for all: which of several survives a sum is up to
     * how it was compiled. y and bias don't overlap. */
    void (*add_bias)(float *y, const float *bias, size_t count);

    /* dst[i] = a[i] + b[i] for i < count. dst overlaps neither. */
    void (*add)(float *dst, const float *a, const float *b, size_t count);

    /* Round to bfloat16 (nearest even) and widen again, in place. */
    void (*round_bf16)(float *x, size_t count);

    /* nsa_to_f32() and nsa_from_f32(), by the floating dtype. */
    void (*const *to_f32)(float *restrict dst, const void *restrict src, size_t count);
    void (*const *from_f32)(void *restrict dst, const float *restrict src, size_t count);

    /*
     * indices (rows, k) = positions of the k greatest of each row of scores (rows, n), the greatest
     * first, the lowest index first among equals; 1 <= k <= n <= UINT32_MAX. `scores` is of a
     * floating dtype, any alignment. Nothing but `indices` is written. At most 64 KiB of stack.
     */
    void (*select_rows)(int64_t *indices, const void *scores, nsa_dtype dtype, size_t rows,
                        size_t n, size_t k);
} nsa_kernels;

extern const nsa_kernels nsa_kernels_portable;
extern const nsa_kernels nsa_kernels_avx2;   /* AVX2, FMA */
extern const nsa_kernels nsa_kernels_avx512; /* AVX-512 F, BW, CD, DQ, VL, and FMA */

/* The table in use: lib/cpu.c. */
const nsa_kernels *nsa_kernels_active(void);

/* Whether the processor has AVX-512 with AVX512-BF16; and AMX with bfloat16, which this asks the
 * system to let the process use. lib/cpu.c. */
bool nsa_cpu_has_avx512bf16(void);
bool nsa_cpu_has_amx(void);

/* Rows of the longest tile. */
#define NSA_MAX_TILE 128

/* An element of what an engine multiplies: a float32, or two bfloat16. */
#define NSA_ELEMENT_BYTES 4

/* What one call of an engine multiplies: y (rows, columns) = x (rows, k) w^T, or += with `add`. */
typedef struct nsa_linear_part {
    float *y; /* rows y_stride floats apart, with room for whole panels */
    size_t y_stride;
    const char *const *x; /* (rows): the first of k elements of each; any alignment */
    const char *w;        /* (panels, w_elements, panel): the first element to be multiplied */
    size_t w_elements;
    size_t k, rows, columns;
    bool add;
    bool far; /* w comes from memory, not from a cache: a hint */
} nsa_linear_part;

/*
 * Matrix multiplication of a tile of rows. A row's result may depend on nothing but the row and w;
 * the self-check of a model sees whether that holds here.
 */
struct nsa_linear_engine {
    const char *name;
    nsa_dtype input; /* of x and w: NSA_F32, or NSA_BF16 in pairs, an odd one filled up with 0 */
    size_t tile;     /* rows of a call: 1 up to this many, at most NSA_MAX_TILE */
    bool dense;      /* wants the rows of x one behind the other */
    bool padded;     /* always computes `tile` rows, of which only `rows` are of use */
    size_t unit;     /* rows below which splitting a batch over workers gains nothing */
    size_t panel;    /* columns that w is packed by, see nsa_linear_pack() */
    size_t chunk;    /* columns after which y is best used; a multiple of `panel` */

    /*
     * With a panel of 1 (w as it is), k is w_elements and `add` is false. When `padded`, x and y
     * have `tile` rows. y overlaps neither x nor w.
     */
    void (*run)(const nsa_linear_part *part);

    /* dst (count) = x (count, any alignment) in bfloat16, to the nearest even; numbers below 2^-126
     * may become zero. NULL when the input is float32. */
    void (*round)(uint16_t *dst, const void *x, size_t count);

    bool (*supported)(void); /* by the processor, where the kernels in use are; NULL: yes */
};

#define NSA_WHOLE_CHUNK SIZE_MAX /* all columns at once */

extern const nsa_linear_engine nsa_panels_avx2;
extern const nsa_linear_engine nsa_panels_avx512;
extern const nsa_linear_engine nsa_panels_avx512bf16;
extern const nsa_linear_engine nsa_panels_amx;

/* As `round` of an engine, with AVX512-BF16. */
void nsa_round_avx512bf16(uint16_t *dst, const void *x, size_t count);

/*
 * The engines for `precision`, the preferred first, NULL past the last: those of the kernels in
 * use, if they have any, then OpenBLAS by tiles, then plain C, which is always right.
 */
const nsa_linear_engine *nsa_linear_engine_at(nsa_precision precision, size_t index);

/* `columns` rounded up to whole panels. Overflow is the caller's to exclude. */
static inline size_t nsa_linear_width(const nsa_linear_engine *engine, size_t columns)
{
    return (columns + engine->panel - 1) / engine->panel * engine->panel;
}

/* Elements that hold k numbers. */
static inline size_t nsa_linear_elements(const nsa_linear_engine *engine, size_t k)
{
    return engine->input == NSA_BF16 ? k / 2 + k % 2 : k;
}

/*
 * Pack w (columns, k) as `engine` takes it: into panels of so many columns, the last filled up with
 * zeros. dst has (nsa_linear_width(), nsa_linear_elements()) elements. For bfloat16, w is rounded.
 */
void nsa_linear_pack(void *dst, const nsa_linear_engine *engine, const float *w, size_t k,
                     size_t columns);

/* Hold OpenBLAS to the calling thread. Thread-safe, idempotent. */
void nsa_linear_init(void);

/* y = x w^T in plain C for `rows` rows, x and y dense, w (columns, k). */
void nsa_linear_plain(float *y, const float *x, const float *w, size_t rows, size_t k,
                      size_t columns);

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

/* The kernels' select_rows: the heap takes what vectors are not made for. */
void nsa_select_rows_heap(int64_t *indices, const void *scores, nsa_dtype dtype, size_t rows,
                          size_t n, size_t k);
void nsa_select_rows_avx2(int64_t *indices, const void *scores, nsa_dtype dtype, size_t rows,
                          size_t n, size_t k);
void nsa_select_rows_avx512(int64_t *indices, const void *scores, nsa_dtype dtype, size_t rows,
                            size_t n, size_t k);

/* One row of float32, plainly: k <= n. */
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
