/*
 * Batch invariance of compress: whatever rows are computed with, in whatever places and order, the
 * bits are those of the row alone. For every kernel table, and for every linear engine that the
 * self-check accepts here, not only the preferred one.
 */
#include "tests/unit/support.h"

#include "lib/ops/compress.h"

#include <math.h>
#include <nsa/cpu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUESTS 5
#define MAX_ROWS (NSA_MAX_TILE + 10) /* of a request */
#define MAX_SPANS (REQUESTS * MAX_ROWS)

struct fixture {
    struct nsa_compress compress;
    nsa_model model;
    void *scratch;
    nsa_request requests[REQUESTS];
    void *expected[REQUESTS];
    size_t accepted; /* engines that passed so far */
};

static void open_fixture(struct fixture *fixture, const size_t *size, nsa_precision precision,
                         uint64_t *random)
{
    nsa_mlp *mlp = &fixture->compress.mlp;
    nsa_dtype dtype = precision == NSA_PRECISION_BF16 ? NSA_BF16 : NSA_F32;

    *fixture = (struct fixture){.model = {.row = &nsa_compress_op}};
    fixture->model.weights = &fixture->compress;
    fixture->model.info.dims[COMPRESS_HEAD].value = size[1];
    fixture->model.info.dims[COMPRESS_BLOCK].value = size[0];
    mlp->in = size[0] * size[1];
    mlp->out = size[1];
    mlp->hidden = size[2];
    mlp->activation = (nsa_activation)random_below(random, NSA_ACTIVATION_COUNT);
    mlp->precision = precision;
    remove(write_mlp(mlp, dtype, random));
    for (size_t i = 0; i < REQUESTS; i++) {
        nsa_request *request = &fixture->requests[i];
        size_t rows = random_below(random, i % 2 ? MAX_ROWS : 4);
        float *x;

        request->input =
            random_tensor((nsa_dtype)(i % 4), &(nsa_shape){2, {rows, mlp->in}}, random);
        x = request->input.data;
        /* Not only ordinary numbers: NaN with several payloads, an infinity. */
        if (request->input.dtype == NSA_F32 && rows > 2) {
            memcpy(&x[mlp->in], "\x01\x02\xC0\xFF", sizeof *x);
            memcpy(&x[2 * mlp->in - 1], "\x03\x04\xC0\x7F", sizeof *x);
            x[mlp->in * rows - 1] = INFINITY;
        }
        plan_outputs(request, &fixture->model);
        fixture->expected[i] = malloc(output_bytes(request, 0) + 1);
        assert_non_null(fixture->expected[i]);
    }
}

static void close_fixture(struct fixture *fixture)
{
    for (size_t i = 0; i < REQUESTS; i++) {
        free(fixture->expected[i]);
        free_outputs(&fixture->requests[i]);
        free_tensor(&fixture->requests[i].input);
    }
    free(fixture->compress.packed);
    free_mlp(&fixture->compress.mlp);
}

/* As the self-check of a model does, for one engine. */
static bool passes_self_check(struct fixture *fixture, const nsa_linear_engine *engine)
{
    bool passed = false;

    assert_status(NSA_OK, nsa_compress_use(&fixture->compress, engine, NULL));
    assert_status(NSA_OK, nsa_compress_try(&passed, &fixture->compress, NULL));
    return passed;
}

/* Each row alone gives what is expected of it everywhere. */
static void compute_alone(struct fixture *fixture)
{
    for (size_t i = 0; i < REQUESTS; i++) {
        const nsa_request *request = &fixture->requests[i];

        for (size_t row = 0; row < request->rows; row++)
            nsa_run(&fixture->model, &(nsa_span){request, row, 1}, 1, fixture->scratch);
        memcpy(fixture->expected[i], request->outputs[0].data, output_bytes(request, 0));
    }
}

/* Cut all requests into spans at random and put these in a random order; returns their number. */
static size_t split_and_shuffle(nsa_span *spans, const struct fixture *fixture, uint64_t *random)
{
    size_t count = 0;

    for (size_t i = 0; i < REQUESTS; i++) {
        const nsa_request *request = &fixture->requests[i];
        size_t longest = 1 + random_below(random, MAX_ROWS);

        for (size_t row = 0; row < request->rows;) {
            size_t rows = 1 + random_below(random, longest);

            if (rows > request->rows - row)
                rows = request->rows - row;
            spans[count++] = (nsa_span){request, row, rows};
            row += rows;
        }
    }
    for (size_t i = count; i > 1; i--) {
        size_t other = random_below(random, i);
        nsa_span swapped = spans[i - 1];

        spans[i - 1] = spans[other];
        spans[other] = swapped;
    }
    return count;
}

/* All spans in batches of random lengths: one by one, all together, and between. */
static void compute_together(struct fixture *fixture, uint64_t *random)
{
    nsa_span spans[MAX_SPANS];
    size_t count = split_and_shuffle(spans, fixture, random);
    size_t longest = 1 + random_below(random, count + 1);

    for (size_t i = 0; i < REQUESTS; i++)
        memset(fixture->requests[i].outputs[0].data, 0xA5, output_bytes(&fixture->requests[i], 0));
    for (size_t done = 0; done < count;) {
        size_t batch = 1 + random_below(random, longest);

        if (batch > count - done)
            batch = count - done;
        nsa_run(&fixture->model, spans + done, batch, fixture->scratch);
        done += batch;
    }
    for (size_t i = 0; i < REQUESTS; i++)
        assert_memory_equal(fixture->expected[i], fixture->requests[i].outputs[0].data,
                            output_bytes(&fixture->requests[i], 0));
}

