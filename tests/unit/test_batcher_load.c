/* The batcher under load: many threads, and memory that runs out. */
#include "tests/unit/pool.h"

enum { SUBMITTERS = 4, ROUNDS = 5, TASKS = 8 };

/* --- many threads -------------------------------------------------------------------------- */

struct submitter {
    pthread_t thread;
    nsa_lane **lanes;
    size_t max_batch_rows;
    uint64_t random;
    size_t wrong; /* jobs in too long a batch, or not bit for bit those of the request alone */
};

/*
 * Random requests for random lanes, all in the pool at one time, several times over. A thread that
 * is not the test's own must not use cmocka's assertions: it counts.
 */
static void *submit_many(void *argument)
{
    struct submitter *submitter = argument;
    struct task tasks[TASKS];

    for (size_t i = 0; i < TASKS; i++) {
        nsa_op_id op = (nsa_op_id)random_below(&submitter->random, NSA_OP_COUNT);
        size_t rows = 1 + random_below(&submitter->random, i == 0 ? 300 : 40);

        task_open(&tasks[i], op, submitter->lanes[op], rows, &submitter->random);
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < TASKS; i++) {
            uint64_t retry_after_ns;

            memset(tasks[i].request.outputs[0].data, 0xA5, output_bytes(&tasks[i].request, 0));
            submitter->wrong +=
                nsa_lane_submit(tasks[i].lane, &tasks[i].job, &retry_after_ns, NULL) != NSA_OK;
        }
        for (size_t i = 0; i < TASKS; i++) {
            const nsa_request *request = &tasks[i].request;

            sem_wait(&tasks[i].finished);
            submitter->wrong +=
                tasks[i].status != NSA_OK || tasks[i].job.batch_rows == 0 ||
                tasks[i].job.batch_rows > submitter->max_batch_rows ||
                memcmp(tasks[i].expected, request->outputs[0].data, output_bytes(request, 0)) != 0;
        }
    }
    for (size_t i = 0; i < TASKS; i++) {
        submitter->wrong += atomic_exchange(&tasks[i].done, 1) != ROUNDS;
        task_close(&tasks[i]);
    }
    return NULL;
}

static void check_load(size_t workers, size_t max_batch_rows, uint64_t max_queue_delay_ns)
{
    struct submitter submitters[SUBMITTERS];
    nsa_lane *lanes[NSA_OP_COUNT];
    struct pool pool;
    nsa_batcher_stats stats;

    pool_open(&pool, workers, SIZE_MAX);
    for (size_t i = 0; i < NSA_OP_COUNT; i++)
        lanes[i] = lane_open(&pool, (nsa_op_id)i, max_batch_rows, max_queue_delay_ns);
    for (size_t i = 0; i < SUBMITTERS; i++) {
        submitters[i] = (struct submitter){
            .lanes = lanes, .max_batch_rows = max_batch_rows, .random = 1 + i + 8 * max_batch_rows};
        assert_int_equal(0,
                         pthread_create(&submitters[i].thread, NULL, submit_many, &submitters[i]));
    }
    for (size_t i = 0; i < SUBMITTERS; i++) {
        pthread_join(submitters[i].thread, NULL);
        assert_int_equal(0, submitters[i].wrong);
    }
    stats = nsa_batcher_read_stats(pool.batcher);
    assert_int_equal(0, stats.queued_rows);
    assert_int_equal(0, stats.queued_bytes);
    assert_int_equal(0, stats.predicted_wait_ns);
    for (size_t i = 0; i < NSA_OP_COUNT; i++)
        nsa_lane_close(lanes[i]);
    pool_close(&pool);
}

static void test_answers_are_those_of_requests_alone(void **state)
{
    (void)state;
    check_load(1, 1024, 0);
    check_load(2, 33, 0);
    check_load(2, 1024, 200000);
    check_load(5, 1, 0);
    check_load(5, 1024, 0);
    check_load(5, 7, 50000);
}

/* A lane may be closed and freed as soon as its last job is done, by whichever worker. */
static void test_lanes_close_at_once(void **state)
{
    uint64_t random = 2;
    struct task task;
    struct pool pool;

    (void)state;
    pool_open(&pool, 3, SIZE_MAX);
    task_open(&task, NSA_POSEMBED, NULL, 60, &random);
    for (size_t i = 0; i < 300; i++) {
        atomic_store(&task.done, 0);
        task.lane = lane_open(&pool, NSA_POSEMBED, 10, 0);
        task_submit(&task);
        task_expect(&task, NSA_OK);
        nsa_lane_close(task.lane);
    }
    task_close(&task);
    pool_close(&pool);
}

