/* Forming batches and computing them. */
#include "lib/batcher_parts.h"

#include <stdlib.h>

/* Weight of the newest batch in the running mean of a row's cost. */
#define MEAN_WEIGHT 0.125

/* --- places and the queue, under the lock -------------------------------------------------- */

struct place *nsa_place_take(nsa_batcher *batcher)
{
    struct place *place = batcher->free_places;

    batcher->free_places = place->next;
    batcher->free_place_count--;
    return place;
}

void nsa_place_give(nsa_batcher *batcher, struct place *place)
{
    place->next = batcher->free_places;
    batcher->free_places = place;
    batcher->free_place_count++;
    if (batcher->turn)
        pthread_cond_signal(&batcher->work);
}

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
 * fair share, in whole units, while other places are free.
 */
static size_t batch_limit(const nsa_lane *lane)
{
    size_t unit = nsa_run_row_unit(lane->model);
    size_t sharing = (lane->batcher->free_place_count + 1) * unit;
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
    if (batcher->turn && batcher->free_place_count > 0)
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

/* Rows that cost as much as these do when they come alone. */
static double whole_units(const nsa_lane *lane, size_t rows)
{
    size_t unit = nsa_run_row_unit(lane->model);

    return (double)((rows + unit - 1) / unit * unit);
}

/* Let the lane's mean know what `rows` rows cost together; the lock is held. */
static void learn_cost(nsa_lane *lane, size_t rows, uint64_t compute_ns)
{
    double row_ns = (double)compute_ns / whole_units(lane, rows);
    double change = (row_ns - lane->row_ns) * (lane->measured ? MEAN_WEIGHT : 1);

    lane->measured = true;
    lane->row_ns += change;
    lane->batcher->queued_ns += change * (double)lane->queued_rows;
}

/* Account for a batch that was computed, or not for want of memory; the lock is held. Returns the
 * jobs that are done with it. */
static nsa_job *settle_batch(const struct batch *batch, struct worker *worker, nsa_status status,
                             uint64_t now, uint64_t compute_ns)
{
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
    if (batch->rows > 0 && status == NSA_OK)
        learn_cost(batch->lane, batch->rows, compute_ns);
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

static nsa_status grow_scratch(struct place *place, const nsa_model *model)
{
    size_t bytes = nsa_run_scratch_bytes(model);

    if (bytes <= place->scratch_bytes)
        return NSA_OK;
    free(place->scratch);
    place->scratch_bytes = 0;
    place->scratch = aligned_alloc(NSA_SCRATCH_ALIGN, bytes);
    if (!place->scratch)
        return NSA_ENOMEM;
    place->scratch_bytes = bytes;
    return NSA_OK;
}

/* Compute and tell the lane's owner; 0 without memory, else nanoseconds, at least 1. */
static uint64_t compute(const nsa_lane *lane, struct place *place, const nsa_span *spans,
                        size_t span_count, size_t rows)
{
    uint64_t begin = nsa_now_ns();
    uint64_t compute_ns;

    if (grow_scratch(place, lane->model) != NSA_OK)
        return 0;
    nsa_run(lane->model, spans, span_count, place->scratch);
    compute_ns = nsa_now_ns() - begin;
    if (lane->batch_done)
        lane->batch_done(lane->context, rows, compute_ns);
    return compute_ns > 0 ? compute_ns : 1;
}

void nsa_batch_compute(struct batch *batch, struct worker *worker)
{
    nsa_batcher *batcher = worker->batcher;
    nsa_lane *lane = batch->lane;
    nsa_status status = NSA_OK;
    nsa_job *done;
    uint64_t compute_ns = 0;

    drop_abandoned(batch, worker);
    if (batch->rows > 0) {
        compute_ns = compute(lane, worker->place, worker->spans, batch->span_count, batch->rows);
        status = compute_ns > 0 ? NSA_OK : NSA_ENOMEM;
    }
    pthread_mutex_lock(&batcher->lock);
    nsa_place_give(batcher, worker->place);
    done = settle_batch(batch, worker, status, nsa_now_ns(), compute_ns);
    pthread_mutex_unlock(&batcher->lock);
    finish_jobs(batch->lane, done);
}

/*
 * Whether nobody would wait for the place, and the work is known to be short; the lock is held.
 * Rows that are less than a unit cost about as much as one: then gathering is what saves most, and
 * only half the time is short.
 */
static bool may_run_here(const nsa_lane *lane, size_t rows, uint64_t most_ns)
{
    const nsa_batcher *batcher = lane->batcher;
    uint64_t limit_ns = rows < nsa_run_row_unit(lane->model) ? most_ns / 2 : most_ns;

    return nsa_run_rows_alike(lane->model) && batcher->free_place_count > 0 &&
           batcher->queued_rows == 0 && !batcher->closing && lane->max_queue_delay_ns == 0 &&
           rows <= lane->max_batch_rows && lane->measured &&
           whole_units(lane, rows) * lane->row_ns <= (double)limit_ns;
}

bool nsa_lane_run(nsa_lane *lane, const nsa_request *request, uint64_t most_ns)
{
    const nsa_span all = {request, 0, request->rows};
    nsa_batcher *batcher = lane->batcher;
    struct place *place = NULL;
    uint64_t compute_ns;

    pthread_mutex_lock(&batcher->lock);
    if (may_run_here(lane, request->rows, most_ns)) {
        place = nsa_place_take(batcher);
        lane->jobs++;
    }
    pthread_mutex_unlock(&batcher->lock);
    if (!place)
        return false;
    compute_ns = compute(lane, place, &all, 1, request->rows);
    pthread_mutex_lock(&batcher->lock);
    nsa_place_give(batcher, place);
    if (compute_ns > 0)
        learn_cost(lane, request->rows, compute_ns);
    if (--lane->jobs == 0)
        pthread_cond_broadcast(&batcher->idle);
    pthread_mutex_unlock(&batcher->lock);
    return compute_ns > 0;
}
