/* What real clients of the Open Inference Protocol send and expect, byte by byte. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"
#include "tests/integration/oip.h"

#include <jansson.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define INFER "/v2/models/select/infer"
#define SELECT_1                                                                                   \
    "{\"inputs\": [{\"name\": \"scores\", \"datatype\": \"FP32\", \"shape\": [4], \"data\": "      \
    "[0.5, "                                                                                       \
    "3, 1, 2]}], \"parameters\": {\"num_selected_blocks\": 1}}"

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

/* Send a whole request and read its answer, on a connection of its own. */
static struct raw_reply exchange(const void *bytes, size_t size)
{
    int fd = raw_open(small());
    struct raw_reply reply;

    assert_true(raw_send(fd, bytes, size));
    reply = raw_read(fd);
    close(fd);
    return reply;
}

/* --- as clients send it -------------------------------------------------------------------- */

/* No Content-Type, header names in lower case, and the tensor behind the JSON. */
static void trap_python_client_s_infer(void **state)
{
    static const char json[] =
        "{\"inputs\":[{\"name\":\"scores\",\"shape\":[1,2],\"datatype\":\"FP32\",\"parameters\":"
        "{\"binary_data_size\":8}}],\"parameters\":{\"binary_data_output\":true,"
        "\"num_selected_blocks\":1}}";
    char request[1024];
    int head = snprintf(request, sizeof request,
                        "POST " INFER " HTTP/1.1\r\nhost: localhost\r\n"
                        "inference-header-content-length: %zu\r\ncontent-length: %zu\r\n\r\n%s",
                        strlen(json), strlen(json) + 8, json);
    struct raw_reply reply;

    (void)state;
    memcpy(request + head, "\0\0\200\77\0\0\0\100", 8);
    reply = exchange(request, (size_t)head + 8);
    assert_int_equal(200, reply.status);
    assert_non_null(strstr(reply.head, "Inference-Header-Content-Length: "));
    assert_non_null(strstr(reply.body, "\"binary_data_size\":8"));
}

/* Its POST without a body has no Content-Length. */
static void trap_empty_post_without_a_length(void **state)
{
    static const char request[] = "POST /v2/repository/index HTTP/1.1\r\nhost: x\r\n\r\n";
    struct raw_reply reply = exchange(request, strlen(request));

    (void)state;
    assert_int_equal(200, reply.status);
    assert_non_null(
        strstr(reply.body, "[{\"name\":\"compress\",\"version\":\"1\",\"state\":\"READY\""));
}

/* NaN and Infinity in data, which JSON proper doesn't have. */
static void trap_bare_tokens(void **state)
{
    (void)state;
    expect_reply(oip_json(client, INFER,
                          "{\"inputs\": [{\"name\": \"scores\", \"datatype\": \"FP32\", \"shape\": "
                          "[4], \"data\": [1, NaN, -Infinity, Infinity]}], \"parameters\": "
                          "{\"num_selected_blocks\": 4}}"),
                 200, "\"data\":[NaN,Infinity,1,-Infinity]");
}

/* The C++ client says the length of pure JSON too, and asks for /health/live to be ready. */
static void trap_cpp_client(void **state)
{
    char length[24];

    (void)state;
    snprintf(length, sizeof length, "%zu", strlen(SELECT_1));
    expect_reply(oip_post(client, INFER, SELECT_1, 0, length), 200, "\"data\":[1]");
    assert_null(client_header(client, "Inference-Header-Content-Length"));
    expect_reply(client_get(client, "/v2/health/live"), 200, NULL);
}

static void trap_encoded_names_and_foreign_queries(void **state)
{
    (void)state;
    expect_reply(
        oip_json(client, "/v2/models/%73elec%74/infer?trace=1&shape=9&model=nobody", SELECT_1), 200,
        "\"model_name\":\"select\"");
    expect_reply(client_get(client, "/v2/models/s%65lect?x"), 200, "\"name\":\"select\"");
    expect_reply(client_get(client, "/v2/models/a%20b"), 404, "Request for unknown model: 'a b'");
    expect_reply(client_get(client, "/v2/models/a%2Fb"), 404, "Request for unknown model: 'a/b'");
    expect_reply(client_get(client, "/v2/models/select%2Fready"), 404,
                 "Request for unknown model: 'select/ready'");
    expect_reply(client_get(client, "/v2/models/select/ready?x=%2F"), 200, NULL);
}

