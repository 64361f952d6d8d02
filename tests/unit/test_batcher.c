/* The batcher, state by state: who is computed with whom, in what order, and who is not. */
#include "tests/unit/pool.h"

static uint64_t seed = 1;

static void open_compress(struct task *task, nsa_lane *lane, size_t rows)
{
    task_open(task, NSA_COMPRESS, lane, rows, &seed);
}

/* A worker that is busy with one row of posembed until pool_release(). */
struct busy {
    nsa_lane *lane;
    struct task task;
};

static void keep_busy(struct busy *busy, struct pool *pool)
{
    busy->lane = lane_open(pool, NSA_POSEMBED, 1, 0);
    task_open(&busy->task, NSA_POSEMBED, busy->lane, 1, &seed);
    pool_hold(pool, &busy->task);
}

static void end_busy(struct busy *busy)
{
    task_expect(&busy->task, NSA_OK);
    task_close(&busy->task);
    nsa_lane_close(busy->lane);
}

/* --- forming batches ----------------------------------------------------------------------- */

static void test_rows_gather_while_workers_are_busy(void **state)
{
    struct pool pool;
    struct busy busy;
    struct task tasks[5];
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    keep_busy(&busy, &pool);
    lane = lane_open(&pool, NSA_COMPRESS, 1024, 0);
    for (size_t i = 0; i < 5; i++) {
        open_compress(&tasks[i], lane, 3);
        task_submit(&tasks[i]);
    }
    assert_int_equal(15, nsa_batcher_read_stats(pool.batcher).queued_rows);
    pool_release(&pool);
    for (size_t i = 0; i < 5; i++) {
        task_expect(&tasks[i], NSA_OK);
        assert_int_equal(15, tasks[i].job.batch_rows);
        assert_true(tasks[i].job.queue_ns > 0 && tasks[i].job.compute_ns > 0);
        task_close(&tasks[i]);
    }
    assert_int_equal(2, pool.batch_count);
    end_busy(&busy);
    nsa_lane_close(lane);
    pool_close(&pool);
}

/* Lanes take turns, a batch each; the jobs of a lane keep their order. */
static void test_lanes_take_turns(void **state)
{
    enum { JOBS = 5, BATCHES = 6 };
    static const struct {
        nsa_op_id op;
        size_t rows;
    } jobs[JOBS] = {{NSA_COMPRESS, 4},
                    {NSA_COMPRESS, 3},
                    {NSA_COMPRESS, 5},
                    {NSA_POSEMBED, 8},
                    {NSA_SELECT, 2}},
      batches[BATCHES] = {{NSA_COMPRESS, 4}, {NSA_POSEMBED, 4}, {NSA_SELECT, 2},
                          {NSA_COMPRESS, 4}, {NSA_POSEMBED, 4}, {NSA_COMPRESS, 4}};
    struct pool pool;
    struct busy busy;
    struct task tasks[JOBS];
    nsa_lane *lanes[NSA_OP_COUNT];

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    keep_busy(&busy, &pool);
    for (size_t i = 0; i < NSA_OP_COUNT; i++)
        lanes[i] = lane_open(&pool, (nsa_op_id)i, 4, 0);
    for (size_t i = 0; i < JOBS; i++) {
        task_open(&tasks[i], jobs[i].op, lanes[jobs[i].op], jobs[i].rows, &seed);
        task_submit(&tasks[i]);
    }
    pool_release(&pool);
    for (size_t i = 0; i < JOBS; i++) {
        task_expect(&tasks[i], NSA_OK);
        if (i > 0 && jobs[i].op == jobs[i - 1].op)
            assert_true(tasks[i - 1].order < tasks[i].order);
    }
    for (size_t i = 0; i < JOBS; i++)
        task_close(&tasks[i]);
    for (size_t i = 0; i < NSA_OP_COUNT; i++)
        nsa_lane_close(lanes[i]);
    end_busy(&busy);
    assert_int_equal(1 + BATCHES, pool.batch_count);
    for (size_t i = 0; i < BATCHES; i++) {
        assert_int_equal(batches[i].op, pool.batches[1 + i].op);
        assert_int_equal(batches[i].rows, pool.batches[1 + i].rows);
    }
    pool_close(&pool);
}

