/* Models that come and go: whose series are printed, what outlives them, and what each counted. */
#include "tests/unit/scrape.h"

#include <pthread.h>

static const struct metrics_model demo1 = {"demo", "1", "compress", "f32", "one"};
static const struct metrics_model demo2 = {"demo", "2", "compress", "bf16", "two"};
static const struct metrics_model demo2_new = {"demo", "2", "compress", "bf16", "two, new"};
static const struct metrics_model demo2_other = {"demo", "2", "posembed", "f32", "other op"};
static const struct metrics_model select_model = {"select", "1", "select", "f32", ""};

static const uint64_t stages[METRICS_STAGE_COUNT] = {
    [METRICS_PARSE] = 1, [METRICS_QUEUE] = 20, [METRICS_COMPUTE] = 300, [METRICS_ENCODE] = 4000};

#define INFO(version, op, precision, sha256)                                                       \
    "nsad_model_info{model=\"demo\",version=\"" version "\",op=\"" op "\",precision=\"" precision  \
    "\",sha256=\"" sha256 "\"}"
#define READY(version) "nsad_model_ready{model=\"demo\",version=\"" version "\"}"
#define ROWS(op, model) "nsad_rows_total{op=\"" op "\",model=\"" model "\"}"
#define COUNT(op, model) "nsad_request_duration_seconds_count{op=\"" op "\",model=\"" model "\"}"

/* How many lines of a scrape begin with `start`. */
static size_t count_lines(const char *text, const char *start)
{
    size_t count = 0;

    for (const char *line = text; *line; line = strchr(line, '\n') + 1)
        count += strncmp(line, start, strlen(start)) == 0;
    return count;
}

static void expect_lines(struct metrics *m, const char *start, size_t expected)
{
    char *text = scraped(m);

    assert_int_equal(expected, count_lines(text, start));
    free(text);
}

/* The one series of version 2 must be that of the file `sha256`, and `ready`. */
static void expect_served(struct metrics *m, const char *sha256_series, double ready)
{
    expect(m, sha256_series, 1);
    expect(m, READY("2"), ready);
    expect_lines(m, "nsad_model_info{", 1);
    expect_lines(m, "nsad_model_ready{", 1);
}

static void succeed(struct metrics *m, struct metrics_model_series *series, size_t rows)
{
    metrics_count_success(m, series, stages, 5000, rows);
}

/* --- coming and going ---------------------------------------------------------------------- */

static void a_model_s_series_are_there_while_it_is(void **state)
{
    struct metrics *m = created();
    struct metrics_model_series *first;
    struct metrics_model_series *second;

    (void)state;
    expect_lines(m, "nsad_model_", 0);
    first = added(m, &demo1);
    second = added(m, &demo2);
    expect(m, INFO("1", "compress", "f32", "one"), 1);
    expect(m, INFO("2", "compress", "bf16", "two"), 1);
    expect(m, READY("1"), 0);
    expect(m, READY("2"), 0);
    expect(m, COUNT("compress", "demo"), 0);
    expect(m, ROWS("compress", "demo"), 0);
    metrics_set_model_ready(second, true);
    expect(m, READY("1"), 0);
    expect(m, READY("2"), 1);
    metrics_set_model_ready(second, false);
    expect(m, READY("2"), 0);
    metrics_remove_model(m, first);
    expect_lines(m, "nsad_model_ready{", 1);
    expect(m, READY("2"), 0);
    expect(m, ROWS("compress", "demo"), 0);
    metrics_remove_model(m, second);
    metrics_remove_model(m, NULL);
    expect_lines(m, "nsad_model_", 0);
    expect_lines(m, "nsad_rows_total{", 1);
    metrics_free(m);
}

/* The series of select begin before its model is added and don't end with it. */
static void select_never_goes(void **state)
{
    struct metrics *m = created();
    struct metrics_model_series *series;

    (void)state;
    expect(m, ROWS("select", "select"), 0);
    for (size_t i = 1; i <= 2; i++) {
        series = added(m, &select_model);
        succeed(m, series, 7);
        metrics_remove_model(m, series);
        expect(m, ROWS("select", "select"), (double)i * 7);
        expect(m, COUNT("select", "select"), (double)i);
    }
    expect_lines(m, "nsad_rows_total{", 1);
    metrics_free(m);
}

