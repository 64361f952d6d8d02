/*
 * The pool from the inside: batcher.c opens, closes and submits; batch.c forms batches and computes
 * them; worker.c is the threads' loop.
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
    size_t jobs;                 /* submitted and not done */
    double row_ns;               /* running mean of a row's cost on one worker */
};

struct worker {
    nsa_batcher *batcher;
    pthread_t thread;
    void *scratch; /* grows to what the largest model asks for */
    size_t scratch_bytes;
    nsa_span *spans;  /* (NSA_MAX_BATCH_ROWS): a batch has no more spans than rows */
    nsa_job **owners; /* (NSA_MAX_BATCH_ROWS): the job of each span */
};

struct nsa_batcher {
    nsa_batcher_options options;
    struct worker *workers;
    size_t started;

    /* Guards all below, and what lanes and jobs say is guarded by it. */
    pthread_mutex_t lock;
    pthread_cond_t work; /* a lane has rows, or the pool is closing */
    pthread_cond_t idle; /* a job is done */
    nsa_lane *turn;      /* the lane behind the one whose turn it is, or NULL; a circular list */
    size_t idle_workers;
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

/* Fill `batch` from the lane whose turn it is; the lock is held. */
void nsa_batch_form(struct batch *batch, struct worker *worker);

/* Compute `batch`, account for it and call back for the jobs that are done; under no lock. */
void nsa_batch_compute(struct batch *batch, struct worker *worker);

/* A worker's thread; `argument` is its struct worker. */
void *nsa_worker_main(void *argument);

#endif
