/* The rules of inference in the Open Inference Protocol, one by one. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"
#include "tests/integration/oip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SELECT "/v2/models/select/infer"
#define POSEMBED "/v2/models/posembed/infer"
#define SCORES(datatype, shape, rest)                                                              \
    "{\"name\": \"scores\", \"datatype\": \"" datatype "\", \"shape\": " shape rest "}"
#define K2 "\"parameters\": {\"num_selected_blocks\": 2}"
#define FOUR SCORES("FP32", "[1, 4]", ", \"data\": [0.5, 3, 1, 2]")

static struct client *client;

static int open_client(void **state)
{
    (void)state;
    client = client_open(small());
    return 0;
}

static int close_client(void **state)
{
    (void)state;
    client_close(client);
    return 0;
}

/* A table of bodies of JSON, each with its answer's status and a part of it. */
struct exchange {
    const char *path, *body;
    long status;
    const char *part;
};

static void play(const struct exchange *exchanges, size_t count)
{
    for (size_t i = 0; i < count; i++)
        expect_reply(oip_json(client, exchanges[i].path, exchanges[i].body), exchanges[i].status,
                     exchanges[i].part);
}

#define PLAY(exchanges) play(exchanges, sizeof(exchanges) / sizeof *(exchanges))

/* JSON text, then bytes; the header says how long the JSON is, plus `off`. */
static const struct reply *post_mixed(const char *json, const void *blob, size_t size, long off)
{
    size_t json_bytes = strlen(json);
    char *body = malloc(json_bytes + size + 1);
    const struct reply *reply;
    char header[24];

    snprintf(header, sizeof header, "%ld", (long)json_bytes + off);
    memcpy(body, json, json_bytes);
    memcpy(body + json_bytes, blob, size);
    reply = oip_post(client, SELECT, body, json_bytes + size, header);
    free(body);
    return reply;
}

/* --- requests ------------------------------------------------------------------------------ */

/* Rule 1: the header is the length of the JSON; without it all is JSON; 0 is raw bytes alone. */
static void rule_1_the_length_of_the_json(void **state)
{
    static const char body[] = "{\"inputs\": [" FOUR "], " K2 "}";
    static const float x[4] = {1, 1, 1, 1};
    static const char *const wrong[] = {"-1", "x", "7x", "1000000", "99999999999999999999999999"};
    char length[24];

    (void)state;
    snprintf(length, sizeof length, "%zu", strlen(body));
    expect_reply(oip_post(client, SELECT, body, 0, length), 200, "\"data\":[1,3]");
    expect_reply(oip_json(client, SELECT, body), 200, "\"data\":[1,3]");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        expect_reply(oip_post(client, SELECT, body, 0, wrong[i]), 400,
                     "Inference-Header-Content-Length: expected an integer");
    expect_reply(oip_post(client, POSEMBED, x, sizeof x, "0"), 200, "\"shape\":[2,2]");
    expect_header(client, "Content-Type", "application/octet-stream");
    expect_reply(oip_post(client, POSEMBED, x, 7, "0"), 400,
                 "expected a multiple of 8 bytes, got 7");
    expect_reply(oip_post(client, SELECT, x, sizeof x, "0"), 400, "num_selected_blocks: expected");
}

/* Rule 2: blobs in the order of the inputs, each of its size; not a byte less or more. */
static void rule_2_blobs_follow_in_order(void **state)
{
    static const char json[] =
        "{\"inputs\": ["
        "{\"name\": \"num_selected_blocks\", \"datatype\": \"INT64\", \"shape\": [1], "
        "\"parameters\": {\"binary_data_size\": 8}}, " SCORES(
            "FP16", "[2, 2]", ", \"parameters\": {\"binary_data_size\": 8}") "]}";
    static const unsigned char blob[17] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3c, 0, 0x40, 0, 0};

    (void)state;
    expect_reply(post_mixed(json, blob, 16, 0), 200, "\"data\":[1,0]");
    expect_reply(post_mixed(json, blob, 15, 0), 400, "expected 8 bytes behind the JSON, got 7");
    expect_reply(post_mixed(json, blob, 17, 0), 400, "got 1 more bytes");
    expect_reply(post_mixed(json, blob, 16, -1), 400, "malformed JSON");
    expect_reply(post_mixed(json, blob, 16, 1), 400, NULL);
    expect_reply(oip_json(client, SELECT, json), 400, "expected 8 bytes behind the JSON, got 0");
}

