/* Loading models: what the tensors of a file say, and what is refused. */
#include "tests/unit/support.h"

#include <jansson.h>
#include <math.h>
#include <nsa/model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Tensors for write_zeros(). */
#define COMPRESS(prefix)                                                                           \
    prefix "mlp.1.weight F32 5 6; " prefix "mlp.1.bias F16 5; " prefix                             \
           "mlp.3.weight BF16 3 5; " prefix "mlp.3.bias F64 3; "
#define POSEMBED(prefix) prefix "embedding.weight F32 7 4; "

/* Load a file of the tensors in `text`; a message must name the file, once. */
static nsa_status load(nsa_model **out, const char *text, const nsa_model_options *options,
                       nsa_error *err)
{
    const char *path = write_zeros("model.safetensors", text);
    nsa_status status = nsa_model_load(out, path, options, err);

    if (status != NSA_OK && err)
        assert_once(err->message, path);
    unlink(path);
    return status;
}

/* --- names --------------------------------------------------------------------------------- */

static void test_names(void **state)
{
    nsa_activation activation = NSA_RELU;
    nsa_precision precision = NSA_PRECISION_BF16;

    (void)state;
    for (size_t i = 0; i < NSA_ACTIVATION_COUNT; i++) {
        assert_true(nsa_activation_from_name(&activation, nsa_activation_name((nsa_activation)i)));
        assert_int_equal(i, activation);
    }
    for (size_t i = 0; i < NSA_PRECISION_COUNT; i++) {
        assert_true(nsa_precision_from_name(&precision, nsa_precision_name((nsa_precision)i)));
        assert_int_equal(i, precision);
    }
    assert_true(nsa_activation_from_name(&activation, "gelu_tanh"));
    assert_int_equal(NSA_GELU_TANH, activation);
    assert_false(nsa_activation_from_name(&activation, "GELU"));
    assert_false(nsa_precision_from_name(&precision, ""));
    assert_int_equal(NSA_GELU_TANH, activation);
    assert_null(nsa_op_find("Select"));
    for (size_t i = 0; i < NSA_OP_COUNT; i++) {
        const nsa_op *op = nsa_op_at((nsa_op_id)i);

        assert_int_equal(i, op->id);
        assert_ptr_equal(op, nsa_op_find(op->name));
        assert_in_range(op->output_count, 1, NSA_MAX_OUTPUTS);
        assert_in_range(op->param_count, 0, NSA_MAX_PARAMS);
    }
}

/* --- what is found ------------------------------------------------------------------------- */

static const struct {
    const char *tensors;
    nsa_model_options options;
    const char *op;
} good[] = {
    {COMPRESS(""), {0}, "compress"},
    {POSEMBED(""), {0}, "posembed"},
    {COMPRESS("model.layers.0.compress."), {0}, "compress"},
    {POSEMBED("pos."), {0}, "posembed"},
    /* other tensors, of any dtype; a part of another model; a name that only ends like ours */
    {COMPRESS("a.") "a.step I64; mlp.5.bias I64 0; embedding I64 2;", {0}, "compress"},
    {COMPRESS("a.") "b.mlp.1.weight F32 1 1; b.mlp.1.bias F32 1;", {0}, "compress"},
    {"position_embedding.weight F32 1 1;" POSEMBED("a."), {0}, "posembed"},
    /* chosen by an option */
    {POSEMBED("a"), {.key_prefix = "a"}, "posembed"},
    {COMPRESS("a.") COMPRESS("b."), {.key_prefix = "b."}, "compress"},
    {COMPRESS("a.") COMPRESS(""), {.key_prefix = ""}, "compress"},
    {COMPRESS("a.") POSEMBED("a."), {.op = "posembed"}, "posembed"},
    {POSEMBED("") COMPRESS(""), {.op = "compress"}, "compress"},
};

static void check_dim(const nsa_model_info *info, size_t index, const char *name, size_t value)
{
    assert_string_equal(name, info->dims[index].name);
    assert_int_equal(value, info->dims[index].value);
}

