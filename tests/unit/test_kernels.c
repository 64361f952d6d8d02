/* The element-wise kernels of every table that this processor runs, and the plain linear one. */
#include "tests/unit/support.h"

#include <float.h>
#include <math.h>
#include <nsa/cpu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST 67 /* more than any vector, unrolled fourfold, with every length of tail */

static float float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static const nsa_kernels *use_table(size_t index)
{
    const char *name = nsa_cpu_supported(index);

    if (!name)
        return NULL;
    assert_status(NSA_OK, nsa_cpu_use(name, NULL));
    return nsa_kernels_active();
}

static float activate(const nsa_kernels *kernels, nsa_activation activation, float x)
{
    float bias = 0.0f;

    kernels->bias_activate[activation](&x, &bias, 1);
    return x;
}

/* gelu without the cancellation of 1 + erf(x / sqrt 2), which nsa_activation_ref() has. */
static double exact(double x, nsa_activation activation)
{
    return activation == NSA_GELU ? 0.5 * x * erfc(-x * M_SQRT1_2)
                                  : nsa_activation_ref(x, activation);
}

/* The reference itself, at places where its four functions are known, to 15 digits. */
static void test_reference_values(void **state)
{
    static const struct {
        double x;
        double want[NSA_ACTIVATION_COUNT]; /* gelu, gelu_tanh, silu, relu */
    } cases[] = {
        {1, {0.8413447460685429, 0.8411919906082767, 0.7310585786300049, 1}},
        {-1, {-0.158655253931457, -0.1588080093917233, -0.2689414213699951, 0}},
        {3, {2.99595030590511, 2.996362607918227, 2.8577223804673, 3}},
    };

    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (size_t a = 0; a < NSA_ACTIVATION_COUNT; a++) {
            double got = nsa_activation_ref(cases[c].x, (nsa_activation)a);

            assert_true(fabs(got - cases[c].want[a]) <= 1e-14);
        }
    }
}

/*
 * Every 9973rd finite float. The bounds are multiples of 2^-24 |x|, since what the last addition
 * and multiplication round is of that size, and hold a little more than what was measured: 4.26 for
 * gelu, on every float between 2^-15 and 16; 2.2 for gelu_tanh and 2.0 for silu, on every 97th of
 * all floats. PyTorch's float32 gelu comes to 4.85 on the grid of tests/golden/gelu_grid, where
 * this one comes to 3.07. A subnormal x is rounded twice at its last bit, 2^-149.
 */
static void test_activations_on_all_floats(void **state)
{
    static const double units[NSA_ACTIVATION_COUNT] = {
        [NSA_GELU] = 5, [NSA_GELU_TANH] = 3, [NSA_SILU] = 3, [NSA_RELU] = 0};
    const nsa_kernels *kernels;

    (void)state;
    for (size_t table = 0; (kernels = use_table(table)) != NULL; table++) {
        for (uint32_t bits = 0; bits < UINT32_C(0xFF800000); bits += 9973) {
            float x = float_of(bits);

            if (!isfinite(x))
                continue;
            for (size_t a = 0; a < NSA_ACTIVATION_COUNT; a++) {
                double want = exact((double)x, (nsa_activation)a);
                double got = (double)activate(kernels, (nsa_activation)a, x);
                double tolerance = units[a] * (0x1p-24 * fabs((double)x) + 0x1p-150);

                if (!(fabs(got - want) <= tolerance))
                    fail_msg("%s: %s(%.9g) is %.9g, expected %.17g", kernels->name,
                             nsa_activation_name((nsa_activation)a), (double)x, got, want);
            }
        }
    }
}

/*
 * Every float in [-8, 8], in the bound of the test above, for each table: minutes, so only where
 * asked for (`make check-gelu`). Beyond, gelu is 0 or x to float32's precision.
 */
