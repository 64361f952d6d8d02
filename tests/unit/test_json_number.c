/* Reading JSON numbers: values, grammar, extremes. */
#include "server/json_number.h"

#include "tests/unit/support.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    static const char rows[] =
        "-|+1|+|.5|-.5|5.|-5.|5.e1|1e|1e+|1e-|1E|1.5e|1.e|01|-01|00|00.5|007|a|--1|-+1| 1|"
        "nan|NAN|Na|N|-NaN|inf|Inf|-Inf|Infinit|-Infinit|null|\"1\"|e5|-e5|1e*|1.-5|1e.5|- 1|"
        "infinity|+Infinity|[|,|1.e5|0.e1|-0.|0e|1..2|0.|012345678901234567890|"
        "5.                       |1e                 |";
    const char *row = rows;

    (void)state;
    for (;;) {
        size_t size = strcspn(row, "|");
        char text[40];
        float value = 42;
        size_t used;

        snprintf(text, sizeof text, "%.*s", (int)size, row);
        if (parse_copy(&value, &used, text) != JSON_NUMBER_MALFORMED)
            fail_msg("'%s' is accepted", text);
        assert_true(value == 42);
        assert_int_equal(0, used);
        if (!row[size])
            break; /* after the empty text behind the last bar */
        row += size + 1;
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
        cmocka_unit_test(test_values),     cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_malformed),  cmocka_unit_test(test_end),
        cmocka_unit_test(test_long_zeros), cmocka_unit_test(test_integers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
