/* The queue's bound, deadlines, and clients that leave while they wait. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROW "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]" /* 64 bytes in, 32 out */
#define ROWS1 "{\"input\": [" ROW "]}"
#define ROWS2 "{\"input\": [" ROW "," ROW "]}"
#define QUEUE_ROWS "nsad_queue_rows"
#define REJECTED(reason) "nsad_rejected_total{reason=\"" reason "\"}"

/*
 * A worker that waits a minute for `max_batch_rows` rows: until they have come, jobs stay queued
 * and tests need no timing to find them there.
 */
#define PATIENT_DAEMON(max_batch_rows, ...)                                                        \
    DAEMON("--model", "compress=" TINY_WEIGHTS, "--compute-threads", "1", "--max-queue-delay-us",  \
           "60000000", "--max-batch-rows", max_batch_rows, __VA_ARGS__)

/* Nine rows of 96 bytes wait; two more do not fit, one more does and fills the batch. */
static void test_queue_full(void **state)
{
    struct daemon *daemon = PATIENT_DAEMON("10", "--max-queue-bytes", "1024");
    struct client *client = client_open(daemon);
    int fds[9];

    (void)state;
    for (size_t i = 0; i < 9; i++) {
        fds[i] = raw_open(daemon);
        assert_true(raw_post(fds[i], "/v1/compress", ROWS1));
    }
    wait_metric(client, QUEUE_ROWS, 9);
    assert_true(metric(client, "nsad_queue_bytes") == 9 * 96);
    for (int i = 0; i < 3; i++) {
        const char *retry_after;

        expect_reply(client_json(client, "/v1/compress", ROWS2), 429,
                     "the queue is full: expected room for 192 bytes, 864 of 1024 are taken");
        expect_reply(client_json(client, "/v1/compress", ROWS2), 429, "\"queue_full\"");
        retry_after = client_header(client, "Retry-After");
        assert_non_null(retry_after);
        assert_true(atoi(retry_after) >= 1);
    }
    assert_true(metric(client, REJECTED("queue_full")) == 6);
    /* What needs no queue is served meanwhile. */
    expect_reply(client_json(client, "/v1/select?num_selected_blocks=1", "{\"input\": [1]}"), 200,
                 NULL);
    expect_reply(client_json(client, "/v1/compress", ROWS1), 200, "\"output\"");
    expect_header(client, "X-Batch-Rows", "10");
    for (size_t i = 0; i < 9; i++) {
        struct raw_reply reply = raw_read(fds[i]);

        assert_int_equal(200, reply.status);
        assert_non_null(strstr(reply.head, "X-Batch-Rows: 10\r\n"));
        close(fds[i]);
    }
    assert_true(metric(client, QUEUE_ROWS) == 0);
    assert_true(metric(client, "nsad_queue_bytes") == 0);
    assert_int_equal(1, client_connections(client));
    client_close(client);
    daemon_stop(daemon);
}

/* --- a real overload ----------------------------------------------------------------------- */

#define CLIENTS 8
#define OVERLOAD_ROWS 400
#define MOST_CALLS 2000

struct load {
    struct client *client;
    const struct body *body;
    size_t answered, rejected;
    atomic_bool *enough;
    long other; /* a status that is neither 200 nor 429, or 0 */
};

static void *send_load(void *argument)
{
    struct load *load = argument;

    for (size_t i = 0; i < MOST_CALLS && !atomic_load(load->enough); i++) {
        const struct call call = {.path = "/v1/compress",
                                  .body = load->body->bytes,
                                  .size = load->body->size,
                                  .headers = {"Content-Type: application/x-npy"}};
        long status = client_call(load->client, &call)->status;
        const char *retry_after = client_header(load->client, "Retry-After");

        if (status == 200) {
            load->answered++;
        } else if (status == 429 && retry_after && atoi(retry_after) >= 1) {
            load->rejected++;
        } else {
            load->other = status ? status : -1;
            break;
        }
        if (load->rejected > 20 && load->answered > 0)
            atomic_store(load->enough, true);
    }
    return NULL;
}

