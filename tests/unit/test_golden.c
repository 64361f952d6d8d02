/* Every case of tests/golden/manifest.json through the library, with every kernel table. */
#include "tests/unit/support.h"

#include <jansson.h>
#include <math.h>
#include <nsa/cpu.h>
#include <nsa/model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CASE_COUNT 24 /* of the manifest: losing some must not pass unseen */

static const char *text_of(const json_t *golden, const char *key)
{
    const char *text = json_string_value(json_object_get(golden, key));

    if (!text)
        fail_msg("%s: no %s", json_string_value(json_object_get(golden, "name")), key);
    return text;
}

static nsa_model *model_of(const json_t *golden)
{
    char path[512];

    snprintf(path, sizeof path, "tests/golden/%s", text_of(golden, "weights"));
    return load_model(path, NULL);
}

static size_t count_of(const nsa_tensor *tensor)
{
    size_t count = 0;

    assert_status(NSA_OK, nsa_shape_count(&count, &tensor->shape, NULL));
    return count;
}

/*
 * Twice PyTorch's own float32 error, but never less than 8 * 2^-24 of the largest output, where few
 * outputs make that error a lucky one. The inputs are float32, so no rounding of an output is
 * added.
 */
static void check_compress(const json_t *golden)
{
    double tolerance = 2 * json_real_value(json_object_get(golden, "torch_f32_max_abs_err"));
    unsigned char *input;
    unsigned char *expected_bytes;
    nsa_tensor expected = load_golden(text_of(golden, "f64"), &expected_bytes);
    const double *want = expected.data;
    size_t count = count_of(&expected);
    nsa_model *model = model_of(golden);
    nsa_request request = {.input = load_golden(text_of(golden, "input"), &input)};
    const float *got;
    double largest = 0;
    double worst = 0;

    assert_int_equal(NSA_F64, expected.dtype);
    assert_int_equal(NSA_F32, request.input.dtype);
    plan_outputs(&request, model);
    assert_true(nsa_shape_equal(&expected.shape, &request.outputs[0].shape));
    run_whole(model, &request);
    got = request.outputs[0].data;
    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)got[i] - want[i]);

        assert_true(error == error);
        largest = fmax(largest, fabs(want[i]));
        worst = fmax(worst, error);
    }
    tolerance = fmax(tolerance, 8 * 0x1p-24 * largest);
    if (!(worst <= tolerance))
        fail_msg("%s (%s, %s): the largest error is %.3g, expected at most %.3g",
                 text_of(golden, "name"), nsa_cpu_kernel(), nsa_model_describe(model)->engine,
                 worst, tolerance);
    free_outputs(&request);
    nsa_model_unref(model);
    free(expected_bytes);
    free(input);
}

static bool same_value(float a, float b)
{
    return a == b || (isnan(a) && isnan(b));
}

/* How many of `values` (count) equal `value`; all NaNs are equal. */
static size_t count_same(const float *values, size_t count, float value)
{
    size_t same = 0;

    for (size_t i = 0; i < count; i++)
        same += same_value(values[i], value);
    return same;
}

/*
 * One row: PyTorch's values; PyTorch's indices where there is no tie; and where there is one, the
 * lowest indices first: as many equal scores lie before an index as equal ones were selected
 * before.
 */
static void check_row(const char *name, const float *scores, size_t n, const int64_t *indices,
                      const float *values, const int64_t *torch_indices, const float *torch_values,
                      size_t k)
{
    for (size_t rank = 0; rank < k; rank++) {
        size_t index = (size_t)indices[rank];

        if (index >= n || !same_value(values[rank], torch_values[rank]))
            fail_msg("%s: rank %zu is %.9g at %zu, expected %.9g", name, rank, (double)values[rank],
                     index, (double)torch_values[rank]);
        assert_memory_equal(&scores[index], &values[rank], sizeof values[rank]);
        assert_int_equal(count_same(values, rank, values[rank]),
                         count_same(scores, index, values[rank]));
        if (count_same(scores, n, values[rank]) == 1)
            assert_int_equal(torch_indices[rank], indices[rank]);
    }
}

