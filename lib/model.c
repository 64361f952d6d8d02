#include <nsa/model.h>

#include "lib/ops/op.h"

#include <stdlib.h>
#include <string.h>

static const char *const activation_names[NSA_ACTIVATION_COUNT] = {
    [NSA_GELU] = "gelu",
    [NSA_GELU_TANH] = "gelu_tanh",
    [NSA_SILU] = "silu",
    [NSA_RELU] = "relu",
};

static const char *const precision_names[NSA_PRECISION_COUNT] = {
    [NSA_PRECISION_F32] = "f32",
    [NSA_PRECISION_BF16] = "bf16",
};

/* Index of `name` in `names`, or `count`. */
static size_t find_name(const char *name, const char *const *names, size_t count)
{
    size_t i = 0;

    while (i < count && strcmp(name, names[i]) != 0)
        i++;
    return i;
}

const char *nsa_activation_name(nsa_activation activation)
{
    return activation_names[activation];
}

bool nsa_activation_from_name(nsa_activation *out, const char *name)
{
    size_t i = find_name(name, activation_names, NSA_ACTIVATION_COUNT);

    if (i == NSA_ACTIVATION_COUNT)
        return false;
    *out = (nsa_activation)i;
    return true;
}

const char *nsa_precision_name(nsa_precision precision)
{
    return precision_names[precision];
}

bool nsa_precision_from_name(nsa_precision *out, const char *name)
{
    size_t i = find_name(name, precision_names, NSA_PRECISION_COUNT);

    if (i == NSA_PRECISION_COUNT)
        return false;
    *out = (nsa_precision)i;
    return true;
}

/* Which op the tensors of a file belong to, and where they are. */
struct binding {
    const nsa_op_row *row;
    char *prefix;
    size_t tensors[NSA_MAX_OP_TENSORS];
    const char *missing; /* a tensor that a candidate lacks, */
    const char *sibling; /* and the one that made it a candidate */
};

/* Find all tensors of `row` under the prefix of `length` bytes at `prefix`; 1 if all are there. */
static nsa_status bind_prefix(bool *found, struct binding *binding, const nsa_safetensors *file,
                              const nsa_op_row *row, const char *prefix, size_t length,
                              nsa_error *err)
{
    *found = true;
    for (size_t i = 0; i < row->tensor_count; i++) {
        size_t name_bytes = strlen(row->tensors[i]) + 1;
        char *name = malloc(length + name_bytes);

        if (!name)
            return nsa_error_set(err, NSA_ENOMEM, "out of memory for a tensor's name");
        memcpy(name, prefix, length);
        memcpy(name + length, row->tensors[i], name_bytes);
        binding->tensors[i] = nsa_safetensors_find(file, name);
        free(name);
        if (binding->tensors[i] == SIZE_MAX) {
            binding->missing = row->tensors[i];
            *found = false;
            return NSA_OK;
        }
    }
    binding->row = row;
    binding->prefix = strndup(prefix, length);
    if (!binding->prefix)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for a tensor's name");
    return NSA_OK;
}

/* Whether entry `name` is the first tensor of `row` under a prefix that `options` allow. */
static bool starts_binding(size_t *prefix_bytes, const char *name, const nsa_op_row *row,
                           const nsa_model_options *options)
{
    size_t name_bytes = strlen(name);
    size_t key_bytes = strlen(row->tensors[0]);
    size_t length;

    if (options->op && strcmp(options->op, row->op.name) != 0)
        return false;
    if (name_bytes < key_bytes || strcmp(name + name_bytes - key_bytes, row->tensors[0]) != 0)
        return false;
    length = name_bytes - key_bytes;
    if (options->key_prefix &&
        (strlen(options->key_prefix) != length || strncmp(options->key_prefix, name, length) != 0))
        return false;
    if (!options->key_prefix && length > 0 && name[length - 1] != '.')
        return false;
    *prefix_bytes = length;
    return true;
}

static nsa_status refuse_unbound(const struct binding *binding, const nsa_safetensors *file,
                                 const nsa_model_options *options, nsa_error *err)
{
    size_t count = nsa_safetensors_count(file);

    if (binding->missing)
        return nsa_error_set(err, NSA_EINVAL, "tensor '%s': expected beside '%s', got none",
                             binding->missing, binding->sibling);

    return nsa_error_set(
        err, NSA_EINVAL,
        "expected the tensors of %s under %s%s%s (compress: mlp.1.weight, mlp.1.bias, "
        "mlp.3.weight, mlp.3.bias; posembed: embedding.weight), got %zu tensors%s%s%s",
        options->op ? options->op : "compress or posembed",
        options->key_prefix ? "the prefix '" : "one prefix",
        options->key_prefix ? options->key_prefix : "", options->key_prefix ? "'" : "", count,
        count > 0 ? ", the first of them '" : "",
        count > 0 ? nsa_safetensors_at(file, 0)->name : "", count > 0 ? "'" : "");
}

/* Find the one op and prefix that the file's tensors fit; binding->prefix is the caller's to free.
 */
