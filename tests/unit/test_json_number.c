/* Reading JSON numbers: correct rounding, strict grammar. */
#include "server/json_number.h"

#include "server/json_powers.h"
#include "tests/unit/support.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Each random test tries this many numbers. */
#define RANDOM_COUNT 1000000

/* An exact midpoint of two floats has no more than 113 significant digits. */
#define EXACT_BYTES 400

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

/* Parse from memory of the text's own size, so that the address sanitizer sees any step beyond. */
static json_number_status parse_copy(float *out, size_t *used, const char *text)
{
    size_t size = strlen(text);
    char *copy = malloc(size + 1);
    const char *next = copy;
    json_number_status status;

    assert_non_null(copy);
    memcpy(copy, text, size + 1);
    status = json_parse_f32(out, &next, copy, copy + size);
    *used = (size_t)(next - copy);
    free(copy);
    return status;
}

static void expect_bits(const char *text, uint32_t bits)
{
    float value = 0;
    size_t used;
    json_number_status status = parse_copy(&value, &used, text);

    if (bits == bits_of(INFINITY) && text[0] != 'I') {
        if (status != JSON_NUMBER_RANGE || used != strlen(text))
            fail_msg("%.60s: expected out of range, got %d, %a", text, (int)status, (double)value);
        return;
    }
    if (status != JSON_NUMBER_OK || used != strlen(text) || bits_of(value) != bits)
        fail_msg("%.60s: expected %a, got %a, status %d, %zu bytes", text, (double)float_of(bits),
                 (double)value, (int)status, used);
}

/* --- the table ----------------------------------------------------------------------------- */

/* Entries are the first 64 bits of 2^320 times or divided by ten, again and again. */
static void test_powers(void **state)
{
    (void)state;
    for (int k = JSON_POWER_MIN; k <= JSON_POWER_MAX; k++) {
        uint32_t words[16] = {[10] = 1}; /* 2^320, the least significant word first */
        uint64_t first = 0;
        int top = 511;

        for (int i = 0; i < k; i++) {
            uint64_t carry = 0;

            for (int w = 0; w < 16; w++) {
                carry += (uint64_t)words[w] * 10;
                words[w] = (uint32_t)carry;
                carry >>= 32;
            }
        }
        for (int i = 0; i < -k; i++) {
            uint64_t rest = 0;

            for (int w = 15; w >= 0; w--) {
                rest = rest << 32 | words[w];
                words[w] = (uint32_t)(rest / 10);
                rest %= 10;
            }
        }
        while (!(words[top / 32] >> top % 32 & 1))
            top--;
        for (int bit = top; bit > top - 64; bit--)
            first = first << 1 | (words[bit / 32] >> bit % 32 & 1);
        if (json_powers[k - JSON_POWER_MIN] != first || JSON_POWER_LOG2(k) != top - 320)
            fail_msg("10^%d: expected %016llx * 2^%d", k, (unsigned long long)first, top - 320);
    }
}

/* --- reading ------------------------------------------------------------------------------- */

