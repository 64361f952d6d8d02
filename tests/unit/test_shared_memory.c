#include "tests/unit/segments.h"

#include <sys/resource.h>

/* --- what a region is ---------------------------------------------------------------------- */

static void a_region_is_a_range_of_its_segment(void **state)
{
    struct fixture *f = *state;
    const char *key = new_key(f);
    int client = make_segment(key, 16, '.');
    char text[17] = "";

    assert_int_equal(10, pwrite(client, "0123456789", 10, 0));
    add_region(f, "whole", key, 0, 16);
    add_region(f, "middle", key + 1, 4, 8);
    check_read(f, "whole", 0, "0123456789......");
    check_read(f, "middle", 0, "456789..");
    check_read(f, "middle", 3, "78");
    check_read(f, "middle", 8, "");
    assert_status(NSA_OK, shared_memory_check(f->memory, "middle", 0, 8, NULL));
    assert_status(NSA_OK, shared_memory_check(f->memory, "middle", 8, 0, NULL));

    assert_status(NSA_OK, shared_memory_write(f->memory, "middle", 6, "yz", 2, NULL));
    assert_status(NSA_OK, shared_memory_write(f->memory, "middle", 0, "AB", 2, NULL));
    assert_status(NSA_OK, shared_memory_write(f->memory, "middle", 8, "", 0, NULL));
    assert_int_equal(16, pread(client, text, 16, 0));
    assert_string_equal("0123AB6789yz....", text);
    close(client);
}

static void nothing_outside_of_a_region_is_touched(void **state)
{
    struct fixture *f = *state;

    add_region(f, "r", new_segment(f, 64, 's'), 16, 32);
    check_no_access(f, "r", 0, 33, "region 'r': expected at most 32 bytes from offset 0, got 33");
    check_no_access(f, "r", 30, 3, "region 'r': expected at most 2 bytes from offset 30, got 3");
    check_no_access(f, "r", 32, 1, "region 'r': expected at most 0 bytes from offset 32, got 1");
    check_no_access(f, "r", 33, 0, "region 'r': expected at most 0 bytes from offset 33, got 0");
    check_no_access(f, "r", 8, SIZE_MAX,
                    "region 'r': expected at most 24 bytes from offset 8, got "
                    "18446744073709551615");
    /* Together with the region's offset, or with the size, these wrap. */
    check_no_access(
        f, "r", UINT64_MAX - 15, 16,
        "region 'r': expected at most 0 bytes from offset 18446744073709551600, got 16");
    check_no_access(f, "r", UINT64_MAX, 2,
                    "region 'r': expected at most 0 bytes from offset 18446744073709551615, got 2");
    check_no_access(f, "R", 0, 1, "region 'R': not registered");
    check_no_access(f, "", 0, 0, "region '': not registered");
    check_read(f, "r", 0, "ssssssssssssssssssssssssssssssss");
}

static void the_status_lists_regions_in_order_of_registration(void **state)
{
    struct fixture *f = *state;
    const char *key = new_segment(f, 64, 's');
    buffer out = {.max_bytes = 100};
    char expected[512];
    nsa_error err;

    check_status(f, NULL, "[]");
    add_region(f, "z \"\xFF", key, 0, 64);
    add_region(f, "a", key + 1, 60, 4);
    snprintf(expected, sizeof expected,
             "[{\"name\": \"z \\\"\\ufffd\", \"key\": \"%s\", \"offset\": 0, \"byte_size\": 64}, "
             "{\"name\": \"a\", \"key\": \"%s\", \"offset\": 60, \"byte_size\": 4}]",
             key, key + 1);
    check_status(f, NULL, expected);
    snprintf(expected, sizeof expected,
             "[{\"name\": \"a\", \"key\": \"%s\", \"offset\": 60, \"byte_size\": 4}]", key + 1);
    check_status(f, "a", expected);
    assert_status(NSA_ENOTFOUND, shared_memory_write_status(f->memory, "b", &out, &err));
    assert_string_equal("region 'b': not registered", err.message);
    assert_int_equal(0, out.size);
    assert_status(NSA_ELIMIT, shared_memory_write_status(f->memory, NULL, &out, &err));
    assert_message(err, "over a limit");
    buffer_free(&out);
}

