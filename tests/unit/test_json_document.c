/* Documents whose arrays of numbers stay in the text: found, refused, limited. */
#include "server/json_scan.h"

#include "tests/unit/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const json_place places[] = {{.depth = 1, .key = "input", .kind = JSON_ARRAY},
                                    {.depth = 1, .key = "other_2", .kind = JSON_ARRAY},
                                    {.depth = 3, .key = "data", .kind = JSON_ARRAY},
                                    {0}};

/* A document in memory of its own size, so that the address sanitizer sees any step beyond. */
typedef struct text_copy {
    char *text;
    size_t size;
} text_copy;

static text_copy copy_text(const char *text, size_t size)
{
    text_copy copy = {malloc(size + 1), size};

    assert_non_null(copy.text);
    memcpy(copy.text, text, size);
    copy.text[size] = '\0';
    return copy;
}

static void expect_array(const json_document *document, const json_t *object, const char *key,
                         const char *text, size_t commas)
{
    const json_span *span = json_document_span(document, json_object_get(object, key));

    assert_non_null(span);
    assert_int_equal(strlen(text), span->end - span->begin);
    assert_memory_equal(text, span->begin, strlen(text));
    assert_int_equal(commas, span->commas);
}

static void test_places(void **state)
{
    static const char text[] =
        " {\"a\":[1,[2]],\"input\" : [[1,2],[3]] ,\"x\":{\"input\":[7]},"
        "\"i\\u006Eput2\":5,\"\\u006f\\u0074h\\u0065r\\u005F2\":[ ],"
        "\"inputs\":[{\"data\":[8],\"n\":1},{\"data\":[9,9],\"data2\":[0]}],"
        "\"data\":[1,2,3],\"s\":\"\\\"input\\\":[4]\",\"t\":[\"input\",[\"x\"]] } ";
    text_copy copy = copy_text(text, sizeof text - 1);
    json_document *document;
    nsa_error err = {""};
    json_t *root;
    json_t *inputs;

    (void)state;
    if (json_document_open(&document, copy.text, copy.size, places, &err) != NSA_OK)
        fail_msg("%s", err.message);
    root = json_document_root(document);
    expect_array(document, root, "input", "[[1,2],[3]]", 2);
    expect_array(document, root, "other_2", "[ ]", 0);
    inputs = json_object_get(root, "inputs");
    expect_array(document, json_array_get(inputs, 0), "data", "[8]", 0);
    expect_array(document, json_array_get(inputs, 1), "data", "[9,9]", 1);
    /* Not at a place: jansson's. */
    assert_int_equal(2, json_array_size(json_object_get(root, "a")));
    assert_int_equal(1, json_array_size(json_object_get(json_object_get(root, "x"), "input")));
    assert_int_equal(1, json_array_size(json_object_get(json_array_get(inputs, 1), "data2")));
    assert_int_equal(3, json_array_size(json_object_get(root, "data")));
    assert_int_equal(5, json_integer_value(json_object_get(root, "input2")));
    assert_string_equal("\"input\":[4]", json_string_value(json_object_get(root, "s")));
    /* What is no placeholder. */
    assert_null(json_document_span(document, NULL));
    assert_null(json_document_span(document, root));
    assert_null(json_document_span(document, json_object_get(root, "input2")));
    json_document_close(document);
    json_document_close(NULL);
    free(copy.text);
}

/* null where there may be an array, and nothing that only looks like it. */
static void test_null(void **state)
{
    static const json_place nullable[] = {
        {.depth = 1, .key = "input", .kind = JSON_ARRAY, .nullable = true}, {0}};
    static const char *const texts[] = {"{\"input\":null}", "{\"input\":nul}", "{\"input\":1}",
                                        "{\"input\":null1}"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        text_copy copy = copy_text(texts[i], strlen(texts[i]));
        json_document *document = NULL;
        nsa_error err;
        nsa_status status = json_document_open(&document, copy.text, copy.size, nullable, &err);

        assert_true((status == NSA_OK) == (i == 0));
        if (i == 0)
            assert_true(json_is_null(json_object_get(json_document_root(document), "input")));
        json_document_close(document);
        free(copy.text);
    }
}

static nsa_status open_text(const char *text, nsa_error *err)
{
    text_copy copy = copy_text(text, strlen(text));
    json_document *document = NULL;
    nsa_status status = json_document_open(&document, copy.text, copy.size, places, err);

    assert_true((status == NSA_OK) == (document != NULL));
    json_document_close(document);
    free(copy.text);
    return status;
}

