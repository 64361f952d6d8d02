/* Forming batches and computing them. */
#include "lib/batcher_parts.h"

#include <stdlib.h>

/* Weight of the newest batch in the running mean of a row's cost. */
#define MEAN_WEIGHT 0.125

/* --- the queue, under the lock ------------------------------------------------------------- */

/* Take the lane after `before` out of the circle. */
static void circle_drop_after(nsa_batcher *batcher, nsa_lane *before)
{
    nsa_lane *lane = before->next;

    before->next = lane->next;
    if (lane == before)
        batcher->turn = NULL;
    else if (batcher->turn == lane)
        batcher->turn = before;
    lane->next = NULL;
}

/* Account for `rows` of the lane's first job leaving the queue, and the job with its last ones. */
static void take_rows(nsa_lane *lane, nsa_job *job, size_t rows)
{
    nsa_batcher *batcher = lane->batcher;

    job->rows_taken += rows;
    lane->queued_rows -= rows;
    batcher->queued_rows -= rows;
    batcher->queued_ns -= (double)rows * lane->row_ns;
    if (batcher->queued_rows == 0)
        batcher->queued_ns = 0; /* what rounding and a changing mean left over */
    if (job->rows_taken < job->request->rows)
        return;
    lane->first = job->next;
    if (!lane->first)
        lane->last = NULL;
    batcher->queued_bytes -= job->bytes;
    job->next = NULL;
}

/* --- batches ------------------------------------------------------------------------------- */

/*
 * Rows that one worker takes of a lane: all that wait, up to the lane's limit, but no more than a
 * fair share, in whole units, while other workers stand idle.
 */
static size_t batch_limit(const nsa_lane *lane)
{
    size_t unit = nsa_run_row_unit(lane->model);
    size_t sharing = (lane->batcher->idle_workers + 1) * unit;
    size_t share = (lane->queued_rows + sharing - 1) / sharing * unit;

    return share < lane->max_batch_rows ? share : lane->max_batch_rows;
}

/* Add the next rows of the lane's first job to `batch`, at most up to `limit` rows in all. */
static void batch_add(struct batch *batch, struct worker *worker, size_t limit, uint64_t now)
{
    nsa_lane *lane = batch->lane;
    nsa_job *job = lane->first;
    size_t waiting = job->request->rows - job->rows_taken;
    size_t rows = waiting < limit - batch->rows ? waiting : limit - batch->rows;

    if (job->rows_taken == 0) {
        job->started_ns = now;
        job->queue_ns = now - job->submitted_ns;
    }
    worker->spans[batch->span_count] = (nsa_span){job->request, job->rows_taken, rows};
    worker->owners[batch->span_count] = job;
    batch->span_count++;
    batch->rows += rows;
    take_rows(lane, job, rows);
}

/* Drop the rows of the lane's first job that nobody took yet. */
static void batch_drop(struct batch *batch, nsa_status status, uint64_t now)
{
    nsa_job *job = batch->lane->first;
    size_t rows = job->request->rows - job->rows_taken;

    if (job->rows_taken == 0)
        job->queue_ns = now - job->submitted_ns;
    job->status = status;
    job->rows_left -= rows;
    take_rows(batch->lane, job, rows);
    if (job->rows_left == 0) {
        job->next = batch->dropped;
        batch->dropped = job;
    }
}

void nsa_batch_form(struct batch *batch, struct worker *worker)
{
    nsa_batcher *batcher = worker->batcher;
    nsa_lane *before = batcher->turn;
    nsa_lane *lane = before->next;
    uint64_t now = nsa_now_ns();
    size_t limit = batch_limit(lane);

    *batch = (struct batch){.lane = lane};
    while (lane->first && batch->rows < limit) {
        nsa_job *job = lane->first;

        if (job->status != NSA_OK)
            batch_drop(batch, job->status, now);
        else if (job->deadline_ns != 0 && now >= job->deadline_ns)
            batch_drop(batch, NSA_ETIMEDOUT, now);
        else
            batch_add(batch, worker, limit, now);
    }
    if (lane->first)
        batcher->turn = lane; /* the next one's turn */
    else
        circle_drop_after(batcher, before);
    if (batcher->turn)
        pthread_cond_signal(&batcher->work);
}