static void unregistering_forgets_one_or_all(void **state)
{
    struct fixture *f = *state;
    const char *key = new_segment(f, 8, 's');
    size_t before = open_descriptors();
    char expected[256];

    add_region(f, "first", key, 0, 1);
    add_region(f, "second", key, 0, 2);
    add_region(f, "third", key, 0, 3);
    shared_memory_unregister(f->memory, "nobody");
    shared_memory_unregister(f->memory, "first");
    shared_memory_unregister(f->memory, "third");
    snprintf(expected, sizeof expected,
             "[{\"name\": \"second\", \"key\": \"%s\", \"offset\": 0, \"byte_size\": 2}]", key);
    check_status(f, NULL, expected);
    check_no_access(f, "first", 0, 1, "region 'first': not registered");
    add_region(f, "first", key, 2, 6);
    check_read(f, "first", 0, "ssssss");
    shared_memory_unregister(f->memory, NULL);
    check_status(f, NULL, "[]");
    assert_int_equal(before, open_descriptors());
    shared_memory_unregister(f->memory, NULL);
}

/* --- what is refused ----------------------------------------------------------------------- */

static void names_and_keys_have_bounds(void **state)
{
    static const char *const bad_keys[] = {
        "", "/", "//x", ".", "..", "/.", "/..", "../shm/x", "/../etc/passwd", "a/b", "/a/b", "a/",
    };
    struct fixture *f = *state;
    const char *key = new_segment(f, 8, 's');
    char text[300];

    memset(text, 'n', sizeof text);
    text[256] = '\0';
    check_refused(f, text, key, 0, 1, "region name: expected 1 to 255 bytes, got 256");
    check_refused(f, "", key, 0, 1, "region name: expected 1 to 255 bytes, got 0");
    text[255] = '\0';
    add_region(f, text, key, 0, 1);
    check_refused(f, text, key, 0, 1, "': already registered");
    for (size_t i = 0; i < sizeof bad_keys / sizeof *bad_keys; i++) {
        char message[64];

        snprintf(message, sizeof message, "1 to 254 bytes of a segment's name, got '%s'",
                 bad_keys[i]);
        check_refused(f, "r", bad_keys[i], 0, 1, message);
    }
    check_refused(f, "r", text, 0, 1, "key: expected '/' and the 1 to 254 bytes");
    text[254] = '\0'; /* the longest one, which doesn't exist */
    check_refused(f, "r", text, 0, 1, "No such file or directory");
    text[0] = '/';
    text[254] = 'n';
    check_refused(f, "r", text, 0, 1, "No such file or directory");
    check_refused(f, "r", "/nsa-test-nowhere", 0, 1,
                  "key: cannot open '/nsa-test-nowhere': No such file or directory");
}

static void a_range_must_lie_in_the_segment(void **state)
{
    struct fixture *f = *state;
    const char *key = new_segment(f, 100, 's');
    const char *empty = new_segment(f, 0, 's');

    check_refused(f, "r", key, 0, 0, "byte_size: expected at least 1, got 0");
    check_refused(f, "r", key, 0, 101,
                  "region 'r': expected offset + byte_size to be at most the 100 bytes of its "
                  "segment, got 0 + 101");
    check_refused(f, "r", key, 100, 1, "got 100 + 1");
    check_refused(f, "r", key, 101, 1, "got 101 + 1");
    check_refused(f, "r", key, UINT64_MAX, 1, "got 18446744073709551615 + 1");
    check_refused(f, "r", key, 1, UINT64_MAX, "got 1 + 18446744073709551615");
    check_refused(f, "r", key, UINT64_MAX, UINT64_MAX, "the 100 bytes");
    check_refused(f, "r", empty, 0, 1, "the 0 bytes");
    add_region(f, "last", key, 99, 1);
    add_region(f, "r", key, 0, 100);
}

static void a_taken_name_is_refused_and_keeps_its_meaning(void **state)
{
    struct fixture *f = *state;

    add_region(f, "r", new_segment(f, 8, 'a'), 0, 8);
    check_refused(f, "r", new_segment(f, 8, 'b'), 0, 8, "region 'r': already registered");
    check_read(f, "r", 0, "aaaaaaaa");
}

