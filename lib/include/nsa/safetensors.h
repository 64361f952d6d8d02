/* The safetensors weight format, written for untrusted files. */
#ifndef NSA_SAFETENSORS_H
#define NSA_SAFETENSORS_H

#include <nsa/status.h>
#include <nsa/tensor.h>
#include <stddef.h>
#include <stdint.h>

#define NSA_SAFETENSORS_MAX_HEADER_BYTES ((size_t)100 * 1000 * 1000)
#define NSA_SHA256_HEX_BYTES 65 /* 64 hexadecimal digits and the terminator */

/* An open file whose header has been checked. */
typedef struct nsa_safetensors nsa_safetensors;

/* One tensor of the file. `name` lives as long as the file is open. */
typedef struct nsa_safetensors_entry {
    const char *name;
    const char *dtype_text; /* as the file spells it: "F32", "BF16", "I8", ... */
    nsa_dtype dtype;        /* NSA_DTYPE_COUNT for a dtype that nsa does not compute with */
    nsa_shape shape;
    uint64_t offset; /* from the start of the file */
    uint64_t bytes;
} nsa_safetensors_entry;

/* A tensor to read: its index in the file, and room for its elements as float32. */
typedef struct nsa_safetensors_want {
    size_t index;
    float *dst; /* (elements of entry `index`) */
} nsa_safetensors_want;

/**
 * Open `path` and check its header: length, UTF-8 JSON without duplicate keys, dtypes, shapes, and
 * byte ranges that tile the data exactly (no hole, no overlap, no trailing byte).
 * @param[out] out  caller frees with nsa_safetensors_close(); untouched on error
 * @return NSA_OK, NSA_EIO, NSA_EFORMAT, NSA_ELIMIT or NSA_ENOMEM; the message names the file and,
 *         where there is one, the tensor
 */
nsa_status nsa_safetensors_open(nsa_safetensors **out, const char *path, nsa_error *err);

/**
 * The same for a file that is in memory already, with the same checks.
 * @param name   what messages call the file; copied
 * @param bytes  (size), at any alignment; the caller's, unchanged and there until
 *               nsa_safetensors_close(). They are not copied.
 * @return as nsa_safetensors_open(), but never NSA_EIO
 */
nsa_status nsa_safetensors_open_bytes(nsa_safetensors **out, const char *name, const void *bytes,
                                      size_t size, nsa_error *err);

/* The number of tensors in the file. */
size_t nsa_safetensors_count(const nsa_safetensors *file);

/* Tensor `index` (below the count), in the order of the file's data. */
const nsa_safetensors_entry *nsa_safetensors_at(const nsa_safetensors *file, size_t index);

/* Index of the tensor called `name`, or SIZE_MAX. */
size_t nsa_safetensors_find(const nsa_safetensors *file, const char *name);

/**
 * Read the file once from its first byte to its last: widen each wanted tensor into its `dst`, and
 * digest every byte.
 *
 * The file is read, not mapped: a file that shrinks while it is mapped kills the process with
 * SIGBUS, and reading needs no more copies, since the pages go straight from the kernel to `dst`.
 *
 * @param wants  `count` tensors with distinct indices and a floating-point dtype, in any order
 * @param[out] sha256  lower-case hexadecimal digest of exactly the bytes that were loaded
 * @return NSA_OK; NSA_EIO when the file cannot be read or has changed its size or its header since
 *         it was opened; NSA_ENOMEM. On error the contents of every `dst` are unspecified.
 */
nsa_status nsa_safetensors_read(nsa_safetensors *file, const nsa_safetensors_want *wants,
                                size_t count, char sha256[NSA_SHA256_HEX_BYTES], nsa_error *err);

/* Total bytes of the file. */
uint64_t nsa_safetensors_bytes(const nsa_safetensors *file);

/* Close the file and free its header; NULL is allowed. */
void nsa_safetensors_close(nsa_safetensors *file);

#endif
