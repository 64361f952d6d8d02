/* Metrics under test: made with two routes, filled with models, read as a scrape reads them. */
#ifndef TESTS_SCRAPE_H
#define TESTS_SCRAPE_H

#include "server/metrics.h"
#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>

enum { ROUTE_SELECT, ROUTE_MODELS, ROUTE_OTHER };

static const struct metrics_route routes[] = {
    {"/v1/select", METRICS_POST},
    {"/v1/models", METRICS_GET | METRICS_HEAD},
};

static const struct metrics_setup setup = {routes, 2, "0.1.0", "r\"1", "avx2"};
static const struct metrics_gauges gauges = {11, 22, 33};

static inline struct metrics *created(void)
{
    struct metrics *m = NULL;

    assert_status(NSA_OK, metrics_create(&m, &setup, NULL));
    return m;
}

static inline struct metrics_model_series *added(struct metrics *m,
                                                 const struct metrics_model *labels)
{
    struct metrics_model_series *series = NULL;

    assert_status(NSA_OK, metrics_add_model(m, &series, labels, NULL));
    return series;
}

/* A scrape, NUL-terminated; the caller frees. */
static inline char *scraped(struct metrics *m)
{
    buffer out = {.max_bytes = (size_t)1 << 20};

    metrics_write(m, &gauges, &out);
    buffer_append(&out, "", 1);
    assert_status(NSA_OK, out.status);
    return out.data;
}

/* The text of the value of `series` in a scrape; NULL when it is not there. */
static inline const char *find_series(const char *text, const char *series)
{
    size_t size = strlen(series);

    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        if (strncmp(line, series, size) == 0 && line[size] == ' ')
            return line + size + 1;
    }
    return NULL;
}

static inline void expect(struct metrics *m, const char *series, double expected)
{
    char *text = scraped(m);
    const char *value = find_series(text, series);

    if (!value)
        fail_msg("no series %s", series);
    else if (strtod(value, NULL) != expected)
        fail_msg("%s: expected %.17g, got %.20s", series, expected, value);
    free(text);
}

#endif
