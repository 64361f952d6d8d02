/* The command line, and what the program prints and listens on. */
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"
#include "tests/integration/http.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The run ends with `exit_status`; `out` and `err` are parts of what it prints, NULL for nothing.
 */
static void expect_run(struct outcome outcome, int exit_status, const char *out, const char *err)
{
    if (outcome.exit_status != exit_status ||
        (out ? !strstr(outcome.out, out) : *outcome.out != '\0') ||
        (err ? !strstr(outcome.err, err) : *outcome.err != '\0'))
        fail_msg("expected %d, '%s' and '%s', got %d,\n%s\n%s", exit_status, out ? out : "",
                 err ? err : "", outcome.exit_status, outcome.out, outcome.err);
    outcome_free(&outcome);
}

static void test_information(void **state)
{
    (void)state;
    expect_run(RUN("--version"), 0, "nsad 0.", NULL);
    expect_run(RUN("--help"), 0, "--max-body-bytes BYTES", NULL);
    expect_run(RUN("--help"), 0, "NSAD_MAX_BODY_BYTES", NULL);
    /* Nothing else is looked at. */
    expect_run(RUN("--help", "--config", "/nonexistent"), 0, "Usage: nsad", NULL);
}

static const json_t *setting(const json_t *root, const char *key, const char *source)
{
    const json_t *entry = json_object_get(root, key);

    if (!entry)
        fail_msg("no %s", key);
    assert_string_equal(source, json_string_value(json_object_get(entry, "source")));
    return json_object_get(entry, "value");
}

static void test_print_config(void **state)
{
    static const char config[] =
        "{\"http_threads\": 3, \"max_queue_bytes\": \"2KiB\", \"compute_threads\": 9}";
    const char *file = write_temporary("config.json", config, strlen(config));
    struct outcome outcome;
    json_t *root;

    (void)state;
    setenv("NSAD_COMPUTE_THREADS", "5", 1);
    outcome = RUN("--print-config", "--config", file, "--max-body-bytes", "1MiB");
    unsetenv("NSAD_COMPUTE_THREADS");
    unlink(file);
    assert_int_equal(0, outcome.exit_status);
    root = json_loads(outcome.out, JSON_REJECT_DUPLICATES, NULL);
    if (!root)
        fail_msg("not JSON: %s", outcome.out);
    assert_int_equal(3, json_integer_value(setting(root, "http_threads", "file")));
    assert_int_equal(5, json_integer_value(setting(root, "compute_threads", "environment")));
    assert_true(setting(root, "max_body_bytes", "flag"));
    assert_true(setting(root, "max_queue_bytes", "file"));
    assert_int_equal(30000, json_integer_value(setting(root, "request_timeout_ms", "default")));
    assert_string_equal("127.0.0.1:0", json_string_value(setting(root, "listen", "flag")));
    json_decref(root);
    outcome_free(&outcome);
}

static void test_bad_options(void **state)
{
    const char *file = write_temporary("bad.json", "{\"http_thread\": 3}", 18);

    (void)state;
    expect_run(RUN("--frobnicate"), 2, NULL, "--frobnicate");
    expect_run(RUN("--http-thread", "1"), 2, NULL, "--http-threads");
    expect_run(RUN("serve"), 2, NULL, "unexpected argument");
    expect_run(RUN("--http-threads", "257"), 2, NULL, "0 to 256");
    expect_run(RUN("--http-threads", "-1"), 2, NULL, "--http-threads");
    expect_run(RUN("--max-body-bytes", "12XB"), 2, NULL, "\"12XB\"");
    expect_run(RUN("--kernel", "sse"), 2, NULL, "avx512");
    expect_run(RUN("--log-level", "loud"), 2, NULL, "warn");
    expect_run(RUN("--listen", "nowhere"), 2, NULL, "nowhere");
    expect_run(RUN("--listen", "127.0.0.1:65536"), 2, NULL, "65536");
    expect_run(RUN("--model", "nameless"), 2, NULL, "nameless");
    expect_run(RUN("--max-batch-rows"), 2, NULL, "got no value");
    expect_run(RUN("--config", "/nonexistent"), 2, NULL, "/nonexistent");
    expect_run(RUN("--config", file), 2, NULL, "http_threads");
    setenv("NSAD_DRAIN_DELAY_MS", "soon", 1);
    expect_run(RUN("--check"), 2, NULL, "NSAD_DRAIN_DELAY_MS");
    unsetenv("NSAD_DRAIN_DELAY_MS");
    unlink(file);
}

