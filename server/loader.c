#include "server/loader.h"

#include "server/catalog_build.h"
#include "server/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char select_name[] = "select";

/* --- visiting ------------------------------------------------------------------------------ */

/* Whether a client has loaded `name` with a configuration or weights of its own. */
static bool is_from_request(const struct catalog *now, const char *name)
{
    for (size_t i = 0; i < now->count; i++) {
        if (now->models[i]->from_request && strcmp(now->models[i]->name, name) == 0)
            return true;
    }
    return false;
}

/* Whether anything of `name` is served, or would be if it were sound. */
static bool is_wanted(const struct catalog *now, const char *name)
{
    for (size_t i = 0; i < now->refusal_count; i++) {
        if (strcmp(now->refusals[i].name, name) == 0 && !now->refusals[i].unloaded)
            return true;
    }
    return catalog_serves(now, name);
}

/* Whether a look at everything passes `name` over. */
static bool is_passed_over(const struct build *build, const char *name)
{
    if (!build->now || build->request)
        return false;
    return is_from_request(build->now, name) ||
           (strcmp(build->loader->config->model_control, "explicit") == 0 &&
            !is_wanted(build->now, name));
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

/* A version was found: keep what is served of it, or load it. */
static void visit_version(void *context, const struct repository_entry *entry)
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
    if (reason) {
        build_refuse(build, entry, NSA_ENOTFOUND, reason);
    } else if (refusal && refusal->certain && model_stamp_equal(&refusal->stamp, &stamp)) {
        build_keep_refusal(build, refusal);
        if (old)
            build_keep(build, old);
    } else if (old && model_stamp_equal(&old->stamp, &stamp)) {
        build_keep(build, old);
    } else {
        build_load(build, entry, NULL);
    }
}

/* Nothing of a model can be loaded: what is served of it stays. */
static void visit_refused(void *context, const char *name, const char *path, const char *reason)
{
    struct build *build = context;
    const struct repository_entry entry = {.name = name, .path = path};

    if (is_passed_over(build, name))
        return;
    build_refuse(build, &entry, NSA_EINVAL, reason);
    build_keep_name(build, name);
}

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
            visit_version(build, &entry);
        else
            visit_refused(build, entry.name, entry.path,
                          "--model: expected a name of 1 to 128 letters, digits, '.', '_' or '-'");
    }
    return count;
}

/* select is there, whether the repository says something of it or not. */
static void visit_select(struct build *build)
{
    static const struct model_config plain = {.options.op = select_name};
    const struct load_request *request = build->request;
    bool asked = request && request->has_config && strcmp(request->name, select_name) == 0;
    const struct repository_entry entry = {
        .name = select_name, .version = 1, .config = asked ? &request->config : &plain};

    if (!catalog_serves(build->next, select_name))
        visit_version(build, &entry);
}

/* --- everything ---------------------------------------------------------------------------- */

/* What clients have loaded or unloaded stays as it is. */
static void keep_clients(struct build *build)
{
    const struct catalog *now = build->now;

    for (size_t i = 0; i < now->count; i++) {
        if (is_from_request(now, now->models[i]->name))
            build_keep(build, now->models[i]);
    }
    for (size_t i = 0; i < now->refusal_count; i++) {
        if (now->refusals[i].unloaded || is_from_request(now, now->refusals[i].name))
            build_keep_refusal(build, &now->refusals[i]);
    }
}

/* A name of which all that there is now was refused goes on to serve what it did. */
static void keep_last(struct build *build)
{
    for (size_t i = 0; i < build->now->count; i++) {
        const char *name = build->now->models[i]->name;

        if (!catalog_serves(build->next, name) && catalog_refuses(build->next, name))
            build_keep_name(build, name);
    }
}

nsa_status loader_reload(struct catalog **out, size_t *refused, const struct loader *loader,
                         const struct catalog *now, nsa_error *err)
{
    const char *root = loader->config->model_repository;
    struct build build;
    const struct repository_visitor visitor = {visit_version, visit_refused, &build};
    nsa_status status = build_begin(&build, loader, now, NULL, err);

    if (status != NSA_OK)
        return status;
    if (now)
        keep_clients(&build);
    visit_files(&build, NULL);
    if (root)
        status = repository_scan(root, &visitor, err);
    if (status != NSA_OK) {
        build_drop(&build);
        return status;
    }
    if (root && !now && build.next->count == 0 && build.refused == 0)
        log_event(LOG_WARN, "no model found", LOG_STR("model_repository", root),
                  LOG_STR("expected", "NAME/VERSION/model.safetensors"), LOG_END);
    visit_select(&build);
    if (now)
        keep_last(&build);
    *refused = build.refused;
    return build_end(out, &build);
}

