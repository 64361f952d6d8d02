#include "server/registry.h"

#include "server/log.h"
#include "server/repository.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_US 1000

struct loading {
    struct registry *registry;
    const struct config *config;
    size_t refused;
    nsa_status status; /* NSA_ENOMEM, or NSA_OK */
};

static void log_refused(void *context, const char *path, const char *reason)
{
    struct loading *loading = context;

    log_event(LOG_ERROR, "model refused", LOG_STR("path", path), LOG_STR("reason", reason));
    loading->refused++;
}

static bool is_loaded(const struct registry *registry, const char *name, uint32_t version)
{
    for (size_t i = 0; i < registry->count; i++) {
        if (strcmp(registry->models[i].name, name) == 0 && registry->models[i].version == version)
            return true;
    }
    return false;
}

/* Add `model`, whose reference the registry takes over whatever happens. */
static void add_model(struct loading *loading, nsa_model *model,
                      const struct repository_entry *entry)
{
    struct registry *registry = loading->registry;
    struct served_model *served = &registry->models[registry->count++];
    const struct model_config *config = entry->config;

    *served = (struct served_model){.version = entry->version, .model = model};
    snprintf(served->name, sizeof served->name, "%s", entry->name);
    snprintf(served->version_text, sizeof served->version_text, "%u", entry->version);
    served->lane_options.max_batch_rows = loading->config->max_batch_rows;
    served->lane_options.max_queue_delay_ns =
        (uint64_t)loading->config->max_queue_delay_us * NS_PER_US;
    if (config && config->max_batch_rows)
        served->lane_options.max_batch_rows = config->max_batch_rows;
    if (config && config->has_queue_delay)
        served->lane_options.max_queue_delay_ns = config->max_queue_delay_us * NS_PER_US;
    if (entry->path)
        served->path = strdup(entry->path);
    if (config && config->description)
        served->description = strdup(config->description);
    if ((entry->path && !served->path) || (config && config->description && !served->description))
        loading->status = NSA_ENOMEM;
}

static void load_entry(void *context, const struct repository_entry *entry)
{
    struct loading *loading = context;
    nsa_model *model;
    nsa_error err;

    if (strcmp(entry->name, nsa_op_at(NSA_SELECT)->name) == 0) {
        log_refused(loading, entry->path, "the name select is taken by the op without weights");
    } else if (is_loaded(loading->registry, entry->name, entry->version)) {
        log_refused(loading, entry->path, "this name and version is given twice");
    } else if (loading->registry->count == REGISTRY_MAX_MODELS) {
        log_refused(loading, entry->path, "expected at most 1024 models and versions");
    } else if (nsa_model_load(&model, entry->path, entry->config ? &entry->config->options : NULL,
                              &err) != NSA_OK) {
        log_refused(loading, entry->path, err.message);
    } else {
        add_model(loading, model, entry);
    }
}

static int compare_models(const void *a, const void *b)
{
    const struct served_model *left = a;
    const struct served_model *right = b;
    int by_name = strcmp(left->name, right->name);

    if (by_name != 0)
        return by_name;
    return (left->version < right->version) - (left->version > right->version);
}

static nsa_status load_all(struct loading *loading, nsa_error *err)
{
    const struct config *config = loading->config;
    const struct repository_entry select = {.name = nsa_op_at(NSA_SELECT)->name, .version = 1};
    nsa_model *model;
    nsa_status status = nsa_model_create(&model, NSA_SELECT, err);

    if (status != NSA_OK)
        return status;
    add_model(loading, model, &select);
    if (config->model_repository)
        status = repository_scan(config->model_repository, load_entry, log_refused, loading, err);
    if (status != NSA_OK)
        return status;
    if (config->model_repository && loading->registry->count == 1 && loading->refused == 0)
        log_event(LOG_WARN, "no model found", LOG_STR("model_repository", config->model_repository),
                  LOG_STR("expected", "NAME/VERSION/model.safetensors"), LOG_END);
    for (size_t i = 0; i < config->models.count; i++) {
        const struct repository_entry entry = {
            .name = config->models.items[i].name,
            .version = 1,
            .path = config->models.items[i].path,
        };

        if (model_name_valid(entry.name))
            load_entry(loading, &entry);
        else
            log_refused(loading, entry.path,
                        "--model: expected a name of 1 to 128 letters, digits, "
                        "'.', '_' or '-'");
    }
    if (loading->status != NSA_OK)
        return nsa_error_set(err, loading->status, "out of memory for the models");
    if (loading->refused > 0)
        return nsa_error_set(err, NSA_EINVAL, "%zu model%s refused", loading->refused,
                             loading->refused == 1 ? " was" : "s were");
    return NSA_OK;
}

nsa_status registry_load(struct registry **out, const struct config *config, nsa_error *err)
{
    struct registry *registry = calloc(1, sizeof *registry);
    struct loading loading = {registry, config, 0, NSA_OK};
    nsa_status status;

    if (registry)
        registry->models = calloc(REGISTRY_MAX_MODELS, sizeof *registry->models);
    if (!registry || !registry->models) {
        free(registry);
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the models");
    }
    status = load_all(&loading, err);
    if (status != NSA_OK) {
        registry_close(registry);
        return status;
    }
    qsort(registry->models, registry->count, sizeof *registry->models, compare_models);
    *out = registry;
    return NSA_OK;
}

