/*
 * The operations, as data: what each is called, takes and returns. Everything works on rows: the
 * leading dimensions of a tensor are flattened, and the rank of an output mirrors its input's.
 */
#ifndef NSA_OPS_H
#define NSA_OPS_H

#include <nsa/status.h>
#include <nsa/tensor.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NSA_MAX_PARAMS 4
#define NSA_MAX_OUTPUTS 2

typedef struct nsa_model nsa_model;

typedef enum nsa_op_id {
    NSA_SELECT,   /* scores[..., N] -> indices[..., k] int64, values[..., k] */
    NSA_COMPRESS, /* x[..., n, d] or [..., n*d] -> y[..., d] */
    NSA_POSEMBED, /* x[..., L, dim] -> y[..., L, dim] */
    NSA_OP_COUNT
} nsa_op_id;

typedef enum nsa_param_type { NSA_PARAM_INT, NSA_PARAM_BOOL } nsa_param_type;

typedef struct nsa_param_spec {
    const char *name;
    nsa_param_type type;
    bool required;
    int64_t default_value; /* of a parameter that is not required */
    size_t output; /* of a boolean: the output that there is only when it is true; 0: none */
} nsa_param_spec;

#define NSA_MAX_SPEC_RANK 3

/* A tensor of an op, in its plainest form. */
typedef struct nsa_tensor_spec {
    const char *name;
    nsa_dtype dtype; /* NSA_F32 stands for any floating dtype; outputs then have the input's */
    size_t rank;
    const char *dims[NSA_MAX_SPEC_RANK]; /* the model's dimension that each is; NULL: any */
} nsa_tensor_spec;

typedef struct nsa_op {
    nsa_op_id id;
    const char *name;
    bool has_weights;
    nsa_tensor_spec input;
    size_t output_count;
    nsa_tensor_spec outputs[NSA_MAX_OUTPUTS];
    size_t param_count;
    nsa_param_spec params[NSA_MAX_PARAMS];
} nsa_op;

/* The operation with this id. */
const nsa_op *nsa_op_at(nsa_op_id id);

/* The operation called `name`, or NULL. */
const nsa_op *nsa_op_find(const char *name);

/*
 * One piece of work. The caller fills `params` (in the order of the op's specs) and `input`, calls
 * nsa_request_plan(), and gives every planned output room for its data; the request, the input and
 * the outputs stay the caller's.
 */
typedef struct nsa_request {
    int64_t params[NSA_MAX_PARAMS];
    nsa_tensor input;
    nsa_tensor outputs[NSA_MAX_OUTPUTS]; /* (…) as planned, aligned to their element size */
    size_t output_count;                 /* outputs asked for; the first ones of the op's list */
    size_t rows; /* independent rows to compute; 0 when no output has elements */
} nsa_request;

/**
 * Check params, dtype and shape of `request` against `model` and fill output_count, rows, and each
 * output's dtype and shape. No data is touched and every data pointer may still be NULL.
 * @return NSA_OK, NSA_EINVAL, NSA_EUNSUPPORTED (dtype) or NSA_ELIMIT; the message says what was
 *         expected and what came, and `request` is then unspecified but for its input and params
 * Thread-safe.
 */
nsa_status nsa_request_plan(nsa_request *request, const nsa_model *model, nsa_error *err);

/* A run of rows of a planned request. */
typedef struct nsa_span {
    const nsa_request *request;
    size_t row_begin;
    size_t row_count;
} nsa_span;

/* Bytes of scratch memory that nsa_run() needs for `model`; 0 when it needs none. */
size_t nsa_run_scratch_bytes(const nsa_model *model);

/* Whether all rows of `model` cost alike, whatever the request: what one took tells of the next. */
bool nsa_run_rows_alike(const nsa_model *model);

/* Rows of `model` that cost as much together as one alone; a batch is best a multiple of it. */
size_t nsa_run_row_unit(const nsa_model *model);

#define NSA_SCRATCH_ALIGN 64

/**
 * Compute the rows of `count` spans, in any mix of requests planned for `model`, into the requests'
 * outputs. The bits of a row's result depend on the row, the weights, the precision and the CPU's
 * kernel alone: not on the spans it comes with.
 * @param scratch  nsa_run_scratch_bytes() bytes aligned to NSA_SCRATCH_ALIGN, this call's alone
 * Thread-safe for spans that don't overlap. Cannot fail.
 */
void nsa_run(const nsa_model *model, const nsa_span *spans, size_t count, void *scratch);

/* Whether the whole of `request` costs less than handing it to another thread, and no scratch. */
bool nsa_request_is_cheap(const nsa_request *request, const nsa_model *model);

#endif
