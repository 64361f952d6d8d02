#include "tests/unit/support.h"

#include <nsa/npy.h>
#include <stdlib.h>
#include <string.h>

#define F4_2X3 "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"
#define NINES "99999999999999999999"

/* A file in memory of exactly its size, so that the address sanitizer sees each byte too far. */
struct file {
    unsigned char *bytes;
    size_t size;
};

static struct file make_file(int major, const char *dictionary, size_t data_bytes)
{
    size_t length = strlen(dictionary);
    size_t length_bytes = major == 1 ? 2 : 4;
    size_t begin = 8 + length_bytes;
    struct file file = {NULL, begin + length + data_bytes};

    file.bytes = calloc(1, file.size);
    assert_non_null(file.bytes);
    memcpy(file.bytes, "\x93NUMPY", 6);
    file.bytes[6] = (unsigned char)major;
    for (size_t i = 0; i < length_bytes; i++)
        file.bytes[8 + i] = (unsigned char)(length >> (8 * i));
    memcpy(file.bytes + begin, dictionary, length);
    return file;
}

/* Parse and free a file; the tensor's data pointer is then only good for its offset. */
static nsa_status parse_dictionary(nsa_tensor *out, int major, const char *dictionary,
                                   size_t data_bytes, nsa_error *err)
{
    struct file file = make_file(major, dictionary, data_bytes);
    nsa_status status = nsa_npy_parse(out, file.bytes, file.size, err);

    free(file.bytes);
    return status;
}

/* One rule of the format, and a file that breaks it (or, with NSA_OK, that is within it). */
struct rule {
    const char *name;
    const char *dictionary;
    size_t data_bytes;
    nsa_status status;
    const char *message;
};