/* Rule 3: data, binary or shared, one of them; flat or nested; as many as the shape has. */
static void rule_3_one_source_and_the_shape_s_number_of_elements(void **state)
{
    static const struct exchange exchanges[] = {
        {SELECT,
         "{\"inputs\": [" SCORES("FP32", "[2, 2]", ", \"data\": [[1, 2], [4, 3]]") "], " K2 "}",
         200, "\"data\":[1,0,0,1]"},
        {SELECT, "{\"inputs\": [" SCORES("FP32", "[2, 2]", ", \"data\": [1, 2, 4, 3]") "], " K2 "}",
         200, "\"data\":[1,0,0,1]"},
        {SELECT,
         "{\"inputs\": [" SCORES("FP32", "[4]", ", \"data\": [[1, 2], [4, 3]]") "], " K2 "}", 200,
         "\"data\":[2,3]"},
        {SELECT, "{\"inputs\": [" SCORES("FP32", "[2, 2]", ", \"data\": [1, 2, 4]") "], " K2 "}",
         400, "inputs[0].data: expected 4 numbers for shape [2, 2], got 3"},
        {SELECT, "{\"inputs\": [" SCORES("FP32", "[2, 2]", "") "], " K2 "}", 400,
         "inputs[0]: expected exactly one of data, parameters.binary_data_size and "
         "parameters.shared_memory_region, got 0"},
        {SELECT,
         "{\"inputs\": [" SCORES(
             "FP32", "[1]", ", \"data\": [1], \"parameters\": {\"binary_data_size\": 4}") "], " K2
                                                                                          "}",
         400, "got 2"},
        {SELECT,
         "{\"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [1], "
         "\"data\": [1]}]}",
         400, "unexpected input 'x' for model 'select', expected 'scores'"},
        {SELECT, "{\"inputs\": [" FOUR "], \"outputs\": [{\"name\": \"y\"}], " K2 "}", 400,
         "unexpected output 'y' for model 'select', expected 'indices' or 'values'"},
        {SELECT, "{\"inputs\": [" FOUR ", " FOUR "], " K2 "}", 400, "'scores' is given twice"},
        {SELECT, "{\"inputs\": [], " K2 "}", 400, "inputs: expected 'scores'"},
        {SELECT, "{" K2 "}", 400, "inputs: expected an array, got none"},
        {SELECT, "{\"inputs\": [7]}", 400, "inputs[0]: expected an object, got 7"},
        {SELECT, "{\"inputs\": [" SCORES("FP32", "[1, 2", "") "]}", 400, "malformed JSON"},
        {SELECT, "{\"inputs\": [" SCORES("FP32", "[-1, 4]", ", \"data\": []") "], " K2 "}", 400,
         "inputs[0].shape: expected integers of at least 0, got [-1,4]"},
        {SELECT,
         "{\"inputs\": [" SCORES("FP32", "[4294967296, 4294967296, 4294967296]",
                                 ", \"data\": []") "], " K2 "}",
         400, "4294967296"},
        {SELECT,
         "{\"inputs\": [" SCORES("FP32", "[9223372036854775807]",
                                 ", \"parameters\": {\"binary_data_size\": 4}") "], " K2 "}",
         400, NULL},
        {SELECT, "{\"inputs\": [" SCORES("FP32", "[99999999999999999999]", ", \"data\": []") "]}",
         400, "malformed JSON"},
        {SELECT,
         "{\"inputs\": [" SCORES("FP32", "[1]",
                                 ", \"parameters\": {\"binary_data_size\": -4}") "], " K2 "}",
         400, "binary_data_size: expected an integer of at least 0, got -4"},
        {SELECT,
         "{\"inputs\": [" SCORES("FP32",
                                 "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,"
                                 "0,0,0,0,0,0,0,0]",
                                 ", \"data\": []") "], " K2 "}",
         400, "up to 32 integers"},
    };

    (void)state;
    PLAY(exchanges);
}