/*
 * Take the spans that begin a job whose asker has gone out of the batch; the rest of such a job is
 * dropped when its turn comes. Asking happens under no lock.
 */
static void drop_abandoned(struct batch *batch, struct worker *worker)
{
    nsa_batcher *batcher = worker->batcher;
    size_t kept = 0;

    for (size_t i = 0; i < batch->span_count; i++) {
        nsa_span span = worker->spans[i];
        nsa_job *job = worker->owners[i];

        if (span.row_begin > 0 || !job->abandoned || !job->abandoned(job)) {
            worker->spans[kept] = span;
            worker->owners[kept++] = job;
            continue;
        }
        batch->rows -= span.row_count;
        pthread_mutex_lock(&batcher->lock);
        job->status = NSA_ECANCELED;
        job->rows_left -= span.row_count;
        if (job->rows_left == 0) {
            job->next = batch->dropped;
            batch->dropped = job;
        }
        pthread_mutex_unlock(&batcher->lock);
    }
    batch->span_count = kept;
}

/* Account for a batch that was computed, or not for want of memory; the lock is held. Returns the
 * jobs that are done with it. */
static nsa_job *settle_batch(const struct batch *batch, struct worker *worker, nsa_status status,
                             uint64_t now, uint64_t compute_ns)
{
    nsa_lane *lane = batch->lane;
    nsa_batcher *batcher = worker->batcher;
    nsa_job *done = batch->dropped;

    for (size_t i = 0; i < batch->span_count; i++) {
        nsa_job *job = worker->owners[i];

        job->rows_left -= worker->spans[i].row_count;
        if (batch->rows > job->batch_rows)
            job->batch_rows = batch->rows;
        if (status != NSA_OK)
            job->status = status;
        if (job->rows_left > 0)
            continue;
        job->compute_ns = now - job->started_ns;
        job->next = done;
        done = job;
    }
    if (batch->rows > 0 && status == NSA_OK) {
        double row_ns = (double)compute_ns / (double)batch->rows;
        double change = (row_ns - lane->row_ns) * MEAN_WEIGHT;

        lane->row_ns += change;
        batcher->queued_ns += change * (double)lane->queued_rows;
    }
    return done;
}

static void finish_jobs(nsa_lane *lane, nsa_job *job)
{
    nsa_batcher *batcher;
    size_t count = 0;

    /* With no job left to finish, another worker may have let the lane go. */
    if (!job)
        return;
    batcher = lane->batcher;
    while (job) {
        nsa_job *next = job->next;

        job->done(job, job->status);
        job = next;
        count++;
    }
    pthread_mutex_lock(&batcher->lock);
    lane->jobs -= count;
    if (lane->jobs == 0)
        pthread_cond_broadcast(&batcher->idle);
    pthread_mutex_unlock(&batcher->lock);
}

/* --- computing ----------------------------------------------------------------------------- */

static nsa_status grow_scratch(struct worker *worker, const nsa_model *model)
{
    size_t bytes = nsa_run_scratch_bytes(model);

    if (bytes <= worker->scratch_bytes)
        return NSA_OK;
    free(worker->scratch);
    worker->scratch_bytes = 0;
    worker->scratch = aligned_alloc(NSA_SCRATCH_ALIGN, bytes);
    if (!worker->scratch)
        return NSA_ENOMEM;
    worker->scratch_bytes = bytes;
    return NSA_OK;
}

void nsa_batch_compute(struct batch *batch, struct worker *worker)
{
    nsa_batcher *batcher = worker->batcher;
    nsa_lane *lane = batch->lane;
    nsa_status status = NSA_OK;
    nsa_job *done;
    uint64_t begin;
    uint64_t end;

    drop_abandoned(batch, worker);
    begin = nsa_now_ns();
    if (batch->rows > 0) {
        status = grow_scratch(worker, lane->model);
        if (status == NSA_OK)
            nsa_run(lane->model, worker->spans, batch->span_count, worker->scratch);
    }
    end = nsa_now_ns();
    if (batch->rows > 0 && status == NSA_OK && lane->batch_done)
        lane->batch_done(lane->context, batch->rows, end - begin);
    pthread_mutex_lock(&batcher->lock);
    done = settle_batch(batch, worker, status, end, end - begin);
    pthread_mutex_unlock(&batcher->lock);
    finish_jobs(batch->lane, done);
}