static const struct rule rules[] = {
    {"keys in any order", "{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}", 24, NSA_OK,
     NULL},
    {"no spaces are needed", "{'descr':'<f4','fortran_order':False,'shape':(2,3)}", 24, NSA_OK,
     NULL},
    {"white space is allowed between all tokens",
     " \t{ 'descr'\n:\r'<f4' , 'fortran_order' : False , 'shape' : ( 2 ,\f3 , ) , } \n", 24, NSA_OK,
     NULL},
    {"double quotes are quotes", "{\"descr\": \"<f4\", 'fortran_order': False, 'shape': (2, 3)}",
     24, NSA_OK, NULL},
    {"a scalar has the shape ()", "{'descr': '<f8', 'fortran_order': False, 'shape': ()}", 8,
     NSA_OK, NULL},
    {"one dimension is (3,)", "{'descr': '<f2', 'fortran_order': False, 'shape': (3,)}", 6, NSA_OK,
     NULL},
    {"a dimension may be 0", "{'descr': '<i8', 'fortran_order': False, 'shape': (0, 3)}", 0, NSA_OK,
     NULL},
    {"Fortran order of a vector is C order",
     "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 5, 1)}", 20, NSA_OK, NULL},
    {"Fortran order of nothing is C order",
     "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 0, 4)}", 0, NSA_OK, NULL},
    {"32 dimensions are the most",
     "{'descr': '<f4', 'fortran_order': False, 'shape': "
     "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)}",
     4, NSA_OK, NULL},

    {"33 dimensions are too many",
     "{'descr': '<f4', 'fortran_order': False, 'shape': "
     "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)}",
     4, NSA_ELIMIT, "at most 32 dimensions"},
    {"a dimension fits a size_t", "{'descr': '<f4', 'fortran_order': False, 'shape': (" NINES ",)}",
     0, NSA_ELIMIT, "dimension 0"},
    {"the count of elements fits a size_t",
     "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", 0, NSA_ELIMIT,
     "[4294967296, 4294967296]"},
    {"the count of bytes fits a size_t",
     "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904,)}", 0, NSA_ELIMIT,
     "bytes"},
    {"rows without elements are countable",
     "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 0, 4)}", 0,
     NSA_ELIMIT, "elements, got more"},

    {"Fortran order is not supported", "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}",
     24, NSA_EUNSUPPORTED, "expected an array in C order, got Fortran order"},
    {"big-endian is not supported", "{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3)}", 24,
     NSA_EUNSUPPORTED, "got big-endian '>f4'"},
    {"the byte order is spelt out", "{'descr': '=f4', 'fortran_order': False, 'shape': (2, 3)}", 24,
     NSA_EUNSUPPORTED, "got '=f4'"},
    {"other integers are not supported", "{'descr': '<i4', 'fortran_order': False, 'shape': (2,)}",
     8, NSA_EUNSUPPORTED, "expected little-endian '<f2', '<f4', '<f8' or '<i8', got '<i4'"},
    {"booleans are not supported", "{'descr': '|b1', 'fortran_order': False, 'shape': (2,)}", 2,
     NSA_EUNSUPPORTED, "'|b1'"},
    {"objects are not supported", "{'descr': '|O', 'fortran_order': False, 'shape': (2,)}", 16,
     NSA_EUNSUPPORTED, "'|O'"},
    {"void, as bfloat16 is written, is not supported",
     "{'descr': '<V2', 'fortran_order': False, 'shape': (2,)}", 4, NSA_EUNSUPPORTED, "'<V2'"},
    {"structured types are not supported",
     "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", 8, NSA_EUNSUPPORTED,
     "structured"},
    {"subarray types are not supported",
     "{'descr': ('<f4', (2,)), 'fortran_order': False, 'shape': (2,)}", 16, NSA_EUNSUPPORTED,
     "structured"},

    {"data are not short", F4_2X3, 23, NSA_EFORMAT,
     "expected 24 bytes for shape [2, 3] of float32, got 23"},
    {"data are not in surplus", F4_2X3, 25, NSA_EFORMAT,
     "expected 24 bytes for shape [2, 3] of float32, got 25"},
    {"data are there at all", F4_2X3, 0, NSA_EFORMAT, "expected 24 bytes"},
    {"the header is not empty", "", 0, NSA_EFORMAT, "expected a dictionary, got its end"},
    {"the header is a dictionary", "['descr', '<f4']", 0, NSA_EFORMAT, "expected a dictionary"},
    {"the dictionary ends", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), ", 24,
     NSA_EFORMAT, "expected a key or \"}\", got its end"},
    {"nothing follows the dictionary", F4_2X3 "x", 24, NSA_EFORMAT, "nothing but white space"},
    {"descr is there", "{'fortran_order': False, 'shape': (2, 3)}", 24, NSA_EFORMAT,
     "expected the key descr"},
    {"fortran_order is there", "{'descr': '<f4', 'shape': (2, 3)}", 24, NSA_EFORMAT,
     "expected the key fortran_order"},
    {"shape is there", "{'descr': '<f4', 'fortran_order': False}", 24, NSA_EFORMAT,
     "expected the key shape"},
    {"an empty dictionary lacks all keys", "{}", 0, NSA_EFORMAT, "expected the key descr"},
    {"descr is there once", "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}",
     4, NSA_EFORMAT, "expected one descr, got two"},
    {"shape is there once", "{'shape': (), 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
     4, NSA_EFORMAT, "expected one shape, got two"},
    {"fortran_order is there once",
     "{'fortran_order': False, 'fortran_order': True, 'shape': (), 'descr': '<f4'}", 4, NSA_EFORMAT,
     "expected one fortran_order, got two"},
    {"an unknown key is named",
     "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'extra': 1}", 24, NSA_EFORMAT,
     "got \"extra\""},
    {"a longer key is another key", "{'descr2': '<f4', 'fortran_order': False, 'shape': ()}", 4,
     NSA_EFORMAT, "got \"descr2\""},
    {"a shorter key is another key", "{'desc': '<f4', 'fortran_order': False, 'shape': ()}", 4,
     NSA_EFORMAT, "got \"desc\""},
    {"a message shows no control characters", "{'a\001\xFF': 1}", 0, NSA_EFORMAT, "got \"a?\?\""},
    {"a key is a string", "{descr: '<f4', 'fortran_order': False, 'shape': ()}", 4, NSA_EFORMAT,
     "expected a key"},
    {"a colon follows the key", "{'descr' '<f4', 'fortran_order': False, 'shape': ()}", 4,
     NSA_EFORMAT, "expected \":\""},
    {"a comma follows the value", "{'descr': '<f4' 'fortran_order': False, 'shape': ()}", 4,
     NSA_EFORMAT, "expected \",\" or \"}\""},
    {"two commas are one too many", "{'descr': '<f4',, 'fortran_order': False, 'shape': ()}", 4,
     NSA_EFORMAT, "expected a key"},
    {"a lone comma is no item", "{,}", 0, NSA_EFORMAT, "expected a key"},
    {"quotes match", "{'descr\": '<f4', 'fortran_order': False, 'shape': ()}", 4, NSA_EFORMAT,
     "got \"descr"},
    {"a string ends", "{'descr", 0, NSA_EFORMAT, "closing quote"},
    {"a lone quote is no string", "{'", 0, NSA_EFORMAT, "closing quote"},
    {"a string has no escapes", "{'des\\x63r': '<f4', 'fortran_order': False, 'shape': ()}", 4,
     NSA_EFORMAT, "without escapes"},
    {"descr is a string", "{'descr': 4, 'fortran_order': False, 'shape': ()}", 4, NSA_EFORMAT,
     "expected descr to be a string, got \"4"},
    {"fortran_order is a boolean", "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}", 4,
     NSA_EFORMAT, "expected fortran_order to be True or False, got \"0"},
    {"a boolean is spelt as in Python", "{'descr': '<f4', 'fortran_order': false, 'shape': ()}", 4,
     NSA_EFORMAT, "expected fortran_order"},
    {"a boolean ends where it ends", "{'descr': '<f4', 'fortran_order': Falsely, 'shape': ()}", 4,
     NSA_EFORMAT, "expected \",\""},
    {"a boolean is whole", "{'descr': '<f4', 'shape': (), 'fortran_order': Fals", 4, NSA_EFORMAT,
     "expected fortran_order"},
    {"shape is not a list", "{'descr': '<f4', 'fortran_order': False, 'shape': [2, 3]}", 24,
     NSA_EFORMAT, "expected shape to be a tuple"},
    {"shape is not a number", "{'descr': '<f4', 'fortran_order': False, 'shape': 6}", 24,
     NSA_EFORMAT, "expected shape to be a tuple"},
    {"(6) is a number", "{'descr': '<f4', 'fortran_order': False, 'shape': (6)}", 24, NSA_EFORMAT,
     "expected a tuple such as (6,), got (6)"},
    {"(,) is nothing", "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}", 4, NSA_EFORMAT,
     "expected a dimension"},
    {"a shape has one comma at a time", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,,3)}",
     24, NSA_EFORMAT, "expected a dimension"},
    {"dimensions have a comma between", "{'descr': '<f4', 'fortran_order': False, 'shape': (2 3)}",
     24, NSA_EFORMAT, "after a dimension"},
    {"a shape ends", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3", 24, NSA_EFORMAT,
     "got its end"},
    {"a dimension ends with the header", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3",
     0, NSA_EFORMAT, "got its end"},
    {"a dimension is not negative", "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3)}",
     24, NSA_EFORMAT, "expected a dimension, got \"-2"},
    {"a dimension is whole", "{'descr': '<f4', 'fortran_order': False, 'shape': (2.0, 3)}", 24,
     NSA_EFORMAT, "after a dimension"},
    {"a dimension has no leading zeros", "{'descr': '<f4', 'fortran_order': False, 'shape': (02,)}",
     8, NSA_EFORMAT, "without leading zeros, got \"02"},
    {"a dimension is decimal", "{'descr': '<f4', 'fortran_order': False, 'shape': (0x2,)}", 8,
     NSA_EFORMAT, "after a dimension"},
    {"a dimension has no suffix", "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L)}", 24,
     NSA_EFORMAT, "after a dimension"},
};
#define RULE_COUNT (sizeof rules / sizeof *rules)

