#include "server/pages.h"

#include "server/registry.h"
#include "server/server.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

extern const char openapi_yaml[];
extern const char openapi_yaml_end[];

static void answer_text(struct exchange *ex, unsigned status, const char *type, const char *text,
                        size_t size)
{
    buffer page = {.max_bytes = EXCHANGE_MAX_PAGE_BYTES};

    buffer_append(&page, text, size);
    answer_buffer(ex, status, type, &page);
}

static void answer_json(struct exchange *ex, unsigned status, const char *text)
{
    answer_text(ex, status, EXCHANGE_JSON, text, strlen(text));
}

void page_live(struct exchange *ex)
{
    answer_json(ex, 200, "{\"live\":true}\n");
}

void page_ready(struct exchange *ex)
{
    if (atomic_load(&ex->server->ready))
        answer_json(ex, 200, "{\"ready\":true}\n");
    else if (atomic_load(&ex->server->draining))
        answer_json(ex, 503, "{\"ready\":false,\"reason\":\"draining: the server is stopping\"}\n");
    else
        answer_json(ex, 503, "{\"ready\":false,\"reason\":\"loading models\"}\n");
}

static void write_model(buffer *out, const struct served_model *served)
{
    const nsa_model_info *info = nsa_model_describe(served->model);

    buffer_printf(out, "{\"name\": \"%s\", \"version\": \"%s\", \"op\": \"%s\"", served->name,
                  served->version_text, info->op->name);
    buffer_append_text(out, ", \"dimensions\": {");
    for (size_t i = 0; i < info->dim_count; i++)
        buffer_printf(out, "%s\"%s\": %zu", i ? ", " : "", info->dims[i].name, info->dims[i].value);
    buffer_printf(out, "}, \"precision\": \"%s\"", nsa_precision_name(info->precision));
    if (info->engine)
        buffer_printf(out, ", \"activation\": \"%s\", \"engine\": \"%s\"",
                      nsa_activation_name(info->activation), info->engine);
    if (info->op->has_weights)
        buffer_printf(out, ", \"sha256\": \"%s\", \"bytes\": %" PRIu64, info->sha256,
                      info->file_bytes);
    if (served->num_selected_blocks >= 0)
        buffer_printf(out, ", \"num_selected_blocks\": %" PRId64, served->num_selected_blocks);
    if (served->description) {
        buffer_append_text(out, ", \"description\": ");
        buffer_append_json_string(out, served->description);
    }
    buffer_append_text(out, "}");
}

void pages_write_models(buffer *out, const struct catalog *catalog)
{
    buffer_append_text(out, "{\"models\": [\n");
    for (size_t i = 0; i < catalog->count; i++) {
        write_model(out, catalog->models[i]);
        buffer_append_text(out, i + 1 < catalog->count ? ",\n" : "\n");
    }
    buffer_append_text(out, "]}\n");
}

const struct catalog *page_catalog(struct exchange *ex)
{
    const struct catalog *catalog = registry_acquire(ex->server->registry);

    if (!catalog)
        answer_error(ex, FAULT_NOT_READY, "the models are still loading");
    return catalog;
}

void page_models(struct exchange *ex)
{
    const struct catalog *catalog = page_catalog(ex);
    buffer page = {.max_bytes = EXCHANGE_MAX_PAGE_BYTES};

    if (!catalog)
        return;
    pages_write_models(&page, catalog);
    registry_release(ex->server->registry, catalog);
    answer_buffer(ex, 200, EXCHANGE_JSON, &page);
}

void page_metrics(struct exchange *ex)
{
    const nsa_batcher_stats stats = nsa_batcher_read_stats(ex->server->batcher);
    const struct catalog *catalog = registry_acquire(ex->server->registry);
    const struct metrics_gauges gauges = {stats.queued_rows, stats.queued_bytes,
                                          catalog ? catalog_count_refused(catalog) : 0};
    buffer page = {.max_bytes = EXCHANGE_MAX_PAGE_BYTES};

    registry_release(ex->server->registry, catalog);
    metrics_write(ex->metrics, &gauges, &page);
    answer_buffer(ex, 200, "text/plain; version=0.0.4; charset=utf-8", &page);
    answer_header(ex, "Vary", "Accept-Encoding");
    answer_compress(ex);
}

void page_openapi(struct exchange *ex)
{
    answer_text(ex, 200, "application/yaml", openapi_yaml,
                (size_t)(openapi_yaml_end - openapi_yaml));
}
