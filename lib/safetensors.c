#include "lib/safetensors_header.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/base16.h>
#include <nettle/sha2.h>
#include <nsa/safetensors.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Small enough that what was read is still in the processor's cache when it is digested. */
#define CHUNK_BYTES ((size_t)1024 * 1024)

/* A file on disk, or one in the caller's memory. */
struct nsa_safetensors {
    int fd;                      /* -1 for one in memory */
    const unsigned char *memory; /* (header.file_bytes); NULL for one on disk */
    char *path;                  /* for messages: of one in memory, its name */
    struct safetensors_header header;
    uint8_t header_digest[SHA256_DIGEST_SIZE]; /* of the length and the JSON */
};

/* Reads a file from its first byte on and digests what it reads. */
struct reader {
    const nsa_safetensors *file;
    size_t at;
    struct sha256_ctx sha256;
};

static void reader_init(struct reader *r, const nsa_safetensors *file)
{
    r->file = file;
    r->at = 0;
    sha256_init(&r->sha256);
}

/* As pread(); what is in memory comes at once, and is never asked for beyond its end. */
static ssize_t read_some(const nsa_safetensors *file, void *dst, size_t bytes, size_t at)
{
    if (!file->memory)
        return pread(file->fd, dst, bytes, (off_t)at);
    assert(at <= file->header.file_bytes && bytes <= file->header.file_bytes - at);
    memcpy(dst, file->memory + at, bytes);
    return (ssize_t)bytes;
}

