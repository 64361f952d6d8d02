/* The logging settings, shared memory, and what is not supported. */
#include "server/body.h"
#include "server/json_scan.h"
#include "server/log.h"
#include "server/oip_pages.h"
#include "server/server.h"
#include "server/shared_memory.h"

#include <inttypes.h>
#include <string.h>

void oip_not_supported(struct exchange *ex)
{
    answer_error(ex, FAULT_NOT_SUPPORTED, "nsad has neither CUDA shared memory nor Triton's trace");
}

/* --- logging ------------------------------------------------------------------------------- */

/* The levels as Triton's switches: each is on down to its own. */
static const struct {
    const char *key;
    enum log_level level;
} switches[] = {{"log_info", LOG_INFO}, {"log_warning", LOG_WARN}, {"log_error", LOG_ERROR}};

#define SWITCH_COUNT (sizeof switches / sizeof *switches)

static void write_logging(buffer *out)
{
    buffer_append_text(out, "{\"log_file\":\"\"");
    for (size_t i = 0; i < SWITCH_COUNT; i++)
        buffer_printf(out, ",\"%s\":%s", switches[i].key,
                      log_enabled(switches[i].level) ? "true" : "false");
    buffer_printf(out, ",\"log_verbose_level\":%d,\"log_format\":\"default\"}\n",
                  log_enabled(LOG_DEBUG));
}

/* A setting that is made when the server starts: it may be sent as it is. */
static bool is_as_it_is(const char *key, const json_t *value)
{
    const char *text = json_string_value(value);

    return text && ((strcmp(key, "log_file") == 0 && strcmp(text, "") == 0) ||
                    (strcmp(key, "log_format") == 0 && strcmp(text, "default") == 0));
}

/* The least level that the switches leave on: those below one that is on must be on too. */
static nsa_status read_logging(enum log_level *out, const json_t *root, nsa_error *err)
{
    const json_t *verbose = json_object_get(root, "log_verbose_level");
    bool debug = verbose ? json_integer_value(verbose) > 0 : log_enabled(LOG_DEBUG);
    bool on[SWITCH_COUNT];
    const char *key;
    json_t *value;

    if (verbose && !json_is_integer(verbose))
        return nsa_error_set(err, NSA_EINVAL, "log_verbose_level: expected an integer");
    for (size_t i = 0; i < SWITCH_COUNT; i++)
        on[i] = log_enabled(switches[i].level);
    json_object_foreach((json_t *)root, key, value)
    {
        size_t i = 0;

        while (i < SWITCH_COUNT && strcmp(key, switches[i].key) != 0)
            i++;
        if (i < SWITCH_COUNT && !json_is_boolean(value))
            return nsa_error_set(err, NSA_EINVAL, "%s: expected true or false", key);
        if (i < SWITCH_COUNT)
            on[i] = json_is_true(value);
        else if (value != verbose && !is_as_it_is(key, value))
            return nsa_error_set(err, NSA_EINVAL,
                                 "%.64s: expected log_info, log_warning, log_error or "
                                 "log_verbose_level; the rest is set when the server starts",
                                 key);
    }
    if (!on[SWITCH_COUNT - 1])
        return nsa_error_set(err, NSA_EINVAL,
                             "log_error: expected true, as errors are always told");
    *out = debug ? LOG_DEBUG : LOG_ERROR;
    for (size_t i = SWITCH_COUNT; i-- > 0;) {
        if (i + 1 < SWITCH_COUNT && on[i] && !on[i + 1])
            return nsa_error_set(err, NSA_EINVAL, "%s: expected true, as %s is",
                                 switches[i + 1].key, switches[i].key);
        if (on[i] && !debug)
            *out = switches[i].level;
    }
    return NSA_OK;
}

static void set_logging(struct exchange *ex)
{
    json_document *document = NULL;
    enum log_level level = LOG_INFO;
    nsa_status status;
    nsa_error err;

    if (strcmp(ex->server->config.model_control, "explicit") != 0) {
        answer_error(ex, FAULT_NOT_SUPPORTED,
                     "settings are changed by requests only with --model-control explicit");
        return;
    }
    if (!oip_read_body(&document, ex, NULL))
        return;
    status = read_logging(&level, json_document_root(document), &err);
    json_document_close(document);
    if (status != NSA_OK) {
        answer_failure(ex, status, &err);
        return;
    }
    log_set_level(level);
    log_event(LOG_INFO, "log level set", LOG_STR("request_id", ex->request_id), LOG_END);
}

void oip_logging(struct exchange *ex)
{
    buffer page = {.max_bytes = EXCHANGE_MAX_PAGE_BYTES};

    if (strcmp(ex->method, "POST") == 0)
        set_logging(ex);
    if (ex->answer.status != 0)
        return;
    write_logging(&page);
    answer_buffer(ex, 200, EXCHANGE_JSON, &page);
}

/* --- shared memory ------------------------------------------------------------------------- */

static struct shared_memory *find_shared_memory(struct exchange *ex)
{
    if (!ex->server->shared_memory)
        answer_error(ex, FAULT_NOT_SUPPORTED,
                     "shared memory is for clients only with --allow-client-shm");
    return ex->server->shared_memory;
}

void oip_shared_memory_status(struct exchange *ex)
{
    struct shared_memory *memory = find_shared_memory(ex);
    buffer page = {.max_bytes = EXCHANGE_MAX_PAGE_BYTES};
    nsa_status status;
    nsa_error err;

    if (!memory)
        return;
    status = shared_memory_write_status(memory, *ex->params[0] ? ex->params[0] : NULL, &page, &err);
    if (status == NSA_OK) {
        answer_buffer(ex, 200, EXCHANGE_JSON, &page);
    } else {
        buffer_free(&page);
        answer_failure(ex, status, &err);
    }
}

static nsa_status register_region(struct shared_memory *memory, const char *name,
                                  const json_t *root, nsa_error *err)
{
    const json_t *key = json_object_get(root, "key");
    const json_t *offset = json_object_get(root, "offset");
    const json_t *bytes = json_object_get(root, "byte_size");

    if (!json_is_string(key))
        return nsa_error_set(err, NSA_EINVAL, "key: expected the name of a segment, in a text");
    if (offset && (!json_is_integer(offset) || json_integer_value(offset) < 0))
        return nsa_error_set(err, NSA_EINVAL, "offset: expected an integer of at least 0");
    if (!json_is_integer(bytes) || json_integer_value(bytes) < 1)
        return nsa_error_set(err, NSA_EINVAL, "byte_size: expected an integer of at least 1");
    return shared_memory_register(memory, name, json_string_value(key),
                                  (uint64_t)json_integer_value(offset),
                                  (uint64_t)json_integer_value(bytes), err);
}

void oip_shared_memory_register(struct exchange *ex)
{
    struct shared_memory *memory = find_shared_memory(ex);
    json_document *document = NULL;
    nsa_status status;
    nsa_error err;

    if (!memory || !oip_read_body(&document, ex, NULL))
        return;
    status = register_region(memory, ex->params[0], json_document_root(document), &err);
    json_document_close(document);
    if (status == NSA_OK)
        oip_answer_empty(ex);
    else
        answer_failure(ex, status, &err);
}

void oip_shared_memory_unregister(struct exchange *ex)
{
    struct shared_memory *memory = find_shared_memory(ex);

    if (!memory)
        return;
    shared_memory_unregister(memory, *ex->params[0] ? ex->params[0] : NULL);
    oip_answer_empty(ex);
}
