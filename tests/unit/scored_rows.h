/* Rows of scores of every kind, and select against a full stable sort of them. */
#ifndef TESTS_SCORED_ROWS_H
#define TESTS_SCORED_ROWS_H

#include "tests/unit/support.h"

#include <inttypes.h>
#include <math.h>
#include <nsa/cpu.h>
#include <nsa/model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

#endif
