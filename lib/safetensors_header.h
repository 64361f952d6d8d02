/*
 * The header of a safetensors file, apart from where its bytes come from.
 *
 * A file is the header's length (eight bytes, little-endian), the header (JSON) and the data.
 */
#ifndef NSA_SAFETENSORS_HEADER_H
#define NSA_SAFETENSORS_HEADER_H

#include <jansson.h>
#include <nsa/safetensors.h>

#define SAFETENSORS_LENGTH_BYTES ((size_t)8)

/* The caller sets the first two and zeroes the rest. */
struct safetensors_header {
    const char *path;  /* for messages */
    size_t file_bytes; /* at least SAFETENSORS_LENGTH_BYTES */
    size_t bytes;      /* of the length and the JSON: where the data begins */
    json_t *root;      /* owns the entries' names */
    nsa_safetensors_entry *entries;
    size_t *by_name; /* indices of the entries, in the order of their names */
    size_t count;
};

/**
 * Set `bytes` from the length that the file begins with.
 * @return NSA_OK, NSA_EFORMAT or NSA_ELIMIT
 */
nsa_status nsa_safetensors_header_measure(struct safetensors_header *header,
                                          const unsigned char length[SAFETENSORS_LENGTH_BYTES],
                                          nsa_error *err);

/**
 * Parse and check the JSON that follows the length, and fill `root`, `entries` and `count`.
 * @param text  `bytes` - SAFETENSORS_LENGTH_BYTES bytes, not needed afterwards
 * @return NSA_OK, NSA_EFORMAT, NSA_ELIMIT or NSA_ENOMEM; in each case the caller frees with
 *         nsa_safetensors_header_free()
 */
nsa_status nsa_safetensors_header_parse(struct safetensors_header *header, const char *text,
                                        nsa_error *err);

/* Index of the entry called `name`, or SIZE_MAX. */
size_t nsa_safetensors_header_find(const struct safetensors_header *header, const char *name);

void nsa_safetensors_header_free(struct safetensors_header *header);

#endif