/* Rule 4: numbers for every type, rounded to the nearest; out of range is told by its index. */
static void rule_4_every_datatype_in_json(void **state)
{
    static const struct exchange exchanges[] = {
        {SELECT, "{\"inputs\": [" SCORES("FP16", "[3]", ", \"data\": [2049, 2051, 1]") "], " K2 "}",
         200, "\"datatype\":\"FP16\",\"shape\":[2],\"data\":[2052,2048]"},
        {SELECT, "{\"inputs\": [" SCORES("BF16", "[3]", ", \"data\": [257, 259, 1]") "], " K2 "}",
         200, "\"datatype\":\"BF16\",\"shape\":[2],\"data\":[260,256]"},
        {SELECT, "{\"inputs\": [" SCORES("FP64", "[3]", ", \"data\": [0.1, 1e300, 1]") "], " K2 "}",
         200, "\"datatype\":\"FP64\",\"shape\":[2],\"data\":[1e300,1]"},
        {SELECT, "{\"inputs\": [" SCORES("FP16", "[3]", ", \"data\": [1, 65520, 1]") "], " K2 "}",
         400, "inputs[0].data[1]: 65520 does not fit float16"},
        {SELECT, "{\"inputs\": [" SCORES("FP32", "[2]", ", \"data\": [1, 1e39]") "], " K2 "}", 400,
         "inputs[0].data[1]: 1e39 does not fit float32"},
        {SELECT,
         "{\"inputs\": [" FOUR ", {\"name\": \"num_selected_blocks\", \"datatype\": "
         "\"INT64\", \"shape\": [1], \"data\": [9223372036854775808]}]}",
         400, "inputs[1].data[0]: 9223372036854775808 does not fit int64"},
        {SELECT,
         "{\"inputs\": [" FOUR ", {\"name\": \"num_selected_blocks\", \"datatype\": "
         "\"INT64\", \"shape\": [1], \"data\": [1.5]}]}",
         400, "expected an integer"},
        {SELECT,
         "{\"inputs\": [" SCORES("FP32", "[4]",
                                 ", \"data\": [-Infinity, NaN, Infinity, 1]") "], " K2 "}",
         200, "\"data\":[NaN,Infinity]"},
        {SELECT, "{\"inputs\": [" SCORES("INT32", "[1]", ", \"data\": [1]") "], " K2 "}", 400,
         "inputs[0].datatype: expected FP32, FP16, BF16, FP64 or INT64, got INT32"},
        {SELECT, "{\"inputs\": [" SCORES("INT64", "[1]", ", \"data\": [1]") "], " K2 "}", 400,
         "expected FP32, FP16, BF16 or FP64 for 'scores', got INT64"},
    };

    (void)state;
    PLAY(exchanges);
}

/* As KServe's client says that there is nothing. */
static void null_is_as_good_as_absent(void **state)
{
    static const char empty[] =
        "{\"id\": null, \"parameters\": null, \"outputs\": null, \"inputs\": [{\"name\": \"x\", "
        "\"datatype\": \"FP32\", \"shape\": [0, 2], \"data\": null, \"parameters\": "
        "{\"binary_data_size\": 0}}]}";

    (void)state;
    expect_reply(oip_json(client, POSEMBED, empty), 200, "\"shape\":[0,2],\"data\":[]");
    expect_reply(oip_json(client, SELECT,
                          "{\"inputs\": [" SCORES("FP32", "[1]", ", \"data\": null") "], " K2 "}"),
                 400, "exactly one of data");
}

