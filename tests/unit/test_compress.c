/* compress against the reference in double precision. */
#include "tests/unit/support.h"

#include <math.h>
#include <nsa/cpu.h>
#include <nsa/model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool use_kernel(size_t index)
{
    return nsa_cpu_supported(index) && nsa_cpu_use(nsa_cpu_supported(index), NULL) == NSA_OK;
}

static nsa_model *load_mlp(nsa_mlp *mlp, nsa_dtype dtype, uint64_t *random)
{
    const char *path = write_mlp(mlp, dtype, random);
    nsa_model_options options = {.activation = mlp->activation, .precision = mlp->precision};
    nsa_model *model = load_model(path, &options);

    unlink(path);
    return model;
}

/* A model of in = out = hidden = 1 whose output is activation(2 x) - 1. */
static nsa_model *load_tiny(nsa_activation activation)
{
    static const float values[] = {2.0f, 0.0f, 1.0f, -1.0f};
    static const struct weight weights[] = {
        {"mlp.1.weight", NSA_F32, {2, {1, 1}}, &values[0]},
        {"mlp.1.bias", NSA_F32, {1, {1}}, &values[1]},
        {"mlp.3.weight", NSA_F32, {2, {1, 1}}, &values[2]},
        {"mlp.3.bias", NSA_F32, {1, {1}}, &values[3]},
    };
    const char *path = write_safetensors("tiny.safetensors", weights, 4);
    nsa_model *model = load_model(path, &(nsa_model_options){.activation = activation});

    unlink(path);
    return model;
}

static float run_tiny(const nsa_model *model, float x)
{
    nsa_request request = {.input = {&x, NSA_F32, {1, {1}}}};
    float y;

    plan_outputs(&request, model);
    run_whole(model, &request);
    y = *(const float *)request.outputs[0].data;
    free_outputs(&request);
    return y;
}

/*
 * In whatever order a sum of K products and a bias is evaluated, its error is at most (K + 1) units
 * of 2^-24 of the sum of magnitudes. An activation multiplies an error by at most its slope, 1.13,
 * and adds 5 units of its own (test_kernels.c). bfloat16 rounds hidden values that fall beside a
 * boundary the other way: 2^-8 of them. An output is rounded once more, by half of its last bit, of
 * 11 in float16 and of 8 in bfloat16; float16 ends at 2^-24.
 */
static double tolerance(const nsa_mlp *mlp, nsa_dtype dtype, double y, double scale)
{
    static const double rounding[] = {
        [NSA_F32] = 0x1p-24, [NSA_F16] = 0x1p-11, [NSA_BF16] = 0x1p-8, [NSA_F64] = 0x1p-24};
    double units = 1.13 * (double)(mlp->in + mlp->hidden + 8) * 0x1p-24;

    if (mlp->precision == NSA_PRECISION_BF16)
        units += 0x1p-8;
    return units * scale + rounding[dtype] * fabs(y) + (dtype == NSA_F16 ? 0x1p-25 : 0);
}

/* Each row of a computed request against the reference. */
static void check_rows(const nsa_request *request, const nsa_mlp *mlp)
{
    nsa_dtype dtype = request->input.dtype;
    size_t size = nsa_dtype_size(dtype);
    float *x = malloc(mlp->in * sizeof *x);
    float *got = malloc(mlp->out * sizeof *got);
    double *want = malloc(2 * mlp->out * sizeof *want);

    assert_true(x && got && want);
    for (size_t row = 0; row < request->rows; row++) {
        nsa_to_f32(x, (char *)request->input.data + row * mlp->in * size, dtype, mlp->in);
        nsa_to_f32(got, (char *)request->outputs[0].data + row * mlp->out * size, dtype, mlp->out);
        nsa_compress_row_ref(want, want + mlp->out, x, mlp);
        for (size_t o = 0; o < mlp->out; o++) {
            double error = fabs((double)got[o] - want[o]);

            if (!(error <= tolerance(mlp, dtype, want[o], want[mlp->out + o])))
                fail_msg("%s, in %zu, hidden %zu, %s, %s: y[%zu][%zu] is %.9g, expected %.9g",
                         nsa_cpu_kernel(), mlp->in, mlp->hidden, nsa_dtype_name(dtype),
                         nsa_activation_name(mlp->activation), row, o, (double)got[o], want[o]);
        }
    }
    free(want);
    free(got);
    free(x);
}

