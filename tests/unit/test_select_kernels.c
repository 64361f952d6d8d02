/* The kernels of select where one way of selecting ends and another begins, and at the edges of
 * memory, by every kernel that runs here. */
#include "tests/unit/scored_rows.h"

#include <sys/mman.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_k),     cmocka_unit_test(test_every_row_count),
        cmocka_unit_test(test_class_edges), cmocka_unit_test(test_chunk_edges),
        cmocka_unit_test(test_long_rows),   cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_self_check),
    };
    int failed;

    if (nsa_model_create(&model, NSA_SELECT, NULL) != NSA_OK)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    nsa_model_unref(model);
    return failed;
}
