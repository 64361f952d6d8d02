#include "server/memory.h"

#include <assert.h>
#include <nsa/size.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

/* Sizes are 1 KiB and its doubles, and what is half-way between them. */
#define LEAST_BYTES ((size_t)1024)
#define SIZE_COUNT 21

/* In front of the block. */
struct header {
    _Alignas(MEMORY_ALIGN) struct memory *memory;
    struct header *next; /* of those kept */
    size_t bytes;        /* of the block */
    size_t size;         /* among the sizes, or SIZE_COUNT: never kept */
};

_Static_assert(sizeof(struct header) % MEMORY_ALIGN == 0, "blocks are aligned behind it");
_Static_assert(LEAST_BYTES << (SIZE_COUNT - 1) / 2 == MEMORY_MAX_KEPT_BLOCK,
               "the last of the sizes");

/* What one thread keeps; nobody else touches it before memory_close(). */
struct kept {
    struct kept *next;
    size_t bytes;
    struct header *blocks[SIZE_COUNT];
};

/* AddressSanitizer's, where a program is built with it. */
extern void __asan_poison_memory_region(const volatile void *from, size_t bytes)
    __attribute__((weak));
extern void __asan_unpoison_memory_region(const volatile void *from, size_t bytes)
    __attribute__((weak));

struct memory {
    size_t kept_bytes;
    pthread_key_t key; /* the thread's struct kept */

    pthread_mutex_t lock; /* guards the list */
    struct kept *all;
};

/* Let AddressSanitizer see the first `visible` bytes of a block, and none behind them. */
static void show(struct header *header, size_t visible)
{
    if (!__asan_poison_memory_region)
        return;
    __asan_poison_memory_region(header + 1, header->bytes);
    __asan_unpoison_memory_region(header + 1, visible);
}

/* The block's index among the sizes, and its bytes. */
static size_t choose_size(size_t *bytes)
{
    size_t size = 0;
    size_t at = LEAST_BYTES;

    while (size < SIZE_COUNT && at < *bytes) {
        size++;
        at = size % 2 ? LEAST_BYTES << size / 2 | LEAST_BYTES << size / 2 >> 1
                      : LEAST_BYTES << size / 2;
    }
    if (size < SIZE_COUNT)
        *bytes = at;
    return size;
}

nsa_status memory_open(struct memory **out, size_t kept_bytes, nsa_error *err)
{
    struct memory *memory = calloc(1, sizeof *memory);

    if (!memory || pthread_key_create(&memory->key, NULL) != 0) {
        free(memory);
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for requests");
    }
    memory->kept_bytes = kept_bytes;
    pthread_mutex_init(&memory->lock, NULL);
    *out = memory;
    return NSA_OK;
}

static void release(struct header *header)
{
    show(header, header->bytes);
    free(header);
}

void memory_close(struct memory *memory)
{
    if (!memory)
        return;
    while (memory->all) {
        struct kept *kept = memory->all;

        memory->all = kept->next;
        for (size_t size = 0; size < SIZE_COUNT; size++) {
            while (kept->blocks[size]) {
                struct header *header = kept->blocks[size];

                kept->blocks[size] = header->next;
                release(header);
            }
        }
        free(kept);
    }
    pthread_mutex_destroy(&memory->lock);
    pthread_key_delete(memory->key);
    free(memory);
}

/* The calling thread's, or NULL without memory. */
static struct kept *kept_here(struct memory *memory)
{
    struct kept *kept = pthread_getspecific(memory->key);

    if (kept)
        return kept;
    kept = calloc(1, sizeof *kept);
    if (!kept)
        return NULL;
    if (pthread_setspecific(memory->key, kept) != 0) {
        free(kept);
        return NULL;
    }
    pthread_mutex_lock(&memory->lock);
    kept->next = memory->all;
    memory->all = kept;
    pthread_mutex_unlock(&memory->lock);
    return kept;
}

static struct header *make_block(struct memory *memory, size_t bytes, size_t size)
{
    struct header *header;
    size_t total;

    if (!nsa_size_round_up(&total, bytes, MEMORY_ALIGN) ||
        !nsa_size_add(&total, total, sizeof *header))
        return NULL;
    header = aligned_alloc(MEMORY_ALIGN, total);
    if (header)
        *header = (struct header){.memory = memory, .bytes = total - sizeof *header, .size = size};
    return header;
}

void *memory_take(struct memory *memory, size_t bytes)
{
    struct kept *kept = kept_here(memory);
    size_t asked = bytes;
    size_t size = choose_size(&bytes);
    struct header *header;

    if (kept && size < SIZE_COUNT && kept->blocks[size]) {
        header = kept->blocks[size];
        kept->blocks[size] = header->next;
        kept->bytes -= header->bytes;
    } else {
        header = make_block(memory, bytes, size);
    }
    if (!header)
        return NULL;
    show(header, asked);
    return header + 1;
}

/* Free kept blocks, the largest first, until there are no more than `most_bytes`: what a load that
 * is over left behind makes room for what the next one needs. */
static void make_room(struct kept *kept, size_t most_bytes)
{
    for (size_t size = SIZE_COUNT; size-- > 0;) {
        while (kept->blocks[size] && kept->bytes > most_bytes) {
            struct header *header = kept->blocks[size];

            kept->blocks[size] = header->next;
            kept->bytes -= header->bytes;
            release(header);
        }
    }
}

void memory_give(void *block)
{
    struct header *header = block ? (struct header *)block - 1 : NULL;
    struct memory *memory;
    struct kept *kept;

    if (!header)
        return;
    memory = header->memory;
    kept = header->size < SIZE_COUNT ? kept_here(memory) : NULL;
    if (!kept || header->bytes > memory->kept_bytes / 2) {
        release(header);
        return;
    }
    make_room(kept, memory->kept_bytes - header->bytes);
    show(header, 0);
    header->next = kept->blocks[header->size];
    kept->blocks[header->size] = header;
    kept->bytes += header->bytes;
}
