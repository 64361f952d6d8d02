/*
 * The element-wise kernels: plain loops for the compiler to vectorise, included once for each ISA
 * by a file that defines KERNELS, the name of its table, KERNELS_NAME, and KERNELS_LINEAR, its
 * engine for matrix multiplication or NULL.
 *
 * Multiplications and additions round separately (-ffp-contract=off), and vector and scalar
 * arithmetic round alike, so all tables, and all positions in a row, give the same bits.
 */
#include "lib/ops/kernels/kernels.h"

#include <math.h>
#include <string.h>

/*
 * erf(z) = z P(z^2) / Q(z^2) for |z| up to ERF_LIMIT, beyond which erf rounds to 1 in float32.
 * P and Q were fitted to the least largest relative error (Lawson's iteration at 40 digits), which
 * is 2.0e-8; all their coefficients are positive, so evaluating them loses no digits.
 */
#define ERF_LIMIT 3.9370039f

/*
 * x held within -limit ... limit, a NaN too: here what it goes into is NaN without it. By integers,
 * since comparing floats may trap, and of what may trap a compiler makes no vectors.
 */
static inline float clamp(float x, float limit)
{
    int32_t bits;
    int32_t most;
    int32_t magnitude;

    memcpy(&bits, &x, sizeof bits);
    memcpy(&most, &limit, sizeof most);
    magnitude = bits & INT32_MAX;
    bits = (bits & INT32_MIN) | (magnitude < most ? magnitude : most);
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float erf_rational(float z)
{
    float t;
    float p = 2.03622802489e-6f;
    float q = 3.79392126154e-5f;

    z = clamp(z, ERF_LIMIT);
    t = z * z;
    p = p * t + 0.000284702317617f;
    p = p * t + 0.00378800133663f;
    p = p * t + 0.052815012541f;
    p = p * t + 0.191018578579f;
    p = p * t + 1.12837914518f;
    q = q * t + 0.00116670301481f;
    q = q * t + 0.0150144146383f;
    q = q * t + 0.114348818749f;
    q = q * t + 0.502618520858f;
    q = q * t + 1.0f;
    return clamp(z * p / q, 1.0f);
}

static void bias_gelu(float *restrict x, const float *restrict bias, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float value = x[i] + bias[i];

        x[i] = value * 0.5f * (1.0f + erf_rational(value * 0.70710678f));
    }
}

static void bias_gelu_tanh(float *restrict x, const float *restrict bias, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float value = x[i] + bias[i];
        float inner = 0.79788456f * (value + 0.044715f * value * value * value);

        x[i] = value * 0.5f * (1.0f + tanhf(inner));
    }
}

static void bias_silu(float *restrict x, const float *restrict bias, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float value = x[i] + bias[i];

        x[i] = value / (1.0f + expf(-value));
    }
}

static void bias_relu(float *restrict x, const float *restrict bias, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float value = x[i] + bias[i];

        x[i] = value < 0.0f ? 0.0f : value;
    }
}

static void add(float *restrict dst, const float *restrict a, const float *restrict b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = a[i] + b[i];
}

static void round_bf16(float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        uint32_t rounded;

        memcpy(&bits, x + i, sizeof bits);
        rounded = (bits + 0x7FFFu + (bits >> 16 & 1)) & 0xFFFF0000u;
        bits = (bits & 0x7FFFFFFFu) > 0x7F800000u ? (bits | 0x00400000u) & 0xFFFF0000u : rounded;
        memcpy(x + i, &bits, sizeof bits);
    }
}

const nsa_kernels KERNELS = {
    .name = KERNELS_NAME,
    .linear = KERNELS_LINEAR,
    .bias_activate = {[NSA_GELU] = bias_gelu,
                      [NSA_GELU_TANH] = bias_gelu_tanh,
                      [NSA_SILU] = bias_silu,
                      [NSA_RELU] = bias_relu},
    .add = add,
    .round_bf16 = round_bf16,
};
