/* Signals: no answer is lost when the program stops, and it says how it ended. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS 6
#define SELECT "/v1/select?num_selected_blocks=1"
#define ROWS1 "{\"input\": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}"
#define ROWS1_HEAD                                                                                 \
    "POST /v1/compress HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"                  \
    "Content-Length: 51\r\n\r\n"
_Static_assert(sizeof ROWS1 == 1 + 51, "as ROWS1_HEAD says");

/* --- under load ---------------------------------------------------------------------------- */

struct load {
    struct client *client;
    const atomic_bool *draining;
    atomic_size_t answers;
    bool closed;       /* the last answer said Connection: close */
    char failure[256]; /* "" if every request was answered with 200 */
};

/* Ask again and again; the last request begins after the drain did. */
static void *send_load(void *argument)
{
    struct load *load = argument;
    bool last;

    do {
        const struct reply *reply;
        const char *connection;

        last = atomic_load(load->draining);
        reply = client_json(load->client, "/v1/compress", ROWS1);
        if (reply->status != 200) {
            snprintf(load->failure, sizeof load->failure, "after %zu answers: %ld, %s",
                     atomic_load(&load->answers), reply->status, reply->why);
            break;
        }
        atomic_fetch_add(&load->answers, 1);
        connection = client_header(load->client, "Connection");
        load->closed = connection && strcmp(connection, "close") == 0;
    } while (!last);
    return NULL;
}

static bool all_have_answers(void *context)
{
    struct load *loads = context;
    bool all = true;

    for (size_t i = 0; i < CLIENTS; i++)
        all = all && atomic_load(&loads[i].answers) >= 10;
    return all;
}

static bool not_ready(void *context)
{
    return client_get(context, "/readyz")->status == 503;
}

/* What is seen of a drain is judged when the other clients are done: they use this test's stack. */
static void test_load(void **state)
{
    static const struct {
        const char *path;
        long status;
        const char *part;
    } pages[] = {
        {"/readyz", 503, "{\"ready\":false,\"reason\":\"draining"},
        {"/v2/health/ready", 503, "\"ready\":false"},
        {"/livez", 200, "{\"live\":true}"},
    };
    struct daemon *daemon = DAEMON("--model", "compress=" TINY_WEIGHTS, "--drain-delay-ms", "2000",
                                   "--http-threads", "2", "--compute-threads", "1");
    struct client *client = client_open(daemon);
    struct client *readers[3];
    const struct reply *replies[3];
    struct load loads[CLIENTS];
    pthread_t threads[CLIENTS];
    atomic_bool draining = false;
    bool answered, drained;

    (void)state;
    for (size_t i = 0; i < CLIENTS; i++) {
        loads[i] = (struct load){.client = client_open(daemon), .draining = &draining};
        assert_int_equal(0, pthread_create(&threads[i], NULL, send_load, &loads[i]));
    }
    answered = wait_until(all_have_answers, loads);
    daemon_signal(daemon, SIGTERM);
    drained = wait_until(not_ready, client);
    for (size_t i = 0; i < 3; i++) {
        readers[i] = client_open(daemon);
        replies[i] = client_get(readers[i], pages[i].path);
    }
    atomic_store(&draining, true);
    for (size_t i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    assert_true(answered && drained);
    for (size_t i = 0; i < 3; i++) {
        expect_reply(replies[i], pages[i].status, pages[i].part);
        expect_header(readers[i], "Connection", "close");
        client_close(readers[i]);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        if (loads[i].failure[0])
            fail_msg("client %zu: %s", i, loads[i].failure);
        assert_true(loads[i].closed);
        client_close(loads[i].client);
    }
    daemon_expect_exit(daemon, 0);
    assert_true(client_get(client, "/livez")->refused);
    client_close(client);
}

/* --- without a delay ----------------------------------------------------------------------- */

static bool connection_refused(void *context)
{
    struct client *client = client_open(context);
    bool refused = client_get(client, "/livez")->refused;

    client_close(client);
    return refused;
}

/*
 * Five requests are computed only when a sixth row comes, and that one has sent its head and half
 * of its body: all of them are answered although the program takes no connections any more.
 */
static void test_in_flight(void **state)
{
    struct daemon *daemon = DAEMON("--model", "compress=" TINY_WEIGHTS, "--compute-threads", "1",
                                   "--max-batch-rows", "6", "--max-queue-delay-us", "60000000");
    struct client *client = client_open(daemon);
    int fds[6];

    (void)state;
    for (size_t i = 0; i < 5; i++) {
        fds[i] = raw_open(daemon);
        assert_true(raw_post(fds[i], "/v1/compress", ROWS1));
    }
    fds[5] = raw_open(daemon);
    assert_true(raw_text(fds[5], ROWS1_HEAD) && raw_send(fds[5], ROWS1, 10));
    wait_metric(client, "nsad_queue_rows", 5);
    wait_metric(client, "nsad_inflight_requests", 7); /* the scrape itself is one */
    daemon_signal(daemon, SIGTERM);
    daemon_wait_log(daemon, "msg=draining", 1);
    assert_true(wait_until(connection_refused, daemon));
    assert_true(daemon_alive(daemon));
    assert_true(raw_text(fds[5], &ROWS1[10]));
    for (size_t i = 0; i < 6; i++) {
        struct raw_reply reply = raw_read(fds[i]);

        assert_int_equal(200, reply.status);
        assert_non_null(strstr(reply.head, "X-Batch-Rows: 6\r\n"));
        assert_non_null(strstr(reply.head, "Connection: close\r\n"));
        assert_true(raw_wait_closed(fds[i]));
        close(fds[i]);
    }
    daemon_expect_exit(daemon, 0);
    client_close(client);
}

/* Connections that wait for nothing hold nobody up; SIGINT is as good as SIGTERM. */
static void test_idle_connections(void **state)
{
    struct daemon *daemon = DAEMON("--http-threads", "2");
    int silent = raw_open(daemon);
    int served = raw_open(daemon);

    (void)state;
    assert_true(raw_post(served, SELECT, "{\"input\": [1]}"));
    assert_int_equal(200, raw_read(served).status);
    daemon_signal(daemon, SIGINT);
    assert_true(raw_wait_closed(silent));
    assert_true(raw_wait_closed(served));
    daemon_expect_exit(daemon, 0);
    close(silent);
    close(served);
}

/* --- ends that are not clean --------------------------------------------------------------- */

static void test_second_signal(void **state)
{
    static const int seconds[] = {SIGTERM, SIGINT};

    (void)state;
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        struct daemon *daemon = DAEMON("--drain-delay-ms", "600000");

        daemon_signal(daemon, SIGTERM);
        daemon_wait_log(daemon, "msg=draining", 1);
        assert_true(daemon_alive(daemon));
        daemon_signal(daemon, seconds[i]);
        daemon_expect_exit(daemon, 1);
    }
}

