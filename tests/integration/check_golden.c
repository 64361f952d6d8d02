/* Every case of tests/golden/manifest.json over HTTP, in every format, with every kernel. */
#include "tests/integration/bodies.h"
#include "tests/integration/groups.h"

#include <jansson.h>
#include <math.h>
#include <nsa/cpu.h>
#include <nsa/model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CASE_COUNT 23 /* of the manifest, but for the one that no operation serves alone */
#define MAX_MODELS 32

static json_t *manifest;

static const char *text_of(const json_t *golden, const char *key)
{
    const char *text = json_string_value(json_object_get(golden, key));

    return text ? text : "";
}

static bool is_op(const json_t *golden, const char *op)
{
    return strcmp(text_of(golden, "op"), op) == 0;
}

/* --- the daemon ---------------------------------------------------------------------------- */

/* A daemon with the weights of every case, each called as its case. */
static struct daemon *start_with_goldens(const char *kernel)
{
    static char models[MAX_MODELS][256];
    const char *arguments[2 * MAX_MODELS + 3] = {"--kernel", kernel};
    size_t count = 0;
    size_t i;
    json_t *golden;

    json_array_foreach(json_object_get(manifest, "cases"), i, golden)
    {
        if (!*text_of(golden, "weights"))
            continue;
        assert_true(count < MAX_MODELS);
        snprintf(models[count], sizeof models[count], "%s=tests/golden/%s", text_of(golden, "name"),
                 text_of(golden, "weights"));
        arguments[2 + 2 * count] = "--model";
        arguments[3 + 2 * count] = models[count];
        count++;
    }
    return daemon_start(arguments);
}

/* The path that asks for `golden`, and the same for the library. */
static void path_of(char *path, size_t size, const json_t *golden)
{
    if (is_op(golden, "select"))
        snprintf(path, size, "/v1/select?num_selected_blocks=%lld",
                 (long long)json_integer_value(json_object_get(golden, "num_selected_blocks")));
    else
        snprintf(path, size, "/v1/%s?model=%s", text_of(golden, "op"), text_of(golden, "name"));
}

static nsa_model *model_of(const json_t *golden)
{
    nsa_model *model = NULL;
    char path[256];

    if (is_op(golden, "select")) {
        assert_status(NSA_OK, nsa_model_create(&model, NSA_SELECT, NULL));
        return model;
    }
    snprintf(path, sizeof path, "tests/golden/%s", text_of(golden, "weights"));
    return load_model(path, NULL);
}

static nsa_request compute_case(const json_t *golden, const nsa_tensor *input)
{
    const int64_t params[NSA_MAX_PARAMS] = {
        json_integer_value(json_object_get(golden, "num_selected_blocks")),
        is_op(golden, "select"),
    };
    nsa_model *model = model_of(golden);
    nsa_request request = compute(model, input, params);

    nsa_model_unref(model);
    return request;
}

/* --- what is right ------------------------------------------------------------------------- */

/*
 * Twice PyTorch's own float32 error, but never less than 8 * 2^-24 of the largest output, where few
 * outputs make that error a lucky one.
 */
static void check_compress(const json_t *golden, const nsa_tensor *output)
{
    double tolerance = 2 * json_real_value(json_object_get(golden, "torch_f32_max_abs_err"));
    unsigned char *bytes;
    nsa_tensor expected = load_golden(text_of(golden, "f64"), &bytes);
    const double *want = expected.data;
    const float *got = output->data;
    double worst = 0, largest = 0;

    assert_true(nsa_shape_equal(&expected.shape, &output->shape));
    for (size_t i = 0; i < tensor_bytes(&expected) / sizeof *want; i++) {
        double error = fabs((double)got[i] - want[i]);

        assert_true(error == error);
        largest = fmax(largest, fabs(want[i]));
        worst = fmax(worst, error);
    }
    tolerance = fmax(tolerance, 8 * 0x1p-24 * largest);
    if (!(worst <= tolerance))
        fail_msg("%s: the largest error is %.3g, expected at most %.3g", text_of(golden, "name"),
                 worst, tolerance);
    free(bytes);
}

static void check_posembed(const json_t *golden, const nsa_tensor *output)
{
    unsigned char *bytes;
    nsa_tensor expected = load_golden(text_of(golden, "f32"), &bytes);

    expect_same(text_of(golden, "name"), &expected, output);
    free(bytes);
}

static bool same_value(float a, float b)
{
    return a == b || (isnan(a) && isnan(b));
}

/* The indices are those of PyTorch's values; where values tie, the lowest index comes first. */
static void check_select(const json_t *golden, const nsa_tensor *output)
{
    unsigned char *bytes[2];
    nsa_tensor input = load_golden(text_of(golden, "input"), &bytes[0]);
    nsa_tensor torch = load_golden(text_of(golden, "values"), &bytes[1]);
    size_t n = input.shape.dims[input.shape.rank - 1];
    size_t k = torch.shape.dims[torch.shape.rank - 1];
    const float *scores = input.data;
    const float *values = torch.data;
    const int64_t *indices = output->data;

    assert_int_equal(NSA_I64, output->dtype);
    assert_true(nsa_shape_equal(&torch.shape, &output->shape));
    for (size_t i = 0; i < tensor_bytes(&torch) / sizeof *values; i++) {
        const float *row = scores + i / k * n;

        assert_true(indices[i] >= 0 && (size_t)indices[i] < n);
        assert_true(same_value(values[i], row[indices[i]]));
        if (i % k > 0 && same_value(values[i], values[i - 1]))
            assert_true(indices[i] > indices[i - 1]);
    }
    free(bytes[0]);
    free(bytes[1]);
}

