/* Every kind of bad input: status, code, and a message that names the field, the expected, the got.
 */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SELECT "/v1/select"
#define COMPRESS "/v1/compress"
#define POSEMBED "/v1/posembed"
#define JSON "application/json"
#define RAW "application/octet-stream"
#define F32x6 "AAAABBBBCCCCDDDDEEEEFFFF"
#define ROW31 "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define ROW32 "[" ROW31 ",32]"

struct mistake {
    const char *path;
    const char *type;
    const char *body;
    long status;
    const char *code;
    const char *message; /* a part of it */
};

static const struct mistake select_mistakes[] = {
    {SELECT, JSON, "{\"input\": [1,2]}", 400, "invalid_argument",
     "num_selected_blocks: expected an integer, got none"},
    {SELECT, JSON, "{\"input\": [1,2], \"num_selected_blocks\": 3}", 400, "invalid_argument",
     "num_selected_blocks: expected 0 to 2 (the blocks of a row), got 3"},
    {SELECT "?num_selected_blocks=-1", JSON, "{\"input\": [1,2]}", 400, "invalid_argument",
     "num_selected_blocks: expected 0 to 2 (the blocks of a row), got -1"},
    {SELECT, JSON, "{\"input\": [1], \"num_selected_blocks\": 1.5}", 400, "invalid_argument",
     "num_selected_blocks: expected an integer, got 1.5"},
    {SELECT, JSON, "{\"input\": [1], \"num_selected_blocks\": \"1\"}", 400, "invalid_argument",
     "num_selected_blocks: expected an integer, got \\\"1\\\""},
    {SELECT, JSON, "{\"input\": [1], \"num_selected_blocks\": 99999999999999999999}", 400, NULL,
     NULL},
    {SELECT "?num_selected_blocks=1e2", JSON, "{\"input\": [1]}", 400, "invalid_argument",
     "num_selected_blocks: expected an integer, got '1e2'"},
    {SELECT "?num_selected_blocks=99999999999999999999", JSON, "{\"input\": [1]}", 400,
     "invalid_argument", "num_selected_blocks: expected an integer"},
    {SELECT "?num_selected_blocks", JSON, "{\"input\": [1]}", 400, "invalid_argument",
     "num_selected_blocks: expected an integer, got ''"},
    {SELECT, JSON, "{\"input\": [1], \"num_selected_blocks\": 1, \"return_values\": 1}", 400,
     "invalid_argument", "return_values: expected true or false, got 1"},
    {SELECT "?return_values=yes", JSON, "{\"input\": [1], \"num_selected_blocks\": 1}", 400,
     "invalid_argument", "return_values: expected true or false, got 'yes'"},
    {SELECT, JSON, "{\"input\": [1], \"k\": 1}", 400, "invalid_argument",
     "unknown field 'k': expected input, model, version, shape, flat, nonfinite, "
     "num_selected_blocks, return_values"},
    {SELECT "?k=1", JSON, "{\"input\": [1]}", 400, "invalid_argument",
     "unknown field 'k': expected model, version, shape, dtype, flat, nonfinite, "
     "num_selected_blocks, return_values"},
    {SELECT "?offset=1", JSON, "{\"input\": [1]}", 400, "invalid_argument",
     "unknown field 'offset'"},
    {SELECT "?input=1", JSON, "{\"num_selected_blocks\": 1}", 400, "invalid_argument",
     "unknown field 'input'"},
    {SELECT "?num_selected_blocks=1&num_selected_blocks=1", JSON, "{\"input\": [1]}", 400,
     "invalid_argument", "num_selected_blocks: given twice"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [1], \"num_selected_blocks\": 1}", 400,
     "invalid_argument", "num_selected_blocks: given twice"},
    {SELECT, JSON, "{\"input\": [1], \"num_selected_blocks\": 1, \"num_selected_blocks\": 1}", 400,
     "malformed_body", "duplicate"},
    {SELECT, JSON, "{\"input\": [1], \"input\": [1], \"num_selected_blocks\": 1}", 400,
     "malformed_body", "duplicate"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": 3}", 400, "invalid_argument",
     "input: expected an array of numbers, got"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": null}", 400, "invalid_argument",
     "input: expected an array of numbers, got null"},
    {SELECT "?num_selected_blocks=1", JSON, "{}", 400, "invalid_argument",
     "input: expected an array of numbers, got none"},
    {SELECT "?num_selected_blocks=1", JSON, "[1]", 400, "invalid_argument",
     "expected a JSON object, got"},
    {SELECT "?num_selected_blocks=1", JSON, "", 400, "malformed_body",
     "body: expected a JSON object, got nothing"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [1]} x", 400, "malformed_body", NULL},
    {SELECT "?num_selected_blocks=1", JSON, "{'input': [1]}", 400, "malformed_body", NULL},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [1,]}", 400, "malformed_body", "input[1]"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [01]}", 400, "malformed_body", "input[0]"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [nan]}", 400, NULL, "input[0]"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [1, \"2\"]}", 400, "invalid_argument",
     "input[1]: expected a number, got"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [[1], null]}", 400, "invalid_argument",
     "input[1]: expected an array of 1, got null"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [[1, 2], [3, [4]]]}", 400,
     "invalid_argument", "input[1][1]: expected a number, got"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [[1, 2], [3, 1e39]]}", 400,
     "invalid_argument", "input[1][1]: 1e39 does not fit float32"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [-3.5e38]}", 400, "invalid_argument",
     "input[0]: -3.5e38 does not fit float32"},
    /* The ragged array of the contract, word for word. */
    {SELECT "?num_selected_blocks=1", JSON,
     "{\"input\": [[" ROW32 "," ROW32 "," ROW32 ",[" ROW31 "]]]}", 400, "invalid_argument",
     "\"input[0][3]: expected 32 numbers, got 31\""},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [[1, 2], [1, 2, 3]]}", 400,
     "invalid_argument", "input[1]: expected 2 numbers, got"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [[[1], [2]], [[3]]]}", 400,
     "invalid_argument", "\"input[1]: expected 2 arrays, got 1\""},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [1,2,3], \"shape\": [2,2]}", 400,
     "invalid_argument", "input: expected 4 numbers for shape [2, 2], got 3"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [[1,2]], \"shape\": [2]}", 400,
     "invalid_argument", "input: expected a flat array or shape [2], got [1, 2]"},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [1,2], \"shape\": [-1, 2]}", 400,
     "invalid_argument", "shape: expected up to 32 integers of at least 0, got [-1,2]"},
    {SELECT "?num_selected_blocks=1", JSON,
     "{\"input\": [1], \"shape\": [4294967296, 4294967296, 4294967296]}", 400, "limit_exceeded",
     NULL},
    {SELECT "?num_selected_blocks=0", JSON, "{\"input\": [], \"shape\": [999999999999, 0]}", 400,
     "limit_exceeded", NULL},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [1], \"flat\": \"true\"}", 400,
     "invalid_argument", "flat: expected true or false, got \\\"true\\\""},
    {SELECT "?num_selected_blocks=1", JSON, "{\"input\": [1], \"nonfinite\": null}", 400,
     "invalid_argument", "nonfinite: expected \\\"token\\\" or \\\"null\\\", got null"},
    {SELECT "?shape=1&num_selected_blocks=1", JSON, "{\"input\": [1]}", 400, "invalid_argument",
     "shape: expected in the query only with application/octet-stream"},
};