static void test_values(void **state)
{
    static const struct {
        const char *text;
        float value;
    } rows[] = {
        {"0", 0.0F},
        {"-0", -0.0F},
        {"0.0", 0.0F},
        {"-0.0e5", -0.0F},
        {"1", 1.0F},
        {"-1", -1.0F},
        {"10", 10.0F},
        {"0.1", 0x1.99999ap-4F},
        {"1E2", 100.0F},
        {"1e+2", 100.0F},
        {"1.5e-2", 0x1.eb851ep-7F},
        {"1e00002", 100.0F},
        {"1e-0", 1.0F},
        {"12345678", 12345678.0F},
        {"123456789", 123456792.0F},
        {"9007199254740993", 9007199254740992.0F},
        {"16777217", 16777216.0F},
        {"16777219", 16777220.0F},
        {"16777217.0000000000000000000000000000000001", 16777218.0F},
        {"0.10000000149011611938476562500000000000000000000000", 0x1.99999ap-4F},
        {"1.00000005960464477539062500000000000000000000000001", 0x1.000002p0F},
        {"1.000000059604644775390625", 1.0F},
        {"1.00000017881393432617187500", 0x1.000004p0F},
        {"340282346638528859811704183484516925440", FLT_MAX},
        {"3.4028235677973366163753939545814245e38", FLT_MAX},
        {"340282356779733661637539395458142568447", FLT_MAX},
        {"340282356779733661637539395458142568448", INFINITY},
        {"-340282356779733661637539395458142568448", INFINITY},
        {"3.4028236e38", INFINITY},
        {"1e39", INFINITY},
        {"18446744073709551615e19", 18446744073709551615e19F},
        {"18446744073709551615e20", INFINITY},
        {"1.1754943508222875e-38", FLT_MIN},
        {"1.17549435082228743e-38", FLT_MIN},
        {"1.1754942106924411e-38", 0x1.fffffcp-127F},
        {"1.4e-45", 0x1p-149F},
        {"7.1e-46", 0x1p-149F},
        {"7.0e-46", 0.0F},
        {"-7.0e-46", -0.0F},
        {"1e-46", 0.0F},
        {"9999999999999999999e-63", 0x1p-149F * 7},
        {"9999999999999999999e-64", 0x1p-149F},
        {"9999999999999999999e-65", 0.0F},
        {"9999999999999999999e-66", 0.0F},
        {"123456789012345678901234567890", 123456789012345678901234567890.0F},
        {"0.000000000000000000000000000000000000000123456789", 1.23456789e-40F},
        {"1e999999999999999999999", INFINITY},
        {"-1e999999999999999999999", INFINITY},
        {"1e-999999999999999999999", 0.0F},
        {"-1e-999999999999999999999", -0.0F},
        {"0e99999999999", 0.0F},
        {"0.000e99999999999999999999999", 0.0F},
        {"0e-99999999999", 0.0F},
        {"1e9223372036854775807", INFINITY},
        {"1e-9223372036854775808", 0.0F},
        {"1e18446744073709551616", INFINITY},
        {"1e-18446744073709551616", 0.0F},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_bits(rows[i].text, bits_of(rows[i].value));
}

static void test_tokens(void **state)
{
    float value = 0;
    size_t used;

    (void)state;
    assert_int_equal(JSON_NUMBER_OK, parse_copy(&value, &used, "NaN"));
    assert_true(isnan(value));
    assert_int_equal(3, used);
    expect_bits("Infinity", bits_of(INFINITY));
    assert_int_equal(JSON_NUMBER_OK, parse_copy(&value, &used, "-Infinity]"));
    assert_int_equal(bits_of(-INFINITY), bits_of(value));
    assert_int_equal(9, used);
}

/* What is wrong with the text must be seen without reading behind it, and *out must stay. */
static void test_malformed(void **state)
{
    static const char *const rows[] = {"",
                                       "-",
                                       "+1",
                                       "+",
                                       ".5",
                                       "-.5",
                                       "5.",
                                       "-5.",
                                       "5.e1",
                                       "1e",
                                       "1e+",
                                       "1e-",
                                       "1E",
                                       "1.5e",
                                       "1.e",
                                       "01",
                                       "-01",
                                       "00",
                                       "00.5",
                                       "007",
                                       "a",
                                       "--1",
                                       "-+1",
                                       " 1",
                                       "nan",
                                       "NAN",
                                       "Na",
                                       "N",
                                       "-NaN",
                                       "inf",
                                       "Inf",
                                       "-Inf",
                                       "Infinit",
                                       "-Infinit",
                                       "null",
                                       "\"1\"",
                                       "e5",
                                       "-e5",
                                       "1e*",
                                       "1.-5",
                                       "1e.5",
                                       "- 1",
                                       "infinity",
                                       "+Infinity",
                                       "[",
                                       ",",
                                       "1.e5",
                                       "0.e1",
                                       "-0.",
                                       "0e",
                                       "1..2",
                                       "0.",
                                       "012345678901234567890",
                                       "5.                       ",
                                       "1e                 "};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float value = 42;
        size_t used;

        if (parse_copy(&value, &used, rows[i]) != JSON_NUMBER_MALFORMED)
            fail_msg("'%s' is accepted", rows[i]);
        assert_true(value == 42);
        assert_int_equal(0, used);
    }
}

