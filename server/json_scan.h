/*
 * JSON documents that are mostly numbers, or files in base64. The long arrays go from the text
 * straight into tensor memory, and from there straight into text; so do files (base64.h). jansson
 * sees the small rest.
 */
#ifndef SERVER_JSON_SCAN_H
#define SERVER_JSON_SCAN_H

#include "server/buffer.h"

#include <jansson.h>
#include <nsa/status.h>
#include <nsa/tensor.h>
#include <stdbool.h>
#include <stddef.h>

/* Containers open at once in a document; arrays of numbers stop at NSA_MAX_RANK. */
#define JSON_MAX_DEPTH 64

/* Values taken out of one document. */
#define JSON_MAX_SPANS 8

/* The text that is left when they are: jansson may need some fifty bytes for one of its own. */
#define JSON_MAX_ENVELOPE_BYTES ((size_t)1 << 20)

/* Where an array of numbers or a long string may stand. */
typedef struct json_place {
    size_t depth;    /* containers open around the key, its own object included: 1 at the top */
    const char *key; /* of ASCII letters, digits, underscores and colons */
    json_type kind;  /* JSON_ARRAY or JSON_STRING */
    bool prefix;     /* every key that begins with `key` is meant */
    bool nullable;   /* null may stand there as well, and is the document's */
} json_place;

/* A value in the document's text: [begin, end), brackets or quotes included. */
typedef struct json_span {
    const char *begin;
    const char *end;
    size_t commas; /* an array holds at most one value more than this */
} json_span;

typedef struct json_document json_document;

/**
 * Parse `text`, an object, leaving the values at `places` where they are: in the parsed document an
 * integer that json_document_span() understands stands for each, behind its key. Anything but a
 * value of its kind at such a place is an error, so no client can write that integer.
 * @param text    must be followed by a byte that may be read (a NUL, say) and outlive the document
 * @param places  ends with a row whose key is NULL
 * @param[out] out  caller closes with json_document_close(); untouched on error
 * @return NSA_OK; NSA_EFORMAT when malformed or a key stands twice; NSA_EINVAL when not an object,
 *         or a value of another kind is at a place; NSA_ELIMIT over one of the limits above;
 *         NSA_ENOMEM
 * Thread-safe. The values' insides are checked when they are read.
 */
nsa_status json_document_open(json_document **out, const char *text, size_t size,
                              const json_place *places, nsa_error *err);

/* The parsed object; owned by the document. NULL of NULL. */
json_t *json_document_root(const json_document *document);

/**
 * What `placeholder`, the value of a key at one of the places, stands for; NULL when it stands for
 * nothing, or is NULL. Owned by the document.
 */
const json_span *json_document_span(const json_document *document, const json_t *placeholder);

/* Takes NULL. */
void json_document_close(json_document *document);

/**
 * Read the nested or flat array of numbers at `span` into `dst` and find its shape: "[]" is (0),
 * "[[],[]]" is (2, 0). float32 and float64 are the nearest to each decimal, ties to even; float16
 * and bfloat16 are the nearest to that float64, as NumPy has them. An integer has neither fraction
 * nor exponent.
 * @param[out] dst    (capacity) of `dtype`, aligned to its size, filled from the start;
 *                    span->commas + 1 is always enough. Holds a part of the array on error.
 * @param[out] shape  untouched on error
 * @param path        what messages call the array, as in "input[0][3]: expected 32 numbers, got 31"
 * @return NSA_OK; NSA_EFORMAT when malformed; NSA_EINVAL when ragged, or something is not a number
 *         or would, though finite, round to infinity in `dtype`; NSA_ELIMIT for more than
 *         `capacity` numbers or NSA_MAX_RANK levels
 * Thread-safe.
 */
nsa_status json_scan(void *dst, nsa_dtype dtype, size_t capacity, nsa_shape *shape,
                     const json_span *span, const char *path, nsa_error *err);

/**
 * Append `t` (any dtype, any alignment) as text: float64 and int64 as json_print_f64() and
 * json_print_i64() write them, the other float dtypes as json_print_f32().
 * @param flat            one array whatever the rank; else nested, and a scalar stands bare
 * @param nonfinite_null  write null for NaN and infinities instead of the bare tokens
 * Failure is in b->status. A limit may be hit up to JSON_WRITE_SLACK bytes before it is reached.
 */
void json_write_array(buffer *b, const nsa_tensor *t, bool flat, bool nonfinite_null);

#define JSON_WRITE_SLACK ((size_t)1 << 15)

#endif
