/* posembed: one addition an element, so there is one right answer to every request. */
#include "tests/unit/support.h"

#include <math.h>
#include <nsa/cpu.h>
#include <nsa/model.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_LEN 29 /* sequences longer than the chunks that are converted at a time */
#define DIM 37

struct fixture {
    nsa_tensor table; /* (MAX_LEN, DIM) */
    nsa_model *model;
    uint64_t random;
};

static void open_fixture(struct fixture *fixture, nsa_dtype dtype)
{
    struct weight weight = {"embedding.weight", dtype, {2, {MAX_LEN, DIM}}, NULL};
    nsa_tensor narrow;
    const char *path;

    fixture->random = 1;
    narrow = random_tensor(dtype, &weight.shape, &fixture->random);
    fixture->table = random_tensor(NSA_F32, &weight.shape, &fixture->random);
    nsa_to_f32(fixture->table.data, narrow.data, dtype, MAX_LEN * DIM);
    weight.values = fixture->table.data;
    path = write_safetensors("embedding.safetensors", &weight, 1);
    fixture->model = load_model(path, NULL);
    unlink(path);
    free_tensor(&narrow);
}

static void close_fixture(struct fixture *fixture)
{
    nsa_model_unref(fixture->model);
    free_tensor(&fixture->table);
}

/* What the request's element `i` should become, as an element of its dtype. */
static void expected_element(unsigned char *out, const struct fixture *fixture,
                             const nsa_request *request, size_t i)
{
    const nsa_shape *shape = &request->input.shape;
    nsa_dtype dtype = request->input.dtype;
    size_t position = i / DIM % shape->dims[shape->rank - 2] + (size_t)request->params[0];
    const float *table = fixture->table.data;
    float x;
    float sum;

    nsa_to_f32(&x, (char *)request->input.data + i * nsa_dtype_size(dtype), dtype, 1);
    nsa_posembed_row_ref(&sum, &x, &table[position * DIM + i % DIM], 1);
    nsa_from_f32(out, dtype, &sum, 1);
}

static void check_output(const struct fixture *fixture, const nsa_request *request)
{
    size_t size = nsa_dtype_size(request->input.dtype);

    for (size_t i = 0; i < request->rows * DIM; i++) {
        unsigned char want[8];

        expected_element(want, fixture, request, i);
        assert_memory_equal(want, (char *)request->outputs[0].data + i * size, size);
    }
}

/* Every dtype of weights and input, with every kernel table, from every place that L fits in. */
static void test_offsets_and_dtypes(void **state)
{
    (void)state;
    for (size_t kernel = 0; nsa_cpu_supported(kernel); kernel++) {
        assert_status(NSA_OK, nsa_cpu_use(nsa_cpu_supported(kernel), NULL));
        for (size_t run = 0; run < 16; run++) {
            struct fixture fixture;

            open_fixture(&fixture, (nsa_dtype)(run / 4));
            for (size_t length = 0; length <= MAX_LEN; length++) {
                nsa_request request = {.params = {(int64_t)(MAX_LEN - length)}};

                request.input = random_tensor((nsa_dtype)(run % 4),
                                              &(nsa_shape){3, {2, length, DIM}}, &fixture.random);
                plan_outputs(&request, fixture.model);
                assert_int_equal(2 * length, request.rows);
                assert_int_equal(request.input.dtype, request.outputs[0].dtype);
                assert_true(nsa_shape_equal(&request.input.shape, &request.outputs[0].shape));
                run_whole(fixture.model, &request);
                check_output(&fixture, &request);
                free_outputs(&request);
                free_tensor(&request.input);
            }
            close_fixture(&fixture);
        }
    }
}

