/*
 * The pool from the inside: batcher.c opens, closes and submits; batch.c forms batches and computes
 * them, or a request on its asker's thread; worker.c is the threads' loop.
 *
 * There are as many places to compute in as workers; who computes holds one, be it a worker or a
 * thread that computes its own request. A place that is free while rows wait is a worker's to take.
 *
 * One lock guards every queue. A worker holds it to take a batch and to account for it, never while
 * it computes or calls back.
 */
#ifndef NSA_BATCHER_PARTS_H
#define NSA_BATCHER_PARTS_H

#include <nsa/batcher.h>
#include <pthread.h>

#define NS_PER_S UINT64_C(1000000000)

struct nsa_lane {
    nsa_batcher *batcher;
    nsa_model *model;
    size_t max_batch_rows;
    void (*batch_done)(void *context, size_t rows, uint64_t compute_ns); /* or NULL */
    void *context;

    /* Guarded by the batcher's lock. */
    uint64_t max_queue_delay_ns; /* 0 once the lane is closing */
    nsa_lane *next;              /* in the circle of lanes with rows waiting */
    nsa_job *first, *last;       /* jobs with rows not yet taken, oldest first */
    size_t queued_rows;          /* of those jobs, not yet taken */
    size_t jobs;                 /* submitted and not done, or computed on their askers' threads */
    double row_ns;               /* running mean of a row's cost on one worker */
    bool measured;               /* it is, not a guess */
};

/* Memory to compute in. */
struct place {
    struct place *next; /* of the free ones */
    void *scratch;      /* grows to what the largest model asks for */
    size_t scratch_bytes;
};

struct worker {
    nsa_batcher *batcher;
    pthread_t thread;
    struct place *place; /* while it has a batch */
    nsa_span *spans;     /* (NSA_MAX_BATCH_ROWS): a batch has no more spans than rows */
    nsa_job **owners;    /* (NSA_MAX_BATCH_ROWS): the job of each span */
};

struct nsa_batcher {
    nsa_batcher_options options;
    struct worker *workers; /* (worker_count), of which `started` run */
    size_t started;
    struct place *places; /* (worker_count) */

    /* Guards all below, and what lanes and jobs say is guarded by it. */
    pthread_mutex_t lock;
    pthread_cond_t work; /* a lane has rows and a place is free, or the pool is closing */
    pthread_cond_t idle; /* a job is done */
    nsa_lane *turn;      /* the lane behind the one whose turn it is, or NULL; a circular list */
    struct place *free_places;
    size_t free_place_count;
    size_t queued_rows;
    size_t queued_bytes;
    double queued_ns; /* predicted work waiting, on one worker */
    bool closing;
};

/* What a worker takes of one lane at a time. */
struct batch {
    nsa_lane *lane;    /* gone once its last job is done, which a batch without rows may outlive */
    size_t span_count; /* of the worker's spans and owners */
    size_t rows;
    nsa_job *dropped; /* jobs that lost their last rows to a deadline or a departure */
};

/* Take a free place, of which there must be one, or give it back; the lock is held. */
struct place *nsa_place_take(nsa_batcher *batcher);
void nsa_place_give(nsa_batcher *batcher, struct place *place);

/* Fill `batch` from the lane whose turn it is; the lock is held. */
void nsa_batch_form(struct batch *batch, struct worker *worker);

/*
 * Compute `batch` in the worker's place, give that back, account for the batch and call back for
 * the jobs that are done; under no lock.
 */
void nsa_batch_compute(struct batch *batch, struct worker *worker);

/* A worker's thread; `argument` is its struct worker. */
void *nsa_worker_main(void *argument);

#endif
