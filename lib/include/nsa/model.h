/* Models: an operation bound to its weights. */
#ifndef NSA_MODEL_H
#define NSA_MODEL_H

#include <nsa/ops.h>
#include <nsa/safetensors.h>
#include <nsa/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum nsa_activation {
    NSA_GELU, /* x/2 (1 + erf(x/sqrt 2)), torch.nn.GELU() */
    NSA_GELU_TANH,
    NSA_SILU,
    NSA_RELU,
    NSA_ACTIVATION_COUNT
} nsa_activation;

typedef enum nsa_precision {
    NSA_PRECISION_F32,
    NSA_PRECISION_BF16, /* inputs, weights and hidden values rounded to bfloat16, float32 sums */
    NSA_PRECISION_COUNT
} nsa_precision;

/* "gelu", "gelu_tanh", "silu", "relu", and back. */
const char *nsa_activation_name(nsa_activation activation);
bool nsa_activation_from_name(nsa_activation *out, const char *name);

/* "f32", "bf16", and back. */
const char *nsa_precision_name(nsa_precision precision);
bool nsa_precision_from_name(nsa_precision *out, const char *name);

/* What the file alone does not say. Zeroed: inferred op and prefix, GELU, float32. */
typedef struct nsa_model_options {
    const char *op;         /* NULL: from the tensors */
    const char *key_prefix; /* NULL: from the tensors; "" for none */
    nsa_activation activation;
    nsa_precision precision;
} nsa_model_options;

#define NSA_MAX_MODEL_DIMS 3

typedef struct nsa_model_info {
    const nsa_op *op;
    struct {
        const char *name; /* "dim_head", "compress_block_size", "hidden", "max_len", "dim" */
        size_t value;
    } dims[NSA_MAX_MODEL_DIMS];
    size_t dim_count;
    nsa_activation activation; /* of compress */
    nsa_precision precision;
    char sha256[NSA_SHA256_HEX_BYTES]; /* of the weight file; "" for an op without weights */
    uint64_t file_bytes;
    const char *engine; /* what multiplies matrices: a static string, or NULL */
} nsa_model_info;

/**
 * Load a weight file: infer the op and all dimensions from its tensors, lay the weights out for the
 * kernels, and compare the fast path with the reference kernel in double precision.
 * @param options  NULL for the defaults
 * @param[out] out  caller releases with nsa_model_unref(); untouched on error
 * @return NSA_OK; errors of nsa_safetensors_open(); NSA_EINVAL when the tensors fit no op or
 *         contradict the options; NSA_ESELFCHECK when this machine computes wrong results
 * The model is immutable and may be shared by threads.
 */
nsa_status nsa_model_load(nsa_model **out, const char *path, const nsa_model_options *options,
                          nsa_error *err);

/**
 * The same for a weight file that is in memory already: the model computes the same bits.
 * @param name   what messages call the file, in the place of a path
 * @param bytes  (size), at any alignment; the caller's, and not needed after the return
 */
nsa_status nsa_model_load_bytes(nsa_model **out, const char *name, const void *bytes, size_t size,
                                const nsa_model_options *options, nsa_error *err);

/* A model of an op without weights; otherwise as nsa_model_load(). */
nsa_status nsa_model_create(nsa_model **out, nsa_op_id op, nsa_error *err);

/* What the model is; lives as long as the model. */
const nsa_model_info *nsa_model_describe(const nsa_model *model);

/* Take and drop a reference; the last one frees. Thread-safe; unref takes NULL. */
nsa_model *nsa_model_ref(nsa_model *model);
void nsa_model_unref(nsa_model *model);

#endif
