#include <assert.h>
#include <nsa/size.h>
#include <nsa/tensor.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* ", " and the digits of the greatest size_t. */
#define DIM_TEXT_BYTES 22

nsa_status nsa_shape_count(size_t *count, const nsa_shape *shape, nsa_error *err)
{
    char text[NSA_SHAPE_TEXT_BYTES];
    size_t product = 1; /* of the dims other than 0: rows without elements are counted too */
    bool empty = false;
    bool fits = true;

    assert(shape->rank <= NSA_MAX_RANK);
    for (size_t i = 0; i < shape->rank; i++) {
        if (shape->dims[i] == 0)
            empty = true;
        else if (!nsa_size_mul(&product, product, shape->dims[i]))
            fits = false;
    }
    if (!fits)
        return nsa_error_set(err, NSA_ELIMIT, "shape %s: expected at most %zu elements, got more",
                             nsa_shape_text(text, shape), SIZE_MAX);
    *count = empty ? 0 : product;
    return NSA_OK;
}

nsa_status nsa_shape_bytes(size_t *bytes, const nsa_shape *shape, nsa_dtype dtype, nsa_error *err)
{
    char text[NSA_SHAPE_TEXT_BYTES];
    size_t count = 0;
    nsa_status status = nsa_shape_count(&count, shape, err);

    if (status != NSA_OK)
        return status;
    if (!nsa_size_mul(bytes, count, nsa_dtype_size(dtype)))
        return nsa_error_set(err, NSA_ELIMIT,
                             "shape %s of %s: expected at most %zu bytes, got more",
                             nsa_shape_text(text, shape), nsa_dtype_name(dtype), SIZE_MAX);
    return NSA_OK;
}

bool nsa_shape_equal(const nsa_shape *a, const nsa_shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (size_t i = 0; i < a->rank; i++) {
        if (a->dims[i] != b->dims[i])
            return false;
    }
    return true;
}

const char *nsa_shape_text(char text[NSA_SHAPE_TEXT_BYTES], const nsa_shape *shape)
{
    static const char cut[] = ", ...]";
    char full[NSA_MAX_RANK * DIM_TEXT_BYTES + sizeof "[]"] = "[";
    size_t length = 1;

    assert(shape->rank <= NSA_MAX_RANK);
    for (size_t i = 0; i < shape->rank; i++)
        length += (size_t)snprintf(full + length, sizeof full - length, "%s%zu", i > 0 ? ", " : "",
                                   shape->dims[i]);
    full[length++] = ']';
    if (length < NSA_SHAPE_TEXT_BYTES) {
        memcpy(text, full, length);
        text[length] = '\0';
        return text;
    }
    length = NSA_SHAPE_TEXT_BYTES - sizeof cut;
    while (full[length] != ',')
        length--;
    memcpy(text, full, length);
    memcpy(text + length, cut, sizeof cut);
    return text;
}
