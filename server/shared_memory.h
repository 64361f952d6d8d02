/*
 * The POSIX shared memory segments that clients of the Open Inference Protocol register, to pass
 * tensors without sending them: Triton's system shared memory extension.
 *
 * A region is a range of a segment under a name. Its segment is held open from registration on, so
 * it stays the same one when the client unlinks it or makes another under its key. It is read and
 * written by pread and pwrite, not mapped: access to a mapped segment that the client has truncated
 * kills the process (SIGBUS), and a client could change an input after it was checked and while it
 * is computed on. One copy is the price.
 *
 * A client can so make the server read and write every segment that the server's user may open.
 *
 * All functions but open and close are thread-safe. Names and keys are NUL-terminated.
 */
#ifndef SERVER_SHARED_MEMORY_H
#define SERVER_SHARED_MEMORY_H

#include "server/buffer.h"

#include <nsa/status.h>
#include <stddef.h>
#include <stdint.h>

#define SHARED_MEMORY_MAX_REGIONS 128 /* each holds a descriptor */
#define SHARED_MEMORY_MAX_NAME_BYTES 255
#define SHARED_MEMORY_MAX_KEY_BYTES 254 /* without the slash before them */

struct shared_memory; /* the registered regions, by name */

/**
 * @param[out] out  without regions; caller frees with shared_memory_close(); untouched on error
 * @return NSA_OK or NSA_ENOMEM
 */
nsa_status shared_memory_open(struct shared_memory **out, nsa_error *err);

/* Unregister all and free it; no other call may be running. NULL is allowed. */
void shared_memory_close(struct shared_memory *memory);

/**
 * Let `name` mean the `bytes` bytes from byte `offset` on of the segment `key`, which is "/text" or
 * "text" as shm_open() takes it; its file must hold that range and be readable and writable.
 * @return NSA_OK; NSA_EINVAL (a name that is taken, or anything above); NSA_ELIMIT (too many
 *         regions); NSA_EIO (the process is out of descriptors); NSA_ENOMEM
 */
nsa_status shared_memory_register(struct shared_memory *memory, const char *name, const char *key,
                                  uint64_t offset, uint64_t bytes, nsa_error *err);

/* Forget `name`, or every region for NULL. As in Triton an unknown name is no error. */
void shared_memory_unregister(struct shared_memory *memory, const char *name);

/**
 * Append a JSON array of {"name": text, "key": text, "offset": N, "byte_size": N}, in the order of
 * registration: of the region `name`, or of all for NULL.
 * @return NSA_OK; NSA_ENOTFOUND, with nothing appended; NSA_ENOMEM or NSA_ELIMIT of the buffer
 */
nsa_status shared_memory_write_status(struct shared_memory *memory, const char *name, buffer *out,
                                      nsa_error *err);

/**
 * Whether `bytes` bytes from byte `offset` of the region `name` on can be read and written: they
 * are in the region, and the segment holds them still.
 * @return NSA_OK; NSA_EINVAL (no such region, outside of it, or the segment has shrunk); NSA_EIO
 */
nsa_status shared_memory_check(struct shared_memory *memory, const char *name, uint64_t offset,
                               size_t bytes, nsa_error *err);

/* Check, and copy that range to `dst` (bytes), which holds anything on an error; returns as above.
 */
nsa_status shared_memory_read(struct shared_memory *memory, const char *name, uint64_t offset,
                              void *dst, size_t bytes, nsa_error *err);

/**
 * Check, and copy `src` (bytes) to that range, part of which may be written on an error. A client
 * that truncates the segment just between the two finds it grown again: its own segment, and no
 * further than the range that it registered.
 * @return as above; NSA_EIO also where the system has no memory left for the segment
 */
nsa_status shared_memory_write(struct shared_memory *memory, const char *name, uint64_t offset,
                               const void *src, size_t bytes, nsa_error *err);

#endif