/* KServe's client reads these keys. */
static void trap_kserve_s_health(void **state)
{
    (void)state;
    expect_reply(client_get(client, "/v2/health/live"), 200, "{\"live\":true}");
    expect_reply(client_get(client, "/v2/health/ready"), 200, "{\"ready\":true}");
    expect_reply(client_get(client, "/v2/models/select/ready"), 200, "");
}

/* --- statistics ---------------------------------------------------------------------------- */

static json_t *statistics_of(const char *path)
{
    const struct reply *reply = client_get(client, path);
    json_t *page = json_loads(reply->body, JSON_REJECT_DUPLICATES, NULL);
    json_t *entry = json_incref(json_array_get(json_object_get(page, "model_stats"), 0));

    if (!entry)
        fail_msg("no statistics: %s", reply->body);
    json_decref(page);
    return entry;
}

static json_int_t stage(const json_t *entry, const char *name, const char *key)
{
    const json_t *value =
        json_object_get(json_object_get(json_object_get(entry, "inference_stats"), name), key);

    if (!json_is_integer(value))
        fail_msg("%s.%s: expected an integer", name, key);
    return json_integer_value(value);
}

/* perf_analyzer reads all of these, whether they are there or not; and sends an empty id. */
static void trap_perf_analyzer_s_statistics(void **state)
{
    static const char *const stages[] = {"success",       "queue",          "compute_input",
                                         "compute_infer", "compute_output", "cache_hit",
                                         "cache_miss"};
    json_t *before = statistics_of("/v2/models/select/stats");
    json_t *after;

    (void)state;
    expect_reply(oip_json(client, INFER, "{\"id\":\"\",\"inputs\":[]}"), 400, NULL);
    expect_reply(oip_json(client, INFER, SELECT_1), 200, NULL);
    expect_reply(oip_json(client, INFER, SELECT_1), 200, NULL);
    after = statistics_of("/v2/models/select/versions/1/stats");
    assert_string_equal("select", json_string_value(json_object_get(after, "name")));
    assert_string_equal("1", json_string_value(json_object_get(after, "version")));
    assert_true(json_is_integer(json_object_get(after, "inference_count")));
    assert_true(json_is_integer(json_object_get(after, "execution_count")));
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        assert_true(stage(after, stages[i], "count") >= 0 && stage(after, stages[i], "ns") >= 0);
    assert_int_equal(stage(before, "success", "count") + 2, stage(after, "success", "count"));
    assert_int_equal(stage(before, "fail", "count") + 1, stage(after, "fail", "count"));
    assert_int_equal(stage(after, "success", "count"), stage(after, "queue", "count"));
    assert_true(stage(after, "success", "ns") >=
                stage(after, "compute_input", "ns") + stage(after, "compute_infer", "ns"));
    json_decref(before);
    json_decref(after);
}

/* The same requests, whichever way they are counted. */
static void statistics_agree_with_the_metrics(void **state)
{
    json_t *entry;
    json_int_t executions = 0;
    static const char *const models[] = {"compress", "posembed", "select"};

    (void)state;
    expect_reply(oip_json(client, INFER, SELECT_1), 200, NULL);
    expect_reply(client_json(client, "/v1/select",
                             "{\"input\": [[1, 2], [3, 4]], "
                             "\"num_selected_blocks\": 1}"),
                 200, NULL);
    entry = statistics_of("/v2/models/select/stats");
    assert_true(
        (double)stage(entry, "success", "count") ==
        metric(client, "nsad_request_duration_seconds_count{op=\"select\",model=\"select\"}"));
    assert_int_equal(stage(entry, "success", "count"),
                     json_integer_value(json_object_get(entry, "inference_count")));
    json_decref(entry);
    for (size_t i = 0; i < 3; i++) {
        char path[64];

        snprintf(path, sizeof path, "/v2/models/%s/stats", models[i]);
        entry = statistics_of(path);
        executions += json_integer_value(json_object_get(entry, "execution_count"));
        json_decref(entry);
    }
    assert_true((double)executions == metric(client, "nsad_batch_rows_count"));
}

