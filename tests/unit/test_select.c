/* select against a full stable sort, on rows of every kind, by every kernel that runs here. */
#include "tests/unit/scored_rows.h"

static size_t choose_k(size_t n, uint64_t *random)
{
    const size_t classes[] = {0, n > 0, n, n > 0 ? n - 1 : 0, n / 2, random_below(random, n + 1)};

    return classes[random_below(random, 6)];
}

static void test_random_rows(void **state)
{
    uint64_t random = 1;

    (void)state;
    for (size_t run = 0; run < 2400; run++) {
        size_t n = run % 3 == 0 ? random_below(&random, 9) : random_below(&random, 600);
        size_t k = choose_k(n, &random);

        check_select((nsa_dtype)(run % 4), 1 + random_below(&random, 19), n, k,
                     random_below(&random, ROW_KINDS), &random);
    }
}

/* The reference kernel, which models are checked with, against the same sort. */
static void test_reference(void **state)
{
    uint64_t random = 5;

    (void)state;
    for (size_t run = 0; run < 400; run++) {
        size_t n = random_below(&random, 70);
        size_t k = random_below(&random, n + 1);
        float row[70];
        int64_t indices[70];
        struct scored *sorted;

        fill_row((unsigned char *)row, NSA_F32, n, run % ROW_KINDS, &random);
        sorted = sort_row(row, NSA_F32, n);
        nsa_select_row_ref(indices, row, n, k);
        for (size_t rank = 0; rank < k; rank++)
            assert_int_equal(sorted[rank].index, indices[rank]);
        free(sorted);
    }
}

/* Each row by a span of its own, in any order; what no span names stays as it was. */
static void test_spans(void **state)
{
    enum { ROWS = 23, N = 41, K = 7 };
    uint64_t random = 6;
    nsa_request request = {.params = {K, 1}};
    nsa_span spans[ROWS];

    (void)state;
    request.input = random_tensor(NSA_BF16, &(nsa_shape){3, {1, ROWS, N}}, &random);
    plan_outputs(&request, model);
    for (size_t row = 0; row < ROWS; row++)
        spans[row] = (nsa_span){&request, (row * 7) % ROWS, 1};
    nsa_run(model, spans, ROWS - 1, NULL);
    for (size_t i = 0; i < K; i++)
        assert_int_equal(0xA5A5A5A5A5A5A5A5,
                         ((uint64_t *)request.outputs[0].data)[spans[ROWS - 1].row_begin * K + i]);
    nsa_run(model, &spans[ROWS - 1], 1, NULL);
    check_rows(&request);
    memset(request.outputs[0].data, 0, output_bytes(&request, 0));
    spans[0] = (nsa_span){&request, 0, 9};
    spans[1] = (nsa_span){&request, 4, 0};
    spans[2] = (nsa_span){&request, 9, ROWS - 9};
    nsa_run(model, spans, 3, NULL);
    check_rows(&request);
    free_outputs(&request);
    free_tensor(&request.input);
}

/* Leading dimensions are flattened, the rank stays; an empty one gives an empty output. */
static void test_shapes(void **state)
{
    static const nsa_shape shapes[] = {
        {1, {6}},
        {2, {5, 6}},
        {3, {2, 0, 6}},
        {2, {0, 6}},
        {5, {1, 2, 1, 3, 6}},
        {3, {1000, 0, 6}},
        {32, {[0] = 2, [31] = 6}},
    };
    static const size_t rows[] = {1, 5, 0, 0, 6, 0, 2};
    uint64_t random = 7;

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        nsa_shape shape = shapes[i];
        nsa_request request = {.params = {4, 1}};

        for (size_t axis = 1; shape.rank == NSA_MAX_RANK && axis + 1 < shape.rank; axis++)
            shape.dims[axis] = 1;
        request.input = random_tensor(NSA_F16, &shape, &random);
        plan_outputs(&request, model);
        assert_int_equal(rows[i], request.rows);
        assert_int_equal(2, request.output_count);
        assert_int_equal(NSA_I64, request.outputs[0].dtype);
        assert_int_equal(NSA_F16, request.outputs[1].dtype);
        shape.dims[shape.rank - 1] = 4;
        assert_true(nsa_shape_equal(&shape, &request.outputs[0].shape));
        assert_true(nsa_shape_equal(&shape, &request.outputs[1].shape));
        run_whole(model, &request);
        check_rows(&request);
        free_outputs(&request);
        free_tensor(&request.input);
    }
}

