/* Element types and the conversions between them. All multi-byte data is little-endian. */
#ifndef NSA_DTYPE_H
#define NSA_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

typedef enum nsa_dtype {
    NSA_F32 = 0,
    NSA_F16,  /* IEEE 754 binary16 */
    NSA_BF16, /* the upper half of a binary32 */
    NSA_F64,
    NSA_I64,
    NSA_DTYPE_COUNT
} nsa_dtype;

/* Bytes of one element. */
size_t nsa_dtype_size(nsa_dtype dtype);

/* "float32", "float16", "bfloat16", "float64", "int64"; a static string. */
const char *nsa_dtype_name(nsa_dtype dtype);

/* The dtype called `name` as nsa_dtype_name() writes it; false when there is none. */
bool nsa_dtype_from_name(nsa_dtype *out, const char *name);

/* Whether elements are floating-point numbers: what the operations compute on. */
bool nsa_dtype_is_float(nsa_dtype dtype);

/**
 * Convert `count` elements of a floating-point `dtype` at `src` (any alignment) to float32.
 * float16 and bfloat16 widen exactly; float64 rounds to nearest even, overflowing to infinity.
 * NaN stays NaN, infinities and the sign of zero stay. Ranges must not overlap.
 */
void nsa_to_f32(float *dst, const void *src, nsa_dtype dtype, size_t count);

/**
 * Convert `count` float32 elements to a floating-point `dtype` at `dst` (any alignment), rounding
 * to nearest even, with gradual underflow and overflow to infinity. NaN stays NaN.
 * Ranges must not overlap.
 */
void nsa_from_f32(void *dst, nsa_dtype dtype, const float *src, size_t count);

#endif
