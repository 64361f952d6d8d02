/* Documents whose long strings stay in the text: found by their keys' prefix, refused, limited. */
#include "server/base64.h"
#include "server/json_scan.h"

#include "tests/unit/support.h"

#include <nettle/base64.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUTATION_COUNT 60000

static const json_place places[] = {
    {.depth = 2, .key = "file:", .kind = JSON_STRING, .prefix = true},
    {.depth = 1, .key = "input", .kind = JSON_ARRAY},
    {.depth = 1, .key = "note", .kind = JSON_STRING},
    {0}};

/* Open a copy of its own size, so that the address sanitizer sees any step beyond; caller frees. */
static nsa_status open_copy(json_document **out, char **copy, const char *text, size_t size,
                            nsa_error *err)
{
    *copy = malloc(size + 1);
    assert_non_null(*copy);
    memcpy(*copy, text, size);
    (*copy)[size] = '\0';
    return json_document_open(out, *copy, size, places, err);
}

static nsa_status open_text(const char *text, nsa_error *err)
{
    json_document *document = NULL;
    char *copy;
    nsa_status status = open_copy(&document, &copy, text, strlen(text), err);

    assert_true((status == NSA_OK) == (document != NULL));
    json_document_close(document);
    free(copy);
    return status;
}

static void expect_span(const json_document *document, const json_t *object, const char *key,
                        const char *text)
{
    const json_span *span = json_document_span(document, json_object_get(object, key));

    if (!span)
        fail_msg("%s: expected %s", key, text);
    assert_int_equal(strlen(text), span->end - span->begin);
    assert_memory_equal(text, span->begin, strlen(text));
}

static void test_places(void **state)
{
    static const char text[] =
        "{\"parameters\": {\"config\": \"c\", \"file:1/model\" : \"QUJD\" ,\"file:\":\"\","
        "\"f\\u0069l\\u0065\\u003A2\\/x\\n\":\"a\\\"b\\\\\",\"file:3\\\"\":\"\\\\\"},"
        "\"file:4\":\"d\",\"x\":[{\"file:5\":\"e\"}],\"input\":[1,2],\"note\":\"n\","
        "\"note:\":\"m\",\"y\":{\"file:6\":\"f:\\u0022\"}}";
    json_document *document;
    nsa_error err = {""};
    json_t *root;
    json_t *parameters;
    char *copy;

    (void)state;
    if (open_copy(&document, &copy, text, sizeof text - 1, &err) != NSA_OK)
        fail_msg("%s", err.message);
    root = json_document_root(document);
    parameters = json_object_get(root, "parameters");
    assert_int_equal(5, json_object_size(parameters));
    expect_span(document, parameters, "file:1/model", "\"QUJD\"");
    expect_span(document, parameters, "file:", "\"\"");
    expect_span(document, parameters, "file:2/x\n", "\"a\\\"b\\\\\"");
    expect_span(document, parameters, "file:3\"", "\"\\\\\"");
    expect_span(document, root, "input", "[1,2]");
    expect_span(document, root, "note", "\"n\"");
    expect_span(document, json_object_get(root, "y"), "file:6", "\"f:\\u0022\"");
    /* Not at a place: jansson's. */
    assert_string_equal("c", json_string_value(json_object_get(parameters, "config")));
    assert_string_equal("d", json_string_value(json_object_get(root, "file:4")));
    assert_string_equal("e", json_string_value(json_object_get(
                                 json_array_get(json_object_get(root, "x"), 0), "file:5")));
    assert_string_equal("m", json_string_value(json_object_get(root, "note:")));
    json_document_close(document);
    free(copy);
}

/* Keys that are not quite of the prefix: their values are anything. */
static void test_other_keys(void **state)
{
    static const char *const rows[] = {
        "{\"p\":{\"\":1}}",
        "{\"p\":{\"f\":1}}",
        "{\"p\":{\"file\":1}}",
        "{\"p\":{\"File:a\":1}}",
        "{\"p\":{\" file:a\":1}}",
        "{\"p\":{\"file;a\":1}}",
        "{\"p\":{\"fil\\u0065\":1}}",
        "{\"p\":{\"\\u0066\\u0069\\u006c\\u0065\":1}}",
        "{\"p\":{\"file\\u003b\":1}}",
        "{\"p\":{\"file\\u013a\":1}}",
        "{\"p\":{\"\\\\u0066ile:a\":1}}",
        "{\"p\":{\"\\file:a\":1}}",
        "{\"p\":{\"file\\\\:\":1}}",
        "{\"p\":{\"file\\/:\":1}}",
        "{\"p\":{\"file\\\":a\":1}}",
        "{\"file:a\":1}",
        "{\"p\":[{\"file:a\":1}]}",
        "{\"p\":{\"q\":{\"file:a\":1}}}",
        "{\"p\":{\"q\":\"file:a\"}}",
        "{\"notes\":1,\"note:\":2}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nsa_error err = {""};

        if (open_text(rows[i], &err) != NSA_OK)
            fail_msg("%s: %s", rows[i], err.message);
    }
}

