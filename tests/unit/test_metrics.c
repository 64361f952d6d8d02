#include "tests/unit/scrape.h"

#include <pthread.h>
#include <stdio.h>

static const struct metrics_model demo = {"demo", "1", "compress", "f32", "abc"};
static const struct metrics_model weird = {"we\"ird\\\nname", "1", "posembed", "f32", "012"};

static const char *const zeros[] = {
    "nsad_http_requests_total{route=\"/v1/select\",method=\"POST\",code=\"200\"}",
    "nsad_http_requests_total{route=\"/v1/select\",method=\"OTHER\",code=\"405\"}",
    "nsad_http_requests_total{route=\"/v1/models\",method=\"HEAD\",code=\"other\"}",
    "nsad_http_requests_total{route=\"other\",method=\"GET\",code=\"404\"}",
    "nsad_http_requests_total{route=\"other\",method=\"OTHER\",code=\"504\"}",
    "nsad_request_duration_seconds_count{op=\"select\",model=\"select\"}",
    "nsad_stage_duration_seconds_count{stage=\"parse\"}",
    "nsad_stage_duration_seconds_count{stage=\"queue\"}",
    "nsad_stage_duration_seconds_count{stage=\"compute\"}",
    "nsad_stage_duration_seconds_bucket{stage=\"encode\",le=\"10\"}",
    "nsad_batch_rows_bucket{le=\"65536\"}",
    "nsad_batch_rows_sum",
    "nsad_batch_rows_count",
    "nsad_rows_total{op=\"select\",model=\"select\"}",
    "nsad_request_bytes_total",
    "nsad_response_bytes_total",
    "nsad_inflight_requests",
    "nsad_rejected_total{reason=\"queue_full\"}",
    "nsad_rejected_total{reason=\"deadline\"}",
    "nsad_rejected_total{reason=\"client_gone\"}",
    "nsad_rejected_total{reason=\"body_too_large\"}",
    "nsad_rejected_total{reason=\"slow_request\"}",
    "nsad_rejected_total{reason=\"not_ready\"}",
};

static void everything_is_there_from_the_start(void **state)
{
    struct metrics *m = created();

    (void)state;
    for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++)
        expect(m, zeros[i], 0);
    expect(m, "nsad_queue_rows", 11);
    expect(m, "nsad_queue_bytes", 22);
    expect(m, "nsad_models_refused", 33);
    expect(m, "nsad_build_info{version=\"0.1.0\",revision=\"r\\\"1\",kernel=\"avx2\"}", 1);
    metrics_free(m);
    metrics_free(NULL);
}

/* Each line is a comment or a sample; each sample follows its family's HELP and TYPE; no twins. */
static void the_text_is_well_formed(void **state)
{
    struct metrics *m = created();
    struct metrics_model_series *series[] = {added(m, &demo), added(m, &weird), added(m, &demo)};
    char *text = scraped(m);
    char family[128] = "", kind[16] = "";

    (void)state;
    assert_non_null(
        find_series(text, "nsad_rows_total{op=\"posembed\",model=\"we\\\"ird\\\\\\nname\"}"));
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        size_t name = strcspn(line, "{ ");
        const char *value = line + name;
        char *end;

        if (*line == '#') {
            char next[128];
            int used = 0;

            assert_int_equal(1, sscanf(line, "# HELP %127s %n", next, &used));
            assert_int_not_equal('\n', line[used]);
            line = strchr(line, '\n') + 1;
            assert_int_equal(2, sscanf(line, "# TYPE %127s %15s", family, kind));
            assert_string_equal(next, family);
            continue;
        }
        assert_memory_equal(family, line, strlen(family));
        if (name != strlen(family))
            assert_string_equal("histogram", kind);
        while (*value != ' ' || value[-1] == ',') {
            assert_int_not_equal('\n', *value);
            value++;
        }
        strtod(value, &end);
        assert_int_equal('\n', *end);
        for (const char *other = strchr(line, '\n') + 1; *other; other = strchr(other, '\n') + 1)
            assert_int_not_equal(0, strncmp(line, other, (size_t)(value - line) + 1));
    }
    free(text);
    for (size_t i = 0; i < 3; i++)
        metrics_remove_model(m, series[i]);
    metrics_free(m);
}