/* Each rule holds in all three versions, and an error leaves the tensor alone. */
static void rule_holds(void **state)
{
    const struct rule *rule = *state;

    for (int major = 1; major <= 3; major++) {
        nsa_tensor tensor;
        nsa_tensor before;
        nsa_error err = {""};

        memset(&tensor, 0x5A, sizeof tensor);
        before = tensor;
        if (parse_dictionary(&tensor, major, rule->dictionary, rule->data_bytes, &err) !=
            rule->status)
            fail_msg("version %d: expected %s, got \"%s\"", major, nsa_status_string(rule->status),
                     err.message);
        if (rule->status == NSA_OK)
            continue;
        assert_message(err, rule->message);
        assert_memory_equal(&before, &tensor, sizeof tensor);
        assert_status(rule->status,
                      parse_dictionary(&tensor, major, rule->dictionary, rule->data_bytes, NULL));
    }
}

static void the_tensor_is_a_view_of_the_bytes(void **state)
{
    struct file file = make_file(1, F4_2X3, 24);
    nsa_shape expected = {2, {2, 3}};
    nsa_tensor tensor;

    (void)state;
    assert_status(NSA_OK, nsa_npy_parse(&tensor, file.bytes, file.size, NULL));
    assert_int_equal(NSA_F32, tensor.dtype);
    assert_true(nsa_shape_equal(&expected, &tensor.shape));
    assert_ptr_equal(file.bytes + file.size - 24, tensor.data);
    free(file.bytes);
}

static void each_descr_is_its_dtype(void **state)
{
    static const struct {
        const char *dictionary;
        nsa_dtype dtype;
    } rows[] = {{"{'descr': '<f2', 'fortran_order': False, 'shape': (8,)}", NSA_F16},
                {"{'descr': '<f4', 'fortran_order': False, 'shape': (8,)}", NSA_F32},
                {"{'descr': '<f8', 'fortran_order': False, 'shape': (8,)}", NSA_F64},
                {"{'descr': '<i8', 'fortran_order': False, 'shape': (8,)}", NSA_I64}};
    nsa_tensor tensor;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_status(NSA_OK, parse_dictionary(&tensor, 1, rows[i].dictionary,
                                               8 * nsa_dtype_size(rows[i].dtype), NULL));
        assert_int_equal(rows[i].dtype, tensor.dtype);
    }
}