static const struct error_row {
    const char *text;
    nsa_status status;
    const char *message;
} errors[] = {
    /* something else at a place; nobody can write a placeholder */
    {"{\"input\":\"[1]\"}", NSA_EINVAL, "input: expected an array of numbers, got a string"},
    {"{\"input\": 0}", NSA_EINVAL, "input: expected an array of numbers, got a number"},
    {"{\"input\":-1}", NSA_EINVAL, "input: expected an array of numbers, got a number"},
    {"{\"input\":NaN}", NSA_EINVAL, "input: expected an array of numbers, got a number"},
    {"{\"input\":{}}", NSA_EINVAL, "input: expected an array of numbers, got an object"},
    {"{\"input\":null}", NSA_EINVAL, "input: expected an array of numbers, got null"},
    {"{\"input\":true}", NSA_EINVAL, "input: expected an array of numbers, got true"},
    {"{\"i\\u006eput\":0}", NSA_EINVAL, "input: expected an array of numbers, got a number"},
    {"{\"inputs\":[{\"data\":1}]}", NSA_EINVAL, "data: expected an array of numbers, got a number"},
    {"{\"input\":?}", NSA_EFORMAT, "input: expected an array of numbers"},
    {"{\"input\":}", NSA_EFORMAT, "input: expected an array of numbers"},
    {"{\"input\":[1", NSA_EFORMAT, "input: the array is not closed"},
    {"{\"input\":[1,\"]", NSA_EFORMAT, "input: the array is not closed"},
    {"{\"input\":[1,\"\\\"]", NSA_EFORMAT, "input: the array is not closed"},
    /* what joins a placeholder does not make it another number */
    {"{\"input\":[1]5}", NSA_EFORMAT, "malformed JSON at byte 13: "},
    {"{\"input\":[1].5}", NSA_EFORMAT, "malformed JSON at byte 13: "},
    {"{\"input\":[1]e5}", NSA_EFORMAT, "malformed JSON at byte 13: "},
    {"{\"input\":-[1]}", NSA_EINVAL, "input: expected an array of numbers, got a number"},
    {"{\"input\":[1]]}", NSA_EFORMAT, "malformed JSON at byte 13: '}' expected near ']'"},
    {"{\"input\":[1][2]}", NSA_EFORMAT, "malformed JSON at byte 13: '}' expected near '['"},
    {"[\"input\":[1]]", NSA_EFORMAT, "malformed JSON at byte 9: ']' expected near ':'"},
    /* duplicates */
    {"{\"a\":1,\"a\":2}", NSA_EFORMAT, "duplicate object key near '\"a\"'"},
    {"{\"input\":[1],\"input\":[1]}", NSA_EFORMAT, "duplicate object key near '\"input\"'"},
    {"{\"input\":[1],\"\\u0069nput\":[1]}", NSA_EFORMAT, "duplicate object key"},
    {"{\"inputs\":[{\"data\":[],\"data\":[]}]}", NSA_EFORMAT, "duplicate object key"},
    /* what jansson finds, and where: counted in the whole text */
    {"", NSA_EFORMAT, "malformed JSON at byte 0: '[' or '{' expected near end of file"},
    {"{\"input\":[1,2,3,4,5,6,7,8,9],\"b\":x}", NSA_EFORMAT,
     "malformed JSON at byte 34: invalid token near 'x'"},
    {"{\"input\":[1,2,3],\"other_2\":[4,5,6],\"b\":nul}", NSA_EFORMAT,
     "malformed JSON at byte 42: invalid token near 'nul'"},
    {"{\"a\":1}}", NSA_EFORMAT, "malformed JSON at byte 8: end of file expected near '}'"},
    {"{\"a\":1},{}", NSA_EFORMAT, "malformed JSON at byte 8: end of file expected near ','"},
    {"{\"a\":1},5]", NSA_EFORMAT, "malformed JSON at byte 8: end of file expected near ','"},
    {"{}],[\"x\",{}", NSA_EFORMAT, "malformed JSON at byte 3: end of file expected near ']'"},
    {"{\"a\":\"\xC3\"}", NSA_EFORMAT, "unable to decode byte 0xc3"},
    {"{\"a\":01}", NSA_EFORMAT, "malformed JSON"},
    {"{\"a\":NaN}", NSA_EFORMAT, "malformed JSON"},
    {"{\"a\":\"\\ud800\"}", NSA_EFORMAT, "malformed JSON"},
    {"{\"a\":\"\\u0000\"}", NSA_EFORMAT, "malformed JSON"},
    {"{\"a\":\"\x01\"}", NSA_EFORMAT, "malformed JSON"},
    {"{\"i\\u+06eput\":[1]}", NSA_EFORMAT, "malformed JSON"},
    {"{\"i\\u 06eput\":[1]}", NSA_EFORMAT, "malformed JSON"},
    {"{\"a\":1e999}", NSA_EFORMAT, "real number overflow"},
    {"{'a':1}", NSA_EFORMAT, "malformed JSON"},
    {"{\"a\"", NSA_EFORMAT, "malformed JSON"},
    {"{\"input\"", NSA_EFORMAT, "malformed JSON"},
    {"{\"input\":", NSA_EFORMAT, "malformed JSON"},
    {"{\"input", NSA_EFORMAT, "malformed JSON"},
    {"{\"input\\", NSA_EFORMAT, "malformed JSON"},
    /* other kinds of documents */
    {"[1,2]", NSA_EINVAL, "expected a JSON object, got an array"},
    {" 5", NSA_EINVAL, "expected a JSON object, got a number"},
    {"\"input\"", NSA_EINVAL, "expected a JSON object, got a string"},
    {"null", NSA_EINVAL, "expected a JSON object, got null"},
};