/* Rule 5: the id, known parameters, those that cannot matter, and unknown ones. */
static void rule_5_parameters(void **state)
{
    static const struct exchange exchanges[] = {
        {SELECT, "{\"id\": \"a \\\"b\\\"\", \"inputs\": [" FOUR "], " K2 "}", 200,
         "\"model_version\":\"1\",\"id\":\"a \\\"b\\\"\",\"outputs\""},
        {SELECT, "{\"id\": \"\", \"inputs\": [" FOUR "], " K2 "}", 200,
         "\"model_version\":\"1\",\"outputs\""},
        {SELECT, "{\"id\": 7, \"inputs\": [" FOUR "], " K2 "}", 400, "id: expected a text, got 7"},
        {SELECT,
         "{\"inputs\": [" FOUR "], \"parameters\": {\"num_selected_blocks\": 1, "
         "\"priority\": 3, \"sequence_id\": 9, \"sequence_start\": true, \"sequence_end\": "
         "false, \"unheard_of\": \"x\", \"timeout\": 0}}",
         200, "\"data\":[1]"},
        {SELECT,
         "{\"inputs\": [" FOUR "], \"parameters\": {\"num_selected_blocks\": 1, "
         "\"timeout\": 1}}",
         504, "deadline"},
        {SELECT, "{\"inputs\": [" FOUR "], \"parameters\": {\"num_selected_blocks\": \"1\"}}", 400,
         "num_selected_blocks: expected an integer, got \\\"1\\\""},
        {SELECT, "{\"inputs\": [" FOUR "], \"parameters\": {\"num_selected_blocks\": 5}}", 400,
         "num_selected_blocks: expected 0 to 4"},
        {SELECT, "{\"inputs\": [" FOUR "], \"parameters\": 1}", 400,
         "parameters: expected an object"},
        {SELECT, "{\"inputs\": [" FOUR "]}", 400,
         "num_selected_blocks: expected an integer, got none"},
        {POSEMBED,
         "{\"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [1, 2], "
         "\"data\": [0, 0]}], \"parameters\": {\"offset\": 3}}",
         200, "\"data\":[7,8]"},
        {POSEMBED,
         "{\"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [1, 2], "
         "\"data\": [0, 0]}], \"parameters\": {\"offset\": 4}}",
         400, "max_len 4"},
    };

    (void)state;
    PLAY(exchanges);
}

/* The number of blocks: as a parameter, as an input, or the model's own; not twice. */
static void num_selected_blocks_in_three_places(void **state)
{
    static const char tensor[] = "{\"name\": \"num_selected_blocks\", \"datatype\": \"INT64\", "
                                 "\"shape\": [1], \"data\": [1]}";
    char root[REPOSITORY_MAX_PATH_BYTES];
    struct daemon *daemon;
    char body[1024];

    (void)state;
    snprintf(body, sizeof body, "{\"inputs\": [%s, " FOUR "]}", tensor);
    expect_reply(oip_json(client, SELECT, body), 200, "\"data\":[1]");
    snprintf(body, sizeof body, "{\"inputs\": [%s, " FOUR "], " K2 "}", tensor);
    expect_reply(oip_json(client, SELECT, body), 400, "num_selected_blocks: given twice");
    snprintf(body, sizeof body, "{\"inputs\": [%s, %s, " FOUR "]}", tensor, tensor);
    expect_reply(oip_json(client, SELECT, body), 400, "num_selected_blocks: given twice");
    repository_make(root);
    repository_put_text(root, "top2/config.json",
                        "{\"op\": \"select\", \"num_selected_blocks\": 2}");
    daemon = DAEMON("--model-repository", root);
    client_close(client);
    client = client_open(daemon);
    expect_reply(oip_json(client, "/v2/models/top2/infer", "{\"inputs\": [" FOUR "]}"), 200,
                 "\"data\":[1,3]");
    snprintf(body, sizeof body, "{\"inputs\": [" FOUR ", %s]}", tensor);
    expect_reply(oip_json(client, "/v2/models/top2/infer", body), 200, "\"data\":[1]");
    expect_reply(client_get(client, "/v1/models"), 200, "\"num_selected_blocks\": 2");
    expect_reply(client_json(client, "/v1/select?model=top2", "{\"input\": [1, 3, 2]}"), 200,
                 "\"indices\": [1,2]");
    expect_reply(oip_post(client, "/v2/models/top2/infer", "\0\0\200\77\0\0\0\100", 8, "0"), 200,
                 "\"shape\":[2]");
    repository_remove(root);
    daemon_stop(daemon);
}

