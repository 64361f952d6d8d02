/* Requests and answers of the Open Inference Protocol, made and read by hand. */
#ifndef TESTS_OIP_H
#define TESTS_OIP_H

#include "tests/integration/http.h"

#include <nsa/tensor.h>
#include <stddef.h>

/* POST as Triton's Python client does: no Content-Type, header names in lower case. `json_bytes` is
 * the header's text, or NULL for none; the size 0 of a text stands for its length. */
const struct reply *oip_post(struct client *client, const char *path, const void *body, size_t size,
                             const char *json_bytes);

/* The same of JSON alone. */
const struct reply *oip_json(struct client *client, const char *path, const char *body);

/*
 * The output `name` of the last answer, as JSON or behind it; free_tensor() frees it. Fails the
 * test if the answer isn't what the protocol says, or there is no such output.
 */
nsa_tensor oip_output(struct client *client, const char *name);

/* "FP32" and so on. */
const char *oip_datatype_of(nsa_dtype dtype);

/* A request being written: JSON with holes filled in by printf, and bytes behind it. */
struct oip_body {
    char *bytes;
    size_t size;
    char json_bytes[24]; /* what the header says; "" as long as there is nothing behind the JSON */
};

/*
 * The JSON, then the elements of the `count` tensors. Caller frees `bytes`.
 */
struct oip_body oip_body_make(const char *json, const nsa_tensor *const *blobs, size_t count);

/* {"name", "datatype", "shape", and "data", or with `binary` the size}; the caller frees it. */
char *oip_input(const char *name, const nsa_tensor *tensor, bool binary);

#endif