static const size_t sizes[][3] = {
    /* block, dim_head, hidden */
    {3, 17, 102}, {1, 1, 1},   {1, 1, 3},  {7, 5, 1},
    {7, 5, 33},   {2, 8, 130}, {16, 3, 3}, {5, 65, 521}};
#define SIZE_COUNT (sizeof sizes / sizeof *sizes)

/* All activations, precisions, weight and input dtypes, in turn over the sizes. */
static void test_matches_reference(void **state)
{
    uint64_t random = 1;

    (void)state;
    for (size_t kernel = 0; use_kernel(kernel); kernel++) {
        for (size_t run = 0; run < 32 * SIZE_COUNT; run++) {
            const size_t *size = sizes[run / 32];
            nsa_mlp mlp = {.in = size[0] * size[1],
                           .out = size[1],
                           .hidden = size[2],
                           .activation = (nsa_activation)(run % 4),
                           .precision = (nsa_precision)(run / 4 % 2)};
            nsa_dtype weight_dtype = mlp.precision == NSA_PRECISION_BF16
                                         ? NSA_BF16 /* else the reference must round them */
                                         : (nsa_dtype)((run + run / 8) % 4);
            nsa_model *model = load_mlp(&mlp, weight_dtype, &random);
            nsa_request request = {0};

            request.input = random_tensor((nsa_dtype)(run / 8 % 4),
                                          &(nsa_shape){2, {1 + run % 37, mlp.in}}, &random);
            plan_outputs(&request, model);
            assert_int_equal(request.input.dtype, request.outputs[0].dtype);
            run_whole(model, &request);
            check_rows(&request, &mlp);
            free_outputs(&request);
            free_tensor(&request.input);
            nsa_model_unref(model);
            free_mlp(&mlp);
        }
    }
}

/* The activation is the one that the model asks for: values of 2, to 1e-6. */
static void test_activation_option(void **state)
{
    static const double values[NSA_ACTIVATION_COUNT] = {
        [NSA_GELU] = 1.95449973610364,
        [NSA_GELU_TANH] = 1.95459769408778,
        [NSA_SILU] = 1.76159415595576,
        [NSA_RELU] = 2,
    };

    (void)state;
    for (size_t a = 0; a < NSA_ACTIVATION_COUNT; a++) {
        nsa_model *model = load_tiny((nsa_activation)a);

        assert_int_equal(a, nsa_model_describe(model)->activation);
        assert_true(fabs((double)run_tiny(model, 1.0f) + 1 - values[a]) < 1e-6);
        nsa_model_unref(model);
    }
}

/* `count` floats of 1 to 2 in steps of 2^-9, two bits more than bfloat16 holds. */
static float *fill_steps(size_t count, bool any_sign, uint64_t *random)
{
    float *values = malloc(count * sizeof *values);

    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        values[i] = 1.0f + (float)random_below(random, 512) / 512;
        if (any_sign && random_u64(random) & 1)
            values[i] = -values[i];
    }
    return values;
}

static void round_bf16(const float *values, size_t count)
{
    nsa_kernels_portable.round_bf16((float *)(uintptr_t)values, count);
}

/*
 * bfloat16 rounds the input, both weights and the hidden values, and nothing else. Rounded, the
 * first two lie in [1, 2] in steps of 2^-7: 35 of their products and a bias of 120 sum to 155 ...
 * 260 in steps of 2^-14. Rounded, that is a whole number, and 33 products with the second weights
 * stay below 2^15 in steps of 2^-7. So all sums are exact, and the result is the reference's.
 */