static void other_versions_are_not_supported(void **state)
{
    static const unsigned char versions[][2] = {{0, 0}, {1, 1}, {2, 5}, {4, 0}, {255, 255}};
    struct file file = make_file(1, F4_2X3, 24);
    nsa_tensor tensor;
    nsa_error err;

    (void)state;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        memcpy(file.bytes + 6, versions[i], 2);
        assert_status(NSA_EUNSUPPORTED, nsa_npy_parse(&tensor, file.bytes, file.size, &err));
    }
    assert_message(err, "expected version 1.0, 2.0 or 3.0, got 255.255");
    free(file.bytes);
}

static void a_header_is_at_most_64_kib(void **state)
{
    size_t length = NSA_NPY_MAX_HEADER_BYTES;
    char *dictionary = malloc(length + 2);
    nsa_tensor tensor;
    nsa_error err;

    (void)state;
    assert_non_null(dictionary);
    memset(dictionary, ' ', length + 1);
    memcpy(dictionary, F4_2X3, strlen(F4_2X3));
    dictionary[length] = '\0';
    assert_status(NSA_OK, parse_dictionary(&tensor, 2, dictionary, 24, &err));
    dictionary[length] = ' ';
    dictionary[length + 1] = '\0';
    assert_status(NSA_ELIMIT, parse_dictionary(&tensor, 2, dictionary, 24, &err));
    assert_message(err, "at most 65536 bytes, got 65537");
    free(dictionary);
}

static void a_header_lies_within_the_file(void **state)
{
    struct file file = make_file(1, F4_2X3, 0);
    nsa_tensor tensor;
    nsa_error err;

    (void)state;
    file.bytes[8]++;
    assert_status(NSA_EFORMAT, nsa_npy_parse(&tensor, file.bytes, file.size, &err));
    assert_message(err, "expected a header of 61 bytes, got 60");
    free(file.bytes);
}

static void the_magic_is_six_bytes(void **state)
{
    (void)state;
    assert_true(nsa_npy_is_magic("\x93NUMPY", 6));
    assert_false(nsa_npy_is_magic("\x93NUMPY", 5));
    assert_false(nsa_npy_is_magic("\x93NUMPZ", 6));
    assert_false(nsa_npy_is_magic("", 0));
}

static void a_file_cut_at_any_byte_is_malformed(void **state)
{
    (void)state;
    for (int major = 1; major <= 3; major++) {
        struct file file = make_file(major, F4_2X3, 24);

        for (size_t size = 0; size < file.size; size++) {
            unsigned char *part = malloc(size ? size : 1);
            nsa_tensor tensor;

            assert_non_null(part);
            memcpy(part, file.bytes, size);
            assert_status(NSA_EFORMAT, nsa_npy_parse(&tensor, part, size, NULL));
            free(part);
        }
        free(file.bytes);
    }
}

/* Whatever one byte of the header turns to, what is accepted lies within the file. */
static void any_byte_of_the_header_may_be_any_other(void **state)
{
    (void)state;
    for (int major = 1; major <= 3; major++) {
        struct file file = make_file(major, F4_2X3, 24);

        for (size_t i = 0; i < file.size - 24; i++) {
            unsigned char byte = file.bytes[i];

            for (int value = 0; value < 256; value++) {
                nsa_tensor tensor;
                nsa_error err;
                size_t bytes;

                file.bytes[i] = (unsigned char)value;
                if (nsa_npy_parse(&tensor, file.bytes, file.size, &err) != NSA_OK)
                    continue;
                assert_status(NSA_OK, nsa_shape_bytes(&bytes, &tensor.shape, tensor.dtype, &err));
                assert_ptr_equal(file.bytes + file.size - bytes, tensor.data);
            }
            file.bytes[i] = byte;
        }
        free(file.bytes);
    }
}

int main(void)
{
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(the_tensor_is_a_view_of_the_bytes),
        cmocka_unit_test(each_descr_is_its_dtype),
        cmocka_unit_test(other_versions_are_not_supported),
        cmocka_unit_test(a_header_is_at_most_64_kib),
        cmocka_unit_test(a_header_lies_within_the_file),
        cmocka_unit_test(the_magic_is_six_bytes),
        cmocka_unit_test(a_file_cut_at_any_byte_is_malformed),
        cmocka_unit_test(any_byte_of_the_header_may_be_any_other),
    };
    struct CMUnitTest tests[RULE_COUNT + sizeof others / sizeof *others];

    for (size_t i = 0; i < RULE_COUNT; i++)
        tests[i] = (struct CMUnitTest){
            rules[i].name, rule_holds, NULL, NULL, (void *)&rules[i],
        };
    memcpy(tests + RULE_COUNT, others, sizeof others);
    return cmocka_run_group_tests_name("npy", tests, NULL, NULL);
}