/* The reference itself: PyTorch's float32 sum. */
static void test_reference(void **state)
{
    static const float x[] = {1.0f, 0x1p24f, INFINITY, INFINITY, -0.0f, 3e38f};
    static const float e[] = {0.5f, 1.0f, 1.0f, -INFINITY, -0.0f, 3e38f};
    float y[6];

    (void)state;
    nsa_posembed_row_ref(y, x, e, 6);
    assert_true(y[0] == 1.5f);
    assert_true(y[1] == 0x1p24f);
    assert_true(y[2] == INFINITY);
    assert_true(isnan(y[3]));
    assert_true(y[4] == 0.0f && signbit(y[4]));
    assert_true(y[5] == INFINITY);
}

/* Spans that begin and end anywhere in several sequences, from an address that fits no element. */
static void test_spans_across_sequences(void **state)
{
    enum { SEQUENCES = 3, LENGTH = 5, ROWS = SEQUENCES * LENGTH };

    (void)state;
    for (size_t run = 0; run < 4 * ROWS; run++) {
        nsa_dtype dtype = (nsa_dtype)(run % 4);
        size_t row_bytes = DIM * nsa_dtype_size(dtype);
        size_t begin = run / 4;
        struct fixture fixture;
        unsigned char *memory = malloc(ROWS * row_bytes + 1);
        nsa_request request = {.params = {3}};
        nsa_tensor aligned;
        nsa_span spans[2];

        assert_non_null(memory);
        open_fixture(&fixture, NSA_F32);
        aligned = random_tensor(dtype, &(nsa_shape){3, {SEQUENCES, LENGTH, DIM}}, &fixture.random);
        request.input = aligned;
        request.input.data = memory + 1;
        memcpy(memory + 1, aligned.data, ROWS * row_bytes);
        plan_outputs(&request, fixture.model);
        spans[0] = (nsa_span){&request, begin, ROWS - begin};
        spans[1] = (nsa_span){&request, 0, begin};
        nsa_run(fixture.model, spans, 1, NULL);
        for (size_t i = 0; i < begin * row_bytes; i++)
            assert_int_equal(0xA5, ((unsigned char *)request.outputs[0].data)[i]);
        nsa_run(fixture.model, spans + 1, 1, NULL);
        check_output(&fixture, &request);
        free_outputs(&request);
        free_tensor(&aligned);
        free(memory);
        close_fixture(&fixture);
    }
}

static void test_ranks(void **state)
{
    struct fixture fixture;

    (void)state;
    open_fixture(&fixture, NSA_F32);
    for (size_t rank = 2; rank <= NSA_MAX_RANK; rank += rank == 4 ? 28 : 1) {
        nsa_request request = {0};
        nsa_shape shape = {rank, {2}};

        for (size_t i = 1; i < rank; i++)
            shape.dims[i] = 1;
        shape.dims[rank - 2] = 4;
        shape.dims[rank - 1] = DIM;
        request.input = random_tensor(NSA_F32, &shape, &fixture.random);
        plan_outputs(&request, fixture.model);
        assert_true(nsa_shape_equal(&shape, &request.outputs[0].shape));
        run_whole(fixture.model, &request);
        check_output(&fixture, &request);
        free_outputs(&request);
        free_tensor(&request.input);
    }
    close_fixture(&fixture);
}

/* NaN and infinity come through, by way of the chunks that unaligned input goes through too. */
static void test_special_values(void **state)
{
    struct fixture fixture;
    nsa_request request = {0};
    float *x;
    const float *y;

    (void)state;
    open_fixture(&fixture, NSA_F32);
    request.input = random_tensor(NSA_F32, &(nsa_shape){2, {MAX_LEN, DIM}}, &fixture.random);
    x = request.input.data;
    for (size_t i = 0; i < MAX_LEN * DIM; i += 3)
        x[i] = i % 2 ? NAN : -INFINITY;
    plan_outputs(&request, fixture.model);
    run_whole(fixture.model, &request);
    y = request.outputs[0].data;
    for (size_t i = 0; i < MAX_LEN * DIM; i++) {
        assert_int_equal(i % 3 == 0 && i % 2 == 1, isnan(y[i]) != 0);
        assert_int_equal(i % 3 == 0 && i % 2 == 0, y[i] == -INFINITY);
    }
    free_outputs(&request);
    free_tensor(&request.input);
    close_fixture(&fixture);
}

