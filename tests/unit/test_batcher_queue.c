/* What the batcher takes into its queue, and what it refuses. */
#include "tests/unit/pool.h"

/* A job that is refused is never called back. */
static void check_refused(struct task *task, nsa_status status, const char *message)
{
    uint64_t retry_after_ns = UINT64_MAX;
    nsa_error err;

    assert_status(status, nsa_lane_submit(task->lane, &task->job, &retry_after_ns, &err));
    assert_message(err, message);
    if (status == NSA_EFULL)
        assert_true(retry_after_ns <=
                    nsa_batcher_read_stats(task->lane->batcher).predicted_wait_ns);
    assert_status(status, nsa_lane_submit(task->lane, &task->job, &retry_after_ns, NULL));
}

static void test_queue_full_by_bytes(void **state)
{
    uint64_t random = 4;
    struct task tasks[4]; /* one to hold the worker, one that is too large, two that are not */
    struct pool pool;
    nsa_lane *lane;
    size_t bytes;

    (void)state;
    pool_open(&pool, 1, 1000);
    lane = lane_open(&pool, NSA_POSEMBED, 1024, 0);
    task_open(&tasks[0], NSA_POSEMBED, lane, 1, &random);
    task_open(&tasks[1], NSA_POSEMBED, lane, 600, &random); /* 2 bytes an element at least */
    task_open(&tasks[2], NSA_POSEMBED, lane, 2, &random);
    task_open(&tasks[3], NSA_POSEMBED, lane, 2, &random);
    pool_hold(&pool, &tasks[0]);
    task_submit(&tasks[1]); /* a lone job always fits */
    bytes = nsa_batcher_read_stats(pool.batcher).queued_bytes;
    assert_int_equal(2 * output_bytes(&tasks[1].request, 0), bytes);
    assert_int_equal(600, nsa_batcher_read_stats(pool.batcher).queued_rows);
    check_refused(&tasks[2], NSA_EFULL, "the queue is full: expected room for ");
    check_refused(&tasks[2], NSA_EFULL, " of 1000 are taken");
    pool_release(&pool);
    task_expect(&tasks[0], NSA_OK);
    task_expect(&tasks[1], NSA_OK);
    atomic_store(&tasks[0].done, 0);
    pool_hold(&pool, &tasks[0]);
    task_submit(&tasks[2]); /* what was refused fits later; so do two small ones */
    task_submit(&tasks[3]);
    check_refused(&tasks[1], NSA_EFULL, "the queue is full");
    pool_release(&pool);
    for (size_t i = 0; i < 4; i++) {
        if (i != 1)
            task_expect(&tasks[i], NSA_OK);
    }
    nsa_lane_close(lane);
    for (size_t i = 0; i < 4; i++)
        task_close(&tasks[i]);
    pool_close(&pool);
}

/*
 * A million million rows, which are never computed, since whoever asked for them has gone: at a
 * microsecond a row, which is what a row is taken to cost at first, they would take days.
 */
static void test_queue_full_by_predicted_wait(void **state)
{
    uint64_t random = 5;
    struct task holder;
    struct task huge;
    struct task late;
    struct pool pool;
    nsa_lane *lane;
    uint64_t wait_ns;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = lane_open(&pool, NSA_POSEMBED, 1024, 0);
    task_open(&holder, NSA_POSEMBED, lane, 1, &random);
    task_open(&huge, NSA_POSEMBED, lane, 1, &random);
    task_open(&late, NSA_POSEMBED, lane, 3, &random);
    pool_hold(&pool, &holder);
    assert_int_equal(0, nsa_batcher_read_stats(pool.batcher).predicted_wait_ns);
    huge.request.rows = 1000000000000;
    huge.job.abandoned = task_is_abandoned;
    task_submit(&huge);
    wait_ns = nsa_batcher_read_stats(pool.batcher).predicted_wait_ns;
    assert_true(wait_ns > 24 * HOUR_NS);
    late.job.deadline_ns = nsa_now_ns() + HOUR_NS;
    check_refused(&late, NSA_EFULL, "the queue is full: the wait would be ");
    late.job.deadline_ns = nsa_now_ns() + 2 * wait_ns;
    task_submit(&late);
    pool_release(&pool);
    task_expect(&huge, NSA_ECANCELED);
    task_expect(&late, NSA_OK);
    task_expect(&holder, NSA_OK);
    nsa_lane_close(lane);
    assert_int_equal(0, nsa_batcher_read_stats(pool.batcher).queued_rows);
    task_close(&holder);
    task_close(&huge);
    task_close(&late);
    pool_close(&pool);
}

/* Beside so many rows a few are lost to rounding; what is left of the sum must not be negative. */
static void test_predicted_wait_after_rounding(void **state)
{
    uint64_t random = 9;
    struct task tasks[4]; /* one to hold the worker, one without end, and two that come after it */
    struct pool pool;
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = lane_open(&pool, NSA_POSEMBED, 1, 0);
    for (size_t i = 0; i < 4; i++)
        task_open(&tasks[i], NSA_POSEMBED, lane, 1, &random);
    pool_hold(&pool, &tasks[0]);
    tasks[1].request.rows = 1000000000000000000;
    tasks[1].job.abandoned = task_is_abandoned;
    atomic_store(&pool.holds, 1);
    for (size_t i = 1; i < 4; i++)
        task_submit(&tasks[i]);
    pool_release(&pool);
    sem_wait(&pool.held);
    assert_int_equal(1, nsa_batcher_read_stats(pool.batcher).queued_rows);
    assert_true(nsa_batcher_read_stats(pool.batcher).predicted_wait_ns < HOUR_NS);
    pool_release(&pool);
    for (size_t i = 0; i < 4; i++) {
        task_expect(&tasks[i], i == 1 ? NSA_ECANCELED : NSA_OK);
        task_close(&tasks[i]);
    }
    nsa_lane_close(lane);
    pool_close(&pool);
}

static void test_deadline_passed_at_submission(void **state)
{
    uint64_t random = 6;
    struct task task;
    struct pool pool;
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = lane_open(&pool, NSA_SELECT, 1024, 0);
    task_open(&task, NSA_SELECT, lane, 3, &random);
    task.job.deadline_ns = 1;
    check_refused(&task, NSA_ETIMEDOUT, "the deadline passed before the request was queued");
    nsa_lane_close(lane);
    assert_int_equal(0, atomic_load(&task.done));
    task_close(&task);
    pool_close(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_full_by_bytes),
        cmocka_unit_test(test_queue_full_by_predicted_wait),
        cmocka_unit_test(test_predicted_wait_after_rounding),
        cmocka_unit_test(test_deadline_passed_at_submission),
    };

    return cmocka_run_group_tests(tests, open_models, close_models);
}
