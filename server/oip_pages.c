#include "server/oip_pages.h"

#include "server/body.h"
#include "server/oip.h"
#include "server/pages.h"
#include "server/registry.h"
#include "server/server.h"
#include "server/version.h"

#include <inttypes.h>
#include <string.h>

void oip_server(struct exchange *ex)
{
    buffer page = {.max_bytes = EXCHANGE_MAX_PAGE_BYTES};

    buffer_printf(&page,
                  "{\"name\":\"nsad\",\"version\":\"%s\",\"extensions\":[\"binary_tensor_data\","
                  "\"parameters\",\"statistics\",\"model_configuration\",\"model_repository\","
                  "\"model_repository(unload_dependents)\",\"logging\"%s]}\n",
                  nsad_version, ex->server->shared_memory ? ",\"system_shared_memory\"" : "");
    answer_buffer(ex, 200, EXCHANGE_JSON, &page);
}

void oip_answer_empty(struct exchange *ex)
{
    buffer page = {.max_bytes = EXCHANGE_MAX_PAGE_BYTES};

    buffer_append_text(&page, "{}\n");
    answer_buffer(ex, 200, EXCHANGE_JSON, &page);
}

bool oip_read_body(json_document **out, struct exchange *ex, const json_place *places)
{
    static const json_place none = {0};
    nsa_status status;
    nsa_error err;

    if (!body_decode(ex))
        return false;
    if (ex->body_bytes == 0)
        return true;
    status = json_document_open(out, ex->body, ex->body_bytes, places ? places : &none, &err);
    if (status != NSA_OK)
        answer_failure(ex, status, &err);
    return status == NSA_OK;
}

/* --- one model ----------------------------------------------------------------------------- */

/* The catalog, to be released, with the model that the path names; NULL, and an answer, if none. */
static const struct catalog *find_model(const struct served_model **out, struct exchange *ex)
{
    const struct catalog *catalog = page_catalog(ex);
    nsa_status status;
    nsa_error err;

    if (!catalog)
        return NULL;
    status = catalog_find(out, catalog, NULL, ex->params[0], *ex->params[1] ? ex->params[1] : NULL,
                          &err);
    if (status == NSA_OK)
        return catalog;
    registry_release(ex->server->registry, catalog);
    answer_failure(ex, status, &err);
    return NULL;
}

/* How an endpoint spells what it says of a tensor. */
struct spelling {
    const char *datatype_key, *datatype_prefix, *shape_key, *optional;
};

static const struct spelling metadata = {"datatype", "", "shape", ""};
static const struct spelling configuration = {"data_type", "TYPE_", "dims", ",\"optional\":true"};

static void write_tensor(buffer *out, const struct spelling *spelling, const nsa_model_info *info,
                         const nsa_tensor_spec *spec)
{
    buffer_printf(out, "{\"name\":\"%s\",\"%s\":\"%s%s\",\"%s\":[", spec->name,
                  spelling->datatype_key, spelling->datatype_prefix, oip_datatype(spec->dtype),
                  spelling->shape_key);
    for (size_t i = 0; i < spec->rank; i++)
        buffer_printf(out, "%s%" PRId64, i ? "," : "", oip_dimension(info, spec, i));
    buffer_append_text(out, "]");
}

/* The op's tensor and those that may stand for params. */
static void write_inputs(buffer *out, const struct spelling *spelling, const nsa_model_info *info)
{
    write_tensor(out, spelling, info, &info->op->input);
    buffer_append_text(out, "}");
    for (size_t i = 0; i < info->op->param_count; i++) {
        const nsa_param_spec *param = &info->op->params[i];

        if (oip_param_is_input(param))
            buffer_printf(out, ",{\"name\":\"%s\",\"%s\":\"%sINT64\",\"%s\":[1]%s}", param->name,
                          spelling->datatype_key, spelling->datatype_prefix, spelling->shape_key,
                          spelling->optional);
    }
}

static void write_outputs(buffer *out, const struct spelling *spelling, const nsa_model_info *info)
{
    for (size_t i = 0; i < info->op->output_count; i++) {
        buffer_append_text(out, i ? "," : "");
        write_tensor(out, spelling, info, &info->op->outputs[i]);
        buffer_append_text(out, "}");
    }
}

/* All versions, the lowest first, as "1","2". */
static void write_versions(buffer *out, const struct catalog *catalog, const char *name)
{
    const char *comma = "";

    for (size_t i = catalog->count; i-- > 0;) {
        if (strcmp(catalog->models[i]->name, name) != 0)
            continue;
        buffer_printf(out, "%s\"%s\"", comma, catalog->models[i]->version_text);
        comma = ",";
    }
}

