/* The positions of the k greatest scores of each row. */
#include "lib/ops/kernels/kernels.h"
#include "lib/ops/op.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { PARAM_K, PARAM_VALUES };

/* The self-check's most rows, the longest row and the most selected of one. */
#define CHECK_ROWS 9
#define CHECK_N 2709
#define CHECK_K 80

static nsa_status select_plan(nsa_request *request, const nsa_model *model, nsa_error *err)
{
    const nsa_shape *shape = &request->input.shape;
    int64_t k = request->params[PARAM_K];
    size_t n;

    (void)model;
    if (shape->rank == 0)
        return nsa_error_set(err, NSA_EINVAL, "scores: expected shape [..., num_blocks], got []");
    n = shape->dims[shape->rank - 1];
    if (n > UINT32_MAX)
        return nsa_error_set(err, NSA_ELIMIT, "scores: expected at most %u blocks a row, got %zu",
                             UINT32_MAX, n);
    if (k < 0 || (uint64_t)k > n)
        return nsa_error_set(err, NSA_EINVAL,
                             "num_selected_blocks: expected 0 to %zu (the blocks of a row), got "
                             "%" PRId64,
                             n, k);
    request->rows = k > 0; /* without a result there is nothing to compute */
    for (size_t i = 0; i + 1 < shape->rank; i++)
        request->rows *= shape->dims[i];
    request->outputs[0].dtype = NSA_I64;
    request->outputs[0].shape = *shape;
    request->outputs[0].shape.dims[shape->rank - 1] = (size_t)k;
    if (request->params[PARAM_VALUES]) {
        request->outputs[1] = request->outputs[0];
        request->outputs[1].dtype = request->input.dtype;
        request->output_count = 2;
    }
    return NSA_OK;
}

/* values (rows, k) = the scores (rows, n) at indices (rows, k), elements of `size` bytes. */
static inline void gather(char *values, const char *scores, const int64_t *indices, size_t rows,
                          size_t n, size_t k, const size_t size)
{
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < k; i++)
            memcpy(values + (row * k + i) * size,
                   scores + (row * n + (size_t)indices[row * k + i]) * size, size);
    }
}

static void select_run(const nsa_model *model, const nsa_span *spans, size_t count, void *scratch)
{
    (void)model;
    (void)scratch;
    for (size_t s = 0; s < count; s++) {
        const nsa_request *request = spans[s].request;
        const nsa_shape *shape = &request->input.shape;
        size_t n = shape->dims[shape->rank - 1];
        size_t k = (size_t)request->params[PARAM_K];
        size_t size = nsa_dtype_size(request->input.dtype);
        size_t rows = spans[s].row_count;
        size_t begin = spans[s].row_begin;
        const char *scores = (const char *)request->input.data + begin * n * size; /* (rows, n) */
        int64_t *indices = (int64_t *)request->outputs[0].data + begin * k;        /* (rows, k) */
        char *values;

        nsa_kernels_active()->select_rows(indices, scores, request->input.dtype, rows, n, k);
        if (request->output_count == 1)
            continue;
        values = (char *)request->outputs[1].data + begin * k * size; /* (rows, k) */
        if (size == 2)
            gather(values, scores, indices, rows, n, k, 2);
        else if (size == 4)
            gather(values, scores, indices, rows, n, k, 4);
        else
            gather(values, scores, indices, rows, n, k, 8);
    }
}

/*
 * Rows that kernels have different ways for: few or many of short and of longer ones, some that
 * don't fill a vector of rows, and one whose greatest scores lie where a kernel's estimate of their
 * number misses them.
 */
static const struct {
    size_t rows, n, k;
} checks[] = {{CHECK_ROWS, 33, 8},   {CHECK_ROWS, 64, 13}, {3, 5, 3},
              {CHECK_ROWS, 301, 16}, {1, 301, 17},         {2, CHECK_N / 2, 64},
              {1, CHECK_N, CHECK_K}, {1, 61, 61}};

static nsa_status select_self_check(nsa_model *model, nsa_error *err)
{
    float scores[CHECK_N];
    int64_t expected[CHECK_K];
    int64_t got[CHECK_ROWS * CHECK_K];

    (void)model;
    nsa_self_check_fill(scores, sizeof scores / sizeof *scores);
    for (size_t i = 0; i < sizeof scores / sizeof *scores; i++) {
        static const float special[] = {NAN, -NAN, INFINITY, -INFINITY, 0.0f, -0.0f};

        if (i % 7 == 0)
            scores[i] = scores[i / 2]; /* ties */
        else if (i % 7 == 1 && i % 31 < 6)
            scores[i] = special[i % 31];
        else if (i % 48 < 17)
            scores[i] += 4.0f;
    }
    for (size_t c = 0; c < sizeof checks / sizeof *checks; c++) {
        size_t n = checks[c].n;
        size_t k = checks[c].k;

        nsa_kernels_active()->select_rows(got, scores, NSA_F32, checks[c].rows, n, k);
        for (size_t row = 0; row < checks[c].rows; row++) {
            nsa_select_row_ref(expected, scores + row * n, n, k);
            if (memcmp(expected, got + row * k, k * sizeof *got) != 0)
                return nsa_error_set(err, NSA_ESELFCHECK,
                                     "self-check: select of %zu from %zu blocks differs from the "
                                     "reference on this processor",
                                     k, n);
        }
    }
    return NSA_OK;
}

const nsa_op_row nsa_select_op = {
    .op = {.id = NSA_SELECT,
           .name = "select",
           .input = {.name = "scores", .rank = 2},
           .output_count = 2,
           .outputs = {{.name = "indices", .dtype = NSA_I64, .rank = 2},
                       {.name = "values", .rank = 2}},
           .param_count = 2,
           .params = {[PARAM_K] = {"num_selected_blocks", NSA_PARAM_INT, .required = true},
                      [PARAM_VALUES] = {"return_values", NSA_PARAM_BOOL, .required = false,
                                        .output = 1}}},
    .plan = select_plan,
    .run = select_run,
    .self_check = select_self_check,
    .cheap_elements = 65536,
    .output_weight = 8,
};
