/* select against a full stable sort, on rows of every kind, by every kernel that runs here. */
#include "tests/unit/support.h"

#include <inttypes.h>
#include <math.h>
#include <nsa/cpu.h>
#include <nsa/model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static nsa_model *model;

/* --- rows ---------------------------------------------------------------------------------- */

enum { ROW_FLOATS, ROW_TIES, ROW_SPECIAL, ROW_ANY_BITS, ROW_UP, ROW_DOWN, ROW_EQUAL, ROW_NAN };
enum { ROW_SAW = ROW_NAN + 1, ROW_COMB, ROW_KINDS };

/* Score `i` of `n` in a row of `kind`, before it is made a `dtype`. */
static float score(size_t i, size_t n, size_t kind, uint64_t *random)
{
    static const float special[] = {NAN, -NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1.0f};

    switch (kind) {
    case ROW_TIES:
        return (float)random_below(random, 5) - 2.0f;
    case ROW_SPECIAL:
        return special[random_below(random, sizeof special / sizeof *special)];
    case ROW_UP:
        return (float)i / 16;
    case ROW_DOWN:
        return (float)(n - i) / 16;
    case ROW_EQUAL:
        return -3.0f;
    case ROW_NAN:
        return random_u64(random) & 1 ? NAN : -NAN;
    case ROW_SAW:
        return (float)(i % 64);
    case ROW_COMB: /* the greatest scores in a few places of a period of 48 */
        return random_float(random) + (i % 48 < 17 ? 2.0f : 0.0f);
    default:
        return random_float(random);
    }
}

/* Fill `row` (n) of `dtype`; NaN gets many payloads. */
static void fill_row(unsigned char *row, nsa_dtype dtype, size_t n, size_t kind, uint64_t *random)
{
    static const uint32_t least_nan = 0x7F800001;
    size_t size = nsa_dtype_size(dtype);

    for (size_t i = 0; i < n; i++) {
        float value = score(i, n, kind, random);
        uint64_t bits = random_u64(random);

        nsa_from_f32(row + i * size, dtype, &value, 1);
        if (kind == ROW_ANY_BITS)
            memcpy(row + i * size, &bits, size);
        if (isnan(value))
            row[i * size] = (unsigned char)bits;
        if (isnan(value) && dtype == NSA_F32 && bits >> 62 == 0)
            memcpy(row + i * size, &least_nan, sizeof least_nan);
    }
}

/* --- the expected order -------------------------------------------------------------------- */

struct scored {
    float score;
    int64_t index;
};