static void test_errors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        nsa_error err = {""};
        nsa_status status = open_text(errors[i].text, &err);

        if (status != errors[i].status || !strstr(err.message, errors[i].message))
            fail_msg("%s: expected %d '%s', got %d '%s'", errors[i].text, (int)errors[i].status,
                     errors[i].message, (int)status, err.message);
    }
}

static void test_key_equal(void **state)
{
    /* Keys that are not quite one of the places'. */
    static const char *const rows[] = {
        "{\"inpu\":1}",      "{\"inputt\":1}",          "{\"Input\":1}",
        "{\"\":1}",          "{\"inpu\\u0075\":1}",     "{\"input\\u0020\":1}",
        "{\"inpu\\t\":1}",   "{\"inpu\\\\u0074\":1}",   "{\"\\u0069\\u006e\\u0070\\u0075\":1}",
        "{\"inpu\\\"\":1}",  "{\"inpu\\u0174\":1}",     "{\"\xC3\xAFnput\":1}",
        "{\"a\":\"input\"}", "{\"a\":{\"input\":1}}",   "{\"a\":[{\"b\":{\"data\":1}}]}",
        "{\"data\":1}",      "{\"a\":[{\"input\":1}]}", "{\"a\":{\"data\":1}}"};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nsa_error err = {""};

        if (open_text(rows[i], &err) != NSA_OK)
            fail_msg("%s: %s", rows[i], err.message);
    }
}

static void test_array_limit(void **state)
{
    char text[40 * JSON_MAX_SPANS];
    nsa_error err;

    (void)state;
    for (int count = JSON_MAX_SPANS; count <= JSON_MAX_SPANS + 1; count++) {
        size_t size = (size_t)sprintf(text, "{\"inputs\":[");

        for (int i = 0; i < count; i++)
            size += (size_t)sprintf(text + size, "%s{\"data\":[1]}", i ? "," : "");
        strcpy(text + size, "]}");
        assert_status(count > JSON_MAX_SPANS ? NSA_ELIMIT : NSA_OK, open_text(text, &err));
    }
    assert_message(err, "data: more than 8 arrays of numbers");
}

static void test_depth(void **state)
{
    char text[2 * JSON_MAX_DEPTH + 20];
    nsa_error err;

    (void)state;
    for (int depth = JSON_MAX_DEPTH - 2; depth < JSON_MAX_DEPTH + 2; depth++) {
        char *to = text + sprintf(text, "{\"a\":");

        memset(to, '[', (size_t)depth);
        memset(to + depth, ']', (size_t)depth);
        strcpy(to + 2 * depth, "}");
        assert_status(depth < JSON_MAX_DEPTH ? NSA_OK : NSA_ELIMIT, open_text(text, &err));
        if (depth >= JSON_MAX_DEPTH)
            assert_message(err, "JSON nested deeper than 64 arrays and objects");
    }
}

/* Bytes beside the arrays are limited, bytes in them are not. */
static void test_envelope_limit(void **state)
{
    size_t size = JSON_MAX_ENVELOPE_BYTES + 100;
    char *text = malloc(size + 1);
    json_document *document;
    nsa_error err;

    (void)state;
    assert_non_null(text);
    for (size_t extra = 0; extra < 2; extra++) {
        size_t used = JSON_MAX_ENVELOPE_BYTES + extra;

        memset(text, ' ', size + 1);
        memcpy(text, "{\"a\":\"", 6);
        memset(text + 6, 'x', used - 8);
        memcpy(text + used - 2, "\"}", 2);
        document = NULL;
        assert_status(extra ? NSA_ELIMIT : NSA_OK,
                      json_document_open(&document, text, used, places, &err));
        json_document_close(document);
    }
    assert_message(err, "1048577 bytes, more than 1048576");
    memset(text, ' ', size + 1);
    memcpy(text, "{\"input\":[", 10);
    memcpy(text + size - 2, "]}", 2);
    assert_status(NSA_OK, json_document_open(&document, text, size, places, &err));
    json_document_close(document);
    free(text);
}

