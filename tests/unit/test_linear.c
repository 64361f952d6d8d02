/* The plain linear kernel, and what engines round. */
#include "tests/unit/tables.h"

#include <math.h>
#include <stdlib.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines_round),
        cmocka_unit_test(test_linear_plain),
        cmocka_unit_test(test_linear_plain_splits_long_sums),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