static void check_select(const json_t *golden)
{
    const char *name = text_of(golden, "name");
    unsigned char *bytes[3];
    nsa_tensor torch_indices = load_golden(text_of(golden, "indices"), &bytes[1]);
    nsa_tensor torch_values = load_golden(text_of(golden, "values"), &bytes[2]);
    json_int_t k = json_integer_value(json_object_get(golden, "num_selected_blocks"));
    nsa_request request = {.params = {k, 1},
                           .input = load_golden(text_of(golden, "input"), &bytes[0])};
    size_t n = request.input.shape.dims[request.input.shape.rank - 1];
    nsa_model *model = NULL;

    assert_status(NSA_OK, nsa_model_create(&model, NSA_SELECT, NULL));
    plan_outputs(&request, model);
    assert_true(request.rows > 0 && k > 0);
    assert_true(nsa_shape_equal(&torch_indices.shape, &request.outputs[0].shape));
    assert_true(nsa_shape_equal(&torch_values.shape, &request.outputs[1].shape));
    run_whole(model, &request);
    for (size_t row = 0; row < request.rows; row++) {
        size_t at = row * (size_t)k;

        check_row(name, (const float *)request.input.data + row * n, n,
                  (const int64_t *)request.outputs[0].data + at,
                  (const float *)request.outputs[1].data + at,
                  (const int64_t *)torch_indices.data + at, (const float *)torch_values.data + at,
                  (size_t)k);
    }
    free_outputs(&request);
    nsa_model_unref(model);
    for (size_t i = 0; i < 3; i++)
        free(bytes[i]);
}

/* One addition, rounded once: there is one right answer. */
static void check_posembed(const json_t *golden)
{
    unsigned char *input;
    unsigned char *expected_bytes;
    nsa_tensor expected = load_golden(text_of(golden, "f32"), &expected_bytes);
    nsa_model *model = model_of(golden);
    nsa_request request = {.input = load_golden(text_of(golden, "input"), &input)};

    plan_outputs(&request, model);
    assert_true(nsa_shape_equal(&expected.shape, &request.outputs[0].shape));
    run_whole(model, &request);
    assert_memory_equal(expected.data, request.outputs[0].data, output_bytes(&request, 0));
    free_outputs(&request);
    nsa_model_unref(model);
    free(expected_bytes);
    free(input);
}

/* The bound of test_kernels.c: 5 * 2^-24 |x|, and where |x| is subnormal half of its last bit. */
static void check_gelu(const json_t *golden)
{
    unsigned char *bytes[2];
    nsa_tensor input = load_golden(text_of(golden, "input"), &bytes[0]);
    nsa_tensor expected = load_golden(text_of(golden, "f64"), &bytes[1]);
    const double *want = expected.data;
    float *x = input.data;
    float bias = 0.0f;

    assert_int_equal(NSA_F32, input.dtype);
    assert_int_equal(NSA_F64, expected.dtype);
    assert_true(nsa_shape_equal(&expected.shape, &input.shape));
    for (size_t i = 0; i < count_of(&input); i++) {
        double tolerance = 5 * 0x1p-24 * fabs((double)x[i]) + 0x1p-150;
        float got = x[i];

        nsa_kernels_active()->bias_activate[NSA_GELU](&got, &bias, 1);
        if (!(fabs((double)got - want[i]) <= tolerance))
            fail_msg("gelu(%.9g) is %.9g, expected %.17g", (double)x[i], (double)got, want[i]);
    }
    free(bytes[0]);
    free(bytes[1]);
}

static void test_manifest(void **state)
{
    static const struct {
        const char *op;
        void (*check)(const json_t *golden);
    } checks[] = {{"compress", check_compress},
                  {"select", check_select},
                  {"posembed", check_posembed},
                  {"gelu", check_gelu}};
    json_t *manifest = json_load_file("tests/golden/manifest.json", 0, NULL);
    json_t *cases = json_object_get(manifest, "cases");
    size_t checked = 0;
    size_t i;
    json_t *golden;

    assert_status(NSA_OK, nsa_cpu_use(*state, NULL));
    assert_int_equal(CASE_COUNT, json_array_size(cases));
    json_array_foreach(cases, i, golden)
    {
        for (size_t op = 0; op < sizeof checks / sizeof *checks; op++) {
            if (strcmp(checks[op].op, text_of(golden, "op")) != 0)
                continue;
            checks[op].check(golden);
            checked++;
        }
    }
    assert_int_equal(CASE_COUNT, checked);
    json_decref(manifest);
}

int main(void)
{
    struct CMUnitTest tests[8] = {{0}};
    size_t count = 0;

    for (const char *name = nsa_cpu_supported(0); name; name = nsa_cpu_supported(++count)) {
        tests[count].name = name;
        tests[count].test_func = test_manifest;
        tests[count].initial_state = (void *)(uintptr_t)name;
    }
    return _cmocka_run_group_tests("golden", tests, count, NULL, NULL);
}