static void test_inference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        nsa_model *model = NULL;
        const nsa_model_info *info;
        nsa_error err;

        if (load(&model, good[i].tensors, &good[i].options, &err) != NSA_OK)
            fail_msg("%s", err.message);
        info = nsa_model_describe(model);
        assert_string_equal(good[i].op, info->op->name);
        if (info->op->id == NSA_COMPRESS) {
            assert_int_equal(3, info->dim_count);
            check_dim(info, 0, "dim_head", 3);
            check_dim(info, 1, "compress_block_size", 2);
            check_dim(info, 2, "hidden", 5);
            assert_non_null(info->engine);
        } else {
            assert_int_equal(2, info->dim_count);
            check_dim(info, 0, "max_len", 7);
            check_dim(info, 1, "dim", 4);
        }
        assert_int_equal(NSA_SHA256_HEX_BYTES - 1, strlen(info->sha256));
        nsa_model_unref(model);
    }
}

/* Options that say nothing, and options that say all. */
static void test_options(void **state)
{
    nsa_model_options options = {"compress", "", NSA_SILU, NSA_PRECISION_BF16};
    nsa_model *model = NULL;

    (void)state;
    assert_status(NSA_OK, load(&model, COMPRESS(""), NULL, NULL));
    assert_int_equal(NSA_GELU, nsa_model_describe(model)->activation);
    assert_int_equal(NSA_PRECISION_F32, nsa_model_describe(model)->precision);
    nsa_model_unref(model);
    assert_status(NSA_OK, load(&model, COMPRESS(""), &options, NULL));
    assert_int_equal(NSA_SILU, nsa_model_describe(model)->activation);
    assert_int_equal(NSA_PRECISION_BF16, nsa_model_describe(model)->precision);
    nsa_model_unref(model);
}

static void test_golden_weights(void **state)
{
    json_t *manifest = json_load_file("tests/golden/manifest.json", 0, NULL);
    size_t loaded = 0;
    size_t i;
    json_t *golden;

    (void)state;
    json_array_foreach(json_object_get(manifest, "cases"), i, golden)
    {
        const char *file = json_string_value(json_object_get(golden, "weights"));
        const nsa_model_info *info;
        unsigned char *bytes;
        nsa_model *model;
        char path[512];
        size_t size;

        if (!file)
            continue;
        snprintf(path, sizeof path, "tests/golden/%s", file);
        model = load_model(path, NULL);
        info = nsa_model_describe(model);
        assert_string_equal(json_string_value(json_object_get(golden, "op")), info->op->name);
        for (size_t dim = 0; dim < info->dim_count; dim++) {
            json_t *value = json_object_get(golden, info->dims[dim].name);

            if (value) /* all but hidden, which is 2 n d in the seed */
                assert_int_equal(json_integer_value(value), info->dims[dim].value);
            else
                check_dim(info, dim, "hidden", 2 * info->dims[0].value * info->dims[1].value);
        }
        bytes = read_golden(file, &size);
        assert_int_equal(size, info->file_bytes);
        free(bytes);
        nsa_model_unref(model);
        loaded++;
    }
    assert_int_equal(13, loaded);
    json_decref(manifest);
}

/* NaN, infinity and huge numbers in weights are the owner's affair. */
static void test_weights_of_any_value(void **state)
{
    static const float values[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e30f, 1, 2, 3};

    (void)state;
    for (size_t i = 0; i < 6; i++) {
        struct weight weights[] = {{"mlp.1.weight", NSA_F32, {2, {2, 2}}, values + i % 5},
                                   {"mlp.1.bias", NSA_F32, {1, {2}}, values + i},
                                   {"mlp.3.weight", NSA_F32, {2, {2, 2}}, values + i % 4},
                                   {"mlp.3.bias", NSA_F32, {1, {2}}, values + i}};
        const char *path = write_safetensors("values.safetensors", weights, 4);

        nsa_model_unref(load_model(path, NULL));
        unlink(path);
    }
}

/* --- what is refused ----------------------------------------------------------------------- */

static void check_refused(const char *text, const nsa_model_options *options, nsa_status status,
                          const char *message)
{
    nsa_model *const untouched = (nsa_model *)(uintptr_t)text;
    nsa_model *model = untouched;
    nsa_error err;

    assert_status(status, load(&model, text, options, &err));
    if (!strstr(err.message, message))
        fail_msg("expected '%s' in: %s", message, err.message);
    assert_status(status, load(&model, text, options, NULL));
    assert_ptr_equal(untouched, model);
}