static const struct mistake other_mistakes[] = {
    /* raw bodies */
    {SELECT "?num_selected_blocks=1&shape=2,4&dtype=float32", RAW, F32x6, 400, "invalid_argument",
     "body: expected 32 bytes for float32 [2, 4], got 24"},
    {SELECT "?num_selected_blocks=1&shape=2,2&dtype=float32", RAW, F32x6, 400, "invalid_argument",
     "body: expected 16 bytes for float32 [2, 2], got 24"},
    {SELECT "?num_selected_blocks=1&shape=2,3&dtype=int32", RAW, F32x6, 400, "invalid_argument",
     "dtype: expected float32, float16, bfloat16 or float64, got 'int32'"},
    {SELECT "?num_selected_blocks=1&shape=3&dtype=int64", RAW, F32x6, 415, "unsupported_type",
     "int64"},
    {SELECT "?num_selected_blocks=1&shape=2x3&dtype=float32", RAW, F32x6, 400, "invalid_argument",
     "shape: expected up to 32 integers of at least 0, got '2x3'"},
    {SELECT "?num_selected_blocks=1&shape=2,3,&dtype=float32", RAW, F32x6, 400, "invalid_argument",
     "shape: expected"},
    {SELECT "?num_selected_blocks=1&shape=-2,3&dtype=float32", RAW, F32x6, 400, "invalid_argument",
     "shape: expected"},
    {SELECT "?num_selected_blocks=1&shape=18446744073709551615,2&dtype=float32", RAW, F32x6, 400,
     "limit_exceeded", NULL},
    {SELECT "?num_selected_blocks=1&shape=99999999999999999999&dtype=float32", RAW, F32x6, 400,
     "invalid_argument", "shape: expected"},
    {SELECT "?num_selected_blocks=1&shape=&dtype=float32", RAW, "AAAA", 400, "invalid_argument",
     "scores: expected shape [..., num_blocks], got []"},
    {SELECT "?num_selected_blocks=1&dtype=float32", RAW, F32x6, 400, "invalid_argument",
     "shape: expected in the query or in X-Tensor-Shape"},

    /* shapes */
    {COMPRESS, JSON, "{\"input\": [[1,2,3]]}", 400, "invalid_argument",
     "x: expected shape [..., 2, 8] or [..., 16], got [1, 3]"},
    {COMPRESS, JSON, "{\"input\": [[1,2,3,4,5,6,7,8]]}", 400, "invalid_argument",
     "x: expected shape [..., 2, 8] or [..., 16], got [1, 8]"},
    {COMPRESS, JSON, "{\"input\": []}", 400, "invalid_argument", "got [0]"},
    {POSEMBED, JSON, "{\"input\": [[1,2,3]]}", 400, "invalid_argument",
     "x: expected shape [..., L, 2], got [1, 3]"},
    {POSEMBED, JSON, "{\"input\": [1,2]}", 400, "invalid_argument",
     "x: expected shape [..., L, 2], got [2]"},
    {POSEMBED, JSON, "{\"input\": [[1,2],[3,4]], \"offset\": 3}", 400, "invalid_argument",
     "offset: expected offset + L to be at most max_len 4, got 3 + 2"},
    {POSEMBED "?offset=5", JSON, "{\"input\": [[1,2]]}", 400, "invalid_argument",
     "offset: expected offset + L to be at most max_len 4, got 5 + 1"},
    {POSEMBED "?offset=9223372036854775807", JSON, "{\"input\": [[1,2]]}", 400, "invalid_argument",
     "at most max_len 4, got 9223372036854775807 + 1"},
    {POSEMBED, JSON, "{\"input\": [[1,2]], \"offset\": -1}", 400, "invalid_argument",
     "offset: expected at least 0, got -1"},
    {POSEMBED, JSON, "{\"input\": [[1,2],[1,2],[1,2],[1,2],[1,2]]}", 400, "invalid_argument",
     "at most max_len 4, got 0 + 5"},
    {POSEMBED, JSON, "{\"input\": [[1,2]], \"num_selected_blocks\": 1}", 400, "invalid_argument",
     "unknown field 'num_selected_blocks': expected input, model, version, shape, flat, nonfinite, "
     "offset"},

    /* models */
    {COMPRESS "?model=none", JSON, "{\"input\": [1]}", 404, "unknown_model",
     "model: no model is called 'none'; for "},
    {COMPRESS, JSON, "{\"input\": [1], \"model\": \"none\"}", 404, "unknown_model",
     "model: no model is called 'none'; for "},
    {COMPRESS "?version=2", JSON, "{\"input\": [1]}", 404, "unknown_model",
     "version: model 'compress' has no version 2"},
    {COMPRESS "?version=0", JSON, "{\"input\": [1]}", 400, "invalid_argument",
     "version: expected a positive integer, got '0'"},
    {COMPRESS "?version=01", JSON, "{\"input\": [1]}", 400, "invalid_argument",
     "version: expected a positive integer, got '01'"},
    {COMPRESS "?version=4294967297", JSON, "{\"input\": [1]}", 400, NULL, "version: "},
    {COMPRESS "?model=posembed", JSON, "{\"input\": [1]}", 400, "invalid_argument",
     "model: expected a model for compress, got 'posembed', which is for posembed"},
    {SELECT "?model=compress", JSON, "{\"input\": [1]}", 400, "invalid_argument",
     "model: expected a model for select, got 'compress', which is for compress"},
    {COMPRESS "?model=", JSON, "{\"input\": [1]}", 400, "invalid_argument",
     "model: expected a name of 1 to 128 bytes, got ''"},
    {COMPRESS, JSON, "{\"input\": [1], \"model\": 5}", 400, "invalid_argument",
     "model: expected a name of 1 to 128 bytes, got 5"},

    /* routes */
    {"/", JSON, "{}", 404, "unknown_route", "no such route: /"},
    {"/v1", JSON, "{}", 404, "unknown_route", "no such route: /v1"},
    {"/v1/select/", JSON, "{}", 404, "unknown_route", "no such route: /v1/select/"},
    {"/v1/Select", JSON, "{}", 404, "unknown_route", "no such route"},
    {"/v1/%22%0a", JSON, "{}", 404, "unknown_route", "no such route: /v1/\\\"\\u000a"},
};