static void versions_share_what_goes_by_model(void **state)
{
    struct metrics *m = created();
    struct metrics_model_series *first = added(m, &demo1);
    struct metrics_model_series *second = added(m, &demo2);
    struct metrics_model_series *other = added(m, &demo2_other); /* of another op */

    (void)state;
    succeed(m, first, 5);
    succeed(m, second, 6);
    succeed(m, other, 7);
    expect(m, ROWS("compress", "demo"), 11);
    expect(m, COUNT("compress", "demo"), 2);
    expect(m, ROWS("posembed", "demo"), 7);
    metrics_remove_model(m, first);
    expect(m, ROWS("compress", "demo"), 11); /* of all that were served, not of what is left */
    metrics_remove_model(m, second);
    expect_lines(m, "nsad_rows_total{op=\"compress\"", 0);
    expect(m, ROWS("posembed", "demo"), 7);
    second = added(m, &demo2);
    expect(m, ROWS("compress", "demo"), 0);
    metrics_remove_model(m, second);
    metrics_remove_model(m, other);
    metrics_free(m);
}

/* --- reloads ------------------------------------------------------------------------------- */

#define OLD_INFO INFO("2", "compress", "bf16", "two")
#define NEW_INFO INFO("2", "compress", "bf16", "two, new")

static void a_reload_has_one_series_and_keeps_the_counts(void **state)
{
    struct metrics *m = created();
    struct metrics_model_series *old = added(m, &demo2);
    struct metrics_model_series *new;

    (void)state;
    succeed(m, old, 5);
    metrics_set_model_ready(old, true);
    new = added(m, &demo2_new);
    expect_served(m, OLD_INFO, 1);
    metrics_set_model_ready(new, true);
    expect_served(m, NEW_INFO, 1);
    succeed(m, new, 2);
    succeed(m, old, 3); /* which still finishes what it has */
    metrics_set_model_ready(old, false);
    expect_served(m, NEW_INFO, 1);
    metrics_remove_model(m, old);
    expect_served(m, NEW_INFO, 1);
    expect(m, ROWS("compress", "demo"), 10);
    expect(m, COUNT("compress", "demo"), 3);
    metrics_remove_model(m, new);
    metrics_free(m);
}

static void a_reload_that_fails_leaves_the_old_series(void **state)
{
    struct metrics *m = created();
    struct metrics_model_series *old = added(m, &demo2);
    struct metrics_model_series *new = added(m, &demo2_new);

    (void)state;
    expect_served(m, NEW_INFO, 0); /* neither is ready: the newest */
    metrics_set_model_ready(old, true);
    expect_served(m, OLD_INFO, 1);
    metrics_remove_model(m, new);
    expect_served(m, OLD_INFO, 1);
    metrics_remove_model(m, old);
    metrics_free(m);
}

static void a_reload_may_change_the_op(void **state)
{
    struct metrics *m = created();
    struct metrics_model_series *old = added(m, &demo2);
    struct metrics_model_series *new = added(m, &demo2_other);

    (void)state;
    metrics_set_model_ready(old, true);
    expect_served(m, OLD_INFO, 1);
    expect(m, ROWS("posembed", "demo"), 0);
    metrics_set_model_ready(new, true);
    metrics_remove_model(m, old);
    expect_served(m, INFO("2", "posembed", "f32", "other op"), 1);
    expect_lines(m, "nsad_rows_total{op=\"compress\"", 0);
    metrics_remove_model(m, new);
    metrics_free(m);
}

/* --- statistics ---------------------------------------------------------------------------- */

static void each_version_has_statistics_of_its_own(void **state)
{
    static const struct metrics_statistics none;
    struct metrics *m = created();
    struct metrics_model_series *first = added(m, &demo1);
    struct metrics_model_series *second = added(m, &demo2);
    struct metrics_statistics got;

    (void)state;
    succeed(m, first, 5);
    succeed(m, first, 0);
    metrics_count_failure(first, 60000);
    metrics_count_batch(m, first, 5);
    metrics_count_batch(m, first, 9);
    metrics_count_batch(m, first, 9);
    metrics_read_statistics(second, &got);
    assert_memory_equal(&none, &got, sizeof got);
    metrics_read_statistics(first, &got);
    assert_int_equal(2, got.success_count);
    assert_int_equal(10000, got.success_ns);
    assert_int_equal(1, got.fail_count);
    assert_int_equal(60000, got.fail_ns);
    assert_int_equal(40, got.queue_ns);
    assert_int_equal(2, got.compute_input_ns);
    assert_int_equal(600, got.compute_infer_ns);
    assert_int_equal(8000, got.compute_output_ns);
    assert_int_equal(3, got.execution_count);
    assert_true(got.last_inference_ms > UINT64_C(1000000000000)); /* milliseconds: 2001 */
    assert_true(got.last_inference_ms < UINT64_C(100000000000000));
    metrics_count_failure(second, 7);
    metrics_read_statistics(second, &got);
    assert_int_equal(1, got.fail_count);
    assert_int_equal(0, got.last_inference_ms);
    expect(m, COUNT("compress", "demo"), 2);
    expect(m, "nsad_batch_rows_count", 3);
    expect(m, "nsad_batch_rows_sum", 23);
    metrics_remove_model(m, first);
    metrics_remove_model(m, second);
    metrics_free(m);
}

