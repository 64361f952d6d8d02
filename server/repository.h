/* A model repository on disk: <name>/<version>/model.safetensors and <name>/config.json. */
#ifndef SERVER_REPOSITORY_H
#define SERVER_REPOSITORY_H

#include <nsa/model.h>
#include <nsa/status.h>
#include <stdbool.h>
#include <stdint.h>

#define REPOSITORY_MAX_CONFIG_BYTES ((size_t)64 * 1024)
#define REPOSITORY_MAX_NAME_BYTES 128

/* A model's config.json; texts are owned, NULL where a key is missing. */
struct model_config {
    nsa_model_options options; /* key_prefix is owned, op static */
    uint64_t max_batch_rows;   /* 0: the server's */
    uint64_t max_queue_delay_us;
    bool has_queue_delay;
    int64_t num_selected_blocks; /* of a select model's requests that don't say */
    bool has_num_selected_blocks;
    char *description;
};

/**
 * Read `path`; a missing file is an empty configuration.
 * @return NSA_OK; NSA_EINVAL for an unknown key or a bad value, which the message names;
 * NSA_EFORMAT; NSA_EIO; NSA_ENOMEM. On an error nothing is left to free.
 */
nsa_status model_config_read(struct model_config *out, const char *path, nsa_error *err);

/* The same of a text; `path` is what messages call it. */
nsa_status model_config_parse(struct model_config *out, const char *text, size_t size,
                              const char *path, nsa_error *err);

void model_config_free(struct model_config *config);

/* Whether it makes a model of select, which has no weights. */
bool model_config_is_select(const struct model_config *config);

/* Whether `name` can name a model: 1 to 128 letters, digits, '.', '_' or '-', no '.' first. */
bool model_name_valid(const char *name);

/* The positive integer, without leading zeros, that `text` is; 0 if it is none below 2^32. */
uint32_t model_version_parse(const char *text);

/* What a file was when it was looked at: any change to it or its place changes the stamp. */
struct file_stamp {
    uint64_t device, inode, bytes, modified_ns, changed_ns;
};

/* The stamp of `path`, followed if it is a link; zeros for what isn't there. */
struct file_stamp file_stamp_of(const char *path);
bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b);

/* One version found. */
struct repository_entry {
    const char *name;
    uint32_t version;
    const char *path;                  /* of the weights; for select, the model's directory */
    const struct model_config *config; /* NULL: none */
    struct file_stamp weights, config_file;
};

/* What a scan tells; it goes on whatever happened before. */
struct repository_visitor {
    void (*found)(void *context, const struct repository_entry *entry);
    /* A model with a broken config.json or name, or without a version. */
    void (*refused)(void *context, const char *name, const char *path, const char *reason);
    void *context;
};

/**
 * Visit every version of every model under `root`, by name. Entries that begin with a dot, and
 * files beside the models, are passed over. A select model needs no version and then has 1.
 * @return NSA_OK, NSA_EIO when `root` cannot be read, or NSA_ENOMEM
 */
nsa_status repository_scan(const char *root, const struct repository_visitor *visitor,
                           nsa_error *err);

/* Call `each` for the name of every directory that may be a model's; a root that isn't there has
 * none. */
void repository_list(const char *root, void (*each)(void *context, const char *name),
                     void *context);

/**
 * Visit every version of the model `name`.
 * @param config  in place of its config.json; NULL: read that
 * @return NSA_OK, or NSA_ENOTFOUND when there is no such directory, or `name` can name no model
 */
nsa_status repository_scan_model(const char *root, const char *name,
                                 const struct model_config *config,
                                 const struct repository_visitor *visitor, nsa_error *err);

#endif