static void test_bf16_rounds_where_it_should(void **state)
{
    enum { IN = 35, HIDDEN = 33, OUT = 5 };
    static const float b2[OUT] = {0.0078125f, 1, 2, -3, 0};
    uint64_t random = 2;
    float b1[HIDDEN];
    nsa_mlp mlp = {fill_steps(HIDDEN * IN, false, &random),
                   b1,
                   fill_steps(OUT * HIDDEN, true, &random),
                   b2,
                   IN,
                   HIDDEN,
                   OUT,
                   NSA_RELU,
                   NSA_PRECISION_BF16};
    const struct weight weights[] = {
        {"mlp.1.weight", NSA_F32, {2, {HIDDEN, IN}}, mlp.w1},
        {"mlp.1.bias", NSA_F32, {1, {HIDDEN}}, b1},
        {"mlp.3.weight", NSA_F32, {2, {OUT, HIDDEN}}, mlp.w2},
        {"mlp.3.bias", NSA_F32, {1, {OUT}}, b2},
    };
    float *x = fill_steps(IN, false, &random);
    nsa_request request = {.input = {x, NSA_F32, {1, {IN}}}};
    double want[2 * OUT];
    const char *path;
    nsa_model *model;

    (void)state;
    for (size_t i = 0; i < HIDDEN; i++)
        b1[i] = 120.001953125f; /* 120 + 2^-9: biases are not rounded */
    path = write_safetensors("bf16.safetensors", weights, 4);
    round_bf16(mlp.w1, HIDDEN * IN);
    round_bf16(mlp.w2, OUT * HIDDEN);
    nsa_compress_row_ref(want, want + OUT, x, &mlp);
    model = load_model(
        path, &(nsa_model_options){.activation = NSA_RELU, .precision = NSA_PRECISION_BF16});
    plan_outputs(&request, model);
    run_whole(model, &request);
    for (size_t o = 0; o < OUT; o++)
        assert_true(want[o] == (double)((const float *)request.outputs[0].data)[o]);
    unlink(path);
    free_outputs(&request);
    nsa_model_unref(model);
    free_mlp(&(nsa_mlp){.w1 = mlp.w1, .w2 = mlp.w2});
    free(x);
}

static void test_special_values(void **state)
{
    (void)state;
    for (size_t kernel = 0; use_kernel(kernel); kernel++) {
        nsa_model *gelu = load_tiny(NSA_GELU);
        nsa_model *relu = load_tiny(NSA_RELU);

        assert_true(run_tiny(gelu, INFINITY) == INFINITY);
        assert_true(isnan(run_tiny(gelu, -INFINITY)));
        assert_true(isnan(run_tiny(gelu, NAN)));
        assert_true(run_tiny(relu, INFINITY) == INFINITY);
        assert_true(run_tiny(relu, -INFINITY) == -1.0f);
        assert_true(isnan(run_tiny(relu, -NAN)));
        assert_true(run_tiny(relu, 3e38f) == INFINITY);
        nsa_model_unref(gelu);
        nsa_model_unref(relu);
    }
}

/* A NaN or an infinity does to its row what it does in double precision, and nothing to others. */
static void test_special_values_stay_in_their_row(void **state)
{
    enum { ROWS = 41 };
    static const float special[] = {NAN, INFINITY, -INFINITY};
    uint64_t random = 3;
    nsa_mlp mlp = {.in = 51, .out = 17, .hidden = 33};
    nsa_model *model = load_mlp(&mlp, NSA_F32, &random);
    nsa_request clean = {0};
    nsa_request request;

    (void)state;
    clean.input = random_tensor(NSA_F32, &(nsa_shape){3, {ROWS, 3, 17}}, &random);
    plan_outputs(&clean, model);
    run_whole(model, &clean);
    request = clean;
    plan_outputs(&request, model);
    for (size_t row = 1; row < ROWS; row += 3)
        ((float *)request.input.data)[row * mlp.in + row % mlp.in] = special[row / 3 % 3];
    run_whole(model, &request);
    for (size_t row = 0; row < ROWS; row++) {
        const float *got = (const float *)request.outputs[0].data + row * mlp.out;
        double want[34];

        nsa_compress_row_ref(want, want + 17, (float *)request.input.data + row * mlp.in, &mlp);
        for (size_t o = 0; o < mlp.out; o++) {
            assert_int_equal(!isnan(want[o]), !isnan(got[o]));
            assert_true(!isinf(want[o]) || want[o] == (double)got[o]);
        }
        assert_int_equal(row % 3 == 1, !isfinite(got[0]));
        if (row % 3 != 1)
            assert_memory_equal((float *)clean.outputs[0].data + row * mlp.out, got,
                                mlp.out * sizeof *got);
    }
    free_outputs(&request);
    free_outputs(&clean);
    free_tensor(&clean.input);
    nsa_model_unref(model);
    free_mlp(&mlp);
}