/* A large job is shared by the idle workers, all of which hold a part of it at one time. */
static void test_large_job_is_split(void **state)
{
    enum { WORKERS = 3, ROWS = 96 };
    struct pool pool;
    struct task task;
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, WORKERS, SIZE_MAX);
    lane = lane_open(&pool, NSA_COMPRESS, NSA_MAX_BATCH_ROWS, 0);
    open_compress(&task, lane, ROWS);
    atomic_store(&pool.holds, WORKERS);
    task_submit(&task);
    for (size_t i = 0; i < WORKERS; i++)
        sem_wait(&pool.held);
    assert_int_equal(0, atomic_load(&task.done));
    for (size_t i = 0; i < WORKERS; i++) {
        assert_int_equal(ROWS / WORKERS, pool.batches[i].rows);
        pool_release(&pool);
    }
    task_expect(&task, NSA_OK);
    assert_int_equal(ROWS / WORKERS, task.job.batch_rows);
    task_close(&task);
    nsa_lane_close(lane);
    pool_close(&pool);
}

/* A batch that may wait is due when it is full; until then other lanes are served. */
static void test_delay_fills_batches(void **state)
{
    struct pool pool;
    struct task waiting[2];
    struct task other;
    nsa_lane *slow;
    nsa_lane *fast;

    (void)state;
    pool_open(&pool, 2, SIZE_MAX);
    slow = lane_open(&pool, NSA_COMPRESS, 10, HOUR_NS);
    fast = lane_open(&pool, NSA_SELECT, 10, 0);
    open_compress(&waiting[0], slow, 4);
    open_compress(&waiting[1], slow, 6);
    task_open(&other, NSA_SELECT, fast, 2, &seed);
    task_submit(&waiting[0]);
    task_submit(&other);
    task_expect(&other, NSA_OK);
    assert_int_equal(0, atomic_load(&waiting[0].done));
    task_submit(&waiting[1]);
    for (size_t i = 0; i < 2; i++)
        task_expect(&waiting[i], NSA_OK);
    assert_true(waiting[0].job.batch_rows == 10 || waiting[0].job.batch_rows == 8);
    task_close(&waiting[0]);
    task_close(&waiting[1]);
    task_close(&other);
    nsa_lane_close(slow);
    nsa_lane_close(fast);
    pool_close(&pool);
}

/* A lane that is closed does not wait for a fuller batch. */
static void test_close_finishes_what_waits(void **state)
{
    struct pool pool;
    struct task tasks[3];
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = lane_open(&pool, NSA_COMPRESS, 1024, HOUR_NS);
    for (size_t i = 0; i < 3; i++) {
        open_compress(&tasks[i], lane, 2);
        task_submit(&tasks[i]);
    }
    nsa_lane_close(lane);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(1, atomic_load(&tasks[i].done));
        task_expect(&tasks[i], NSA_OK);
        task_close(&tasks[i]);
    }
    pool_close(&pool);
    nsa_lane_close(NULL);
    nsa_batcher_close(NULL);
}

/* --- deadlines and departures -------------------------------------------------------------- */

static void test_deadline_in_the_queue(void **state)
{
    struct pool pool;
    struct busy busy;
    struct task tasks[3];
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    keep_busy(&busy, &pool);
    lane = lane_open(&pool, NSA_COMPRESS, 1024, 0);
    for (size_t i = 0; i < 3; i++) {
        open_compress(&tasks[i], lane, 2);
        tasks[i].job.deadline_ns = nsa_now_ns() + HOUR_NS;
        task_submit(&tasks[i]);
    }
    task_pass_deadline(&pool, &tasks[1]);
    pool_release(&pool);
    for (size_t i = 0; i < 3; i++) {
        task_expect(&tasks[i], i == 1 ? NSA_ETIMEDOUT : NSA_OK);
        assert_int_equal(i == 1 ? 0 : 4, tasks[i].job.batch_rows);
        assert_true(tasks[i].job.queue_ns > 0);
        task_close(&tasks[i]);
    }
    end_busy(&busy);
    nsa_lane_close(lane);
    pool_close(&pool);
}

