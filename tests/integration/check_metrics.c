/* /metrics: every series from the start, and sums that agree with what was sent. */
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"
#include "tests/integration/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REQUESTS(route, method, code)                                                              \
    "nsad_http_requests_total{route=\"" route "\",method=\"" method "\",code=\"" code "\"}"
#define OF(op) "{op=\"" op "\",model=\"" op "\"}"
#define ROWS3 "{\"input\": [[1,2],[3,4],[5,6]]}"

/* --- at the start -------------------------------------------------------------------------- */

/* Series that stand for something present: not zero, without any request. */
static bool is_presence(const char *line)
{
    static const char *const names[] = {"nsad_inflight_requests ", "nsad_model_info{",
                                        "nsad_model_ready{", "nsad_build_info{"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strncmp(line, names[i], strlen(names[i])) == 0)
            return true;
    }
    return false;
}

/* Every line is a comment or a series with a number; all but those above are zero. */
static void check_lines(const char *page)
{
    const char *next;

    for (const char *line = page; *line; line = next + 1) {
        const char *value;
        char *end;

        next = strchr(line, '\n');
        assert_non_null(next);
        if (strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# TYPE ", 7) == 0 ||
            strncmp(line, "process_", 8) == 0)
            continue;
        value = next;
        while (value > line && value[-1] != ' ')
            value--;
        if ((strtod(value, &end) == 0) == is_presence(line) || end != next)
            fail_msg("before any request: %.*s", (int)(next - line), line);
    }
}