/* An error's body is JSON with exactly its three keys, the id that of the header. */
static void check_error_body(struct client *client, const struct reply *reply, const char *code)
{
    json_t *body = json_loads(reply->body, 0, NULL);
    const char *id = client_header(client, "X-Request-Id");
    const char *got = json_string_value(json_object_get(body, "code"));

    if (!body || json_object_size(body) != 3 || !got)
        fail_msg("expected error, code and request_id, got %s", reply->body);
    assert_true(json_string_length(json_object_get(body, "error")) > 0);
    if (code && strcmp(got, code) != 0)
        fail_msg("expected code %s, got %s", code, reply->body);
    assert_non_null(id);
    assert_string_equal(id, json_string_value(json_object_get(body, "request_id")));
    expect_header(client, "Content-Type", "application/json");
    json_decref(body);
}

static void check_mistakes(const struct mistake *mistakes, size_t count)
{
    struct client *client = client_open(small());
    size_t empty = 0;

    for (size_t i = 0; i < count; i++) {
        const struct mistake *mistake = &mistakes[i];
        const struct reply *reply;
        char type[64];

        snprintf(type, sizeof type, "Content-Type: %s", mistake->type);
        empty += mistake->body[0] == '\0';
        reply = client_call(
            client,
            &(struct call){.path = mistake->path, .body = mistake->body, .headers = {type}});
        if (reply->status != mistake->status ||
            (mistake->message && !strstr(reply->body, mistake->message)))
            fail_msg("%s %s:\nexpected %ld %s\ngot %ld %s", mistake->path, mistake->body,
                     mistake->status, mistake->message ? mistake->message : "", reply->status,
                     reply->body);
        check_error_body(client, reply, mistake->code);
        expect_reply(client_json(client, SELECT "?num_selected_blocks=1", "{\"input\": [1, 2]}"),
                     200, "\"indices\": [1]");
    }
    /* Newer versions of libcurl open another one after an error in answer to an empty body. */
    assert_in_range(client_connections(client), 1, 1 + empty);
    client_close(client);
}

