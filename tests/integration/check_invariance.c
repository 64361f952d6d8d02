/* The bits of a row's result depend on the row alone: not on its company, its place or the load. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <nsa/cpu.h>
#include <nsa/model.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHTS "tests/golden/compress_demo.safetensors"
#define IN 256 /* of these weights: n = 4, d = 64 */
#define OUT 64
#define ROWS 64
#define CLIENTS 8
#define ROUNDS 20
#define MOST_ROWS 90 /* of one request: several tiles of whatever the engine takes at once */

static float inputs[ROWS][IN];
static float expected[ROWS][OUT]; /* each row computed alone by the library */

/* One client of several: what it does, and how that went. Threads must not call cmocka. */
struct task {
    struct client *client;
    uint64_t random;
    size_t rows;
    size_t batch_rows; /* the largest X-Batch-Rows seen */
    char failure[256]; /* "" if all went well */
};

static void compute_expected(void)
{
    nsa_model *model = load_model(WEIGHTS, NULL);
    uint64_t random = 7;

    for (size_t i = 0; i < ROWS; i++) {
        nsa_tensor row = {inputs[i], NSA_F32, {1, {IN}}};
        nsa_request request;

        for (size_t j = 0; j < IN; j++)
            inputs[i][j] = random_float(&random) * 3;
        request = compute(model, &row, NULL);
        memcpy(expected[i], request.outputs[0].data, sizeof expected[i]);
        free_outputs(&request);
    }
    nsa_model_unref(model);
}

/*
 * Send `rows` rows picked at random, in a random format and one of the shapes that they may have,
 * and compare each answer's row. False, with task->failure, when anything differs.
 */
static bool send_some(struct task *task, size_t rows)
{
    enum format format = (enum format)random_below(&task->random, FORMAT_COUNT);
    bool nested = random_below(&task->random, 2);
    float input[MOST_ROWS][IN];
    size_t picked[MOST_ROWS];
    nsa_tensor output;
    nsa_tensor tensor = {input, NSA_F32, {2, {rows, IN}}};
    const char *batch_rows;
    long status;

    if (nested)
        tensor.shape = (nsa_shape){4, {1, rows, 4, 64}};
    for (size_t i = 0; i < rows; i++) {
        picked[i] = random_below(&task->random, ROWS);
        memcpy(input[i], inputs[picked[i]], sizeof input[i]);
    }
    status = infer(&output, task->client, format, "/v1/compress", &tensor);
    if (status != 200) {
        snprintf(task->failure, sizeof task->failure, "%s: status %ld", format_types[format],
                 status);
        return false;
    }
    batch_rows = client_header(task->client, "X-Batch-Rows");
    if (batch_rows && strtoul(batch_rows, NULL, 10) > task->batch_rows)
        task->batch_rows = strtoul(batch_rows, NULL, 10);
    for (size_t i = 0; i < rows; i++) {
        if (memcmp((float *)output.data + i * OUT, expected[picked[i]], sizeof expected[0]) != 0)
            snprintf(task->failure, sizeof task->failure, "%s: row %zu of %zu differs",
                     format_types[format], i, rows);
    }
    free_tensor(&output);
    return task->failure[0] == '\0';
}

static void *send_many(void *argument)
{
    struct task *task = argument;

    for (size_t i = 0; i < ROUNDS; i++) {
        if (!send_some(task, 1 + random_below(&task->random, i % 4 == 0 ? MOST_ROWS : 5)))
            break;
    }
    return NULL;
}

static void *send_one(void *argument)
{
    struct task *task = argument;

    send_some(task, task->rows);
    return NULL;
}

/* Run `work` for all tasks at the same time; fails the test if any went wrong. */
static void run_tasks(struct task *tasks, void *(*work)(void *argument))
{
    pthread_t threads[CLIENTS];

    for (size_t i = 0; i < CLIENTS; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, work, &tasks[i]));
    for (size_t i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < CLIENTS; i++) {
        if (tasks[i].failure[0])
            fail_msg("client %zu: %s", i, tasks[i].failure);
    }
}

static void open_tasks(struct task *tasks, const struct daemon *daemon)
{
    for (size_t i = 0; i < CLIENTS; i++)
        tasks[i] = (struct task){.client = client_open(daemon), .random = 100 + i, .rows = 1};
}

static void close_tasks(struct task *tasks)
{
    for (size_t i = 0; i < CLIENTS; i++)
        client_close(tasks[i].client);
}

/* --- tests --------------------------------------------------------------------------------- */

