#include "server/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct catalog *catalog_new(void)
{
    struct catalog *catalog = calloc(1, sizeof *catalog);

    if (!catalog)
        return NULL;
    catalog->models = calloc(CATALOG_MAX_MODELS, sizeof(struct served_model *));
    catalog->refusals = calloc(CATALOG_MAX_MODELS, sizeof *catalog->refusals);
    if (!catalog->models || !catalog->refusals) {
        catalog_free(catalog);
        return NULL;
    }
    return catalog;
}

void catalog_free(struct catalog *catalog)
{
    if (!catalog)
        return;
    for (size_t i = 0; i < catalog->count; i++)
        served_model_unref(catalog->models[i]);
    for (size_t i = 0; i < catalog->refusal_count; i++)
        free(catalog->refusals[i].reason);
    free(catalog->refusals);
    free(catalog->models);
    free(catalog);
}

nsa_status catalog_add(struct catalog *catalog, struct served_model *served, nsa_error *err)
{
    if (catalog->count == CATALOG_MAX_MODELS)
        return nsa_error_set(err, NSA_ELIMIT, "expected at most %d models and versions",
                             CATALOG_MAX_MODELS);
    atomic_fetch_add(&served->references, 1);
    catalog->models[catalog->count++] = served;
    return NSA_OK;
}

nsa_status catalog_refuse(struct catalog *catalog, const struct refusal *refusal, nsa_error *err)
{
    struct refusal *added = &catalog->refusals[catalog->refusal_count];

    if (catalog->refusal_count == CATALOG_MAX_MODELS)
        return NSA_OK;
    *added = *refusal;
    added->reason = strdup(refusal->reason);
    if (!added->reason)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the models");
    catalog->refusal_count++;
    return NSA_OK;
}

static int compare_models(const void *a, const void *b)
{
    const struct served_model *left = *(struct served_model *const *)a;
    const struct served_model *right = *(struct served_model *const *)b;
    int by_name = strcmp(left->name, right->name);

    if (by_name != 0)
        return by_name;
    return (left->version < right->version) - (left->version > right->version);
}

static int compare_refusals(const void *a, const void *b)
{
    const struct refusal *left = a;
    const struct refusal *right = b;
    int by_name = strcmp(left->name, right->name);

    if (by_name != 0)
        return by_name;
    return (left->version > right->version) - (left->version < right->version);
}

void catalog_sort(struct catalog *catalog)
{
    qsort(catalog->models, catalog->count, sizeof(struct served_model *), compare_models);
    qsort(catalog->refusals, catalog->refusal_count, sizeof *catalog->refusals, compare_refusals);
}

/* --- finding ------------------------------------------------------------------------------- */

bool catalog_serves(const struct catalog *catalog, const char *name)
{
    for (size_t i = 0; i < catalog->count; i++) {
        if (strcmp(catalog->models[i]->name, name) == 0)
            return true;
    }
    return false;
}

struct served_model *catalog_version(const struct catalog *catalog, const char *name,
                                     uint32_t version)
{
    for (size_t i = 0; i < catalog->count; i++) {
        struct served_model *served = catalog->models[i];

        if (served->version == version && strcmp(served->name, name) == 0)
            return served;
    }
    return NULL;
}

const struct refusal *catalog_refusal(const struct catalog *catalog, const char *name,
                                      uint32_t version)
{
    for (size_t i = 0; i < catalog->refusal_count; i++) {
        const struct refusal *refusal = &catalog->refusals[i];

        if (refusal->version == version && strcmp(refusal->name, name) == 0)
            return refusal;
    }
    return NULL;
}

bool catalog_refuses(const struct catalog *catalog, const char *name)
{
    for (size_t i = 0; i < catalog->refusal_count; i++) {
        if (strcmp(catalog->refusals[i].name, name) == 0)
            return true;
    }
    return false;
}

size_t catalog_count_refused(const struct catalog *catalog)
{
    size_t count = 0;

    for (size_t i = 0; i < catalog->refusal_count; i++)
        count += !catalog->refusals[i].unloaded;
    return count;
}

/* The first model, in the order of the catalog, that is of `op` and called `name`, unless NULL. */
static const struct served_model *first_of(const struct catalog *catalog, const nsa_op *op,
                                           const char *name)
{
    for (size_t i = 0; i < catalog->count; i++) {
        const struct served_model *served = catalog->models[i];

        if ((!op || nsa_model_describe(served->model)->op == op) &&
            (!name || strcmp(served->name, name) == 0))
            return served;
    }
    return NULL;
}

/* The names of the models of `op`, as "a, b, c", cut to the room there is. */
static void list_names(char *text, size_t size, const struct catalog *catalog, const nsa_op *op)
{
    const char *last = "";
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < catalog->count; i++) {
        const struct served_model *served = catalog->models[i];
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

static nsa_status find_name(const struct served_model **out, const struct catalog *catalog,
                            const nsa_op *op, const char *name, nsa_error *err)
{
    const struct served_model *found = first_of(catalog, op, name ? name : op->name);
    const struct served_model *other;
    char names[256];

    if (!found && !op)
        return nsa_error_set(err, NSA_ENOTFOUND, "Request for unknown model: '%.128s' is not found",
                             name);
    if (!name && !found) {
        found = first_of(catalog, op, NULL);
        if (!found)
            return nsa_error_set(err, NSA_ENOTFOUND, "no model for %s is loaded", op->name);
        list_names(names, sizeof names, catalog, op);
        if (strcmp(names, found->name) != 0)
            return nsa_error_set(err, NSA_EINVAL, "model: expected one of %s, got none", names);
    }
    if (!found) {
        other = first_of(catalog, NULL, name);
        if (other)
            return nsa_error_set(err, NSA_EINVAL,
                                 "model: expected a model for %s, got '%s', which is for %s",
                                 op->name, name, nsa_model_describe(other->model)->op->name);
        list_names(names, sizeof names, catalog, op);
        return nsa_error_set(err, NSA_ENOTFOUND, "model: no model is called '%.128s'; for %s: %s",
                             name, op->name, *names ? names : "none");
    }
    *out = found;
    return NSA_OK;
}

nsa_status catalog_find(const struct served_model **out, const struct catalog *catalog,
                        const nsa_op *op, const char *name, const char *version, nsa_error *err)
{
    const struct served_model *found = NULL;
    uint32_t number;
    nsa_status status = find_name(&found, catalog, op, name, err);

    if (status != NSA_OK)
        return status;
    if (version) {
        const char *wanted = found->name;

        number = model_version_parse(version);
        if (number == 0)
            return nsa_error_set(err, NSA_EINVAL,
                                 "version: expected a positive integer, got '%.32s'", version);
        found = catalog_version(catalog, wanted, number);
        if (!found)
            return nsa_error_set(err, NSA_ENOTFOUND,
                                 op ? "version: model '%s' has no version %s"
                                    : "Request for unknown model: '%s' version %s is not found",
                                 wanted, version);
    }
    *out = found;
    return NSA_OK;
}
