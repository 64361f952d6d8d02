/* What clients may do to segments that are registered, and at the same time. */
#include "tests/unit/segments.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

static void a_truncated_segment_is_an_error(void **state)
{
    struct fixture *f = *state;
    const char *key = new_key(f);
    int client = make_segment(key, 100, 's');
    struct stat info;

    add_region(f, "r", key, 20, 80);
    assert_int_equal(0, ftruncate(client, 50));
    check_read(f, "r", 20, "ssssssssss");
    assert_status(NSA_OK, shared_memory_write(f->memory, "r", 0, "S", 1, NULL));
    check_no_access(f, "r", 20, 11,
                    "region 'r': expected its segment to have at least 51 bytes, got 50: it has "
                    "shrunk since it was registered");
    check_no_access(f, "r", 0, 80,
                    "region 'r': expected its segment to have at least 100 bytes, got 50: it has "
                    "shrunk since it was registered");
    assert_int_equal(0, ftruncate(client, 0));
    check_no_access(f, "r", 0, 1,
                    "region 'r': expected its segment to have at least 21 bytes, got 0: it has "
                    "shrunk since it was registered");
    assert_int_equal(0, fstat(client, &info));
    assert_int_equal(0, info.st_size);

    /* A segment that has grown again, or further, is good. */
    assert_int_equal(0, ftruncate(client, 1000));
    assert_status(NSA_OK, shared_memory_write(f->memory, "r", 76, "tail", 4, NULL));
    check_read(f, "r", 76, "tail");
    check_no_access(f, "r", 0, 81, "region 'r': expected at most 80 bytes from offset 0, got 81");
    close(client);
}

static void a_region_keeps_the_segment_that_it_was_registered_with(void **state)
{
    struct fixture *f = *state;
    const char *key = new_segment(f, 8, 'o');

    add_region(f, "old", key, 0, 8);
    assert_int_equal(0, shm_unlink(key));
    check_read(f, "old", 0, "oooooooo");
    close(make_segment(key, 8, 'n'));
    add_region(f, "new", key, 0, 8);
    assert_status(NSA_OK, shared_memory_write(f->memory, "old", 0, "OLD", 3, NULL));
    check_read(f, "old", 0, "OLDooooo");
    check_read(f, "new", 0, "nnnnnnnn");
}

/* The holder of a lease has 45 seconds to give it up, in which an open would wait. */
static void a_lease_keeps_nobody_waiting(void **state)
{
    struct fixture *f = *state;
    const char *key = new_key(f);
    int client = make_segment(key, 8, 's');

    signal(SIGIO, SIG_IGN); /* tells the holder that its lease is wanted */
    assert_int_equal(0, fcntl(client, F_SETLEASE, F_WRLCK));
    check_refused(f, "r", key, 0, 1, strerror(EWOULDBLOCK));
    close(client);
    add_region(f, "r", key, 0, 1);
}

/* --- threads ------------------------------------------------------------------------------- */

enum { SEGMENT_BYTES = 1 << 20, ROUNDS = 200 };

/* Two segments full of one letter each, and threads that know which. */
struct worker {
    pthread_t thread;
    struct fixture *fixture;
    const char *name; /* its first byte is its segment's */
    const char *key;
    const char *problem; /* static, or NULL */
    char text[SEGMENT_BYTES];
};

