/* The models that are served: a repository's, those given by --model, and select. */
#ifndef SERVER_REGISTRY_H
#define SERVER_REGISTRY_H

#include "server/metrics.h"
#include "server/options.h"

#include <nsa/batcher.h>
#include <nsa/model.h>
#include <stddef.h>
#include <stdint.h>

#define REGISTRY_MAX_NAME_BYTES 128
#define REGISTRY_MAX_MODELS 1024 /* versions of all models together */

struct served_model {
    char name[REGISTRY_MAX_NAME_BYTES + 1];
    uint32_t version;
    char version_text[11];
    char *path;        /* of the weights; NULL for an op without */
    char *description; /* from config.json, or NULL */
    nsa_model *model;
    nsa_lane *lane;
    nsa_lane_options lane_options;
    struct metrics *metrics; /* of the series */
    struct metrics_model_series *series;
};

/* Immutable once opened; sorted by name, then the highest version first. */
struct registry {
    struct served_model *models; /* (count) */
    size_t count;
};

/**
 * Load every model that `config` names. Each one that is refused is logged with its file and the
 * reason, and the rest are tried all the same.
 * @param[out] out  caller frees with registry_close(); untouched on error
 * @return NSA_OK; NSA_EINVAL when any model was refused; NSA_EIO; NSA_ENOMEM
 */
nsa_status registry_load(struct registry **out, const struct config *config, nsa_error *err);

/*
 * Open the queue of each model, and its series in `metrics`, which outlives the registry. On an
 * error some may be open: close the registry.
 */
nsa_status registry_open(struct registry *registry, nsa_batcher *batcher, struct metrics *metrics,
                         nsa_error *err);

/* Wait for the queues to empty, remove the series, and free all. NULL is allowed. */
void registry_close(struct registry *registry);

/**
 * The model that a request for `op` means: the one called `name`, or without a name the default:
 * the one named like the op, else the only one; of the versions, `version` or the highest (NULL).
 * @return NSA_OK, NSA_ENOTFOUND, or NSA_EINVAL (of another op; no default: the message lists the
 *         candidates; a version that is no positive integer)
 * Thread-safe.
 */
nsa_status registry_find(const struct served_model **out, const struct registry *registry,
                         const nsa_op *op, const char *name, const char *version, nsa_error *err);

#endif
