/* What counting (metrics.c) and printing (metrics_text.c) share; no one else includes it. */
#ifndef SERVER_METRICS_INTERNAL_H
#define SERVER_METRICS_INTERNAL_H

#include "server/metrics.h"

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

struct slot_series {
    char *labels;
    counter rows;
    struct histogram duration;
};

struct model_series {
    char *info_labels, *ready_labels;
    size_t slot;
    atomic_bool ready;
};

struct metrics {
    struct route_series *routes; /* the last is "other" */
    size_t route_count;
    struct slot_series *slots;
    size_t slot_count;
    struct model_series *models;
    size_t model_count;
    char *build_labels;
    struct histogram stages[METRICS_STAGE_COUNT];
    struct histogram batch_rows;
    counter request_bytes, response_bytes, inflight;
    counter rejected[METRICS_REASON_COUNT];
};

#endif
