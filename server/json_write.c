#include "server/json_number.h"
#include "server/json_scan.h"

#include <math.h>
#include <string.h>

/* Numbers for which room is made at once. */
#define CHUNK 512

/* The most that one takes, its comma included. */
#define NUMBER_BYTES (JSON_F64_BYTES + 1)

_Static_assert(JSON_F64_BYTES >= JSON_F32_BYTES && JSON_F64_BYTES >= JSON_I64_BYTES,
               "room for any kind");
_Static_assert(CHUNK *NUMBER_BYTES <= JSON_WRITE_SLACK, "what the header promises");

typedef struct writer {
    buffer *b;
    const nsa_tensor *tensor;
    const char *from; /* the next element */
    bool nonfinite_null;
} writer;

static size_t put_null(char *to)
{
    memcpy(to, "null", 4);
    return 4;
}

static char *put_floats(char *to, const writer *w, size_t count)
{
    float values[CHUNK];

    nsa_to_f32(values, w->from, w->tensor->dtype, count);
    for (size_t i = 0; i < count; i++) {
        bool null = w->nonfinite_null && !isfinite(values[i]);

        to += null ? put_null(to) : json_print_f32(to, values[i]);
        *to++ = ',';
    }
    return to;
}

static char *put_doubles(char *to, const writer *w, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double value;

        memcpy(&value, w->from + i * sizeof value, sizeof value);
        to += w->nonfinite_null && !isfinite(value) ? put_null(to) : json_print_f64(to, value);
        *to++ = ',';
    }
    return to;
}

static char *put_integers(char *to, const writer *w, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int64_t value;

        memcpy(&value, w->from + i * sizeof value, sizeof value);
        to += json_print_i64(to, value);
        *to++ = ',';
    }
    return to;
}

/* Writes `count` numbers, at most CHUNK, each with a comma behind; returns the end. */
typedef char *put_function(char *to, const writer *w, size_t count);

static put_function *const put_functions[NSA_DTYPE_COUNT] = {
    [NSA_F32] = put_floats,  [NSA_F16] = put_floats,   [NSA_BF16] = put_floats,
    [NSA_F64] = put_doubles, [NSA_I64] = put_integers,
};

/* Append `count` numbers with commas between them. */
static void put_numbers(writer *w, size_t count)
{
    put_function *put = put_functions[w->tensor->dtype];
    size_t size = nsa_dtype_size(w->tensor->dtype);

    while (count > 0 && w->b->status == NSA_OK) {
        size_t chunk = count < CHUNK ? count : CHUNK;
        char *to = buffer_reserve(w->b, chunk * NUMBER_BYTES);
        char *end;

        if (!to)
            return;
        end = put(to, w, chunk);
        w->from += chunk * size;
        count -= chunk;
        w->b->size += (size_t)(end - to) - (count == 0);
    }
}

/* Append the array of dims[level], dims[level + 1], ...; no deeper than NSA_MAX_RANK. */
static void put_array(writer *w, size_t level)
{
    const nsa_shape *shape = &w->tensor->shape;
    size_t length = shape->dims[level];

    buffer_append(w->b, "[", 1);
    if (level + 1 == shape->rank) {
        put_numbers(w, length);
    } else {
        for (size_t i = 0; i < length && w->b->status == NSA_OK; i++) {
            if (i > 0)
                buffer_append(w->b, ",", 1);
            put_array(w, level + 1);
        }
    }
    buffer_append(w->b, "]", 1);
}

void json_write_array(buffer *b, const nsa_tensor *t, bool flat, bool nonfinite_null)
{
    writer w = {.b = b, .tensor = t, .from = t->data, .nonfinite_null = nonfinite_null};
    size_t count = 1;

    if (!flat && t->shape.rank > 0) {
        put_array(&w, 0);
        return;
    }
    /* A tensor that exists has a count that fits. */
    for (size_t i = 0; i < t->shape.rank; i++)
        count *= t->shape.dims[i];
    if (flat)
        buffer_append(b, "[", 1);
    put_numbers(&w, count);
    if (flat)
        buffer_append(b, "]", 1);
}
