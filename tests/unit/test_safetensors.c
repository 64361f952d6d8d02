/* Opening: what a file and its header may hold. */
#include "tests/unit/safetensors_file.h"

#include <fcntl.h>
#include <nsa/safetensors.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DATA_BYTES 64

/* One tensor "t" of a file. */
#define TENSOR(dtype, shape, offsets)                                                              \
    "\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define HEADER(dtype, shape, offsets) "{" TENSOR(dtype, shape, offsets) "}"
#define NEXT(name, begin, end)                                                                     \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" #begin "," #end "]}"

/* One rule of the format, and a file that breaks it (or, with NSA_OK, that is within it). */
struct rule {
    const char *name;
    const char *header;
    size_t data_bytes;
    nsa_status status;
    const char *message;
};

static const struct rule rules[] = {
    {"a file may hold no tensors", "{}", 0, NSA_OK, NULL},
    {"white space may follow the header", "{}   \n", 0, NSA_OK, NULL},
    {"a scalar has one element", HEADER("F32", "[]", "[0,4]"), 4, NSA_OK, NULL},
    {"a tensor may have no elements", HEADER("F32", "[2,0]", "[0,0]"), 0, NSA_OK, NULL},
    {"tensors without bytes may lie anywhere between others",
     "{" NEXT("a", 0, 4) "," TENSOR("F32", "[0]", "[4,4]") "," NEXT("b", 4, 8) "}", 8, NSA_OK,
     NULL},
    {"metadata are strings by name",
     "{\"__metadata__\":{\"format\":\"pt\",\"x\":\"\"}," TENSOR("U8", "[1]", "[0,1]") "}", 1,
     NSA_OK, NULL},
    {"metadata may be empty", "{\"__metadata__\":{}}", 0, NSA_OK, NULL},
    {"names may be of any script", "{" NEXT("\xE6\xBC\xA2\xC3\xA9", 0, 4) "}", 4, NSA_OK, NULL},
    {"a name may be empty", "{" NEXT("", 0, 4) "}", 4, NSA_OK, NULL},
    {"further keys of a tensor are ignored",
     "{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"note\":[]}}", 1, NSA_OK,
     NULL},
    {"32 dimensions are the most",
     HEADER("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]"), 1,
     NSA_OK, NULL},
    {"half-byte elements fill whole bytes", HEADER("F4", "[3,2]", "[0,3]"), 3, NSA_OK, NULL},

    {"33 dimensions are too many",
     HEADER("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]"),
     1, NSA_ELIMIT, "tensor \"t\": expected at most 32 dimensions, got 33"},
    {"the count of elements fits a size_t", HEADER("U8", "[4294967296,4294967296]", "[0,0]"), 0,
     NSA_ELIMIT, "tensor \"t\": shape [4294967296, 4294967296]"},
    {"the count of bits fits a size_t", HEADER("F64", "[1152921504606846976]", "[0,0]"), 0,
     NSA_ELIMIT, "tensor \"t\""},
    {"rows without elements are countable", HEADER("U8", "[9223372036854775807,0,4]", "[0,0]"), 0,
     NSA_ELIMIT, "elements, got more"},

    {"the header begins with a brace", " {}", 0, NSA_EFORMAT, "begins with '{', got byte 0x20"},
    {"the header is not an array", "[]", 0, NSA_EFORMAT, "begins with '{'"},
    {"the header is whole", "{\"t\":{\"dtype\":\"F32\"", 0, NSA_EFORMAT,
     "expected a header in JSON"},
    {"nothing follows the JSON", "{}x", 0, NSA_EFORMAT, "expected a header in JSON"},
    {"the header is UTF-8", "{\"\xC3\x28\":1}", 0, NSA_EFORMAT, "unable to decode byte 0xc3"},
    {"names have no terminator within", "{" NEXT("a\\u0000b", 0, 4) "}", 4, NSA_EFORMAT, "\\u0000"},
    {"a tensor is there once", "{" NEXT("a", 0, 4) "," NEXT("a", 0, 4) "}", 4, NSA_EFORMAT,
     "duplicate object key"},
    {"a key of a tensor is there once",
     "{\"t\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     NSA_EFORMAT, "duplicate object key"},
    {"metadata are there once", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, NSA_EFORMAT,
     "duplicate object key"},
    {"metadata are an object", "{\"__metadata__\":\"pt\"}", 0, NSA_EFORMAT,
     "__metadata__ to be an object"},
    {"metadata hold strings only", "{\"__metadata__\":{\"epoch\":3}}", 0, NSA_EFORMAT,
     "each value of __metadata__ to be a string"},
    {"a tensor is an object", "{\"t\":[0,4]}", 4, NSA_EFORMAT, "tensor \"t\": expected an object"},
    {"dtype is there", "{\"t\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, NSA_EFORMAT,
     "tensor \"t\": expected \"dtype\" to be a string"},
    {"dtype is a string", "{\"t\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     NSA_EFORMAT, "expected \"dtype\" to be a string"},
    {"dtype is one of the format's", HEADER("F31", "[1]", "[0,4]"), 4, NSA_EFORMAT, "got \"F31\""},
    {"dtype is in upper case", HEADER("f32", "[1]", "[0,4]"), 4, NSA_EFORMAT, "got \"f32\""},
    {"shape is there", "{\"t\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, NSA_EFORMAT,
     "tensor \"t\": expected \"shape\" to be an array"},
    {"shape is an array", HEADER("U8", "1", "[0,1]"), 1, NSA_EFORMAT, "\"shape\" to be an array"},
    {"a dimension is not negative", HEADER("U8", "[1,-1]", "[0,1]"), 1, NSA_EFORMAT,
     "expected shape[1] to be a whole number"},
    {"a dimension is an integer", HEADER("U8", "[1.0]", "[0,1]"), 1, NSA_EFORMAT, "shape[0]"},
    {"a dimension is a number", HEADER("U8", "[\"1\"]", "[0,1]"), 1, NSA_EFORMAT, "shape[0]"},
    {"a dimension fits 63 bits", HEADER("U8", "[9223372036854775808]", "[0,1]"), 1, NSA_EFORMAT,
     "too big integer"},
    {"data_offsets are there", "{\"t\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, NSA_EFORMAT,
     "expected \"data_offsets\" to be [begin, end]"},
    {"data_offsets are an array", HEADER("U8", "[1]", "{}"), 1, NSA_EFORMAT, "[begin, end]"},
    {"data_offsets are two", HEADER("U8", "[1]", "[0,1,2]"), 1, NSA_EFORMAT, "[begin, end]"},
    {"data_offsets are not one", HEADER("U8", "[1]", "[1]"), 1, NSA_EFORMAT, "[begin, end]"},
    {"data_offsets are integers", HEADER("U8", "[1]", "[0,1.5]"), 1, NSA_EFORMAT, "[begin, end]"},
    {"data_offsets are not negative", HEADER("U8", "[1]", "[-1,0]"), 1, NSA_EFORMAT,
     "[begin, end]"},
    {"data_offsets do not run backwards", HEADER("U8", "[1]", "[1,0]"), 1, NSA_EFORMAT,
     "begin <= end"},
    {"data_offsets fit shape and dtype", HEADER("F32", "[2,2]", "[0,12]"), 12, NSA_EFORMAT,
     "expected 16 bytes for its shape and dtype, got data_offsets of 12"},
    {"a tensor without elements has no bytes", HEADER("F32", "[0]", "[0,4]"), 4, NSA_EFORMAT,
     "expected 0 bytes"},
    {"elements fill whole bytes", HEADER("F4", "[3]", "[0,2]"), 2, NSA_EFORMAT, "got 12 bits"},
    {"data begin at 0", "{" NEXT("t", 4, 8) "}", 8, NSA_EFORMAT,
     "tensor \"t\": expected its data to begin at 0, where the data before it ends, got 4"},
    {"data have no hole", "{" NEXT("a", 0, 4) "," NEXT("b", 5, 9) "}", 9, NSA_EFORMAT,
     "tensor \"b\": expected its data to begin at 4, where the data before it ends, got 5"},
    {"data do not overlap", "{" NEXT("a", 0, 4) "," NEXT("b", 3, 7) "}", 7, NSA_EFORMAT,
     "tensor \"b\": expected its data to begin at 4, where the data before it ends, got 3"},
    {"data are not shared", "{" NEXT("a", 0, 4) "," NEXT("b", 0, 4) "}", 4, NSA_EFORMAT,
     "tensor \"b\": expected its data to begin at 4"},
    {"a tensor without bytes lies between others, not within",
     "{" NEXT("a", 0, 4) "," TENSOR("F32", "[0]", "[2,2]") "}", 4, NSA_EFORMAT,
     "tensor \"t\": expected its data to begin at 4"},
    {"a tensor without bytes lies within the file",
     "{" NEXT("a", 0, 4) "," TENSOR("F32", "[0]", "[9,9]") "}", 4, NSA_EFORMAT,
     "tensor \"t\": expected its data to begin at 4"},
    {"data do not end short of the file", "{" NEXT("t", 0, 4) "}", 5, NSA_EFORMAT,
     "expected 4 bytes of data after the header, got 5"},
    {"data without tensors are none", "{}", 1, NSA_EFORMAT, "expected 0 bytes of data"},
    {"data do not reach past the file", "{" NEXT("t", 0, 4) "}", 3, NSA_EFORMAT,
     "expected its data to end within the file's 3 bytes of data, got 4"},
    {"no offset is too large to be checked",
     "{\"t\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807],"
     "\"data_offsets\":[0,9223372036854775807]}}",
     4, NSA_ELIMIT, "bits"},
};
#define RULE_COUNT (sizeof rules / sizeof *rules)

static const char *write_header(const char *header, size_t data_bytes)
{
    static const unsigned char data[MAX_DATA_BYTES];

    assert_true(data_bytes <= sizeof data);
    return write_parts(header, strlen(header), data, data_bytes);
}

/* The descriptor that the next file would get: it tells whether one was left open. */
static int next_descriptor(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    close(fd);
    return fd;
}

/* Opening `path` fails, names the file, leaves nothing open and leaves the output alone. */
static void check_refused(const char *path, nsa_status status, const char *message)
{
    nsa_safetensors *const untouched = (nsa_safetensors *)&rules;
    nsa_safetensors *file = untouched;
    int descriptor = next_descriptor();
    nsa_error err = {""};

    if (nsa_safetensors_open(&file, path, &err) != status)
        fail_msg("expected %s, got \"%s\"", nsa_status_string(status), err.message);
    assert_memory_equal(path, err.message, strlen(path));
    assert_message(err, message);
    assert_ptr_equal(untouched, file);
    assert_status(status, nsa_safetensors_open(&file, path, NULL));
    assert_int_equal(descriptor, next_descriptor());
}

static void rule_holds(void **state)
{
    const struct rule *rule = *state;
    const char *path = write_header(rule->header, rule->data_bytes);
    nsa_safetensors *file;
    nsa_error err = {""};

    if (rule->status != NSA_OK) {
        check_refused(path, rule->status, rule->message);
    } else {
        if (nsa_safetensors_open(&file, path, &err) != NSA_OK)
            fail_msg("expected success, got \"%s\"", err.message);
        nsa_safetensors_close(file);
    }
    unlink(path);
}

static void a_file_holds_the_length_of_its_header(void **state)
{
    (void)state;
    for (size_t size = 0; size < LENGTH_BYTES; size++) {
        const char *path = write_temporary("short", "\1\0\0\0\0\0\0\0", size);

        check_refused(path, NSA_EFORMAT, "expected at least 8 bytes of header length");
        unlink(path);
    }
}

static void the_length_lies_within_the_file_and_the_limit(void **state)
{
    static const struct {
        const char *bytes;
        nsa_status status;
        const char *message;
    } rows[] = {
        {"\0\0\0\0\0\0\0\0{}", NSA_EFORMAT, "got a length of 0"},
        {"\3\0\0\0\0\0\0\0{}", NSA_EFORMAT, "at most the 2 bytes that follow its length"},
        {"\x00\xE1\xF5\x05\0\0\0\0{}", NSA_EFORMAT, "got a length of 100000000"},
        {"\x01\xE1\xF5\x05\0\0\0\0{}", NSA_ELIMIT, "at most 100000000 bytes"},
        {"\2\0\0\0\0\0\0\x80{}", NSA_ELIMIT, "got a length of 9223372036854775810"},
        {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", NSA_ELIMIT, "18446744073709551615"},
        {"\xF8\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", NSA_ELIMIT, "at most 100000000 bytes"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *path = write_temporary("length", rows[i].bytes, LENGTH_BYTES + 2);

        check_refused(path, rows[i].status, rows[i].message);
        unlink(path);
    }
}

static void only_regular_files_are_opened(void **state)
{
    char path[64];

    (void)state;
    check_refused("/nowhere/at/all", NSA_EIO, "cannot open: No such file or directory");
    check_refused("tests/golden", NSA_EIO, "expected a regular file");
    check_refused("/dev/null", NSA_EIO, "expected a regular file");
    snprintf(path, sizeof path, "/tmp/nsa-test-%ld-pipe", (long)getpid());
    assert_int_equal(0, mkfifo(path, 0600));
    check_refused(path, NSA_EIO, "expected a regular file"); /* and does not wait for a writer */
    unlink(path);
}

static void a_long_name_leaves_room_for_the_reason(void **state)
{
    char header[4096] = "{\"x";
    size_t length = strlen(header);
    const char *path;

    (void)state;
    for (int i = 0; i < 1000; i++)
        length += (size_t)snprintf(header + length, sizeof header - length, "\xC3\xA9");
    snprintf(header + length, sizeof header - length, "\":4}");
    path = write_header(header, 0);
    /* The name is cut before the character that the limit falls within. */
    check_refused(path, NSA_EFORMAT, "\xC3\xA9\": expected an object");
    unlink(path);
}

static void tensors_are_listed_in_the_order_of_their_data(void **state)
{
    static const struct {
        const char *name, *dtype_text;
        nsa_dtype dtype;
        nsa_shape shape;
        size_t begin, bytes;
    } expected[] = {{"a", "BF16", NSA_BF16, {0, {0}}, 0, 2},
                    {"b", "F32", NSA_F32, {2, {2, 1}}, 2, 8},
                    {"c", "U8", NSA_DTYPE_COUNT, {1, {3}}, 10, 3}};
    const char *path = write_small();
    nsa_safetensors *file;

    (void)state;
    assert_status(NSA_OK, nsa_safetensors_open(&file, path, NULL));
    assert_int_equal(3, nsa_safetensors_count(file));
    for (size_t i = 0; i < 3; i++) {
        const nsa_safetensors_entry *entry = nsa_safetensors_at(file, i);

        assert_string_equal(expected[i].name, entry->name);
        assert_string_equal(expected[i].dtype_text, entry->dtype_text);
        assert_int_equal(expected[i].dtype, entry->dtype);
        assert_true(nsa_shape_equal(&expected[i].shape, &entry->shape));
        assert_int_equal(LENGTH_BYTES + strlen(SMALL_HEADER) + expected[i].begin, entry->offset);
        assert_int_equal(expected[i].bytes, entry->bytes);
        assert_int_equal(i, nsa_safetensors_find(file, expected[i].name));
    }
    assert_true(nsa_safetensors_find(file, "d") == SIZE_MAX);
    assert_true(nsa_safetensors_find(file, "__metadata__") == SIZE_MAX);
    assert_int_equal(LENGTH_BYTES + strlen(SMALL_HEADER) + SMALL_DATA_BYTES,
                     nsa_safetensors_bytes(file));
    nsa_safetensors_close(file);
    unlink(path);
}

static void every_dtype_of_the_format_has_its_size(void **state)
{
    static const struct {
        const char *name;
        size_t bytes; /* of eight elements */
        nsa_dtype dtype;
    } rows[] = {
        {"BOOL", 8, NSA_DTYPE_COUNT},
        {"U8", 8, NSA_DTYPE_COUNT},
        {"I8", 8, NSA_DTYPE_COUNT},
        {"F8_E5M2", 8, NSA_DTYPE_COUNT},
        {"F8_E4M3", 8, NSA_DTYPE_COUNT},
        {"F8_E8M0", 8, NSA_DTYPE_COUNT},
        {"I16", 16, NSA_DTYPE_COUNT},
        {"U16", 16, NSA_DTYPE_COUNT},
        {"F16", 16, NSA_F16},
        {"BF16", 16, NSA_BF16},
        {"I32", 32, NSA_DTYPE_COUNT},
        {"U32", 32, NSA_DTYPE_COUNT},
        {"F32", 32, NSA_F32},
        {"F64", 64, NSA_F64},
        {"I64", 64, NSA_DTYPE_COUNT},
        {"U64", 64, NSA_DTYPE_COUNT},
        {"C64", 64, NSA_DTYPE_COUNT},
        {"F4", 4, NSA_DTYPE_COUNT},
        {"F6_E2M3", 6, NSA_DTYPE_COUNT},
        {"F6_E3M2", 6, NSA_DTYPE_COUNT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nsa_safetensors *file;
        char header[256];
        const char *path;

        snprintf(header, sizeof header,
                 "{\"t\":{\"dtype\":\"%s\",\"shape\":[8],\"data_offsets\":[0,%zu]}}", rows[i].name,
                 rows[i].bytes);
        path = write_header(header, rows[i].bytes);
        assert_status(NSA_OK, nsa_safetensors_open(&file, path, NULL));
        assert_string_equal(rows[i].name, nsa_safetensors_at(file, 0)->dtype_text);
        assert_int_equal(rows[i].dtype, nsa_safetensors_at(file, 0)->dtype);
        nsa_safetensors_close(file);
        unlink(path);
    }
}

static void a_file_cut_at_any_byte_is_malformed(void **state)
{
    const char *path = write_small();
    nsa_safetensors *file;
    size_t size;

    (void)state;
    for (size = LENGTH_BYTES + strlen(SMALL_HEADER) + SMALL_DATA_BYTES; size-- > 0;) {
        assert_int_equal(0, truncate(path, (off_t)size));
        assert_status(NSA_EFORMAT, nsa_safetensors_open(&file, path, NULL));
    }
    unlink(path);
}

static void nothing_can_be_closed(void **state)
{
    (void)state;
    nsa_safetensors_close(NULL);
}

int main(void)
{
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(a_file_holds_the_length_of_its_header),
        cmocka_unit_test(the_length_lies_within_the_file_and_the_limit),
        cmocka_unit_test(only_regular_files_are_opened),
        cmocka_unit_test(a_long_name_leaves_room_for_the_reason),
        cmocka_unit_test(tensors_are_listed_in_the_order_of_their_data),
        cmocka_unit_test(every_dtype_of_the_format_has_its_size),
        cmocka_unit_test(a_file_cut_at_any_byte_is_malformed),
        cmocka_unit_test(nothing_can_be_closed),
    };
    struct CMUnitTest tests[RULE_COUNT + sizeof others / sizeof *others];

    for (size_t i = 0; i < RULE_COUNT; i++)
        tests[i] = (struct CMUnitTest){
            rules[i].name, rule_holds, NULL, NULL, (void *)&rules[i],
        };
    memcpy(tests + RULE_COUNT, others, sizeof others);
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