static void test_refusals(void **state)
{
    static const struct {
        nsa_shape shape;
        int64_t offset;
        nsa_dtype dtype;
        nsa_status status;
        const char *message;
    } cases[] = {
        {{0, {0}}, 0, NSA_F32, NSA_EINVAL, "x: expected shape [..., L, 37], got []"},
        {{1, {37}}, 0, NSA_F32, NSA_EINVAL, "got [37]"},
        {{2, {37, 1}}, 0, NSA_F32, NSA_EINVAL, "expected shape [..., L, 37], got [37, 1]"},
        {{2, {4, 36}}, 0, NSA_F32, NSA_EINVAL, "got [4, 36]"},
        {{2, {30, 37}}, 0, NSA_F32, NSA_EINVAL, "at most max_len 29, got 0 + 30"},
        {{2, {4, 37}},
         26,
         NSA_F32,
         NSA_EINVAL,
         "offset: expected offset + L to be at most max_len 29, got 26 + 4"},
        {{3, {1, 0, 37}}, 30, NSA_F32, NSA_EINVAL, "max_len 29, got 30 + 0"},
        {{2, {1, 37}}, INT64_MAX, NSA_F32, NSA_EINVAL, "got 9223372036854775807 + 1"},
        {{2, {1, 37}}, -1, NSA_F32, NSA_EINVAL, "offset: expected at least 0, got -1"},
        {{2, {1, 37}}, INT64_MIN, NSA_F32, NSA_EINVAL, "got -9223372036854775808"},
        {{2, {1, 37}}, 0, NSA_I64, NSA_EUNSUPPORTED, "x: expected float32, float16, bfloat16"},
        {{3, {SIZE_MAX, 1, 37}}, 0, NSA_F32, NSA_ELIMIT, "[18446744073709551615, 1, 37]"},
        {{3, {SIZE_MAX, 0, 37}}, 0, NSA_F32, NSA_ELIMIT, "elements, got more"},
    };
    struct fixture fixture;

    (void)state;
    open_fixture(&fixture, NSA_F16);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nsa_request request = {.params = {cases[i].offset},
                               .input = {NULL, cases[i].dtype, cases[i].shape}};
        nsa_error err;

        assert_status(cases[i].status, nsa_request_plan(&request, fixture.model, &err));
        assert_message(err, cases[i].message);
    }
    close_fixture(&fixture);
}

/* The last position is in reach; nothing to add needs no data; small requests are cheap. */
static void test_edges(void **state)
{
    struct fixture fixture;
    nsa_request request = {.params = {MAX_LEN}, .input = {NULL, NSA_F32, {3, {5, 0, DIM}}}};

    (void)state;
    open_fixture(&fixture, NSA_F64);
    assert_status(NSA_OK, nsa_request_plan(&request, fixture.model, NULL));
    assert_int_equal(0, request.rows);
    nsa_run(fixture.model, &(nsa_span){&request, 0, 0}, 1, NULL);
    assert_true(nsa_request_is_cheap(&request, fixture.model));
    assert_int_equal(0, nsa_run_scratch_bytes(fixture.model));
    assert_int_equal(1, nsa_run_row_unit(fixture.model));
    request.params[0] = 0;
    request.input.shape = (nsa_shape){3, {1000, MAX_LEN, DIM}};
    assert_status(NSA_OK, nsa_request_plan(&request, fixture.model, NULL));
    assert_int_equal(1000 * MAX_LEN, request.rows);
    assert_false(nsa_request_is_cheap(&request, fixture.model));
    close_fixture(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_offsets_and_dtypes),
        cmocka_unit_test(test_spans_across_sequences),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_edges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