static void test_gelu_on_every_float(void **state)
{
    enum { RUN = 4096 };
    static const float bias[RUN];
    const uint32_t last = UINT32_C(0x41000000); /* 8 */
    const nsa_kernels *kernels;
    double worst = 0;

    (void)state;
    for (uint32_t begin = 0; begin <= last; begin += RUN) {
        double want[2][RUN];
        float x[2][RUN];

        for (uint32_t i = 0; i < RUN; i++) {
            x[0][i] = float_of(begin + i);
            x[1][i] = -x[0][i];
            want[1][i] = exact((double)x[1][i], NSA_GELU);
            want[0][i] = (double)x[0][i] + want[1][i]; /* x Phi(x) = x - x Phi(-x) */
        }
        for (size_t table = 0; (kernels = use_table(table)) != NULL; table++) {
            for (size_t sign = 0; sign < 2; sign++) {
                float got[RUN];

                memcpy(got, x[sign], sizeof got);
                kernels->bias_activate[NSA_GELU](got, bias, RUN);
                for (size_t i = 0; i < RUN; i++) {
                    double unit = 0x1p-24 * (double)x[0][i] + 0x1p-150;
                    double error = fabs((double)got[i] - want[sign][i]) / unit;

                    worst = error > worst ? error : worst;
                    if (!(error <= 5))
                        fail_msg("%s: gelu(%.9g) is %.9g, expected %.17g", kernels->name,
                                 (double)x[sign][i], (double)got[i], want[sign][i]);
                }
            }
        }
    }
    printf("# gelu on every float in [-8, 8]: at most %.2f * 2^-24 |x|\n", worst);
}

/* What PyTorch's functions return where float32 ends; in each place of a vector and after it. */
static void test_activations_of_special_values(void **state)
{
    static const struct {
        float x;
        float want[NSA_ACTIVATION_COUNT]; /* gelu, gelu_tanh, silu, relu */
    } cases[] = {
        {INFINITY, {INFINITY, INFINITY, INFINITY, INFINITY}},
        {-INFINITY, {NAN, NAN, NAN, 0}},
        {NAN, {NAN, NAN, NAN, NAN}},
        {-NAN, {NAN, NAN, NAN, NAN}},
        {FLT_MAX, {FLT_MAX, FLT_MAX, FLT_MAX, FLT_MAX}},
        {-FLT_MAX, {0, 0, 0, 0}},
        {0.0f, {0, 0, 0, 0}},
        {-0.0f, {0, 0, 0, 0}},
    };
    static const float bias[LONGEST];
    const nsa_kernels *kernels;

    (void)state;
    for (size_t table = 0; (kernels = use_table(table)) != NULL; table++) {
        for (size_t c = 0; c < sizeof cases / sizeof *cases * NSA_ACTIVATION_COUNT; c++) {
            size_t a = c % NSA_ACTIVATION_COUNT;
            float x = cases[c / NSA_ACTIVATION_COUNT].x;
            float want = cases[c / NSA_ACTIVATION_COUNT].want[a];
            float values[LONGEST];

            for (size_t i = 0; i < LONGEST; i++)
                values[i] = x;
            kernels->bias_activate[a](values, bias, LONGEST);
            for (size_t i = 0; i < LONGEST; i++) {
                if (values[i] != want && !(isnan(values[i]) && isnan(want)))
                    fail_msg("%s: %s(%g) is %g, expected %g", kernels->name,
                             nsa_activation_name((nsa_activation)a), (double)x, (double)values[i],
                             (double)want);
            }
        }
    }
}

/* Half of them near 0, where activations bend, half any bits at all: NaN and infinity too. */
static void fill_any(float *values, size_t count, uint64_t *random)
{
    for (size_t i = 0; i < count; i++)
        values[i] = random_u64(random) & 1 ? random_float(random) * 6
                                           : float_of((uint32_t)(random_u64(random) >> 32));
}

struct operands {
    float x[LONGEST + 8], bias[LONGEST + 8];
};

enum { OPERATION_ADD = NSA_ACTIVATION_COUNT, OPERATION_ROUND, OPERATION_BIAS, OPERATION_COUNT };

