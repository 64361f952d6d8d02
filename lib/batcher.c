/* Opening, closing and submitting; see batcher_parts.h. */
#include "lib/batcher_parts.h"

#include <nsa/size.h>
#include <stdlib.h>
#include <time.h>

/* What one row is taken to cost before any was measured. */
#define FIRST_ROW_NS 1000.0

uint64_t nsa_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* --- opening and closing ------------------------------------------------------------------- */

static nsa_status start_worker(nsa_batcher *batcher, nsa_error *err)
{
    struct worker *worker = &batcher->workers[batcher->started];

    worker->batcher = batcher;
    worker->spans = calloc(NSA_MAX_BATCH_ROWS, sizeof *worker->spans);
    worker->owners = calloc(NSA_MAX_BATCH_ROWS, sizeof(nsa_job *));
    if (!worker->spans || !worker->owners ||
        pthread_create(&worker->thread, NULL, nsa_worker_main, worker) != 0) {
        free(worker->owners);
        free(worker->spans);
        return nsa_error_set(err, NSA_ENOMEM, "cannot start worker %zu of %zu",
                             batcher->started + 1, batcher->options.worker_count);
    }
    batcher->started++;
    return NSA_OK;
}

nsa_status nsa_batcher_open(nsa_batcher **out, const nsa_batcher_options *options, nsa_error *err)
{
    nsa_batcher *batcher;
    pthread_condattr_t monotonic;
    nsa_status status = NSA_OK;

    if (options->worker_count < 1 || options->worker_count > NSA_MAX_WORKERS)
        return nsa_error_set(err, NSA_EINVAL, "worker_count: expected 1 to %d, got %zu",
                             NSA_MAX_WORKERS, options->worker_count);
    batcher = calloc(1, sizeof *batcher);
    if (!batcher)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the batcher");
    batcher->options = *options;
    pthread_mutex_init(&batcher->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&batcher->work, &monotonic);
    pthread_cond_init(&batcher->idle, NULL);
    pthread_condattr_destroy(&monotonic);
    batcher->workers = calloc(options->worker_count, sizeof *batcher->workers);
    batcher->places = calloc(options->worker_count, sizeof *batcher->places);
    if (!batcher->workers || !batcher->places)
        status = nsa_error_set(err, NSA_ENOMEM, "out of memory for the batcher");
    for (size_t i = 0; batcher->places && i < options->worker_count; i++)
        nsa_place_give(batcher, &batcher->places[i]);
    while (status == NSA_OK && batcher->started < options->worker_count)
        status = start_worker(batcher, err);
    if (status != NSA_OK) {
        nsa_batcher_close(batcher);
        return status;
    }
    *out = batcher;
    return NSA_OK;
}

void nsa_batcher_close(nsa_batcher *batcher)
{
    if (!batcher)
        return;
    pthread_mutex_lock(&batcher->lock);
    batcher->closing = true;
    pthread_cond_broadcast(&batcher->work);
    pthread_mutex_unlock(&batcher->lock);
    for (size_t i = 0; i < batcher->started; i++) {
        pthread_join(batcher->workers[i].thread, NULL);
        free(batcher->workers[i].owners);
        free(batcher->workers[i].spans);
    }
    for (size_t i = 0; batcher->places && i < batcher->options.worker_count; i++)
        free(batcher->places[i].scratch);
    pthread_cond_destroy(&batcher->idle);
    pthread_cond_destroy(&batcher->work);
    pthread_mutex_destroy(&batcher->lock);
    free(batcher->places);
    free(batcher->workers);
    free(batcher);
}

nsa_status nsa_lane_open(nsa_lane **out, nsa_batcher *batcher, nsa_model *model,
                         const nsa_lane_options *options, nsa_error *err)
{
    nsa_lane *lane;

    if (options->max_batch_rows < 1 || options->max_batch_rows > NSA_MAX_BATCH_ROWS)
        return nsa_error_set(err, NSA_EINVAL, "max_batch_rows: expected 1 to %zu, got %zu",
                             NSA_MAX_BATCH_ROWS, options->max_batch_rows);
    lane = calloc(1, sizeof *lane);
    if (!lane)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for a queue");
    lane->batcher = batcher;
    lane->model = nsa_model_ref(model);
    lane->max_batch_rows = options->max_batch_rows;
    lane->batch_done = options->batch_done;
    lane->context = options->context;
    lane->max_queue_delay_ns = options->max_queue_delay_ns;
    lane->row_ns = FIRST_ROW_NS;
    *out = lane;
    return NSA_OK;
}