static int compare_scored(const void *left, const void *right)
{
    const struct scored *a = left;
    const struct scored *b = right;

    if (!isnan(a->score) != !isnan(b->score))
        return isnan(a->score) ? -1 : 1;
    if (!isnan(a->score) && a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

/* The whole row (n) sorted, caller frees. float64 is compared as float32. */
static struct scored *sort_row(const void *row, nsa_dtype dtype, size_t n)
{
    struct scored *sorted = malloc((n + 1) * sizeof *sorted);

    assert_non_null(sorted);
    for (size_t i = 0; i < n; i++) {
        nsa_to_f32(&sorted[i].score, (const char *)row + i * nsa_dtype_size(dtype), dtype, 1);
        sorted[i].index = (int64_t)i;
    }
    qsort(sorted, n, sizeof *sorted, compare_scored);
    return sorted;
}

/* Compare all rows of a computed request with sorted ones. */
static void check_rows(const nsa_request *request)
{
    const nsa_tensor *input = &request->input;
    size_t n = input->shape.dims[input->shape.rank - 1];
    size_t k = (size_t)request->params[0];
    size_t size = nsa_dtype_size(input->dtype);

    for (size_t row = 0; row < request->rows; row++) {
        const char *scores = (const char *)input->data + row * n * size;
        const int64_t *indices = (const int64_t *)request->outputs[0].data + row * k;
        const char *values = (const char *)request->outputs[1].data + row * k * size;
        struct scored *sorted = sort_row(scores, input->dtype, n);

        for (size_t rank = 0; rank < k; rank++) {
            if (indices[rank] != sorted[rank].index)
                fail_msg("%s, n %zu, k %zu: rank %zu is %" PRId64 ", expected %" PRId64,
                         nsa_dtype_name(input->dtype), n, k, rank, indices[rank],
                         sorted[rank].index);
            assert_memory_equal(scores + (size_t)indices[rank] * size, values + rank * size, size);
        }
        free(sorted);
    }
}

/* Select k of each of `rows` rows of n, from an unaligned address, by each kernel, and check. */
static void check_select(nsa_dtype dtype, size_t rows, size_t n, size_t k, size_t kind,
                         uint64_t *random)
{
    size_t row_bytes = n * nsa_dtype_size(dtype);
    unsigned char *memory = malloc(rows * row_bytes + 1);
    nsa_request request = {.params = {(int64_t)k, 1}, .input = {memory + 1, dtype, {2, {rows, n}}}};
    nsa_request other = request;

    assert_non_null(memory);
    for (size_t row = 0; row < rows; row++)
        fill_row(memory + 1 + row * row_bytes, dtype, n, kind, random);
    assert_status(NSA_OK, nsa_cpu_use("portable", NULL));
    plan_outputs(&request, model);
    run_whole(model, &request);
    check_rows(&request);
    for (size_t table = 1; nsa_cpu_supported(table); table++) {
        assert_status(NSA_OK, nsa_cpu_use(nsa_cpu_supported(table), NULL));
        plan_outputs(&other, model);
        run_whole(model, &other);
        for (size_t i = 0; i < 2; i++) {
            if (memcmp(request.outputs[i].data, other.outputs[i].data,
                       output_bytes(&request, i) + 1) != 0)
                fail_msg("%s: %s (%zu, %zu), k %zu, kind %zu: not as portable", nsa_cpu_kernel(),
                         nsa_dtype_name(dtype), rows, n, k, kind);
        }
        free_outputs(&other);
    }
    free_outputs(&request);
    free(memory);
}

/* --- tests --------------------------------------------------------------------------------- */

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

static void test_every_k(void **state)
{
    uint64_t random = 2;

    (void)state;
    for (size_t n = 0; n <= 67; n++) {
        for (size_t k = 0; k <= n; k++)
            check_select((nsa_dtype)(k % 4), 1 + (n + k) % 9, n, k,
                         random_below(&random, ROW_KINDS), &random);
    }
}

/* A vector's worth of rows, one more or less, and none, for the networks of 8 and of 16. */
static void test_every_row_count(void **state)
{
    static const size_t sizes[][2] = {{5, 3}, {32, 8}, {64, 16}, {70, 9}, {300, 7}, {1030, 16}};
    uint64_t random = 8;

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t rows = 1; rows <= 18; rows++) {
            for (size_t dtype = 0; dtype < 4; dtype++)
                check_select((nsa_dtype)dtype, rows, sizes[i][0], sizes[i][1],
                             random_below(&random, ROW_KINDS), &random);
        }
    }
}

/* Where one way of selecting ends and another begins: in k, in n, in what is kept of a row. */
static void test_class_edges(void **state)
{
    static const size_t lengths[] = {7,   8,   9,   15,  16,  17,  63,   64,   65,   127,  128, 129,
                                     130, 255, 256, 511, 512, 513, 1023, 1024, 1025, 4096, 4097};
    static const size_t counts[] = {1,  7,  8,  9,   15,   16,   17,   31,   32,
                                    63, 64, 65, 128, 1023, 2047, 2048, 2049, 4096};
    uint64_t random = 9;

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (size_t j = 0; j < sizeof counts / sizeof *counts && counts[j] <= lengths[i]; j++) {
            for (size_t kind = 0; kind < ROW_KINDS; kind++) {
                check_select((nsa_dtype)((i + j) % 4), 1, lengths[i], counts[j], kind, &random);
                if (lengths[i] < 1100)
                    check_select(NSA_F32, 5, lengths[i], counts[j], kind, &random);
            }
        }
    }
}

/* Across the chunks of 64 or 256 that rows are widened in. */
static void test_chunk_edges(void **state)
{
    static const size_t edges[] = {127, 128, 129, 255, 256, 257, 511, 512, 513};
    uint64_t random = 3;

    (void)state;
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        for (size_t j = 0; j <= i; j++) {
            if (edges[j] <= edges[i])
                check_select(NSA_F32, 1, edges[i], edges[j], (i + j) % ROW_KINDS, &random);
        }
    }
}