/* out[i] = operation(x[i], bias[i]) */
static void operate(const nsa_kernels *kernels, size_t operation, float *out, const float *x,
                    const float *bias, size_t count)
{
    if (operation == OPERATION_ADD) {
        kernels->add(out, x, bias, count);
        return;
    }
    memcpy(out, x, count * sizeof *x);
    if (operation == OPERATION_ROUND)
        kernels->round_bf16(out, count);
    else if (operation == OPERATION_BIAS)
        kernels->add_bias(out, bias, count);
    else
        kernels->bias_activate[operation](out, bias, count);
}

/*
 * All tables, in all places and lengths and at all addresses that a float may have, give the bits
 * that one table gives for an element alone, and write nothing else: the portable one, but for the
 * activations of tables that multiply and add at once, which are those of the first of them.
 */
static void test_bits_are_the_same_everywhere(void **state)
{
    uint64_t random = 1;
    const nsa_kernels *fused = use_table(1);
    const nsa_kernels *kernels;

    (void)state;
    for (size_t table = 0; (kernels = use_table(table)) != NULL; table++) {
        for (size_t run = 0; run < OPERATION_COUNT * (LONGEST + 1) * 4; run++) {
            size_t operation = run % OPERATION_COUNT;
            size_t count = run / OPERATION_COUNT % (LONGEST + 1);
            size_t shift = run / OPERATION_COUNT / (LONGEST + 1);
            const nsa_kernels *judge =
                table > 0 && operation < NSA_ACTIVATION_COUNT ? fused : &nsa_kernels_portable;
            _Alignas(64) struct operands in;
            _Alignas(64) float got[LONGEST + 8];
            float want[LONGEST + 8];

            fill_any(in.x, LONGEST + 8, &random);
            fill_any(in.bias, LONGEST + 8, &random);
            memset(got, 0xA5, sizeof got);
            memcpy(want, got, sizeof want);
            operate(kernels, operation, got + shift, in.x + 3 * shift % 4, in.bias + shift, count);
            for (size_t i = 0; i < count; i++)
                operate(judge, operation, &want[shift + i], &in.x[3 * shift % 4 + i],
                        &in.bias[shift + i], 1);
            assert_memory_equal(want, got, sizeof got);
        }
    }
}

static void test_bias_is_added_first(void **state)
{
    uint64_t random = 2;
    const nsa_kernels *kernels;

    (void)state;
    for (size_t table = 0; (kernels = use_table(table)) != NULL; table++) {
        for (size_t i = 0; i < 4000; i++) {
            size_t a = i % NSA_ACTIVATION_COUNT;
            float x = random_float(&random) * 4;
            float bias = random_float(&random) * 4;
            float want = activate(kernels, (nsa_activation)a, x + bias);

            kernels->bias_activate[a](&x, &bias, 1);
            assert_memory_equal(&want, &x, sizeof x);
        }
    }
}

/* A double holds the sum of two floats well enough that rounding it again gives the float sum. */
static void test_add_rounds_once(void **state)
{
    uint64_t random = 3;
    const nsa_kernels *kernels;

    (void)state;
    for (size_t table = 0; (kernels = use_table(table)) != NULL; table++) {
        for (size_t i = 0; i < 20000; i++) {
            float a;
            float b;
            float got;
            float want;

            fill_any(&a, 1, &random);
            fill_any(&b, 1, &random);
            want = (float)((double)a + (double)b);
            kernels->add(&got, &a, &b, 1);
            if (want != got && !(isnan(want) && isnan(got)))
                fail_msg("%s: %.9g + %.9g is %.9g, expected %.9g", kernels->name, (double)a,
                         (double)b, (double)got, (double)want);
        }
    }
}

