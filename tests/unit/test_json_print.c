/* Printing JSON numbers: reads back, shortest, nearest. */
#include "server/json_number.h"

#include "tests/unit/support.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANDOM_COUNT 1000000

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

static void test_printed(void **state)
{
    static const struct {
        float value;
        const char *text;
    } rows[] = {
        {0.0F, "0.0"},
        {-0.0F, "-0.0"},
        {1.0F, "1"},
        {-1.0F, "-1"},
        {3.0F, "3"},
        {10.0F, "10"},
        {100.0F, "100"},
        {1000.0F, "1e3"},
        {-1000.0F, "-1e3"},
        {1200.0F, "1200"},
        {12000.0F, "12000"},
        {1200000.0F, "1.2e6"},
        {1234567.0F, "1234567"},
        {16777216.0F, "16777216"},
        {123456789.0F, "123456790"},
        {0x1p30F, "1073741800"},
        {1e9F, "1e9"},
        {1e10F, "1e10"},
        {1.5F, "1.5"},
        {-123.25F, "-123.25"},
        {0.5F, "0.5"},
        {0.1F, "0.1"},
        {0.01F, "0.01"},
        {0.001F, "1e-3"},
        {0.0015F, "0.0015"},
        {0.00015F, "1.5e-4"},
        {0.012345678F, "0.012345678"},
        {1.0F / 3, "0.33333334"},
        {3.1415927F, "3.1415927"},
        {FLT_MAX, "3.4028235e38"},
        {-FLT_MAX, "-3.4028235e38"},
        {FLT_MIN, "1.1754944e-38"},
        {0x1p-149F, "1e-45"},
        {0x1p-148F, "3e-45"},
        {9.8765432e9F, "9876543000"},
        {1.2345678e10F, "12345678000"},
        {1.2345678e11F, "123456780000"},
        {1.2345678e13F, "1.2345678e13"},
        {NAN, "NaN"},
        {-NAN, "NaN"},
        {INFINITY, "Infinity"},
        {-INFINITY, "-Infinity"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[JSON_F32_BYTES + 1];

        text[json_print_f32(text, rows[i].value)] = '\0';
        assert_string_equal(rows[i].text, text);
    }
}

/* The significant digits of a printed number, and the power of ten of the first. */
static size_t significant(char digits[40], int *power, const char *text)
{
    size_t count = 0;
    int seen = 0;  /* digits so far, from the first that is not zero */
    int point = 0; /* of them before the point, or less zeros behind it */
    bool behind = false;

    for (; *text && *text != 'e'; text++) {
        if (*text == '.')
            behind = true;
        if (*text < '0' || *text > '9')
            continue;
        if (seen == 0 && *text == '0') {
            point -= behind;
            continue;
        }
        digits[seen++] = *text;
        point += !behind;
    }
    for (int i = 0; i < seen; i++)
        count = digits[i] != '0' ? (size_t)i + 1 : count;
    digits[count] = '\0';
    *power = point - 1 + (*text == 'e' ? atoi(text + 1) : 0);
    return count;
}

/*
 * Read back, and shortest: one digit less, rounded correctly, is another float. Nearest: if as
 * many digits rounded correctly read back, they are the same. (They need not below a power of
 * two, where the floats on one side are closer.)
 */
static void check_printed(uint32_t bits)
{
    float value = float_of(bits);
    char text[JSON_F32_BYTES + 8];
    char digits[40];
    char rounded[40];
    char rounded_digits[40];
    const char *next;
    float back = 0;
    int power;
    int rounded_power;
    size_t count;
    size_t size;

    memset(text, '#', sizeof text);
    size = json_print_f32(text, value);
    for (size_t i = JSON_F32_BYTES; i < sizeof text; i++)
        assert_int_equal('#', text[i]);
    assert_true(size <= JSON_F32_BYTES);
    text[size] = '\0';
    if (json_parse_f32(&back, &next, text, text + size) != JSON_NUMBER_OK || next != text + size ||
        bits_of(back) != bits || bits_of(strtof(text, NULL)) != bits)
        fail_msg("%a printed as %s", (double)value, text);
    count = significant(digits, &power, text);
    if (count > 1) {
        snprintf(rounded, sizeof rounded, "%.*e", (int)count - 2, (double)value);
        if (strtof(rounded, NULL) == value)
            fail_msg("%a printed as %s: %s is shorter", (double)value, text, rounded);
    }
    snprintf(rounded, sizeof rounded, "%.*e", (int)count - 1, (double)value);
    if (strtof(rounded, NULL) != value)
        return;
    significant(rounded_digits, &rounded_power, rounded);
    if (strcmp(digits, rounded_digits) != 0 || power != rounded_power)
        fail_msg("%a printed as %s: %s is nearer", (double)value, text, rounded);
}

static void test_random_floats(void **state)
{
    uint64_t random = 3;

    (void)state;
    for (int i = 0; i < RANDOM_COUNT; i++) {
        uint64_t word = random_u64(&random);

        if (i % 4 == 0) /* short decimals */
            check_printed(bits_of((float)(word >> 32 & 0xFFFF) / (i % 8 ? 1000.0F : 64.0F) + 1));
        else if ((word >> 55 & 0xFF) != 0xFF)
            check_printed((uint32_t)(word >> 32));
    }
}

static void test_floats_at_boundaries(void **state)
{
    (void)state;
    for (uint32_t field = 0; field < 255; field++) {
        for (uint32_t offset = 0; offset < 20; offset++) {
            if (field + offset > 0)
                check_printed((field << 23) + offset);
            check_printed((field << 23 | 0x7FFFFF) - offset);
        }
    }
    for (uint32_t value = 1; value < 100000; value++)
        check_printed(bits_of((float)value));
}

/* Plain notation unless the other is shorter, for each number of digits and each power. */
static void test_notation(void **state)
{
    (void)state;
    for (int count = 1; count <= 6; count++) {
        for (int power = -37; power <= 37; power++) {
            static const char digits[] = "123456";
            char source[40];
            char plain[100];
            char text[JSON_F32_BYTES + 1];
            size_t with_exponent;
            size_t size;

            snprintf(source, sizeof source, "%c.%.*se%d", digits[0], count - 1, digits + 1, power);
            if (count == 1)
                snprintf(source, sizeof source, "1e%d", power);
            with_exponent = strlen(source);
            size = json_print_f32(text, strtof(source, NULL));
            text[size] = '\0';
            snprintf(plain, sizeof plain, "%.*f", power < count - 1 ? count - 1 - power : 0,
                     strtod(source, NULL));
            if (strlen(plain) > with_exponent) {
                assert_string_equal(source, text);
            } else {
                assert_string_equal(plain, text);
            }
        }
    }
}

static void test_printed_integers(void **state)
{
    uint64_t random = 4;

    (void)state;
    for (int i = 0; i < RANDOM_COUNT / 4; i++) {
        int64_t value = (int64_t)random_u64(&random) >> (i % 64);
        char expected[40];
        char text[JSON_I64_BYTES + 1];
        const char *next;
        int64_t back;
        size_t size = json_print_i64(text, value);

        text[size] = '\0';
        snprintf(expected, sizeof expected, "%lld", (long long)value);
        assert_string_equal(expected, text);
        assert_int_equal(JSON_NUMBER_OK, json_parse_i64(&back, &next, text, text + size));
        assert_true(back == value);
    }
    {
        char text[JSON_I64_BYTES];

        assert_int_equal(20, json_print_i64(text, INT64_MIN));
        assert_memory_equal("-9223372036854775808", text, 20);
        assert_int_equal(19, json_print_i64(text, INT64_MAX));
        assert_int_equal(1, json_print_i64(text, 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_printed),
        cmocka_unit_test(test_random_floats),
        cmocka_unit_test(test_floats_at_boundaries),
        cmocka_unit_test(test_notation),
        cmocka_unit_test(test_printed_integers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