static void test_errors(void **state)
{
    static const struct {
        const char *text;
        nsa_status status;
        const char *message;
    } errors[] = {
        /* something else at a place; nobody can write a placeholder */
        {"{\"p\":{\"file:a\":0}}", NSA_EINVAL, "file:a: expected a string, got a number"},
        {"{\"p\":{\"file:a\":[1]}}", NSA_EINVAL, "file:a: expected a string, got an array"},
        {"{\"p\":{\"file:a\":{}}}", NSA_EINVAL, "file:a: expected a string, got an object"},
        {"{\"p\":{\"file:a\":null}}", NSA_EINVAL, "file:a: expected a string, got null"},
        {"{\"p\":{\"file:a\":true}}", NSA_EINVAL, "file:a: expected a string, got true"},
        {"{\"p\":{\"file:\":0}}", NSA_EINVAL, "file:: expected a string, got a number"},
        {"{\"p\":{\"\\u0066ile:1\\/a\":0}}", NSA_EINVAL,
         "\\u0066ile:1\\/a: expected a string, got a number"},
        {"{\"note\":0}", NSA_EINVAL, "note: expected a string, got a number"},
        {"{\"n\\u006fte\":0}", NSA_EINVAL, "note: expected a string, got a number"},
        {"{\"p\":{\"file:a\":?}}", NSA_EFORMAT, "file:a: expected a string"},
        {"{\"p\":{\"file:a\":}}", NSA_EFORMAT, "file:a: expected a string"},
        /* not closed */
        {"{\"p\":{\"file:a\":\"", NSA_EFORMAT, "file:a: the string is not closed"},
        {"{\"p\":{\"file:a\":\"QUJD", NSA_EFORMAT, "file:a: the string is not closed"},
        {"{\"p\":{\"file:a\":\"QUJD\\", NSA_EFORMAT, "file:a: the string is not closed"},
        {"{\"p\":{\"file:a\":\"QUJD\\\"", NSA_EFORMAT, "file:a: the string is not closed"},
        {"{\"p\":{\"file:a\":\"QUJD\\\"}}", NSA_EFORMAT, "file:a: the string is not closed"},
        {"{\"p\":{\"file:a\":\"QUJD\"", NSA_EFORMAT, "malformed JSON"},
        {"{\"p\":{\"file:a\":", NSA_EFORMAT, "malformed JSON"},
        {"{\"p\":{\"file:a\"", NSA_EFORMAT, "malformed JSON"},
        {"{\"p\":{\"file:a\\", NSA_EFORMAT, "malformed JSON"},
        /* what joins a placeholder does not make it another value */
        {"{\"p\":{\"file:a\":\"QUJD\".5}}", NSA_EFORMAT, "malformed JSON at byte 22: "},
        {"{\"p\":{\"file:a\":\"QUJD\"5}}", NSA_EFORMAT, "malformed JSON at byte 22: "},
        {"{\"p\":{\"file:a\":\"QUJD\"\"\"}}", NSA_EFORMAT, "malformed JSON at byte 23: "},
        {"{\"p\":[\"file:a\":\"QUJD\"]}", NSA_EFORMAT, "']' expected near ':'"},
        /* duplicates, spelled alike or not */
        {"{\"p\":{\"file:a\":\"\",\"file:a\":\"\"}}", NSA_EFORMAT, "duplicate object key"},
        {"{\"p\":{\"file:a\":\"\",\"fil\\u0065:a\":\"\"}}", NSA_EFORMAT, "duplicate object key"},
        {"{\"p\":{\"file:/\":\"\",\"file:\\/\":\"\"}}", NSA_EFORMAT, "duplicate object key"},
        /* errors after a string are counted in the whole text; the key stays jansson's */
        {"{\"p\":{\"file:a\":\"QUJDQUJDQUJD\"},\"b\":x}", NSA_EFORMAT,
         "malformed JSON at byte 36: invalid token near 'x'"},
        {"{\"p\":{\"file:\xC3\":\"QUJD\"}}", NSA_EFORMAT, "unable to decode byte 0xc3"},
        {"{\"p\":{\"file:\\x\":\"QUJD\"}}", NSA_EFORMAT, "malformed JSON"},
        {"{\"p\":{\"f\\u+069le:\":\"QUJD\"}}", NSA_EFORMAT, "malformed JSON"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        nsa_error err = {""};
        nsa_status status = open_text(errors[i].text, &err);

        if (status != errors[i].status || !strstr(err.message, errors[i].message))
            fail_msg("%s: expected %d '%s', got %d '%s'", errors[i].text, (int)errors[i].status,
                     errors[i].message, (int)status, err.message);
    }
}

/* A key of any length leaves room for what is wrong with its value. */
static void test_long_key(void **state)
{
    char text[2000] = "{\"p\":{\"file:";
    size_t size = strlen(text);
    nsa_error err;

    (void)state;
    memset(text + size, 'x', 1500);
    strcpy(text + size + 1500, "\":0}}");
    assert_status(NSA_EINVAL, open_text(text, &err));
    assert_message(err, "xxx: expected a string, got a number");
    assert_memory_equal("file:xxx", err.message, 8);
}

/* Arrays and strings count together. */
static void test_limit(void **state)
{
    char text[40 * JSON_MAX_SPANS];
    nsa_error err;

    (void)state;
    for (int arrays = 0; arrays <= 1; arrays++) {
        for (int count = JSON_MAX_SPANS; count <= JSON_MAX_SPANS + 1; count++) {
            size_t size = (size_t)sprintf(text, "{%s\"p\":{", arrays ? "\"input\":[1]," : "");

            for (int i = 0; i < count - arrays; i++)
                size += (size_t)sprintf(text + size, "%s\"file:%d\":\"\"", i ? "," : "", i);
            strcpy(text + size, "}}");
            assert_status(count > JSON_MAX_SPANS ? NSA_ELIMIT : NSA_OK, open_text(text, &err));
        }
        assert_message(err, arrays ? "file:7: more than 8 strings" : "file:8: more than 8 strings");
    }
}

/* Bytes beside the strings are limited, those of keys included; bytes in strings are not. */
static void test_envelope_limit(void **state)
{
    size_t size = 3 * JSON_MAX_ENVELOPE_BYTES;
    char *text = malloc(size + 1);
    json_document *document;
    const json_span *span;
    nsa_error err;

    (void)state;
    assert_non_null(text);
    memset(text, 'A', size + 1);
    memcpy(text, "{\"note\":\"", 9);
    memcpy(text + size - 2, "\"}", 2);
    assert_status(NSA_OK, json_document_open(&document, text, size, places, &err));
    span = json_document_span(document, json_object_get(json_document_root(document), "note"));
    assert_ptr_equal(text + 8, span->begin);
    assert_ptr_equal(text + size - 1, span->end);
    json_document_close(document);
    memcpy(text, "{\"p\":{\"file:AAAA", 16);
    memcpy(text + size - 6, "\":\"\"}}", 6);
    assert_status(NSA_ELIMIT, json_document_open(&document, text, size, places, &err));
    assert_message(err, "the JSON beside the data has 3145728 bytes, more than 1048576");
    free(text);
}

/* --- hostile texts ------------------------------------------------------------------------- */

static const char whole[] =
    "{\"model\": \"m\\n\", \"parameters\": {\"config\": \"{\\\"op\\\":1}\", "
    "\"file:1\\/model\": \"QUJD+\\/\\/\\/\\/w==\", \"f\\u0069le:2\":\"\", "
    "\"n\":[5]}, \"note\": \"Zm8\"}";

/*
 * Decode what stands for a string in `object`, and compare it with what jansson reads there.
 * `plain` is NULL if jansson does not take the whole text, for the sake of another string.
 */
static nsa_status compare_string(const json_document *document, const json_t *object,
                                 const json_t *plain, const char *key)
{
    const json_span *span = json_document_span(document, json_object_get(object, key));
    const json_t *text = json_object_get(plain, key);
    struct base64_decode_ctx context;
    unsigned char *expected;
    unsigned char *bytes;
    size_t expected_size;
    size_t size;
    nsa_status status;

    assert_non_null(span);
    status = json_string_base64(&bytes, &size, span, key, NULL);
    if (status != NSA_OK)
        return status;
    if (plain) {
        expected = malloc(BASE64_DECODE_LENGTH(json_string_length(text)) + 1);
        assert_non_null(expected);
        base64_decode_init(&context);
        assert_true(base64_decode_update(&context, &expected_size, expected,
                                         json_string_length(text), json_string_value(text)));
        assert_int_equal(expected_size, size);
        assert_memory_equal(expected, bytes, size);
        free(expected);
    }
    free(bytes);
    return status;
}

/* Read every string that was taken out, as a handler would: by the keys that jansson has. */
static nsa_status compare_document(const json_document *document, const json_t *plain)
{
    const json_t *root = json_document_root(document);
    nsa_status status = NSA_OK;
    const char *key;
    const char *inner_key;
    json_t *value;
    json_t *inner;

    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        if (strcmp(key, "note") == 0)
            status = compare_string(document, root, plain, key);
        json_object_foreach(value, inner_key, inner)
        {
            if (status == NSA_OK && strncmp(inner_key, "file:", 5) == 0)
                status = compare_string(document, value, json_object_get(plain, key), inner_key);
        }
        if (status != NSA_OK)
            return status;
    }
    return NSA_OK;
}