static nsa_status read_bytes(struct reader *r, void *dst, size_t bytes, nsa_error *err)
{
    unsigned char *to = dst;

    while (bytes > 0) {
        size_t wanted = bytes < CHUNK_BYTES ? bytes : CHUNK_BYTES;
        ssize_t got = read_some(r->file, to, wanted, r->at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return nsa_error_set(err, NSA_EIO, "%s: cannot read at byte %zu: %s", r->file->path,
                                 r->at, strerror(errno));
        if (got == 0)
            return nsa_error_set(err, NSA_EIO,
                                 "%s: changed since it was opened: expected %zu bytes, got %zu",
                                 r->file->path, r->file->header.file_bytes, r->at);
        sha256_update(&r->sha256, (size_t)got, to);
        to += got;
        r->at += (size_t)got;
        bytes -= (size_t)got;
    }
    return NSA_OK;
}

/* Open a regular file; a pipe or a device could block or never end. */
static nsa_status open_file(nsa_safetensors *file, nsa_error *err)
{
    struct stat info;

    do
        file->fd = open(file->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    while (file->fd < 0 && errno == EINTR);
    if (file->fd < 0 || fstat(file->fd, &info) != 0)
        return nsa_error_set(err, NSA_EIO, "%s: cannot open: %s", file->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return nsa_error_set(err, NSA_EIO,
                             "%s: expected a regular file, got a directory, a pipe or a device",
                             file->path);
    file->header.file_bytes = (size_t)info.st_size;
    return NSA_OK;
}

/* Read and parse the length and the JSON; keep what is needed to know them again. */
static nsa_status load_header(nsa_safetensors *file, nsa_error *err)
{
    unsigned char length[SAFETENSORS_LENGTH_BYTES] = {0};
    struct reader reader;
    size_t bytes;
    char *text;
    nsa_status status;

    if (file->header.file_bytes < sizeof length)
        return nsa_error_set(err, NSA_EFORMAT,
                             "%s: expected at least %zu bytes of header length, got a file of %zu",
                             file->path, sizeof length, file->header.file_bytes);
    reader_init(&reader, file);
    status = read_bytes(&reader, length, sizeof length, err);
    if (status == NSA_OK)
        status = nsa_safetensors_header_measure(&file->header, length, err);
    if (status != NSA_OK)
        return status;
    bytes = file->header.bytes - sizeof length;
    text = malloc(bytes);
    if (!text)
        return nsa_error_set(err, NSA_ENOMEM, "%s: out of memory for a header of %zu bytes",
                             file->path, bytes);
    status = read_bytes(&reader, text, bytes, err);
    if (status == NSA_OK) {
        sha256_digest(&reader.sha256, sizeof file->header_digest, file->header_digest);
        status = nsa_safetensors_header_parse(&file->header, text, err);
    }
    free(text);
    return status;
}

/* A file of which nothing but the name is known. */
static nsa_status new_file(nsa_safetensors **out, const char *name, nsa_error *err)
{
    size_t name_bytes = strlen(name) + 1;
    nsa_safetensors *file = calloc(1, sizeof *file);
    char *path = malloc(name_bytes);

    if (!file || !path) {
        free(file);
        free(path);
        return nsa_error_set(err, NSA_ENOMEM, "%s: out of memory to open it", name);
    }
    memcpy(path, name, name_bytes);
    file->fd = -1;
    file->path = path;
    file->header.path = path;
    *out = file;
    return NSA_OK;
}

nsa_status nsa_safetensors_open(nsa_safetensors **out, const char *path, nsa_error *err)
{
    nsa_safetensors *file = NULL;
    nsa_status status = new_file(&file, path, err);

    if (status == NSA_OK)
        status = open_file(file, err);
    if (status == NSA_OK)
        status = load_header(file, err);
    if (status == NSA_OK)
        *out = file;
    else
        nsa_safetensors_close(file);
    return status;
}

nsa_status nsa_safetensors_open_bytes(nsa_safetensors **out, const char *name, const void *bytes,
                                      size_t size, nsa_error *err)
{
    nsa_safetensors *file = NULL;
    nsa_status status = new_file(&file, name, err);

    assert(bytes || size == 0);
    if (status == NSA_OK) {
        file->memory = bytes;
        file->header.file_bytes = size;
        status = load_header(file, err);
    }
    if (status == NSA_OK)
        *out = file;
    else
        nsa_safetensors_close(file);
    return status;
}

size_t nsa_safetensors_count(const nsa_safetensors *file)
{
    return file->header.count;
}

const nsa_safetensors_entry *nsa_safetensors_at(const nsa_safetensors *file, size_t index)
{
    assert(index < file->header.count);
    return &file->header.entries[index];
}

size_t nsa_safetensors_find(const nsa_safetensors *file, const char *name)
{
    return nsa_safetensors_header_find(&file->header, name);
}

uint64_t nsa_safetensors_bytes(const nsa_safetensors *file)
{
    return file->header.file_bytes;
}

void nsa_safetensors_close(nsa_safetensors *file)
{
    if (!file)
        return;
    if (file->fd >= 0)
        close(file->fd);
    nsa_safetensors_header_free(&file->header);
    free(file->path);
    free(file);
}

/* Digest the header through `chunk`; it must be the one that was parsed. */
static nsa_status reread_header(struct reader *r, unsigned char *chunk, nsa_error *err)
{
    const nsa_safetensors *file = r->file;
    uint8_t digest[SHA256_DIGEST_SIZE];
    struct sha256_ctx sha256;

    while (r->at < file->header.bytes) {
        size_t left = file->header.bytes - r->at;
        nsa_status status = read_bytes(r, chunk, left < CHUNK_BYTES ? left : CHUNK_BYTES, err);

        if (status != NSA_OK)
            return status;
    }
    sha256 = r->sha256;
    sha256_digest(&sha256, sizeof digest, digest);
    if (memcmp(digest, file->header_digest, sizeof digest) != 0)
        return nsa_error_set(err, NSA_EIO, "%s: changed since it was opened: got another header",
                             file->path);
    return NSA_OK;
}

/* Read one tensor into `dst`, or only digest it when `dst` is NULL. */
static nsa_status read_tensor(struct reader *r, const nsa_safetensors_entry *entry, float *dst,
                              unsigned char *chunk, nsa_error *err)
{
    size_t left = (size_t)entry->bytes;

    if (dst && entry->dtype == NSA_F32)
        return read_bytes(r, dst, left, err);
    while (left > 0) {
        size_t bytes = left < CHUNK_BYTES ? left : CHUNK_BYTES;
        nsa_status status = read_bytes(r, chunk, bytes, err);

        if (status != NSA_OK)
            return status;
        if (dst) {
            size_t count = bytes / nsa_dtype_size(entry->dtype);

            nsa_to_f32(dst, chunk, entry->dtype, count);
            dst += count;
        }
        left -= bytes;
    }
    return NSA_OK;
}

/* Whether the file still ends where it did: a longer one is another one. */
static nsa_status check_end(const nsa_safetensors *file, nsa_error *err)
{
    struct stat info;

    if (file->memory)
        return NSA_OK;
    if (fstat(file->fd, &info) != 0)
        return nsa_error_set(err, NSA_EIO, "%s: cannot read its size: %s", file->path,
                             strerror(errno));
    if ((size_t)info.st_size != file->header.file_bytes)
        return nsa_error_set(err, NSA_EIO,
                             "%s: changed since it was opened: expected %zu bytes, got %zu",
                             file->path, file->header.file_bytes, (size_t)info.st_size);
    return NSA_OK;
}

nsa_status nsa_safetensors_read(nsa_safetensors *file, const nsa_safetensors_want *wants,
                                size_t count, char sha256[NSA_SHA256_HEX_BYTES], nsa_error *err)
{
    uint8_t digest[SHA256_DIGEST_SIZE];
    struct reader reader;
    unsigned char *chunk = malloc(CHUNK_BYTES);
    nsa_status status;

    if (!chunk)
        return nsa_error_set(err, NSA_ENOMEM, "%s: out of memory to read it", file->path);
    reader_init(&reader, file);
    status = reread_header(&reader, chunk, err);
    for (size_t i = 0; i < file->header.count && status == NSA_OK; i++) {
        float *dst = NULL;

        for (size_t j = 0; j < count; j++) {
            if (wants[j].index == i)
                dst = wants[j].dst;
        }
        assert(!dst || nsa_dtype_is_float(file->header.entries[i].dtype));
        status = read_tensor(&reader, &file->header.entries[i], dst, chunk, err);
    }
    if (status == NSA_OK)
        status = check_end(file, err);
    if (status == NSA_OK) {
        sha256_digest(&reader.sha256, sizeof digest, digest);
        base16_encode_update(sha256, sizeof digest, digest);
        sha256[NSA_SHA256_HEX_BYTES - 1] = '\0';
    }
    free(chunk);
    return status;
}
