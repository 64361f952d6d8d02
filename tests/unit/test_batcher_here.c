/* The batcher, where a request is computed on its asker's thread: when, and when not. */
#include "tests/unit/pool.h"

#include <sched.h>

static uint64_t seed = 1;

/* A lane of compress whose speed is known, for one job went through the pool. */
static nsa_lane *open_measured(struct pool *pool, size_t max_batch_rows)
{
    nsa_lane *lane = lane_open(pool, NSA_COMPRESS, max_batch_rows, 0);
    struct task task;

    task_open(&task, NSA_COMPRESS, lane, 2, &seed);
    assert_false(nsa_lane_run(lane, &task.request, UINT64_MAX)); /* nothing is known yet */
    assert_int_equal(0, pool->batch_count);
    task_submit(&task);
    task_expect(&task, NSA_OK);
    task_close(&task);
    return lane;
}

/* The output of `task`, which no worker has seen, is that of a run alone. */
static void expect_computed(struct task *task)
{
    assert_memory_equal(task->expected, task->request.outputs[0].data,
                        output_bytes(&task->request, 0));
    assert_int_equal(0, atomic_load(&task->done));
    task_close(task);
}

static bool runs_here(nsa_lane *lane, size_t rows, uint64_t most_ns)
{
    struct task task;
    bool ran;

    task_open(&task, NSA_COMPRESS, lane, rows, &seed);
    ran = nsa_lane_run(lane, &task.request, most_ns);
    if (ran)
        expect_computed(&task);
    else
        task_close(&task);
    return ran;
}

static void test_same_bits_and_counted(void **state)
{
    struct pool pool;
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 2, SIZE_MAX);
    lane = open_measured(&pool, 1024);
    for (size_t rows = 1; rows < 100; rows += 7) {
        size_t before = pool.batch_count;

        assert_true(runs_here(lane, rows, UINT64_MAX));
        assert_int_equal(before + 1, pool.batch_count);
        assert_int_equal(rows, pool.batches[before].rows);
    }
    nsa_lane_close(lane);
    pool_close(&pool);
}

/* A run here is learnt from as a batch is, and its place is free again. */
static void test_limits(void **state)
{
    struct pool pool;
    nsa_lane *lane;
    nsa_lane *patient;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = open_measured(&pool, 50);
    assert_true(runs_here(lane, 50, UINT64_MAX));
    assert_false(runs_here(lane, 51, UINT64_MAX));
    assert_false(runs_here(lane, 1, 0));
    pthread_mutex_lock(&pool.batcher->lock);
    lane->row_ns = 1e9;
    pthread_mutex_unlock(&pool.batcher->lock);
    assert_false(runs_here(lane, 2, 1000));
    assert_true(runs_here(lane, 2, UINT64_MAX));
    assert_true(lane->row_ns < 1e9);
    patient = lane_open(&pool, NSA_COMPRESS, 50, HOUR_NS);
    patient->measured = true;
    assert_false(runs_here(patient, 1, UINT64_MAX));
    nsa_lane_close(patient);
    nsa_lane_close(lane);
    pool_close(&pool);
}

/* With the only place taken, nothing runs here; nor with rows queued, whoever's they are. */
static void test_nobody_is_overtaken(void **state)
{
    struct pool pool;
    struct task busy;
    struct task queued;
    nsa_lane *lane;
    nsa_lane *other;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = open_measured(&pool, 1024);
    other = lane_open(&pool, NSA_POSEMBED, 1, 0);
    task_open(&busy, NSA_POSEMBED, other, 1, &seed);
    task_open(&queued, NSA_POSEMBED, other, 1, &seed);
    pool_hold(&pool, &busy);
    assert_false(runs_here(lane, 1, UINT64_MAX));
    task_submit(&queued);
    pthread_mutex_lock(&pool.batcher->lock);
    pool.batcher->free_place_count++; /* as if another had come free, and its worker not yet up */
    pthread_mutex_unlock(&pool.batcher->lock);
    assert_false(runs_here(lane, 1, UINT64_MAX));
    pthread_mutex_lock(&pool.batcher->lock);
    pool.batcher->free_place_count--;
    pthread_mutex_unlock(&pool.batcher->lock);
    pool_release(&pool);
    task_expect(&busy, NSA_OK);
    task_expect(&queued, NSA_OK);
    task_close(&busy);
    task_close(&queued);
    nsa_lane_close(other);
    nsa_lane_close(lane);
    pool_close(&pool);
}

/* What rows of select took says nothing of others: one may be as long as a million. */
static void test_rows_that_differ(void **state)
{
    struct pool pool;
    struct task task;
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = lane_open(&pool, NSA_SELECT, 1024, 0);
    lane->measured = true;
    lane->row_ns = 1;
    task_open(&task, NSA_SELECT, lane, 3, &seed);
    assert_false(nsa_lane_run(lane, &task.request, UINT64_MAX));
    task_close(&task);
    nsa_lane_close(lane);
    pool_close(&pool);
}

