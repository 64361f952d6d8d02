#include "tests/unit/support.h"

#include "server/base64.h"

#include <nettle/base64.h>
#include <stdlib.h>
#include <string.h>

static nsa_error err;

/* Decode `text` between quotes; *size bytes, which the caller frees. */
static nsa_status decode(unsigned char **bytes, size_t *size, const char *text)
{
    size_t length = strlen(text);
    char *quoted = malloc(length + 3);
    json_span span = {.begin = quoted, .end = quoted + length + 2};
    nsa_status status;

    quoted[0] = quoted[length + 1] = '"';
    memcpy(quoted + 1, text, length);
    quoted[length + 2] = '\0';
    status = json_string_base64(bytes, size, &span, "file", &err);
    free(quoted);
    return status;
}

static void expect(const char *text, const char *plain)
{
    unsigned char *bytes = NULL;
    size_t size = 0;

    assert_status(NSA_OK, decode(&bytes, &size, text));
    assert_int_equal(strlen(plain), size);
    assert_memory_equal(plain, bytes, size);
    free(bytes);
}

/* The vectors of RFC 4648, section 10, padded and not. */
static void known_texts_are_decoded(void **state)
{
    (void)state;
    expect("", "");
    expect("Zg==", "f");
    expect("Zm8=", "fo");
    expect("Zm9v", "foo");
    expect("Zm9vYg==", "foob");
    expect("Zm9vYmE=", "fooba");
    expect("Zm9vYmFy", "foobar");
    expect("Zg", "f");
    expect("Zm8", "fo");
    expect("Zm9vYmE", "fooba");
    expect("+\\/+/", "\xfb\xff\xbf");
}

static void all_else_is_refused(void **state)
{
    static const struct {
        const char *text;
        const char *byte; /* where it is noticed */
    } cases[] = {
        {"A", "byte 2"},           {"AAAAA", "byte 6"},  {"Zg=", "byte 4"},
        {"=", "byte 1"},           {"Z===", "byte 2"},   {"Zm9v=", "byte 5"},
        {"Zg==Zg==", "byte 5"},    {"Zg==\n", "byte 5"}, {" Zg==", "byte 1"},
        {"Zm 9v", "byte 3"},       {"Zm9-", "byte 4"},   {"Zm9\\n", "byte 4"},
        {"Zm9\\u0076", "byte 4"},  {"Zh==", "byte 3"},   {"Zm9=", "byte 4"},
        {"Zm\xc3\xa9v", "byte 3"}, {"\\", "byte 1"},     {"Zg===", "byte 5"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char *bytes = NULL;
        size_t size = 7;

        if (decode(&bytes, &size, cases[i].text) != NSA_EFORMAT)
            fail_msg("taken: %s", cases[i].text);
        if (!strstr(err.message, cases[i].byte))
            fail_msg("%s: expected %s, got: %s", cases[i].text, cases[i].byte, err.message);
        assert_null(bytes);
        assert_int_equal(7, size);
    }
}

/* As many bytes as there are, encoded by the library. */
static void every_length_comes_back(void **state)
{
    uint64_t random = 5;
    unsigned char plain[300];
    char text[BASE64_ENCODE_RAW_LENGTH(300) + 1];

    (void)state;
    for (size_t length = 0; length <= sizeof plain; length++) {
        unsigned char *bytes = NULL;
        size_t size = 0;

        for (size_t i = 0; i < length; i++)
            plain[i] = (unsigned char)random_u64(&random);
        base64_encode_raw(text, length, plain);
        text[BASE64_ENCODE_RAW_LENGTH(length)] = '\0';
        assert_status(NSA_OK, decode(&bytes, &size, text));
        assert_int_equal(length, size);
        assert_memory_equal(plain, bytes, length);
        free(bytes);
    }
}

static nsa_status decode_some(void *context)
{
    static const char text[] = "\"Zm9v\"";
    const json_span span = {.begin = text, .end = text + strlen(text)};
    unsigned char *bytes;
    size_t size;
    nsa_status status = json_string_base64(&bytes, &size, &span, "file", &err);

    (void)context;
    if (status == NSA_OK)
        free(bytes);
    return status;
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    check_every_allocation(decode_some, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_texts_are_decoded),
        cmocka_unit_test(all_else_is_refused),
        cmocka_unit_test(every_length_comes_back),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
