#include "server/shared_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* As messages show a name or a key: the longest of both fit in one. */
#define SHOWN "'%.128s'"

struct region {
    int fd;
    uint64_t offset, bytes; /* offset + bytes was within the segment, so it can't wrap */
    char name[SHARED_MEMORY_MAX_NAME_BYTES + 1];
    char key[SHARED_MEMORY_MAX_KEY_BYTES + 2]; /* as it was given */

    /* Guarded by the lock. */
    size_t references;   /* calls that use it, and one while it is registered */
    struct region *next; /* in the order of registration */
};

struct shared_memory {
    /* Guards the two below, and references and next of each region; not held during I/O. */
    pthread_mutex_t lock;
    struct region *first;
    size_t count;
};

/* Whether `size` bytes hold the `bytes` bytes from `offset` on. */
static bool holds(uint64_t size, uint64_t offset, uint64_t bytes)
{
    return offset <= size && bytes <= size - offset;
}

static void region_free(struct region *region)
{
    if (region->fd >= 0)
        close(region->fd);
    free(region);
}

nsa_status shared_memory_open(struct shared_memory **out, nsa_error *err)
{
    struct shared_memory *memory = calloc(1, sizeof *memory);

    if (!memory)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for shared memory regions");
    pthread_mutex_init(&memory->lock, NULL);
    *out = memory;
    return NSA_OK;
}

void shared_memory_close(struct shared_memory *memory)
{
    if (!memory)
        return;
    shared_memory_unregister(memory, NULL);
    pthread_mutex_destroy(&memory->lock);
    free(memory);
}

/* --- the list ------------------------------------------------------------------------------ */

/* The link to the region `name`, or the one at the end; the lock is held. */
static struct region **find(struct shared_memory *memory, const char *name)
{
    struct region **at = &memory->first;