static void test_select(void **state)
{
    (void)state;
    check_mistakes(select_mistakes, sizeof select_mistakes / sizeof *select_mistakes);
}

static void test_others(void **state)
{
    (void)state;
    check_mistakes(other_mistakes, sizeof other_mistakes / sizeof *other_mistakes);
}

static void test_methods(void **state)
{
    static const struct {
        const char *method, *path, *allow;
    } rows[] = {
        {"GET", SELECT, "POST"},           {"HEAD", SELECT, "POST"},
        {"PUT", COMPRESS, "POST"},         {"DELETE", POSEMBED, "POST"},
        {"POST", "/livez", "GET, HEAD"},   {"PATCH", "/v1/models", "GET, HEAD"},
        {"POST", "/metrics", "GET, HEAD"}, {"FROBNICATE", "/readyz", "GET, HEAD"},
        {"OPTIONS", SELECT, "POST"},
    };
    struct client *client = client_open(small());

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct call call = {.method = rows[i].method, .path = rows[i].path};
        const struct reply *reply;

        if (rows[i].method[0] == 'P')
            call.body = "{\"input\": [1]}";
        reply = client_call(client, &call);
        if (reply->status != 405)
            fail_msg("%s %s: got %ld", rows[i].method, rows[i].path, reply->status);
        expect_header(client, "Allow", rows[i].allow);
        if (strcmp(rows[i].method, "HEAD") != 0)
            check_error_body(client, reply, "method_not_allowed");
        expect_reply(client_get(client, "/livez"), 200, NULL);
    }
    assert_int_equal(1, client_connections(client));
    client_close(client);
}

