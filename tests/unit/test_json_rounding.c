/* Reading JSON numbers: each decimal goes to the nearest float32, ties to even. */
#include "server/json_number.h"

#include "server/json_powers.h"
#include "tests/unit/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Random decimals that are tried. */
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

/* `bits` of infinity: out of range. */
static void expect_bits(const char *text, uint32_t bits)
{
    const char *next = text;
    float value = 0;
    json_number_status status = json_parse_f32(&value, &next, text, text + strlen(text));

    if (bits == bits_of(INFINITY) ? status != JSON_NUMBER_RANGE
                                  : status != JSON_NUMBER_OK || bits_of(value) != bits)
        fail_msg("%s: expected %a, got %a, status %d", text, (double)float_of(bits), (double)value,
                 (int)status);
    assert_ptr_equal(text + strlen(text), next);
}

/* Entries are the first 128 bits of 2^1280 times or divided by ten, again and again. */
static void test_powers(void **state)
{
    enum { WORDS = 80, START = 1280 };

    (void)state;
    for (int k = JSON_POWER_MIN; k <= JSON_POWER_MAX; k++) {
        uint32_t words[WORDS] = {[START / 32] = 1}; /* the least significant word first */
        json_power got = json_power_of(k);
        json_power first = {0, 0};
        int top = WORDS * 32 - 1;

        for (int i = 0; i < k; i++) {
            uint64_t carry = 0;

            for (int w = 0; w < WORDS; w++) {
                carry += (uint64_t)words[w] * 10;
                words[w] = (uint32_t)carry;
                carry >>= 32;
            }
        }
        for (int i = 0; i < -k; i++) {
            uint64_t rest = 0;

            for (int w = WORDS - 1; w >= 0; w--) {
                rest = rest << 32 | words[w];
                words[w] = (uint32_t)(rest / 10);
                rest %= 10;
            }
        }
        while (!(words[top / 32] >> top % 32 & 1))
            top--;
        for (int bit = top; bit > top - 128; bit--) {
            first.high = first.high << 1 | first.low >> 63;
            first.low = first.low << 1 | (words[bit / 32] >> bit % 32 & 1);
        }
        if (got.high != first.high || got.low != first.low || JSON_POWER_LOG2(k) != top - START)
            fail_msg("10^%d: expected %016llx %016llx * 2^%d", k, (unsigned long long)first.high,
                     (unsigned long long)first.low, top - START);
        assert_true(got.high != UINT64_MAX && got.low != UINT64_MAX);
    }
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
    snprintf(longer, sizeof longer, "%.*s%012d1%s", (int)(end - text), text, 0, exponent);
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
    float value = strtof(text, NULL);

    expect_bits(text, isinf(value) ? bits_of(INFINITY) : bits_of(value));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_powers),
        cmocka_unit_test(test_midpoints),
        cmocka_unit_test(test_random_decimals),
        cmocka_unit_test(test_random_printed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