/* The engine in use. */
static void check_engine(struct fixture *fixture, uint64_t *random)
{
    size_t bytes = nsa_run_scratch_bytes(&fixture->model);

    fixture->scratch = aligned_alloc(NSA_SCRATCH_ALIGN, bytes);
    assert_non_null(fixture->scratch);
    compute_alone(fixture);
    for (size_t trial = 0; trial < 6; trial++) {
        memset(fixture->scratch, 0x7F, bytes); /* what an earlier batch left must not matter */
        compute_together(fixture, random);
    }
    free(fixture->scratch);
    fixture->accepted++;
}

/* `*state` is the kernels' name. */
static void test_rows_alone_and_together(void **state)
{
    static const size_t sizes[][3] = {/* block, dim_head, hidden */
                                      {3, 17, 102}, {1, 1, 1},    {1, 1, 3},
                                      {7, 5, 33},   {7, 5, 1},    {2, 19, 130},
                                      {4, 64, 64},  {4, 70, 519}, {2, 3, 1025}};
    uint64_t random = 1;

    assert_status(NSA_OK, nsa_cpu_use(*state, NULL));
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes * NSA_PRECISION_COUNT; s++) {
        struct fixture fixture;

        open_fixture(&fixture, sizes[s / NSA_PRECISION_COUNT],
                     (nsa_precision)(s % NSA_PRECISION_COUNT), &random);
        for (size_t e = 0; nsa_linear_engine_at(fixture.compress.mlp.precision, e); e++) {
            const nsa_linear_engine *engine =
                nsa_linear_engine_at(fixture.compress.mlp.precision, e);
            bool own = engine->panel > 1 || !engine->padded;

            assert_in_range(engine->tile, 1, NSA_MAX_TILE);
            if (passes_self_check(&fixture, engine))
                check_engine(&fixture, &random);
            else
                assert_false(own); /* the panels and the plain one always pass */
        }
        assert_true(fixture.accepted > 0);
        close_fixture(&fixture);
    }
}

/* --- engines that the self-check has to refuse ------------------------------------------------ */

#define BAD_TILE 8

static void plain(const nsa_linear_part *part)
{
    nsa_linear_plain(part->y, (const float *)(const void *)part->x[0],
                     (const float *)(const void *)part->w, part->rows, part->k, part->columns);
}

/* The last row's last bit differs, as where a kernel for a remainder of rows sums otherwise. */
static void place_dependent(const nsa_linear_part *part)
{
    float *last = part->y + (part->rows - 1) * part->columns;

    plain(part);
    for (size_t i = 0; i < part->columns; i++)
        last[i] = nextafterf(last[i], INFINITY);
}

/* A row's last bit differs when it comes alone. */
static void count_dependent(const nsa_linear_part *part)
{
    plain(part);
    for (size_t i = 0; part->rows == 1 && i < part->columns; i++)
        part->y[i] = nextafterf(part->y[i], INFINITY);
}

/* The last of the columns lacks its last product, as where a remainder is forgotten. */
static void forgetful(const nsa_linear_part *part)
{
    const float *w = (const float *)(const void *)part->w;

    plain(part);
    for (size_t row = 0; row < part->rows; row++)
        part->y[row * part->columns + part->columns - 1] -=
            ((const float *)(const void *)part->x[row])[part->k - 1] *
            w[part->columns * part->k - 1];
}

static void not_a_number(const nsa_linear_part *part)
{
    for (size_t i = 0; i < part->rows * part->columns; i++)
        part->y[i] = NAN;
}

static void test_bad_engines_are_refused(void **state)
{
    static const struct {
        const char *name;
        void (*run)(const nsa_linear_part *part);
    } bad[] = {{"place-dependent", place_dependent},
               {"count-dependent", count_dependent},
               {"forgetful", forgetful},
               {"not-a-number", not_a_number}};
    static const size_t sizes[][3] = {{3, 17, 102}, {7, 5, 33}, {1, 1, 3}};
    uint64_t random = 2;

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct fixture fixture;

        open_fixture(&fixture, sizes[s], NSA_PRECISION_F32, &random);
        fixture.compress.mlp.activation = NSA_GELU;
        for (size_t e = 0; e < sizeof bad / sizeof *bad; e++) {
            const nsa_linear_engine engine = {.name = bad[e].name,
                                              .input = NSA_F32,
                                              .tile = BAD_TILE,
                                              .dense = true,
                                              .unit = 1,
                                              .panel = 1,
                                              .chunk = NSA_WHOLE_CHUNK,
                                              .run = bad[e].run};

            assert_false(passes_self_check(&fixture, &engine));
        }
        close_fixture(&fixture);
    }
}

int main(void)
{
    struct CMUnitTest tests[8] = {
        {"bad engines are refused", test_bad_engines_are_refused, NULL, NULL, NULL}};
    size_t count = 1;

    for (size_t i = 0; nsa_cpu_supported(i); i++) {
        tests[count].name = nsa_cpu_supported(i);
        tests[count].test_func = test_rows_alone_and_together;
        tests[count++].initial_state = (void *)(uintptr_t)nsa_cpu_supported(i);
    }
    return _cmocka_run_group_tests("invariance", tests, count, NULL, NULL);
}
