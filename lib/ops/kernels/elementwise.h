/*
 * The element-wise kernels: plain loops for the compiler to vectorise, included once for each ISA
 * by a file that defines KERNELS, the name of its table, KERNELS_NAME, KERNELS_LINEAR, its engines
 * for matrix multiplication, each with a comma, and KERNELS_SELECT, its select_rows.
 *
 * Vector and scalar arithmetic round alike, so all positions in a row give the same bits. Nothing
 * is contracted (-ffp-contract=off) but where MULTIPLY_ADD says so: all tables with an instruction
 * for it give the same bits, and the portable one others in the activations alone.
 */
#include "lib/convert.h"
#include "lib/ops/kernels/kernels.h"

#include <math.h>
#include <string.h>

#define QUIET_NAN UINT32_C(0x7FC00000)

#ifdef __FMA__
#define MULTIPLY_ADD(a, b, c) fmaf(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

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
    int32_t bits = (int32_t)bits_of(x);
    int32_t most = (int32_t)bits_of(limit);
    int32_t magnitude = bits & INT32_MAX;

    return float_of((uint32_t)((bits & INT32_MIN) | (magnitude < most ? magnitude : most)));
}

static inline float erf_rational(float z)
{
    float t;
    float p = 2.03622802489e-6f;
    float q = 3.79392126154e-5f;

    z = clamp(z, ERF_LIMIT);
    t = z * z;
    p = MULTIPLY_ADD(p, t, 0.000284702317617f);
    p = MULTIPLY_ADD(p, t, 0.00378800133663f);
    p = MULTIPLY_ADD(p, t, 0.052815012541f);
    p = MULTIPLY_ADD(p, t, 0.191018578579f);
    p = MULTIPLY_ADD(p, t, 1.12837914518f);
    q = MULTIPLY_ADD(q, t, 0.00116670301481f);
    q = MULTIPLY_ADD(q, t, 0.0150144146383f);
    q = MULTIPLY_ADD(q, t, 0.114348818749f);
    q = MULTIPLY_ADD(q, t, 0.502618520858f);
    q = MULTIPLY_ADD(q, t, 1.0f);
    return clamp(z * p / q, 1.0f);
}

static void bias_gelu(float *restrict x, const float *restrict bias, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float value = x[i] + bias[i];

        x[i] = value * 0.5f * (1.0f + erf_rational(value * 0.70710678f));
    }
}

/*
 * e^x = 2^n e^r with n the nearest integer to x log2(e) and |r| <= ln(2)/2, where a polynomial has
 * a relative error of 4.4e-9. Adding 1.5 * 2^23 rounds to an integer; ln(2) is subtracted in two
 * parts, of which the first has zeros enough that its product with n is exact. 2^n comes as the
 * product of two powers, each of which is a normal number, so that e^x overflows to infinity and
 * underflows to zero as it should.
 */
#define EXP_LIMIT 104.0f

static inline float exp_polynomial(float x)
{
    float shifted;
    float n;
    float r;
    float p;
    int32_t power;

    x = clamp(x, EXP_LIMIT);
    shifted = x * 1.44269504f + 12582912.0f;
    n = shifted - 12582912.0f;
    r = MULTIPLY_ADD(n, -0.693359375f, x);
    r = MULTIPLY_ADD(n, 2.12194440e-4f, r);
    p = 0.00138144672382f;
    p = MULTIPLY_ADD(p, r, 0.00836878083646f);
    p = MULTIPLY_ADD(p, r, 0.0416683927178f);
    p = MULTIPLY_ADD(p, r, 0.166665196419f);
    p = MULTIPLY_ADD(p, r, 0.499999940395f);
    p = MULTIPLY_ADD(p, r, 1.0f);
    p = MULTIPLY_ADD(p, r, 1.0f);
    power = (int32_t)(bits_of(shifted) - bits_of(12582912.0f));
    return p * float_of((uint32_t)(power / 2 + 127) << 23) *
           float_of((uint32_t)(power - power / 2 + 127) << 23);
}

/* 1/2 + tanh(u)/2 is the logistic function of 2u. */
static void bias_gelu_tanh(float *restrict x, const float *restrict bias, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float value = x[i] + bias[i];
        float inner = 0.79788456f * (value + 0.044715f * value * value * value);

        x[i] = value / (1.0f + exp_polynomial(-2.0f * inner));
    }
}

static void bias_silu(float *restrict x, const float *restrict bias, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float value = x[i] + bias[i];

        x[i] = value / (1.0f + exp_polynomial(-value));
    }
}

/* By integers, for what is said of clamp(): those of negative numbers, -inf included, lie between
 * the ones of -0.0 and of NaN. */
static void bias_relu(float *restrict x, const float *restrict bias, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = bits_of(x[i] + bias[i]);

        x[i] = float_of(select_bits(bits - UINT32_C(0x80000001) < F32_INFINITY, 0, bits));
    }
}

static void add(float *restrict dst, const float *restrict a, const float *restrict b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = a[i] + b[i];
}

static void add_bias(float *restrict y, const float *restrict bias, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = bits_of(y[i] + bias[i]);

        y[i] = float_of(select_bits((bits & F32_MAGNITUDE) > F32_INFINITY, QUIET_NAN, bits));
    }
}

static void round_bf16(float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = float_of((uint32_t)narrow_bf16(bits_of(x[i])) << 16);
}

const nsa_kernels KERNELS = {
    .name = KERNELS_NAME,
    .linear = (const nsa_linear_engine *const[]){KERNELS_LINEAR NULL},
    .bias_activate = {[NSA_GELU] = bias_gelu,
                      [NSA_GELU_TANH] = bias_gelu_tanh,
                      [NSA_SILU] = bias_silu,
                      [NSA_RELU] = bias_relu},
    .add_bias = add_bias,
    .add = add,
    .round_bf16 = round_bf16,
    .to_f32 = to_f32,
    .from_f32 = from_f32,
    .select_rows = KERNELS_SELECT,
};
