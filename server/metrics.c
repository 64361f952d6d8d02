#include "server/metrics.h"

#include "server/metrics_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/*
 * Of one series, escaped. A model's name has at most CONFIG_MAX_TEXT_BYTES, each doubled by an
 * escape at worst, so that nothing that the program loads comes near it.
 */
#define MAX_LABELS_BYTES ((size_t)64 * 1024)

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

const struct ladder metrics_duration_ladder = {
    .count = 19,
    .seconds = true,
    .bounds = {{10000, "1e-05"},
               {25000, "2.5e-05"},
               {50000, "5e-05"},
               {100000, "0.0001"},
               {250000, "0.00025"},
               {500000, "0.0005"},
               {1000000, "0.001"},
               {2500000, "0.0025"},
               {5000000, "0.005"},
               {10000000, "0.01"},
               {25000000, "0.025"},
               {50000000, "0.05"},
               {100000000, "0.1"},
               {250000000, "0.25"},
               {500000000, "0.5"},
               {1000000000, "1"},
               {2500000000, "2.5"},
               {5000000000, "5"},
               {10000000000, "10"}},
};

const struct ladder metrics_rows_ladder = {
    .count = 17,
    .bounds = {{1, "1"},
               {2, "2"},
               {4, "4"},
               {8, "8"},
               {16, "16"},
               {32, "32"},
               {64, "64"},
               {128, "128"},
               {256, "256"},
               {512, "512"},
               {1024, "1024"},
               {2048, "2048"},
               {4096, "4096"},
               {8192, "8192"},
               {16384, "16384"},
               {32768, "32768"},
               {65536, "65536"}},
};

const struct metrics_method metrics_methods[METRICS_METHOD_COUNT] = {
    {"GET", METRICS_GET}, {"HEAD", METRICS_HEAD}, {"POST", METRICS_POST}, {"OTHER", 0}};

const struct metrics_code metrics_codes[METRICS_CODE_COUNT] = {
    {200, "200"}, {400, "400"}, {401, "401"}, {403, "403"}, {404, "404"}, {405, "405"},
    {406, "406"}, {408, "408"}, {413, "413"}, {415, "415"}, {429, "429"}, {499, "499"},
    {500, "500"}, {501, "501"}, {503, "503"}, {504, "504"}, {0, "other"}};

const char *const metrics_stage_labels[METRICS_STAGE_COUNT] = {
    [METRICS_PARSE] = "stage=\"parse\"",
    [METRICS_QUEUE] = "stage=\"queue\"",
    [METRICS_COMPUTE] = "stage=\"compute\"",
    [METRICS_ENCODE] = "stage=\"encode\"",
};

const char *const metrics_reason_labels[METRICS_REASON_COUNT] = {
    [METRICS_QUEUE_FULL] = "reason=\"queue_full\"",
    [METRICS_DEADLINE] = "reason=\"deadline\"",
    [METRICS_CLIENT_GONE] = "reason=\"client_gone\"",
    [METRICS_BODY_TOO_LARGE] = "reason=\"body_too_large\"",
    [METRICS_SLOW_REQUEST] = "reason=\"slow_request\"",
    [METRICS_NOT_READY] = "reason=\"not_ready\"",
};

/* --- labels ---------------------------------------------------------------------------------- */

static void append_escaped(buffer *b, const char *value)
{
    for (; *value; value++) {
        if (*value == '\n')
            buffer_append_text(b, "\\n");
        else if (*value == '"' || *value == '\\')
            buffer_printf(b, "\\%c", *value);
        else
            buffer_append(b, value, 1);
    }
}

char *metrics_make_labels(const struct metrics_label *labels, size_t count)
{
    buffer b = {.max_bytes = MAX_LABELS_BYTES};

    for (size_t i = 0; i < count; i++) {
        buffer_printf(&b, "%s%s=\"", i ? "," : "", labels[i].name);
        append_escaped(&b, labels[i].value);
        buffer_append_text(&b, "\"");
    }
    buffer_append(&b, "", 1);
    if (b.status != NSA_OK)
        buffer_free(&b);
    return b.data;
}