void oip_model(struct exchange *ex)
{
    buffer page = {.max_bytes = EXCHANGE_MAX_PAGE_BYTES};
    const struct served_model *served;
    const struct catalog *catalog = find_model(&served, ex);
    const nsa_model_info *info;

    if (!catalog)
        return;
    info = nsa_model_describe(served->model);
    buffer_printf(&page, "{\"name\":\"%s\",\"versions\":[", served->name);
    write_versions(&page, catalog, served->name);
    buffer_printf(&page, "],\"platform\":\"nsa_%s\",\"inputs\":[", info->op->name);
    write_inputs(&page, &metadata, info);
    buffer_append_text(&page, "],\"outputs\":[");
    write_outputs(&page, &metadata, info);
    buffer_append_text(&page, "]}\n");
    registry_release(ex->server->registry, catalog);
    answer_buffer(ex, 200, EXCHANGE_JSON, &page);
}

void oip_model_config(struct exchange *ex)
{
    buffer page = {.max_bytes = EXCHANGE_MAX_PAGE_BYTES};
    const struct served_model *served;
    const struct catalog *catalog = find_model(&served, ex);
    const nsa_model_info *info;

    if (!catalog)
        return;
    info = nsa_model_describe(served->model);
    /* No batch dimension: rows of any leading dimensions are gathered anyway. */
    buffer_printf(&page,
                  "{\"name\":\"%s\",\"platform\":\"nsa_%s\",\"backend\":\"nsa\","
                  "\"max_batch_size\":0,\"input\":[",
                  served->name, info->op->name);
    write_inputs(&page, &configuration, info);
    buffer_append_text(&page, "],\"output\":[");
    write_outputs(&page, &configuration, info);
    buffer_printf(&page,
                  "],\"dynamic_batching\":{\"preferred_batch_size\":[%zu],"
                  "\"max_queue_delay_microseconds\":%" PRIu64 "}}\n",
                  served->lane_options.max_batch_rows,
                  served->lane_options.max_queue_delay_ns / 1000);
    registry_release(ex->server->registry, catalog);
    answer_buffer(ex, 200, EXCHANGE_JSON, &page);
}

void oip_model_ready(struct exchange *ex)
{
    const struct served_model *served;
    const struct catalog *catalog;

    if (atomic_load(&ex->server->draining)) {
        answer_error(ex, FAULT_NOT_READY, "draining: the server is stopping");
        return;
    }
    catalog = find_model(&served, ex);
    if (!catalog)
        return;
    registry_release(ex->server->registry, catalog);
    answer_bytes(ex, 200, NULL, NULL, 0, NULL);
}

/* --- statistics ---------------------------------------------------------------------------- */

/* Nothing is cached, and clients read those keys all the same. */
static void write_durations(buffer *out, const struct metrics_statistics *s)
{
    const struct {
        const char *name;
        uint64_t count, ns;
    } durations[] = {
        {"success", s->success_count, s->success_ns},
        {"fail", s->fail_count, s->fail_ns},
        {"queue", s->success_count, s->queue_ns},
        {"compute_input", s->success_count, s->compute_input_ns},
        {"compute_infer", s->success_count, s->compute_infer_ns},
        {"compute_output", s->success_count, s->compute_output_ns},
        {"cache_hit", 0, 0},
        {"cache_miss", 0, 0},
    };

    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++)
        buffer_printf(out, "%s\"%s\":{\"count\":%" PRIu64 ",\"ns\":%" PRIu64 "}", i ? "," : "",
                      durations[i].name, durations[i].count, durations[i].ns);
}

static void write_statistics(buffer *out, const struct served_model *served)
{
    struct metrics_statistics s;

    metrics_read_statistics(served->series, &s);
    buffer_printf(out,
                  "{\"name\":\"%s\",\"version\":\"%s\",\"last_inference\":%" PRIu64
                  ",\"inference_count\":%" PRIu64 ",\"execution_count\":%" PRIu64
                  ",\"inference_stats\":{",
                  served->name, served->version_text, s.last_inference_ms, s.success_count,
                  s.execution_count);
    write_durations(out, &s);
    buffer_append_text(out, "},\"batch_stats\":[]}");
}

/* Of one version, of all versions of a model, or of all models. */
void oip_statistics(struct exchange *ex)
{
    buffer page = {.max_bytes = EXCHANGE_MAX_PAGE_BYTES};
    const struct served_model *wanted = NULL;
    const struct catalog *catalog;
    const char *comma = "";

    catalog = *ex->params[0] ? find_model(&wanted, ex) : page_catalog(ex);
    if (!catalog)
        return;
    buffer_append_text(&page, "{\"model_stats\":[");
    for (size_t i = 0; i < catalog->count; i++) {
        const struct served_model *served = catalog->models[i];

        if (wanted && (strcmp(served->name, wanted->name) != 0 ||
                       (*ex->params[1] && served->version != wanted->version)))
            continue;
        buffer_append_text(&page, comma);
        write_statistics(&page, served);
        comma = ",";
    }
    buffer_append_text(&page, "]}\n");
    registry_release(ex->server->registry, catalog);
    answer_buffer(ex, 200, EXCHANGE_JSON, &page);
}