static void test_drain_timeout(void **state)
{
    struct daemon *daemon =
        DAEMON("--model", "compress=" TINY_WEIGHTS, "--drain-timeout-ms", "100");
    struct client *client = client_open(daemon);
    int fd = raw_open(daemon);

    (void)state;
    assert_true(raw_text(fd, ROWS1_HEAD));
    wait_metric(client, "nsad_inflight_requests", 2);
    daemon_signal(daemon, SIGTERM);
    daemon_expect_exit(daemon, 1);
    assert_true(raw_wait_closed(fd));
    close(fd);
    client_close(client);
}

static void test_hangup(void **state)
{
    struct daemon *daemon = DAEMON("--model", "compress=" TINY_WEIGHTS);
    struct client *client = client_open(daemon);

    (void)state;
    for (size_t i = 1; i <= 3; i++) {
        daemon_signal(daemon, SIGHUP);
        daemon_wait_log(daemon, "msg=reloaded changed=false refused=0", i);
        expect_reply(client_get(client, "/readyz"), 200, NULL);
        expect_reply(client_json(client, "/v1/compress", ROWS1), 200, NULL);
    }
    assert_int_equal(1, client_connections(client));
    client_close(client);
    daemon_stop(daemon);
}

/* Clients that come and go all at once while it stops: whatever they see, it ends in order. */
static void *come_and_go(void *argument)
{
    struct daemon *daemon = argument;
    struct client *client = NULL;

    for (size_t i = 0; i < 100; i++) {
        if (!client)
            client = client_open(daemon);
        if (client_json(client, "/v1/compress", ROWS1)->status != 200 || i % 3 == 0) {
            client_close(client);
            client = NULL;
        }
    }
    if (client)
        client_close(client);
    return NULL;
}

static void test_storm(void **state)
{
    (void)state;
    for (int round = 0; round < 5; round++) {
        struct daemon *daemon = DAEMON("--model", "compress=" TINY_WEIGHTS, "--http-threads", "2");
        pthread_t threads[CLIENTS];

        for (size_t i = 0; i < CLIENTS; i++)
            assert_int_equal(0, pthread_create(&threads[i], NULL, come_and_go, daemon));
        sleep_ms(10 * round);
        daemon_signal(daemon, SIGTERM);
        for (size_t i = 0; i < CLIENTS; i++)
            pthread_join(threads[i], NULL);
        daemon_expect_exit(daemon, 0);
    }
}

int run_drain(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_load, daemons_kill),
        cmocka_unit_test_teardown(test_in_flight, daemons_kill),
        cmocka_unit_test_teardown(test_idle_connections, daemons_kill),
        cmocka_unit_test_teardown(test_second_signal, daemons_kill),
        cmocka_unit_test_teardown(test_drain_timeout, daemons_kill),
        cmocka_unit_test_teardown(test_hangup, daemons_kill),
        cmocka_unit_test_teardown(test_storm, daemons_kill),
    };

    return cmocka_run_group_tests_name("drain", tests, NULL, NULL);
}
