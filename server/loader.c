#include "server/loader.h"

#include "server/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A catalog in the making. */
struct build {
    const struct loader *loader;
    const struct catalog *now; /* NULL: none yet */
    struct catalog *next;
    const struct load_request *request; /* NULL: everything is looked at */
    bool changed;
    size_t refused;
    nsa_status status; /* NSA_OK, or why there can be no next catalog */
    nsa_error *err;
    char reason[NSA_ERROR_MESSAGE_BYTES]; /* of the first refusal */
};

static const char select_name[] = "select";

/* --- building ------------------------------------------------------------------------------ */

static bool stamps_equal(const struct model_stamp *a, const struct model_stamp *b)
{
    return file_stamp_equal(&a->weights, &b->weights) &&
           file_stamp_equal(&a->config_file, &b->config_file);
}

/* Note the failure that leaves no catalog: the first one counts. */
static void fail(struct build *build, nsa_status status, const nsa_error *err)
{
    if (build->status != NSA_OK)
        return;
    build->status = status;
    if (build->err)
        *build->err = *err;
}

static void keep(struct build *build, struct served_model *served)
{
    nsa_error err;
    nsa_status status;

    if (catalog_version(build->next, served->name, served->version))
        return;
    status = catalog_add(build->next, served, &err);
    if (status != NSA_OK)
        fail(build, status, &err);
}

static void keep_refusal(struct build *build, const struct refusal *refusal)
{
    nsa_error err;
    nsa_status status = catalog_refuse(build->next, refusal, &err);

    if (status != NSA_OK)
        fail(build, status, &err);
}

static void refuse(struct build *build, const struct refusal *refusal, const char *path)
{
    log_event(LOG_ERROR, "model refused", LOG_STR("path", path),
              LOG_STR("reason", refusal->reason));
    if (build->refused == 0)
        snprintf(build->reason, sizeof build->reason, "%s", refusal->reason);
    build->refused++;
    build->changed = true;
    keep_refusal(build, refusal);
}

static void refuse_version(struct build *build, const struct repository_entry *entry,
                           const char *path, const char *reason)
{
    struct refusal refusal = {
        .version = entry->version,
        .stamp = {entry->weights, entry->config_file},
        .reason = (char *)reason,
    };

    snprintf(refusal.name, sizeof refusal.name, "%s", entry->name);
    refuse(build, &refusal, path);
}

static void add_version(struct build *build, const struct repository_entry *entry,
                        const struct load_file *file)
{
    struct served_model *old =
        build->now ? catalog_version(build->now, entry->name, entry->version) : NULL;
    const char *path = file ? "(from a request)" : entry->path;
    struct served_model *served = NULL;
    nsa_error err;
    bool from_request = file || (build->request && build->request->has_config);
    nsa_status status = served_model_load(&served, build->loader, entry, file, from_request, &err);

    if (status == NSA_OK) {
        status = catalog_add(build->next, served, &err);
        if (status == NSA_OK) {
            build->changed = true;
            log_event(LOG_INFO, "model", LOG_STR("name", served->name),
                      LOG_STR("version", served->version_text),
                      LOG_STR("op", nsa_model_describe(served->model)->op->name),
                      LOG_STR("path", path), LOG_END);
        }
        served_model_unref(served);
    }
    if (status == NSA_OK)
        return;
    refuse_version(build, entry, path, err.message);
    if (old)
        keep(build, old);
}

/* Whether anything of `name` is served, or would be if it were sound. */
static bool is_wanted(const struct catalog *now, const char *name)
{
    for (size_t i = 0; i < now->count; i++) {
        if (strcmp(now->models[i]->name, name) == 0)
            return true;
    }
    for (size_t i = 0; i < now->refusal_count; i++) {
        if (strcmp(now->refusals[i].name, name) == 0 && !now->refusals[i].unloaded)
            return true;
    }
    return false;
}

/* Whether a look at everything passes `name` over. */
static bool is_passed_over(const struct build *build, const char *name)
{
    if (!build->now || build->request)
        return false;
    for (size_t i = 0; i < build->now->count; i++) {
        if (build->now->models[i]->from_request && strcmp(build->now->models[i]->name, name) == 0)
            return true;
    }
    return strcmp(build->loader->config->model_control, "explicit") == 0 &&
           !is_wanted(build->now, name);
}