/* As add, but that every NaN comes out as the same. */
static void test_add_bias(void **state)
{
    const float nan = float_of(UINT32_C(0x7FC00000));
    uint64_t random = 6;
    const nsa_kernels *kernels;

    (void)state;
    for (size_t table = 0; (kernels = use_table(table)) != NULL; table++) {
        for (size_t i = 0; i < 20000; i++) {
            float got;
            float bias;
            float want;

            fill_any(&got, 1, &random);
            fill_any(&bias, 1, &random);
            if (i % 8 == 0)
                got = float_of(UINT32_C(0xFF800001) + (uint32_t)i);
            want = isnan(got + bias) ? nan : got + bias;
            kernels->add_bias(&got, &bias, 1);
            assert_memory_equal(&want, &got, sizeof got);
        }
    }
}

static void test_round_bf16(void **state)
{
    const nsa_kernels *kernels;

    (void)state;
    for (size_t table = 0; (kernels = use_table(table)) != NULL; table++) {
        for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 4093) {
            float x = float_of((uint32_t)bits);
            float got = x;
            float want;
            unsigned char half[2];

            nsa_from_f32(half, NSA_BF16, &x, 1);
            nsa_to_f32(&want, half, NSA_BF16, 1);
            kernels->round_bf16(&got, 1);
            assert_memory_equal(&want, &got, sizeof got);
        }
    }
}

/* Whether every table converts `count` numbers of a dtype to float32 and back as the library does.
 */
static void check_conversions(nsa_dtype dtype, const void *numbers, size_t count)
{
    size_t size = nsa_dtype_size(dtype);
    float *wide = malloc(2 * count * sizeof *wide);
    unsigned char *narrow = malloc(2 * count * size);
    const nsa_kernels *kernels;

    assert_true(wide && narrow);
    nsa_to_f32(wide, numbers, dtype, count);
    nsa_from_f32(narrow, dtype, wide, count);
    for (size_t table = 0; (kernels = use_table(table)) != NULL; table++) {
        kernels->to_f32[dtype](wide + count, numbers, count);
        assert_memory_equal(wide, wide + count, count * sizeof *wide);
        kernels->from_f32[dtype](narrow + count * size, wide, count);
        assert_memory_equal(narrow, narrow + count * size, count * size);
    }
    free(narrow);
    free(wide);
}

/* All numbers of 16 bits, and as many of any bits, at an address that fits no number. */
static void test_conversions(void **state)
{
    enum { COUNT = 65536 };
    unsigned char *numbers = malloc(COUNT * sizeof(double) + 1);
    uint64_t random = 5;

    (void)state;
    assert_non_null(numbers);
    for (size_t i = 0; i < COUNT; i++) {
        uint16_t bits = (uint16_t)i;

        memcpy(numbers + 1 + 2 * i, &bits, sizeof bits);
    }
    check_conversions(NSA_F16, numbers + 1, COUNT);
    check_conversions(NSA_BF16, numbers + 1, COUNT - 3);
    for (size_t i = 0; i < COUNT; i++) {
        uint64_t bits = random_u64(&random);

        /* Half of them of a size that float32 has. */
        if (i % 2)
            bits = (bits & UINT64_C(0x87FFFFFFFFFFFFFF)) | UINT64_C(0x3800000000000000);
        memcpy(numbers + 1 + 8 * i, &bits, sizeof bits);
    }
    check_conversions(NSA_F64, numbers + 1, COUNT - 1);
    check_conversions(NSA_F32, numbers + 1, COUNT - 2);
    free(numbers);
}

/*
 * Engines round to bfloat16 as the library does, but for what is below 2^-126, which may be zero;
 * from any address, in every length, writing nothing else.
 */