/* A number ends where the grammar says, whatever follows. */
static void test_end(void **state)
{
    static const struct {
        const char *text;
        size_t used;
    } rows[] = {
        {"1,2", 1},        {"1]", 1},        {"0x10", 1},        {"1 2", 1},   {"12a", 2},
        {"-1-1", 2},       {"1.5.5", 3},     {"1e5e5", 3},       {"1e5.5", 3}, {"0.5f", 3},
        {"123456789]", 9}, {"12345678x", 8}, {"1.2345678,1", 9}, {"0x1p3", 1}, {"1\0002", 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float value;
        size_t used;

        assert_int_equal(JSON_NUMBER_OK, parse_copy(&value, &used, rows[i].text));
        assert_int_equal(rows[i].used, used);
    }
}

/* Exponents that make up for a hundred thousand zeros. */
static void test_long_zeros(void **state)
{
    enum { ZEROS = 100000, ROOM = ZEROS + 100 };
    char *text = malloc(ROOM);

    (void)state;
    assert_non_null(text);
    memset(text, '0', ROOM);
    text[1] = '.';
    snprintf(text + 2 + ZEROS, 98, "15e100001");
    expect_bits(text, bits_of(1.5F));
    snprintf(text + 2 + ZEROS, 98, "16777217e100008");
    expect_bits(text, bits_of(16777216.0F));
    snprintf(text + 2 + ZEROS, 98, "1677721700000000000000001e100008");
    expect_bits(text, bits_of(16777218.0F));
    snprintf(text + 2 + ZEROS, 98, "1677721700000000000000000e100008");
    expect_bits(text, bits_of(16777216.0F));
    memset(text, '0', ROOM);
    text[0] = '3';
    snprintf(text + 1 + ZEROS, 98, "e-100001");
    expect_bits(text, bits_of(0.3F));
    memset(text, '0', ROOM);
    memcpy(text, "16777217", 8);
    snprintf(text + ZEROS, 98, "e-%d", ZEROS - 8);
    expect_bits(text, bits_of(16777216.0F));
    snprintf(text + ZEROS, 98, "1e-%d", ZEROS - 7);
    expect_bits(text, bits_of(16777218.0F));
    snprintf(text + ZEROS, 98, ".000");
    expect_bits(text, bits_of(INFINITY));
    free(text);
}

/* Take one off the last digit of a decimal without an exponent; it is not zero. */
static void decrement(char *digits)
{
    char *last = digits + strlen(digits) - 1;

    assert_in_range(*last, '1', '9');
    --*last;
}

/*
 * The midpoint between the float of these bits and the next, exactly, and a little to both sides:
 * one digit less in the last place and nines, zeros and one digit more.
 */
static void check_midpoint(uint32_t bits)
{
    uint32_t up = bits + 1;
    uint32_t even = bits % 2 == 0 ? bits : up;
    double middle =
        ((double)float_of(bits) + (up == bits_of(INFINITY) ? 0x1p128 : (double)float_of(up))) / 2;
    char text[EXACT_BYTES];
    char longer[EXACT_BYTES * 2];
    char *exponent;
    char *end;

    snprintf(text, sizeof text, "%.160e", middle);
    exponent = strchr(text, 'e');
    for (end = exponent; end[-1] == '0'; end--)
        ;
    if (end[-1] == '.')
        return; /* one digit, and no place to take one off */
    expect_bits(text, even);
    snprintf(longer, sizeof longer, "%.*s%s", (int)(end - text), text, exponent);
    expect_bits(longer, even);
    snprintf(longer, sizeof longer, "%.*s%0300d%s", (int)(end - text), text, 0, exponent);
    expect_bits(longer, even);
    snprintf(longer, sizeof longer, "%.*s1%s", (int)(end - text), text, exponent);
    expect_bits(longer, up);
    snprintf(longer, sizeof longer, "%.*s%0300d1%s", (int)(end - text), text, 0, exponent);
    expect_bits(longer, up);
    snprintf(longer, sizeof longer, "%.*s", (int)(end - text), text);
    decrement(longer);
    end = longer + strlen(longer);
    memset(end, '9', 200);
    strcpy(end + 200, exponent);
    expect_bits(longer, bits);
}

static void test_midpoints(void **state)
{
    uint64_t random = 7;

    (void)state;
    for (uint32_t field = 0; field < 255; field++) {
        check_midpoint(field << 23);
        check_midpoint((field << 23) + 1);
        check_midpoint((field << 23) + 0x7FFFFF);
        check_midpoint((field << 23) + 0x7FFFFE);
    }
    for (uint32_t bits = 0; bits < 300; bits++)
        check_midpoint(bits);
    for (int i = 0; i < RANDOM_COUNT / 200; i++)
        check_midpoint((uint32_t)random_below(&random, 0x7F800000));
}

static void compare_with_strtof(const char *text)
{
    float expected = strtof(text, NULL);
    const char *next;
    float got = 0;
    json_number_status status = json_parse_f32(&got, &next, text, text + strlen(text));

    if (isinf(expected) ? status != JSON_NUMBER_RANGE
                        : status != JSON_NUMBER_OK || bits_of(expected) != bits_of(got))
        fail_msg("%s: expected %a, got %a, status %d", text, (double)expected, (double)got,
                 (int)status);
    assert_ptr_equal(text + strlen(text), next);
}

/* Decimals of 1 to 40 digits, the point anywhere, exponents over the whole range and beyond. */
static void test_random_decimals(void **state)
{
    uint64_t random = 1;

    (void)state;
    for (int i = 0; i < RANDOM_COUNT; i++) {
        char text[100];
        char *to = text;
        size_t whole = random_below(&random, 8) ? 1 : 1 + random_below(&random, 22);
        size_t fraction =
            random_below(&random, 4) ? random_below(&random, 19) : random_below(&random, 40);
        uint64_t digits = random_u64(&random);

        if (random_below(&random, 2))
            *to++ = '-';
        for (size_t d = 0; d < whole + fraction; d++) {
            if (d == whole)
                *to++ = '.';
            if (d % 16 == 15)
                digits = random_u64(&random);
            *to++ = (char)('0' + digits % 10);
            digits /= 10;
            if (d == 0 && to[-1] == '0' && whole > 1)
                to[-1] = '1';
        }
        *to = '\0';
        if (random_below(&random, 2))
            sprintf(to, "e%d", (int)random_below(&random, 110) - 65);
        compare_with_strtof(text);
    }
}

/* Floats as programs print them: doubles with 17 digits, floats with 9, short decimals. */
static void test_random_printed(void **state)
{
    uint64_t random = 2;

    (void)state;
    for (int i = 0; i < RANDOM_COUNT / 4; i++) {
        char text[100];
        float value = float_of((uint32_t)random_below(&random, 0x7F800000));
        double near = (double)value * (1 + (double)random_float(&random) * 0x1p-24);

        snprintf(text, sizeof text, "%.17g", near);
        compare_with_strtof(text);
        snprintf(text, sizeof text, "%.*g", 6 + i % 4, (double)value);
        compare_with_strtof(text);
    }
}

static void test_integers(void **state)
{
    static const struct {
        const char *text;
        json_number_status status;
        int64_t value;
        size_t used;
    } rows[] = {
        {"0", JSON_NUMBER_OK, 0, 1},
        {"-0", JSON_NUMBER_OK, 0, 2},
        {"7,8", JSON_NUMBER_OK, 7, 1},
        {"-12345678", JSON_NUMBER_OK, -12345678, 9},
        {"123456789012345678", JSON_NUMBER_OK, 123456789012345678, 18},
        {"9223372036854775807", JSON_NUMBER_OK, INT64_MAX, 19},
        {"-9223372036854775808", JSON_NUMBER_OK, INT64_MIN, 20},
        {"9223372036854775808", JSON_NUMBER_RANGE, 42, 19},
        {"-9223372036854775809", JSON_NUMBER_RANGE, 42, 20},
        {"9999999999999999999", JSON_NUMBER_RANGE, 42, 19},
        {"18446744073709551616", JSON_NUMBER_RANGE, 42, 20},
        {"-18446744073709551617", JSON_NUMBER_RANGE, 42, 21},
        {"100000000000000000000000000000000000000000", JSON_NUMBER_RANGE, 42, 42},
        {"3.0", JSON_NUMBER_MALFORMED, 42, 0},
        {"1e2", JSON_NUMBER_MALFORMED, 42, 0},
        {"1E2", JSON_NUMBER_MALFORMED, 42, 0},
        {"99999999999999999999.5", JSON_NUMBER_MALFORMED, 42, 0},
        {"01", JSON_NUMBER_MALFORMED, 42, 0},
        {"-01", JSON_NUMBER_MALFORMED, 42, 0},
        {"+1", JSON_NUMBER_MALFORMED, 42, 0},
        {"-", JSON_NUMBER_MALFORMED, 42, 0},
        {"", JSON_NUMBER_MALFORMED, 42, 0},
        {"--1", JSON_NUMBER_MALFORMED, 42, 0},
        {"NaN", JSON_NUMBER_MALFORMED, 42, 0},
        {"x", JSON_NUMBER_MALFORMED, 42, 0},
        {".5", JSON_NUMBER_MALFORMED, 42, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *text = rows[i].text;
        const char *next = text;
        int64_t value = 42;

        assert_int_equal(rows[i].status, json_parse_i64(&value, &next, text, text + strlen(text)));
        assert_true(value == rows[i].value);
        assert_int_equal(rows[i].used, next - text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_powers),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_long_zeros),
        cmocka_unit_test(test_midpoints),
        cmocka_unit_test(test_random_decimals),
        cmocka_unit_test(test_random_printed),
        cmocka_unit_test(test_integers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