static void batch_done(void *context, size_t rows, uint64_t compute_ns)
{
    const struct served_model *served = context;

    (void)compute_ns;
    metrics_count_batch(served->metrics, served->series, rows);
}

/* `served` stays where it is as long as its queue is open. */
static nsa_status open_model(struct served_model *served, nsa_batcher *batcher,
                             struct metrics *metrics, nsa_error *err)
{
    const nsa_model_info *info = nsa_model_describe(served->model);
    const struct metrics_model labels = {served->name, served->version_text, info->op->name,
                                         nsa_precision_name(info->precision), info->sha256};
    nsa_status status = metrics_add_model(metrics, &served->series, &labels, err);

    if (status != NSA_OK)
        return status;
    served->metrics = metrics;
    served->lane_options.batch_done = batch_done;
    served->lane_options.context = served;
    return nsa_lane_open(&served->lane, batcher, served->model, &served->lane_options, err);
}

nsa_status registry_open(struct registry *registry, nsa_batcher *batcher, struct metrics *metrics,
                         nsa_error *err)
{
    nsa_status status = NSA_OK;

    for (size_t i = 0; i < registry->count && status == NSA_OK; i++)
        status = open_model(&registry->models[i], batcher, metrics, err);
    return status;
}

void registry_close(struct registry *registry)
{
    if (!registry)
        return;
    for (size_t i = 0; i < registry->count; i++) {
        struct served_model *served = &registry->models[i];

        nsa_lane_close(served->lane);
        metrics_remove_model(served->metrics, served->series);
        nsa_model_unref(served->model);
        free(served->path);
        free(served->description);
    }
    free(registry->models);
    free(registry);
}

/* --- finding ------------------------------------------------------------------------------- */

/* The first model, in the order of the table, that is of `op`, and called `name` unless NULL. */
static const struct served_model *first_of(const struct registry *registry, const nsa_op *op,
                                           const char *name)
{
    for (size_t i = 0; i < registry->count; i++) {
        const struct served_model *served = &registry->models[i];

        if (nsa_model_describe(served->model)->op == op &&
            (!name || strcmp(served->name, name) == 0))
            return served;
    }
    return NULL;
}

/* The names of the models of `op`, as "a, b, c", cut to the room there is. */
static void list_names(char *text, size_t size, const struct registry *registry, const nsa_op *op)
{
    const char *last = "";
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < registry->count; i++) {
        const struct served_model *served = &registry->models[i];
        int length;

        if (nsa_model_describe(served->model)->op != op || strcmp(served->name, last) == 0)
            continue;
        length = snprintf(text + used, size - used, "%s%s", used ? ", " : "", served->name);
        if (length < 0 || (size_t)length >= size - used)
            break;
        used += (size_t)length;
        last = served->name;
    }
}

static nsa_status find_name(const struct served_model **out, const struct registry *registry,
                            const nsa_op *op, const char *name, nsa_error *err)
{
    const struct served_model *found = first_of(registry, op, name ? name : op->name);
    char names[256];

    if (!name && !found) {
        found = first_of(registry, op, NULL);
        if (!found)
            return nsa_error_set(err, NSA_ENOTFOUND, "no model for %s is loaded", op->name);
        list_names(names, sizeof names, registry, op);
        if (strcmp(names, found->name) != 0)
            return nsa_error_set(err, NSA_EINVAL, "model: expected one of %s, got none", names);
    }
    if (!found) {
        for (size_t i = 0; i < registry->count; i++) {
            if (strcmp(registry->models[i].name, name) == 0)
                return nsa_error_set(
                    err, NSA_EINVAL, "model: expected a model for %s, got '%s', which is for %s",
                    op->name, name, nsa_model_describe(registry->models[i].model)->op->name);
        }
        list_names(names, sizeof names, registry, op);
        return nsa_error_set(err, NSA_ENOTFOUND, "model: no model is called '%.128s'; for %s: %s",
                             name, op->name, *names ? names : "none");
    }
    *out = found;
    return NSA_OK;
}

nsa_status registry_find(const struct served_model **out, const struct registry *registry,
                         const nsa_op *op, const char *name, const char *version, nsa_error *err)
{
    const struct served_model *found = NULL;
    uint32_t number = 0;
    nsa_status status = find_name(&found, registry, op, name, err);

    if (status != NSA_OK)
        return status;
    if (version) {
        number = model_version_parse(version);
        if (number == 0)
            return nsa_error_set(err, NSA_EINVAL,
                                 "version: expected a positive integer, got '%.32s'", version);
        for (const char *wanted = found->name; found && found->version != number;) {
            found++;
            if (found == registry->models + registry->count || strcmp(found->name, wanted) != 0)
                return nsa_error_set(err, NSA_ENOTFOUND, "version: model '%s' has no version %s",
                                     wanted, version);
        }
    }
    *out = found;
    return NSA_OK;
}