/* Register, use, look at and unregister regions of a name that other threads use as well. */
static void *use_regions(void *context)
{
    struct worker *w = context;
    struct shared_memory *memory = w->fixture->memory;

    for (int round = 0; round < ROUNDS; round++) {
        buffer out = {.max_bytes = 10000};
        nsa_status status = shared_memory_register(memory, w->name, w->key, 0, SEGMENT_BYTES, NULL);

        if (status != NSA_OK && status != NSA_EINVAL) /* taken */
            w->problem = "register";
        status = shared_memory_read(memory, w->name, 0, w->text, SEGMENT_BYTES, NULL);
        if (status == NSA_OK &&
            (w->text[0] != *w->name || memcmp(w->text, w->text + 1, SEGMENT_BYTES - 1) != 0))
            w->problem = "another segment was read";
        if (status == NSA_OK)
            status = shared_memory_write(memory, w->name, 0, w->text, SEGMENT_BYTES, NULL);
        if (status == NSA_OK)
            status = shared_memory_check(memory, w->name, 0, SEGMENT_BYTES, NULL);
        if (status != NSA_OK && status != NSA_EINVAL) /* not registered */
            w->problem = "read, write or check";
        if (shared_memory_write_status(memory, NULL, &out, NULL) != NSA_OK)
            w->problem = "status";
        buffer_free(&out);
        shared_memory_unregister(memory, round % 8 == 0 ? NULL : w->name);
    }
    return NULL;
}

static void regions_in_use_outlive_their_registration(void **state)
{
    enum { WORKERS = 4 };
    struct fixture *f = *state;
    const char *keys[2] = {new_segment(f, SEGMENT_BYTES, 'a'), new_segment(f, SEGMENT_BYTES, 'b')};
    struct worker *workers = calloc(WORKERS, sizeof *workers);
    size_t before = open_descriptors();

    assert_non_null(workers);
    for (size_t i = 0; i < WORKERS; i++) {
        workers[i].fixture = f;
        workers[i].name = i % 2 ? "b" : "a";
        workers[i].key = keys[i % 2];
        assert_int_equal(0, pthread_create(&workers[i].thread, NULL, use_regions, &workers[i]));
    }
    for (size_t i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        if (workers[i].problem)
            fail_msg("%s", workers[i].problem);
    }
    free(workers);
    shared_memory_unregister(f->memory, NULL);
    assert_int_equal(before, open_descriptors());
}

struct truncator {
    pthread_t thread;
    int fd;
    atomic_bool stop;
    bool failed;
};

static void *truncate_until_stopped(void *context)
{
    struct truncator *t = context;

    while (!atomic_load(&t->stop)) {
        if (ftruncate(t->fd, SEGMENT_BYTES / 2) != 0 || ftruncate(t->fd, SEGMENT_BYTES) != 0)
            t->failed = true;
    }
    return NULL;
}

static void a_segment_may_shrink_at_any_moment(void **state)
{
    struct fixture *f = *state;
    const char *key = new_key(f);
    struct truncator truncator = {.fd = make_segment(key, SEGMENT_BYTES, 's')};
    char *text = malloc(SEGMENT_BYTES);
    bool failed = false;
    struct stat info;

    assert_non_null(text);
    add_region(f, "r", key, 0, SEGMENT_BYTES);
    assert_int_equal(0,
                     pthread_create(&truncator.thread, NULL, truncate_until_stopped, &truncator));
    for (int round = 0; round < ROUNDS && !failed; round++) {
        nsa_status read = shared_memory_read(f->memory, "r", 0, text, SEGMENT_BYTES, NULL);
        nsa_status write = shared_memory_write(f->memory, "r", 0, text, SEGMENT_BYTES, NULL);

        failed = (read != NSA_OK && read != NSA_EINVAL) || (write != NSA_OK && write != NSA_EINVAL);
    }
    atomic_store(&truncator.stop, true);
    pthread_join(truncator.thread, NULL);
    assert_false(failed);
    assert_false(truncator.failed);
    assert_int_equal(0, fstat(truncator.fd, &info));
    assert_int_equal(SEGMENT_BYTES, info.st_size);
    free(text);
    close(truncator.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_truncated_segment_is_an_error),
        FIXTURE_TEST(a_region_keeps_the_segment_that_it_was_registered_with),
        FIXTURE_TEST(a_lease_keeps_nobody_waiting),
        FIXTURE_TEST(regions_in_use_outlive_their_registration),
        FIXTURE_TEST(a_segment_may_shrink_at_any_moment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
