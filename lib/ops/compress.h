/* A compress model from the inside: compress.c computes, compress_load.c makes it ready to. */
#ifndef NSA_COMPRESS_H
#define NSA_COMPRESS_H

#include "lib/ops/kernels/kernels.h"
#include "lib/ops/op.h"

/* Tensors of a compress model, in the order of the op's row. */
enum { COMPRESS_W1, COMPRESS_B1, COMPRESS_W2, COMPRESS_B2, COMPRESS_TENSORS };

/* Dimensions of a compress model, in the order of its description. */
enum { COMPRESS_HEAD, COMPRESS_BLOCK, COMPRESS_HIDDEN };

struct nsa_compress {
    nsa_mlp mlp; /* w1 and w2 are NULL once an engine has packed them */
    const nsa_linear_engine *engine;
    const char *w1, *w2; /* as the engine takes them */
    float *matrices;     /* w1 and w2 as they are, or NULL */
    float *biases;       /* b1 and b2 */
    float *packed;       /* w1 and w2 in the engine's panels, or NULL */
};

/*
 * Memory of one worker. Hidden values are computed by chunks of columns, so that they stay in the
 * cache; `rounded` is `hidden` in bfloat16, for an engine that takes that.
 */
struct nsa_compress_scratch {
    char *x;                               /* (tile, in) elements of the engine's input, to fill */
    const char *x_rows[NSA_MAX_TILE];      /* (tile): the rows to compute, in x or elsewhere */
    size_t x_bytes;                        /* of a row of x */
    float *hidden;                         /* (tile, hidden_width) */
    uint16_t *rounded;                     /* (tile, hidden_width), or NULL */
    const char *hidden_rows[NSA_MAX_TILE]; /* (tile): in hidden or rounded */
    float *y;                              /* (tile, out_width) */
    size_t hidden_width, out_width;
    size_t bytes; /* of all */
};

/*
 * Lay the parts out from `base` on, aligned to NSA_SCRATCH_ALIGN, or with NULL find their size
 * alone; false when it does not fit a size_t.
 */
bool nsa_compress_layout(struct nsa_compress_scratch *out, const nsa_mlp *mlp,
                         const nsa_linear_engine *engine, void *base);

/* Have row `place` be the (in) numbers of `dtype` at `from`, any alignment, which must stay. */
void nsa_compress_place(const struct nsa_compress *compress, struct nsa_compress_scratch *scratch,
                        size_t place, const void *from, nsa_dtype dtype);

/* y = the MLP of the first `rows` rows placed. */
void nsa_compress_tile(const struct nsa_compress *compress,
                       const struct nsa_compress_scratch *scratch, size_t rows);

/* As in nsa_op_row. */
nsa_status nsa_compress_load(nsa_model *model, nsa_safetensors *file, const size_t *tensors,
                             nsa_error *err);
void nsa_compress_unload(nsa_model *model);
nsa_status nsa_compress_self_check(nsa_model *model, nsa_error *err);

/* Have `engine` multiply from here on: pack the weights if it wants them packed. */
nsa_status nsa_compress_use(struct nsa_compress *compress, const nsa_linear_engine *engine,
                            nsa_error *err);

/*
 * Whether the engine in use is right and gives a row the same bits in every place and company.
 * @param[out] holds  untouched on error
 * @return NSA_OK, NSA_ELIMIT or NSA_ENOMEM
 */
nsa_status nsa_compress_try(bool *holds, const struct nsa_compress *compress, nsa_error *err);

#endif
