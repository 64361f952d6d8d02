/* JSON numbers as float64: to the nearest and back, in the grammar and the style of float32. */
#include "server/json_number.h"

#include "tests/unit/support.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANDOM_COUNT 500000

static uint64_t bits_of(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double double_of(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Parse from memory of the text's own size, so that the address sanitizer sees any step beyond. */
static json_number_status parse_copy(double *out, size_t *used, const char *text)
{
    size_t size = strlen(text);
    char *copy = malloc(size + 1);
    const char *next = copy;
    json_number_status status;

    assert_non_null(copy);
    memcpy(copy, text, size + 1);
    status = json_parse_f64(out, &next, copy, copy + size);
    *used = (size_t)(next - copy);
    free(copy);
    return status;
}

/* Infinity from a decimal: out of range. */
static void expect_parsed(const char *text, double expected)
{
    double value = 42;
    size_t used;
    json_number_status status = parse_copy(&value, &used, text);

    assert_int_equal(strlen(text), used);
    if (isinf(expected)) {
        if (status != JSON_NUMBER_RANGE || value != 42)
            fail_msg("%.60s: expected out of range, got %d, %a", text, (int)status, value);
        return;
    }
    if (status != JSON_NUMBER_OK || bits_of(value) != bits_of(expected))
        fail_msg("%.60s: expected %a, got %a, status %d", text, expected, value, (int)status);
}

static void test_values(void **state)
{
    static const struct {
        const char *text;
        double value;
    } rows[] = {
        {"0", 0.0},
        {"-0", -0.0},
        {"-0.0e5", -0.0},
        {"0e99999999999", 0.0},
        {"1", 1.0},
        {"-1.5E+2", -150.0},
        {"0.1", 0x1.999999999999ap-4},
        {"16777217", 16777217.0},
        {"9007199254740993", 0x1p53},
        {"9007199254740993.00000000000000000000000000000000000000000000000001", 0x1p53 + 2},
        {"9007199254740995", 0x1p53 + 4},
        {"1.00000000000000011102230246251565404236316680908203125", 1.0},
        {"1.00000000000000011102230246251565404236316680908203126", 0x1.0000000000001p0},
        {"6929495644600919.5", 0x1.89e56ee5e7a58p52},
        {"3.4028236e38", 0x1.ffffff514a7bcp127},
        {"1e39", 0x1.78287f49c4a1dp129},
        {"1e-46", 0x1.244ce242c5561p-153},
        {"179769313486231570000e288", DBL_MAX},
        {"1.7976931348623158e308", DBL_MAX},
        {"1.7976931348623159e308", INFINITY},
        {"-1.8e308", INFINITY},
        {"1e999999999999999999999", INFINITY},
        {"2.2250738585072014e-308", DBL_MIN},
        {"2.2250738585072012e-308", DBL_MIN},
        {"2.2250738585072011e-308", 0x0.fffffffffffffp-1022},
        {"4.9e-324", 0x1p-1074},
        {"2.4703282292062328e-324", 0x1p-1074},
        {"2.4703282292062327e-324", 0.0},
        {"-2.4703282292062327e-324", -0.0},
        {"-1e-999999999999999999999", -0.0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_parsed(rows[i].text, rows[i].value);
}

static void test_tokens(void **state)
{
    static const struct {
        const char *text;
        double value;
    } rows[] = {{"Infinity", INFINITY}, {"-Infinity]", -INFINITY}, {"Infinity0", INFINITY}};
    double value;
    size_t used;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(JSON_NUMBER_OK, parse_copy(&value, &used, rows[i].text));
        assert_true(value == rows[i].value);
        assert_int_equal(value < 0 ? 9 : 8, used);
    }
    assert_int_equal(JSON_NUMBER_OK, parse_copy(&value, &used, "NaN(1)"));
    assert_true(isnan(value));
    assert_int_equal(3, used);
}

static void test_malformed(void **state)
{
    static const char *const rows[] = {"",    "-",   "+1",  ".5",  "5.",   "1e",
                                       "1e+", "01",  "nan", "inf", "-NaN", "infinity",
                                       " 1",  "-01", "--1", "0.e1"};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double value = 42;
        size_t used;

        if (parse_copy(&value, &used, rows[i]) != JSON_NUMBER_MALFORMED)
            fail_msg("'%s' is accepted", rows[i]);
        assert_true(value == 42);
        assert_int_equal(0, used);
    }
}

/* A number ends where JSON's grammar says, also where strtod() would read on. */
static void test_end(void **state)
{
    static const struct {
        const char *text;
        size_t used;
        double value;
    } rows[] = {
        {"1,2", 1, 1},    {"0x10", 1, 0},    {"-0x1p3", 2, -0.0}, {"0X1", 1, 0},
        {"1x", 1, 1},     {"1.5.5", 3, 1.5}, {"1e5e5", 3, 1e5},   {"0.5f", 3, 0.5},
        {"1e400", 5, 42}, {"1e400,", 5, 42}, {"00x1", 0, 42},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double value = 42;
        size_t used;

        parse_copy(&value, &used, rows[i].text);
        assert_int_equal(rows[i].used, used);
        assert_int_equal(bits_of(rows[i].value), bits_of(value));
    }
}

/* Numbers of a hundred thousand digits, decided by the last. */
static void test_long(void **state)
{
    enum { DIGITS = 100000, ROOM = DIGITS + 100 };
    char *text = malloc(ROOM);

    (void)state;
    assert_non_null(text);
    memset(text, '0', ROOM);
    text[1] = '.';
    snprintf(text + 2 + DIGITS, 98, "9007199254740993e%d", DIGITS + 16);
    expect_parsed(text, 0x1p53);
    snprintf(text + 2 + DIGITS, 98, "90071992547409930000000000000000000001e%d", DIGITS + 16);
    expect_parsed(text, 0x1p53 + 2);
    memset(text, '0', ROOM);
    memcpy(text, "9007199254740993", 16);
    snprintf(text + DIGITS, 98, "e-%d", DIGITS - 16);
    expect_parsed(text, 0x1p53);
    snprintf(text + DIGITS, 98, "1e-%d", DIGITS - 15);
    expect_parsed(text, 0x1p53 + 2);
    snprintf(text + DIGITS, 98, ".5");
    expect_parsed(text, INFINITY);
    free(text);
}

static void expect_printed(const char *expected, double value)
{
    char text[JSON_F64_BYTES + 1];

    text[json_print_f64(text, value)] = '\0';
    assert_string_equal(expected, text);
}

static void test_printed(void **state)
{
    (void)state;
    expect_printed("0.0", 0.0);
    expect_printed("-0.0", -0.0);
    expect_printed("NaN", -NAN);
    expect_printed("Infinity", INFINITY);
    expect_printed("-Infinity", -INFINITY);
    expect_printed("1", 1);
    expect_printed("-1e3", -1000);
    expect_printed("1200", 1200);
    expect_printed("0.1", 0.1);
    expect_printed("-0.30000000000000004", -(0.1 + 0.2));
    expect_printed("0.10000000149011612", (double)0.1F);
    expect_printed("3.141592653589793", 3.141592653589793);
    expect_printed("0.012345678901234567", 0.012345678901234567);
    expect_printed("0.0012345678901234567", 0.0012345678901234567);
    expect_printed("1.2345678901234567e-4", 0.00012345678901234567);
    expect_printed("12345678901234567000", 12345678901234567e3);
    expect_printed("123456789012345680000", 123456789012345678901.0);
    expect_printed("1.7976931348623157e308", DBL_MAX);
    expect_printed("2.2250738585072014e-308", DBL_MIN);
    expect_printed("-2.225073858507201e-308", -0x0.fffffffffffffp-1022);
    expect_printed("5e-324", 0x1p-1074);
    expect_printed("1.5e-323", 0x3p-1074);
}

/* Where float32 and float64 are written with the same digits, they are written alike. */
static void test_style(void **state)
{
    (void)state;
    for (int digits = 1; digits <= 6; digits++) {
        for (int power = -37; power <= 37; power++) {
            char source[40];
            char expected[JSON_F32_BYTES + 1];

            snprintf(source, sizeof source, "%.*e", digits - 1,
                     strtod("1.23456", NULL) * pow(10, power));
            expected[json_print_f32(expected, strtof(source, NULL))] = '\0';
            expect_printed(expected, strtod(source, NULL));
        }
    }
}

/* The significant digits in `text`, as a number, and the power of ten of the last. */
static uint64_t significant(int *power, const char *text)
{
    uint64_t digits = 0;
    bool behind = false; /* the point */
    int zeros = 0;       /* that have come since a digit, and count if another does */

    *power = 0;
    for (; *text && *text != 'e'; text++) {
        if (*text == '.')
            behind = true;
        if (*text < '0' || *text > '9')
            continue;
        *power -= behind;
        zeros++;
        if (*text == '0')
            continue;
        for (; zeros > 0; zeros--)
            digits *= 10;
        digits += (uint64_t)(*text - '0');
    }
    *power += zeros + (*text == 'e' ? atoi(text + 1) : 0);
    return digits;
}

static double power_of_ten_times(uint64_t digits, int power)
{
    char text[60];

    snprintf(text, sizeof text, "%llue%d", (unsigned long long)digits, power);
    return strtod(text, NULL);
}

/*
 * It reads back and stays in its room. It is the shortest: no decimal with a digit less, above or
 * below, does. It is the nearest: if the value rounded to as many digits reads back, it is that.
 * (It need not below a power of two, where the doubles on one side are closer.)
 */
static void check_printed(double value)
{
    char text[JSON_F64_BYTES + 8];
    char rounded[40];
    const char *next;
    double back = 0;
    uint64_t digits;
    int power;
    int rounded_power;
    size_t size;

    memset(text, '#', sizeof text);
    size = json_print_f64(text, value);
    assert_true(size <= JSON_F64_BYTES);
    for (size_t i = JSON_F64_BYTES; i < sizeof text; i++)
        assert_int_equal('#', text[i]);
    text[size] = '\0';
    if (json_parse_f64(&back, &next, text, text + size) != JSON_NUMBER_OK || next != text + size ||
        bits_of(back) != bits_of(value) || bits_of(strtod(text, NULL)) != bits_of(value))
        fail_msg("%a printed as %s", value, text);
    value = fabs(value);
    digits = significant(&power, text);
    for (uint64_t up = 0; up < 2 && digits > 9; up++) {
        if (power_of_ten_times(digits / 10 + up, power + 1) == value)
            fail_msg("%a printed as %s: %llue%d is shorter", value, text,
                     (unsigned long long)(digits / 10 + up), power + 1);
    }
    snprintf(rounded, sizeof rounded, "%.*e", snprintf(NULL, 0, "%" PRIu64, digits) - 1, value);
    if (strtod(rounded, NULL) != value)
        return;
    if (significant(&rounded_power, rounded) != digits || rounded_power != power)
        fail_msg("%a printed as %s: %s is nearer", value, text, rounded);
}

static void test_random_doubles(void **state)
{
    uint64_t random = 22;

    (void)state;
    for (int i = 0; i < RANDOM_COUNT; i++) {
        uint64_t word = random_u64(&random);
        double value = double_of(word);

        if (i % 4 == 0) /* short decimals */
            value = (double)(word >> 40) / (i % 8 ? 1000.0 : 64.0);
        else if (i % 4 == 1) /* subnormal, of any number of bits */
            value = double_of(word >> 12 >> i % 52);
        if (isfinite(value) && value != 0)
            check_printed(value);
    }
}

static void test_doubles_at_boundaries(void **state)
{
    (void)state;
    for (uint64_t field = 0; field < 2047; field++) {
        for (uint64_t offset = 0; offset < 4; offset++) {
            if (field + offset > 0)
                check_printed(double_of((field << 52) + offset));
            check_printed(double_of((field << 52 | UINT64_C(0xFFFFFFFFFFFFF)) - offset));
        }
    }
    for (uint64_t bits = 1; bits < 2000; bits++)
        check_printed(double_of(bits));
    /* Where decimals of the same exponent are midway between doubles, or on them. */
    for (int shift = 0; shift < 11; shift++) {
        for (uint64_t value = 0; value < 1000; value++)
            check_printed((double)((UINT64_C(1) << 53 << shift) + (value << shift)));
    }
    for (int power = -323; power <= 308; power++) {
        for (uint64_t digits = 1; digits < 100; digits++) {
            double value = power_of_ten_times(digits, power);

            if (isfinite(value))
                check_printed(value);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_printed),
        cmocka_unit_test(test_style),
        cmocka_unit_test(test_random_doubles),
        cmocka_unit_test(test_doubles_at_boundaries),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
