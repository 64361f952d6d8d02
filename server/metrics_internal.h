/*
 * What counting (metrics.c, metrics_models.c) and printing (metrics_text.c) share; no one else
 * includes it.
 */
#ifndef SERVER_METRICS_INTERNAL_H
#define SERVER_METRICS_INTERNAL_H

#include "server/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define METRICS_MAX_BUCKETS 20
#define METRICS_METHOD_COUNT 4
#define METRICS_CODE_COUNT 17

/* All accesses are relaxed: each value stands alone, and a scrape is no snapshot. */
typedef atomic_uint_least64_t counter;

/* Upper bounds of a histogram's buckets; the one above the last is +Inf. */
struct ladder {
    size_t count;
    bool seconds; /* values are nanoseconds, and sums are printed in seconds */
    struct {
        uint64_t most;
        const char *text;
    } bounds[METRICS_MAX_BUCKETS];
};

extern const struct ladder metrics_duration_ladder, metrics_rows_ladder;

/* The last row is what every other method counts as, and belongs to every route. */
struct metrics_method {
    const char *name;
    unsigned bit;
};

extern const struct metrics_method metrics_methods[METRICS_METHOD_COUNT];

/* Every status that the server answers; the last row is what any other would count as. */
struct metrics_code {
    unsigned code;
    const char *text;
};

extern const struct metrics_code metrics_codes[METRICS_CODE_COUNT];

extern const char *const metrics_stage_labels[METRICS_STAGE_COUNT];
extern const char *const metrics_reason_labels[METRICS_REASON_COUNT];

struct histogram {
    counter buckets[METRICS_MAX_BUCKETS + 1]; /* not cumulative; the ladder's count is +Inf */
    counter sum;
};

/* Labels are kept as they are printed, escaped: name="value",... */
struct route_series {
    char *labels;
    unsigned methods;
    counter requests[METRICS_METHOD_COUNT][METRICS_CODE_COUNT];
};

/* What the versions of a model count together. */
struct metrics_slot {
    struct metrics_slot *next;
    size_t holders; /* the series that refer to it, and the metrics if it is select's */
    char *labels;
    counter rows;
    struct histogram duration;
};

/* What a version counts; shared by those of the same labels, of which a reload has two. */
struct metrics_counts {
    size_t holders;
    counter success_count, success_ns, fail_count, fail_ns, execution_count, last_inference_ms;
    counter stage_ns[METRICS_STAGE_COUNT]; /* of the successes */
};

struct metrics_model_series {
    struct metrics_model_series *next;
    struct metrics_slot *slot;
    struct metrics_counts *counts;
    char *info_labels, *ready_labels;
    atomic_bool ready;
};

struct metrics {
    struct route_series *routes; /* the last is "other" */
    size_t route_count;
    char *build_labels;
    struct metrics_slot *select_slot; /* held for good */

    /* Guards the two lists, their `next` and all holders; not what is counted. */
    pthread_mutex_t lock;
    struct metrics_slot *slots;          /* by labels */
    struct metrics_model_series *models; /* by ready_labels, of the same the newest first */

    struct histogram stages[METRICS_STAGE_COUNT];
    struct histogram batch_rows;
    counter request_bytes, response_bytes, inflight;
    counter rejected[METRICS_REASON_COUNT];
};

/* --- metrics.c ----------------------------------------------------------------------------- */

struct metrics_label {
    const char *name, *value;
};

/* The labels as they are printed, which the caller frees; NULL when memory ran out. */
char *metrics_make_labels(const struct metrics_label *labels, size_t count);

uint64_t metrics_load(const counter *c);
void metrics_add(counter *c, uint64_t amount);
void metrics_observe(struct histogram *h, const struct ladder *ladder, uint64_t value);

/* --- metrics_models.c ---------------------------------------------------------------------- */

/*
 * Find or add the slot of `op` and `model`, with one more holder; NULL when memory ran out. The
 * lock is held, or nobody else knows `m`.
 */
struct metrics_slot *metrics_hold_slot(struct metrics *m, const char *op, const char *model);

/* Free `slot` with its last holder. NULL is allowed; the lock as above. */
void metrics_release_slot(struct metrics *m, struct metrics_slot *slot);

#endif