/* The end of an array, wherever its brackets, strings and commas lie in the blocks of a skip. */
static void test_spans(void **state)
{
    static const char *const pieces[] = {
        "[",     "]",         "1",    "-2.5e3", ",", " ",       "{",           "}",
        "\"]\"", "\"\\\"]\"", "\"\"", "\"[,\"", ",", "[1,2,3]", "0.123456789", "\n"};
    uint64_t random = 6;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        char text[2000] = "{\"input\":[";
        size_t size = strlen(text);
        size_t begin = size - 1;
        size_t count = random_below(&random, 150);
        /* Strings in one of four: the others stay in the fast part. */
        size_t kinds = i % 4 ? 8 : 16;
        int open = 1;
        size_t end;
        json_document *document;
        nsa_error err;
        const json_span *span;

        for (size_t n = 0; n < count; n++) {
            const char *piece = pieces[random_below(&random, 16)];

            if (piece[0] == '"' && kinds == 8)
                continue;
            if (piece[0] == ']' && open == 1)
                continue;
            if (piece[1] == '\0')
                open += (piece[0] == '[') - (piece[0] == ']');
            size += (size_t)sprintf(text + size, "%s", piece);
        }
        while (open-- > 0)
            text[size++] = ']';
        end = size;
        size += (size_t)sprintf(text + size, ",\"b\":[\"]\"]}");
        if (json_document_open(&document, text, size, places, &err) != NSA_OK)
            fail_msg("%s: %s", text, err.message);
        span = json_document_span(document, json_object_get(json_document_root(document), "input"));
        assert_ptr_equal(text + begin, span->begin);
        assert_ptr_equal(text + end, span->end);
        if (kinds == 8) {
            size_t commas = 0;

            for (const char *p = span->begin; p < span->end; p++)
                commas += *p == ',';
            assert_int_equal(commas, span->commas);
        }
        json_document_close(document);
    }
}

typedef struct allocation_case {
    const char *text;
    const char *key;
    const char *value;
} allocation_case;

/* A token that lost a byte because a buffer could not grow would show here. */
static nsa_status open_once(void *context)
{
    const allocation_case *c = context;
    json_document *document;
    nsa_status status = json_document_open(&document, c->text, strlen(c->text), places, NULL);

    if (status != NSA_OK)
        return status;
    assert_string_equal(c->value,
                        json_string_value(json_object_get(json_document_root(document), c->key)));
    assert_int_equal(12345678901234567,
                     json_integer_value(json_object_get(json_document_root(document), "n")));
    json_document_close(document);
    return status;
}

static void test_allocations(void **state)
{
    static const allocation_case cases[] = {
        {"{\"a\":\"b\",\"n\":12345678901234567,\"input\":[1,2]}", "a", "b"},
        {"{\"num_selected_blocks\":\"b\",\"n\":12345678901234567,\"i\\u006eput\":[1,2]}",
         "num_selected_blocks", "b"},
        {"{\"a\":\"a text of more than a hundred and twenty-eight bytes, so that the buffer for "
         "a token has to grow a few times, and each of those times will be made to fail\","
         "\"n\":12345678901234567,\"c\":[1,[2,{}]],\"d\":{\"e\":1,\"f\":2,\"g\":3,\"h\":4,\"i\":5,"
         "\"j\":6,\"k\":7,\"l\":8,\"m\":9,\"n\":10},\"inputs\":[{\"data\":[1]},{\"data\":[2]}]}",
         "a",
         "a text of more than a hundred and twenty-eight bytes, so that the buffer for a token "
         "has to grow a few times, and each of those times will be made to fail"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        allocation_case c = cases[i];

        check_every_allocation(open_once, &c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),         cmocka_unit_test(test_null),
        cmocka_unit_test(test_errors),         cmocka_unit_test(test_key_equal),
        cmocka_unit_test(test_array_limit),    cmocka_unit_test(test_depth),
        cmocka_unit_test(test_envelope_limit), cmocka_unit_test(test_spans),
        cmocka_unit_test(test_allocations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