/* Rows without blocks, and nothing selected: there is nothing to compute, however many rows. */
static void test_nothing_to_do(void **state)
{
    nsa_request request = {.input = {NULL, NSA_F32, {2, {3, 0}}}};

    (void)state;
    assert_status(NSA_OK, nsa_request_plan(&request, model, NULL));
    assert_int_equal(0, request.rows);
    assert_int_equal(1, request.output_count);
    assert_int_equal(3, request.outputs[0].shape.dims[0]);
    request.input.shape.dims[1] = 8;
    assert_status(NSA_OK, nsa_request_plan(&request, model, NULL));
    assert_int_equal(0, request.rows);
}

static void test_refusals(void **state)
{
    static const struct {
        nsa_shape shape;
        int64_t k;
        nsa_dtype dtype;
        nsa_status status;
        const char *message;
    } cases[] = {
        {{0, {0}}, 0, NSA_F32, NSA_EINVAL, "scores: expected shape [..., num_blocks], got []"},
        {{2, {2, 7}},
         8,
         NSA_F32,
         NSA_EINVAL,
         "num_selected_blocks: expected 0 to 7 (the blocks of a row), got 8"},
        {{1, {7}}, -1, NSA_F32, NSA_EINVAL, "expected 0 to 7 (the blocks of a row), got -1"},
        {{1, {7}}, INT64_MIN, NSA_F32, NSA_EINVAL, "got -9223372036854775808"},
        {{1, {7}}, INT64_MAX, NSA_F32, NSA_EINVAL, "got 9223372036854775807"},
        {{1, {0}}, 1, NSA_F32, NSA_EINVAL, "expected 0 to 0"},
        {{1, {7}},
         1,
         NSA_I64,
         NSA_EUNSUPPORTED,
         "scores: expected float32, float16, bfloat16 or float64, got int64"},
        {{2, {1, 4294967296}},
         1,
         NSA_F32,
         NSA_ELIMIT,
         "scores: expected at most 4294967295 blocks a row, got 4294967296"},
        {{2, {SIZE_MAX, 7}}, 1, NSA_F32, NSA_ELIMIT, "[18446744073709551615, 7]"},
        {{2, {1073741824, 4294967295}}, 4294967295, NSA_F16, NSA_ELIMIT, "bytes, got more"},
        {{3, {SIZE_MAX, 2, 0}}, 0, NSA_F32, NSA_ELIMIT, "elements, got more"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nsa_request request = {.params = {cases[i].k, 1},
                               .input = {NULL, cases[i].dtype, cases[i].shape}};
        nsa_error err;

        assert_status(cases[i].status, nsa_request_plan(&request, model, &err));
        assert_message(err, cases[i].message);
        assert_status(cases[i].status, nsa_request_plan(&request, model, NULL));
    }
}

static void test_cheap(void **state)
{
    nsa_request request = {.params = {1}, .input = {NULL, NSA_F32, {2, {16, 32}}}};

    (void)state;
    assert_true(nsa_request_is_cheap(&request, model));
    request.input.shape.dims[0] = 16384;
    assert_false(nsa_request_is_cheap(&request, model));
    assert_int_equal(0, nsa_run_scratch_bytes(model));
    assert_int_equal(1, nsa_run_row_unit(model));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_rows),   cmocka_unit_test(test_reference),
        cmocka_unit_test(test_spans),         cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_nothing_to_do), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_cheap),
    };
    int failed;

    if (nsa_model_create(&model, NSA_SELECT, NULL) != NSA_OK)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    nsa_model_unref(model);
    return failed;
}
