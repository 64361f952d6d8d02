#include "server/catalog_build.h"

#include "server/log.h"

#include <stdio.h>
#include <string.h>

nsa_status build_begin(struct build *build, const struct loader *loader, const struct catalog *now,
                       const struct load_request *request, nsa_error *err)
{
    *build = (struct build){
        .loader = loader, .now = now, .next = catalog_new(), .request = request, .err = err};
    return build->next ? NSA_OK : nsa_error_set(err, NSA_ENOMEM, "out of memory for the models");
}

void build_drop(struct build *build)
{
    catalog_free(build->next);
    build->next = NULL;
}

/* Log the versions of `these` that `those` (NULL: none) doesn't have; returns whether any. */
static bool log_others(const struct catalog *these, const struct catalog *those,
                       const char *message)
{
    bool any = false;

    for (size_t i = 0; i < these->count; i++) {
        const struct served_model *served = these->models[i];

        if (those && catalog_version(those, served->name, served->version) == served)
            continue;
        any = true;
        log_event(LOG_INFO, message, LOG_STR("name", served->name),
                  LOG_STR("version", served->version_text),
                  LOG_STR("op", nsa_model_describe(served->model)->op->name),
                  LOG_STR("path", served->from_request ? "(from a request)" : served->path),
                  LOG_END);
    }
    return any;
}

nsa_status build_end(struct catalog **out, struct build *build)
{
    if (build->status != NSA_OK) {
        build_drop(build);
        return build->status;
    }
    build->changed |= log_others(build->next, build->now, "model");
    if (build->now) {
        build->changed |= log_others(build->now, build->next, "model unloaded");
        build->changed |= build->now->refusal_count != build->next->refusal_count;
    }
    if (build->changed)
        catalog_sort(build->next);
    else
        build_drop(build);
    *out = build->next;
    return NSA_OK;
}

/* --- keeping ------------------------------------------------------------------------------- */

/* Note the failure that leaves no catalog: the first one counts. */
static void fail(struct build *build, nsa_status status, const nsa_error *err)
{
    if (build->status != NSA_OK || status == NSA_OK)
        return;
    build->status = status;
    if (build->err)
        *build->err = *err;
}

void build_keep(struct build *build, struct served_model *served)
{
    nsa_error err;

    if (!catalog_version(build->next, served->name, served->version))
        fail(build, catalog_add(build->next, served, &err), &err);
}

void build_keep_refusal(struct build *build, const struct refusal *refusal)
{
    nsa_error err;

    fail(build, catalog_refuse(build->next, refusal, &err), &err);
}

void build_keep_name(struct build *build, const char *name)
{
    for (size_t i = 0; build->now && i < build->now->count; i++) {
        if (strcmp(build->now->models[i]->name, name) == 0)
            build_keep(build, build->now->models[i]);
    }
}

void build_keep_others(struct build *build, const char *name)
{
    for (size_t i = 0; i < build->now->count; i++) {
        if (strcmp(build->now->models[i]->name, name) != 0)
            build_keep(build, build->now->models[i]);
    }
    for (size_t i = 0; i < build->now->refusal_count; i++) {
        if (strcmp(build->now->refusals[i].name, name) != 0)
            build_keep_refusal(build, &build->now->refusals[i]);
    }
}

/* --- refusing ------------------------------------------------------------------------------ */

/* Whether a failure is that of what is on disk, so that the same file will fail again. */
static bool is_certain(const struct build *build, nsa_status status)
{
    const struct load_request *request = build->request;

    if (request && (request->has_config || request->file_count > 0))
        return false;
    return status == NSA_EFORMAT || status == NSA_EINVAL || status == NSA_EUNSUPPORTED ||
           status == NSA_ESELFCHECK || status == NSA_ELIMIT;
}

void build_refuse(struct build *build, const struct repository_entry *entry, nsa_status status,
                  const char *reason)
{
    struct refusal refusal = {
        .version = entry->version,
        .stamp = {entry->weights, entry->config_file},
        .certain = is_certain(build, status),
        .reason = (char *)reason,
    };
    const struct refusal *before = NULL;

    snprintf(refusal.name, sizeof refusal.name, "%s", entry->name);
    if (build->now && !build->request)
        before = catalog_refusal(build->now, refusal.name, entry->version);
    build_keep_refusal(build, &refusal);
    if (before && strcmp(before->reason, reason) == 0) {
        build->changed |= !model_stamp_equal(&before->stamp, &refusal.stamp);
        return;
    }
    log_event(LOG_ERROR, "model refused", LOG_STR("path", entry->path), LOG_STR("reason", reason),
              LOG_END);
    if (build->refused++ == 0) {
        build->refusal = status;
        snprintf(build->reason, sizeof build->reason, "%s", reason);
    }
    build->changed = true;
}

/* --- loading ------------------------------------------------------------------------------- */

void build_load(struct build *build, const struct repository_entry *entry,
                const struct load_file *file)
{
    bool from_request = file || (build->request && build->request->has_config);
    struct served_model *served = NULL;
    struct served_model *old = NULL;
    nsa_error err;
    nsa_status status = served_model_load(&served, build->loader, entry, file, from_request, &err);

    if (status == NSA_OK) {
        status = catalog_add(build->next, served, &err);
        served_model_unref(served);
    }
    if (status == NSA_OK)
        return;
    build_refuse(build, entry, status, err.message);
    if (build->now)
        old = catalog_version(build->now, entry->name, entry->version);
    if (old)
        build_keep(build, old);
}