/* Why a version that was found is not even looked at, or NULL. */
static const char *obstacle(const struct build *build, const struct repository_entry *entry)
{
    if (strcmp(entry->name, select_name) == 0 &&
        !(entry->config && model_config_is_select(entry->config)))
        return "the name select is taken by the op without weights";
    if (catalog_version(build->next, entry->name, entry->version))
        return "this name and version is given twice";
    if (build->next->count == CATALOG_MAX_MODELS)
        return "expected at most 1024 models and versions";
    return NULL;
}

/* A version was found: keep what is served of it, or load it; what was refused is told once. */
static void found(void *context, const struct repository_entry *entry)
{
    struct build *build = context;
    const struct model_stamp stamp = {entry->weights, entry->config_file};
    const char *reason = obstacle(build, entry);
    struct served_model *old = NULL;
    const struct refusal *refusal = NULL;

    if (is_passed_over(build, entry->name))
        return;
    if (build->now && !build->request) {
        old = catalog_version(build->now, entry->name, entry->version);
        refusal = catalog_refusal(build->now, entry->name, entry->version);
    }
    if (refusal && stamps_equal(&refusal->stamp, &stamp)) {
        keep_refusal(build, refusal);
        if (old)
            keep(build, old);
    } else if (reason) {
        refuse_version(build, entry, entry->path, reason);
    } else if (old && stamps_equal(&old->stamp, &stamp)) {
        keep(build, old);
    } else {
        add_version(build, entry, NULL);
    }
}

/* Nothing of a model can be loaded: what is served of it stays. */
static void refused(void *context, const char *name, const char *path, const char *reason)
{
    struct build *build = context;
    struct refusal refusal = {.reason = (char *)reason};
    const struct refusal *before;

    if (is_passed_over(build, name))
        return;
    snprintf(refusal.name, sizeof refusal.name, "%s", name);
    before = build->now ? catalog_refusal(build->now, refusal.name, 0) : NULL;
    if (before && !build->request && strcmp(before->reason, reason) == 0)
        keep_refusal(build, before);
    else
        refuse(build, &refusal, path);
    for (size_t i = 0; build->now && i < build->now->count; i++) {
        if (strcmp(build->now->models[i]->name, name) == 0)
            keep(build, build->now->models[i]);
    }
}

/* select is there, whether the repository says something of it or not. */
static void add_select(struct build *build)
{
    const struct repository_entry entry = {
        .name = select_name,
        .version = 1,
        .config = &(const struct model_config){.options.op = select_name},
    };

    for (size_t i = 0; i < build->next->count; i++) {
        if (strcmp(build->next->models[i]->name, select_name) == 0)
            return;
    }
    found(build, &entry);
}

static nsa_status begin(struct build *build, const struct loader *loader, const struct catalog *now,
                        nsa_error *err)
{
    *build = (struct build){.loader = loader, .now = now, .next = catalog_new(), .err = err};
    return build->next ? NSA_OK : nsa_error_set(err, NSA_ENOMEM, "out of memory for the models");
}

/* Take over everything that has another name; what is left of `name` is unloaded or replaced. */
static void keep_others(struct build *build, const char *name)
{
    for (size_t i = 0; i < build->now->count; i++) {
        if (strcmp(build->now->models[i]->name, name) != 0)
            keep(build, build->now->models[i]);
    }
    for (size_t i = 0; i < build->now->refusal_count; i++) {
        if (strcmp(build->now->refusals[i].name, name) != 0)
            keep_refusal(build, &build->now->refusals[i]);
    }
}

/* Log what the next catalog lacks. */
static void note_unloaded(struct build *build)
{
    for (size_t i = 0; build->now && i < build->now->count; i++) {
        const struct served_model *served = build->now->models[i];

        if (catalog_version(build->next, served->name, served->version))
            continue;
        build->changed = true;
        log_event(LOG_INFO, "model unloaded", LOG_STR("name", served->name),
                  LOG_STR("version", served->version_text), LOG_END);
    }
}

/* The next catalog, or NULL when it would be the same; or what stood in its way. */
static nsa_status end(struct catalog **out, struct build *build)
{
    note_unloaded(build);
    build->changed |= build->now && build->now->refusal_count != build->next->refusal_count;
    if (build->status != NSA_OK || !build->changed) {
        catalog_free(build->next);
        build->next = NULL;
    }
    if (build->status != NSA_OK)
        return build->status;
    if (build->next)
        catalog_sort(build->next);
    *out = build->next;
    return NSA_OK;
}

/* --- from outside -------------------------------------------------------------------------- */

