#include "server/metrics_internal.h"
#include "server/process_metrics.h"

#include <inttypes.h>
#include <string.h>

#define NS_PER_SECOND UINT64_C(1000000000)

struct family;

/* One scrape: where values come from and where text goes. */
struct scrape {
    const struct metrics *metrics;
    const struct metrics_gauges *gauges;
    buffer *out;
};

/* One metric: `write` appends its series; `offset` is of the value that a single series shows. */
struct family {
    const char *name, *type, *help;
    void (*write)(const struct scrape *scrape, const struct family *family);
    size_t offset;
};

/* "name{labels} value"; without labels no braces. */
static void append_series(buffer *out, const char *name, const char *labels, uint64_t value)
{
    buffer_append_text(out, name);
    if (labels) {
        buffer_append_text(out, "{");
        buffer_append_text(out, labels);
        buffer_append_text(out, "}");
    }
    buffer_printf(out, " %" PRIu64 "\n", value);
}

/* The name and the labels of a part of a histogram, up to where its own label or value follows. */
static void append_part(buffer *out, const char *name, const char *part, const char *labels)
{
    buffer_append_text(out, name);
    buffer_append_text(out, part);
    if (labels) {
        buffer_append_text(out, "{");
        buffer_append_text(out, labels);
    }
}

/*
 * Each bucket is read once and the count is made of what was read, so that within one scrape the
 * buckets never fall and +Inf equals the count.
 */
static void append_histogram(buffer *out, const char *name, const char *labels,
                             const struct histogram *h, const struct ladder *ladder)
{
    const char *comma = labels ? "," : "{";
    const char *close = labels ? "}" : "";
    uint64_t count = 0;
    uint64_t sum = metrics_load(&h->sum);

    for (size_t i = 0; i <= ladder->count; i++) {
        count += metrics_load(&h->buckets[i]);
        append_part(out, name, "_bucket", labels);
        buffer_printf(out, "%sle=\"%s\"} %" PRIu64 "\n", comma,
                      i < ladder->count ? ladder->bounds[i].text : "+Inf", count);
    }
    append_part(out, name, "_sum", labels);
    if (ladder->seconds)
        buffer_printf(out, "%s %" PRIu64 ".%09" PRIu64 "\n", close, sum / NS_PER_SECOND,
                      sum % NS_PER_SECOND);
    else
        buffer_printf(out, "%s %" PRIu64 "\n", close, sum);
    append_part(out, name, "_count", labels);
    buffer_printf(out, "%s %" PRIu64 "\n", close, count);
}

/* A route's own methods and OTHER, each with every code. */
static void write_requests(const struct scrape *s, const struct family *family)
{
    const struct metrics *m = s->metrics;

    for (size_t r = 0; r < m->route_count; r++) {
        const struct route_series *route = &m->routes[r];

        for (size_t i = 0; i < METRICS_METHOD_COUNT; i++) {
            const struct metrics_method *method = &metrics_methods[i];

            if (method->bit && !(route->methods & method->bit))
                continue;
            for (size_t c = 0; c < METRICS_CODE_COUNT; c++) {
                append_part(s->out, family->name, "", route->labels);
                buffer_printf(s->out, ",method=\"%s\",code=\"%s\"} %" PRIu64 "\n", method->name,
                              metrics_codes[c].text, metrics_load(&route->requests[i][c]));
            }
        }
    }
}

static void write_request_durations(const struct scrape *s, const struct family *family)
{
    for (const struct metrics_slot *slot = s->metrics->slots; slot; slot = slot->next)
        append_histogram(s->out, family->name, slot->labels, &slot->duration,
                         &metrics_duration_ladder);
}

static void write_stages(const struct scrape *s, const struct family *family)
{
    for (size_t i = 0; i < METRICS_STAGE_COUNT; i++)
        append_histogram(s->out, family->name, metrics_stage_labels[i], &s->metrics->stages[i],
                         &metrics_duration_ladder);
}

static void write_batch_rows(const struct scrape *s, const struct family *family)
{
    append_histogram(s->out, family->name, NULL, &s->metrics->batch_rows, &metrics_rows_ladder);
}

static void write_rows(const struct scrape *s, const struct family *family)
{
    for (const struct metrics_slot *slot = s->metrics->slots; slot; slot = slot->next)
        append_series(s->out, family->name, slot->labels, metrics_load(&slot->rows));
}

