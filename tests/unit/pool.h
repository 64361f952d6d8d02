/*
 * A batcher under test: its batches are written down, its workers can be held in batch_done, and
 * time passes when a test says so. Nothing here sleeps; every wait is for something that must come.
 */
#ifndef TESTS_POOL_H
#define TESTS_POOL_H

#include "lib/batcher_parts.h"
#include "tests/unit/support.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_BATCHES 256
#define HOUR_NS (3600 * NS_PER_S)

/* What a lane's batches and jobs are known by. */
struct pool_lane {
    struct pool *pool;
    nsa_op_id op;
};

struct pool {
    nsa_batcher *batcher;
    struct pool_lane lanes[NSA_OP_COUNT];
    atomic_int holds;    /* batches yet to be held once they are computed */
    sem_t held;          /* posted by a worker that is held */
    sem_t release;       /* lets one held worker go */
    atomic_size_t ended; /* jobs */
    atomic_size_t batch_count;
    struct {
        nsa_op_id op;
        size_t rows;
    } batches[MAX_BATCHES]; /* the first ones, in the order in which they were computed */
};

static inline void pool_batch_done(void *context, size_t rows, uint64_t compute_ns)
{
    const struct pool_lane *lane = context;
    struct pool *pool = lane->pool;
    size_t slot = atomic_fetch_add(&pool->batch_count, 1);

    (void)compute_ns;
    if (slot < MAX_BATCHES) {
        pool->batches[slot].op = lane->op;
        pool->batches[slot].rows = rows;
    }
    if (atomic_fetch_sub(&pool->holds, 1) > 0) {
        sem_post(&pool->held);
        sem_wait(&pool->release);
    } else {
        atomic_fetch_add(&pool->holds, 1);
    }
}

static inline void pool_open(struct pool *pool, size_t workers, size_t max_queue_bytes)
{
    nsa_batcher_options options = {workers, max_queue_bytes};

    memset(pool, 0, sizeof *pool);
    for (size_t i = 0; i < NSA_OP_COUNT; i++)
        pool->lanes[i] = (struct pool_lane){pool, (nsa_op_id)i};
    sem_init(&pool->held, 0, 0);
    sem_init(&pool->release, 0, 0);
    assert_status(NSA_OK, nsa_batcher_open(&pool->batcher, &options, NULL));
}

static inline void pool_close(struct pool *pool)
{
    nsa_batcher_close(pool->batcher);
    sem_destroy(&pool->held);
    sem_destroy(&pool->release);
}

/* --- a model of each op, by its id, and the width of its rows -------------------------------- */

static nsa_model *models[NSA_OP_COUNT];
static const size_t widths[NSA_OP_COUNT] = {
    [NSA_SELECT] = 9, [NSA_COMPRESS] = 35, [NSA_POSEMBED] = 5};

static inline int open_models(void **state)
{
    const char *path = write_zeros("embedding.safetensors", "embedding.weight F32 3 5;");
    nsa_mlp mlp = {.in = widths[NSA_COMPRESS], .hidden = 33, .out = 5};
    uint64_t random = 1;

    (void)state;
    models[NSA_POSEMBED] = load_model(path, NULL);
    unlink(path);
    path = write_mlp(&mlp, NSA_F32, &random);
    models[NSA_COMPRESS] = load_model(path, NULL);
    unlink(path);
    free_mlp(&mlp);
    return nsa_model_create(&models[NSA_SELECT], NSA_SELECT, NULL) == NSA_OK ? 0 : -1;
}

static inline int close_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < NSA_OP_COUNT; i++)
        nsa_model_unref(models[i]);
    return 0;
}

static inline nsa_lane *lane_open(struct pool *pool, nsa_op_id op, size_t max_batch_rows,
                                  uint64_t max_queue_delay_ns)
{
    nsa_lane *lane = NULL;
    nsa_lane_options options = {max_batch_rows, max_queue_delay_ns, pool_batch_done,
                                &pool->lanes[op]};

    assert_status(NSA_OK, nsa_lane_open(&lane, pool->batcher, models[op], &options, NULL));
    return lane;
}

