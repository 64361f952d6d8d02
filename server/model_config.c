#include "server/repository.h"

#include <errno.h>
#include <jansson.h>
#include <nsa/batcher.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Setters of one key each: false for a value that doesn't fit. */

static bool set_text(char **out, const json_t *value)
{
    if (!json_is_string(value))
        return false;
    *out = strdup(json_string_value(value));
    return *out != NULL;
}

static bool set_op(struct model_config *config, const json_t *value)
{
    const nsa_op *op = json_is_string(value) ? nsa_op_find(json_string_value(value)) : NULL;

    if (!op)
        return false;
    config->options.op = op->name;
    return true;
}

static bool set_activation(struct model_config *config, const json_t *value)
{
    return json_is_string(value) &&
           nsa_activation_from_name(&config->options.activation, json_string_value(value));
}

static bool set_precision(struct model_config *config, const json_t *value)
{
    return json_is_string(value) &&
           nsa_precision_from_name(&config->options.precision, json_string_value(value));
}

static bool set_key_prefix(struct model_config *config, const json_t *value)
{
    return set_text((char **)&config->options.key_prefix, value);
}

static bool set_max_batch_rows(struct model_config *config, const json_t *value)
{
    json_int_t rows = json_integer_value(value);

    if (!json_is_integer(value) || rows < 1 || (uint64_t)rows > NSA_MAX_BATCH_ROWS)
        return false;
    config->max_batch_rows = (uint64_t)rows;
    return true;
}

static bool set_max_queue_delay(struct model_config *config, const json_t *value)
{
    json_int_t delay = json_integer_value(value);

    if (!json_is_integer(value) || delay < 0 || delay > 1000000)
        return false;
    config->max_queue_delay_us = (uint64_t)delay;
    config->has_queue_delay = true;
    return true;
}

static bool set_num_selected_blocks(struct model_config *config, const json_t *value)
{
    config->num_selected_blocks = json_integer_value(value);
    config->has_num_selected_blocks = true;
    return json_is_integer(value) && config->num_selected_blocks >= 0;
}

static bool set_description(struct model_config *config, const json_t *value)
{
    return set_text(&config->description, value);
}

static const struct {
    const char *key;
    const char *expected;
    bool (*set)(struct model_config *config, const json_t *value);
} keys[] = {
    {"op", "\"compress\", \"posembed\" or \"select\"", set_op},
    {"activation", "\"gelu\", \"gelu_tanh\", \"silu\" or \"relu\"", set_activation},
    {"precision", "\"f32\" or \"bf16\"", set_precision},
    {"key_prefix", "a text", set_key_prefix},
    {"max_batch_rows", "an integer from 1 to 65536", set_max_batch_rows},
    {"max_queue_delay_us", "an integer from 0 to 1000000", set_max_queue_delay},
    {"num_selected_blocks", "an integer of at least 0", set_num_selected_blocks},
    {"description", "a text", set_description},
};

#define KEY_COUNT (sizeof keys / sizeof *keys)

static nsa_status apply_keys(struct model_config *config, json_t *root, const char *path,
                             nsa_error *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(root))
        return nsa_error_set(err, NSA_EFORMAT, "%s: expected a JSON object", path);
    json_object_foreach(root, key, value)
    {
        size_t i = 0;

        while (i < KEY_COUNT && strcmp(key, keys[i].key) != 0)
            i++;
        if (i == KEY_COUNT)
            return nsa_error_set(err, NSA_EINVAL,
                                 "%s: unknown key '%.64s'; expected op, activation, precision, "
                                 "key_prefix, max_batch_rows, max_queue_delay_us, "
                                 "num_selected_blocks or description",
                                 path, key);
        if (!keys[i].set(config, value)) {
            char *got = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

            nsa_error_set(err, NSA_EINVAL, "%s: %s: expected %s, got %.64s", path, key,
                          keys[i].expected, got ? got : "something else");
            free(got);
            return NSA_EINVAL;
        }
    }
    return NSA_OK;
}

/* Keys that have no meaning for the op. */
static nsa_status check_op(const struct model_config *config, const char *path, nsa_error *err)
{
    const nsa_model_options *options = &config->options;
    bool select = model_config_is_select(config);

    if (config->has_num_selected_blocks && !select)
        return nsa_error_set(err, NSA_EINVAL,
                             "%s: num_selected_blocks: expected beside \"op\": \"select\" only",
                             path);
    if (select && (options->key_prefix || options->activation != NSA_GELU ||
                   options->precision != NSA_PRECISION_F32))
        return nsa_error_set(err, NSA_EINVAL,
                             "%s: activation, precision and key_prefix: expected for models with "
                             "weights only",
                             path);
    return NSA_OK;
}

/* The file's bytes; caller frees. *out is NULL, with NSA_OK, when there is no such file. */
static nsa_status read_config(char **out, size_t *size, const char *path, nsa_error *err)
{
    FILE *file = fopen(path, "rbe");
    char *bytes;

    *out = NULL;
    if (!file && errno == ENOENT)
        return NSA_OK;
    if (!file)
        return nsa_error_set(err, NSA_EIO, "%s: %s", path, strerror(errno));
    bytes = malloc(REPOSITORY_MAX_CONFIG_BYTES + 1);
    if (!bytes) {
        fclose(file);
        return nsa_error_set(err, NSA_ENOMEM, "%s: out of memory", path);
    }
    *size = fread(bytes, 1, REPOSITORY_MAX_CONFIG_BYTES + 1, file);
    if (ferror(file) || *size > REPOSITORY_MAX_CONFIG_BYTES) {
        nsa_status status = ferror(file)
                                ? nsa_error_set(err, NSA_EIO, "%s: cannot be read", path)
                                : nsa_error_set(err, NSA_ELIMIT, "%s: expected at most %zu bytes",
                                                path, REPOSITORY_MAX_CONFIG_BYTES);
        free(bytes);
        fclose(file);
        return status;
    }
    fclose(file);
    *out = bytes;
    return NSA_OK;
}

nsa_status model_config_parse(struct model_config *out, const char *text, size_t size,
                              const char *path, nsa_error *err)
{
    struct model_config config = {0};
    json_error_t json_error;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &json_error);
    nsa_status status;

    if (!root)
        return nsa_error_set(err, NSA_EFORMAT, "%s: line %d: %s", path, json_error.line,
                             json_error.text);
    status = apply_keys(&config, root, path, err);
    json_decref(root);
    if (status == NSA_OK)
        status = check_op(&config, path, err);
    if (status != NSA_OK) {
        model_config_free(&config);
        return status;
    }
    *out = config;
    return NSA_OK;
}

nsa_status model_config_read(struct model_config *out, const char *path, nsa_error *err)
{
    char *bytes;
    size_t size = 0;
    nsa_status status = read_config(&bytes, &size, path, err);

    if (status != NSA_OK)
        return status;
    if (!bytes) {
        *out = (struct model_config){0};
        return NSA_OK;
    }
    status = model_config_parse(out, bytes, size, path, err);
    free(bytes);
    return status;
}

bool model_config_is_select(const struct model_config *config)
{
    return config->options.op && nsa_op_find(config->options.op)->id == NSA_SELECT;
}

void model_config_free(struct model_config *config)
{
    free((char *)config->options.key_prefix);
    free(config->description);
    *config = (struct model_config){0};
}