static void write_rejected(const struct scrape *s, const struct family *family)
{
    for (size_t i = 0; i < METRICS_REASON_COUNT; i++)
        append_series(s->out, family->name, metrics_reason_labels[i],
                      metrics_load(&s->metrics->rejected[i]));
}

static bool is_ready(const struct metrics_model_series *model)
{
    return atomic_load_explicit(&model->ready, memory_order_relaxed);
}

/*
 * Step past all series with the labels of *at, and return the one to print: the newest that is
 * ready, or without one the newest.
 */
static const struct metrics_model_series *next_model(const struct metrics_model_series **at)
{
    const struct metrics_model_series *newest = *at;
    const struct metrics_model_series *ready = NULL;

    for (; *at && strcmp((*at)->ready_labels, newest->ready_labels) == 0; *at = (*at)->next) {
        if (!ready && is_ready(*at))
            ready = *at;
    }
    return ready ? ready : newest;
}

static void write_model_info(const struct scrape *s, const struct family *family)
{
    const struct metrics_model_series *at = s->metrics->models;

    while (at)
        append_series(s->out, family->name, next_model(&at)->info_labels, 1);
}

static void write_model_ready(const struct scrape *s, const struct family *family)
{
    const struct metrics_model_series *at = s->metrics->models;

    while (at) {
        const struct metrics_model_series *model = next_model(&at);

        append_series(s->out, family->name, model->ready_labels, is_ready(model));
    }
}

static void write_build_info(const struct scrape *s, const struct family *family)
{
    append_series(s->out, family->name, s->metrics->build_labels, 1);
}

static void write_counter(const struct scrape *s, const struct family *family)
{
    const char *base = (const char *)s->metrics;

    append_series(s->out, family->name, NULL,
                  metrics_load((const counter *)(base + family->offset)));
}

static void write_gauge(const struct scrape *s, const struct family *family)
{
    const char *base = (const char *)s->gauges;

    append_series(s->out, family->name, NULL, *(const uint64_t *)(base + family->offset));
}

static const struct family families[] = {
    {"nsad_http_requests_total", "counter", "Requests answered, by route, method and status.",
     write_requests, 0},
    {"nsad_request_duration_seconds", "histogram",
     "Time from a request's first byte to its answer, by operation and model.",
     write_request_durations, 0},
    {"nsad_stage_duration_seconds", "histogram",
     "Time that requests spend in each stage: parse, queue, compute, encode.", write_stages, 0},
    {"nsad_batch_rows", "histogram", "Rows computed together in one batch.", write_batch_rows, 0},
    {"nsad_rows_total", "counter", "Rows computed, by operation and model.", write_rows, 0},
    {"nsad_request_bytes_total", "counter", "Bytes of request bodies as received.", write_counter,
     offsetof(struct metrics, request_bytes)},
    {"nsad_response_bytes_total", "counter", "Bytes of response bodies as sent.", write_counter,
     offsetof(struct metrics, response_bytes)},
    {"nsad_queue_rows", "gauge", "Rows waiting for a worker.", write_gauge,
     offsetof(struct metrics_gauges, queue_rows)},
    {"nsad_queue_bytes", "gauge", "Input and output bytes of the work waiting for a worker.",
     write_gauge, offsetof(struct metrics_gauges, queue_bytes)},
    {"nsad_inflight_requests", "gauge", "Requests that have begun and are not answered yet.",
     write_counter, offsetof(struct metrics, inflight)},
    {"nsad_rejected_total", "counter", "Requests refused or dropped, by reason.", write_rejected,
     0},
    {"nsad_model_info", "gauge", "What each model version is; always 1.", write_model_info, 0},
    {"nsad_model_ready", "gauge", "Whether a model version serves: 1 or 0.", write_model_ready, 0},
    {"nsad_models_refused", "gauge",
     "Model versions, or whole models, that are there and were refused; the log says why.",
     write_gauge, offsetof(struct metrics_gauges, models_refused)},
    {"nsad_build_info", "gauge", "What this server was built from, and its kernels; always 1.",
     write_build_info, 0},
};

void metrics_write(struct metrics *m, const struct metrics_gauges *gauges, buffer *out)
{
    const struct scrape scrape = {m, gauges, out};

    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const struct family *family = &families[i];

        buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", family->name, family->help, family->name,
                      family->type);
        family->write(&scrape, family);
    }
    pthread_mutex_unlock(&m->lock);
    process_metrics_write(out, "/proc");
}
