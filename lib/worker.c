/* The loop of a worker's thread: wait until a batch is due, take it, compute it. */
#include "lib/batcher_parts.h"

#include <time.h>

/* How long `lane` lets a batch wait to fill up; 0: one is due. The lock is held. */
static uint64_t fill_time_left(const nsa_lane *lane, uint64_t now)
{
    uint64_t due_ns = lane->first->submitted_ns + lane->max_queue_delay_ns;

    /* Not past the deadline, when it is time to say so. */
    if (lane->first->deadline_ns != 0 && due_ns > lane->first->deadline_ns)
        due_ns = lane->first->deadline_ns;
    if (lane->queued_rows >= lane->max_batch_rows || lane->first->rows_taken > 0 ||
        lane->batcher->closing || now >= due_ns)
        return 0;
    return due_ns - now;
}

/*
 * Give the turn to the first lane in the circle whose batch is due; or return how long the next
 * one takes to be. The lock is held and the circle is not empty.
 */
static uint64_t next_due(nsa_batcher *batcher)
{
    uint64_t now = nsa_now_ns();
    uint64_t least = UINT64_MAX;
    nsa_lane *before = batcher->turn;

    do {
        uint64_t left = fill_time_left(before->next, now);

        if (left == 0) {
            batcher->turn = before;
            return 0;
        }
        least = left < least ? left : least;
        before = before->next;
    } while (before != batcher->turn);
    return least;
}

/* Wait until a batch is due and a place free; false when the pool closes and nothing is left. The
 * lock is held. */
static bool wait_for_work(nsa_batcher *batcher)
{
    for (;;) {
        uint64_t left;
        struct timespec until;

        if (!batcher->turn && batcher->closing)
            return false;
        if (!batcher->turn || batcher->free_place_count == 0) {
            pthread_cond_wait(&batcher->work, &batcher->lock);
            continue;
        }
        left = next_due(batcher);
        if (left == 0)
            return true;
        left += nsa_now_ns();
        until.tv_sec = (time_t)(left / NS_PER_S);
        until.tv_nsec = (long)(left % NS_PER_S);
        pthread_cond_timedwait(&batcher->work, &batcher->lock, &until);
    }
}

void *nsa_worker_main(void *argument)
{
    struct worker *worker = argument;
    nsa_batcher *batcher = worker->batcher;

    pthread_mutex_lock(&batcher->lock);
    while (wait_for_work(batcher)) {
        struct batch batch;

        worker->place = nsa_place_take(batcher);
        nsa_batch_form(&batch, worker);
        pthread_mutex_unlock(&batcher->lock);
        nsa_batch_compute(&batch, worker);
        pthread_mutex_lock(&batcher->lock);
    }
    pthread_mutex_unlock(&batcher->lock);
    return NULL;
}
