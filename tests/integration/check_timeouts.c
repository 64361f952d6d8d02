/* Clients that are slow or silent lose their connection, and nobody else notices. */
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"
#include "tests/integration/http.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GOOD "{\"input\": [1, 2], \"num_selected_blocks\": 1}"
#define REJECTED_SLOW "nsad_rejected_total{reason=\"slow_request\"}"

/*
 * Send `begin`, then a byte at a time for as long as the server takes them, while another client is
 * served between any two; returns what the server says to that.
 */
static struct raw_reply trickle(struct daemon *daemon, const char *begin, char byte)
{
    struct client *other = client_open(daemon);
    struct raw_reply reply;
    int fd = raw_open(daemon);

    assert_true(raw_text(fd, begin));
    for (long waited = 0; !raw_readable(fd) && raw_send(fd, &byte, 1); waited += 10) {
        if (waited >= PATIENCE_MS)
            fail_msg("bytes were taken for %d ms after '%s'", PATIENCE_MS, begin);
        expect_reply(client_json(other, "/v1/select", GOOD), 200, "\"indices\": [1]");
        sleep_ms(10);
    }
    reply = raw_read(fd);
    assert_true(raw_wait_closed(fd));
    close(fd);
    client_close(other);
    return reply;
}

static void test_trickling_requests(void **state)
{
    static const char *const begins[] = {
        "POST /v1/select HTTP/1.1\r\nX-Long: ",
        "POST /v1/select HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
        "POST /v1/none HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
    };
    struct daemon *daemon =
        DAEMON("--request-timeout-ms", "300", "--idle-timeout-ms", "50000", "--http-threads", "1");
    struct client *client = client_open(daemon);

    (void)state;
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
        struct raw_reply reply = trickle(daemon, begins[i], 'x');

        /* Bytes that cross the answer may reset the connection and take the answer along. */
        if (reply.status != 0) {
            assert_int_equal(408, reply.status);
            assert_non_null(strstr(reply.head, "Connection: close\r\n"));
            assert_non_null(strstr(reply.body, "\"slow_request\""));
        }
        wait_metric(client, REJECTED_SLOW, (double)i + 1);
    }
    assert_true(metric(client, REJECTED_SLOW) == sizeof begins / sizeof *begins);
    client_close(client);
    daemon_stop(daemon);
}

/* A request that stops in the middle gets its answer. */
static void test_stalled_requests(void **state)
{
    struct daemon *daemon = DAEMON("--request-timeout-ms", "200");
    struct client *client = client_open(daemon);
    struct raw_reply reply;
    int fd = raw_open(daemon);

    (void)state;
    assert_true(raw_text(fd, "POST /v1/select HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"));
    reply = raw_read(fd);
    assert_int_equal(408, reply.status);
    assert_non_null(strstr(reply.body, "the request took too long to arrive"));
    assert_true(raw_wait_closed(fd));
    close(fd);
    wait_metric(client, REJECTED_SLOW, 1);
    wait_metric(client,
                "nsad_http_requests_total{route=\"/v1/select\",method=\"POST\",code=\"408\"}", 1);
    client_close(client);
    daemon_stop(daemon);
}

/* Without a whole request line there is no request yet: such a connection counts as idle. */
static void test_trickling_request_line(void **state)
{
    struct daemon *daemon =
        DAEMON("--request-timeout-ms", "50000", "--idle-timeout-ms", "300", "--http-threads", "1");

    (void)state;
    assert_int_equal(0, trickle(daemon, "POST /", 'x').status);
    daemon_stop(daemon);
}

/* Silent from the start, and silent after a request; one that asks now and then stays. */
static void test_idle(void **state)
{
    struct daemon *daemon = DAEMON("--idle-timeout-ms", "1000");
    struct client *client = client_open(daemon);
    int silent = raw_open(daemon);
    int served = raw_open(daemon);

    (void)state;
    assert_true(raw_post(served, "/v1/select", GOOD));
    assert_int_equal(200, raw_read(served).status);
    for (long waited = 0; waited < PATIENCE_MS && !(raw_readable(silent) && raw_readable(served));
         waited += 20) {
        expect_reply(client_get(client, "/livez"), 200, NULL);
        sleep_ms(20);
    }
    assert_true(raw_wait_closed(silent));
    assert_true(raw_wait_closed(served));
    assert_int_equal(1, client_connections(client));
    close(silent);
    close(served);
    client_close(client);
    daemon_stop(daemon);
}

/* A client that leaves in the middle of a request is noticed at once, not when its time is up. */
static void test_leaving(void **state)
{
    static const char *const begins[] = {
        "",
        "POST",
        "POST /v1/select HTTP/1.1\r\n",
        "POST /v1/select HTTP/1.1\r\nHost: x\r\nCont",
        "POST /v1/select HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    };
    struct daemon *daemon = DAEMON("--drain-timeout-ms", "20000", "--idle-timeout-ms", "600000",
                                   "--request-timeout-ms", "600000");

    (void)state;
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
        int fd = raw_open(daemon);

        assert_true(raw_text(fd, begins[i]));
        close(fd);
    }
    daemon_stop(daemon);
}

int run_timeouts(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_trickling_requests, daemons_kill),
        cmocka_unit_test_teardown(test_stalled_requests, daemons_kill),
        cmocka_unit_test_teardown(test_trickling_request_line, daemons_kill),
        cmocka_unit_test_teardown(test_idle, daemons_kill),
        cmocka_unit_test_teardown(test_leaving, daemons_kill),
    };

    return cmocka_run_group_tests_name("timeouts", tests, NULL, NULL);
}
