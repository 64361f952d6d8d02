/*
 * Makes the next catalog from the one in force and what is on disk. What has not changed is shared;
 * what has is loaded and checked aside; what is refused leaves the version that serves where it is.
 */
#ifndef SERVER_LOADER_H
#define SERVER_LOADER_H

#include "server/catalog.h"
#include "server/options.h"

#include <stddef.h>

#define LOAD_MAX_FILES 8

/* What a client asks to be loaded. */
struct load_request {
    char name[REPOSITORY_MAX_NAME_BYTES + 1];
    struct model_config config;             /* in place of config.json, */
    bool has_config;                        /* if this is set */
    struct load_file files[LOAD_MAX_FILES]; /* in place of the repository's, if there are any */
    size_t file_count;
};

/**
 * Look at everything again: the repository, and the files given by --model. With model control
 * "explicit" no new names are loaded. Each refusal is logged, with the file and the reason, when it
 * is new. What clients loaded with a configuration or weights of their own stays, and so does what
 * is served of a name of which all else is refused.
 * @param now  NULL: nothing is served yet, and everything is loaded
 * @param[out] out  caller publishes or frees; NULL when nothing has changed; untouched on error
 * @param[out] refused  how many new refusals there are
 * @return NSA_OK; NSA_EIO when the repository cannot be read; NSA_ENOMEM
 */
nsa_status loader_reload(struct catalog **out, size_t *refused, const struct loader *loader,
                         const struct catalog *now, nsa_error *err);

/**
 * Load one model anew, all of its versions, or, when one is refused, none of them.
 * @param[out] out  as above; also set when something on disk was refused: it has that reason
 * @return NSA_OK; NSA_ENOTFOUND for a model that is nowhere; NSA_EINVAL with the reason when a
 *         version was refused; NSA_EIO; NSA_ENOMEM
 */
nsa_status loader_load(struct catalog **out, const struct loader *loader, const struct catalog *now,
                       const struct load_request *request, nsa_error *err);

/**
 * Serve all versions of `name` no longer.
 * @return NSA_OK; NSA_ENOTFOUND; NSA_EINVAL for select, which is always there; NSA_ENOMEM
 */
nsa_status loader_unload(struct catalog **out, const struct catalog *now, const char *name,
                         nsa_error *err);

#endif