static void test_start(void **state)
{
    static const char *const series[] = {
        REQUESTS("/v1/select", "POST", "200"),
        REQUESTS("/v1/compress", "POST", "429"),
        REQUESTS("/v1/posembed", "OTHER", "405"),
        REQUESTS("/v1/models", "HEAD", "200"),
        REQUESTS("/metrics", "GET", "503"),
        REQUESTS("/openapi.yaml", "GET", "200"),
        REQUESTS("/readyz", "GET", "503"),
        REQUESTS("/v2/health/live", "GET", "200"),
        REQUESTS("other", "GET", "404"),
        REQUESTS("other", "OTHER", "404"),
        "nsad_request_duration_seconds_bucket{op=\"select\",model=\"select\",le=\"1e-05\"}",
        "nsad_request_duration_seconds_bucket{op=\"compress\",model=\"compress\",le=\"10\"}",
        "nsad_request_duration_seconds_bucket{op=\"posembed\",model=\"posembed\",le=\"+Inf\"}",
        "nsad_request_duration_seconds_sum" OF("compress"),
        "nsad_stage_duration_seconds_count{stage=\"parse\"}",
        "nsad_stage_duration_seconds_count{stage=\"queue\"}",
        "nsad_stage_duration_seconds_count{stage=\"compute\"}",
        "nsad_stage_duration_seconds_count{stage=\"encode\"}",
        "nsad_batch_rows_bucket{le=\"1\"}",
        "nsad_batch_rows_sum",
        "nsad_rows_total" OF("select"),
        "nsad_rows_total" OF("posembed"),
        "nsad_request_bytes_total",
        "nsad_response_bytes_total",
        "nsad_queue_rows",
        "nsad_queue_bytes",
        "nsad_models_refused",
        "nsad_rejected_total{reason=\"queue_full\"}",
        "nsad_rejected_total{reason=\"deadline\"}",
        "nsad_rejected_total{reason=\"client_gone\"}",
        "nsad_rejected_total{reason=\"body_too_large\"}",
        "nsad_rejected_total{reason=\"slow_request\"}",
        "nsad_rejected_total{reason=\"not_ready\"}",
    };
    struct daemon *daemon;
    struct client *client;
    const char *table = write_table("metrics.safetensors");

    (void)state;
    daemon = DAEMON("--model", "compress=" TINY_WEIGHTS, "--model",
                    model_argument("posembed", table), "--kernel", "portable");
    client = client_open(daemon);
    check_lines(client_get(client, "/metrics")->body);
    expect_header(client, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    for (size_t i = 0; i < sizeof series / sizeof *series; i++)
        metric(client, series[i]); /* fails if there is none */
    assert_true(metric(client, "nsad_model_ready{model=\"compress\",version=\"1\"}") == 1);
    assert_true(metric(client, "process_open_fds") > 0);
    expect_reply(
        client_get(client, "/metrics"), 200,
        "nsad_model_info{model=\"posembed\",version=\"1\",op=\"posembed\",precision=\"f32\","
        "sha256=\"");
    expect_reply(client_get(client, "/metrics"), 200, "nsad_build_info{version=\"0.");
    expect_reply(client_get(client, "/metrics"), 200, ",kernel=\"portable\"} 1\n");
    unlink(table);
    client_close(client);
    daemon_stop(daemon);
}

/* --- sums ---------------------------------------------------------------------------------- */

struct traffic {
    const char *method; /* NULL: as struct call has it */
    const char *path;
    const char *body;
    long status;
    size_t times;
    const char *series; /* which counts them */
};

static const struct traffic traffic[] = {
    {NULL, "/v1/select?num_selected_blocks=1", ROWS3, 200, 4,
     REQUESTS("/v1/select", "POST", "200")},
    {NULL, "/v1/select?num_selected_blocks=9", ROWS3, 400, 2,
     REQUESTS("/v1/select", "POST", "400")},
    {NULL, "/v1/posembed", "{\"input\": [[[1]],[[2]],[[3]]]}", 200, 3,
     REQUESTS("/v1/posembed", "POST", "200")},
    {NULL, "/v1/posembed?model=none", ROWS3, 404, 1, REQUESTS("/v1/posembed", "POST", "404")},
    {NULL, "/v1/compress", "{\"input\": [[1,2,3,4,5,6,7,8],[1,2,3,4,5,6,7,8]]}", 200, 5,
     REQUESTS("/v1/compress", "POST", "200")},
    {"PUT", "/v1/compress", "{}", 405, 1, REQUESTS("/v1/compress", "OTHER", "405")},
    {NULL, "/none", NULL, 404, 2, REQUESTS("other", "GET", "404")},
    {"FROB", "/none?x=y", "abc", 404, 1, REQUESTS("other", "OTHER", "404")},
    {NULL, "/livez", NULL, 200, 3, REQUESTS("/livez", "GET", "200")},
    {"HEAD", "/livez", NULL, 200, 2, REQUESTS("/livez", "HEAD", "200")},
    {NULL, "/readyz", "x", 405, 1, REQUESTS("/readyz", "OTHER", "405")},
};

/* What is expected after the traffic, in other series. */
static const struct {
    const char *series;
    double value;
} sums[] = {
    {"nsad_rows_total" OF("select"), 12},
    {"nsad_rows_total" OF("posembed"), 9},
    {"nsad_rows_total" OF("compress"), 5},
    {"nsad_request_duration_seconds_count" OF("select"), 4},
    {"nsad_request_duration_seconds_bucket{op=\"select\",model=\"select\",le=\"+Inf\"}", 4},
    {"nsad_request_duration_seconds_count" OF("posembed"), 3},
    {"nsad_request_duration_seconds_count" OF("compress"), 5},
    {"nsad_stage_duration_seconds_count{stage=\"parse\"}", 12},
    {"nsad_stage_duration_seconds_count{stage=\"queue\"}", 12},
    {"nsad_stage_duration_seconds_count{stage=\"compute\"}", 12},
    {"nsad_stage_duration_seconds_count{stage=\"encode\"}", 12},
    {"nsad_batch_rows_count", 12},
    {"nsad_batch_rows_sum", 26},
    {"nsad_batch_rows_bucket{le=\"1\"}", 5},
    {"nsad_batch_rows_bucket{le=\"2\"}", 5},
    {"nsad_batch_rows_bucket{le=\"4\"}", 12},
    {"nsad_queue_rows", 0},
    {"nsad_queue_bytes", 0},
    {"nsad_inflight_requests", 1}, /* the scrape */
};

/* The sum of every series whose line begins with `name`. */
static double sum_of(const char *page, const char *name)
{
    double sum = 0;

    for (const char *line = strstr(page, name); line; line = strstr(line + 1, name)) {
        if (line == page || line[-1] == '\n')
            sum += strtod(line + strcspn(line, " \n"), NULL);
    }
    return sum;
}

static void expect_sum(const char *page, const char *series, double value)
{
    char text[256];
    double got;

    snprintf(text, sizeof text, "%s ", series);
    got = strstr(page, text) ? sum_of(page, text) : -1;
    if (got != value)
        fail_msg("%s: expected %g, got %g", series, value, got);
}

/* All on one connection, where each request is counted before the next is read. */
static void test_sums(void **state)
{
    struct daemon *daemon = DAEMON("--model", "compress=" TINY_WEIGHTS, "--model",
                                   "posembed=tests/golden/posembed_one.safetensors");
    struct client *client = client_open(daemon);
    size_t received = client_get(client, "/metrics")->size;
    size_t sent = 0;
    size_t calls = 1;
    char *page;

    (void)state;
    for (size_t i = 0; i < sizeof traffic / sizeof *traffic; i++) {
        const struct call call = {.method = traffic[i].method,
                                  .path = traffic[i].path,
                                  .body = traffic[i].body,
                                  .headers = {"Content-Type: application/json"}};

        for (size_t j = 0; j < traffic[i].times; j++) {
            const struct reply *reply = client_call(client, &call);

            expect_reply(reply, traffic[i].status, NULL);
            received += reply->size;
            sent += traffic[i].body ? strlen(traffic[i].body) : 0;
            calls++;
        }
    }
    page = strdup(client_get(client, "/metrics")->body);
    assert_non_null(page);
    assert_int_equal(1, client_connections(client));
    assert_true(sum_of(page, "nsad_http_requests_total{") == (double)calls);
    assert_true(sum_of(page, "nsad_request_bytes_total ") == (double)sent);
    assert_true(sum_of(page, "nsad_response_bytes_total ") == (double)received);
    assert_true(sum_of(page, "nsad_rejected_total{") == 0);
    for (size_t i = 0; i < sizeof traffic / sizeof *traffic; i++)
        expect_sum(page, traffic[i].series, (double)traffic[i].times);
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        expect_sum(page, sums[i].series, sums[i].value);
    free(page);
    client_close(client);
    daemon_stop(daemon);
}

int run_metrics(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_start, daemons_kill),
        cmocka_unit_test_teardown(test_sums, daemons_kill),
    };

    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
