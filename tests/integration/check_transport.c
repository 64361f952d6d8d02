/* What HTTP itself offers: methods, chunks, Expect, connections, the answers' headers. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALL_JSON "{\"input\": [3, 1, 2], \"num_selected_blocks\": 1}"
#define SMALL_JSON_BYTES "46"
_Static_assert(sizeof SMALL_JSON == 1 + 46, "as SMALL_JSON_BYTES says");
#define SELECT_HEAD                                                                                \
    "POST /v1/select HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
#define LONGEST_ID                                                                                 \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"                             \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_head(void **state)
{
    static const char *const paths[] = {"/livez",          "/readyz",          "/v1/models",
                                        "/v2/health/live", "/v2/health/ready", "/openapi.yaml",
                                        "/metrics"};
    struct client *client = client_open(small());

    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char type[128], length[32];
        const struct reply *reply = client_get(client, paths[i]);

        expect_reply(reply, 200, NULL);
        snprintf(type, sizeof type, "%s", client_header(client, "Content-Type"));
        snprintf(length, sizeof length, "%zu", reply->size);
        expect_header(client, "Content-Length", length);
        reply = client_call(client, &(struct call){.method = "HEAD", .path = paths[i]});
        expect_reply(reply, 200, NULL);
        assert_int_equal(0, reply->size);
        expect_header(client, "Content-Type", type);
        if (strcmp(paths[i], "/metrics") != 0) /* it grows */
            expect_header(client, "Content-Length", length);
    }
    assert_int_equal(1, client_connections(client));
    client_close(client);
}

static void test_pages(void **state)
{
    struct client *client = client_open(small());
    size_t size;
    char *specification = read_whole("openapi.yaml", &size);
    const struct reply *reply;

    (void)state;
    assert_string_equal("{\"live\":true}\n", client_get(client, "/livez")->body);
    assert_string_equal("{\"live\":true}\n", client_get(client, "/v2/health/live")->body);
    assert_string_equal("{\"ready\":true}\n", client_get(client, "/readyz")->body);
    assert_string_equal("{\"ready\":true}\n", client_get(client, "/v2/health/ready?x=1")->body);
    reply = client_get(client, "/openapi.yaml");
    assert_int_equal(size, reply->size);
    assert_memory_equal(specification, reply->body, size);
    free(specification);
    client_close(client);
}

/* --- bytes on the wire --------------------------------------------------------------------- */

/* Each byte in a chunk of its own, with a trailer. libmicrohttpd 1.0 refuses chunk extensions. */
static void test_chunked(void **state)
{
    int fd = raw_open(small());
    struct raw_reply reply;

    (void)state;
    for (int round = 0; round < 2; round++) {
        assert_true(raw_text(fd, SELECT_HEAD "Transfer-Encoding: chunked\r\n\r\n"));
        for (const char *at = SMALL_JSON; *at; at++) {
            char chunk[] = "1\r\n?\r\n";

            chunk[3] = *at;
            assert_true(raw_text(fd, chunk));
        }
        assert_true(raw_text(fd, "0\r\nX-Trailer: 1\r\n\r\n"));
        reply = raw_read(fd);
        assert_int_equal(200, reply.status);
        assert_non_null(strstr(reply.body, "\"indices\": [0]"));
    }
    close(fd);
}