/* --- jobs ----------------------------------------------------------------------------------- */

/* A job with its request, its expected output, and what became of it. */
struct task {
    nsa_job job;
    nsa_request request;
    void *expected;
    nsa_lane *lane;
    atomic_int asked; /* calls of abandoned() */
    atomic_int done;  /* calls of done() */
    nsa_status status;
    size_t order; /* among the pool's ended jobs */
    sem_t finished;
};

static inline struct task *task_of(nsa_job *job)
{
    return job->context;
}

static inline void task_done(nsa_job *job, nsa_status status)
{
    struct task *task = task_of(job);
    const struct pool_lane *lane = task->lane->context;

    task->status = status;
    task->order = atomic_fetch_add(&lane->pool->ended, 1);
    atomic_fetch_add(&task->done, 1);
    sem_post(&task->finished);
}

static inline bool task_is_abandoned(nsa_job *job)
{
    atomic_fetch_add(&task_of(job)->asked, 1);
    return true;
}

/* A random request of `rows` rows; its output is computed alone, then spoilt. */
static inline void task_open(struct task *task, nsa_op_id op, nsa_lane *lane, size_t rows,
                             uint64_t *random)
{
    const nsa_model *model = models[op];
    nsa_dtype dtype = (nsa_dtype)random_below(random, 4);
    size_t bytes;

    memset(task, 0, sizeof *task);
    task->lane = lane;
    sem_init(&task->finished, 0, 0);
    task->job.request = &task->request;
    task->job.done = task_done;
    task->job.context = task;
    task->request.params[0] = op == NSA_SELECT ? 3 : 0;
    task->request.input = random_tensor(dtype, &(nsa_shape){3, {rows, 1, widths[op]}}, random);
    plan_outputs(&task->request, model);
    assert_int_equal(rows, task->request.rows);
    bytes = output_bytes(&task->request, 0);
    task->expected = malloc(bytes);
    assert_non_null(task->expected);
    run_whole(model, &task->request);
    memcpy(task->expected, task->request.outputs[0].data, bytes);
    memset(task->request.outputs[0].data, 0xA5, bytes);
}

static inline void task_submit(struct task *task)
{
    uint64_t retry_after_ns;
    nsa_error err;

    if (nsa_lane_submit(task->lane, &task->job, &retry_after_ns, &err) != NSA_OK)
        fail_msg("%s", err.message);
}

/* Wait for the end of `task`, which must be `status`; only a computed one touched its output. */
static inline void task_expect(struct task *task, nsa_status status)
{
    size_t bytes = output_bytes(&task->request, 0);
    const unsigned char *output = task->request.outputs[0].data;

    sem_wait(&task->finished);
    assert_status(status, task->status);
    assert_int_equal(1, atomic_load(&task->done));
    if (status == NSA_OK)
        assert_memory_equal(task->expected, output, bytes);
    for (size_t i = 0; status != NSA_OK && task->job.batch_rows == 0 && i < bytes; i++)
        assert_int_equal(0xA5, output[i]);
}

static inline void task_close(struct task *task)
{
    assert_true(atomic_load(&task->done) <= 1);
    free(task->expected);
    free_outputs(&task->request);
    free_tensor(&task->request.input);
    sem_destroy(&task->finished);
}

/* Let the deadline of a queued job pass. */
static inline void task_pass_deadline(struct pool *pool, struct task *task)
{
    pthread_mutex_lock(&pool->batcher->lock);
    task->job.deadline_ns = 1;
    pthread_mutex_unlock(&pool->batcher->lock);
}

/* Submit `task` and return when a worker has computed it and is held there. */
static inline void pool_hold(struct pool *pool, struct task *task)
{
    atomic_store(&pool->holds, 1);
    task_submit(task);
    sem_wait(&pool->held);
}

static inline void pool_release(struct pool *pool)
{
    sem_post(&pool->release);
}

#endif
