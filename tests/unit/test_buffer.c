#include "tests/unit/support.h"

#include "server/buffer.h"

#include <stdlib.h>
#include <string.h>

static void check_text(const buffer *b, const char *expected)
{
    assert_status(NSA_OK, b->status);
    assert_int_equal(strlen(expected), b->size);
    if (b->size > 0)
        assert_memory_equal(expected, b->data, b->size);
}

static void what_is_appended_is_there_in_order(void **state)
{
    buffer b = {.max_bytes = 1000};

    (void)state;
    buffer_append(&b, "ab\0c", 4);
    buffer_append_text(&b, "def");
    buffer_append(&b, NULL, 0);
    buffer_append_text(&b, "");
    assert_status(NSA_OK, b.status);
    assert_int_equal(7, b.size);
    assert_memory_equal("ab\0cdef", b.data, 7);
    buffer_free(&b);
}

static void reserved_room_counts_when_the_caller_adds_it(void **state)
{
    buffer b = {.max_bytes = 1000};
    char *to;

    (void)state;
    buffer_append_text(&b, "ab");
    to = buffer_reserve(&b, 5);
    assert_ptr_equal(b.data + 2, to);
    assert_int_equal(2, b.size);
    memcpy(to, "cde", 3);
    b.size += 3;
    check_text(&b, "abcde");
    buffer_free(&b);
}

static void appending_grows_the_buffer_a_few_times_only(void **state)
{
    enum { BYTES = 100000 };
    buffer b = {.max_bytes = BYTES};
    const char *data = NULL;
    size_t moves = 0;

    (void)state;
    for (int i = 0; i < BYTES; i++) {
        char byte = (char)('a' + i % 26);

        buffer_append(&b, &byte, 1);
        assert_true(b.capacity >= b.size);
        if (b.data != data)
            moves++;
        data = b.data;
    }
    assert_status(NSA_OK, b.status);
    assert_int_equal(BYTES, b.size);
    for (int i = 0; i < BYTES; i++)
        assert_int_equal('a' + i % 26, b.data[i]);
    assert_true(moves < 20);
    assert_true(b.capacity <= BYTES);
    buffer_free(&b);
}

static void the_limit_is_reached_but_not_passed(void **state)
{
    buffer b = {.max_bytes = 3};

    (void)state;
    buffer_append_text(&b, "abc");
    check_text(&b, "abc");
    buffer_append_text(&b, "d");
    assert_status(NSA_ELIMIT, b.status);
    assert_int_equal(3, b.size);
    buffer_free(&b);
}

static void a_size_that_overflows_is_over_the_limit(void **state)
{
    buffer b = {.max_bytes = SIZE_MAX};

    (void)state;
    buffer_append_text(&b, "abc");
    assert_null(buffer_reserve(&b, SIZE_MAX - 1));
    assert_status(NSA_ELIMIT, b.status);
    buffer_free(&b);
}

static void a_failed_buffer_takes_nothing_more(void **state)
{
    buffer b = {.max_bytes = 4};

    (void)state;
    buffer_append_text(&b, "ab");
    buffer_append_text(&b, "too long");
    buffer_append_text(&b, "c");
    buffer_printf(&b, "%d", 1);
    buffer_append_json_string(&b, "");
    assert_null(buffer_reserve(&b, 0));
    assert_status(NSA_ELIMIT, b.status);
    assert_int_equal(2, b.size);
    buffer_free(&b);
}

static void freeing_leaves_an_empty_buffer_of_the_same_limit(void **state)
{
    buffer b = {.max_bytes = 4};

    (void)state;
    buffer_append_text(&b, "too long");
    buffer_free(&b);
    assert_status(NSA_OK, b.status);
    assert_null(b.data);
    buffer_append_text(&b, "abcd");
    check_text(&b, "abcd");
    buffer_append_text(&b, "e");
    assert_status(NSA_ELIMIT, b.status);
    buffer_free(&b);
    buffer_free(&b);
}

static void a_format_is_filled_at_any_length(void **state)
{
    (void)state;
    for (int length = 0; length < 600; length++) {
        buffer b = {.max_bytes = 2000};

        buffer_append_text(&b, "<");
        buffer_printf(&b, "%*d|", length, 7);
        buffer_append_text(&b, ">");
        assert_status(NSA_OK, b.status);
        assert_int_equal((length ? length : 1) + 3, b.size);
        assert_memory_equal("7|>", b.data + b.size - 3, 3);
        buffer_free(&b);
    }
}

