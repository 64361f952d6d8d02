/* The activations of every table that this processor runs. */
#include "tests/unit/tables.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

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

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_values),
        cmocka_unit_test(test_activations_on_all_floats),
        cmocka_unit_test(test_activations_of_special_values),
        cmocka_unit_test(test_bias_is_added_first),
    };
    const struct CMUnitTest every_float[] = {cmocka_unit_test(test_gelu_on_every_float)};

    if (argc > 1 && strcmp(argv[1], "every-float") == 0)
        return cmocka_run_group_tests(every_float, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
