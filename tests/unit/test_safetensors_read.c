/* Reading: values, digests, damaged headers, and files that change under the reader. */
#include "tests/unit/safetensors_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <nsa/safetensors.h>
#include <stdio.h>
#include <unistd.h>

#define SMALL_BYTES (LENGTH_BYTES + strlen(SMALL_HEADER) + SMALL_DATA_BYTES)

/* No tensor of this many elements is a whole number of 1 MiB pieces in any dtype. */
#define LARGE_COUNT ((size_t)700001)

static void digest_of(char out[NSA_SHA256_HEX_BYTES], const void *bytes, size_t size)
{
    uint8_t digest[SHA256_DIGEST_SIZE];
    struct sha256_ctx context;

    sha256_init(&context);
    sha256_update(&context, size, bytes);
    sha256_digest(&context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static nsa_safetensors *open_or_fail(const char *path)
{
    nsa_safetensors *file;
    nsa_error err;

    if (nsa_safetensors_open(&file, path, &err) != NSA_OK)
        fail_msg("%s", err.message);
    return file;
}

static nsa_safetensors *open_bytes_or_fail(const void *bytes, size_t size)
{
    nsa_safetensors *file;
    nsa_error err;

    if (nsa_safetensors_open_bytes(&file, "bytes", bytes, size, &err) != NSA_OK)
        fail_msg("%s", err.message);
    return file;
}

/* Read every floating-point tensor of the file whose bytes these are, compare, and close it. */
static void check_read(nsa_safetensors *file, const unsigned char *bytes, size_t size)
{
    size_t count = nsa_safetensors_count(file);
    nsa_safetensors_want *wants = calloc(count + 1, sizeof *wants);
    char expected[NSA_SHA256_HEX_BYTES];
    char digest[NSA_SHA256_HEX_BYTES];
    size_t wanted = 0;
    nsa_error err;

    assert_non_null(wants);
    assert_int_equal(size, nsa_safetensors_bytes(file));
    for (size_t i = count; i-- > 0;) {
        const nsa_safetensors_entry *entry = nsa_safetensors_at(file, i);

        if (!nsa_dtype_is_float(entry->dtype))
            continue;
        wants[wanted].index = i;
        wants[wanted].dst = malloc(entry->bytes / nsa_dtype_size(entry->dtype) * sizeof(float));
        assert_non_null(wants[wanted++].dst);
    }
    if (nsa_safetensors_read(file, wants, wanted, digest, &err) != NSA_OK)
        fail_msg("%s", err.message);
    digest_of(expected, bytes, size);
    assert_string_equal(expected, digest);
    for (size_t i = 0; i < wanted; i++) {
        const nsa_safetensors_entry *entry = nsa_safetensors_at(file, wants[i].index);
        size_t elements = entry->bytes / nsa_dtype_size(entry->dtype);
        float *values = malloc(elements * sizeof *values);

        assert_non_null(values);
        nsa_to_f32(values, bytes + entry->offset, entry->dtype, elements);
        assert_memory_equal(values, wants[i].dst, elements * sizeof *values);
        free(values);
        free(wants[i].dst);
    }
    free(wants);
    nsa_safetensors_close(file);
}

/* From the disk, and from memory that nothing aligns and that ends where the file does. */
static void check_file(const char *path, const unsigned char *bytes, size_t size)
{
    unsigned char *copy = malloc(size + 1);

    assert_non_null(copy);
    memcpy(copy + 1, bytes, size);
    check_read(open_or_fail(path), bytes, size);
    check_read(open_bytes_or_fail(copy + 1, size), bytes, size);
    free(copy);
}

static void every_golden_file_is_read(void **state)
{
    DIR *folder = opendir("tests/golden");
    struct dirent *item;
    size_t files = 0;

    (void)state;
    assert_non_null(folder);
    for (item = readdir(folder); item; item = readdir(folder)) {
        const char *dot = strrchr(item->d_name, '.');
        unsigned char *bytes;
        char path[512];
        size_t size;

        if (!dot || strcmp(dot, ".safetensors") != 0)
            continue;
        snprintf(path, sizeof path, "tests/golden/%s", item->d_name);
        bytes = read_golden(item->d_name, &size);
        check_file(path, bytes, size);
        free(bytes);
        files++;
    }
    closedir(folder);
    assert_true(files >= 13);
}

/* A header and tensors of each dtype that are longer than what is read at once. */
static void large_headers_and_tensors_are_read_in_pieces(void **state)
{
    static const char format[] = "{\"b16\":{\"dtype\":\"BF16\",\"shape\":[%zu],"
                                 "\"data_offsets\":[0,%zu]},"
                                 "\"f16\":{\"dtype\":\"F16\",\"shape\":[%zu],"
                                 "\"data_offsets\":[%zu,%zu]},"
                                 "\"f64\":{\"dtype\":\"F64\",\"shape\":[%zu],"
                                 "\"data_offsets\":[%zu,%zu]},"
                                 "\"f32\":{\"dtype\":\"F32\",\"shape\":[%zu],"
                                 "\"data_offsets\":[%zu,%zu]},"
                                 "\"i64\":{\"dtype\":\"I64\",\"shape\":[%zu],"
                                 "\"data_offsets\":[%zu,%zu]}}";
    const size_t n = LARGE_COUNT;
    size_t header_bytes = 3 * 1024 * 1024 / 2;
    size_t size = LENGTH_BYTES + header_bytes + 24 * n;
    unsigned char *bytes = malloc(size + 1);
    char *header = (char *)bytes + LENGTH_BYTES;
    uint64_t seed = 11;
    const char *path;
    size_t length;

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < LENGTH_BYTES; i++)
        bytes[i] = (unsigned char)((uint64_t)header_bytes >> (8 * i));
    length = (size_t)snprintf(header, header_bytes, format, n, 2 * n, n, 2 * n, 4 * n, n, 4 * n,
                              12 * n, n, 12 * n, 16 * n, n, 16 * n, 24 * n);
    memset(header + length, ' ', header_bytes - length);
    for (size_t i = LENGTH_BYTES + header_bytes; i < size; i++)
        bytes[i] = (unsigned char)(random_u64(&seed) >> 56);
    path = write_temporary("large.safetensors", bytes, size);
    check_file(path, bytes, size);
    free(bytes);
    unlink(path);
}

static void wants_come_in_any_order_and_number(void **state)
{
    const char *path = write_small();
    nsa_safetensors *file = open_or_fail(path);
    float a[2] = {9, 9};
    float b[3] = {9, 9, 9};
    const nsa_safetensors_want both[] = {{1, b}, {0, a}};
    char digest[NSA_SHA256_HEX_BYTES];
    char again[NSA_SHA256_HEX_BYTES];

    (void)state;
    assert_status(NSA_OK, nsa_safetensors_read(file, both, 2, digest, NULL));
    assert_true(a[0] == 1 && a[1] == 9);
    assert_true(b[0] == 2 && b[1] == -3 && b[2] == 9);
    b[0] = 9;
    assert_status(NSA_OK, nsa_safetensors_read(file, both + 1, 1, again, NULL));
    assert_true(b[0] == 9);
    assert_string_equal(digest, again);
    assert_status(NSA_OK, nsa_safetensors_read(file, NULL, 0, again, NULL));
    assert_string_equal(digest, again);
    nsa_safetensors_close(file);
    unlink(path);
}

static void the_digest_is_sha256_of_the_file(void **state)
{
    const char *path = write_parts("{}", 2, NULL, 0);
    nsa_safetensors *file = open_or_fail(path);
    char digest[NSA_SHA256_HEX_BYTES];

    (void)state;
    assert_status(NSA_OK, nsa_safetensors_read(file, NULL, 0, digest, NULL));
    assert_string_equal("411a485216e432ece6b9af94fa32154cf79a2a56d4f81266baa50063f45092bd", digest);
    nsa_safetensors_close(file);
    unlink(path);
}

static void a_tensor_without_elements_is_read(void **state)
{
    static const char header[] =
        "{\"t\":{\"dtype\":\"F16\",\"shape\":[0,4],\"data_offsets\":[0,0]}}";
    const char *path = write_parts(header, strlen(header), NULL, 0);
    nsa_safetensors *file = open_or_fail(path);
    float value = 9;
    const nsa_safetensors_want wants[] = {{0, &value}};
    char digest[NSA_SHA256_HEX_BYTES];

    (void)state;
    assert_status(NSA_OK, nsa_safetensors_read(file, wants, 1, digest, NULL));
    assert_true(value == 9);
    nsa_safetensors_close(file);
    unlink(path);
}

/* Reading fails, says that the file changed, and gives no digest. */
static void check_changed(nsa_safetensors *file, const char *path, const char *message)
{
    float a;
    float b[2];
    const nsa_safetensors_want wants[] = {{0, &a}, {1, b}};
    char digest[NSA_SHA256_HEX_BYTES] = "untouched";
    nsa_error err = {""};

    assert_status(NSA_EIO, nsa_safetensors_read(file, wants, 2, digest, &err));
    assert_memory_equal(path, err.message, strlen(path));
    assert_message(err, "changed since it was opened");
    assert_message(err, message);
    assert_string_equal("untouched", digest);
}

static void a_file_that_shrinks_to_any_size_is_an_error(void **state)
{
    const char *path = write_small();
    nsa_safetensors *file = open_or_fail(path);
    size_t size;
    char message[64];

    (void)state;
    for (size = SMALL_BYTES; size-- > 0;) {
        assert_int_equal(0, truncate(path, (off_t)size));
        snprintf(message, sizeof message, "expected %zu bytes, got %zu", SMALL_BYTES, size);
        check_changed(file, path, message);
    }
    nsa_safetensors_close(file);
    unlink(path);
}

static void a_file_that_grows_is_an_error(void **state)
{
    const char *path = write_small();
    nsa_safetensors *file = open_or_fail(path);
    char message[64];

    (void)state;
    assert_int_equal(0, truncate(path, (off_t)SMALL_BYTES + 1));
    snprintf(message, sizeof message, "expected %zu bytes, got %zu", SMALL_BYTES, SMALL_BYTES + 1);
    check_changed(file, path, message);
    nsa_safetensors_close(file);
    unlink(path);
}

/* Put `byte` where the file has another; returns that. */
static unsigned char change_byte(const char *path, size_t at, unsigned char byte)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    unsigned char before;

    assert_true(fd >= 0);
    assert_int_equal(1, pread(fd, &before, 1, (off_t)at));
    assert_int_equal(1, pwrite(fd, &byte, 1, (off_t)at));
    close(fd);
    return before;
}