/* In the segments' directory, but no segments. */
static void only_regular_files_are_opened(void **state)
{
    struct fixture *f = *state;
    const char *pipe_key = new_key(f);
    const char *link_key = new_key(f);
    const char *folder_key = new_key(f);
    const char *target = new_segment(f, 8, 's');
    char path[128], target_path[128];

    snprintf(path, sizeof path, "/dev/shm%s", pipe_key);
    assert_int_equal(0, mkfifo(path, 0600));
    check_refused(f, "r", pipe_key, 0, 1,
                  "key: expected a shared memory segment, got a pipe or a device at '/nsa-test-");
    snprintf(path, sizeof path, "/dev/shm%s", link_key);
    snprintf(target_path, sizeof target_path, "/dev/shm%s", target);
    assert_int_equal(0, symlink(target_path, path));
    check_refused(f, "r", link_key, 0, 1, "Too many levels of symbolic links");
    snprintf(path, sizeof path, "/dev/shm%s", folder_key);
    assert_int_equal(0, mkdir(path, 0700));
    check_refused(f, "r", folder_key, 0, 1, "key: cannot open '/nsa-test-");
    assert_int_equal(0, rmdir(path));
}

static void what_is_refused_leaves_no_descriptor(void **state)
{
    struct fixture *f = *state;
    const char *key = new_segment(f, 8, 's');
    size_t before;

    add_region(f, "r", key, 0, 8);
    before = open_descriptors();
    check_refused(f, "r", key, 0, 8, "already registered");
    check_refused(f, "s", key, 0, 9, "the 8 bytes");
    check_refused(f, "s", "/nsa-test-nowhere", 0, 9, "cannot open");
    check_no_access(f, "r", 0, 9, "region 'r': expected at most 8 bytes from offset 0, got 9");
    assert_int_equal(before, open_descriptors());
}

/* --- limits -------------------------------------------------------------------------------- */

static void so_many_regions_and_no_more(void **state)
{
    struct fixture *f = *state;
    const char *key = new_segment(f, 8, 's');
    nsa_error err;
    char name[16];

    for (int i = 0; i < SHARED_MEMORY_MAX_REGIONS; i++) {
        snprintf(name, sizeof name, "%d", i);
        add_region(f, name, key, 0, 8);
    }
    assert_status(NSA_ELIMIT, shared_memory_register(f->memory, "more", key, 0, 8, &err));
    assert_string_equal("region 'more': expected at most 128 regions", err.message);
    check_refused(f, "5", key, 0, 8, "region '5': already registered");
    shared_memory_unregister(f->memory, "5");
    add_region(f, "more", key, 0, 8);
    check_read(f, "more", 0, "ssssssss");
}

static void without_descriptors_the_server_is_at_fault(void **state)
{
    struct fixture *f = *state;
    const char *key = new_segment(f, 8, 's');
    int lowest = dup(0);
    struct rlimit limit, low;
    nsa_status status;
    nsa_error err;

    close(lowest);
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &limit));
    low = limit;
    low.rlim_cur = (rlim_t)lowest;
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &low));
    status = shared_memory_register(f->memory, "r", key, 0, 8, &err);
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &limit));
    assert_status(NSA_EIO, status);
    assert_message(err, "Too many open files");
    add_region(f, "r", key, 0, 8);
}

/* --- memory -------------------------------------------------------------------------------- */

static nsa_status open_and_register(void *context)
{
    struct shared_memory *memory;
    buffer out = {.max_bytes = 1000};
    nsa_status status = shared_memory_open(&memory, NULL);

    if (status != NSA_OK)
        return status;
    status = shared_memory_register(memory, "r", context, 0, 8, NULL);
    if (status == NSA_OK)
        status = shared_memory_write_status(memory, NULL, &out, NULL);
    buffer_free(&out);
    shared_memory_close(memory);
    return status;
}

static void every_failed_allocation_is_survived(void **state)
{
    struct fixture *f = *state;
    const char *key = new_segment(f, 8, 's');
    size_t before = open_descriptors();

    check_every_allocation(open_and_register, (void *)(uintptr_t)key);
    assert_int_equal(before, open_descriptors());
    shared_memory_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_region_is_a_range_of_its_segment),
        FIXTURE_TEST(nothing_outside_of_a_region_is_touched),
        FIXTURE_TEST(the_status_lists_regions_in_order_of_registration),
        FIXTURE_TEST(unregistering_forgets_one_or_all),
        FIXTURE_TEST(names_and_keys_have_bounds),
        FIXTURE_TEST(a_range_must_lie_in_the_segment),
        FIXTURE_TEST(a_taken_name_is_refused_and_keeps_its_meaning),
        FIXTURE_TEST(only_regular_files_are_opened),
        FIXTURE_TEST(what_is_refused_leaves_no_descriptor),
        FIXTURE_TEST(so_many_regions_and_no_more),
        FIXTURE_TEST(without_descriptors_the_server_is_at_fault),
        FIXTURE_TEST(every_failed_allocation_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
