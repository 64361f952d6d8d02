/*
 * Conversions between float32 and the other floating types, included once for each instruction set
 * that they are compiled for: by dtype.c and by the element-wise kernels.
 *
 * They choose between results with masks, not branches, and reach memory through memcpy: a compiler
 * vectorises such loops for any instruction set, and the bits are the same on every processor.
 */
#include <nsa/dtype.h>
#include <stdint.h>
#include <string.h>

#define F32_INFINITY UINT32_C(0x7F800000)
#define F32_MAGNITUDE UINT32_C(0x7FFFFFFF)
#define F16_INFINITY UINT32_C(0x7C00)
#define F16_MAGNITUDE UINT32_C(0x7FFF)
#define F16_QUIET UINT32_C(0x0200)
#define BF16_QUIET UINT32_C(0x0040)

/* What turns the exponent of a binary16 into that of a binary32: the biases are 15 and 127. */
#define F16_REBIAS ((UINT32_C(127) - 15) << 23)

static uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* `yes` or `no`, by a mask: a compiler makes of ?: a branch when one arm has floating-point work.
 */
static uint32_t select_bits(bool condition, uint32_t yes, uint32_t no)
{
    uint32_t mask = UINT32_C(0) - condition;

    return (yes & mask) | (no & ~mask);
}

static uint32_t widen_f16(uint16_t half)
{
    uint32_t sign = (half & ~F16_MAGNITUDE) << 16;
    uint32_t magnitude = half & F16_MAGNITUDE;
    uint32_t normal = (magnitude << 13) + F16_REBIAS;
    /* An exponent of ones stays one of ones: the other half of the way from 31 to 255. */
    uint32_t special = normal + F16_REBIAS;
    /* Below 2^-14 a binary16 counts units of 2^-24; the product is exact. */
    uint32_t subnormal = bits_of((float)(int32_t)magnitude * 0x1p-24F);
    uint32_t finite = select_bits(magnitude < UINT32_C(0x0400), subnormal, normal);

    return sign | select_bits(magnitude >= F16_INFINITY, special, finite);
}

static uint16_t narrow_f16(uint32_t bits)
{
    uint32_t sign = (bits & ~F32_MAGNITUDE) >> 16;
    uint32_t magnitude = bits & F32_MAGNITUDE;
    /* Adding one less than half a unit, and the last bit kept, rounds ties to even. A carry out of
     * the fraction raises the exponent, up to infinity, as it should. */
    uint32_t normal = (magnitude - F16_REBIAS + 0xFFF + ((magnitude >> 13) & 1)) >> 13;
    /* A float32 in [0.5, 1) has units of 2^-24, those of a binary16 subnormal: the sum rounds to
     * them, and what it exceeds 0.5 by is their count. */
    uint32_t subnormal = bits_of(float_of(magnitude) + 0.5F) - bits_of(0.5F);
    uint32_t nan = F16_INFINITY | F16_QUIET | ((magnitude >> 13) & 0x03FF);
    uint32_t finite = select_bits(magnitude < bits_of(0x1p-14F), subnormal, normal);
    /* From 65520 on, half a unit above the greatest binary16, the nearest is infinity. */
    uint32_t number = select_bits(magnitude >= bits_of(65520.0F), F16_INFINITY, finite);

    return (uint16_t)(sign | select_bits(magnitude > F32_INFINITY, nan, number));
}

static uint16_t narrow_bf16(uint32_t bits)
{
    uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    /* Rounding could carry a NaN to infinity or to zero; without its low half it could be one. */
    uint32_t nan = (bits >> 16) | BF16_QUIET;

    return (uint16_t)select_bits((bits & F32_MAGNITUDE) > F32_INFINITY, nan, rounded);
}

static void f16_to_f32(float *restrict dst, const void *restrict from, size_t count)
{
    const unsigned char *src = from;

    for (size_t i = 0; i < count; i++) {
        uint16_t half;

        memcpy(&half, src + i * sizeof half, sizeof half);
        dst[i] = float_of(widen_f16(half));
    }
}

static void bf16_to_f32(float *restrict dst, const void *restrict from, size_t count)
{
    const unsigned char *src = from;

    for (size_t i = 0; i < count; i++) {
        uint16_t upper;

        memcpy(&upper, src + i * sizeof upper, sizeof upper);
        dst[i] = float_of((uint32_t)upper << 16);
    }
}

static void f64_to_f32(float *restrict dst, const void *restrict from, size_t count)
{
    const unsigned char *src = from;

    for (size_t i = 0; i < count; i++) {
        double value;

        memcpy(&value, src + i * sizeof value, sizeof value);
        dst[i] = (float)value;
    }
}

static void f32_to_f16(void *restrict to, const float *restrict src, size_t count)
{
    unsigned char *dst = to;

    for (size_t i = 0; i < count; i++) {
        uint16_t half = narrow_f16(bits_of(src[i]));

        memcpy(dst + i * sizeof half, &half, sizeof half);
    }
}

static void f32_to_bf16(void *restrict to, const float *restrict src, size_t count)
{
    unsigned char *dst = to;

    for (size_t i = 0; i < count; i++) {
        uint16_t upper = narrow_bf16(bits_of(src[i]));

        memcpy(dst + i * sizeof upper, &upper, sizeof upper);
    }
}

static void f32_to_f64(void *restrict to, const float *restrict src, size_t count)
{
    unsigned char *dst = to;

    for (size_t i = 0; i < count; i++) {
        double value = (double)src[i];

        memcpy(dst + i * sizeof value, &value, sizeof value);
    }
}

static void f32_to_f32(void *restrict to, const float *restrict src, size_t count)
{
    if (count > 0) /* the pointers may be NULL then */
        memcpy(to, src, count * sizeof *src);
}

static void f32_from_f32(float *restrict dst, const void *restrict from, size_t count)
{
    f32_to_f32(dst, from, count);
}

/* By dtype; float64 to float32 rounds to nearest even. */
static void (*const to_f32[NSA_DTYPE_COUNT])(float *restrict dst, const void *restrict from,
                                             size_t count) = {
    [NSA_F32] = f32_from_f32,
    [NSA_F16] = f16_to_f32,
    [NSA_BF16] = bf16_to_f32,
    [NSA_F64] = f64_to_f32,
};
static void (*const from_f32[NSA_DTYPE_COUNT])(void *restrict to, const float *restrict src,
                                               size_t count) = {
    [NSA_F32] = f32_to_f32,
    [NSA_F16] = f32_to_f16,
    [NSA_BF16] = f32_to_bf16,
    [NSA_F64] = f32_to_f64,
};