static void test_long_rows(void **state)
{
    static const size_t sizes[][2] = {
        {131072, 64},  {131072, 131072}, {99991, 50000}, {65537, 1},   {65536, 65535},
        {65536, 2048}, {65535, 2049},    {100000, 20},   {1 << 20, 9}, {(1 << 20) + 1, 9}};
    uint64_t random = 4;

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_select((nsa_dtype)(i % 4), 1, sizes[i][0], sizes[i][1], i % ROW_KINDS, &random);
        check_select(NSA_F32, 1, sizes[i][0], sizes[i][1], ROW_UP, &random);
        check_select(NSA_F32, 1, sizes[i][0], sizes[i][1], ROW_DOWN, &random);
        check_select(NSA_F32, 1, sizes[i][0], sizes[i][1], ROW_COMB, &random);
    }
}

/* `bytes` that end where the pages that may be touched end; unmap() gives them back. */
static unsigned char *map_before_guard(size_t bytes)
{
    const size_t page = 4096;
    size_t whole = (bytes + page - 1) / page * page;
    unsigned char *base =
        mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(MAP_FAILED, base);
    assert_int_equal(0, mprotect(base + whole, page, PROT_NONE));
    return base + whole - bytes;
}

static void unmap(unsigned char *memory, size_t bytes)
{
    const size_t page = 4096;
    size_t before = (uintptr_t)memory % page;

    munmap(memory - before, (bytes + page - 1) / page * page + page);
}

/* Nothing is read past the scores or written past the indices, nor before them. */
static void test_bounds(void **state)
{
    static const size_t lengths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 65, 127, 129, 1025, 2500};
    uint64_t random = 10;

    (void)state;
    for (size_t run = 0; run < 15 * 4 * 6; run++) {
        nsa_dtype dtype = (nsa_dtype)(run % 4);
        size_t n = lengths[run / 4 % 15];
        size_t rows = 1 + random_below(&random, 12);
        size_t k = 1 + random_below(&random, run % 2 == 0 && n > 16 ? 16 : n);
        size_t score_bytes = rows * n * nsa_dtype_size(dtype);
        size_t index_bytes = (rows * k + 1) * sizeof(int64_t);
        unsigned char *scores = map_before_guard(score_bytes);
        unsigned char *memory = map_before_guard(index_bytes);
        int64_t *indices = (int64_t *)(void *)memory;

        fill_row(scores, dtype, rows * n, run % ROW_KINDS, &random);
        for (size_t table = 0; nsa_cpu_supported(table); table++) {
            assert_status(NSA_OK, nsa_cpu_use(nsa_cpu_supported(table), NULL));
            indices[0] = INT64_C(0x5A5A5A5A5A5A5A5A);
            nsa_kernels_active()->select_rows(indices + 1, scores, dtype, rows, n, k);
            assert_int_equal(INT64_C(0x5A5A5A5A5A5A5A5A), indices[0]);
        }
        unmap(memory, index_bytes);
        unmap(scores, score_bytes);
    }
}

/* A model made with each kernel passes its self-check. */
static void test_self_check(void **state)
{
    (void)state;
    for (size_t table = 0; nsa_cpu_supported(table); table++) {
        nsa_model *other;

        assert_status(NSA_OK, nsa_cpu_use(nsa_cpu_supported(table), NULL));
        assert_status(NSA_OK, nsa_model_create(&other, NSA_SELECT, NULL));
        nsa_model_unref(other);
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
        cmocka_unit_test(test_random_rows),     cmocka_unit_test(test_every_k),
        cmocka_unit_test(test_every_row_count), cmocka_unit_test(test_class_edges),
        cmocka_unit_test(test_bounds),          cmocka_unit_test(test_self_check),
        cmocka_unit_test(test_chunk_edges),     cmocka_unit_test(test_long_rows),
        cmocka_unit_test(test_reference),       cmocka_unit_test(test_spans),
        cmocka_unit_test(test_shapes),          cmocka_unit_test(test_nothing_to_do),
        cmocka_unit_test(test_refusals),        cmocka_unit_test(test_cheap),
    };
    int failed;

    if (nsa_model_create(&model, NSA_SELECT, NULL) != NSA_OK)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    nsa_model_unref(model);
    return failed;
}