/* --- on the wire --------------------------------------------------------------------------- */

static uint32_t data_segments(int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;

    assert_int_equal(0, getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
    return info.tcpi_data_segs_in;
}

/* Two would wait for each other, by Nagle's rule and the delayed acknowledgement. */
static void trap_head_and_body_leave_in_one_write(void **state)
{
    static const char *const bodies[] = {
        SELECT_1,
        ("{\"parameters\": {\"binary_data_output\": true, \"num_selected_blocks\": 1}, \"inputs\": "
         "[{\"name\": \"scores\", \"datatype\": \"FP32\", \"shape\": [2], \"data\": [0, 1]}]}"),
        "{\"inputs\": []}",
    };
    int fd = raw_open(small());

    (void)state;
    for (size_t i = 0; i < 12; i++) {
        uint32_t before = data_segments(fd);
        char request[512];
        struct raw_reply reply;

        snprintf(request, sizeof request,
                 "POST " INFER " HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s",
                 strlen(bodies[i % 3]), bodies[i % 3]);
        assert_true(raw_text(fd, request));
        reply = raw_read(fd);
        assert_int_equal(i % 3 == 2 ? 400 : 200, reply.status);
        assert_int_equal(before + 1, data_segments(fd));
    }
    close(fd);
}

/* Any error is an object with one text, and nothing else. */
static void errors_are_one_text(void **state)
{
    static const struct {
        const char *method, *path, *body;
        long status;
        const char *part;
    } cases[] = {
        {"POST", INFER, "{", 400, "malformed JSON"},
        {"POST", INFER, "", 400, "expected a JSON object, got nothing"},
        {"GET", INFER, NULL, 405, "expected POST, got GET"},
        {"POST", "/v2/models/nobody/infer", SELECT_1, 404,
         "Request for unknown model: 'nobody' is not found"},
        {"GET", "/v2/models/nobody", NULL, 404, "Request for unknown model: 'nobody'"},
        {"GET", "/v2/models/nobody/config", NULL, 404, "Request for unknown model: 'nobody'"},
        {"GET", "/v2/models/nobody/stats", NULL, 404, "Request for unknown model: 'nobody'"},
        {"GET", "/v2/models/nobody/ready", NULL, 404, "Request for unknown model: 'nobody'"},
        {"GET", "/v2/unheard-of", NULL, 404, "no such route"},
        {"GET", "/v2/trace/setting", NULL, 501, "nsad has neither"},
        {"POST", "/v2/models/select/trace/setting", "{}", 501, "nsad has neither"},
        {"GET", "/v2/cudasharedmemory/status", NULL, 501, "nsad has neither"},
        {"POST", "/v2/cudasharedmemory/region/r/register", "{}", 501, "nsad has neither"},
        {"GET", "/v2/systemsharedmemory/status", NULL, 501, "--allow-client-shm"},
        {"POST", "/v2/repository/models/compress/load", "{}", 501, "--model-control explicit"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct call call = {
            .method = cases[i].method, .path = cases[i].path, .body = cases[i].body};
        const struct reply *reply = client_call(client, &call);
        json_t *page;

        expect_reply(reply, cases[i].status, cases[i].part);
        page = json_loads(reply->body, 0, NULL);
        assert_true(json_is_string(json_object_get(page, "error")));
        assert_int_equal(1, json_object_size(page));
        json_decref(page);
    }
    expect_header(client, "Content-Type", "application/json");
}

/* A full queue is 503 here, with the time to wait; 429 under /v1. */
static void *keep_busy(void *argument)
{
    static float rows[8192 * 16];
    struct client *busy = argument;

    for (size_t i = 0; i < 20; i++)
        oip_post(busy, "/v2/models/compress/infer", rows, sizeof rows, "0");
    return NULL;
}

static void a_full_queue_is_503(void **state)
{
    struct daemon *daemon = DAEMON("--model", "compress=tests/golden/compress_tiny.safetensors",
                                   "--compute-threads", "1", "--max-queue-bytes", "1");
    struct client *clients[4];
    pthread_t threads[3];
    bool full = false;

    (void)state;
    for (size_t i = 0; i < 4; i++)
        clients[i] = client_open(daemon);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, keep_busy, clients[i]));
    for (size_t i = 0; i < 5000 && !full; i++) {
        static const float row[16];
        const struct reply *reply =
            oip_post(clients[3], "/v2/models/compress/infer", row, sizeof row, "0");

        full = reply->status == 503;
        if (full) {
            expect_reply(reply, 503, "the queue is full");
            assert_non_null(client_header(clients[3], "Retry-After"));
        } else {
            expect_reply(reply, 200, NULL);
        }
    }
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_true(full);
    for (size_t i = 0; i < 4; i++)
        client_close(clients[i]);
    daemon_stop(daemon);
}