static void a_header_that_changes_is_an_error(void **state)
{
    const char *path = write_small();
    nsa_safetensors *file = open_or_fail(path);

    (void)state;
    change_byte(path, LENGTH_BYTES + 2, 'z'); /* another name */
    check_changed(file, path, "got another header");
    change_byte(path, LENGTH_BYTES + 2, 'b');
    change_byte(path, 0, 1); /* another length */
    check_changed(file, path, "got another header");
    nsa_safetensors_close(file);
    unlink(path);
}

/* A file may be written anew in place: the digest tells which weights were loaded. */
static void the_digest_is_that_of_the_data_that_were_loaded(void **state)
{
    const char *path = write_small();
    nsa_safetensors *file = open_or_fail(path);
    float a;
    const nsa_safetensors_want wants[] = {{0, &a}};
    char before[NSA_SHA256_HEX_BYTES];
    char after[NSA_SHA256_HEX_BYTES];

    (void)state;
    assert_status(NSA_OK, nsa_safetensors_read(file, wants, 1, before, NULL));
    change_byte(path, LENGTH_BYTES + strlen(SMALL_HEADER) + 1, 0x40);
    assert_status(NSA_OK, nsa_safetensors_read(file, wants, 1, after, NULL));
    assert_true(a == 4);
    assert_string_not_equal(before, after);
    nsa_safetensors_close(file);
    unlink(path);
}

