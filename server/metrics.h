/* Counters and histograms, and their Prometheus text form. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include "server/buffer.h"

#include <nsa/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Every series exists, at zero, from creation on; every label value comes from the setup. */
struct metrics;

/* Methods that have series of their own; bits of metrics_route.methods. All others are "OTHER". */
enum metrics_method_bit { METRICS_GET = 1, METRICS_HEAD = 2, METRICS_POST = 4 };

struct metrics_route {
    const char *name; /* the label: the pattern, never a path from a request */
    unsigned methods; /* of enum metrics_method_bit; all others count as OTHER */
};

struct metrics_model {
    const char *model, *version, *op, *precision, *sha256;
};

/* All texts are copied. */
struct metrics_setup {
    const struct metrics_route *routes; /* `route` below is an index into it */
    size_t route_count;
    const struct metrics_model *models; /* (name, version) unique; `model` below is an index */
    size_t model_count;
    const char *version, *revision, *kernel; /* of nsad_build_info */
};

enum metrics_stage {
    METRICS_PARSE,
    METRICS_QUEUE,
    METRICS_COMPUTE,
    METRICS_ENCODE,
    METRICS_STAGE_COUNT
};

/* Why work was refused or dropped. */
enum metrics_reason {
    METRICS_QUEUE_FULL,
    METRICS_DEADLINE,
    METRICS_CLIENT_GONE,
    METRICS_BODY_TOO_LARGE,
    METRICS_SLOW_REQUEST,
    METRICS_NOT_READY,
    METRICS_REASON_COUNT
};

/* What others keep count of, read at the time of a scrape. */
struct metrics_gauges {
    uint64_t queue_rows, queue_bytes;
};

/**
 * Register every series at zero, models not ready.
 * @param[out] out  caller frees with metrics_free(); untouched on error
 * @return NSA_OK or NSA_ENOMEM
 */
nsa_status metrics_create(struct metrics **out, const struct metrics_setup *setup, nsa_error *err);

/* NULL is allowed. */
void metrics_free(struct metrics *m);

/* The slot of the op "select" with the model "select", which is always there. */
#define METRICS_SELECT_SLOT ((size_t)0)

/*
 * The slot that counts the requests of the setup's model `model`. All versions of a model share
 * one, and the model "select" of the op "select" has METRICS_SELECT_SLOT.
 */
size_t metrics_model_slot(const struct metrics *m, size_t model);

/* All of these are thread-safe, lock-free and never fail. */

/* `route` at or past route_count is "other", as is a code that the server has no series for. */
void metrics_count_request(struct metrics *m, size_t route, const char *method, unsigned code);
void metrics_observe_request(struct metrics *m, size_t slot, uint64_t duration_ns);
void metrics_observe_stage(struct metrics *m, enum metrics_stage stage, uint64_t duration_ns);
void metrics_observe_batch(struct metrics *m, size_t rows);
void metrics_add_rows(struct metrics *m, size_t slot, size_t rows);
void metrics_reject(struct metrics *m, enum metrics_reason reason);
void metrics_add_bytes(struct metrics *m, size_t request_bytes, size_t response_bytes);
void metrics_begin_request(struct metrics *m); /* one more in flight */
void metrics_end_request(struct metrics *m);
void metrics_set_model_ready(struct metrics *m, size_t model, bool ready);

/**
 * Append everything in text format 0.0.4 ("text/plain; version=0.0.4; charset=utf-8").
 * Thread-safe for distinct `out`; a failure is left in out->status.
 */
void metrics_write(const struct metrics *m, const struct metrics_gauges *gauges, buffer *out);

#endif
