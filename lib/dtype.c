#include "lib/convert.h"

#include <assert.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "data is used in the host's byte order");

static const struct {
    const char *name;
    size_t size;
    bool is_float;
} dtypes[NSA_DTYPE_COUNT] = {
    [NSA_F32] = {"float32", 4, true},   [NSA_F16] = {"float16", 2, true},
    [NSA_BF16] = {"bfloat16", 2, true}, [NSA_F64] = {"float64", 8, true},
    [NSA_I64] = {"int64", 8, false},
};

size_t nsa_dtype_size(nsa_dtype dtype)
{
    assert((size_t)dtype < NSA_DTYPE_COUNT);
    return dtypes[dtype].size;
}

const char *nsa_dtype_name(nsa_dtype dtype)
{
    assert((size_t)dtype < NSA_DTYPE_COUNT);
    return dtypes[dtype].name;
}

bool nsa_dtype_from_name(nsa_dtype *out, const char *name)
{
    for (size_t i = 0; i < NSA_DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *out = (nsa_dtype)i;
            return true;
        }
    }
    return false;
}

bool nsa_dtype_is_float(nsa_dtype dtype)
{
    return (size_t)dtype < NSA_DTYPE_COUNT && dtypes[dtype].is_float;
}

void nsa_to_f32(float *dst, const void *src, nsa_dtype dtype, size_t count)
{
    assert(nsa_dtype_is_float(dtype));
    to_f32[dtype](dst, src, count);
}

void nsa_from_f32(void *dst, nsa_dtype dtype, const float *src, size_t count)
{
    assert(nsa_dtype_is_float(dtype));
    from_f32[dtype](dst, src, count);
}
