/* Which format a body is read and answered in, and what each can say. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SELECT "/v1/select?num_selected_blocks=2"
#define POSEMBED "/v1/posembed"

static const float scores[] = {1, 3, 2, 0.5f, -1, 7};
static const nsa_tensor two_rows = {(void *)(uintptr_t)scores, NSA_F32, {2, {2, 3}}};

/* --- negotiation --------------------------------------------------------------------------- */

struct negotiation {
    enum format request;
    const char *accept;
    enum format answer; /* FORMAT_COUNT: 406 */
};

static const struct negotiation negotiations[] = {
    {FORMAT_JSON, "Accept:", FORMAT_JSON}, /* none */
    {FORMAT_NPY, "Accept:", FORMAT_NPY},
    {FORMAT_RAW, "Accept:", FORMAT_RAW},
    {FORMAT_JSON, "Accept: */*", FORMAT_JSON},
    {FORMAT_NPY, "Accept: */*", FORMAT_NPY},
    {FORMAT_RAW, "Accept: application/*", FORMAT_RAW},
    {FORMAT_JSON, "Accept: application/x-npy", FORMAT_NPY},
    {FORMAT_JSON, "Accept: application/octet-stream", FORMAT_RAW},
    {FORMAT_NPY, "Accept: application/json", FORMAT_JSON},
    {FORMAT_RAW, "Accept: Application/JSON", FORMAT_JSON},
    {FORMAT_NPY, "Accept: application/json;q=0.5, application/octet-stream;q=0.9", FORMAT_RAW},
    {FORMAT_NPY, "Accept: application/json; q=0.501 ,application/octet-stream;q=0.5", FORMAT_JSON},
    {FORMAT_JSON, "Accept: application/json;q=0.1, */*;q=0.2", FORMAT_NPY},
    {FORMAT_JSON, "Accept: application/json;q=0, application/*;q=0.1", FORMAT_NPY},
    {FORMAT_RAW, "Accept: application/octet-stream;q=0, application/json", FORMAT_JSON},
    {FORMAT_RAW, "Accept: text/html, application/*;q=0.2, */*;q=0.1", FORMAT_RAW},
    {FORMAT_NPY, "Accept: application/json;charset=utf-8;q=0.4, application/x-npy;q=0.3",
     FORMAT_JSON},
    {FORMAT_JSON, "Accept: text/html", FORMAT_COUNT},
    {FORMAT_JSON, "Accept: text/*;q=1", FORMAT_COUNT},
    {FORMAT_NPY, "Accept: application/json;q=0", FORMAT_COUNT},
    {FORMAT_RAW, "Accept: */*;q=0", FORMAT_COUNT},
};

static void test_accept(void **state)
{
    struct client *client = client_open(small());

    (void)state;
    for (size_t i = 0; i < sizeof negotiations / sizeof *negotiations; i++) {
        const struct negotiation *n = &negotiations[i];
        struct body body = make_body(n->request, &two_rows, NULL);
        const char *path = n->request == FORMAT_RAW ? SELECT "&shape=2,3&dtype=float32" : SELECT;
        const struct reply *reply;
        char type[64];

        snprintf(type, sizeof type, "Content-Type: %s", format_types[n->request]);
        reply = client_call(client, &(struct call){.path = path,
                                                   .body = body.bytes,
                                                   .size = body.size,
                                                   .headers = {type, n->accept}});
        if (n->answer == FORMAT_COUNT) {
            expect_reply(reply, 406,
                         "Accept: expected application/json, application/x-npy or "
                         "application/octet-stream, got ");
            expect_reply(reply, 406, "\"not_acceptable\"");
        } else {
            if (reply->status != 200)
                fail_msg("%s: got %ld", n->accept, reply->status);
            expect_header(client, "Content-Type", format_types[n->answer]);
        }
        free(body.bytes);
    }
    assert_int_equal(1, client_connections(client));
    client_close(client);
}