    while (*at && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    return at;
}

static nsa_status not_registered(nsa_status status, const char *name, nsa_error *err)
{
    return nsa_error_set(err, status, "region " SHOWN ": not registered", name);
}

/* Append `region`, which is the list's on success. */
static nsa_status add(struct shared_memory *memory, struct region *region, nsa_error *err)
{
    nsa_status status = NSA_OK;
    struct region **at;

    pthread_mutex_lock(&memory->lock);
    at = find(memory, region->name);
    if (*at) {
        status =
            nsa_error_set(err, NSA_EINVAL, "region " SHOWN ": already registered", region->name);
    } else if (memory->count == SHARED_MEMORY_MAX_REGIONS) {
        status = nsa_error_set(err, NSA_ELIMIT, "region " SHOWN ": expected at most %d regions",
                               region->name, SHARED_MEMORY_MAX_REGIONS);
    } else {
        region->references = 1;
        *at = region;
        memory->count++;
    }
    pthread_mutex_unlock(&memory->lock);
    return status;
}

void shared_memory_unregister(struct shared_memory *memory, const char *name)
{
    struct region *unused = NULL; /* closed when the lock is free again */
    struct region **at;

    pthread_mutex_lock(&memory->lock);
    at = name ? find(memory, name) : &memory->first;
    while (*at) {
        struct region *region = *at;

        *at = region->next;
        memory->count--;
        if (--region->references == 0) {
            region->next = unused;
            unused = region;
        }
        if (name)
            break;
    }
    pthread_mutex_unlock(&memory->lock);
    while (unused) {
        struct region *region = unused;

        unused = region->next;
        region_free(region);
    }
}

static void append_region(buffer *out, const struct region *region)
{
    buffer_append_text(out, "{\"name\": ");
    buffer_append_json_string(out, region->name);
    buffer_append_text(out, ", \"key\": ");
    buffer_append_json_string(out, region->key);
    buffer_printf(out, ", \"offset\": %" PRIu64 ", \"byte_size\": %" PRIu64 "}", region->offset,
                  region->bytes);
}

nsa_status shared_memory_write_status(struct shared_memory *memory, const char *name, buffer *out,
                                      nsa_error *err)
{
    const struct region *region;
    bool found;

    pthread_mutex_lock(&memory->lock);
    region = name ? *find(memory, name) : memory->first;
    found = region || !name;
    if (found)
        buffer_append_text(out, "[");
    while (region) {
        append_region(out, region);
        region = name ? NULL : region->next;
        if (region)
            buffer_append_text(out, ", ");
    }
    if (found)
        buffer_append_text(out, "]");
    pthread_mutex_unlock(&memory->lock);
    if (!found)
        return not_registered(NSA_ENOTFOUND, name, err);
    if (out->status != NSA_OK)
        return nsa_error_set(err, out->status, "the list of shared memory regions: %s",
                             nsa_status_string(out->status));
    return NSA_OK;
}

/* --- registration -------------------------------------------------------------------------- */

/* Whether shm_open() takes `key` for a file right in its own directory. */
static bool key_valid(const char *key)
{
    const char *file = *key == '/' ? key + 1 : key;
    size_t bytes = strlen(file);

    return bytes > 0 && bytes <= SHARED_MEMORY_MAX_KEY_BYTES && !strchr(file, '/') &&
           strcmp(file, ".") != 0 && strcmp(file, "..") != 0;
}

static nsa_status check_arguments(const char *name, const char *key, uint64_t bytes, nsa_error *err)
{
    size_t name_bytes = strlen(name);

    if (name_bytes == 0 || name_bytes > SHARED_MEMORY_MAX_NAME_BYTES)
        return nsa_error_set(err, NSA_EINVAL, "region name: expected 1 to %d bytes, got %zu",
                             SHARED_MEMORY_MAX_NAME_BYTES, name_bytes);
    if (!key_valid(key))
        return nsa_error_set(
            err, NSA_EINVAL,
            "key: expected '/' and the 1 to %d bytes of a segment's name, got " SHOWN,
            SHARED_MEMORY_MAX_KEY_BYTES, key);
    if (bytes == 0)
        return nsa_error_set(err, NSA_EINVAL, "byte_size: expected at least 1, got 0");
    return NSA_OK;
}

/* What shm_open() failing with `number` means: the key is wrong, or the server lacks something. */
static nsa_status open_status(int number)
{
    if (number == ENOMEM)
        return NSA_ENOMEM;
    return number == EMFILE || number == ENFILE ? NSA_EIO : NSA_EINVAL;
}

static nsa_status stat_segment(struct stat *out, const struct region *region, nsa_error *err)
{
    if (fstat(region->fd, out) != 0)
        return nsa_error_set(err, NSA_EIO, "region " SHOWN ": cannot read its segment's size: %s",
                             region->name, strerror(errno));
    return NSA_OK;
}

/* Open the segment of `region` and check that it holds its range. */
static nsa_status open_segment(struct region *region, nsa_error *err)
{
    struct stat info;
    nsa_status status;

    /* Without O_NONBLOCK a client's lease on the file would make us wait for it. */
    region->fd = shm_open(region->key, O_RDWR | O_NONBLOCK, 0);
    if (region->fd < 0)
        return nsa_error_set(err, open_status(errno), "key: cannot open " SHOWN ": %s", region->key,
                             strerror(errno));
    status = stat_segment(&info, region, err);
    if (status != NSA_OK)
        return status;
    if (!S_ISREG(info.st_mode))
        return nsa_error_set(
            err, NSA_EINVAL,
            "key: expected a shared memory segment, got a pipe or a device at " SHOWN, region->key);
    if (!holds((uint64_t)info.st_size, region->offset, region->bytes))
        return nsa_error_set(err, NSA_EINVAL,
                             "region " SHOWN ": expected offset + byte_size to be at most the %jd "
                             "bytes of its segment, got %" PRIu64 " + %" PRIu64,
                             region->name, (intmax_t)info.st_size, region->offset, region->bytes);
    return NSA_OK;
}

nsa_status shared_memory_register(struct shared_memory *memory, const char *name, const char *key,
                                  uint64_t offset, uint64_t bytes, nsa_error *err)
{
    struct region *region;
    nsa_status status = check_arguments(name, key, bytes, err);

    if (status != NSA_OK)
        return status;
    region = calloc(1, sizeof *region);
    if (!region)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for shared memory regions");
    strcpy(region->name, name);
    strcpy(region->key, key);
    region->offset = offset;
    region->bytes = bytes;
    status = open_segment(region, err);
    if (status == NSA_OK)
        status = add(memory, region, err);
    if (status != NSA_OK)
        region_free(region);
    return status;
}

/* --- access -------------------------------------------------------------------------------- */

static nsa_status shrunk(const struct region *region, uint64_t expected, uint64_t got,
                         nsa_error *err)
{
    return nsa_error_set(err, NSA_EINVAL,
                         "region " SHOWN ": expected its segment to have at least %" PRIu64
                         " bytes, got %" PRIu64 ": it has shrunk since it was registered",
                         region->name, expected, got);
}

static nsa_status check_range(const struct region *region, uint64_t offset, size_t bytes,
                              nsa_error *err)
{
    struct stat info;
    uint64_t at;
    nsa_status status;

    if (!holds(region->bytes, offset, bytes))
        return nsa_error_set(
            err, NSA_EINVAL,
            "region " SHOWN ": expected at most %" PRIu64 " bytes from offset %" PRIu64 ", got %zu",
            region->name, offset < region->bytes ? region->bytes - offset : 0, offset, bytes);
    status = stat_segment(&info, region, err);
    if (status != NSA_OK)
        return status;
    at = region->offset + offset;
    if (!holds((uint64_t)info.st_size, at, bytes))
        return shrunk(region, at + bytes, (uint64_t)info.st_size, err);
    return NSA_OK;
}

static void release(struct shared_memory *memory, struct region *region)
{
    bool last;

    pthread_mutex_lock(&memory->lock);
    last = --region->references == 0;
    pthread_mutex_unlock(&memory->lock);
    if (last)
        region_free(region);
}

/* The region `name`, if it has the range, with a reference for the caller. */
static nsa_status acquire(struct region **out, struct shared_memory *memory, const char *name,
                          uint64_t offset, size_t bytes, nsa_error *err)
{
    struct region *region;
    nsa_status status;

    pthread_mutex_lock(&memory->lock);
    region = *find(memory, name);
    if (region)
        region->references++;
    pthread_mutex_unlock(&memory->lock);
    if (!region)
        return not_registered(NSA_EINVAL, name, err);
    status = check_range(region, offset, bytes, err);
    if (status == NSA_OK)
        *out = region;
    else
        release(memory, region);
    return status;
}

nsa_status shared_memory_check(struct shared_memory *memory, const char *name, uint64_t offset,
                               size_t bytes, nsa_error *err)
{
    struct region *region;
    nsa_status status = acquire(&region, memory, name, offset, bytes, err);

    if (status == NSA_OK)
        release(memory, region);
    return status;
}

static nsa_status read_range(const struct region *region, uint64_t offset, char *dst, size_t bytes,
                             nsa_error *err)
{
    uint64_t at = region->offset + offset;
    uint64_t end = at + bytes;

    while (at < end) {
        ssize_t got = pread(region->fd, dst, end - at, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return nsa_error_set(err, NSA_EIO, "region " SHOWN ": cannot read: %s", region->name,
                                 strerror(errno));
        if (got == 0)
            return shrunk(region, end, at, err);
        dst += got;
        at += (uint64_t)got;
    }
    return NSA_OK;
}

nsa_status shared_memory_read(struct shared_memory *memory, const char *name, uint64_t offset,
                              void *dst, size_t bytes, nsa_error *err)
{
    struct region *region;
    nsa_status status = acquire(&region, memory, name, offset, bytes, err);

    if (status != NSA_OK)
        return status;
    status = read_range(region, offset, dst, bytes, err);
    release(memory, region);
    return status;
}

static nsa_status write_range(const struct region *region, uint64_t offset, const char *src,
                              size_t bytes, nsa_error *err)
{
    uint64_t at = region->offset + offset;
    uint64_t end = at + bytes;

    while (at < end) {
        ssize_t put = pwrite(region->fd, src, end - at, (off_t)at);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return nsa_error_set(err, NSA_EIO, "region " SHOWN ": cannot write: %s", region->name,
                                 strerror(put < 0 ? errno : ENOSPC));
        src += put;
        at += (uint64_t)put;
    }
    return NSA_OK;
}

nsa_status shared_memory_write(struct shared_memory *memory, const char *name, uint64_t offset,
                               const void *src, size_t bytes, nsa_error *err)
{
    struct region *region;
    nsa_status status = acquire(&region, memory, name, offset, bytes, err);

    if (status != NSA_OK)
        return status;
    status = write_range(region, offset, src, bytes, err);
    release(memory, region);
    return status;
}