void nsa_lane_close(nsa_lane *lane)
{
    nsa_batcher *batcher;

    if (!lane)
        return;
    batcher = lane->batcher;
    pthread_mutex_lock(&batcher->lock);
    lane->max_queue_delay_ns = 0; /* nothing more will come to fill a batch */
    pthread_cond_broadcast(&batcher->work);
    while (lane->jobs > 0)
        pthread_cond_wait(&batcher->idle, &batcher->lock);
    pthread_mutex_unlock(&batcher->lock);
    nsa_model_unref(lane->model);
    free(lane);
}

/* --- submitting ---------------------------------------------------------------------------- */

static void lane_enter_circle(nsa_lane *lane)
{
    nsa_batcher *batcher = lane->batcher;

    if (batcher->turn) {
        lane->next = batcher->turn->next;
        batcher->turn->next = lane;
    } else {
        lane->next = lane;
    }
    batcher->turn = lane;
}

/* The work waiting before a job submitted now, shared by all workers. */
static double predicted_wait_ns(const nsa_batcher *batcher)
{
    if (batcher->free_place_count > 0 && batcher->queued_rows == 0)
        return 0;
    if (batcher->queued_ns < 0) /* by rounding, beside a longer queue than is left */
        return 0;
    return batcher->queued_ns / (double)batcher->options.worker_count;
}

/* Input and output bytes of a planned request. */
static size_t request_bytes(const nsa_request *request)
{
    size_t total = 0;
    size_t bytes;

    if (nsa_shape_bytes(&bytes, &request->input.shape, request->input.dtype, NULL) == NSA_OK)
        total = bytes;
    for (size_t i = 0; i < request->output_count; i++) {
        const nsa_tensor *output = &request->outputs[i];

        if (nsa_shape_bytes(&bytes, &output->shape, output->dtype, NULL) != NSA_OK ||
            !nsa_size_add(&total, total, bytes))
            return SIZE_MAX;
    }
    return total;
}

/* Whether there is room and time for `job`; the lock is held. */
static nsa_status admit(const nsa_batcher *batcher, const nsa_job *job, uint64_t now,
                        uint64_t *retry_after_ns, nsa_error *err)
{
    double wait_ns = predicted_wait_ns(batcher);
    size_t queued = batcher->queued_bytes;

    if (job->deadline_ns != 0 && now >= job->deadline_ns)
        return nsa_error_set(err, NSA_ETIMEDOUT,
                             "the deadline passed before the request was queued");
    *retry_after_ns = (uint64_t)wait_ns;
    if (queued > 0 && (job->bytes > batcher->options.max_queue_bytes ||
                       queued > batcher->options.max_queue_bytes - job->bytes))
        return nsa_error_set(err, NSA_EFULL,
                             "the queue is full: expected room for %zu bytes, %zu of %zu are taken",
                             job->bytes, queued, batcher->options.max_queue_bytes);
    if (job->deadline_ns != 0 && wait_ns > (double)(job->deadline_ns - now))
        return nsa_error_set(err, NSA_EFULL,
                             "the queue is full: the wait would be %.0f ms, and the deadline is in "
                             "%.0f ms",
                             wait_ns / 1e6, (double)(job->deadline_ns - now) / 1e6);
    return NSA_OK;
}

nsa_status nsa_lane_submit(nsa_lane *lane, nsa_job *job, uint64_t *retry_after_ns, nsa_error *err)
{
    nsa_batcher *batcher = lane->batcher;
    uint64_t now = nsa_now_ns();
    nsa_status status;

    job->next = NULL;
    job->bytes = request_bytes(job->request);
    job->submitted_ns = now;
    job->started_ns = job->queue_ns = job->compute_ns = 0;
    job->rows_taken = job->batch_rows = 0;
    job->rows_left = job->request->rows;
    job->status = NSA_OK;
    pthread_mutex_lock(&batcher->lock);
    status = admit(batcher, job, now, retry_after_ns, err);
    if (status == NSA_OK) {
        if (lane->last)
            lane->last->next = job;
        else
            lane->first = job;
        lane->last = job;
        if (lane->queued_rows == 0)
            lane_enter_circle(lane);
        lane->jobs++;
        lane->queued_rows += job->rows_left;
        batcher->queued_rows += job->rows_left;
        batcher->queued_bytes += job->bytes;
        batcher->queued_ns += (double)job->rows_left * lane->row_ns;
    }
    pthread_mutex_unlock(&batcher->lock);
    if (status == NSA_OK)
        pthread_cond_signal(&batcher->work); /* not sooner: whom it wakes wants the lock */
    return status;
}

nsa_batcher_stats nsa_batcher_read_stats(nsa_batcher *batcher)
{
    nsa_batcher_stats stats;

    pthread_mutex_lock(&batcher->lock);
    stats.queued_rows = batcher->queued_rows;
    stats.queued_bytes = batcher->queued_bytes;
    stats.predicted_wait_ns = (uint64_t)predicted_wait_ns(batcher);
    pthread_mutex_unlock(&batcher->lock);
    return stats;
}