static void test_content_type(void **state)
{
    static const char json[] = "{\"input\": [3, 1, 2]}";
    static const char *const accepted[] = {NO_CONTENT_TYPE, "Content-Type: application/json",
                                           "Content-Type: Application/JSON; charset=utf-8",
                                           "Content-Type:application/json;charset=utf-8"};
    static const char *const refused[] = {"Content-Type: text/plain",
                                          "Content-Type: application/jsonp",
                                          "Content-Type: application/x-www-form-urlencoded"};
    struct client *client = client_open(small());
    struct body npy = make_body(FORMAT_NPY, &two_rows, NULL);
    struct call call = {.path = SELECT, .body = json};

    (void)state;
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        call.headers[0] = accepted[i];
        expect_reply(client_call(client, &call), 200, "\"indices\": [0,2]");
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        call.headers[0] = refused[i];
        expect_reply(client_call(client, &call), 415, "\"unsupported_media_type\"");
        expect_reply(client_call(client, &call), 415, strchr(refused[i], ' ') + 1);
    }
    call.headers[0] = NO_CONTENT_TYPE;
    call.body = " \r\n\t{\"input\": [3, 1, 2]}";
    expect_reply(client_call(client, &call), 200, "\"indices\": [0,2]");
    call.body = "[3, 1, 2]";
    expect_reply(client_call(client, &call), 415, "Content-Type: expected application/json");
    call.body = "";
    expect_reply(client_call(client, &call), 415, NULL);
    call.body = npy.bytes;
    call.size = npy.size;
    expect_reply(client_call(client, &call), 200, NULL);
    expect_header(client, "Content-Type", "application/x-npy");
    free(npy.bytes);
    client_close(client);
}

/* --- JSON ---------------------------------------------------------------------------------- */

struct sample {
    const char *path;
    const char *body;
    const char *answer; /* all of it */
};

#define BY_SELECT ", \"model\": \"select\", \"version\": \"1\"}\n"
#define BY_POSEMBED ", \"dtype\": \"float32\", \"model\": \"posembed\", \"version\": \"1\"}\n"