static void test_shapes(void **state)
{
    static const struct {
        nsa_shape input, output;
        size_t rows;
    } cases[] = {
        {{1, {51}}, {1, {17}}, 1},
        {{2, {3, 17}}, {1, {17}}, 1},
        {{2, {4, 51}}, {2, {4, 17}}, 4},
        {{3, {4, 3, 17}}, {2, {4, 17}}, 4},
        {{5, {2, 1, 3, 3, 17}}, {4, {2, 1, 3, 17}}, 6},
        {{3, {2, 0, 51}}, {3, {2, 0, 17}}, 0},
        {{3, {0, 3, 17}}, {2, {0, 17}}, 0},
        {{2, {3, 51}}, {2, {3, 17}}, 3},
        {{32, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
               1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 17}},
         {31, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
               1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 17}},
         2},
    };
    uint64_t random = 4;
    nsa_mlp mlp = {.in = 51, .out = 17, .hidden = 3};
    nsa_model *model = load_mlp(&mlp, NSA_F16, &random);

    (void)state;
    assert_true(nsa_run_row_unit(model) >= 1);
    assert_int_equal(0, nsa_run_scratch_bytes(model) % NSA_SCRATCH_ALIGN);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nsa_request request = {.input = random_tensor(NSA_F32, &cases[i].input, &random)};

        plan_outputs(&request, model);
        assert_int_equal(1, request.output_count);
        assert_int_equal(cases[i].rows, request.rows);
        assert_true(nsa_shape_equal(&cases[i].output, &request.outputs[0].shape));
        assert_int_equal(cases[i].rows == 0, nsa_request_is_cheap(&request, model));
        if (cases[i].rows == 0)
            nsa_run(model, &(nsa_span){&request, 0, 0}, 1, NULL);
        else
            run_whole(model, &request);
        check_rows(&request, &mlp);
        free_outputs(&request);
        free_tensor(&request.input);
    }
    nsa_model_unref(model);
    free_mlp(&mlp);
}

static void test_refusals(void **state)
{
    static const struct {
        nsa_shape shape;
        nsa_dtype dtype;
        nsa_status status;
        const char *message;
    } cases[] = {
        {{0, {0}}, NSA_F32, NSA_EINVAL, "x: expected shape [..., 3, 17] or [..., 51], got []"},
        {{2, {3, 16}}, NSA_F32, NSA_EINVAL, "got [3, 16]"},
        {{2, {17, 3}}, NSA_F32, NSA_EINVAL, "got [17, 3]"},
        {{3, {3, 17, 1}}, NSA_F32, NSA_EINVAL, "got [3, 17, 1]"},
        {{1, {17}}, NSA_F32, NSA_EINVAL, "got [17]"},
        {{2, {4, 0}}, NSA_F32, NSA_EINVAL, "got [4, 0]"},
        {{1, {51}}, NSA_I64, NSA_EUNSUPPORTED, "x: expected float32, float16, bfloat16 or "},
        {{2, {SIZE_MAX / 2, 51}}, NSA_F32, NSA_ELIMIT, "[9223372036854775807, 51]"},
        {{2, {1048577, 0}}, NSA_F32, NSA_EINVAL, "got [1048577, 0]"},
        {{3, {SIZE_MAX, 0, 51}}, NSA_F32, NSA_ELIMIT, "elements, got more"},
    };
    uint64_t random = 6;
    nsa_mlp mlp = {.in = 51, .out = 17, .hidden = 2};
    nsa_model *model = load_mlp(&mlp, NSA_BF16, &random);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nsa_request request = {.input = {NULL, cases[i].dtype, cases[i].shape}};
        nsa_error err;

        assert_status(cases[i].status, nsa_request_plan(&request, model, &err));
        assert_message(err, cases[i].message);
    }
    nsa_model_unref(model);
    free_mlp(&mlp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_reference),
        cmocka_unit_test(test_activation_option),
        cmocka_unit_test(test_bf16_rounds_where_it_should),
        cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_special_values_stay_in_their_row),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
