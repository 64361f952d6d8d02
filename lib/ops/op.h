/*
 * What an operation is to the library: the public description and the functions behind it. A new
 * operation is one file that defines such a row, and its entry in ops.c.
 */
#ifndef NSA_OP_H
#define NSA_OP_H

#include <nsa/model.h>
#include <nsa/ops.h>
#include <nsa/safetensors.h>
#include <stdatomic.h>

#define NSA_MAX_OP_TENSORS 4

typedef struct nsa_op_row {
    nsa_op op;

    /* Keys of the weights in a state_dict, without prefix; none for an op without weights. */
    size_t tensor_count;
    const char *tensors[NSA_MAX_OP_TENSORS];

    /*
     * Check the shapes of `tensors` (indices into `file`, in the order above), fill dims of
     * model->info, set model->weights, and read the file. NULL for an op without weights.
     */
    nsa_status (*load)(nsa_model *model, nsa_safetensors *file, const size_t *tensors,
                       nsa_error *err);
    void (*unload)(nsa_model *model);

    /* Compare the fast path with the reference; NSA_ESELFCHECK or NSA_ENOMEM. */
    nsa_status (*self_check)(nsa_model *model, nsa_error *err);

    /* As nsa_request_plan(), for an input of a floating dtype and params that fit their types. */
    nsa_status (*plan)(nsa_request *request, const nsa_model *model, nsa_error *err);

    /* As nsa_run(), nsa_run_scratch_bytes() (NULL: none) and nsa_run_row_unit() (NULL: 1). */
    void (*run)(const nsa_model *model, const nsa_span *spans, size_t count, void *scratch);
    size_t (*scratch_bytes)(const nsa_model *model);
    size_t (*row_unit)(const nsa_model *model);

    /* See nsa_run_rows_alike(). */
    bool rows_alike;

    /*
     * Input elements up to which a request costs less than a hand-over to another thread, each
     * element of the output counted as `output_weight` of them.
     */
    size_t cheap_elements;
    size_t output_weight;
} nsa_op_row;

struct nsa_model {
    const nsa_op_row *row;
    nsa_model_info info;
    void *weights; /* the op's own */
    atomic_uint references;
};

extern const nsa_op_row nsa_select_op;
extern const nsa_op_row nsa_compress_op;
extern const nsa_op_row nsa_posembed_op;

/* The row of `id`. */
const nsa_op_row *nsa_op_row_at(nsa_op_id id);

/* Fixed pseudo-random floats in [-1, 1) for self-checks. */
void nsa_self_check_fill(float *values, size_t count);

#endif