/* --- answers ------------------------------------------------------------------------------- */

/* Rule 6: the model's name and version are always there, also of the version that was asked for. */
static void rule_6_what_every_answer_says(void **state)
{
    static const struct exchange exchanges[] = {
        {SELECT, "{\"inputs\": [" FOUR "], " K2 "}", 200,
         "{\"model_name\":\"select\",\"model_version\":\"1\",\"outputs\":[{\"name\":\"indices\","
         "\"datatype\":\"INT64\",\"shape\":[1,2],\"data\":[1,3]},{\"name\":\"values\","
         "\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[3,2]}]}"},
        {"/v2/models/select/versions/1/infer", "{\"inputs\": [" FOUR "], " K2 "}", 200,
         "\"model_version\":\"1\""},
        {"/v2/models/select/versions/2/infer", "{\"inputs\": [" FOUR "], " K2 "}", 404,
         "Request for unknown model: 'select' version 2 is not found"},
        {"/v2/models/select/versions/x/infer", "{\"inputs\": [" FOUR "], " K2 "}", 400,
         "version: expected a positive integer, got 'x'"},
        {SELECT, "{\"inputs\": [" SCORES("FP32", "[0, 4]", ", \"data\": []") "], " K2 "}", 200,
         "\"shape\":[0,2],\"data\":[]"},
    };

    (void)state;
    PLAY(exchanges);
}