/* --- tests --------------------------------------------------------------------------------- */

static void check_case(struct client *client, const json_t *golden)
{
    unsigned char *bytes;
    nsa_tensor input = load_golden(text_of(golden, "input"), &bytes);
    nsa_request expected = compute_case(golden, &input);
    char path[256];

    path_of(path, sizeof path, golden);
    for (enum format format = FORMAT_JSON; format < FORMAT_COUNT; format++) {
        nsa_tensor output = must_infer(client, format, path, &input);
        char what[512];

        snprintf(what, sizeof what, "%s as %s", path, format_types[format]);
        expect_same(what, &expected.outputs[0], &output);
        if (is_op(golden, "compress"))
            check_compress(golden, &output);
        else if (is_op(golden, "posembed"))
            check_posembed(golden, &output);
        else
            check_select(golden, &output);
        free_tensor(&output);
    }
    free_outputs(&expected);
    free(bytes);
}

static void test_cases(void **state)
{
    struct daemon *daemon = start_with_goldens(*state);
    struct client *client = client_open(daemon);
    size_t checked = 0;
    size_t i;
    json_t *golden;

    assert_status(NSA_OK, nsa_cpu_use(*state, NULL));
    json_array_foreach(json_object_get(manifest, "cases"), i, golden)
    {
        if (is_op(golden, "gelu"))
            continue;
        check_case(client, golden);
        checked++;
    }
    assert_int_equal(CASE_COUNT, checked);
    client_close(client);
    daemon_stop(daemon);
}

/*
 * An input of another dtype gives what its values give as float32, rounded once: in the formats
 * that can carry it, and as the library itself answers.
 */
static void check_dtype(struct client *client, const json_t *golden, nsa_dtype dtype)
{
    unsigned char *bytes;
    nsa_tensor wide = load_golden(text_of(golden, "input"), &bytes);
    size_t count = tensor_bytes(&wide) / sizeof(float);
    nsa_tensor narrow = {malloc(count * nsa_dtype_size(dtype)), dtype, wide.shape};
    nsa_tensor plain, rounded;
    nsa_request expected;
    char path[256];

    path_of(path, sizeof path, golden);
    assert_non_null(narrow.data);
    nsa_from_f32(narrow.data, dtype, wide.data, count);
    nsa_to_f32(wide.data, narrow.data, dtype, count);
    plain = must_infer(client, FORMAT_RAW, path, &wide);
    count = tensor_bytes(&plain) / sizeof(float);
    rounded = (nsa_tensor){malloc(count * nsa_dtype_size(dtype)), dtype, plain.shape};
    assert_non_null(rounded.data);
    nsa_from_f32(rounded.data, dtype, plain.data, count);
    expected = compute_case(golden, &narrow);
    expect_same("the library", &rounded, &expected.outputs[0]);
    for (enum format format = FORMAT_NPY; format < FORMAT_COUNT; format++) {
        nsa_tensor output;

        if (format == FORMAT_NPY && dtype == NSA_BF16)
            continue;
        output = must_infer(client, format, path, &narrow);
        expect_same(path, &rounded, &output);
        free_tensor(&output);
    }
    free_outputs(&expected);
    free_tensor(&rounded);
    free_tensor(&plain);
    free_tensor(&narrow);
    free(bytes);
}

static void test_dtypes(void **state)
{
    static const nsa_dtype dtypes[] = {NSA_F16, NSA_BF16, NSA_F64};
    struct daemon *daemon = start_with_goldens(*state);
    struct client *client = client_open(daemon);
    size_t i;
    json_t *golden;

    assert_status(NSA_OK, nsa_cpu_use(*state, NULL));
    json_array_foreach(json_object_get(manifest, "cases"), i, golden)
    {
        if (!is_op(golden, "compress") && !is_op(golden, "posembed"))
            continue;
        for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
            check_dtype(client, golden, dtypes[d]);
    }
    client_close(client);
    daemon_stop(daemon);
}

static int load_manifest(void **state)
{
    (void)state;
    manifest = json_load_file("tests/golden/manifest.json", 0, NULL);
    return manifest ? 0 : -1;
}

static int drop_manifest(void **state)
{
    (void)state;
    json_decref(manifest);
    return 0;
}

int run_golden(void)
{
    struct CMUnitTest tests[16] = {{0}};
    char names[16][64];
    size_t count = 0;

    for (size_t i = 0; nsa_cpu_supported(i) && count < 16; i++) {
        const char *kernel = nsa_cpu_supported(i);

        for (size_t j = 0; j < 2; j++) {
            snprintf(names[count], sizeof names[count], "golden %s, %s",
                     j == 0 ? "cases" : "dtypes", kernel);
            tests[count] = (struct CMUnitTest){names[count], j == 0 ? test_cases : test_dtypes,
                                               NULL, daemons_kill, (void *)(uintptr_t)kernel};
            count++;
        }
    }
    return _cmocka_run_group_tests("golden", tests, count, load_manifest, drop_manifest);
}
