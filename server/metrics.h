/* Counters and histograms, and their Prometheus text form. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include "server/buffer.h"

#include <nsa/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Every series that is no model's exists, at zero, from creation on; a model's are there from
 * metrics_add_model() to metrics_remove_model(). Label values come from these and the setup alone.
 */
struct metrics;

/* What one loaded version of a model counts. */
struct metrics_model_series;

/* Methods that have series of their own; bits of metrics_route.methods. All others are "OTHER". */
enum metrics_method_bit { METRICS_GET = 1, METRICS_HEAD = 2, METRICS_POST = 4 };

struct metrics_route {
    const char *name; /* the label: the pattern, never a path from a request */
    unsigned methods; /* of enum metrics_method_bit; all others count as OTHER */
};

/* All texts are copied. */
struct metrics_setup {
    const struct metrics_route *routes; /* `route` below is an index into it */
    size_t route_count;
    const char *version, *revision, *kernel; /* of nsad_build_info */
};

/* The labels of a version of a model; all texts are copied. */
struct metrics_model {
    const char *model, *version, *op, *precision, *sha256;
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

/*
 * What a version's requests came to since it was added. Every success passed all stages and is one
 * inference, so that success_count is the count of each.
 */
struct metrics_statistics {
    uint64_t success_count, success_ns;
    uint64_t fail_count, fail_ns; /* of requests for this version that were refused or lost */
    uint64_t queue_ns;
    uint64_t compute_input_ns;  /* METRICS_PARSE */
    uint64_t compute_infer_ns;  /* METRICS_COMPUTE */
    uint64_t compute_output_ns; /* METRICS_ENCODE */
    uint64_t execution_count;   /* batches */
    uint64_t last_inference_ms; /* since 1970, of the last success; 0: none yet */
};

/* What others keep count of, read at the time of a scrape. */
struct metrics_gauges {
    uint64_t queue_rows, queue_bytes;
    uint64_t models_refused; /* versions, or whole models */
};

/**
 * Register the series at zero, and those of the op "select" with the model "select" for good.
 * @param[out] out  caller frees with metrics_free(); untouched on error
 * @return NSA_OK or NSA_ENOMEM
 */
nsa_status metrics_create(struct metrics **out, const struct metrics_setup *setup, nsa_error *err);

/* No model may be left. NULL is allowed. */
void metrics_free(struct metrics *m);

/**
 * Register a version of a model that was loaded, not ready. The series by op and model are shared
 * by all its versions, and statistics by those of the same op, model and version; both begin at
 * zero and keep their counts for as long as one is there. Of two with the same model and version,
 * as a reload has them, the newest that is ready is printed, or without one the newest.
 * @param[out] out  let go by metrics_remove_model(); untouched on error
 * @return NSA_OK or NSA_ENOMEM
 * Thread-safe.
 */
nsa_status metrics_add_model(struct metrics *m, struct metrics_model_series **out,
                             const struct metrics_model *labels, nsa_error *err);

/* Nobody may count in `series` any more. NULL is allowed. Thread-safe. */
void metrics_remove_model(struct metrics *m, struct metrics_model_series *series);

/* All of these are thread-safe, lock-free and never fail. */

/* `route` at or past route_count is "other", as is a code that the server has no series for. */
void metrics_count_request(struct metrics *m, size_t route, const char *method, unsigned code);
void metrics_reject(struct metrics *m, enum metrics_reason reason);
void metrics_add_bytes(struct metrics *m, size_t request_bytes, size_t response_bytes);
void metrics_begin_request(struct metrics *m); /* one more in flight */
void metrics_end_request(struct metrics *m);

void metrics_set_model_ready(struct metrics_model_series *series, bool ready);

/* A request that was answered, `duration_ns` after its first byte. */
void metrics_count_success(struct metrics *m, struct metrics_model_series *series,
                           const uint64_t stage_ns[METRICS_STAGE_COUNT], uint64_t duration_ns,
                           size_t rows);

/* A request that came to nothing after its model was found. */
void metrics_count_failure(struct metrics_model_series *series, uint64_t duration_ns);
void metrics_count_batch(struct metrics *m, struct metrics_model_series *series, size_t rows);

/* Each value stands alone: requests that end meanwhile may be in some and not yet in others. */
void metrics_read_statistics(const struct metrics_model_series *series,
                             struct metrics_statistics *out);

/**
 * Append everything in text format 0.0.4 ("text/plain; version=0.0.4; charset=utf-8").
 * Thread-safe for distinct `out`; a failure is left in out->status.
 */
void metrics_write(struct metrics *m, const struct metrics_gauges *gauges, buffer *out);

#endif