/* Rule 7: each output's own wish, else the request's, else JSON; those listed, as listed. */
static void rule_7_which_outputs_and_how(void **state)
{
    static const struct {
        const char *rest;
        const char *part;  /* of the answer's JSON */
        const char *bytes; /* behind it, as numbers; NULL: it is JSON alone */
    } cases[] = {
        {"",
         "\"indices\",\"datatype\":\"INT64\",\"shape\":[1,1],\"data\":[1]},{\"name\":\"values\"",
         NULL},
        {", \"outputs\": []", "\"data\":[1]},{\"name\":\"values\"", NULL},
        {", \"outputs\": [{\"name\": \"values\"}]",
         "\"outputs\":[{\"name\":\"values\",\"datatype\":\"FP32\",\"shape\":[1,1],\"data\":[3]}]}",
         NULL},
        {", \"outputs\": [{\"name\": \"values\"}, {\"name\": \"indices\"}]",
         "[{\"name\":\"values\",\"datatype\":\"FP32\",\"shape\":[1,1],\"data\":[3]},{\"name\":"
         "\"indices\",\"datatype\":\"INT64\",\"shape\":[1,1],\"data\":[1]}]",
         NULL},
        {", \"outputs\": [{\"name\": \"values\", \"parameters\": {\"binary_data\": true}}]",
         "\"shape\":[1,1],\"parameters\":{\"binary_data_size\":4}}]}", "\0\0\100\100"},
        {", \"outputs\": [{\"name\": \"values\", \"parameters\": {\"binary_data\": true}}, "
         "{\"name\": \"indices\", \"parameters\": {\"binary_data\": true}}]",
         "{\"name\":\"indices\",\"datatype\":\"INT64\",\"shape\":[1,1],\"parameters\":"
         "{\"binary_data_size\":8}}]}",
         "\0\0\100\100\1\0\0\0\0\0\0\0"},
        {", \"outputs\": [{\"name\": \"indices\"}, {\"name\": \"values\", \"parameters\": "
         "{\"binary_data\": true}}]",
         "\"data\":[1]},{\"name\":\"values\",\"datatype\":\"FP32\",\"shape\":[1,1],\"parameters\":"
         "{\"binary_data_size\":4}}]}",
         "\0\0\100\100"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[1024];
        const struct reply *reply;
        const char *length;

        snprintf(body, sizeof body,
                 "{\"inputs\": [" FOUR "]%s, \"parameters\": {\"num_selected_blocks\": 1}}",
                 cases[i].rest);
        reply = oip_json(client, SELECT, body);
        expect_reply(reply, 200, cases[i].part);
        length = client_header(client, "Inference-Header-Content-Length");
        assert_true((length != NULL) == (cases[i].bytes != NULL));
        if (length) {
            size_t json_bytes = strtoull(length, NULL, 10);

            assert_memory_equal(cases[i].bytes, reply->body + json_bytes, reply->size - json_bytes);
            expect_header(client, "Content-Type", "application/octet-stream");
        } else {
            expect_header(client, "Content-Type", "application/json");
        }
    }
}

/* Rules 7 and 8: the request's wish gives way to an output's; all that is binary is in order. */
static void rule_8_binary_answers(void **state)
{
    static const char body[] =
        "{\"inputs\": [" FOUR "], \"outputs\": [{\"name\": \"values\"}, {\"name\": \"indices\", "
        "\"parameters\": {\"binary_data\": false}}], \"parameters\": {\"num_selected_blocks\": 2, "
        "\"binary_data_output\": true}}";
    const struct reply *reply = oip_json(client, SELECT, body);
    size_t json_bytes;

    (void)state;
    expect_reply(reply, 200, "\"parameters\":{\"binary_data_size\":8}},{\"name\":\"indices\"");
    json_bytes = strtoull(client_header(client, "Inference-Header-Content-Length"), NULL, 10);
    assert_int_equal(8, reply->size - json_bytes);
    assert_memory_equal("\0\0\100\100\0\0\0\100", reply->body + json_bytes, 8);
    assert_null(strstr(reply->body, "classification"));
    expect_reply(oip_json(client, SELECT,
                          "{\"inputs\": [" FOUR "], \"outputs\": [{\"name\": \"values\", "
                          "\"parameters\": {\"classification\": 1}}], " K2 "}"),
                 400, "classification: expected none");
}

int run_oip_rules(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rule_1_the_length_of_the_json, open_client, close_client),
        cmocka_unit_test_setup_teardown(rule_2_blobs_follow_in_order, open_client, close_client),
        cmocka_unit_test_setup_teardown(rule_3_one_source_and_the_shape_s_number_of_elements,
                                        open_client, close_client),
        cmocka_unit_test_setup_teardown(rule_4_every_datatype_in_json, open_client, close_client),
        cmocka_unit_test_setup_teardown(null_is_as_good_as_absent, open_client, close_client),
        cmocka_unit_test_setup_teardown(rule_5_parameters, open_client, close_client),
        cmocka_unit_test_setup_teardown(num_selected_blocks_in_three_places, open_client,
                                        close_client),
        cmocka_unit_test_setup_teardown(rule_6_what_every_answer_says, open_client, close_client),
        cmocka_unit_test_setup_teardown(rule_7_which_outputs_and_how, open_client, close_client),
        cmocka_unit_test_setup_teardown(rule_8_binary_answers, open_client, close_client),
    };

    return cmocka_run_group_tests_name("oip: rules", tests, start_small, stop_small);
}