/* Rows alone, then eight clients at a time; `state` says how many threads of each kind. */
static void test_threads(void **state)
{
    const char *threads = *state;
    char compute_threads[] = {threads[0], '\0'};
    char http_threads[] = {threads[1], '\0'};
    struct daemon *daemon = DAEMON("--model", "compress=" WEIGHTS, "--compute-threads",
                                   compute_threads, "--http-threads", http_threads);
    struct task tasks[CLIENTS];

    open_tasks(tasks, daemon);
    for (size_t i = 0; i < ROWS; i++) {
        assert_true(send_some(&tasks[0], 1));
        assert_int_equal(1, tasks[0].batch_rows);
    }
    run_tasks(tasks, send_many);
    close_tasks(tasks);
    daemon_stop(daemon);
}

/* A worker that waits for eight rows gets them from eight clients. */
static void test_gathering(void **state)
{
    struct daemon *daemon = DAEMON("--model", "compress=" WEIGHTS, "--compute-threads", "1",
                                   "--max-batch-rows", "8", "--max-queue-delay-us", "60000000");
    struct task tasks[CLIENTS];

    (void)state;
    open_tasks(tasks, daemon);
    for (size_t round = 0; round < 5; round++) {
        run_tasks(tasks, send_one);
        for (size_t i = 0; i < CLIENTS; i++)
            assert_int_equal(8, tasks[i].batch_rows);
    }
    close_tasks(tasks);
    daemon_stop(daemon);
}

/* Without any delay, what queues up while the only worker is busy is computed together. */
static void test_busy_worker(void **state)
{
    struct daemon *daemon =
        DAEMON("--model", "compress=" WEIGHTS, "--compute-threads", "1", "--http-threads", "2");
    struct task tasks[CLIENTS];
    bool together = false;

    (void)state;
    open_tasks(tasks, daemon);
    for (size_t round = 0; round < 500 && !together; round++) {
        for (size_t i = 0; i < CLIENTS; i++)
            tasks[i].rows = i < 2 ? MOST_ROWS : 1;
        run_tasks(tasks, send_one);
        for (size_t i = 0; i < CLIENTS; i++)
            together |= tasks[i].batch_rows > tasks[i].rows;
    }
    assert_true(together);
    close_tasks(tasks);
    daemon_stop(daemon);
}

/* Large requests of the other ops go to the workers too, small ones do not: the bits are the same.
 */
static void check_rows(struct client *client, const char *path, const nsa_tensor *whole)
{
    size_t rows = whole->shape.dims[0];
    nsa_tensor all = must_infer(client, FORMAT_RAW, path, whole);
    nsa_tensor row = *whole;

    row.shape.dims[0] = 1;
    for (size_t i = 0; i < rows; i++) {
        nsa_tensor alone, part;

        row.data = (char *)whole->data + i * tensor_bytes(&row);
        alone = must_infer(client, i % 2 ? FORMAT_RAW : FORMAT_NPY, path, &row);
        part = alone;
        part.data = (char *)all.data + i * tensor_bytes(&alone);
        expect_same(path, &alone, &part);
        free_tensor(&alone);
    }
    free_tensor(&all);
}

static void test_other_ops(void **state)
{
    struct daemon *daemon = DAEMON("--model", "posembed=tests/golden/posembed_demo.safetensors",
                                   "--compute-threads", "2");
    struct client *client = client_open(daemon);
    uint64_t random = 3;
    nsa_tensor scores = random_tensor(NSA_F16, &(nsa_shape){2, {80, 512}}, &random); /* has ties */
    nsa_tensor x = random_tensor(NSA_F32, &(nsa_shape){3, {40, 7, 512}}, &random);

    (void)state;
    check_rows(client, "/v1/select?num_selected_blocks=33", &scores);
    check_rows(client, "/v1/posembed?offset=25", &x);
    free_tensor(&scores);
    free_tensor(&x);
    client_close(client);
    daemon_stop(daemon);
}

static int prepare(void **state)
{
    (void)state;
    assert_status(NSA_OK, nsa_cpu_use("auto", NULL));
    compute_expected();
    return 0;
}

#define THREADS(text)                                                                              \
    {                                                                                              \
        "test_threads (compute, http) " text, test_threads, NULL, daemons_kill, (char[])           \
        {                                                                                          \
            text                                                                                   \
        }                                                                                          \
    }

int run_invariance(void)
{
    const struct CMUnitTest tests[] = {
        THREADS("11"),
        THREADS("12"),
        THREADS("21"),
        THREADS("22"),
        cmocka_unit_test_teardown(test_gathering, daemons_kill),
        cmocka_unit_test_teardown(test_busy_worker, daemons_kill),
        cmocka_unit_test_teardown(test_other_ops, daemons_kill),
    };

    return cmocka_run_group_tests_name("invariance", tests, prepare, NULL);
}
