/* Models whose weight file is in memory: the same as from the disk. */
#include "tests/unit/support.h"

#include <dirent.h>
#include <nsa/model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME "file:1/model.safetensors"

/* A file in memory that nothing aligns, and that ends where the file does. */
typedef struct file_copy {
    unsigned char *memory;
    unsigned char *bytes;
    size_t size;
} file_copy;

static file_copy copy_bytes(const void *bytes, size_t size)
{
    unsigned char *memory = malloc(size + 1);

    assert_non_null(memory);
    memcpy(memory + 1, bytes, size);
    return (file_copy){memory, memory + 1, size};
}

static file_copy copy_golden(const char *name)
{
    size_t size;
    unsigned char *bytes = read_golden(name, &size);
    file_copy copy = copy_bytes(bytes, size);

    free(bytes);
    return copy;
}

/* The model of a golden file's bytes, which are gone by the time it comes back. */
static nsa_model *load_golden_bytes(const char *name, const nsa_model_options *options)
{
    file_copy copy = copy_golden(name);
    nsa_model *model;
    nsa_error err;

    if (nsa_model_load_bytes(&model, NAME, copy.bytes, copy.size, options, &err) != NSA_OK)
        fail_msg("%s", err.message);
    memset(copy.bytes, 0xA5, copy.size);
    free(copy.memory);
    return model;
}

static void compare_info(const nsa_model_info *expected, const nsa_model_info *got)
{
    assert_ptr_equal(expected->op, got->op);
    assert_int_equal(expected->dim_count, got->dim_count);
    for (size_t i = 0; i < expected->dim_count; i++) {
        assert_string_equal(expected->dims[i].name, got->dims[i].name);
        assert_int_equal(expected->dims[i].value, got->dims[i].value);
    }
    assert_int_equal(expected->activation, got->activation);
    assert_int_equal(expected->precision, got->precision);
    assert_int_equal(NSA_SHA256_HEX_BYTES - 1, strlen(got->sha256));
    assert_string_equal(expected->sha256, got->sha256);
    assert_int_equal(expected->file_bytes, got->file_bytes);
    assert_ptr_equal(expected->engine, got->engine);
}

/* Both models' outputs for one random input are equal bit for bit. */
static void compare_outputs(const nsa_model *expected, const nsa_model *got)
{
    const nsa_model_info *info = nsa_model_describe(expected);
    bool compress = info->op->id == NSA_COMPRESS;
    /* (3, n, d) or (3, L, dim) */
    nsa_shape shape = {3, {3, info->dims[compress].value, info->dims[!compress].value}};
    uint64_t random = 12;
    nsa_request requests[2] = {{.input = random_tensor(NSA_F32, &shape, &random)}};

    requests[1].input = requests[0].input;
    plan_outputs(&requests[0], expected);
    plan_outputs(&requests[1], got);
    run_whole(expected, &requests[0]);
    run_whole(got, &requests[1]);
    assert_int_equal(output_bytes(&requests[0], 0), output_bytes(&requests[1], 0));
    assert_memory_equal(requests[0].outputs[0].data, requests[1].outputs[0].data,
                        output_bytes(&requests[0], 0));
    free_outputs(&requests[0]);
    free_outputs(&requests[1]);
    free_tensor(&requests[0].input);
}

static void compare_models(const char *name, const nsa_model_options *options)
{
    nsa_model *expected;
    nsa_model *got;
    char path[512];

    snprintf(path, sizeof path, "tests/golden/%s", name);
    expected = load_model(path, options);
    got = load_golden_bytes(name, options);
    compare_info(nsa_model_describe(expected), nsa_model_describe(got));
    compare_outputs(expected, got);
    nsa_model_unref(expected);
    nsa_model_unref(got);
}

static void test_golden_weights(void **state)
{
    DIR *folder = opendir("tests/golden");
    size_t files = 0;

    (void)state;
    assert_non_null(folder);
    for (struct dirent *item = readdir(folder); item; item = readdir(folder)) {
        const char *dot = strrchr(item->d_name, '.');

        if (!dot || strcmp(dot, ".safetensors") != 0)
            continue;
        compare_models(item->d_name, NULL);
        files++;
    }
    closedir(folder);
    assert_int_equal(13, files);
}