/* --- setup ----------------------------------------------------------------------------------- */

static bool add_route(struct metrics *m, const char *name, unsigned method_bits)
{
    const struct metrics_label label = {"route", name};
    struct route_series *series = &m->routes[m->route_count++];

    series->methods = method_bits;
    series->labels = metrics_make_labels(&label, 1);
    return series->labels != NULL;
}

static bool register_series(struct metrics *m, const struct metrics_setup *setup)
{
    const struct metrics_label build[] = {
        {"version", setup->version}, {"revision", setup->revision}, {"kernel", setup->kernel}};

    m->routes = calloc(setup->route_count + 1, sizeof *m->routes);
    if (!m->routes)
        return false;
    for (size_t i = 0; i < setup->route_count; i++) {
        if (!add_route(m, setup->routes[i].name, setup->routes[i].methods))
            return false;
    }
    if (!add_route(m, "other", METRICS_GET | METRICS_HEAD | METRICS_POST))
        return false;
    m->select_slot = metrics_hold_slot(m, "select", "select");
    m->build_labels = metrics_make_labels(build, COUNT_OF(build));
    return m->select_slot && m->build_labels;
}

nsa_status metrics_create(struct metrics **out, const struct metrics_setup *setup, nsa_error *err)
{
    struct metrics *m = calloc(1, sizeof *m);

    if (!m)
        return nsa_error_set(err, NSA_ENOMEM, "no memory for the metrics");
    pthread_mutex_init(&m->lock, NULL);
    if (!register_series(m, setup)) {
        metrics_free(m);
        return nsa_error_set(err, NSA_ENOMEM, "no memory for the metrics");
    }
    *out = m;
    return NSA_OK;
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    assert(!m->models);
    for (size_t i = 0; i < m->route_count; i++)
        free(m->routes[i].labels);
    metrics_release_slot(m, m->select_slot);
    pthread_mutex_destroy(&m->lock);
    free(m->routes);
    free(m->build_labels);
    free(m);
}

/* --- counting -------------------------------------------------------------------------------- */

uint64_t metrics_load(const counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

void metrics_add(counter *c, uint64_t amount)
{
    atomic_fetch_add_explicit(c, amount, memory_order_relaxed);
}

void metrics_observe(struct histogram *h, const struct ladder *ladder, uint64_t value)
{
    size_t bucket = 0;

    while (bucket < ladder->count && value > ladder->bounds[bucket].most)
        bucket++;
    metrics_add(&h->buckets[bucket], 1);
    metrics_add(&h->sum, value);
}

/* The row of `name` among the methods of a route; OTHER for one that the route does not have. */
static size_t find_method(const struct route_series *route, const char *name)
{
    size_t i = 0;

    while (i < METRICS_METHOD_COUNT - 1 && (!(route->methods & metrics_methods[i].bit) ||
                                            strcmp(metrics_methods[i].name, name) != 0))
        i++;
    return i;
}

static size_t find_code(unsigned code)
{
    size_t i = 0;

    while (i < METRICS_CODE_COUNT - 1 && metrics_codes[i].code != code)
        i++;
    return i;
}

void metrics_count_request(struct metrics *m, size_t route, const char *method, unsigned code)
{
    const size_t other = m->route_count - 1;
    struct route_series *series = &m->routes[route < other ? route : other];

    metrics_add(&series->requests[find_method(series, method)][find_code(code)], 1);
}

void metrics_reject(struct metrics *m, enum metrics_reason reason)
{
    metrics_add(&m->rejected[reason], 1);
}

void metrics_add_bytes(struct metrics *m, size_t request_bytes, size_t response_bytes)
{
    metrics_add(&m->request_bytes, request_bytes);
    metrics_add(&m->response_bytes, response_bytes);
}

void metrics_begin_request(struct metrics *m)
{
    metrics_add(&m->inflight, 1);
}

void metrics_end_request(struct metrics *m)
{
    atomic_fetch_sub_explicit(&m->inflight, 1, memory_order_relaxed);
}
