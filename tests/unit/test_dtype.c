/*
 * Narrowing is checked against arithmetic in double precision: a float divided by the unit in the
 * last place of its result is exact there, and nearbyint() rounds the quotient to even.
 */
#include "tests/unit/support.h"

#include <math.h>
#include <nsa/dtype.h>
#include <string.h>

#define HALVES 65536
#define RANDOM_FLOATS 2000000
#define LONGEST_TAIL 70 /* more than any vector width that a compiler uses */

/* A binary format of 16 bits: its precision (with the leading bit) and its exponents. */
struct format {
    nsa_dtype dtype;
    int precision;
    int least_exponent;
    int greatest_exponent;
};

static const struct format f16 = {NSA_F16, 11, -14, 15};
static const struct format bf16 = {NSA_BF16, 8, -126, 127};

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

static float widen(const struct format *f, uint16_t half)
{
    float value;

    nsa_to_f32(&value, &half, f->dtype, 1);
    return value;
}

static uint16_t narrow(const struct format *f, float value)
{
    uint16_t half;

    nsa_from_f32(&half, f->dtype, &value, 1);
    return half;
}

/* The value of a 16-bit pattern, from its fields. */
static double value_of(const struct format *f, uint16_t half)
{
    int fraction_bits = f->precision - 1;
    int fraction = half & ((1 << fraction_bits) - 1);
    int exponent = (half & 0x7FFF) >> fraction_bits;
    double magnitude;

    if (exponent > f->greatest_exponent - f->least_exponent + 1)
        magnitude = fraction ? (double)NAN : (double)INFINITY;
    else if (exponent == 0)
        magnitude = ldexp(fraction, f->least_exponent - fraction_bits);
    else
        magnitude = ldexp(fraction + (1 << fraction_bits),
                          f->least_exponent + exponent - 1 - fraction_bits);
    return half & 0x8000 ? -magnitude : magnitude;
}

/* `value` rounded to the format, to nearest even. */
static double rounded(const struct format *f, float value)
{
    double magnitude = fabs((double)value);
    double unit;
    int exponent;

    if (isnan(value) || isinf(value) || magnitude == 0)
        return (double)value;
    frexp(magnitude, &exponent);
    exponent--; /* of the leading bit */
    if (exponent < f->least_exponent)
        exponent = f->least_exponent;
    unit = ldexp(1, exponent - f->precision + 1);
    magnitude = nearbyint(magnitude / unit) * unit;
    if (magnitude >= ldexp(1, f->greatest_exponent + 1))
        magnitude = (double)INFINITY;
    return copysign(magnitude, (double)value);
}

static void check_narrow(const struct format *f, float value)
{
    double expected = rounded(f, value);
    double got = value_of(f, narrow(f, value));

    if (isnan(expected) ? !isnan(got) : (expected != got || signbit(expected) != signbit(got)))
        fail_msg("%s of %a: expected %a, got %a", nsa_dtype_name(f->dtype), (double)value, expected,
                 got);
}

static void every_pattern_widens_exactly(void **state)
{
    const struct format *f = *state;
    for (int i = 0; i < HALVES; i++) {
        double expected = value_of(f, (uint16_t)i);
        double got = (double)widen(f, (uint16_t)i);

        if (isnan(expected) ? !isnan(got) : expected != got)
            fail_msg("%s 0x%04x: expected %a, got %a", nsa_dtype_name(f->dtype), (unsigned)i,
                     expected, got);
        assert_int_equal(!!signbit(expected), !!signbit(got));
    }
}

static void every_pattern_survives_the_round_trip(void **state)
{
    const struct format *f = *state;
    int fraction_bits = f->precision - 1;

    for (int i = 0; i < HALVES; i++) {
        int got = narrow(f, widen(f, (uint16_t)i));
        /* A NaN comes back quiet: with the first bit of its fraction set. */
        int quiet = isnan(value_of(f, (uint16_t)i)) ? 1 << (fraction_bits - 1) : 0;

        assert_int_equal(i | quiet, got);
    }
}

/* Halfway between each two neighbours of the format, and a float to either side. */
static void ties_round_to_even(void **state)
{
    const struct format *f = *state;
    for (int i = 0; i < 0x7FFF; i++) {
        double low = value_of(f, (uint16_t)i);
        double high = value_of(f, (uint16_t)(i + 1));
        float middle;

        if (isinf(high))
            high = ldexp(1, f->greatest_exponent + 1);
        middle = (float)(low / 2 + high / 2);
        if (isnan(low) || isinf(low))
            break;
        assert_true((double)middle == low / 2 + high / 2);
        for (int sign = -1; sign <= 1; sign += 2) {
            float value = (float)sign * middle;

            check_narrow(f, value);
            check_narrow(f, nextafterf(value, -INFINITY));
            check_narrow(f, nextafterf(value, INFINITY));
        }
    }
}

