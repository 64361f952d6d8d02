#include "server/served_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_US 1000

bool model_stamp_equal(const struct model_stamp *a, const struct model_stamp *b)
{
    return file_stamp_equal(&a->weights, &b->weights) &&
           file_stamp_equal(&a->config_file, &b->config_file);
}

static void count_batch(void *context, size_t rows, uint64_t compute_ns)
{
    struct served_model *served = context;

    (void)compute_ns;
    metrics_count_batch(served->metrics, served->series, rows);
}

static void set_lane_options(struct served_model *served, const struct config *server,
                             const struct model_config *config)
{
    served->lane_options = (nsa_lane_options){
        .max_batch_rows = server->max_batch_rows,
        .max_queue_delay_ns = (uint64_t)server->max_queue_delay_us * NS_PER_US,
        .batch_done = count_batch,
        .context = served,
    };
    if (config && config->max_batch_rows)
        served->lane_options.max_batch_rows = config->max_batch_rows;
    if (config && config->has_queue_delay)
        served->lane_options.max_queue_delay_ns = config->max_queue_delay_us * NS_PER_US;
}

/* Give the loaded model its queue and its series. */
static nsa_status open_served(struct served_model *served, const struct loader *loader,
                              nsa_error *err)
{
    const nsa_model_info *info = nsa_model_describe(served->model);
    const struct metrics_model labels = {served->name, served->version_text, info->op->name,
                                         nsa_precision_name(info->precision), info->sha256};
    nsa_status status = NSA_OK;

    if (loader->metrics) {
        status = metrics_add_model(loader->metrics, &served->series, &labels, err);
        if (status != NSA_OK)
            return status;
        served->metrics = loader->metrics;
    }
    if (loader->batcher)
        status = nsa_lane_open(&served->lane, loader->batcher, served->model, &served->lane_options,
                               err);
    return status;
}

static nsa_status load_weights(nsa_model **out, const struct repository_entry *entry,
                               const struct load_file *file, nsa_error *err)
{
    const nsa_model_options *options = entry->config ? &entry->config->options : NULL;

    if (entry->config && model_config_is_select(entry->config))
        return nsa_model_create(out, NSA_SELECT, err);
    if (!file)
        return nsa_model_load(out, entry->path, options, err);
    return nsa_model_load_bytes(out, entry->path, file->bytes, file->size, options, err);
}

nsa_status served_model_load(struct served_model **out, const struct loader *loader,
                             const struct repository_entry *entry, const struct load_file *file,
                             bool from_request, nsa_error *err)
{
    const struct model_config *config = entry->config;
    struct served_model *served = calloc(1, sizeof *served);
    nsa_status status;

    if (!served)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for a model");
    atomic_init(&served->references, 1);
    snprintf(served->name, sizeof served->name, "%s", entry->name);
    served->version = entry->version;
    snprintf(served->version_text, sizeof served->version_text, "%u", entry->version);
    served->stamp = (struct model_stamp){entry->weights, entry->config_file};
    served->from_request = from_request;
    served->num_selected_blocks =
        config && config->has_num_selected_blocks ? config->num_selected_blocks : -1;
    set_lane_options(served, loader->config, config);
    if (!file && entry->path)
        served->path = strdup(entry->path);
    if (config && config->description)
        served->description = strdup(config->description);
    if ((!file && entry->path && !served->path) ||
        (config && config->description && !served->description))
        status = nsa_error_set(err, NSA_ENOMEM, "out of memory for a model");
    else
        status = load_weights(&served->model, entry, file, err);
    if (status == NSA_OK)
        status = open_served(served, loader, err);
    if (status != NSA_OK) {
        served_model_unref(served);
        return status;
    }
    *out = served;
    return NSA_OK;
}

void served_model_unref(struct served_model *served)
{
    if (!served || atomic_fetch_sub(&served->references, 1) != 1)
        return;
    nsa_lane_close(served->lane);
    if (served->metrics)
        metrics_remove_model(served->metrics, served->series);
    nsa_model_unref(served->model);
    free(served->path);
    free(served->description);
    free(served);
}