/* Rows that are less than a unit have half the time, as others' would be gathered with them. */
static void test_less_than_a_unit(void **state)
{
    struct pool pool;
    nsa_lane *lane;
    size_t unit;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = open_measured(&pool, 1024);
    unit = nsa_run_row_unit(lane->model);
    assert_true(unit > 1);
    lane->row_ns = 1e6;
    assert_false(runs_here(lane, unit - 1, (uint64_t)(1.9e6 * (double)unit)));
    lane->row_ns = 1e6;
    assert_true(runs_here(lane, unit - 1, (uint64_t)(2.1e6 * (double)unit)));
    lane->row_ns = 1e6;
    assert_true(runs_here(lane, unit, (uint64_t)(1.1e6 * (double)unit)));
    nsa_lane_close(lane);
    pool_close(&pool);
}

static void *run_task(void *argument)
{
    struct task *task = argument;

    assert_true(nsa_lane_run(task->lane, &task->request, UINT64_MAX));
    return NULL;
}

static void compute_while_others_queue(struct pool *pool, nsa_lane *lane)
{
    struct task here;
    struct task queued[3];
    pthread_t thread;

    task_open(&here, NSA_COMPRESS, lane, 5, &seed);
    atomic_store(&pool->holds, 1);
    assert_int_equal(0, pthread_create(&thread, NULL, run_task, &here));
    sem_wait(&pool->held);
    for (size_t i = 0; i < 3; i++) {
        task_open(&queued[i], NSA_COMPRESS, lane, 2, &seed);
        task_submit(&queued[i]);
    }
    for (size_t i = 0; i < 100; i++)
        sched_yield(); /* for the worker to see that there is no place, and wait */
    assert_int_equal(6, nsa_batcher_read_stats(pool->batcher).queued_rows);
    pool_release(pool);
    for (size_t i = 0; i < 3; i++) {
        task_expect(&queued[i], NSA_OK);
        assert_int_equal(6, queued[i].job.batch_rows);
        task_close(&queued[i]);
    }
    assert_int_equal(0, pthread_join(thread, NULL));
    expect_computed(&here);
}

/* While a thread computes in the only place, what is submitted waits, and then is computed. */
static void test_worker_waits_for_the_place(void **state)
{
    struct pool pool;
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = open_measured(&pool, 1024);
    for (int round = 0; round < 50; round++)
        compute_while_others_queue(&pool, lane);
    nsa_lane_close(lane);
    pool_close(&pool);
}

static void *close_lane(void *lane)
{
    nsa_lane_close(lane);
    return NULL;
}

/* A lane is not closed under a thread that computes one of its requests. */
static void test_close_waits(void **state)
{
    struct pool pool;
    struct task here;
    nsa_lane *lane;
    pthread_t runner;
    pthread_t closer;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = open_measured(&pool, 1024);
    task_open(&here, NSA_COMPRESS, lane, 5, &seed);
    atomic_store(&pool.holds, 1);
    assert_int_equal(0, pthread_create(&runner, NULL, run_task, &here));
    sem_wait(&pool.held);
    assert_int_equal(1, lane->jobs);
    assert_int_equal(0, pthread_create(&closer, NULL, close_lane, lane));
    for (size_t i = 0; i < 100; i++)
        sched_yield(); /* for a lane that is closed too soon to be freed, which sanitizers see */
    pool_release(&pool);
    assert_int_equal(0, pthread_join(runner, NULL));
    assert_int_equal(0, pthread_join(closer, NULL));
    expect_computed(&here);
    pool_close(&pool);
}

static void test_out_of_memory(void **state)
{
    struct pool pool;
    struct task task;
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = lane_open(&pool, NSA_COMPRESS, 1024, 0);
    lane->measured = true;
    task_open(&task, NSA_COMPRESS, lane, 3, &seed);
    fail_allocation_after(0);
    assert_false(nsa_lane_run(lane, &task.request, UINT64_MAX));
    assert_true(allocation_failed());
    fail_allocation_after(-1);
    assert_int_equal(0, pool.batch_count);
    assert_true(nsa_lane_run(lane, &task.request, UINT64_MAX));
    expect_computed(&task);
    nsa_lane_close(lane);
    pool_close(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_and_counted),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_rows_that_differ),
        cmocka_unit_test(test_less_than_a_unit),
        cmocka_unit_test(test_close_waits),
        cmocka_unit_test(test_nobody_is_overtaken),
        cmocka_unit_test(test_worker_waits_for_the_place),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, open_models, close_models);
}