static void a_json_string_is_quoted_and_escaped(void **state)
{
    static const struct {
        const char *text, *json;
    } rows[] = {
        {"", "\"\""},
        {"plain", "\"plain\""},
        {"a\"b\\c/", "\"a\\\"b\\\\c/\""},
        {"\b\t\n\f\r\x01\x1F", "\"\\u0008\\u0009\\u000a\\u000c\\u000d\\u0001\\u001f\""},
        {"\x7F", "\"\\u007f\""},
        {"\xC2\x80\xDF\xBF", "\"\xC2\x80\xDF\xBF\""},
        {"\xE0\xA0\x80\xEF\xBF\xBF", "\"\xE0\xA0\x80\xEF\xBF\xBF\""},
        {"\xED\x9F\xBF\xEE\x80\x80", "\"\xED\x9F\xBF\xEE\x80\x80\""},
        {"\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", "\"\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        buffer b = {.max_bytes = 1000};

        buffer_append_json_string(&b, rows[i].text);
        check_text(&b, rows[i].json);
        buffer_free(&b);
    }
}

/* Each byte that begins no character is replaced; what follows it is kept. */
static void invalid_utf8_becomes_the_replacement_character(void **state)
{
    static const char *const texts[] = {
        "\x80",             /* continues nothing */
        "\xC3",             /* ends early */
        "\xE6\xBC",         /* ends early */
        "\xF0\x9F\x99",     /* ends early */
        "\xC0\xAF",         /* overlong */
        "\xC1\xBF",         /* overlong */
        "\xE0\x9F\xBF",     /* overlong */
        "\xF0\x8F\xBF\xBF", /* overlong */
        "\xED\xA0\x80",     /* a surrogate */
        "\xF4\x90\x80\x80", /* past U+10FFFF */
        "\xF5\x80\x80\x80", /* past U+10FFFF */
        "\xFE\xFF",         /* never in UTF-8 */
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char text[16] = "(";
        char expected[64] = "\"(";
        buffer b = {.max_bytes = 1000};

        strcat(strcat(text, texts[i]), ")");
        for (size_t j = 0; j < strlen(texts[i]); j++)
            strcat(expected, "\\ufffd");
        strcat(expected, ")\"");
        buffer_append_json_string(&b, text);
        check_text(&b, expected);
        buffer_free(&b);
    }
}

static void growing_out_of_borrowed_memory_copies_it(void **state)
{
    char room[10];
    buffer b = {.data = room, .capacity = sizeof room, .borrowed = true, .max_bytes = 1000};

    (void)state;
    buffer_append_text(&b, "0123456789");
    assert_ptr_equal(room, b.data);
    assert_true(b.borrowed);
    buffer_append_text(&b, "a");
    assert_ptr_not_equal(room, b.data);
    assert_false(b.borrowed);
    assert_memory_equal("0123456789a", b.data, 11);
    buffer_free(&b);
    b = (buffer){.data = room, .capacity = sizeof room, .borrowed = true, .max_bytes = 1000};
    buffer_free(&b);
    assert_null(b.data);
    assert_false(b.borrowed);
}

static nsa_status append_much(void *context)
{
    buffer b = {.max_bytes = 100000};
    nsa_status status;

    (void)context;
    for (int i = 0; i < 1000; i++) {
        buffer_append_text(&b, "text");
        buffer_printf(&b, "%d", i);
    }
    status = b.status;
    buffer_free(&b);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    check_every_allocation(append_much, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_appended_is_there_in_order),
        cmocka_unit_test(reserved_room_counts_when_the_caller_adds_it),
        cmocka_unit_test(appending_grows_the_buffer_a_few_times_only),
        cmocka_unit_test(the_limit_is_reached_but_not_passed),
        cmocka_unit_test(a_size_that_overflows_is_over_the_limit),
        cmocka_unit_test(a_failed_buffer_takes_nothing_more),
        cmocka_unit_test(freeing_leaves_an_empty_buffer_of_the_same_limit),
        cmocka_unit_test(a_format_is_filled_at_any_length),
        cmocka_unit_test(a_json_string_is_quoted_and_escaped),
        cmocka_unit_test(invalid_utf8_becomes_the_replacement_character),
        cmocka_unit_test(growing_out_of_borrowed_memory_copies_it),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