static void test_overload(void **state)
{
    struct daemon *daemon = DAEMON("--model", "compress=tests/golden/compress_demo.safetensors",
                                   "--compute-threads", "1", "--max-queue-bytes", "600000");
    struct client *client = client_open(daemon);
    uint64_t random = 1;
    nsa_tensor input = random_tensor(NSA_F32, &(nsa_shape){2, {OVERLOAD_ROWS, 256}}, &random);
    nsa_tensor output;
    struct body body = make_body(FORMAT_NPY, &input, NULL);
    struct load loads[CLIENTS];
    pthread_t threads[CLIENTS];
    atomic_bool enough = false;
    size_t answered = 0, rejected = 0;

    (void)state;
    for (size_t i = 0; i < CLIENTS; i++) {
        loads[i] = (struct load){client_open(daemon), &body, 0, 0, &enough, 0};
        assert_int_equal(0, pthread_create(&threads[i], NULL, send_load, &loads[i]));
    }
    for (size_t i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(0, loads[i].other);
        answered += loads[i].answered;
        rejected += loads[i].rejected;
        client_close(loads[i].client);
    }
    assert_true(answered > 0 && rejected > 0);
    assert_true(metric(client, REJECTED("queue_full")) == (double)rejected);
    assert_true(metric(client, QUEUE_ROWS) == 0);
    output = must_infer(client, FORMAT_NPY, "/v1/compress", &input); /* as if nothing had been */
    free_tensor(&output);
    free_tensor(&input);
    free(body.bytes);
    client_close(client);
    daemon_stop(daemon);
}

/* --- deadlines ----------------------------------------------------------------------------- */

/* The worker waits half a second, the client two fifths of that; nobody else comes. */
static void test_deadline_in_queue(void **state)
{
    struct daemon *daemon = DAEMON("--model", "compress=" TINY_WEIGHTS, "--compute-threads", "1",
                                   "--max-queue-delay-us", "500000");
    struct client *client = client_open(daemon);
    struct call call = {
        .path = "/v1/compress",
        .body = ROWS1,
        .headers = {"Content-Type: application/json", "X-Request-Timeout-Ms: 200"},
    };

    (void)state;
    expect_reply(client_call(client, &call), 504,
                 "the deadline of 200 ms passed in the stage queue");
    expect_reply(client_call(client, &call), 504, "\"deadline_exceeded\"");
    assert_true(metric(client, REJECTED("deadline")) == 2);
    assert_true(metric(client, QUEUE_ROWS) == 0);
    assert_true(metric(client, "nsad_rows_total{op=\"compress\",model=\"compress\"}") == 0);
    call.headers[1] = "X-Request-Timeout-Ms: 20000";
    expect_reply(client_call(client, &call), 200, NULL);
    assert_int_equal(1, client_connections(client));
    client_close(client);
    daemon_stop(daemon);
}

static void test_deadline_at_once(void **state)
{
    static const char *const malformed[] = {"X-Request-Timeout-Ms: soon",
                                            "X-Request-Timeout-Ms: -1", "X-Request-Timeout-Ms: 1.5",
                                            "X-Request-Timeout-Ms: 1s", "X-Request-Timeout-Ms;"};
    struct client *client = client_open(small());
    struct call call = {
        .path = "/v1/select?num_selected_blocks=1",
        .body = "{\"input\": [1]}",
        .headers = {"Content-Type: application/json", "X-Request-Timeout-Ms: 0"},
    };

    (void)state;
    expect_reply(client_call(client, &call), 504, "the deadline of 0 ms passed in the stage parse");
    call.headers[1] = "X-Request-Timeout-Ms: 18446744073709551615";
    expect_reply(client_call(client, &call), 200, NULL);
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        call.headers[1] = malformed[i];
        expect_reply(client_call(client, &call), 400,
                     "X-Request-Timeout-Ms: expected an integer of milliseconds");
    }
    assert_int_equal(1, client_connections(client));
    client_close(client);
}

/* --- clients that leave -------------------------------------------------------------------- */

/* Of three queued rows two lost their client: only one is computed. */
static void test_client_gone(void **state)
{
    struct daemon *daemon = PATIENT_DAEMON("3", "--http-threads", "2");
    struct client *client = client_open(daemon);
    int fds[2];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        fds[i] = raw_open(daemon);
        assert_true(raw_post(fds[i], "/v1/compress", ROWS1));
    }
    wait_metric(client, QUEUE_ROWS, 2);
    for (size_t i = 0; i < 2; i++)
        close(fds[i]);
    expect_reply(client_json(client, "/v1/compress", ROWS1), 200, NULL);
    expect_header(client, "X-Batch-Rows", "1");
    wait_metric(client, REJECTED("client_gone"), 2);
    assert_true(metric(client, REJECTED("client_gone")) == 2);
    assert_true(metric(client, "nsad_rows_total{op=\"compress\",model=\"compress\"}") == 1);
    wait_metric(client,
                "nsad_http_requests_total{route=\"/v1/compress\",method=\"POST\",code=\"499\"}", 2);
    client_close(client);
    daemon_stop(daemon);
}

int run_limits(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_queue_full, daemons_kill),
        cmocka_unit_test_teardown(test_overload, daemons_kill),
        cmocka_unit_test_teardown(test_deadline_in_queue, daemons_kill),
        cmocka_unit_test_teardown(test_deadline_at_once, daemons_kill),
        cmocka_unit_test_teardown(test_client_gone, daemons_kill),
    };

    return cmocka_run_group_tests_name("limits", tests, start_small, stop_small);
}
