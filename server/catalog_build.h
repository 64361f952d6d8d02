/* A catalog in the making: what is kept of the one in force, what is loaded, what is refused. */
#ifndef SERVER_CATALOG_BUILD_H
#define SERVER_CATALOG_BUILD_H

#include "server/catalog.h"
#include "server/loader.h"

#include <stdbool.h>
#include <stddef.h>

struct build {
    const struct loader *loader;
    const struct catalog *now; /* NULL: none yet */
    struct catalog *next;
    const struct load_request *request; /* NULL: everything is looked at */
    size_t refused;                     /* new refusals */
    nsa_status refusal;                 /* of the first of them, with its */
    char reason[NSA_ERROR_MESSAGE_BYTES];
    bool changed;
    nsa_status status; /* NSA_OK, or why there can be no next catalog */
    nsa_error *err;
};

/* An empty catalog to follow `now`; NSA_ENOMEM. */
nsa_status build_begin(struct build *build, const struct loader *loader, const struct catalog *now,
                       const struct load_request *request, nsa_error *err);

/* Leave it. */
void build_drop(struct build *build);

/*
 * Log what has come and gone, and give the catalog to the caller: NULL when it would be the same.
 * @return NSA_OK, or what stood in its way; then nothing is left
 */
nsa_status build_end(struct catalog **out, struct build *build);

/* Keep a version that is served, unless its place is taken. */
void build_keep(struct build *build, struct served_model *served);

/* Keep the versions of `name` that are served, unless their place is taken. */
void build_keep_name(struct build *build, const char *name);

/* Keep all that there is of other names. */
void build_keep_others(struct build *build, const char *name);

void build_keep_refusal(struct build *build, const struct refusal *refusal);

/*
 * Refuse `entry` (version 0: all of a model). One that is refused again for the same reason isn't
 * news, unless it is by a client's request.
 */
void build_refuse(struct build *build, const struct repository_entry *entry, nsa_status status,
                  const char *reason);

/* Load `entry`, from `file` if there is one; if that fails, what is served of it stays. */
void build_load(struct build *build, const struct repository_entry *entry,
                const struct load_file *file);

#endif