static void requests_count_by_route_method_and_code(void **state)
{
    struct metrics *m = created();

    (void)state;
    metrics_count_request(m, ROUTE_SELECT, "POST", 200);
    metrics_count_request(m, ROUTE_SELECT, "POST", 200);
    metrics_count_request(m, ROUTE_SELECT, "GET", 405); /* not a method of this route */
    metrics_count_request(m, ROUTE_SELECT, "BREW\"\n", 405);
    metrics_count_request(m, ROUTE_SELECT, "post", 405);
    metrics_count_request(m, ROUTE_MODELS, "HEAD", 418);
    metrics_count_request(m, ROUTE_OTHER, "POST", 404);
    metrics_count_request(m, SIZE_MAX, "POST", 404);
    expect(m, "nsad_http_requests_total{route=\"/v1/select\",method=\"POST\",code=\"200\"}", 2);
    expect(m, "nsad_http_requests_total{route=\"/v1/select\",method=\"OTHER\",code=\"405\"}", 3);
    expect(m, "nsad_http_requests_total{route=\"/v1/models\",method=\"HEAD\",code=\"other\"}", 1);
    expect(m, "nsad_http_requests_total{route=\"other\",method=\"POST\",code=\"404\"}", 2);
    metrics_free(m);
}

/* A route has its own methods and OTHER, no more: 2 + 3 + 4 methods, 17 codes each. */
static void the_number_of_series_is_bounded(void **state)
{
    struct metrics *m = created();
    char *text = scraped(m);
    size_t count = 0;

    (void)state;
    for (const char *s = strstr(text, "\nnsad_http_requests_total{"); s;
         s = strstr(s + 1, "\nnsad_http_requests_total{"))
        count++;
    assert_int_equal((2 + 3 + 4) * 17, count);
    assert_null(strstr(text, "route=\"/v1/select\",method=\"GET\""));
    free(text);
    metrics_free(m);
}

static void buckets_hold_their_upper_bound(void **state)
{
    static const uint64_t durations[] = {0, 10000, 10001, 10000000000, 10000000001};
    static const size_t rows[] = {1, 3, 65536, 65537};
    const uint64_t stages[METRICS_STAGE_COUNT] = {[METRICS_QUEUE] = 1500000000};
    struct metrics *m = created();
    struct metrics_model_series *series = added(m, &demo);

    (void)state;
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++)
        metrics_count_success(m, series, stages, durations[i], 0);
#define DEMO(part, le) "nsad_request_duration_seconds" part "{op=\"compress\",model=\"demo\"" le "}"
    expect(m, DEMO("_bucket", ",le=\"1e-05\""), 2);
    expect(m, DEMO("_bucket", ",le=\"2.5e-05\""), 3);
    expect(m, DEMO("_bucket", ",le=\"5\""), 3);
    expect(m, DEMO("_bucket", ",le=\"10\""), 4);
    expect(m, DEMO("_bucket", ",le=\"+Inf\""), 5);
    expect(m, DEMO("_count", ""), 5);
    expect(m, DEMO("_sum", ""), 20.000020002);
    expect(m, "nsad_request_duration_seconds_count{op=\"select\",model=\"select\"}", 0);
    expect(m, "nsad_stage_duration_seconds_sum{stage=\"queue\"}", 7.5);
    expect(m, "nsad_stage_duration_seconds_bucket{stage=\"queue\",le=\"2.5\"}", 5);
    expect(m, "nsad_stage_duration_seconds_bucket{stage=\"queue\",le=\"1\"}", 0);
    expect(m, "nsad_stage_duration_seconds_bucket{stage=\"compute\",le=\"1e-05\"}", 5);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        metrics_count_batch(m, series, rows[i]);
    expect(m, "nsad_batch_rows_bucket{le=\"1\"}", 1);
    expect(m, "nsad_batch_rows_bucket{le=\"2\"}", 1);
    expect(m, "nsad_batch_rows_bucket{le=\"4\"}", 2);
    expect(m, "nsad_batch_rows_bucket{le=\"65536\"}", 3);
    expect(m, "nsad_batch_rows_bucket{le=\"+Inf\"}", 4);
    expect(m, "nsad_batch_rows_sum", 131077);
    metrics_remove_model(m, series);
    metrics_free(m);
}

