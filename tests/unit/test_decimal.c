/* Decimal text, against printf. */
#include "tests/unit/support.h"

#include <inttypes.h>
#include <nsa/decimal.h>
#include <stdio.h>
#include <string.h>

static void check(uint64_t value)
{
    char expected[NSA_DECIMAL_BYTES + 1];
    char text[NSA_DECIMAL_BYTES + 2];

    memset(text, '?', sizeof text);
    snprintf(expected, sizeof expected, "%" PRIu64, value);
    assert_ptr_equal(text + strlen(expected), nsa_decimal(text, value));
    assert_memory_equal(expected, text, strlen(expected));
    assert_int_equal('?', text[strlen(expected)]);
}

static void test_numbers(void **state)
{
    uint64_t random = 1;

    (void)state;
    check(0);
    check(UINT64_MAX);
    for (uint64_t power = 1; power <= UINT64_MAX / 10; power *= 10) {
        check(power - 1);
        check(power);
        check(power * 10 - 1);
    }
    for (int i = 0; i < 10000; i++)
        check(random_u64(&random) >> random_below(&random, 64));
}

static void test_text(void **state)
{
    char text[4] = "???";

    (void)state;
    assert_ptr_equal(text, nsa_decimal_text(text, ""));
    assert_ptr_equal(text + 2, nsa_decimal_text(text, "ab"));
    assert_string_equal("ab?", text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