/* A job that submits itself again from its own end: callbacks run under no lock. */
static void resubmit(nsa_job *job, nsa_status status)
{
    struct task *task = task_of(job);
    uint64_t retry_after_ns;

    if (status == NSA_OK && atomic_fetch_add(&task->asked, 1) < 50) {
        status = nsa_lane_submit(task->lane, job, &retry_after_ns, NULL);
        if (status == NSA_OK)
            return;
    }
    task_done(job, status);
}

static void test_callbacks_may_submit(void **state)
{
    uint64_t random = 3;
    struct task task;
    struct pool pool;
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 2, SIZE_MAX);
    lane = lane_open(&pool, NSA_COMPRESS, 16, 0);
    task_open(&task, NSA_COMPRESS, lane, 3, &random);
    task.job.done = resubmit;
    task_submit(&task);
    task_expect(&task, NSA_OK);
    assert_int_equal(51, atomic_load(&task.asked));
    nsa_lane_close(lane);
    task_close(&task);
    pool_close(&pool);
}

/* --- options and memory -------------------------------------------------------------------- */

static void test_options(void **state)
{
    static const size_t workers[] = {0, NSA_MAX_WORKERS + 1};
    static const size_t rows[] = {0, NSA_MAX_BATCH_ROWS + 1};
    nsa_batcher *none = NULL;
    nsa_lane *lane = NULL;
    struct pool pool;
    nsa_error err;

    (void)state;
    pool_open(&pool, 1, 0);
    for (size_t i = 0; i < 2; i++) {
        nsa_batcher_options options = {.worker_count = workers[i]};
        nsa_lane_options lane_options = {.max_batch_rows = rows[i]};

        assert_status(NSA_EINVAL, nsa_batcher_open(&none, &options, &err));
        assert_message(err, "worker_count: expected 1 to 256, got ");
        assert_status(NSA_EINVAL, nsa_lane_open(&lane, pool.batcher, models[NSA_COMPRESS],
                                                &lane_options, &err));
        assert_message(err, "max_batch_rows: expected 1 to 65536, got ");
    }
    assert_null(none);
    assert_null(lane);
    pool_close(&pool);
}

static nsa_status open_and_close(void *context)
{
    nsa_batcher_options options = {.worker_count = 3, .max_queue_bytes = 1};
    nsa_lane_options lane_options = {.max_batch_rows = 1};
    nsa_batcher *batcher = NULL;
    nsa_lane *lane = NULL;
    nsa_status status;

    (void)context;
    status = nsa_batcher_open(&batcher, &options, NULL);
    if (status == NSA_OK)
        status = nsa_lane_open(&lane, batcher, models[NSA_COMPRESS], &lane_options, NULL);
    nsa_lane_close(lane);
    nsa_batcher_close(batcher);
    return status;
}

static void test_allocations(void **state)
{
    (void)state;
    check_every_allocation(open_and_close, NULL);
}

/* A worker without scratch memory fails the batch's jobs and goes on to the next. */
static void test_worker_out_of_memory(void **state)
{
    uint64_t random = 7;
    struct task tasks[3];
    struct pool pool;
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = lane_open(&pool, NSA_COMPRESS, 1024, HOUR_NS);
    for (size_t i = 0; i < 3; i++)
        task_open(&tasks[i], NSA_COMPRESS, lane, 512, &random);
    fail_allocation_after(0);
    task_submit(&tasks[0]);
    task_submit(&tasks[1]); /* fills the batch */
    task_expect(&tasks[0], NSA_ENOMEM);
    task_expect(&tasks[1], NSA_ENOMEM);
    assert_true(allocation_failed());
    assert_int_equal(0, pool.batch_count);
    fail_allocation_after(-1);
    task_submit(&tasks[2]);
    nsa_lane_close(lane);
    task_expect(&tasks[2], NSA_OK);
    for (size_t i = 0; i < 3; i++)
        task_close(&tasks[i]);
    pool_close(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_those_of_requests_alone),
        cmocka_unit_test(test_lanes_close_at_once),
        cmocka_unit_test(test_callbacks_may_submit),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_worker_out_of_memory),
    };

    return cmocka_run_group_tests(tests, open_models, close_models);
}
