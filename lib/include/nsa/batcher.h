/*
 * A pool of workers that gather the rows of many requests into batches.
 *
 * A free worker starts at once with whatever is queued for a model, so an idle pool adds no delay;
 * while all are busy, rows gather. One large request is split over the workers that are free.
 * Models take turns. A small request may be computed on its asker's thread, in the stead of a
 * worker that is free, which costs less than waking that one.
 */
#ifndef NSA_BATCHER_H
#define NSA_BATCHER_H

#include <nsa/model.h>
#include <nsa/ops.h>
#include <nsa/status.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NSA_MAX_BATCH_ROWS ((size_t)65536)
#define NSA_MAX_WORKERS 256

typedef struct nsa_batcher nsa_batcher;

/* The queue of one model. */
typedef struct nsa_lane nsa_lane;

typedef struct nsa_batcher_options {
    size_t worker_count;    /* 1 ... NSA_MAX_WORKERS */
    size_t max_queue_bytes; /* input and output bytes of the jobs waiting; a lone job always fits */
} nsa_batcher_options;

typedef struct nsa_lane_options {
    size_t max_batch_rows; /* 1 ... NSA_MAX_BATCH_ROWS */
    uint64_t
        max_queue_delay_ns; /* how long a free worker waits for a fuller batch; 0: not at all */
    /*
     * Called under no lock after each batch, by the worker or the thread in nsa_lane_run() that
     * computed it; may be NULL. None of the batch's jobs is done yet, so that the lane is still
     * open.
     */
    void (*batch_done)(void *context, size_t rows, uint64_t compute_ns);
    void *context;
} nsa_lane_options;

/*
 * One request in the pool. The caller fills the first part, keeps the job and all it points to
 * alive until `done`, and then reads the results.
 */
typedef struct nsa_job {
    const nsa_request *request; /* planned, with at least one row */
    uint64_t deadline_ns;       /* nsa_now_ns() past which the work is not worth doing; 0: none */
    /* Whether whoever asked has gone; called by a worker, under no lock; may be NULL. */
    bool (*abandoned)(struct nsa_job *job);
    /* Called once by a worker, under no lock; the job is the caller's again when it begins. */
    void (*done)(struct nsa_job *job, nsa_status status);
    void *context; /* the caller's */

    /* Results, valid in and after `done`. */
    uint64_t queue_ns;   /* from submission to the first batch */
    uint64_t compute_ns; /* from the first batch to the end of the last */
    size_t batch_rows;   /* rows of the largest batch that it was part of */

    /* The pool's own, guarded by its lock. */
    struct nsa_job *next;
    size_t bytes;
    uint64_t submitted_ns, started_ns;
    size_t rows_taken, rows_left;
    nsa_status status;
} nsa_job;

typedef struct nsa_batcher_stats {
    size_t queued_rows;
    size_t queued_bytes;
    uint64_t predicted_wait_ns; /* until a job submitted now would start */
} nsa_batcher_stats;

/* CLOCK_MONOTONIC in nanoseconds: the clock of every deadline. */
uint64_t nsa_now_ns(void);

/**
 * Start the workers.
 * @param[out] out  caller frees with nsa_batcher_close(); untouched on error
 * @return NSA_OK, NSA_EINVAL or NSA_ENOMEM (also when a thread cannot be started)
 */
nsa_status nsa_batcher_open(nsa_batcher **out, const nsa_batcher_options *options, nsa_error *err);

/* Stop the workers and free all; no lane may be open. NULL is allowed. */
void nsa_batcher_close(nsa_batcher *batcher);

/**
 * Open the queue of `model`, which it takes a reference of.
 * @return NSA_OK, NSA_EINVAL or NSA_ENOMEM
 */
nsa_status nsa_lane_open(nsa_lane **out, nsa_batcher *batcher, nsa_model *model,
                         const nsa_lane_options *options, nsa_error *err);

/* Wait for the lane's jobs to finish and free it; nothing may be submitted to it any more. */
void nsa_lane_close(nsa_lane *lane);

/**
 * Queue `job`. On NSA_OK its `done` will be called, perhaps before this returns; on an error never.
 * @param[out] retry_after_ns  with NSA_EFULL: when there will be room, by the measured speed
 * @return NSA_OK; NSA_EFULL when the queue is full, or when by the measured speed the job would
 *         start only after its deadline; NSA_ETIMEDOUT when the deadline has passed already
 * Thread-safe; the pool may not be closed before this has returned.
 */
nsa_status nsa_lane_submit(nsa_lane *lane, nsa_job *job, uint64_t *retry_after_ns, nsa_error *err);

/**
 * Compute the whole of `request` (planned, with at least one row) on the calling thread, as a batch
 * of its own, if that keeps nobody waiting: no row is queued, a worker is free, the lane does not
 * let batches wait to fill up, its rows cost alike, and by the measured speed it takes no more than
 * `most_ns`, or half of that for rows that others would be gathered with at little cost. So the
 * first request of a lane, of which nothing was measured, is never computed here.
 * @return whether it was; else nothing happened, and it is for nsa_lane_submit()
 * Thread-safe.
 */
bool nsa_lane_run(nsa_lane *lane, const nsa_request *request, uint64_t most_ns);

/* A snapshot for metrics. Thread-safe. */
nsa_batcher_stats nsa_batcher_read_stats(nsa_batcher *batcher);

#endif
