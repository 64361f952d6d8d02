/* The element-wise kernels of every table that this processor runs. */
#include "tests/unit/tables.h"

#include <math.h>
#include <stdlib.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_are_the_same_everywhere),
        cmocka_unit_test(test_add_rounds_once),
        cmocka_unit_test(test_add_bias),
        cmocka_unit_test(test_round_bf16),
        cmocka_unit_test(test_conversions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