/* The ladder goes 1, 2.5, 5 from 10 µs to 10 s, and the texts say what the numbers are. */
static void each_bucket_says_its_bound(void **state)
{
    static const double steps[] = {1, 2.5, 5};
    double scale = 1e4; /* ns */
    size_t bound = 0;

    (void)state;
    for (; scale <= 1e10; scale *= bound % 3 == 0 ? 10 : 1) {
        double ns = steps[bound++ % 3] * scale;
        uint64_t stages[METRICS_STAGE_COUNT] = {[METRICS_PARSE] = (uint64_t)ns};
        struct metrics *m;
        struct metrics_model_series *model;
        char series[128];

        if (ns > 1e10)
            break;
        m = created();
        model = added(m, &demo);
        snprintf(series, sizeof series,
                 "nsad_stage_duration_seconds_bucket{stage=\"parse\",le=\"%g\"}", ns / 1e9);
        metrics_count_success(m, model, stages, 0, 0);
        stages[METRICS_PARSE]++;
        metrics_count_success(m, model, stages, 0, 0);
        expect(m, series, 1);
        metrics_remove_model(m, model);
        metrics_free(m);
    }
    assert_int_equal(20, bound); /* nineteen, and the one past the end */
}

static void the_other_counters_count(void **state)
{
    struct metrics *m = created();

    (void)state;
    metrics_add_bytes(m, 100, 7);
    metrics_add_bytes(m, (size_t)1 << 62, 0);
    expect(m, "nsad_request_bytes_total", 0x1p62 + 100);
    expect(m, "nsad_response_bytes_total", 7);
    metrics_begin_request(m);
    metrics_begin_request(m);
    metrics_end_request(m);
    expect(m, "nsad_inflight_requests", 1);
    for (int reason = 0; reason < METRICS_REASON_COUNT; reason++)
        metrics_reject(m, (enum metrics_reason)reason);
    metrics_reject(m, METRICS_NOT_READY);
    expect(m, "nsad_rejected_total{reason=\"queue_full\"}", 1);
    expect(m, "nsad_rejected_total{reason=\"not_ready\"}", 2);
    metrics_free(m);
}

#define THREADS 4
#define EVENTS 20000

struct counting {
    struct metrics *metrics;
    struct metrics_model_series *series;
};

static void *count_many(void *context)
{
    const struct counting *counting = context;

    for (size_t i = 0; i < EVENTS; i++) {
        metrics_count_batch(counting->metrics, counting->series, i % 3000);
        metrics_count_request(counting->metrics, ROUTE_SELECT, "POST", 200);
    }
    return NULL;
}

static void nothing_is_lost_and_a_scrape_agrees_with_itself(void **state)
{
    struct metrics *m = created();
    struct counting counting = {m, added(m, &demo)};
    pthread_t threads[THREADS];

    (void)state;
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, count_many, &counting));
    for (size_t scrape = 0; scrape < 50; scrape++) {
        char *text = scraped(m);
        const char *s = strstr(text, "\nnsad_batch_rows_bucket");
        double last = 0;

        for (; s; s = strstr(s + 1, "\nnsad_batch_rows_bucket")) {
            double value = strtod(strchr(s, ' '), NULL);

            assert_true(value >= last);
            last = value;
        }
        assert_true(last == strtod(find_series(text, "nsad_batch_rows_count"), NULL));
        free(text);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    expect(m, "nsad_batch_rows_count", THREADS * EVENTS);
    expect(m, "nsad_http_requests_total{route=\"/v1/select\",method=\"POST\",code=\"200\"}",
           THREADS * EVENTS);
    metrics_remove_model(m, counting.series);
    metrics_free(m);
}

static void a_small_buffer_fails_and_says_so(void **state)
{
    struct metrics *m = created();

    (void)state;
    for (size_t limit = 0; limit < 4000; limit += 37) {
        buffer out = {.max_bytes = limit};

        metrics_write(m, &gauges, &out);
        assert_int_equal(NSA_ELIMIT, out.status);
        buffer_free(&out);
    }
    metrics_free(m);
}

static nsa_status create_and_write(void *context)
{
    buffer out = {.max_bytes = (size_t)1 << 20};
    struct metrics *m = NULL;
    nsa_status status = metrics_create(&m, &setup, NULL);

    (void)context;
    if (status != NSA_OK) {
        assert_null(m);
        return status;
    }
    metrics_write(m, &gauges, &out);
    status = out.status;
    buffer_free(&out);
    metrics_free(m);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    check_every_allocation(create_and_write, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_there_from_the_start),
        cmocka_unit_test(the_text_is_well_formed),
        cmocka_unit_test(requests_count_by_route_method_and_code),
        cmocka_unit_test(the_number_of_series_is_bounded),
        cmocka_unit_test(buckets_hold_their_upper_bound),
        cmocka_unit_test(each_bucket_says_its_bound),
        cmocka_unit_test(the_other_counters_count),
        cmocka_unit_test(nothing_is_lost_and_a_scrape_agrees_with_itself),
        cmocka_unit_test(a_small_buffer_fails_and_says_so),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
