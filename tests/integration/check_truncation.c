/* Bodies that end too early or never: each is refused, and the connection serves on. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIMIT 4096
#define LIMIT_TEXT "4096"
#define TOO_LARGE "body: expected at most " LIMIT_TEXT " bytes, got more"
#define GOOD "{\"input\": [1, 2], \"num_selected_blocks\": 1}"

static const float scores[] = {1, 3, 2, 0.5f, -1, 7};
static const nsa_tensor two_rows = {(void *)(uintptr_t)scores, NSA_F32, {2, {2, 3}}};

static const struct {
    enum format format;
    const char *path;
    const char *more;
} bodies[] = {
    {FORMAT_JSON, "/v1/select",
     ", \"num_selected_blocks\": 1, \"shape\": [2, 3], \"model\": \"s\\u0065lect\""},
    {FORMAT_NPY, "/v1/select?num_selected_blocks=1", NULL},
    {FORMAT_RAW, "/v1/select?num_selected_blocks=1&shape=2,3&dtype=float32", NULL},
};

/* At every point where it may end: alone, and after each the connection answers a good request. */
static void test_every_end(void **state)
{
    struct client *client = client_open(small());

    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct body body = make_body(bodies[i].format, &two_rows, bodies[i].more);
        char type[64];

        snprintf(type, sizeof type, "Content-Type: %s", format_types[bodies[i].format]);
        for (size_t size = 0; size <= body.size; size++) {
            struct call call = {.path = bodies[i].path,
                                .body = size > 0 ? body.bytes : "",
                                .size = size,
                                .headers = {type}};
            const struct reply *reply = client_call(client, &call);

            if (reply->status != (size == body.size ? 200 : 400) ||
                (size < body.size && !strstr(reply->body, "{\"error\": \"")))
                fail_msg("%zu of %zu bytes of %s: got %ld %s", size, body.size,
                         format_types[bodies[i].format], reply->status, reply->body);
        }
        free(body.bytes);
        expect_reply(client_json(client, "/v1/select", GOOD), 200, "\"indices\": [1]");
    }
    /* Newer versions of libcurl open another one after an error in answer to an empty body. */
    assert_in_range(client_connections(client), 1, 1 + sizeof bodies / sizeof *bodies);
    client_close(client);
}

/* Every byte of a head or an envelope replaced by others: never a 5xx, never a lost connection. */
static void test_every_byte(void **state)
{
    static const char replacements[] = {0, ' ', '"', '{', ']', '9', '-', '\\', (char)0xFF};
    struct client *client = client_open(small());

    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct body body = make_body(bodies[i].format, &two_rows, bodies[i].more);
        char type[64];

        snprintf(type, sizeof type, "Content-Type: %s", format_types[bodies[i].format]);
        for (size_t at = 0; at < body.size * sizeof replacements; at++) {
            char *byte = &body.bytes[at / sizeof replacements];
            char kept = *byte;
            long status;

            *byte = replacements[at % sizeof replacements];
            status = client_call(client, &(struct call){.path = bodies[i].path,
                                                        .body = body.bytes,
                                                        .size = body.size,
                                                        .headers = {type}})
                         ->status;
            *byte = kept;
            if (status != 200 && status != 400 && status != 404 && status != 415)
                fail_msg("byte %zu of %s as %d: got %ld", at / sizeof replacements,
                         format_types[bodies[i].format], replacements[at % sizeof replacements],
                         status);
        }
        free(body.bytes);
    }
    assert_int_equal(1, client_connections(client));
    client_close(client);
}

/* --- too large ----------------------------------------------------------------------------- */