/* Chunks that together need the body's memory to grow. */
static void test_chunked_growth(void **state)
{
    static float scores[50000];
    const nsa_tensor input = {scores, NSA_F32, {1, {50000}}};
    struct body body = make_body(FORMAT_NPY, &input, NULL);
    int fd = raw_open(small());
    struct raw_reply reply;

    (void)state;
    assert_true(raw_text(fd, "POST /v1/select?num_selected_blocks=1 HTTP/1.1\r\nHost: x\r\n"
                             "Accept: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for (size_t sent = 0; sent < body.size;) {
        size_t piece = body.size - sent < 1000 ? body.size - sent : 1000;
        char size[16];

        snprintf(size, sizeof size, "%zx\r\n", piece);
        assert_true(raw_text(fd, size) && raw_send(fd, body.bytes + sent, piece) &&
                    raw_text(fd, "\r\n"));
        sent += piece;
    }
    assert_true(raw_text(fd, "0\r\n\r\n"));
    reply = raw_read(fd);
    assert_int_equal(200, reply.status);
    assert_non_null(strstr(reply.body, "\"indices\": [0]"));
    free(body.bytes);
    close(fd);
}

static void test_expect_continue(void **state)
{
    int fd = raw_open(small());
    struct raw_reply reply;

    (void)state;
    assert_true(raw_text(fd, SELECT_HEAD "Content-Length: " SMALL_JSON_BYTES
                                         "\r\nExpect: 100-continue\r\n\r\n"));
    reply = raw_read(fd);
    assert_int_equal(100, reply.status);
    assert_true(raw_text(fd, SMALL_JSON));
    reply = raw_read(fd);
    assert_int_equal(200, reply.status);
    close(fd);
}

/* Requests sent without waiting are answered in order. */
static void test_pipelining(void **state)
{
    int fd = raw_open(small());

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(raw_text(fd,
                             SELECT_HEAD "Content-Length: " SMALL_JSON_BYTES "\r\n\r\n" SMALL_JSON
                                         "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"));
    for (int i = 0; i < 3; i++) {
        assert_non_null(strstr(raw_read(fd).body, "\"indices\": [0]"));
        assert_non_null(strstr(raw_read(fd).body, "\"live\":true"));
    }
    close(fd);
}

static void test_old_protocol(void **state)
{
    int fd = raw_open(small());

    (void)state;
    assert_true(raw_text(fd, "GET /livez HTTP/1.0\r\n\r\n"));
    assert_int_equal(200, raw_read(fd).status);
    assert_true(raw_wait_closed(fd));
    close(fd);
    fd = raw_open(small());
    assert_true(raw_text(fd, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    assert_int_equal(200, raw_read(fd).status);
    assert_true(raw_wait_closed(fd));
    close(fd);
}

/* What is no HTTP gets an answer or a closed connection, and hurts nobody. */
static void test_nonsense(void **state)
{
    static const char *const bytes[] = {
        "\r\n\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03\r\n\r\n",
        "GET\r\n\r\n",
        "GET /livez\r\n\r\n",
        "GET /livez HTTP/9.9\r\n\r\n",
        "GET /livez HTTP/1.1\r\n\r\n",
        "GET /%zz%0 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nNoColon\r\n\r\n",
        "POST /v1/select HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /v1/select HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n",
        "POST /v1/select HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /v1/select HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /v1/select HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "ffffffffffffffffff\r\n",
        "POST /v1/select HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
        "Transfer-Encoding: nonsense\r\n\r\n0\r\n\r\n",
    };
    struct daemon *daemon = DAEMON("--request-timeout-ms", "500", "--idle-timeout-ms", "2000");
    struct client *client = client_open(daemon);

    (void)state;
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        int fd = raw_open(daemon);

        assert_true(raw_text(fd, bytes[i]));
        assert_true(raw_text(fd, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") ||
                    raw_wait_closed(fd));
        if (!raw_wait_closed(fd))
            fail_msg("'%s': neither an answer nor the end", bytes[i]);
        close(fd);
        expect_reply(client_get(client, "/livez"), 200, NULL);
    }
    client_close(client);
    daemon_stop(daemon);
}

/* --- headers of answers -------------------------------------------------------------------- */

static void test_request_ids(void **state)
{
    static const char *const replaced[] = {"X-Request-Id: a b", "X-Request-Id: " LONGEST_ID "x",
                                           "X-Request-Id: \xC3\xA9", "X-Request-Id;"};
    struct client *client = client_open(small());
    char last[256] = "";

    (void)state;
    client_call(client, &(struct call){.path = "/livez", .headers = {"X-Request-Id: it's-<me>.1"}});
    expect_header(client, "X-Request-Id", "it's-<me>.1");
    client_call(client, &(struct call){.path = "/none", .headers = {"X-Request-Id: " LONGEST_ID}});
    expect_header(client, "X-Request-Id", LONGEST_ID);
    assert_non_null(strstr(client_body(client), "\"request_id\": \"" LONGEST_ID "\""));
    for (size_t i = 0; i < sizeof replaced / sizeof *replaced; i++) {
        struct call call = {.path = "/livez", .headers = {replaced[i]}};
        const char *made;

        expect_reply(client_call(client, &call), 200, NULL);
        made = client_header(client, "X-Request-Id");
        assert_non_null(made);
        assert_true(strlen(made) >= 16 && strlen(made) <= 128);
        assert_string_not_equal(last, made);
        assert_null(strstr(replaced[i], made));
        snprintf(last, sizeof last, "%s", made);
    }
    client_close(client);
}

/*
 * An op's answer says where its time went and in what company it was computed; the second one as
 * the first, whose model's speed was not known yet.
 */
static void test_timing(void **state)
{
    static const char *const bodies[][2] = {
        {"/v1/select?num_selected_blocks=1", "{\"input\": [[1], [2], [3]]}"},
        {"/v1/posembed", "{\"input\": [[1, 2], [3, 4], [5, 6]]}"},
        {"/v1/compress", "{\"input\": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,"
                         "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,"
                         "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16], \"shape\": [3,16]}"},
    };
    struct client *client = client_open(small());

    (void)state;
    for (size_t i = 0; i < 2 * sizeof bodies / sizeof *bodies; i++) {
        const char *const *body = bodies[i / 2];
        double ms[4] = {-1, -1, -1, -1};
        const char *timing;

        expect_reply(client_json(client, body[0], body[1]), 200, NULL);
        expect_header(client, "X-Batch-Rows", "3");
        timing = client_header(client, "Server-Timing");
        assert_non_null(timing);
        assert_int_equal(4, sscanf(timing,
                                   "parse;dur=%lf, queue;dur=%lf, compute;dur=%lf, encode;dur=%lf",
                                   &ms[0], &ms[1], &ms[2], &ms[3]));
        for (size_t j = 0; j < 4; j++)
            assert_true(ms[j] >= 0);
    }
    client_get(client, "/livez");
    assert_null(client_header(client, "Server-Timing"));
    client_close(client);
}

int run_transport(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_head, daemons_kill),
        cmocka_unit_test_teardown(test_pages, daemons_kill),
        cmocka_unit_test_teardown(test_chunked, daemons_kill),
        cmocka_unit_test_teardown(test_chunked_growth, daemons_kill),
        cmocka_unit_test_teardown(test_expect_continue, daemons_kill),
        cmocka_unit_test_teardown(test_pipelining, daemons_kill),
        cmocka_unit_test_teardown(test_old_protocol, daemons_kill),
        cmocka_unit_test_teardown(test_nonsense, daemons_kill),
        cmocka_unit_test_teardown(test_request_ids, daemons_kill),
        cmocka_unit_test_teardown(test_timing, daemons_kill),
    };

    return cmocka_run_group_tests_name("transport", tests, start_small, stop_small);
}