static const struct sample samples[] = {
    {"/v1/select", "{\"input\": [[1, 3, 2], [0.5, -1, 7]], \"num_selected_blocks\": 2}",
     "{\"indices\": [[1,2],[2,0]], \"shape\": [2, 2]" BY_SELECT},
    {"/v1/select", "{\"num_selected_blocks\": 1, \"return_values\": true, \"input\": [1e-3, 0.25]}",
     "{\"indices\": [1], \"values\": [0.25], \"shape\": [1]" BY_SELECT},
    {"/v1/select", "{\"input\": [[1,2],[4,3]], \"num_selected_blocks\": 2, \"flat\": true}",
     "{\"indices\": [1,0,0,1], \"shape\": [2, 2]" BY_SELECT},
    {"/v1/select?flat=true&return_values=1&num_selected_blocks=1", "{\"input\": [[1,2],[4,3]]}",
     "{\"indices\": [1,0], \"values\": [2,4], \"shape\": [2, 1]" BY_SELECT},
    {"/v1/select", "{\"input\": [1,2,4,3], \"shape\": [2,2], \"num_selected_blocks\": 1}",
     "{\"indices\": [[1],[0]], \"shape\": [2, 1]" BY_SELECT},
    {"/v1/select", "{\"input\": [[1,2]], \"shape\": [1,2], \"num_selected_blocks\": 0}",
     "{\"indices\": [[]], \"shape\": [1, 0]" BY_SELECT},
    {"/v1/select", "{\"input\": [], \"num_selected_blocks\": 0}",
     "{\"indices\": [], \"shape\": [0]" BY_SELECT},
    {"/v1/select",
     "{\"input\": [NaN, Infinity, -Infinity, 5], \"num_selected_blocks\": 4, "
     "\"return_values\": true}",
     "{\"indices\": [0,1,3,2], \"values\": [NaN,Infinity,5,-Infinity], \"shape\": [4]" BY_SELECT},
    {"/v1/select",
     "{\"input\": [NaN, Infinity, -Infinity, 5], \"num_selected_blocks\": 4, "
     "\"return_values\": true, \"nonfinite\": \"null\"}",
     "{\"indices\": [0,1,3,2], \"values\": [null,null,5,null], \"shape\": [4]" BY_SELECT},
    {"/v1/select?nonfinite=token",
     "{\"input\": [NaN], \"num_selected_blocks\": 1, "
     "\"return_values\": true}",
     "{\"indices\": [0], \"values\": [NaN], \"shape\": [1]" BY_SELECT},
    {"/v1/select",
     "{\"input\": [-0.0, -1, 0, -0], \"num_selected_blocks\": 3, "
     "\"return_values\": true}",
     "{\"indices\": [0,2,3], \"values\": [-0.0,0.0,-0.0], \"shape\": [3]" BY_SELECT},
    {"/v1/select", "{\"input\": [1, 1, 1], \"num_selected_blocks\": 3, \"return_values\": false}",
     "{\"indices\": [0,1,2], \"shape\": [3]" BY_SELECT},
    {POSEMBED, "{\"input\": [[0, 0], [0.5, -4]]}",
     "{\"output\": [[1,2],[3.5,0.0]], \"shape\": [2, 2]" BY_POSEMBED},
    {POSEMBED "?offset=3", "{\"input\": [[[0.1, 1e38]]]}",
     "{\"output\": [[[7.1,1e38]]], \"shape\": [1, 1, 2]" BY_POSEMBED},
    {POSEMBED, "{\"input\": [[0, 0]], \"offset\": 1, \"model\": \"posembed\", \"version\": \"1\"}",
     "{\"output\": [[3,4]], \"shape\": [1, 2]" BY_POSEMBED},
    {POSEMBED "?model=pos%65mbed&version=1", "{\"input\": [[0, 0]]}",
     "{\"output\": [[1,2]], \"shape\": [1, 2]" BY_POSEMBED},
    {POSEMBED, "{\"input\": [[0, 0]], \"version\": 1}",
     "{\"output\": [[1,2]], \"shape\": [1, 2]" BY_POSEMBED},
    {POSEMBED, "{\"input\": [], \"shape\": [0, 3, 2]}",
     "{\"output\": [], \"shape\": [0, 3, 2]" BY_POSEMBED},
    {POSEMBED "?offset=4", "{\"input\": [], \"shape\": [3, 0, 2]}",
     "{\"output\": [[],[],[]], \"shape\": [3, 0, 2]" BY_POSEMBED},
    {POSEMBED, "{\"input\": [[NaN, Infinity]], \"flat\": true}",
     "{\"output\": [NaN,Infinity], \"shape\": [1, 2]" BY_POSEMBED},
};

static void test_json(void **state)
{
    struct client *client = client_open(small());

    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const struct reply *reply = client_json(client, samples[i].path, samples[i].body);

        if (reply->status != 200 || strcmp(reply->body, samples[i].answer) != 0)
            fail_msg("%s %s:\nexpected %sgot %ld %s", samples[i].path, samples[i].body,
                     samples[i].answer, reply->status, reply->body);
    }
    client_close(client);
}

/* --- binary -------------------------------------------------------------------------------- */

static void test_tensor_headers(void **state)
{
    struct client *client = client_open(small());
    struct call call = {
        .path = SELECT,
        .body = scores,
        .size = sizeof scores,
        .headers = {"Content-Type: application/octet-stream", "X-Tensor-Shape: 2,3",
                    "X-Tensor-Dtype: float32"},
    };

    (void)state;
    expect_reply(client_call(client, &call), 200, NULL);
    expect_header(client, "X-Tensor-Shape", "2,2");
    expect_header(client, "X-Tensor-Dtype", "int64");
    call.path = SELECT "&shape=2,3";
    expect_reply(client_call(client, &call), 400, "shape: given twice");
    call.path = SELECT "&dtype=float32";
    expect_reply(client_call(client, &call), 400, "dtype: given twice");
    call.path = SELECT;
    call.headers[2] = "X-Tensor-Dtype: float31";
    expect_reply(client_call(client, &call), 400,
                 "dtype: expected float32, float16, bfloat16 or float64");
    call.headers[2] = NULL;
    expect_reply(client_call(client, &call), 400, "dtype: expected in the query or in X-Tensor-D");
    call.headers[1] = "X-Tensor-Dtype: float32";
    expect_reply(client_call(client, &call), 400, "shape: expected in the query or in X-Tensor-S");
    client_close(client);
}

