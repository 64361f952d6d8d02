/* What the files that read requests of the Open Inference Protocol share; no one else includes it.
 */
#ifndef SERVER_OIP_READER_H
#define SERVER_OIP_READER_H

#include "server/json_scan.h"
#include "server/oip.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OIP_LABEL_BYTES 48 /* "outputs[18446744073709551615].parameters" */

/* A request being read. */
struct oip_reader {
    struct inference *inference;
    const json_document *document;
    const char *blob; /* the binary tensors not taken yet: (blob_bytes) */
    size_t blob_bytes;
    enum output_form form; /* of outputs that don't say */
    nsa_error *err;
};

/* The value of `key`; NULL if there is none, which null says too. */
const json_t *oip_get(const json_t *object, const char *key);

/*
 * These look at `key` of `object` (NULL: an object without keys) and fail with NSA_EINVAL for a
 * value of another kind, called by `label` and `key`. Texts and objects are the document's.
 */

/* The failure itself: "LABEL.KEY: expected WHAT, got …". */
nsa_status oip_expected(const struct oip_reader *r, const char *label, const char *key,
                        const char *what, const json_t *got);

/* A text, which must be there. */
nsa_status oip_read_text(const char **out, const struct oip_reader *r, const char *label,
                         const json_t *object, const char *key);

/* An integer of at least 0, or true or false; *out stays as it is if there is none. */
nsa_status oip_read_size(uint64_t *out, const struct oip_reader *r, const char *label,
                         const json_t *object, const char *key);
nsa_status oip_read_bool(bool *out, const struct oip_reader *r, const char *label,
                         const json_t *object, const char *key);

/* An object; NULL if there is none. */
nsa_status oip_read_object(const json_t **out, const struct oip_reader *r, const char *label,
                           const json_t *object, const char *key);

/* "shape", which must be there. */
nsa_status oip_read_shape(nsa_shape *out, const struct oip_reader *r, const char *label,
                          const json_t *object);

/* The region that `parameters` name, where in it, and how many bytes there. */
nsa_status oip_read_region(const char **region, uint64_t *offset, uint64_t *bytes,
                           const struct oip_reader *r, const char *label, const json_t *parameters);

/* --- oip_inputs.c -------------------------------------------------------------------------- */

/* The inputs of the request `root`, into the inference: the op's tensor, and params as tensors. */
nsa_status oip_read_inputs(struct oip_reader *r, const json_t *root);

#endif
