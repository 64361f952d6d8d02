#include "tests/unit/support.h"

#include <stdio.h>
#include <string.h>

#define LONGEST (NSA_ERROR_MESSAGE_BYTES - 1)

static void the_message_is_formatted_and_the_status_returned(void **state)
{
    nsa_error err;

    (void)state;
    assert_status(NSA_ELIMIT, nsa_error_set(&err, NSA_ELIMIT, "expected %d, got %s", 3, "four"));
    assert_string_equal("expected 3, got four", err.message);
}

static void no_error_may_be_asked_for(void **state)
{
    (void)state;
    assert_status(NSA_EIO, nsa_error_set(NULL, NSA_EIO, "%s", "nobody reads this"));
}

static void a_message_that_just_fits_is_whole(void **state)
{
    char text[LONGEST + 1];
    nsa_error err;

    (void)state;
    memset(text, 'x', LONGEST);
    text[LONGEST] = '\0';
    nsa_error_set(&err, NSA_EINVAL, "%s", text);
    assert_string_equal(text, err.message);
}

static void a_longer_message_is_cut(void **state)
{
    char text[2 * NSA_ERROR_MESSAGE_BYTES];
    nsa_error err;

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    nsa_error_set(&err, NSA_EINVAL, "%s", text);
    assert_int_equal(LONGEST, strlen(err.message));
    assert_memory_equal(text, err.message, LONGEST);
}

/* Repeat `character` past the end, from each position that the cut can meet it at. */
static void check_cut_within(const char *character)
{
    size_t size = strlen(character);

    for (size_t shift = 0; shift < size; shift++) {
        char text[2 * NSA_ERROR_MESSAGE_BYTES] = "";
        size_t length = shift;
        nsa_error err;

        memset(text, '.', shift);
        for (; length + size < sizeof text; length += size)
            memcpy(text + length, character, size);
        nsa_error_set(&err, NSA_EINVAL, "%s", text);
        length = strlen(err.message);
        assert_memory_equal(text, err.message, length);
        assert_int_equal(0, (length - shift) % size);
        /* At most one whole character is lost beside the one that was cut. */
        assert_true(length >= LONGEST - 2 * size);
    }
}

static void a_cut_never_falls_within_a_utf8_character(void **state)
{
    (void)state;
    check_cut_within("\xC3\xA9");         /* e with an acute accent */
    check_cut_within("\xE6\xBC\xA2");     /* a Chinese character */
    check_cut_within("\xF0\x9F\x99\x82"); /* an emoji */
}

static void every_status_has_its_own_name(void **state)
{
    (void)state;
    for (int i = NSA_OK; i <= NSA_ECANCELED; i++) {
        const char *name = nsa_status_string((nsa_status)i);

        assert_non_null(name);
        assert_string_not_equal("unknown status", name);
        for (int j = NSA_OK; j < i; j++)
            assert_string_not_equal(nsa_status_string((nsa_status)j), name);
    }
}

static void a_status_that_does_not_exist_has_a_name_too(void **state)
{
    (void)state;
    assert_string_equal("unknown status", nsa_status_string((nsa_status)(NSA_ECANCELED + 1)));
    assert_string_equal("unknown status", nsa_status_string((nsa_status)-1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_message_is_formatted_and_the_status_returned),
        cmocka_unit_test(no_error_may_be_asked_for),
        cmocka_unit_test(a_message_that_just_fits_is_whole),
        cmocka_unit_test(a_longer_message_is_cut),
        cmocka_unit_test(a_cut_never_falls_within_a_utf8_character),
        cmocka_unit_test(every_status_has_its_own_name),
        cmocka_unit_test(a_status_that_does_not_exist_has_a_name_too),
    };

    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