/*
 * One text read both ways. jansson must agree on what is well-formed, but for what is in the
 * strings that it does not see: true for a document with base64 in all of them.
 */
static bool compare_text(const char *text, size_t size)
{
    json_t *plain = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    json_document *document = NULL;
    nsa_error err = {""};
    char *copy;
    nsa_status status = open_copy(&document, &copy, text, size, &err);
    bool read = status == NSA_OK && compare_document(document, plain) == NSA_OK;

    if ((status == NSA_EFORMAT && plain) || (read && !plain))
        fail_msg("%s: got %d '%s'", copy, (int)status, err.message);
    json_document_close(document);
    json_decref(plain);
    free(copy);
    return read;
}

static void test_truncated(void **state)
{
    (void)state;
    assert_true(compare_text(whole, sizeof whole - 1));
    for (size_t size = 0; size < sizeof whole - 1; size++)
        assert_false(compare_text(whole, size));
}

static void test_mutated(void **state)
{
    static const char bytes[] = "[]{},:\"\\/=+Aw0nu file1 \n\xC3";
    uint64_t random = 16;
    size_t accepted = 0;

    (void)state;
    for (int i = 0; i < MUTATION_COUNT; i++) {
        char text[2 * sizeof whole];
        size_t size = sizeof whole - 1;

        memcpy(text, whole, size);
        for (size_t n = random_below(&random, 3) + 1; n > 0; n--) {
            size_t at = random_below(&random, size);
            size_t kept = at + random_below(&random, 2); /* replace a byte, or insert before it */

            memmove(text + at + 1, text + kept, size - kept);
            text[at] = bytes[random_below(&random, sizeof bytes - 1)];
            size += at + 1 - kept;
            if (random_below(&random, 3) > 0)
                continue;
            at = random_below(&random, size);
            memmove(text + at, text + at + 1, size - at - 1);
            size--;
        }
        accepted += compare_text(text, size);
    }
    assert_in_range(accepted, MUTATION_COUNT / 50, MUTATION_COUNT / 2);
}

static nsa_status open_once(void *context)
{
    json_document *document = NULL;
    nsa_status status = json_document_open(&document, context, strlen(context), places, NULL);

    if (status == NSA_OK) {
        const json_t *parameters = json_object_get(json_document_root(document), "parameters");

        expect_span(document, parameters, "file:a/long/path/that/must/not/lose/a/byte", "\"QUJD\"");
        assert_int_equal(1, json_object_size(parameters));
    }
    json_document_close(document);
    return status;
}

static void test_allocations(void **state)
{
    static char text[] =
        "{\"parameters\":{\"file:a/long/path/that/must/not/lose/a/byte\":\"QUJD\"}}";

    (void)state;
    check_every_allocation(open_once, text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),      cmocka_unit_test(test_other_keys),
        cmocka_unit_test(test_errors),      cmocka_unit_test(test_long_key),
        cmocka_unit_test(test_limit),       cmocka_unit_test(test_envelope_limit),
        cmocka_unit_test(test_truncated),   cmocka_unit_test(test_mutated),
        cmocka_unit_test(test_allocations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