static void random_floats_narrow_as_in_double_precision(void **state)
{
    const struct format *f = *state;
    uint64_t seed = 20240229;

    for (int i = 0; i < RANDOM_FLOATS; i++) {
        uint32_t bits = (uint32_t)(random_u64(&seed) >> 32);

        check_narrow(f, float_of(bits));
        /* Most of those are far outside what float16 holds; these are not. */
        check_narrow(f, ldexpf(random_float(&seed), (int)random_below(&seed, 48) - 28));
    }
}

static void not_a_number_stays_so_and_quiet(void **state)
{
    const struct format *f = *state;
    /* The payload of the first of each pair is lost when the float is cut to its upper half. */
    static const uint32_t patterns[] = {0x7F800001, 0xFF800001, 0x7F801FFF, 0x7FFFFFFF,
                                        0xFFFFFFFF, 0x7FC00000, 0xFFC00000, 0x7FBFFFFF};

    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        uint16_t half = narrow(f, float_of(patterns[i]));

        assert_true(isnan(value_of(f, half)));
        assert_true(isnan(widen(f, half)));
        assert_int_equal(patterns[i] >> 31, half >> 15);
        assert_true(half & 1 << (f->precision - 2));
    }
}

static void float16_overflows_to_infinity_and_underflows_gradually(void **state)
{
    (void)state;
    assert_int_equal(0x0000, narrow(&f16, 0x1p-25F)); /* a tie with zero */
    assert_int_equal(0x0001, narrow(&f16, nextafterf(0x1p-25F, 1)));
    assert_int_equal(0x8000, narrow(&f16, -0x1p-149F));
    assert_int_equal(0x0400, narrow(&f16, nextafterf(0x1p-14F, 0))); /* carries into normal */
    assert_int_equal(0x7BFF, narrow(&f16, nextafterf(65520, 0)));
    assert_int_equal(0x7C00, narrow(&f16, 65520));
}

static void bfloat16_overflows_to_infinity_and_underflows_gradually(void **state)
{
    (void)state;
    assert_int_equal(0x7F80, narrow(&bf16, float_of(0x7F7FFFFF)));
    assert_int_equal(0x7F7F, narrow(&bf16, float_of(0x7F7F7FFF)));
    assert_int_equal(0x0000, narrow(&bf16, float_of(0x00008000)));
    assert_int_equal(0x0001, narrow(&bf16, float_of(0x00008001)));
}

static void float64_rounds_to_float32(void **state)
{
    static const struct {
        double from;
        uint32_t to;
    } rows[] = {
        {1.0, 0x3F800000},
        {1.0 + 0x1p-24, 0x3F800000}, /* tie, to even */
        {1.0 + 0x3p-24, 0x3F800002}, /* tie, to even */
        {1.0 + 0x1.000001p-24, 0x3F800001},
        {-0.0, 0x80000000},
        {0x1p-150, 0x00000000},
        {0x1.8p-150, 0x00000001},
        {0x1.fffffefffffffp127, 0x7F7FFFFF},
        {0x1.ffffffp127, 0x7F800000},
        {-1e300, 0xFF800000},
    };
    double special[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
    float got[3];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nsa_to_f32(got, &rows[i].from, NSA_F64, 1);
        assert_int_equal(rows[i].to, bits_of(got[0]));
    }
    nsa_to_f32(got, special, NSA_F64, 3);
    assert_true(isnan(got[0]) && got[1] == INFINITY && got[2] == -INFINITY);
}

static void float32_widens_to_float64_and_back(void **state)
{
    uint64_t seed = 7;

    (void)state;
    for (int i = 0; i < 100000; i++) {
        float value = float_of((uint32_t)(random_u64(&seed) >> 32));
        double wide;
        float back;

        nsa_from_f32(&wide, NSA_F64, &value, 1);
        assert_true(isnan(value) ? isnan(wide) : wide == (double)value);
        nsa_to_f32(&back, &wide, NSA_F64, 1);
        assert_true(isnan(value) ? isnan(back) : bits_of(back) == bits_of(value));
    }
}

static void float32_is_copied_bit_for_bit(void **state)
{
    uint32_t patterns[] = {0x7F800001, 0x80000000, 0x00000001, 0x3F800000};
    uint32_t there[4];
    float values[4];

    (void)state;
    nsa_to_f32(values, patterns, NSA_F32, 4);
    assert_memory_equal(patterns, values, sizeof patterns);
    nsa_from_f32(there, NSA_F32, values, 4);
    assert_memory_equal(patterns, there, sizeof patterns);
}

