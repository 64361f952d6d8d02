/* Reading JSON numbers as float64: each decimal goes to the nearest, ties to even. */
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

/* Infinity: out of range. */
static void expect_parsed(const char *text, double expected)
{
    const char *next = text;
    double value = 42;
    json_number_status status = json_parse_f64(&value, &next, text, text + strlen(text));

    if (isinf(expected) ? status != JSON_NUMBER_RANGE || value != 42
                        : status != JSON_NUMBER_OK || bits_of(value) != bits_of(expected))
        fail_msg("%.60s: expected %a, got %a, status %d", text, expected, value, (int)status);
    assert_ptr_equal(text + strlen(text), next);
}

/* Take one off the last digit of a decimal without an exponent; it is not zero. */
static void decrement(char *digits)
{
    char *last = digits + strlen(digits) - 1;

    assert_in_range(*last, '1', '9');
    --*last;
}

/*
 * The midpoint between the double of these bits and the next, exactly, and a little to both sides:
 * one digit less in the last place and nines, zeros and one digit more. A long double holds it.
 */
static void check_midpoint(uint64_t bits)
{
    enum { EXACT_BYTES = 800, MORE_BYTES = 100 };
    uint64_t up = bits + 1;
    double even = double_of(bits % 2 == 0 ? bits : up);
    long double next = up == bits_of(INFINITY) ? 0x1p1024L : (long double)double_of(up);
    char text[EXACT_BYTES + MORE_BYTES];
    char longer[EXACT_BYTES + MORE_BYTES];
    char *exponent;
    char *end;

    snprintf(text, sizeof text, "%.770Le", (double_of(bits) + next) / 2);
    exponent = strchr(text, 'e');
    for (end = exponent; end[-1] == '0'; end--)
        ;
    if (end[-1] == '.')
        return; /* one digit, and no place to take one off */
    expect_parsed(text, even);
    snprintf(longer, sizeof longer, "%.*s%s", (int)(end - text), text, exponent);
    expect_parsed(longer, even);
    snprintf(longer, sizeof longer, "%.*s%012d1%s", (int)(end - text), text, 0, exponent);
    expect_parsed(longer, double_of(up));
    snprintf(longer, sizeof longer, "%.*s", (int)(end - text), text);
    decrement(longer);
    end = longer + strlen(longer);
    memset(end, '9', 20);
    strcpy(end + 20, exponent);
    expect_parsed(longer, double_of(bits));
}

static void test_midpoints(void **state)
{
    uint64_t random = 23;

    (void)state;
    assert_true(LDBL_MANT_DIG > DBL_MANT_DIG);
    for (uint64_t field = 0; field < 2047; field++) {
        check_midpoint(field << 52);
        check_midpoint((field << 52) + UINT64_C(0xFFFFFFFFFFFFF));
        check_midpoint((field << 52) + random_below(&random, UINT64_C(1) << 52));
    }
    for (uint64_t bits = 0; bits < 300; bits++)
        check_midpoint(bits);
}

/* Doubles as programs print them, and near the midpoints of short decimals. */
static void test_random_read(void **state)
{
    uint64_t random = 24;

    (void)state;
    for (int i = 0; i < RANDOM_COUNT; i++) {
        char text[60];
        double value = double_of(random_u64(&random));

        if (i % 4 == 0) /* subnormal */
            value = double_of(random_u64(&random) >> 12 >> i % 52);
        else if (i % 4 == 1) /* integers of more bits than fit, with ties among them */
            value = (double)(random_u64(&random) >> 1 >> i % 11);
        if (!isfinite(value))
            continue;
        snprintf(text, sizeof text, "%.*g", 14 + i % 7, value);
        expect_parsed(text, strtod(text, NULL));
        if (i % 4 == 1) {
            snprintf(text, sizeof text, "%" PRIu64, random_u64(&random) >> 1 >> i % 11);
            expect_parsed(text, strtod(text, NULL));
        }
    }
}

/* Decimals of 1 to 40 digits, the point anywhere, exponents over the whole range and beyond. */
static void test_random_decimals(void **state)
{
    uint64_t random = 21;

    (void)state;
    for (int i = 0; i < RANDOM_COUNT; i++) {
        char text[100];
        char *to = text;
        size_t digits = 1 + random_below(&random, 40);
        size_t point = 1 + random_below(&random, digits);

        if (random_below(&random, 2))
            *to++ = '-';
        *to++ = (char)('1' + random_below(&random, 9));
        for (size_t d = 1; d < digits; d++) {
            if (d == point)
                *to++ = '.';
            *to++ = (char)('0' + random_below(&random, 10));
        }
        *to = '\0';
        if (random_below(&random, 4))
            sprintf(to, "e%d", (int)random_below(&random, 700) - 365);
        expect_parsed(text, strtod(text, NULL));
    }
}

/* What follows a number, as long as it likes, changes nothing: not for any number of digits. */
static void test_followed(void **state)
{
    uint64_t random = 25;

    (void)state;
    for (int i = 0; i < RANDOM_COUNT; i++) {
        static const char *const followers[] = {",1234567890123456789012345", "]]], [[[0.123456789",
                                                "e5,12345678901234567890123",
                                                ":;<=>?@/.-+*ABCDEFGH"};
        const char *follower = followers[random_below(&random, 4)];
        size_t fraction = 1 + random_below(&random, 24);
        char text[100];
        char *to = text;
        const char *next;
        double wide = 0;
        float narrow = 0;

        *to++ = (char)('0' + random_below(&random, 10));
        *to++ = '.';
        for (size_t d = 0; d < fraction; d++)
            *to++ = (char)('0' + random_below(&random, 10));
        strcpy(to, follower);
        to += follower[0] == 'e' ? 2 : 0;
        assert_int_equal(JSON_NUMBER_OK, json_parse_f64(&wide, &next, text, text + strlen(text)));
        assert_ptr_equal(to, next);
        assert_int_equal(JSON_NUMBER_OK, json_parse_f32(&narrow, &next, text, text + strlen(text)));
        assert_ptr_equal(to, next);
        if (wide != strtod(text, NULL) || narrow != strtof(text, NULL))
            fail_msg("%s: got %a, %a", text, wide, (double)narrow);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_midpoints),
        cmocka_unit_test(test_random_decimals),
        cmocka_unit_test(test_random_read),
        cmocka_unit_test(test_followed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
