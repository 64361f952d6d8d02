/*
 * What is served at one time: models, their versions, and why others are not. A catalog never
 * changes once it is published: a reload makes the next one, which shares what stays.
 */
#ifndef SERVER_CATALOG_H
#define SERVER_CATALOG_H

#include "server/served_model.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CATALOG_MAX_MODELS 1024 /* versions of all models together */

/* A version, or all of a model, that a client may expect and doesn't get. */
struct refusal {
    char name[REPOSITORY_MAX_NAME_BYTES + 1]; /* cut, if a directory's name is longer */
    uint32_t version;                         /* 0: the whole model */
    struct model_stamp stamp;
    char *reason;
    bool certain;  /* the same file would be refused again */
    bool unloaded; /* because a client said so */
};

struct catalog {
    struct served_model **models; /* (count), by name, then the highest version first */
    size_t count;
    struct refusal *refusals; /* (refusal_count), by name and version */
    size_t refusal_count;

    /* The registry's. */
    size_t references;
    struct catalog *next;
};

/* An empty catalog, or NULL without memory. */
struct catalog *catalog_new(void);

/* Drop the catalog and its references to models; the last one frees a model. Takes NULL. */
void catalog_free(struct catalog *catalog);

/* Add a model, taking a reference; NSA_ELIMIT past CATALOG_MAX_MODELS, NSA_ENOMEM. */
nsa_status catalog_add(struct catalog *catalog, struct served_model *served, nsa_error *err);

/* Add a refusal; the reason is copied. Past CATALOG_MAX_MODELS nothing is added. */
nsa_status catalog_refuse(struct catalog *catalog, const struct refusal *refusal, nsa_error *err);

/* Put it in order, after which it can be searched. */
void catalog_sort(struct catalog *catalog);

/* Whether any version of `name` is served. */
bool catalog_serves(const struct catalog *catalog, const char *name);

/* Whether there is a refusal of `name` or of any version of it. */
bool catalog_refuses(const struct catalog *catalog, const char *name);

/* The version `version` of `name`, or NULL; also of one that is not sorted yet. */
struct served_model *catalog_version(const struct catalog *catalog, const char *name,
                                     uint32_t version);

/* The refusal of `version` (0: of the whole model) of `name`, or NULL. */
const struct refusal *catalog_refusal(const struct catalog *catalog, const char *name,
                                      uint32_t version);

/* The refusals that are no client's wish. */
size_t catalog_count_refused(const struct catalog *catalog);

/**
 * The model that a request for `op` means: the one called `name`, or without a name the default:
 * the one named like the op, else the only one; of the versions, `version` or the highest (NULL).
 * @param op  NULL: any, and `name` is there; the message is then what the clients of the Open
 *            Inference Protocol look for: "Request for unknown model: 'NAME' …"
 * @return NSA_OK, NSA_ENOTFOUND, or NSA_EINVAL (of another op; no default: the message lists the
 *         candidates; a version that is no positive integer)
 * Thread-safe.
 */
nsa_status catalog_find(const struct served_model **out, const struct catalog *catalog,
                        const nsa_op *op, const char *name, const char *version, nsa_error *err);

#endif
