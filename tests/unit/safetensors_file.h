/* Makes .safetensors files, well-formed or not, for the tests. */
#ifndef TESTS_SAFETENSORS_FILE_H
#define TESTS_SAFETENSORS_FILE_H

#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES ((size_t)8)

/* Three tensors, not listed in the order of their data, at addresses that nothing aligns. */
#define SMALL_HEADER                                                                               \
    "{\"b\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[2,10]},"                          \
    "\"a\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[0,2]},"                              \
    "\"c\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[10,13]}}"

/* Their data: a is 1; b is 2 and -3. */
#define SMALL_DATA "\x80\x3F\0\0\0\x40\0\0\x40\xC0\1\2\3"
#define SMALL_DATA_BYTES ((size_t)13)

/* Put a header's length before it and `data` behind, into a file that the caller unlinks. */
static inline const char *write_parts(const char *header, size_t header_bytes, const void *data,
                                      size_t data_bytes)
{
    size_t size = LENGTH_BYTES + header_bytes + data_bytes;
    unsigned char *bytes = malloc(size);
    const char *path;

    assert_non_null(bytes);
    for (size_t i = 0; i < LENGTH_BYTES; i++)
        bytes[i] = (unsigned char)((uint64_t)header_bytes >> (8 * i));
    memcpy(bytes + LENGTH_BYTES, header, header_bytes);
    if (data_bytes > 0)
        memcpy(bytes + LENGTH_BYTES + header_bytes, data, data_bytes);
    path = write_temporary("weights.safetensors", bytes, size);
    free(bytes);
    return path;
}

static inline const char *write_small(void)
{
    return write_parts(SMALL_HEADER, strlen(SMALL_HEADER), SMALL_DATA, SMALL_DATA_BYTES);
}

#endif