/* A client that looks before and after a reload sees what went on between. */
static void statistics_go_on_over_a_reload(void **state)
{
    struct metrics *m = created();
    struct metrics_model_series *old = added(m, &demo2);
    struct metrics_model_series *new;
    struct metrics_statistics got;

    (void)state;
    succeed(m, old, 5);
    new = added(m, &demo2_new);
    succeed(m, old, 5); /* one that had begun */
    succeed(m, new, 5);
    metrics_remove_model(m, old);
    metrics_read_statistics(new, &got);
    assert_int_equal(3, got.success_count);
    expect(m, COUNT("compress", "demo"), 3);
    metrics_remove_model(m, new);
    new = added(m, &demo2);
    metrics_read_statistics(new, &got);
    assert_int_equal(0, got.success_count);
    metrics_remove_model(m, new);
    metrics_free(m);
}

/* --- threads and memory -------------------------------------------------------------------- */

#define THREADS 4
#define RELOADS 500

struct reloading {
    pthread_t thread;
    struct metrics *metrics;
    struct metrics_model_series *shared; /* of a version that stays */
};

/* Reload one version again and again, beside others that do the same. */
static void *reload_many(void *context)
{
    struct reloading *reloading = context;
    struct metrics *m = reloading->metrics;
    struct metrics_model_series *old = NULL;

    for (size_t i = 0; i < RELOADS; i++) {
        struct metrics_model_series *new = added(m, i % 2 == 0 ? &demo2 : &demo2_new);

        metrics_set_model_ready(new, true);
        metrics_remove_model(m, old);
        succeed(m, new, 2);
        succeed(m, reloading->shared, 1);
        metrics_count_failure(reloading->shared, 1);
        metrics_count_batch(m, new, 3);
        old = new;
    }
    metrics_remove_model(m, old);
    return NULL;
}

static void models_come_and_go_beside_scrapes(void **state)
{
    struct metrics *m = created();
    struct metrics_model_series *shared = added(m, &demo1);
    struct reloading reloading[THREADS];
    struct metrics_statistics statistics;

    (void)state;
    for (size_t i = 0; i < THREADS; i++) {
        reloading[i] = (struct reloading){.metrics = m, .shared = shared};
        assert_int_equal(0, pthread_create(&reloading[i].thread, NULL, reload_many, &reloading[i]));
    }
    for (size_t scrape = 0; scrape < 50; scrape++) {
        char *text = scraped(m);
        size_t served = count_lines(text, READY("2"));

        assert_true(served <= 1);
        assert_int_equal(1 + served, count_lines(text, "nsad_model_ready{"));
        assert_int_equal(1 + served, count_lines(text, "nsad_model_info{"));
        assert_int_equal(2, count_lines(text, "nsad_rows_total{"));
        free(text);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(reloading[i].thread, NULL);
    metrics_read_statistics(shared, &statistics);
    assert_int_equal(THREADS * RELOADS, statistics.success_count);
    assert_int_equal(THREADS * RELOADS, statistics.fail_count);
    expect(m, COUNT("compress", "demo"), 2 * THREADS * RELOADS);
    expect(m, ROWS("compress", "demo"), THREADS * RELOADS * 3);
    expect(m, "nsad_batch_rows_sum", THREADS * RELOADS * 3);
    expect_lines(m, "nsad_model_ready{", 1);
    metrics_remove_model(m, shared);
    metrics_free(m);
}

static nsa_status add_and_remove(void *context)
{
    struct metrics *m = context;
    struct metrics_model_series *series = NULL;
    nsa_error err;
    nsa_status status = metrics_add_model(m, &series, &demo1, &err);

    if (status != NSA_OK) {
        assert_null(series);
        assert_string_equal("no memory for the metrics", err.message);
    }
    metrics_remove_model(m, series);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    struct metrics *m = created();

    (void)state;
    check_every_allocation(add_and_remove, m);
    expect_lines(m, "nsad_model_", 0);
    expect_lines(m, "nsad_rows_total{", 1);
    metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_s_series_are_there_while_it_is),
        cmocka_unit_test(select_never_goes),
        cmocka_unit_test(versions_share_what_goes_by_model),
        cmocka_unit_test(a_reload_has_one_series_and_keeps_the_counts),
        cmocka_unit_test(a_reload_that_fails_leaves_the_old_series),
        cmocka_unit_test(a_reload_may_change_the_op),
        cmocka_unit_test(each_version_has_statistics_of_its_own),
        cmocka_unit_test(statistics_go_on_over_a_reload),
        cmocka_unit_test(models_come_and_go_beside_scrapes),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