/* The rows of a job that are not yet taken when its deadline passes are not computed. */
static void test_deadline_in_the_middle(void **state)
{
    struct pool pool;
    struct task task;
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    lane = lane_open(&pool, NSA_POSEMBED, 4, 0);
    task_open(&task, NSA_POSEMBED, lane, 12, &seed);
    pool_hold(&pool, &task);
    task_pass_deadline(&pool, &task);
    pool_release(&pool);
    task_expect(&task, NSA_ETIMEDOUT);
    nsa_lane_close(lane);
    assert_int_equal(1, pool.batch_count);
    assert_int_equal(4, task.job.batch_rows);
    assert_int_equal(0, nsa_batcher_read_stats(pool.batcher).queued_bytes);
    task_close(&task);
    pool_close(&pool);
}

static void test_abandoned_jobs_are_not_computed(void **state)
{
    struct pool pool;
    struct busy busy;
    struct task tasks[3];
    nsa_lane *lane;

    (void)state;
    pool_open(&pool, 1, SIZE_MAX);
    keep_busy(&busy, &pool);
    lane = lane_open(&pool, NSA_COMPRESS, 4, 0);
    for (size_t i = 0; i < 3; i++) {
        /* The second is as long as three batches: asked about once, dropped whole. */
        open_compress(&tasks[i], lane, i == 1 ? 11 : 2);
        tasks[i].job.abandoned = i == 1 ? task_is_abandoned : NULL;
        task_submit(&tasks[i]);
    }
    pool_release(&pool);
    for (size_t i = 0; i < 3; i++)
        task_expect(&tasks[i], i == 1 ? NSA_ECANCELED : NSA_OK);
    assert_int_equal(1, atomic_load(&tasks[1].asked));
    assert_int_equal(1 + 2, pool.batch_count);
    assert_int_equal(2, tasks[0].job.batch_rows);
    for (size_t i = 0; i < 3; i++)
        task_close(&tasks[i]);
    end_busy(&busy);
    nsa_lane_close(lane);
    pool_close(&pool);
}

static sem_t asking;
static sem_t answer;

static bool slowly_abandoned(nsa_job *job)
{
    sem_post(&asking);
    sem_wait(&answer);
    return task_is_abandoned(job);
}

/* One worker learns that the asker has gone while another computes the rest: still one end. */
static void test_abandoned_while_another_computes(void **state)
{
    struct pool pool;
    struct task task;
    nsa_lane *lane;

    (void)state;
    sem_init(&asking, 0, 0);
    sem_init(&answer, 0, 0);
    pool_open(&pool, 2, SIZE_MAX);
    lane = lane_open(&pool, NSA_POSEMBED, 1024, 0);
    task_open(&task, NSA_POSEMBED, lane, 10, &seed);
    task.job.abandoned = slowly_abandoned;
    pool_hold(&pool, &task); /* the second half is computed ... */
    sem_wait(&asking);       /* ... and the first is in question */
    pool_release(&pool);
    sem_post(&answer);
    task_expect(&task, NSA_ECANCELED);
    nsa_lane_close(lane);
    assert_int_equal(1, pool.batch_count);
    assert_int_equal(5, task.job.batch_rows);
    task_close(&task);
    pool_close(&pool);
    sem_destroy(&asking);
    sem_destroy(&answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_gather_while_workers_are_busy),
        cmocka_unit_test(test_lanes_take_turns),
        cmocka_unit_test(test_large_job_is_split),
        cmocka_unit_test(test_delay_fills_batches),
        cmocka_unit_test(test_close_finishes_what_waits),
        cmocka_unit_test(test_deadline_in_the_queue),
        cmocka_unit_test(test_deadline_in_the_middle),
        cmocka_unit_test(test_abandoned_jobs_are_not_computed),
        cmocka_unit_test(test_abandoned_while_another_computes),
    };

    return cmocka_run_group_tests(tests, open_models, close_models);
}
