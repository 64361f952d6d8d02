/*
 * Memory of requests, kept for the next one: blocks that a thread gives back wait in that thread's
 * lists, by size and up to a limit, so that a steady load allocates nothing. What is larger than
 * MEMORY_MAX_KEPT_BLOCK, or half the limit, goes back to the allocator at once; past the limit, the
 * largest do.
 */
#ifndef SERVER_MEMORY_H
#define SERVER_MEMORY_H

#include <nsa/status.h>
#include <stddef.h>

#define MEMORY_ALIGN ((size_t)64)
#define MEMORY_MAX_KEPT_BLOCK ((size_t)1024 * 1024)

struct memory;

/**
 * @param kept_bytes  that each thread may keep
 * @param[out] out  caller frees with memory_close(); untouched on error
 * @return NSA_OK or NSA_ENOMEM (also when the process has no thread-specific key left)
 */
nsa_status memory_open(struct memory **out, size_t kept_bytes, nsa_error *err);

/* Free what threads keep; no block may be taken. NULL is allowed. */
void memory_close(struct memory *memory);

/*
 * `bytes` of unspecified content, aligned to MEMORY_ALIGN, or NULL without memory. Thread-safe, and
 * without a lock but for a thread's first block.
 */
void *memory_take(struct memory *memory, size_t bytes);

/* Give a block back, on any thread, which keeps it. NULL is allowed. */
void memory_give(void *block);

#endif
