#include "server/base64.h"
#include "server/body.h"
#include "server/control.h"
#include "server/json_scan.h"
#include "server/oip_pages.h"
#include "server/pages.h"
#include "server/registry.h"
#include "server/server.h"

#include <stdlib.h>
#include <string.h>

#define FILE_PREFIX "file:"
#define FILE_NAME "/model.safetensors"

/* --- the index ----------------------------------------------------------------------------- */

struct index_page {
    const struct catalog *catalog;
    bool ready_only;
    const char *comma;
    buffer text;
};

static void write_entry(struct index_page *page, const char *name, const char *version, bool ready,
                        const char *reason)
{
    if (page->ready_only && !ready)
        return;
    buffer_printf(&page->text, "%s{\"name\":", page->comma);
    buffer_append_json_string(&page->text, name);
    buffer_printf(&page->text, ",\"version\":\"%s\",\"state\":\"%s\",\"reason\":", version,
                  ready ? "READY" : "UNAVAILABLE");
    buffer_append_json_string(&page->text, reason);
    buffer_append_text(&page->text, "}");
    page->comma = ",\n";
}

/* What serves, with why a change of it was refused; then what doesn't. */
static void write_catalog(struct index_page *page)
{
    const struct catalog *catalog = page->catalog;

    for (size_t i = 0; i < catalog->count; i++) {
        const struct served_model *served = catalog->models[i];
        const struct refusal *refusal = catalog_refusal(catalog, served->name, served->version);

        if (!refusal)
            refusal = catalog_refusal(catalog, served->name, 0);
        write_entry(page, served->name, served->version_text, true, refusal ? refusal->reason : "");
    }
    for (size_t i = 0; i < catalog->refusal_count; i++) {
        const struct refusal *refusal = &catalog->refusals[i];
        char version[11] = "";

        if (refusal->version == 0
                ? catalog_serves(catalog, refusal->name)
                : catalog_version(catalog, refusal->name, refusal->version) != NULL)
            continue;
        if (refusal->version > 0)
            snprintf(version, sizeof version, "%u", refusal->version);
        write_entry(page, refusal->name, version, false, refusal->reason);
    }
}

/* A model on disk that nobody has asked for yet. */
static void write_unloaded(void *context, const char *name)
{
    struct index_page *page = context;

    if (!catalog_serves(page->catalog, name) && !catalog_refuses(page->catalog, name))
        write_entry(page, name, "", false, "not loaded");
}

void oip_index(struct exchange *ex)
{
    struct registry *registry = ex->server->registry;
    const char *root = ex->server->config.model_repository;
    struct index_page page = {.comma = "", .text = {.max_bytes = EXCHANGE_MAX_PAGE_BYTES}};
    json_document *document = NULL;

    if (!oip_read_body(&document, ex, NULL))
        return;
    page.ready_only = json_is_true(json_object_get(json_document_root(document), "ready"));
    json_document_close(document);
    page.catalog = page_catalog(ex);
    if (!page.catalog)
        return;
    buffer_append_text(&page.text, "[");
    write_catalog(&page);
    /* In other modes the catalog has all there is. */
    if (root && !page.ready_only && strcmp(ex->server->config.model_control, "explicit") == 0)
        repository_list(root, write_unloaded, &page);
    buffer_append_text(&page.text, "]\n");
    registry_release(registry, page.catalog);
    answer_buffer(ex, 200, EXCHANGE_JSON, &page.text);
}

/* --- loading and unloading ----------------------------------------------------------------- */

/* A change that a client waits for; the exchange's state. */
struct change {
    struct exchange *ex;
    struct control_task task;
};

static void free_change(void *state)
{
    struct change *change = state;
    struct load_request *request = &change->task.request;

    for (size_t i = 0; i < request->file_count; i++)
        free(request->files[i].bytes);
    model_config_free(&request->config);
    free(change);
}

static void change_done(struct control_task *task)
{
    const struct change *change = task->context;

    exchange_resume(change->ex);
}

static bool change_abandoned(struct control_task *task)
{
    const struct change *change = task->context;

    return exchange_abandoned(change->ex);
}

/* On the HTTP thread again, after the change. */
static void change_resumed(struct exchange *ex)
{
    const struct change *change = ex->state;

    if (change->task.status == NSA_OK)
        oip_answer_empty(ex);
    else
        answer_failure(ex, change->task.status, &change->task.err);
}

/* Begin a change of the model that the path names; NULL, and an answer, if that may not be. */
static struct change *begin_change(struct exchange *ex, bool unload)
{
    const char *mode = ex->server->config.model_control;
    struct change *change;
    nsa_error err;