static void test_length_over_limit(void **state)
{
    static char spaces[LIMIT + 1];
    struct daemon *daemon = DAEMON("--max-body-bytes", LIMIT_TEXT);
    struct client *client = client_open(daemon);
    struct raw_reply reply;
    int fd = raw_open(daemon);

    (void)state;
    /* The answer comes although no byte of the body was sent. */
    assert_true(
        raw_text(fd, "POST /v1/select HTTP/1.1\r\nHost: x\r\nContent-Length: 4097\r\n\r\n"));
    reply = raw_read(fd);
    assert_int_equal(413, reply.status);
    assert_non_null(strstr(reply.body, TOO_LARGE));
    assert_non_null(strstr(reply.body, "\"body_too_large\""));
    assert_true(raw_wait_closed(fd));
    close(fd);
    fd = raw_open(daemon);
    assert_true(raw_text(fd, "POST /v1/select HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                             "Content-Length: 1000000000000\r\n\r\n"));
    reply = raw_read(fd);
    assert_int_equal(413, reply.status);
    assert_true(raw_wait_closed(fd));
    close(fd);
    /* One of exactly the limit is read. */
    memset(spaces, ' ', LIMIT);
    memcpy(spaces + LIMIT - strlen(GOOD), GOOD, strlen(GOOD));
    expect_reply(client_json(client, "/v1/select", spaces), 200, NULL);
    expect_reply(client_json(client, "/livez", spaces), 405, NULL);
    assert_int_equal(1, client_connections(client));
    client_close(client);
    daemon_stop(daemon);
}

/* Send `count` chunks of 1024 blanks, and the end; false when the server has hung up. */
static bool send_chunks(int fd, size_t count)
{
    static char chunk[5 + 1024 + 2];

    memset(chunk, ' ', sizeof chunk);
    memcpy(chunk, "400\r\n", 5);
    memcpy(chunk + 5 + 1024, "\r\n", 2);
    if (!raw_text(fd, "POST /v1/select HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      "Transfer-Encoding: chunked\r\n\r\n"))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!raw_send(fd, chunk, sizeof chunk))
            return false;
    }
    return raw_text(fd, "0\r\n\r\n");
}

/* A little over the limit is read to its end; what goes on for long loses its connection. */
static void test_chunks_over_limit(void **state)
{
    struct daemon *daemon = DAEMON("--max-body-bytes", LIMIT_TEXT);
    struct client *client = client_open(daemon);
    struct raw_reply reply;
    int fd = raw_open(daemon);

    (void)state;
    for (int round = 0; round < 2; round++) {
        assert_true(send_chunks(fd, LIMIT / 1024));
        reply = raw_read(fd);
        assert_int_equal(400, reply.status); /* blanks alone */
        assert_true(send_chunks(fd, LIMIT / 1024 + 1));
        reply = raw_read(fd);
        assert_int_equal(413, reply.status);
        assert_non_null(strstr(reply.body, TOO_LARGE));
    }
    send_chunks(fd, 100000 / 1024);
    reply = raw_read(fd);
    assert_true(reply.status == 413 || reply.status == 0);
    assert_true(raw_wait_closed(fd));
    close(fd);
    expect_reply(client_json(client, "/v1/select", GOOD), 200, NULL);
    client_close(client);
    daemon_stop(daemon);
}

/* Clients that leave in the middle of a request, at every point of it. */
static void test_leaving(void **state)
{
    static const char request[] = "POST /v1/select HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\n"
                                  "Content-Type: application/json\r\n\r\n" GOOD;
    struct client *client = client_open(small());

    (void)state;
    for (size_t size = 0; size < sizeof request; size++) {
        int fd = raw_open(small());

        assert_true(raw_send(fd, request, size));
        close(fd);
    }
    expect_reply(client_json(client, "/v1/select", GOOD), 200, NULL);
    client_close(client);
}

int run_truncation(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_every_end, daemons_kill),
        cmocka_unit_test_teardown(test_every_byte, daemons_kill),
        cmocka_unit_test_teardown(test_length_over_limit, daemons_kill),
        cmocka_unit_test_teardown(test_chunks_over_limit, daemons_kill),
        cmocka_unit_test_teardown(test_leaving, daemons_kill),
    };

    return cmocka_run_group_tests_name("truncation", tests, start_small, stop_small);
}
