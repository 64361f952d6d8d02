/* Tensor views: a pointer, an element type and a shape. Views own nothing. */
#ifndef NSA_TENSOR_H
#define NSA_TENSOR_H

#include <nsa/dtype.h>
#include <nsa/status.h>
#include <stdbool.h>
#include <stddef.h>

#define NSA_MAX_RANK 32

/* A dense, row-major shape. Rank 0 is a scalar: one element. */
typedef struct nsa_shape {
    size_t rank;
    size_t dims[NSA_MAX_RANK];
} nsa_shape;

typedef struct nsa_tensor {
    void *data; /* shape, row-major, little-endian; any alignment unless a function says more */
    nsa_dtype dtype;
    nsa_shape shape;
} nsa_tensor;

/**
 * The number of elements of `shape`.
 * @param[out] count  product of all dims; untouched on error
 * @return NSA_OK, or NSA_ELIMIT when the product of all dims, those of 0 left out, does not fit a
 *         size_t
 */
nsa_status nsa_shape_count(size_t *count, const nsa_shape *shape, nsa_error *err);

/* The bytes of a tensor of `shape` and `dtype`; errors as nsa_shape_count(). */
nsa_status nsa_shape_bytes(size_t *bytes, const nsa_shape *shape, nsa_dtype dtype, nsa_error *err);

bool nsa_shape_equal(const nsa_shape *a, const nsa_shape *b);

#define NSA_SHAPE_TEXT_BYTES 256

/* Write `shape` as "[2, 8, 16, 32]" into `text` (cut with "..." if it does not fit); returns it. */
const char *nsa_shape_text(char text[NSA_SHAPE_TEXT_BYTES], const nsa_shape *shape);

#endif