/* A binary answer has room for one tensor. */
static void test_return_values(void **state)
{
    struct client *client = client_open(small());
    struct call call = {
        .path = SELECT "&shape=2,3&dtype=float32&return_values=true",
        .body = scores,
        .size = sizeof scores,
        .headers = {"Content-Type: application/octet-stream", "Accept: application/json"},
    };

    (void)state;
    expect_reply(client_call(client, &call), 200,
                 "\"indices\": [[1,2],[2,0]], \"values\": [[3,2],[7,0.5]]");
    call.headers[1] = NULL;
    expect_reply(client_call(client, &call), 400, "return_values: expected false");
    call.headers[1] = "Accept: application/x-npy";
    expect_reply(client_call(client, &call), 400, "application/x-npy carries one tensor");
    client_close(client);
}

static void test_empty(void **state)
{
    static const struct {
        const char *path;
        nsa_shape input, output;
    } empties[] = {
        {"/v1/select?num_selected_blocks=0", {2, {0, 8}}, {2, {0, 0}}},
        {SELECT, {3, {3, 0, 8}}, {3, {3, 0, 2}}},
        {"/v1/select?num_selected_blocks=0", {2, {4, 0}}, {2, {4, 0}}},
        {"/v1/compress", {3, {0, 2, 8}}, {2, {0, 8}}},
        {"/v1/compress", {2, {0, 16}}, {2, {0, 8}}},
        {POSEMBED, {3, {0, 4, 2}}, {3, {0, 4, 2}}},
        {POSEMBED "?offset=4", {3, {3, 0, 2}}, {3, {3, 0, 2}}},
    };
    struct client *client = client_open(small());

    (void)state;
    for (size_t i = 0; i < sizeof empties / sizeof *empties; i++) {
        const nsa_tensor input = {NULL, NSA_F32, empties[i].input};

        for (enum format format = FORMAT_NPY; format < FORMAT_COUNT; format++) {
            nsa_tensor output = must_infer(client, format, empties[i].path, &input);

            assert_true(nsa_shape_equal(&empties[i].output, &output.shape));
            free_tensor(&output);
        }
    }
    client_close(client);
}

/* A row of 32 dimensions, the most, and one more. */
static void test_rank(void **state)
{
    struct client *client = client_open(small());
    nsa_tensor input = {(void *)(uintptr_t)scores, NSA_F32, {.rank = NSA_MAX_RANK}};
    char body[256];

    (void)state;
    for (size_t i = 0; i < NSA_MAX_RANK; i++)
        input.shape.dims[i] = i + 1 < NSA_MAX_RANK ? 1 : 6;
    for (enum format format = FORMAT_JSON; format < FORMAT_COUNT; format++) {
        nsa_tensor output = must_infer(client, format, SELECT, &input);

        assert_int_equal(NSA_MAX_RANK, output.shape.rank);
        assert_int_equal(5, ((int64_t *)output.data)[0]);
        free_tensor(&output);
    }
    snprintf(body, sizeof body, "{\"input\": %.33s1%.33s, \"num_selected_blocks\": 0}",
             "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
    expect_reply(client_json(client, "/v1/select", body), 400, "32");
    client_close(client);
}

int run_formats(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_accept, daemons_kill),
        cmocka_unit_test_teardown(test_content_type, daemons_kill),
        cmocka_unit_test_teardown(test_json, daemons_kill),
        cmocka_unit_test_teardown(test_tensor_headers, daemons_kill),
        cmocka_unit_test_teardown(test_return_values, daemons_kill),
        cmocka_unit_test_teardown(test_empty, daemons_kill),
        cmocka_unit_test_teardown(test_rank, daemons_kill),
    };

    return cmocka_run_group_tests_name("formats", tests, start_small, stop_small);
}