static void an_open_file_may_be_unlinked(void **state)
{
    const char *path = write_small();
    nsa_safetensors *file = open_or_fail(path);
    char digest[NSA_SHA256_HEX_BYTES];

    (void)state;
    unlink(path);
    assert_status(NSA_OK, nsa_safetensors_read(file, NULL, 0, digest, NULL));
    nsa_safetensors_close(file);
}

/* Whatever one byte of the length or the header turns to, what is accepted tiles the file. */
static void any_byte_of_the_header_may_be_any_other(void **state)
{
    const size_t bytes = LENGTH_BYTES + strlen(SMALL_HEADER);
    const char *path = write_small();
    size_t accepted = 0;

    (void)state;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char before = change_byte(path, i, 0);

        for (int value = 0; value < 256; value++) {
            nsa_safetensors *file;
            size_t end = 0;

            change_byte(path, i, (unsigned char)value);
            if (nsa_safetensors_open(&file, path, NULL) != NSA_OK)
                continue;
            for (size_t j = 0; j < nsa_safetensors_count(file); j++) {
                const nsa_safetensors_entry *entry = nsa_safetensors_at(file, j);

                assert_true(end == 0 || entry->offset == end);
                end = entry->offset + entry->bytes;
            }
            assert_int_equal(SMALL_BYTES, end);
            nsa_safetensors_close(file);
            accepted++;
        }
        change_byte(path, i, before);
    }
    assert_true(accepted > bytes); /* at least the original, once for each byte */
    unlink(path);
}

static nsa_status open_and_read(void *path)
{
    nsa_safetensors *file = NULL;
    float a;
    const nsa_safetensors_want wants[] = {{0, &a}};
    char digest[NSA_SHA256_HEX_BYTES];
    nsa_status status = nsa_safetensors_open(&file, path, NULL);

    if (status == NSA_OK)
        status = nsa_safetensors_read(file, wants, 1, digest, NULL);
    nsa_safetensors_close(file);
    return status;
}

/*
 * The names are short on purpose: jansson 2.14 keeps a token in a buffer that starts with 16 bytes,
 * and when that cannot grow, it loses a character and carries on.
 */
static void every_allocation_may_fail(void **state)
{
    const char *path = write_small();

    (void)state;
    check_every_allocation(open_and_read, (void *)path);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_file_is_read),
        cmocka_unit_test(large_headers_and_tensors_are_read_in_pieces),
        cmocka_unit_test(wants_come_in_any_order_and_number),
        cmocka_unit_test(the_digest_is_sha256_of_the_file),
        cmocka_unit_test(a_tensor_without_elements_is_read),
        cmocka_unit_test(a_file_that_shrinks_to_any_size_is_an_error),
        cmocka_unit_test(a_file_that_grows_is_an_error),
        cmocka_unit_test(a_header_that_changes_is_an_error),
        cmocka_unit_test(the_digest_is_that_of_the_data_that_were_loaded),
        cmocka_unit_test(an_open_file_may_be_unlinked),
        cmocka_unit_test(any_byte_of_the_header_may_be_any_other),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests_name("safetensors reading", tests, NULL, NULL);
}