    if (strcmp(mode, "explicit") != 0) {
        nsa_error_set(&err, NSA_EUNSUPPORTED,
                      "models are loaded and unloaded by requests only with --model-control "
                      "explicit; the server runs with %s",
                      mode);
        answer_error(ex, FAULT_NOT_SUPPORTED, err.message);
        return NULL;
    }
    if (!atomic_load(&ex->server->control)) {
        answer_error(ex, FAULT_NOT_READY, "the models are still loading");
        return NULL;
    }
    if (!model_name_valid(ex->params[0])) {
        nsa_error_set(&err, NSA_ENOTFOUND,
                      "Request for unknown model: '%.128s' is no name of a model", ex->params[0]);
        answer_failure(ex, NSA_ENOTFOUND, &err);
        return NULL;
    }
    change = calloc(1, sizeof *change);
    if (!change) {
        answer_error(ex, FAULT_OUT_OF_MEMORY, "out of memory for a request");
        return NULL;
    }
    change->ex = ex;
    change->task = (struct control_task){
        .unload = unload, .abandoned = change_abandoned, .done = change_done, .context = change};
    strcpy(change->task.request.name, ex->params[0]); /* a valid name fits */
    ex->state = change;
    ex->free_state = free_change;
    return change;
}

static void submit_change(struct exchange *ex, struct change *change)
{
    nsa_error err;
    nsa_status status = exchange_apply_timeout(ex, &err);

    if (status != NSA_OK) {
        answer_failure(ex, status, &err);
        return;
    }
    change->task.deadline_ns = ex->deadline_ns;
    if (!exchange_suspend(ex)) {
        answer_error(ex, FAULT_NOT_READY, "the server is stopping");
        return;
    }
    ex->resumed = change_resumed;
    status = control_submit(atomic_load(&ex->server->control), &change->task, &err);
    if (status == NSA_OK)
        return;
    answer_failure(ex, status, &err);
    ex->resumed = NULL;
    exchange_resume(ex);
}

/* "file:1/model.safetensors" and its base64. */
static nsa_status read_file(struct load_request *request, const char *key, const json_span *span,
                            nsa_error *err)
{
    const char *path = key + strlen(FILE_PREFIX);
    const char *name = strchr(path, '/');
    struct load_file *file;
    char version[16] = "";
    unsigned char *bytes;
    nsa_status status;

    if (request->file_count == LOAD_MAX_FILES)
        return nsa_error_set(err, NSA_ELIMIT, "parameters: expected at most %d files",
                             LOAD_MAX_FILES);
    if (!span)
        return nsa_error_set(err, NSA_EINVAL, "%.128s: expected base64 in a text", key);
    file = &request->files[request->file_count];
    if (name && (size_t)(name - path) < sizeof version)
        memcpy(version, path, (size_t)(name - path));
    file->version = model_version_parse(version);
    if (file->version == 0 || strcmp(name, FILE_NAME) != 0)
        return nsa_error_set(
            err, NSA_EINVAL,
            "parameters: expected \"" FILE_PREFIX "VERSION" FILE_NAME "\", got \"%.128s\"", key);
    status = json_string_base64(&bytes, &file->size, span, key, err);
    if (status != NSA_OK)
        return status;
    file->bytes = bytes;
    request->file_count++;
    return NSA_OK;
}

static nsa_status read_load(struct load_request *request, const json_document *document,
                            nsa_error *err)
{
    json_t *parameters = json_object_get(json_document_root(document), "parameters");
    const char *key;
    json_t *value;

    if (parameters && !json_is_object(parameters))
        return nsa_error_set(err, NSA_EINVAL, "parameters: expected an object");
    json_object_foreach(parameters, key, value)
    {
        nsa_status status = NSA_OK;

        if (strncmp(key, FILE_PREFIX, strlen(FILE_PREFIX)) == 0) {
            status = read_file(request, key, json_document_span(document, value), err);
        } else if (strcmp(key, "config") == 0) {
            if (!json_is_string(value))
                return nsa_error_set(err, NSA_EINVAL, "parameters.config: expected JSON in a text");
            request->has_config = true;
            status = model_config_parse(&request->config, json_string_value(value),
                                        json_string_length(value), "parameters.config", err);
        }
        if (status != NSA_OK)
            return status;
    }
    return NSA_OK;
}

void oip_load(struct exchange *ex)
{
    static const json_place places[] = {
        {.depth = 2, .key = FILE_PREFIX, .kind = JSON_STRING, .prefix = true},
        {0},
    };
    struct change *change = begin_change(ex, false);
    json_document *document = NULL;
    nsa_status status = NSA_OK;
    nsa_error err;

    if (!change || !oip_read_body(&document, ex, places))
        return;
    if (document)
        status = read_load(&change->task.request, document, &err);
    json_document_close(document);
    exchange_set_body(ex, NULL, 0); /* it may be large, and the change may have to wait */
    if (status == NSA_OK)
        submit_change(ex, change);
    else
        answer_failure(ex, status, &err);
}

void oip_unload(struct exchange *ex)
{
    struct change *change = begin_change(ex, true);
    json_document *document = NULL;

    if (!change || !oip_read_body(&document, ex, NULL))
        return;
    json_document_close(document); /* nothing depends on a model: unload_dependents cannot matter */
    submit_change(ex, change);
}
