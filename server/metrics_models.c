/* What each loaded version of a model counts, and what its versions count together. */
#include "server/metrics_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MS_PER_S UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)

/* --- slots --------------------------------------------------------------------------------- */

struct metrics_slot *metrics_hold_slot(struct metrics *m, const char *op, const char *model)
{
    const struct metrics_label pair[] = {{"op", op}, {"model", model}};
    char *labels = metrics_make_labels(pair, sizeof pair / sizeof *pair);
    struct metrics_slot **at = &m->slots;
    struct metrics_slot *slot;

    if (!labels)
        return NULL;
    while (*at && strcmp((*at)->labels, labels) < 0)
        at = &(*at)->next;
    if (*at && strcmp((*at)->labels, labels) == 0) {
        free(labels);
        (*at)->holders++;
        return *at;
    }
    slot = calloc(1, sizeof *slot);
    if (!slot) {
        free(labels);
        return NULL;
    }
    slot->labels = labels;
    slot->holders = 1;
    slot->next = *at;
    *at = slot;
    return slot;
}

void metrics_release_slot(struct metrics *m, struct metrics_slot *slot)
{
    struct metrics_slot **at = &m->slots;

    if (!slot || --slot->holders > 0)
        return;
    while (*at != slot)
        at = &(*at)->next;
    *at = slot->next;
    free(slot->labels);
    free(slot);
}

/* --- models -------------------------------------------------------------------------------- */

static void free_series(struct metrics_model_series *series)
{
    free(series->info_labels);
    free(series->ready_labels);
    free(series);
}

/* Without a slot, and in no list; NULL when memory ran out. */
static struct metrics_model_series *make_series(const struct metrics_model *labels)
{
    const struct metrics_label info[] = {{"model", labels->model},
                                         {"version", labels->version},
                                         {"op", labels->op},
                                         {"precision", labels->precision},
                                         {"sha256", labels->sha256}};
    struct metrics_model_series *series = calloc(1, sizeof *series);

    if (!series)
        return NULL;
    series->info_labels = metrics_make_labels(info, sizeof info / sizeof *info);
    series->ready_labels = metrics_make_labels(info, 2); /* the model and its version */
    if (!series->info_labels || !series->ready_labels) {
        free_series(series);
        return NULL;
    }
    return series;
}

/* Before those of the same labels, which are older. The lock is held. */
static void insert_series(struct metrics *m, struct metrics_model_series *series)
{
    struct metrics_model_series **at = &m->models;

    while (*at && strcmp((*at)->ready_labels, series->ready_labels) < 0)
        at = &(*at)->next;
    series->next = *at;
    *at = series;
}

/* The counts of the older one of the same op and labels, or new ones; NULL when memory ran out. The
 * lock is held. */
static struct metrics_counts *hold_counts(const struct metrics *m,
                                          const struct metrics_model_series *series)
{
    struct metrics_counts *counts;

    for (const struct metrics_model_series *other = m->models; other; other = other->next) {
        if (other->slot == series->slot && strcmp(other->ready_labels, series->ready_labels) == 0) {
            other->counts->holders++;
            return other->counts;
        }
    }
    counts = calloc(1, sizeof *counts);
    if (counts)
        counts->holders = 1;
    return counts;
}

nsa_status metrics_add_model(struct metrics *m, struct metrics_model_series **out,
                             const struct metrics_model *labels, nsa_error *err)
{
    struct metrics_model_series *series = make_series(labels);

    if (!series)
        return nsa_error_set(err, NSA_ENOMEM, "no memory for the metrics");
    pthread_mutex_lock(&m->lock);
    series->slot = metrics_hold_slot(m, labels->op, labels->model);
    if (series->slot)
        series->counts = hold_counts(m, series);
    if (series->counts)
        insert_series(m, series);
    else
        metrics_release_slot(m, series->slot);
    pthread_mutex_unlock(&m->lock);
    if (!series->counts) {
        free_series(series);
        return nsa_error_set(err, NSA_ENOMEM, "no memory for the metrics");
    }
    *out = series;
    return NSA_OK;
}

void metrics_remove_model(struct metrics *m, struct metrics_model_series *series)
{
    struct metrics_model_series **at;

    if (!series)
        return;
    pthread_mutex_lock(&m->lock);
    for (at = &m->models; *at != series; at = &(*at)->next)
        assert(*at);
    *at = series->next;
    metrics_release_slot(m, series->slot);
    if (--series->counts->holders == 0)
        free(series->counts);
    pthread_mutex_unlock(&m->lock);
    free_series(series);
}

/* --- counting ------------------------------------------------------------------------------ */

void metrics_set_model_ready(struct metrics_model_series *series, bool ready)
{
    atomic_store_explicit(&series->ready, ready, memory_order_relaxed);
}

static uint64_t milliseconds_since_1970(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * MS_PER_S + (uint64_t)now.tv_nsec / NS_PER_MS;
}

void metrics_count_success(struct metrics *m, struct metrics_model_series *series,
                           const uint64_t stage_ns[METRICS_STAGE_COUNT], uint64_t duration_ns,
                           size_t rows)
{
    for (size_t i = 0; i < METRICS_STAGE_COUNT; i++) {
        metrics_observe(&m->stages[i], &metrics_duration_ladder, stage_ns[i]);
        metrics_add(&series->counts->stage_ns[i], stage_ns[i]);
    }
    metrics_add(&series->slot->rows, rows);
    metrics_observe(&series->slot->duration, &metrics_duration_ladder, duration_ns);
    metrics_add(&series->counts->success_count, 1);
    metrics_add(&series->counts->success_ns, duration_ns);
    atomic_store_explicit(&series->counts->last_inference_ms, milliseconds_since_1970(),
                          memory_order_relaxed);
}

void metrics_count_failure(struct metrics_model_series *series, uint64_t duration_ns)
{
    metrics_add(&series->counts->fail_count, 1);
    metrics_add(&series->counts->fail_ns, duration_ns);
}

void metrics_count_batch(struct metrics *m, struct metrics_model_series *series, size_t rows)
{
    metrics_observe(&m->batch_rows, &metrics_rows_ladder, rows);
    metrics_add(&series->counts->execution_count, 1);
}

void metrics_read_statistics(const struct metrics_model_series *series,
                             struct metrics_statistics *out)
{
    *out = (struct metrics_statistics){
        .success_count = metrics_load(&series->counts->success_count),
        .success_ns = metrics_load(&series->counts->success_ns),
        .fail_count = metrics_load(&series->counts->fail_count),
        .fail_ns = metrics_load(&series->counts->fail_ns),
        .queue_ns = metrics_load(&series->counts->stage_ns[METRICS_QUEUE]),
        .compute_input_ns = metrics_load(&series->counts->stage_ns[METRICS_PARSE]),
        .compute_infer_ns = metrics_load(&series->counts->stage_ns[METRICS_COMPUTE]),
        .compute_output_ns = metrics_load(&series->counts->stage_ns[METRICS_ENCODE]),
        .execution_count = metrics_load(&series->counts->execution_count),
        .last_inference_ms = metrics_load(&series->counts->last_inference_ms),
    };
}