static void test_engines_round(void **state)
{
    uint64_t random = 7;
    const nsa_linear_engine *engine;

    (void)state;
    assert_status(NSA_OK, nsa_cpu_use("auto", NULL));
    for (size_t e = 0; (engine = nsa_linear_engine_at(NSA_PRECISION_BF16, e)) != NULL; e++) {
        for (size_t run = 0; engine->round && run < 4000; run++) {
            size_t count = run % (LONGEST + 1);
            unsigned char bytes[sizeof(float) * LONGEST + 1];
            uint16_t want[LONGEST + 1];
            uint16_t got[LONGEST + 1];
            float x[LONGEST];

            fill_any(x, LONGEST, &random);
            memcpy(bytes + 1, x, sizeof x);
            memset(got, 0xA5, sizeof got);
            memcpy(want, got, sizeof want);
            nsa_from_f32(want, NSA_BF16, x, count);
            engine->round(got, bytes + 1, count);
            for (size_t i = 0; i < count; i++) {
                if (fabsf(x[i]) < 0x1p-126f && (got[i] & 0x7FFF) == 0)
                    want[i] &= 0x8000;
            }
            assert_memory_equal(want, got, sizeof want);
        }
    }
}

/* Largest error of nsa_linear_plain() in units of 2^-24 of its sum of magnitudes. */
static double linear_error(const float *x, const float *w, size_t tile, size_t in, size_t out)
{
    float *y = malloc(tile * out * sizeof *y);
    double worst = 0;

    assert_non_null(y);
    nsa_linear_plain(y, x, w, tile, in, out);
    for (size_t i = 0; i < tile * out; i++) {
        double sum = 0;
        double magnitude = 0;

        for (size_t j = 0; j < in; j++) {
            double product = (double)x[i / out * in + j] * (double)w[i % out * in + j];

            sum += product;
            magnitude += fabs(product);
        }
        worst = fmax(worst, fabs((double)y[i] - sum) / (0x1p-24 * magnitude));
    }
    free(y);
    return worst;
}

/*
 * A product is rounded once, then added to one of 16 partial sums, at most in/16 (rounded up) times
 * and the first time to 0, and these to each other in 4 steps.
 */
static double linear_bound(size_t in)
{
    return (double)((in + 15) / 16) + 4;
}

static void test_linear_plain(void **state)
{
    static const size_t sizes[][3] = {{1, 1, 1},  {8, 51, 102}, {3, 15, 2},  {2, 16, 3},
                                      {5, 17, 1}, {8, 512, 33}, {1, 1031, 7}};
    uint64_t random = 4;

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t tile = sizes[s][0];
        size_t in = sizes[s][1];
        size_t out = sizes[s][2];
        nsa_tensor x = random_tensor(NSA_F32, &(nsa_shape){2, {tile, in}}, &random);
        nsa_tensor w = random_tensor(NSA_F32, &(nsa_shape){2, {out, in}}, &random);

        assert_true(linear_error(x.data, w.data, tile, in, out) <= linear_bound(in));
        free_tensor(&x);
        free_tensor(&w);
    }
}

/* One sum after another would lose every 1 after 2^24: an error of 1023 units, expected under 68.
 */
static void test_linear_plain_splits_long_sums(void **state)
{
    enum { IN = 1024 };
    float x[IN];
    float w[IN];

    (void)state;
    for (size_t i = 0; i < IN; i++)
        x[i] = w[i] = 1.0f;
    x[0] = 0x1p24f;
    assert_true(linear_error(x, w, 1, IN, 1) <= linear_bound(IN));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_values),
        cmocka_unit_test(test_activations_on_all_floats),
        cmocka_unit_test(test_activations_of_special_values),
        cmocka_unit_test(test_bits_are_the_same_everywhere),
        cmocka_unit_test(test_bias_is_added_first),
        cmocka_unit_test(test_add_rounds_once),
        cmocka_unit_test(test_add_bias),
        cmocka_unit_test(test_round_bf16),
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_engines_round),
        cmocka_unit_test(test_linear_plain),
        cmocka_unit_test(test_linear_plain_splits_long_sums),
    };

    const struct CMUnitTest every_float[] = {cmocka_unit_test(test_gelu_on_every_float)};

    if (argc > 1 && strcmp(argv[1], "every-float") == 0)
        return cmocka_run_group_tests(every_float, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