/* Visit the files that --model names: all, or those called `name`. Returns how many there are. */
static size_t visit_files(struct build *build, const char *name)
{
    const struct config_models *models = &build->loader->config->models;
    size_t count = 0;

    for (size_t i = 0; i < models->count; i++) {
        struct repository_entry entry = {
            .name = models->items[i].name,
            .version = 1,
            .path = models->items[i].path,
            .config = build->request && build->request->has_config ? &build->request->config : NULL,
        };

        if (name && strcmp(name, entry.name) != 0)
            continue;
        count++;
        entry.weights = file_stamp_of(entry.path);
        if (model_name_valid(entry.name))
            found(build, &entry);
        else
            refused(build, entry.name, entry.path,
                    "--model: expected a name of 1 to 128 letters, digits, '.', '_' or '-'");
    }
    return count;
}

nsa_status loader_reload(struct catalog **out, size_t *refused_count, const struct loader *loader,
                         const struct catalog *now, nsa_error *err)
{
    const char *root = loader->config->model_repository;
    struct build build;
    const struct repository_visitor visitor = {found, refused, &build};
    nsa_status status = begin(&build, loader, now, err);

    if (status != NSA_OK)
        return status;
    for (size_t i = 0; now && i < now->count; i++) {
        if (now->models[i]->from_request)
            keep(&build, now->models[i]);
    }
    for (size_t i = 0; now && i < now->refusal_count; i++) {
        if (now->refusals[i].unloaded)
            keep_refusal(&build, &now->refusals[i]);
    }
    if (root)
        status = repository_scan(root, &visitor, err);
    if (status != NSA_OK) {
        catalog_free(build.next);
        return status;
    }
    if (root && !now && build.next->count == 0 && build.refused == 0)
        log_event(LOG_WARN, "no model found", LOG_STR("model_repository", root),
                  LOG_STR("expected", "NAME/VERSION/model.safetensors"), LOG_END);
    visit_files(&build, NULL);
    add_select(&build);
    *refused_count = build.refused;
    return end(out, &build);
}

static nsa_status load_files(struct build *build)
{
    const struct load_request *request = build->request;

    for (size_t i = 0; i < request->file_count; i++) {
        const struct repository_entry entry = {
            .name = request->name,
            .version = request->files[i].version,
            .config = &request->config,
        };

        if (catalog_version(build->next, entry.name, entry.version))
            return nsa_error_set(build->err, NSA_EINVAL, "file: version %u is given twice",
                                 entry.version);
        add_version(build, &entry, &request->files[i]);
    }
    return NSA_OK;
}

nsa_status loader_load(struct catalog **out, const struct loader *loader, const struct catalog *now,
                       const struct load_request *request, nsa_error *err)
{
    const char *root = loader->config->model_repository;
    const struct model_config *config = request->has_config ? &request->config : NULL;
    struct build build;
    const struct repository_visitor visitor = {found, refused, &build};
    nsa_status status = begin(&build, loader, now, err);

    if (status != NSA_OK)
        return status;
    build.request = request;
    keep_others(&build, request->name);
    if (request->file_count > 0) {
        status = load_files(&build);
    } else if (visit_files(&build, request->name) == 0) {
        status = NSA_ENOTFOUND;
        if (root)
            status = repository_scan_model(root, request->name, config, &visitor, err);
        if (status == NSA_ENOTFOUND && strcmp(request->name, select_name) == 0)
            status = NSA_OK; /* as it comes */
    }
    if (status == NSA_ENOTFOUND)
        nsa_error_set(err, status,
                      "Request for unknown model: '%.128s' is not in the model repository",
                      request->name);
    if (status != NSA_OK) {
        catalog_free(build.next);
        return status;
    }
    if (request->file_count == 0)
        add_select(&build);
    status = end(out, &build);
    if (status == NSA_OK && build.refused > 0)
        return nsa_error_set(err, NSA_EINVAL, "failed to load '%s': %s", request->name,
                             build.reason);
    return status;
}

nsa_status loader_unload(struct catalog **out, const struct catalog *now, const char *name,
                         nsa_error *err)
{
    struct refusal refusal = {.reason = (char *)"unloaded", .unloaded = true};
    struct build build;
    nsa_status status;

    if (strcmp(name, select_name) == 0)
        return nsa_error_set(err, NSA_EINVAL, "select has no weights: it is always there");
    if (!is_wanted(now, name))
        return nsa_error_set(err, NSA_ENOTFOUND,
                             "Request for unknown model: '%.128s' is not loaded", name);
    status = begin(&build, NULL, now, err);
    if (status != NSA_OK)
        return status;
    keep_others(&build, name);
    snprintf(refusal.name, sizeof refusal.name, "%s", name);
    keep_refusal(&build, &refusal);
    build.changed = true;
    return end(out, &build);
}