/* An .npy file of version `major`, its dictionary as given, with six float32 behind it. */
static struct body make_npy(int major, const char *dictionary)
{
    struct body body;
    FILE *to = open_memstream(&body.bytes, &body.size);
    size_t size = strlen(dictionary);

    assert_non_null(to);
    fprintf(to, "\x93NUMPY%c%c%c%c", major, 0, (int)(size & 0xFF), (int)(size >> 8));
    if (major > 1)
        fprintf(to, "%c%c", 0, 0);
    fprintf(to, "%s" F32x6, dictionary);
    assert_int_equal(0, fclose(to));
    return body;
}

static void test_npy_kinds(void **state)
{
    static const struct {
        int major;
        const char *dictionary;
        long status;
        const char *message;
    } rows[] = {
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 200, ""},
        {2, "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }\n", 200, ""},
        {3, "{'shape': (3, 2), 'fortran_order': False, 'descr': '<f4'}", 200, ""},
        {1, "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n", 200, ""},
        {1, "{'descr': '<f2', 'fortran_order': False, 'shape': (12,), }\n", 200, ""},
        {1, "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n", 415, "Fortran order"},
        {1, "{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }\n", 415, "big-endian"},
        {1, "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }\n", 415, "'|O'"},
        {1, "{'descr': '<c8', 'fortran_order': False, 'shape': (3,), }\n", 415, "'<c8'"},
        {1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,), }\n", 415,
         "structured"},
        {1, "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }\n", 415, "int64"},
        {4, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 415, "got 4.0"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }\n", 400,
         "npy data: expected 32 bytes for shape [2, 4] of float32, got 24"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }\n", 400,
         "npy header: expected a dimension, got"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }\n", 400,
         "shape"},
        {1, "{'descr': '<f4', 'fortran_order': False, }\n", 400, "the key shape, got none"},
        {1, "{}", 400, "got none"},
        {1, "__import__('os').system('true')", 400, "npy header"},
    };
    struct client *client = client_open(small());

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct body body = make_npy(rows[i].major, rows[i].dictionary);
        const struct reply *reply =
            client_call(client, &(struct call){.path = SELECT "?num_selected_blocks=1",
                                               .body = body.bytes,
                                               .size = body.size,
                                               .headers = {"Content-Type: application/x-npy"}});

        if (reply->status != rows[i].status ||
            (reply->status != 200 && !strstr(reply->body, rows[i].message)))
            fail_msg("%s:\nexpected %ld %s\ngot %ld %s", rows[i].dictionary, rows[i].status,
                     rows[i].message, reply->status, reply->body);
        if (reply->status != 200)
            check_error_body(client, reply, NULL);
        free(body.bytes);
    }
    assert_int_equal(1, client_connections(client));
    client_close(client);
}

int run_errors(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_select, daemons_kill),
        cmocka_unit_test_teardown(test_others, daemons_kill),
        cmocka_unit_test_teardown(test_methods, daemons_kill),
        cmocka_unit_test_teardown(test_npy_kinds, daemons_kill),
    };

    return cmocka_run_group_tests_name("errors", tests, start_small, stop_small);
}
