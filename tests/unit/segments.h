/* Shared memory segments as clients make them, a store to register them in, and checks of it. */
#ifndef TESTS_SEGMENTS_H
#define TESTS_SEGMENTS_H

#include "server/shared_memory.h"
#include "tests/unit/support.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_KEYS 8

/* What each test begins with; the segments are unlinked when it ends. */
struct fixture {
    struct shared_memory *memory;
    char keys[MAX_KEYS][64];
    size_t key_count;
};

static inline int begin(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    *state = f;
    return f && shared_memory_open(&f->memory, NULL) == NSA_OK ? 0 : -1;
}

static inline int end(void **state)
{
    struct fixture *f = *state;

    shared_memory_close(f->memory);
    for (size_t i = 0; i < f->key_count; i++)
        shm_unlink(f->keys[i]);
    free(f);
    return 0;
}

/* A key that no other process of these tests has. */
static inline const char *new_key(struct fixture *f)
{
    char *key = f->keys[f->key_count];

    assert_true(f->key_count < MAX_KEYS);
    snprintf(key, sizeof f->keys[0], "/nsa-test-%ld-%zu", (long)getpid(), f->key_count);
    f->key_count++;
    return key;
}

/* A new segment under `key`, all of whose bytes are `fill`; the client's descriptor of it. */
static inline int make_segment(const char *key, size_t bytes, char fill)
{
    char *text = malloc(bytes + 1);
    int fd = shm_open(key, O_RDWR | O_CREAT | O_EXCL, 0600);

    assert_non_null(text);
    assert_true(fd >= 0);
    memset(text, fill, bytes);
    assert_int_equal(bytes, pwrite(fd, text, bytes, 0));
    free(text);
    return fd;
}

/* As make_segment(), for a client that is done with its descriptor. */
static inline const char *new_segment(struct fixture *f, size_t bytes, char fill)
{
    const char *key = new_key(f);

    close(make_segment(key, bytes, fill));
    return key;
}

static inline void add_region(struct fixture *f, const char *name, const char *key, uint64_t offset,
                              uint64_t bytes)
{
    nsa_error err;

    if (shared_memory_register(f->memory, name, key, offset, bytes, &err) != NSA_OK)
        fail_msg("%s", err.message);
}

static inline void check_refused(struct fixture *f, const char *name, const char *key,
                                 uint64_t offset, uint64_t bytes, const char *message)
{
    nsa_error err;

    assert_status(NSA_EINVAL, shared_memory_register(f->memory, name, key, offset, bytes, &err));
    assert_message(err, message);
}

/* Every access to this range must fail with this status and message, and change nothing. */
static inline void check_no_access(struct fixture *f, const char *name, uint64_t offset,
                                   size_t bytes, const char *message)
{
    char text[256] = "untouched";
    nsa_error err;

    assert_status(NSA_EINVAL, shared_memory_check(f->memory, name, offset, bytes, &err));
    assert_string_equal(message, err.message);
    assert_status(NSA_EINVAL, shared_memory_read(f->memory, name, offset, text, bytes, &err));
    assert_string_equal(message, err.message);
    assert_string_equal("untouched", text);
    assert_status(NSA_EINVAL, shared_memory_write(f->memory, name, offset, text, bytes, &err));
    assert_string_equal(message, err.message);
    assert_status(NSA_EINVAL, shared_memory_check(f->memory, name, offset, bytes, NULL));
}

static inline void check_read(struct fixture *f, const char *name, uint64_t offset,
                              const char *expected)
{
    char text[64];
    size_t bytes = strlen(expected);
    nsa_error err;

    assert_true(bytes <= sizeof text);
    if (shared_memory_read(f->memory, name, offset, text, bytes, &err) != NSA_OK)
        fail_msg("%s", err.message);
    assert_memory_equal(expected, text, bytes);
}

static inline void check_status(struct fixture *f, const char *name, const char *expected)
{
    buffer out = {.max_bytes = 10000};

    assert_status(NSA_OK, shared_memory_write_status(f->memory, name, &out, NULL));
    buffer_append(&out, "", 1);
    assert_string_equal(expected, out.data);
    buffer_free(&out);
}

/* Descriptors that this process has open. */
static inline size_t open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    size_t count = 0;

    assert_non_null(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* A test with a fixture of its own. */
#define FIXTURE_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

#endif