static void test_options(void **state)
{
    const nsa_model_options options = {.activation = NSA_SILU, .precision = NSA_PRECISION_BF16};
    const nsa_model_options wrong = {.op = "posembed"};
    file_copy copy = copy_golden("compress_tiny.safetensors");
    nsa_model *model = NULL;
    nsa_error err;

    (void)state;
    compare_models("compress_odd.safetensors", &options);
    assert_status(NSA_EINVAL,
                  nsa_model_load_bytes(&model, NAME, copy.bytes, copy.size, &wrong, &err));
    assert_message(err, NAME ": expected the tensors of posembed");
    assert_null(model);
    free(copy.memory);
}

/* Every way of cutting a file short, and one byte too many. */
static void test_broken_bytes(void **state)
{
    file_copy whole = copy_golden("compress_one.safetensors");
    nsa_model *model = NULL;
    nsa_error err;

    (void)state;
    for (size_t size = 0; size < whole.size; size++) {
        file_copy cut = copy_bytes(whole.bytes, size);

        assert_status(NSA_EFORMAT, nsa_model_load_bytes(&model, NAME, cut.bytes, size, NULL, &err));
        assert_once(err.message, NAME);
        free(cut.memory);
    }
    assert_status(NSA_EFORMAT, nsa_model_load_bytes(&model, NAME, NULL, 0, NULL, &err));
    assert_message(err, NAME ": expected at least 8 bytes of header length, got a file of 0");
    whole.memory = realloc(whole.memory, whole.size + 2);
    assert_non_null(whole.memory);
    whole.memory[whole.size + 1] = 0;
    assert_status(NSA_EFORMAT,
                  nsa_model_load_bytes(&model, NAME, whole.memory + 1, whole.size + 1, NULL, &err));
    assert_once(err.message, NAME);
    assert_null(model);
    free(whole.memory);
}

/* Names are the caller's choice: one that happens to be a part of the message goes before it. */
static void test_names_in_messages(void **state)
{
    static const char empty[] = "\2\0\0\0\0\0\0\0{}";
    nsa_model *model = NULL;
    nsa_error err;

    (void)state;
    assert_status(NSA_EINVAL, nsa_model_load_bytes(&model, "e", empty, 10, NULL, &err));
    assert_memory_equal("e: expected the tensors", err.message, 23);
    assert_status(NSA_EFORMAT, nsa_model_load_bytes(&model, "e", empty, 9, NULL, &err));
    assert_memory_equal("e: expected a header", err.message, 20);
    assert_null(model);
}

/* Bytes that the caller does change between opening and reading. */
static void test_changed_header(void **state)
{
    file_copy copy = copy_golden("posembed_one.safetensors");
    nsa_safetensors *file;
    char digest[NSA_SHA256_HEX_BYTES];
    nsa_error err;

    (void)state;
    assert_status(NSA_OK, nsa_safetensors_open_bytes(&file, NAME, copy.bytes, copy.size, NULL));
    copy.bytes[10] ^= 1;
    assert_status(NSA_EIO, nsa_safetensors_read(file, NULL, 0, digest, &err));
    assert_message(err, NAME ": changed since it was opened: got another header");
    copy.bytes[10] ^= 1;
    assert_status(NSA_OK, nsa_safetensors_read(file, NULL, 0, digest, NULL));
    nsa_safetensors_close(file);
    free(copy.memory);
}

static nsa_status open_and_close(void *context)
{
    const file_copy *copy = context;
    nsa_model *model = NULL;
    nsa_error err = {""};
    nsa_status status = nsa_model_load_bytes(&model, NAME, copy->bytes, copy->size, NULL, &err);

    if (status != NSA_OK) {
        assert_null(model);
        assert_message(err, "out of memory");
        assert_once(err.message, NAME);
    }
    nsa_model_unref(model);
    return status;
}

static void test_allocations(void **state)
{
    file_copy copy = copy_golden("compress_odd.safetensors");

    (void)state;
    check_every_allocation(open_and_close, &copy);
    free(copy.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_weights), cmocka_unit_test(test_options),
        cmocka_unit_test(test_broken_bytes),   cmocka_unit_test(test_names_in_messages),
        cmocka_unit_test(test_changed_header), cmocka_unit_test(test_allocations),
    };

    return cmocka_run_group_tests_name("models from memory", tests, NULL, NULL);
}