/* --- one model ----------------------------------------------------------------------------- */

static nsa_status load_files(struct build *build)
{
    const struct load_request *request = build->request;

    if (strcmp(request->name, select_name) == 0 || model_config_is_select(&request->config))
        return nsa_error_set(build->err, NSA_EINVAL,
                             "file: expected none, as select has no weights");
    for (size_t i = 0; i < request->file_count; i++) {
        char path[REPOSITORY_MAX_NAME_BYTES + sizeof "/4294967295/model.safetensors"];
        const struct repository_entry entry = {
            .name = request->name,
            .version = request->files[i].version,
            .path = path,
            .config = &request->config,
        };

        snprintf(path, sizeof path, "%s/%u/model.safetensors", entry.name, entry.version);
        if (catalog_version(build->next, entry.name, entry.version))
            return nsa_error_set(build->err, NSA_EINVAL, "file: version %u is given twice",
                                 entry.version);
        build_load(build, &entry, &request->files[i]);
    }
    return NSA_OK;
}

/* All versions that there are of the request's model. */
static nsa_status load_versions(struct build *build)
{
    const struct load_request *request = build->request;
    const char *root = build->loader->config->model_repository;
    const struct model_config *config = request->has_config ? &request->config : NULL;
    const struct repository_visitor visitor = {visit_version, visit_refused, build};
    nsa_status status = NSA_OK;

    if (request->file_count > 0)
        return load_files(build);
    if (visit_files(build, request->name) == 0) {
        status = root ? repository_scan_model(root, request->name, config, &visitor, build->err)
                      : NSA_ENOTFOUND;
        if (status == NSA_ENOTFOUND && strcmp(request->name, select_name) == 0)
            status = NSA_OK; /* it needs nothing there */
    }
    visit_select(build);
    if (status == NSA_ENOTFOUND)
        nsa_error_set(build->err, status,
                      "Request for unknown model: '%.128s' is not in the model repository",
                      request->name);
    return status;
}

/*
 * Something was refused: all that was served is served on, and the reason is noted; but not of a
 * name that there is nothing of, or clients could make up any number of them.
 */
static nsa_status end_refused(struct catalog **out, struct build *build)
{
    const struct load_request *request = build->request;
    nsa_status refusal = build->refusal == NSA_ENOMEM ? NSA_ENOMEM : NSA_EINVAL;
    struct build kept;
    nsa_status status = NSA_OK;

    if (request->file_count == 0 || is_wanted(build->now, request->name)) {
        status = build_begin(&kept, build->loader, build->now, NULL, build->err);
        if (status == NSA_OK) {
            build_keep_others(&kept, request->name);
            build_keep_name(&kept, request->name);
            for (size_t i = 0; i < build->next->refusal_count; i++) {
                if (strcmp(build->next->refusals[i].name, request->name) == 0)
                    build_keep_refusal(&kept, &build->next->refusals[i]);
            }
            kept.changed = true;
            status = build_end(out, &kept);
        }
    }
    build_drop(build);
    if (status != NSA_OK)
        return status;
    return nsa_error_set(build->err, refusal, "failed to load '%s': %s", request->name,
                         build->reason);
}

nsa_status loader_load(struct catalog **out, const struct loader *loader, const struct catalog *now,
                       const struct load_request *request, nsa_error *err)
{
    struct build build;
    nsa_status status = build_begin(&build, loader, now, request, err);

    if (status != NSA_OK)
        return status;
    build_keep_others(&build, request->name);
    status = load_versions(&build);
    if (status != NSA_OK) {
        build_drop(&build);
        return status;
    }
    return build.refused > 0 ? end_refused(out, &build) : build_end(out, &build);
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
    status = build_begin(&build, NULL, now, NULL, err);
    if (status != NSA_OK)
        return status;
    build_keep_others(&build, name);
    snprintf(refusal.name, sizeof refusal.name, "%s", name);
    build_keep_refusal(&build, &refusal);
    build.changed = true;
    return build_end(out, &build);
}
