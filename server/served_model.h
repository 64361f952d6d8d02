/* One version of a model: loaded, with its queue and what it counts. */
#ifndef SERVER_SERVED_MODEL_H
#define SERVER_SERVED_MODEL_H

#include "server/metrics.h"
#include "server/options.h"
#include "server/repository.h"

#include <nsa/batcher.h>
#include <nsa/model.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What models are loaded for. */
struct loader {
    const struct config *config;
    nsa_batcher *batcher;    /* NULL: no queues, for who only wants to know what would be served */
    struct metrics *metrics; /* NULL: none */
};

/* Weights that came with a request. */
struct load_file {
    uint32_t version;
    void *bytes; /* (size), owned by whoever has the request */
    size_t size;
};

/* What a version was made from; equal stamps stand for the same model. */
struct model_stamp {
    struct file_stamp weights, config_file;
};

bool model_stamp_equal(const struct model_stamp *a, const struct model_stamp *b);

/* One version of a model; immutable while anyone can find it. */
struct served_model {
    char name[REPOSITORY_MAX_NAME_BYTES + 1];
    uint32_t version;
    char version_text[11];
    char *path;        /* of the weights; NULL for an op without, and for weights from a request */
    char *description; /* from config.json, or NULL */
    nsa_model *model;
    nsa_lane *lane; /* NULL where nothing is served (--check) */
    struct metrics *metrics;
    struct metrics_model_series *series;
    nsa_lane_options lane_options;
    int64_t num_selected_blocks; /* of requests that don't say; -1: they must */
    struct model_stamp stamp;
    bool from_request;      /* a client loaded it with a configuration or weights of its own */
    atomic_uint references; /* of catalogs */
};

/**
 * Load the version that `entry` is.
 * @param file  its weights, in place of those at the entry's path, which then is a mere name
 * @param from_request  whether a client's configuration or weights make it
 * @param[out] out  caller drops the reference by served_model_unref(); untouched on error
 * @return NSA_OK; errors of nsa_model_load(); NSA_ENOMEM
 */
nsa_status served_model_load(struct served_model **out, const struct loader *loader,
                             const struct repository_entry *entry, const struct load_file *file,
                             bool from_request, nsa_error *err);

/* Drop a reference, the last of which closes the model's queue and frees it. Takes NULL. */
void served_model_unref(struct served_model *served);

#endif