static nsa_status bind(struct binding *binding, const nsa_safetensors *file,
                       const nsa_model_options *options, nsa_error *err)
{
    for (size_t id = 0; id < NSA_OP_COUNT; id++) {
        const nsa_op_row *row = nsa_op_row_at((nsa_op_id)id);

        for (size_t i = 0; row->op.has_weights && i < nsa_safetensors_count(file); i++) {
            const char *name = nsa_safetensors_at(file, i)->name;
            struct binding candidate = {0};
            size_t length;
            bool found;
            nsa_status status;

            if (!starts_binding(&length, name, row, options))
                continue;
            status = bind_prefix(&found, &candidate, file, row, name, length, err);
            if (status != NSA_OK)
                return status;
            if (!found) {
                binding->missing = candidate.missing;
                binding->sibling = name;
                continue;
            }
            if (binding->row) {
                status = nsa_error_set(err, NSA_EINVAL,
                                       "expected the tensors of one model, got those of %s under "
                                       "'%s' and of %s under '%s': choose by op or key_prefix",
                                       binding->row->op.name, binding->prefix, row->op.name,
                                       candidate.prefix);
                free(candidate.prefix);
                return status;
            }
            *binding = candidate;
        }
    }
    return binding->row ? NSA_OK : refuse_unbound(binding, file, options, err);
}

static nsa_status check_dtypes(const struct binding *binding, const nsa_safetensors *file,
                               nsa_error *err)
{
    for (size_t i = 0; i < binding->row->tensor_count; i++) {
        const nsa_safetensors_entry *entry = nsa_safetensors_at(file, binding->tensors[i]);

        if (!(entry->dtype < NSA_DTYPE_COUNT && nsa_dtype_is_float(entry->dtype)))
            return nsa_error_set(err, NSA_EUNSUPPORTED,
                                 "tensor '%s': expected dtype F32, F16, BF16 or F64, got %s",
                                 entry->name, entry->dtype_text);
    }
    return NSA_OK;
}

static nsa_model *new_model(const nsa_op_row *row)
{
    nsa_model *model = calloc(1, sizeof *model);

    if (!model)
        return NULL;
    model->row = row;
    model->info.op = &row->op;
    atomic_init(&model->references, 1);
    return model;
}

/* Build the model that the tensors of `file` make. */
static nsa_status load_model(nsa_model **out, nsa_safetensors *file,
                             const nsa_model_options *options, nsa_error *err)
{
    static const nsa_model_options defaults;
    nsa_model *model = NULL;
    struct binding binding = {0};
    nsa_status status;

    if (!options)
        options = &defaults;
    status = bind(&binding, file, options, err);
    if (status == NSA_OK)
        status = check_dtypes(&binding, file, err);
    if (status != NSA_OK)
        goto out;
    model = new_model(binding.row);
    if (!model) {
        status = nsa_error_set(err, NSA_ENOMEM, "out of memory for a model");
        goto out;
    }
    model->info.activation = options->activation;
    model->info.precision = options->precision;
    model->info.file_bytes = nsa_safetensors_bytes(file);
    status = model->row->load(model, file, binding.tensors, err);
    if (status == NSA_OK)
        status = model->row->self_check(model, err);
out:
    free(binding.prefix);
    if (status == NSA_OK)
        *out = model;
    else
        nsa_model_unref(model);
    return status;
}

/* Put `name` before what went wrong with the file, once. */
static nsa_status name_file(nsa_error *err, const char *name, nsa_status status)
{
    size_t length = strlen(name);
    nsa_error inner;

    if (!err || (strncmp(err->message, name, length) == 0 && err->message[length] == ':'))
        return status;
    inner = *err;
    return nsa_error_set(err, status, "%s: %s", name, inner.message);
}

nsa_status nsa_model_load(nsa_model **out, const char *path, const nsa_model_options *options,
                          nsa_error *err)
{
    nsa_safetensors *file = NULL;
    nsa_status status = nsa_safetensors_open(&file, path, err);

    if (status == NSA_OK)
        status = load_model(out, file, options, err);
    nsa_safetensors_close(file);
    return status == NSA_OK ? status : name_file(err, path, status);
}

nsa_status nsa_model_load_bytes(nsa_model **out, const char *name, const void *bytes, size_t size,
                                const nsa_model_options *options, nsa_error *err)
{
    nsa_safetensors *file = NULL;
    nsa_status status = nsa_safetensors_open_bytes(&file, name, bytes, size, err);

    if (status == NSA_OK)
        status = load_model(out, file, options, err);
    nsa_safetensors_close(file);
    return status == NSA_OK ? status : name_file(err, name, status);
}

nsa_status nsa_model_create(nsa_model **out, nsa_op_id op, nsa_error *err)
{
    const nsa_op_row *row = nsa_op_row_at(op);
    nsa_model *model;
    nsa_status status;

    if (row->op.has_weights)
        return nsa_error_set(err, NSA_EINVAL, "%s: expected an op without weights", row->op.name);
    model = new_model(row);
    if (!model)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for a model");
    status = row->self_check(model, err);
    if (status != NSA_OK) {
        nsa_model_unref(model);
        return status;
    }
    *out = model;
    return NSA_OK;
}

const nsa_model_info *nsa_model_describe(const nsa_model *model)
{
    return &model->info;
}

nsa_model *nsa_model_ref(nsa_model *model)
{
    atomic_fetch_add_explicit(&model->references, 1, memory_order_relaxed);
    return model;
}

void nsa_model_unref(nsa_model *model)
{
    if (!model || atomic_fetch_sub_explicit(&model->references, 1, memory_order_acq_rel) != 1)
        return;
    if (model->row->unload)
        model->row->unload(model);
    free(model);
}
