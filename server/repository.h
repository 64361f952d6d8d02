/* A model repository on disk: <name>/<version>/model.safetensors and <name>/config.json. */
#ifndef SERVER_REPOSITORY_H
#define SERVER_REPOSITORY_H

#include <nsa/model.h>
#include <nsa/status.h>
#include <stdbool.h>
#include <stdint.h>

#define REPOSITORY_MAX_CONFIG_BYTES ((size_t)64 * 1024)

/* A model's config.json; texts are owned, NULL where a key is missing. */
struct model_config {
    nsa_model_options options; /* key_prefix is owned, op static */
    uint64_t max_batch_rows;   /* 0: the server's */
    uint64_t max_queue_delay_us;
    bool has_queue_delay;
    char *description;
};

/**
 * Read `path`; a missing file is an empty configuration.
 * @return NSA_OK; NSA_EINVAL for an unknown key or a bad value, which the message names;
 * NSA_EFORMAT; NSA_EIO; NSA_ENOMEM. On an error nothing is left to free.
 */
nsa_status model_config_read(struct model_config *out, const char *path, nsa_error *err);

void model_config_free(struct model_config *config);

/* Whether `name` can name a model: 1 to 128 letters, digits, '.', '_' or '-', no '.' first. */
bool model_name_valid(const char *name);

/* The positive integer, without leading zeros, that `text` is; 0 if it is none below 2^32. */
uint32_t model_version_parse(const char *text);

/* One weight file found. */
struct repository_entry {
    const char *name;
    uint32_t version;
    const char *path;
    const struct model_config *config;
};

/**
 * Call `each` for every version of every model under `root`, by name, and `refused` for each model
 * that has a broken config.json or name or no version; both go on whatever happened before. Entries
 * that begin with a dot, and files beside the models, are passed over.
 * @return NSA_OK, NSA_EIO when `root` cannot be read, or NSA_ENOMEM
 */
nsa_status repository_scan(const char *root,
                           void (*each)(void *context, const struct repository_entry *entry),
                           void (*refused)(void *context, const char *path, const char *reason),
                           void *context, nsa_error *err);

#endif