/* Whole vectors and their tails must give what single elements give, from and to odd addresses. */
static void check_count(nsa_dtype dtype, size_t count, size_t shift)
{
    unsigned char raw[LONGEST_TAIL * 8 + 2];
    float values[LONGEST_TAIL + 1];
    size_t size = nsa_dtype_size(dtype);
    uint64_t seed = 3 + count;

    for (size_t i = 0; i < count; i++) {
        float value = ldexpf(random_float(&seed), (int)random_below(&seed, 40) - 24);

        nsa_from_f32(raw + shift + i * size, dtype, &value, 1);
    }
    values[count] = 42;
    nsa_to_f32(values, raw + shift, dtype, count);
    assert_int_equal(bits_of(42), bits_of(values[count]));
    for (size_t i = 0; i < count; i++) {
        float alone;

        nsa_to_f32(&alone, raw + shift + i * size, dtype, 1);
        assert_int_equal(bits_of(alone), bits_of(values[i]));
    }
    memset(raw, 0xA5, sizeof raw);
    nsa_from_f32(raw + shift, dtype, values, count);
    for (size_t i = 0; i < count; i++) {
        unsigned char alone[8];

        nsa_from_f32(alone, dtype, &values[i], 1);
        assert_memory_equal(alone, raw + shift + i * size, size);
    }
    assert_int_equal(0xA5, raw[shift + count * size]);
    assert_true(shift == 0 || raw[0] == 0xA5);
}

static void any_count_and_any_alignment_will_do(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < NSA_DTYPE_COUNT; dtype++) {
        if (!nsa_dtype_is_float((nsa_dtype)dtype))
            continue;
        for (size_t count = 0; count <= LONGEST_TAIL; count++) {
            check_count((nsa_dtype)dtype, count, 0);
            check_count((nsa_dtype)dtype, count, 1);
        }
        nsa_to_f32(NULL, NULL, (nsa_dtype)dtype, 0);
        nsa_from_f32(NULL, (nsa_dtype)dtype, NULL, 0);
    }
}

static void names_and_sizes(void **state)
{
    static const struct {
        nsa_dtype dtype;
        const char *name;
        size_t size;
        bool is_float;
    } rows[NSA_DTYPE_COUNT] = {{NSA_F32, "float32", 4, true},
                               {NSA_F16, "float16", 2, true},
                               {NSA_BF16, "bfloat16", 2, true},
                               {NSA_F64, "float64", 8, true},
                               {NSA_I64, "int64", 8, false}};

    (void)state;
    for (size_t i = 0; i < NSA_DTYPE_COUNT; i++) {
        nsa_dtype dtype = NSA_DTYPE_COUNT;

        assert_string_equal(rows[i].name, nsa_dtype_name(rows[i].dtype));
        assert_int_equal(rows[i].size, nsa_dtype_size(rows[i].dtype));
        assert_int_equal(rows[i].is_float, nsa_dtype_is_float(rows[i].dtype));
        assert_true(nsa_dtype_from_name(&dtype, rows[i].name));
        assert_int_equal(rows[i].dtype, dtype);
    }
    assert_false(nsa_dtype_is_float(NSA_DTYPE_COUNT));
}

static void other_names_are_no_dtypes(void **state)
{
    static const char *const names[] = {"",    "float", "float322", "Float32",
                                        "f32", "FP32",  " int64"};
    nsa_dtype dtype = NSA_BF16;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_false(nsa_dtype_from_name(&dtype, names[i]));
    assert_int_equal(NSA_BF16, dtype);
}

/* A test of one 16-bit format. */
#define FORMAT_TEST(test, format)                                                                  \
    {                                                                                              \
#format ": " #test, test, NULL, NULL, (void *)&(format)                                    \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FORMAT_TEST(every_pattern_widens_exactly, f16),
        FORMAT_TEST(every_pattern_widens_exactly, bf16),
        FORMAT_TEST(every_pattern_survives_the_round_trip, f16),
        FORMAT_TEST(every_pattern_survives_the_round_trip, bf16),
        FORMAT_TEST(ties_round_to_even, f16),
        FORMAT_TEST(ties_round_to_even, bf16),
        FORMAT_TEST(random_floats_narrow_as_in_double_precision, f16),
        FORMAT_TEST(random_floats_narrow_as_in_double_precision, bf16),
        FORMAT_TEST(not_a_number_stays_so_and_quiet, f16),
        FORMAT_TEST(not_a_number_stays_so_and_quiet, bf16),
        cmocka_unit_test(names_and_sizes),
        cmocka_unit_test(other_names_are_no_dtypes),
        cmocka_unit_test(float16_overflows_to_infinity_and_underflows_gradually),
        cmocka_unit_test(bfloat16_overflows_to_infinity_and_underflows_gradually),
        cmocka_unit_test(float64_rounds_to_float32),
        cmocka_unit_test(float32_widens_to_float64_and_back),
        cmocka_unit_test(float32_is_copied_bit_for_bit),
        cmocka_unit_test(any_count_and_any_alignment_will_do),
    };

    return cmocka_run_group_tests_name("dtype", tests, NULL, NULL);
}