static void test_tensors_that_fit_no_model(void **state)
{
    static const struct {
        const char *tensors;
        nsa_model_options options;
        const char *message;
    } cases[] = {
        {"", {0}, "expected the tensors of compress or posembed under one prefix "},
        {"x F32 1; y F32 1;", {0}, "got 2 tensors, the first of them '"},
        {"embedding F32 1 1;", {0}, "'embedding'"},
        {"aembedding.weight F32 1 1;", {0}, "posembed: embedding.weight"},
        {"mlp.1.weight F32 5 6; mlp.1.bias F32 5; mlp.3.weight F32 3 5;",
         {0},
         "tensor 'mlp.3.bias': expected beside 'mlp.1.weight', got none"},
        {"a.mlp.1.weight F32 1 1; mlp.1.bias F32 1; mlp.3.weight F32 1 1; mlp.3.bias F32 1;",
         {0},
         "tensor 'mlp.1.bias': expected beside 'a.mlp.1.weight', got none"},
        {COMPRESS("a.") COMPRESS("b."), {0}, "of compress under 'a.'"},
        {COMPRESS("a.") COMPRESS("b."), {0}, "of compress under 'b.'"},
        {COMPRESS("") POSEMBED("p."), {0}, "of posembed under 'p.': choose by op or key_prefix"},
        {COMPRESS("a.") COMPRESS("b."), {.op = "compress"}, "choose by op or key_prefix"},
        {COMPRESS("a."), {.key_prefix = ""}, "under the prefix ''"},
        {COMPRESS("a."), {.key_prefix = "a"}, "under the prefix 'a'"},
        {COMPRESS("a.") COMPRESS("b."), {.key_prefix = "c."}, "under the prefix 'c.'"},
        {COMPRESS(""), {.op = "posembed"}, "expected the tensors of posembed"},
        {POSEMBED(""), {.op = "compress"}, "expected the tensors of compress"},
        {POSEMBED(""), {.op = "select"}, "expected the tensors of select"},
        {POSEMBED(""), {.op = "Posembed"}, "expected the tensors of Posembed"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_refused(cases[i].tensors, &cases[i].options, NSA_EINVAL, cases[i].message);
}

#define SHAPES(w1, b1, w2, b2)                                                                     \
    "mlp.1.weight F32 " w1 "; mlp.1.bias F32 " b1 "; mlp.3.weight F32 " w2 "; mlp.3.bias F32 " b2  \
    ";"

static void test_wrong_shapes(void **state)
{
    static const char *const cases[][2] = {
        {SHAPES("6", "5", "3 5", "3"),
         "'mlp.1.weight': expected shape [hidden, n*d] with both at least 1, got [6]"},
        {SHAPES("0 6", "0", "3 0", "3"), "with both at least 1, got [0, 6]"},
        {SHAPES("5 0", "5", "3 5", "3"), "with both at least 1, got [5, 0]"},
        {SHAPES("5 6 1", "5", "3 5", "3"), "got [5, 6, 1]"},
        {SHAPES("", "5", "3 5", "3"), "'mlp.1.weight'"},
        {SHAPES("5 6", "6", "3 5", "3"), "'mlp.1.bias': expected shape [5], got [6]"},
        {SHAPES("5 6", "5 1", "3 5", "3"), "expected shape [5], got [5, 1]"},
        {SHAPES("5 6", "5", "4 5", "4"),
         "'mlp.3.weight': expected shape [d, 5] with d a divisor of 6, got [4, 5]"},
        {SHAPES("5 6", "5", "0 5", "0"), "a divisor of 6, got [0, 5]"},
        {SHAPES("5 6", "5", "12 5", "12"), "a divisor of 6, got [12, 5]"},
        {SHAPES("5 6", "5", "3", "3"), "a divisor of 6, got [3]"},
        {SHAPES("5 6", "5", "3 6", "3"), "'mlp.3.weight': expected shape [3, 5], got [3, 6]"},
        {SHAPES("5 6", "5", "3 5", "1"), "'mlp.3.bias': expected shape [3], got [1]"},
        {"embedding.weight F32 7;",
         "'embedding.weight': expected shape [max_len, dim] with both at least 1, got [7]"},
        {"embedding.weight F32 0 4;", "got [0, 4]"},
        {"embedding.weight F32 4 0;", "got [4, 0]"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_refused(cases[i][0], NULL, NSA_EINVAL, cases[i][1]);
}

static void test_wrong_dtypes(void **state)
{
    (void)state;
    check_refused("p.embedding.weight I64 7 4;", NULL, NSA_EUNSUPPORTED,
                  "'p.embedding.weight': expected dtype F32, F16, BF16 or F64, got I64");
    check_refused("mlp.1.weight F32 1 1; mlp.1.bias F32 1; mlp.3.weight F32 1 1; mlp.3.bias I64 1;",
                  NULL, NSA_EUNSUPPORTED, "'mlp.3.bias': expected dtype");
}

/* Every way of cutting a file short, and a file that is not there. */
static void test_broken_files(void **state)
{
    size_t size;
    unsigned char *bytes = read_golden("compress_one.safetensors", &size);
    nsa_model *model = NULL;
    nsa_error err;

    (void)state;
    for (size_t cut = 0; cut < size; cut++) {
        const char *path = write_temporary("cut.safetensors", bytes, cut);

        assert_status(NSA_EFORMAT, nsa_model_load(&model, path, NULL, &err));
        assert_once(err.message, path);
        unlink(path);
    }
    free(bytes);
    assert_status(NSA_EIO, nsa_model_load(&model, "/tmp/nsa-test/none", NULL, &err));
    assert_once(err.message, "/tmp/nsa-test/none");
    assert_null(model);
}

/* --- lifetime ------------------------------------------------------------------------------ */

static void test_references(void **state)
{
    nsa_model *model = NULL;

    (void)state;
    assert_status(NSA_OK, load(&model, POSEMBED(""), NULL, NULL));
    assert_ptr_equal(model, nsa_model_ref(model));
    nsa_model_unref(model);
    assert_string_equal("posembed", nsa_model_describe(model)->op->name); /* still there */
    nsa_model_unref(model);
}

static void test_create(void **state)
{
    nsa_model *model = NULL;
    nsa_error err;

    (void)state;
    assert_status(NSA_EINVAL, nsa_model_create(&model, NSA_COMPRESS, &err));
    assert_message(err, "compress: expected an op without weights");
    assert_status(NSA_EINVAL, nsa_model_create(&model, NSA_POSEMBED, NULL));
    assert_null(model);
    nsa_model_unref(model);
    assert_status(NSA_OK, nsa_model_create(&model, NSA_SELECT, &err));
    assert_string_equal("select", nsa_model_describe(model)->op->name);
    assert_string_equal("", nsa_model_describe(model)->sha256);
    assert_int_equal(0, nsa_model_describe(model)->dim_count);
    nsa_model_unref(model);
}

/* --- allocations --------------------------------------------------------------------------- */

void *__real_malloc(size_t size);

/* `context` is a path, or NULL for select. */
static nsa_status open_and_close(void *context)
{
    nsa_model *model = NULL;
    nsa_error err = {""};
    nsa_status status;

    if (context)
        status = nsa_model_load(&model, context, NULL, &err);
    else
        status = nsa_model_create(&model, NSA_SELECT, &err);
    if (status != NSA_OK) {
        assert_null(model);
        assert_message(err, "out of memory");
    }
    nsa_model_unref(model);
    return status;
}

/*
 * The same, but for jansson's allocations: version 2.14 keeps a token in a buffer of 16 bytes, and
 * when that cannot grow, it loses a character of "embedding.weight" and carries on.
 */
static nsa_status open_and_close_after_parsing(void *context)
{
    json_set_alloc_funcs(__real_malloc, free);
    return open_and_close(context);
}

static void test_allocations(void **state)
{
    (void)state;
    check_every_allocation(open_and_close, NULL);
    check_every_allocation(open_and_close, "tests/golden/compress_odd.safetensors");
    check_every_allocation(open_and_close_after_parsing, "tests/golden/posembed_odd.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_inference),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_golden_weights),
        cmocka_unit_test(test_weights_of_any_value),
        cmocka_unit_test(test_tensors_that_fit_no_model),
        cmocka_unit_test(test_wrong_shapes),
        cmocka_unit_test(test_wrong_dtypes),
        cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_allocations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
