/* Tensors as request bodies in each format, answers as tensors, and content encodings. */
#ifndef TESTS_BODIES_H
#define TESTS_BODIES_H

#include "tests/integration/http.h"

#include <nsa/tensor.h>
#include <stddef.h>

enum format { FORMAT_JSON, FORMAT_NPY, FORMAT_RAW, FORMAT_COUNT };

extern const char *const format_types[FORMAT_COUNT]; /* media types */

/* Caller frees `bytes`; there is a NUL behind it. */
struct body {
    char *bytes;
    size_t size;
};

/* `more` goes into JSON behind the input, as in ", \"offset\": 1"; the others ignore it. */
struct body make_body(enum format format, const nsa_tensor *input, const char *more);

/*
 * POST `input` to `path`, which may have a query. With status 200, *output is the answer's first
 * tensor, to be freed by free_tensor(): as float32 or int64 where the format is JSON. Returns the
 * status; 0 for an answer that is not what the format promises, and for none.
 */
long infer(nsa_tensor *output, struct client *client, enum format format, const char *path,
           const nsa_tensor *input);

/* infer() with status 200, or the test fails. */
nsa_tensor must_infer(struct client *client, enum format format, const char *path,
                      const nsa_tensor *input);

/* The array `key` of a JSON answer as float32 (int64 for "indices"), in the answer's own shape. */
bool json_tensor(nsa_tensor *out, const char *json, const char *key);

/* The answer of the library itself, in this process: outputs are the caller's to free. */
nsa_request compute(const nsa_model *model, const nsa_tensor *input, const int64_t *params);

/* Fail the test unless shape, dtype and bits agree. */
void expect_same(const char *what, const nsa_tensor *expected, const nsa_tensor *got);

size_t tensor_bytes(const nsa_tensor *tensor);

/* --- content encodings --------------------------------------------------------------------- */

/* `bytes` as a gzip member, or in the zlib format that HTTP calls deflate, not made smaller. */
struct body pack_gzip(const void *bytes, size_t size);
struct body pack_zlib(const void *bytes, size_t size);

/* A gzip member of some `count` * 258 blanks, in 1/158 of their size. */
struct body pack_bomb(size_t count);

#endif