/* What comes out of a few bytes is not inflated past the limit. */
static void a_bomb_is_413(void **state)
{
    struct body bomb = pack_bomb(1u << 19); /* 128 MiB of blanks */
    const struct call call = {.method = "POST",
                              .path = INFER,
                              .body = bomb.bytes,
                              .size = bomb.size,
                              .headers = {NO_CONTENT_TYPE, "Content-Encoding: gzip"}};

    (void)state;
    expect_reply(client_call(client, &call), 413, "{\"error\": \"body: expected at most");
    free(bomb.bytes);
}

/* Metadata and configuration, with the keys that clients read. */
static void pages_have_their_keys(void **state)
{
    static const struct {
        const char *path, *part;
    } cases[] = {
        {"/v2", "{\"name\":\"nsad\",\"version\":\""},
        {"/v2/", "\"extensions\":[\"binary_tensor_data\",\"parameters\",\"statistics\""},
        {"/v2/models/select", "\"inputs\":[{\"name\":\"scores\",\"datatype\":\"FP32\",\"shape\":"
                              "[-1,-1]},{\"name\":\"num_selected_blocks\",\"datatype\":\"INT64\","
                              "\"shape\":[1]}],\"outputs\":[{\"name\":\"indices\",\"datatype\":"
                              "\"INT64\",\"shape\":[-1,-1]},{\"name\":\"values\""},
        {"/v2/models/compress", "\"versions\":[\"1\"],\"platform\":\"nsa_compress\",\"inputs\":"
                                "[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,2,8]}]"},
        {"/v2/models/posembed/versions/1", "\"shape\":[-1,-1,2]}],\"outputs\":[{\"name\":\"y\""},
        {"/v2/models/select/config", "\"max_batch_size\":0,\"input\":[{\"name\":\"scores\","
                                     "\"data_type\":\"TYPE_FP32\",\"dims\":[-1,-1]},"},
        {"/v2/models/select/config", "\"dims\":[1],\"optional\":true}]"},
        {"/v2/models/compress/config", "\"dynamic_batching\":{\"preferred_batch_size\":[1024],"
                                       "\"max_queue_delay_microseconds\":0}}"},
        {"/v2/models/stats", "{\"model_stats\":[{\"name\":\"compress\",\"version\":\"1\""},
        {"/v2/logging", "\"log_verbose_level\":0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_reply(client_get(client, cases[i].path), 200, cases[i].part);
}

int run_oip_traps(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trap_python_client_s_infer),
        cmocka_unit_test(trap_empty_post_without_a_length),
        cmocka_unit_test_setup_teardown(trap_bare_tokens, open_client, close_client),
        cmocka_unit_test_setup_teardown(trap_cpp_client, open_client, close_client),
        cmocka_unit_test_setup_teardown(trap_encoded_names_and_foreign_queries, open_client,
                                        close_client),
        cmocka_unit_test_setup_teardown(trap_kserve_s_health, open_client, close_client),
        cmocka_unit_test_setup_teardown(trap_perf_analyzer_s_statistics, open_client, close_client),
        cmocka_unit_test_setup_teardown(statistics_agree_with_the_metrics, open_client,
                                        close_client),
        cmocka_unit_test(trap_head_and_body_leave_in_one_write),
        cmocka_unit_test_setup_teardown(errors_are_one_text, open_client, close_client),
        cmocka_unit_test_teardown(a_full_queue_is_503, daemons_kill),
        cmocka_unit_test_setup_teardown(a_bomb_is_413, open_client, close_client),
        cmocka_unit_test_setup_teardown(pages_have_their_keys, open_client, close_client),
    };

    return cmocka_run_group_tests_name("oip: traps", tests, start_small, stop_small);
}
