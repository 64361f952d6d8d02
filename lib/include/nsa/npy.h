/* The .npy array format (NumPy's format 1.0, 2.0 and 3.0), written for untrusted input. */
#ifndef NSA_NPY_H
#define NSA_NPY_H

#include <nsa/status.h>
#include <nsa/tensor.h>
#include <stdbool.h>
#include <stddef.h>

/* Longest header dictionary that is read; NumPy itself writes some 120 bytes. */
#define NSA_NPY_MAX_HEADER_BYTES ((size_t)64 * 1024)

/* Bytes that always hold the header nsa_npy_write_header() makes for any shape. */
#define NSA_NPY_HEADER_BYTES 1024

/* Whether `bytes` begins as an .npy file does ("\x93NUMPY"). */
bool nsa_npy_is_magic(const void *bytes, size_t size);

/**
 * Parse a whole .npy file held in memory: C order, little-endian float16, float32, float64 or
 * int64, and exactly as many data bytes as the shape asks for.
 * @param[out] out  a view into `bytes`, valid as long as they are; untouched on error. bfloat16 has
 *                  no .npy descriptor and is never produced.
 * @return NSA_OK; NSA_EFORMAT for a malformed file; NSA_EUNSUPPORTED for Fortran order, big-endian
 *         or other element types; NSA_ELIMIT for rank, header or size beyond the limits
 * Thread-safe.
 */
nsa_status nsa_npy_parse(nsa_tensor *out, const void *bytes, size_t size, nsa_error *err);

/**
 * Write the version 1.0 header of `shape` and `dtype`, padded so that data following it starts at a
 * multiple of 64 bytes.
 * @param[out] size  bytes written to `header`
 * @return NSA_OK, or NSA_EUNSUPPORTED for bfloat16, which .npy cannot express
 */
nsa_status nsa_npy_write_header(char header[NSA_NPY_HEADER_BYTES], size_t *size,
                                const nsa_shape *shape, nsa_dtype dtype, nsa_error *err);

#endif