/* Two cannot listen in one place. */
static void test_address_in_use(void **state)
{
    struct daemon *daemon = DAEMON("--log-level", "info");

    (void)state;
    expect_run(RUN("--listen", daemon_address(daemon)), 2, NULL, daemon_address(daemon));
    daemon_stop(daemon);
}

/* --- listening ----------------------------------------------------------------------------- */

static void test_unix_socket(void **state)
{
    char root[REPOSITORY_MAX_PATH_BYTES];
    char listen[REPOSITORY_MAX_PATH_BYTES + 32];
    const char *path = listen + strlen("unix:");
    struct daemon *daemon;
    struct client *client;

    (void)state;
    repository_make(root);
    snprintf(listen, sizeof listen, "unix:%s/nsad.socket", root);
    for (int round = 0; round < 2; round++) {
        daemon = DAEMON("--listen", listen);
        assert_string_equal(listen, daemon_address(daemon));
        client = client_open(daemon);
        expect_reply(client_get(client, "/readyz"), 200, NULL);
        expect_reply(client_json(client, "/v1/select?num_selected_blocks=1", "{\"input\": [1]}"),
                     200, NULL);
        client_close(client);
        expect_run(RUN("--listen", listen), 2, NULL, path); /* it is alive */
        assert_int_equal(0, access(path, F_OK));
        expect_run(RUN("--healthcheck", listen), 0, NULL, NULL);
        if (round == 0) {
            /* One that was killed leaves its socket behind: the next takes its place. */
            daemon_signal(daemon, SIGKILL);
            daemon_expect_exit(daemon, 128 + SIGKILL);
            assert_int_equal(0, access(path, F_OK));
        } else {
            daemon_stop(daemon);
            assert_int_equal(-1, access(path, F_OK));
        }
    }
    /* Any other file stays. */
    repository_put_text(root, "nsad.socket", "mine");
    expect_run(RUN("--listen", listen), 2, NULL, path);
    assert_int_equal(0, access(path, F_OK));
    repository_remove(root);
}

static void test_healthcheck(void **state)
{
    struct daemon *daemon = DAEMON("--log-level", "info");
    char url[256];

    (void)state;
    snprintf(url, sizeof url, "http://%s/readyz", daemon_address(daemon));
    expect_run(RUN("--healthcheck", url), 0, NULL, NULL);
    snprintf(url, sizeof url, "http://%s/none", daemon_address(daemon));
    expect_run(RUN("--healthcheck", url), 1, NULL, "404");
    snprintf(url, sizeof url, "http://%s/readyz", daemon_address(daemon));
    daemon_stop(daemon);
    expect_run(RUN("--healthcheck", url), 1, NULL, "nsad: ");
}

/* Values from requests cannot forge a line of the log. */
static void test_access_log(void **state)
{
    struct daemon *daemon = DAEMON("--access-log");
    struct client *client = client_open(daemon);

    (void)state;
    client_call(client, &(struct call){.path = "/x%0Alevel=error%20msg=forged",
                                       .headers = {"X-Request-Id: seen-1",
                                                   "traceparent: 00-0af7651916cd43dd8448eb211c80319"
                                                   "c-b7ad6b7169203331-01"}});
    daemon_wait_log(daemon, "request_id=seen-1", 1);
    daemon_wait_log(daemon, "path=\"/x\\u000alevel=error msg=forged\"", 1);
    daemon_wait_log(daemon, "status=404", 1);
    daemon_wait_log(daemon, "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                    1);
    client_close(client);
    daemon_stop(daemon);
}

int run_command(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_information, daemons_kill),
        cmocka_unit_test_teardown(test_print_config, daemons_kill),
        cmocka_unit_test_teardown(test_bad_options, daemons_kill),
        cmocka_unit_test_teardown(test_address_in_use, daemons_kill),
        cmocka_unit_test_teardown(test_unix_socket, daemons_kill),
        cmocka_unit_test_teardown(test_healthcheck, daemons_kill),
        cmocka_unit_test_teardown(test_access_log, daemons_kill),
    };

    return cmocka_run_group_tests_name("command line", tests, NULL, NULL);
}
