#include "tests/unit/support.h"

#include <dirent.h>
#include <nsa/npy.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_BYTES 10 /* magic, version 1.0, length */

/* NumPy wrote these files: the header written here is the same, byte for byte. */
static void every_golden_array_is_read_and_its_header_written_alike(void **state)
{
    DIR *folder = opendir("tests/golden");
    struct dirent *item;
    size_t arrays = 0;

    (void)state;
    assert_non_null(folder);
    for (item = readdir(folder); item; item = readdir(folder)) {
        const char *dot = strrchr(item->d_name, '.');
        char header[NSA_NPY_HEADER_BYTES];
        unsigned char *bytes;
        nsa_tensor tensor;
        size_t size;

        if (!dot || strcmp(dot, ".npy") != 0)
            continue;
        tensor = load_golden(item->d_name, &bytes);
        assert_status(NSA_OK,
                      nsa_npy_write_header(header, &size, &tensor.shape, tensor.dtype, NULL));
        assert_ptr_equal(bytes + size, tensor.data);
        assert_memory_equal(bytes, header, size);
        free(bytes);
        arrays++;
    }
    closedir(folder);
    assert_true(arrays > 50);
}

/* Write a header and check its padding: to the next multiple of 64, with room for a newline. */
static size_t write_header(char header[NSA_NPY_HEADER_BYTES], const nsa_shape *shape,
                           nsa_dtype dtype)
{
    size_t size = 0;
    size_t end;

    assert_status(NSA_OK, nsa_npy_write_header(header, &size, shape, dtype, NULL));
    assert_true(size <= NSA_NPY_HEADER_BYTES);
    assert_int_equal(0, size % 64);
    assert_int_equal(size - PREFIX_BYTES,
                     (unsigned char)header[8] + 256 * (unsigned char)header[9]);
    assert_int_equal('\n', header[size - 1]);
    for (end = size - 1; header[end - 1] == ' ';)
        end--;
    assert_int_equal('}', header[end - 1]);
    assert_true(size - end <= 64);
    return size;
}

static void a_written_header_is_read_back(void **state)
{
    static const nsa_dtype dtypes[] = {NSA_F16, NSA_F32, NSA_F64, NSA_I64};

    (void)state;
    for (size_t rank = 0; rank <= NSA_MAX_RANK; rank++) {
        nsa_shape shape = {.rank = rank};

        for (size_t i = 0; i < rank; i++)
            shape.dims[i] = i == rank / 2 ? 0 : i % 2 + 1;
        for (size_t i = 0; i < 4; i++) {
            char file[NSA_NPY_HEADER_BYTES + 8] = {0};
            size_t size = write_header(file, &shape, dtypes[i]);
            nsa_tensor tensor;
            nsa_error err;

            size += rank ? 0 : nsa_dtype_size(dtypes[i]);
            if (nsa_npy_parse(&tensor, file, size, &err) != NSA_OK)
                fail_msg("%s", err.message);
            assert_int_equal(dtypes[i], tensor.dtype);
            assert_true(nsa_shape_equal(&shape, &tensor.shape));
        }
    }
}

/* Every length that the dictionary's end can have within a block of 64, and the longest of all. */
static void a_header_of_any_length_is_padded(void **state)
{
    char header[NSA_NPY_HEADER_BYTES];
    nsa_shape shape = {.rank = 0};

    (void)state;
    for (shape.rank = 1; shape.rank <= 4; shape.rank++) {
        size_t *last = &shape.dims[shape.rank - 1];

        for (*last = 1; *last < SIZE_MAX / 10; *last *= 10)
            write_header(header, &shape, NSA_F32);
    }
    shape.rank = NSA_MAX_RANK;
    for (size_t i = 0; i < NSA_MAX_RANK; i++)
        shape.dims[i] = SIZE_MAX;
    write_header(header, &shape, NSA_F32);
}

static void bfloat16_has_no_header(void **state)
{
    char header[NSA_NPY_HEADER_BYTES];
    nsa_shape shape = {1, {3}};
    size_t size = 99;
    nsa_error err;

    (void)state;
    assert_status(NSA_EUNSUPPORTED, nsa_npy_write_header(header, &size, &shape, NSA_BF16, &err));
    assert_message(err, "bfloat16");
    assert_int_equal(99, size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_array_is_read_and_its_header_written_alike),
        cmocka_unit_test(a_written_header_is_read_back),
        cmocka_unit_test(a_header_of_any_length_is_padded),
        cmocka_unit_test(bfloat16_has_no_header),
    };

    return cmocka_run_group_tests_name("npy writing", tests, NULL, NULL);
}
