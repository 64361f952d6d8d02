#include "tests/unit/options_support.h"

#include "server/option_types.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static enum config_source source_of(const struct config *config, const char *name)
{
    for (size_t i = 0; option_table[i].name; i++) {
        if (strcmp(option_table[i].name, name) == 0)
            return (enum config_source)config->sources[i];
    }
    fail_msg("no option %s", name);
    return CONFIG_FROM_DEFAULT;
}

static const char *config_file(const char *json)
{
    return write_temporary("config.json", json, strlen(json));
}

static void defaults_are_those_of_the_contract(void **state)
{
    struct config c = loaded(NO_ARGS, NO_ENV);

    (void)state;
    assert_string_equal("127.0.0.1:8080", c.listen);
    assert_null(c.model_repository);
    assert_int_equal(0, c.models.count);
    assert_int_equal(0, c.http_threads);
    assert_int_equal(0, c.compute_threads);
    assert_int_equal(64 << 20, c.max_body_bytes);
    assert_int_equal(1024, c.max_connections);
    assert_int_equal(1024, c.max_batch_rows);
    assert_int_equal(0, c.max_queue_delay_us);
    assert_int_equal(256 << 20, c.max_queue_bytes);
    assert_int_equal(30000, c.request_timeout_ms);
    assert_int_equal(60000, c.idle_timeout_ms);
    assert_int_equal(0, c.drain_delay_ms);
    assert_int_equal(30000, c.drain_timeout_ms);
    assert_string_equal("auto", c.kernel);
    assert_string_equal("logfmt", c.log_format);
    assert_string_equal("info", c.log_level);
    assert_false(c.access_log || c.check || c.print_config || c.version || c.help);
    assert_null(c.config);
    for (size_t i = 0; option_table[i].name; i++)
        assert_int_equal(CONFIG_FROM_DEFAULT, c.sources[i]);
    config_free(&c);
    config_free(&c); /* once more is harmless */
}

static void flags_take_both_forms_and_the_last_wins(void **state)
{
    struct config c = loaded(ARGS("--listen", "[::1]:9", "--max-batch-rows=7", "--kernel=portable",
                                  "--max-batch-rows", "8", "--log-level=debug", "--check",
                                  "--healthcheck=http://h/livez?a=b"),
                             NO_ENV);

    (void)state;
    assert_string_equal("[::1]:9", c.listen);
    assert_int_equal(8, c.max_batch_rows);
    assert_string_equal("portable", c.kernel);
    assert_string_equal("debug", c.log_level);
    assert_true(c.check);
    assert_string_equal("http://h/livez?a=b", c.healthcheck);
    config_free(&c);
}

static void a_bool_has_four_spellings(void **state)
{
    static const struct {
        const char *flag;
        bool expected;
    } cases[] = {{"--access-log", true},
                 {"--no-access-log", false},
                 {"--access-log=true", true},
                 {"--access-log=false", false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config c = loaded(ARGS(cases[i].flag), ENV("NSAD_ACCESS_LOG=true"));

        assert_int_equal(cases[i].expected, c.access_log);
        assert_int_equal(CONFIG_FROM_FLAG, source_of(&c, "access-log"));
        config_free(&c);
    }
    REFUSED(NSA_EINVAL, ARGS("--access-log=yes"), NO_ENV, "--access-log", "true or false", "yes");
    REFUSED(NSA_EINVAL, ARGS("--access-log="), NO_ENV, "--access-log", "true or false");
    REFUSED(NSA_EINVAL, ARGS("--no-access-log=true"), NO_ENV, "unknown option");
    REFUSED(NSA_EINVAL, ARGS("--access-log", "true"), NO_ENV, "unexpected argument", "true");
    REFUSED(NSA_EINVAL, ARGS("--no-listen"), NO_ENV, "unknown option", "--listen");
}

static void flag_beats_environment_beats_file_beats_default(void **state)
{
    char flag[300];
    struct config c;
    const char *path = config_file("{\"max_batch_rows\": 2, \"max_connections\": 2,"
                                   " \"idle_timeout_ms\": 2, \"model\": [\"f=1\", \"g=2\"]}");

    (void)state;
    snprintf(flag, sizeof flag, "--config=%s", path);
    c = loaded(ARGS(flag, "--max-batch-rows=4"),
               ENV("NSAD_MAX_BATCH_ROWS=3", "NSAD_MAX_CONNECTIONS=3"));
    assert_int_equal(4, c.max_batch_rows);
    assert_int_equal(3, c.max_connections);
    assert_int_equal(2, c.idle_timeout_ms);
    assert_int_equal(30000, c.request_timeout_ms);
    assert_int_equal(2, c.models.count);
    assert_int_equal(CONFIG_FROM_FLAG, source_of(&c, "max-batch-rows"));
    assert_int_equal(CONFIG_FROM_ENVIRONMENT, source_of(&c, "max-connections"));
    assert_int_equal(CONFIG_FROM_FILE, source_of(&c, "idle-timeout-ms"));
    assert_int_equal(CONFIG_FROM_DEFAULT, source_of(&c, "request-timeout-ms"));
    assert_int_equal(CONFIG_FROM_FILE, source_of(&c, "model"));
    config_free(&c);
    unlink(path);
}

static void a_list_is_replaced_as_a_whole(void **state)
{
    char variable[300];
    struct config c;
    const char *path = config_file("{\"model\": [\"a=f\", \"b=g\"]}");

    (void)state;
    snprintf(variable, sizeof variable, "NSAD_CONFIG=%s", path);
    c = loaded(ARGS("--model", "x=1=2", "--model=y=3"), ENV("NSAD_MODEL=a=e,b=e", variable));
    assert_int_equal(2, c.models.count);
    assert_string_equal("x", c.models.items[0].name);
    assert_string_equal("1=2", c.models.items[0].path);
    assert_string_equal("y", c.models.items[1].name);
    assert_string_equal("3", c.models.items[1].path);
    config_free(&c);
    c = loaded(NO_ARGS, ENV("NSAD_MODEL=p=1,q=2,r=3", variable));
    assert_int_equal(3, c.models.count);
    assert_string_equal("r", c.models.items[2].name);
    config_free(&c);
    c = loaded(NO_ARGS, ENV(variable));
    assert_int_equal(2, c.models.count);
    assert_string_equal("g", c.models.items[1].path);
    config_free(&c);
    unlink(path);
}

static void a_bad_flag_names_option_range_and_value(void **state)
{
    (void)state;
    REFUSED(NSA_EINVAL, ARGS("--max-batch-rows=0"), NO_ENV, "--max-batch-rows", "from 1 to 65536",
            "\"0\"");
    REFUSED(NSA_EINVAL, ARGS("--max-batch-rows", "65537"), NO_ENV, "--max-batch-rows", "65537");
    REFUSED(NSA_EINVAL, ARGS("--max-batch-rows=-1"), NO_ENV, "\"-1\"");
    REFUSED(NSA_EINVAL, ARGS("--max-batch-rows=1e3"), NO_ENV, "\"1e3\"");
    REFUSED(NSA_EINVAL, ARGS("--max-batch-rows="), NO_ENV, "\"\"");
    REFUSED(NSA_EINVAL, ARGS("--max-batch-rows=18446744073709551617"), NO_ENV, "709551617");
    REFUSED(NSA_EINVAL, ARGS("--kernel=AVX2"), NO_ENV, "--kernel",
            "one of auto, avx512, avx2, portable", "AVX2");
    REFUSED(NSA_EINVAL, ARGS("--log-format=xml"), NO_ENV, "--log-format", "json, logfmt", "xml");
    REFUSED(NSA_EINVAL, ARGS("--listen=8080"), NO_ENV, "--listen", "ADDR:PORT", "8080");
    REFUSED(NSA_EINVAL, ARGS("--model-repository="), NO_ENV, "--model-repository", "\"\"");
    REFUSED(NSA_EINVAL, ARGS("--listen"), NO_ENV, "--listen", "no value");
    REFUSED(NSA_EINVAL, ARGS("--listen", "--check"), NO_ENV, "--listen", "no value");
    REFUSED(NSA_EINVAL, ARGS("stray"), NO_ENV, "unexpected argument", "stray");
    REFUSED(NSA_EINVAL, ARGS("-h"), NO_ENV, "unexpected argument", "-h", "--help");
    REFUSED(NSA_EINVAL, ARGS("--"), NO_ENV, "unexpected argument");
    REFUSED(NSA_EINVAL, ARGS(""), NO_ENV, "unexpected argument");
}

static void models_need_a_name_and_a_file(void **state)
{
    static const char *const bad[] = {"x", "=f", "x=", "=", ""};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED(NSA_EINVAL, ARGS("--model", bad[i]), NO_ENV, "--model", "NAME=FILE", bad[i]);
    REFUSED(NSA_EINVAL, ARGS("--model=x=1", "--model=x=2"), NO_ENV, "each NAME once", "x=2");
    REFUSED(NSA_EINVAL, NO_ARGS, ENV("NSAD_MODEL=a=1,,b=2"), "NSAD_MODEL", "\"\"");
    REFUSED(NSA_EINVAL, NO_ARGS, ENV("NSAD_MODEL=a=1,"), "NSAD_MODEL", "\"\"");
}

static void unknown_flags_name_the_nearest(void **state)
{
    char endless[4000];

    (void)state;
    REFUSED(NSA_EINVAL, ARGS("--max-batch-row=3"), NO_ENV, "nearest is --max-batch-rows",
            "--max-batch-row=3");
    REFUSED(NSA_EINVAL, ARGS("--hlep"), NO_ENV, "nearest is --help");
    REFUSED(NSA_EINVAL, ARGS("--max_body_bytes=1"), NO_ENV, "nearest is --max-body-bytes");
    REFUSED(NSA_EINVAL, ARGS("--=1"), NO_ENV, "unknown option");
    memset(endless, 'x', sizeof endless);
    memcpy(endless, "--", 2);
    endless[sizeof endless - 1] = '\0';
    REFUSED(NSA_EINVAL, ARGS(endless), NO_ENV, "unknown option");
}

static void the_environment_is_checked_and_named(void **state)
{
    struct config c = loaded(NO_ARGS, ENV("NSAD_LOG_LEVEL=", "NSAD_MAX_QUEUE_BYTES=3 MiB",
                                          "NSAD_VERSION=9", "NSAD_HELP=true", "nsad_kernel=avx2"));

    (void)state;
    assert_string_equal("info", c.log_level);
    assert_int_equal(3 << 20, c.max_queue_bytes);
    assert_false(c.version || c.help);
    assert_string_equal("auto", c.kernel);
    config_free(&c);
    REFUSED(NSA_EINVAL, NO_ARGS, ENV("NSAD_DRAIN_DELAY_MS=soon"), "NSAD_DRAIN_DELAY_MS",
            "from 0 to 86400000", "soon");
    /* A value that a flag beats is still wrong. */
    REFUSED(NSA_EINVAL, ARGS("--drain-delay-ms=1"), ENV("NSAD_DRAIN_DELAY_MS=soon"), "soon");
    assert_status(NSA_OK, config_load(&c, 0, NULL, NULL, NULL));
    config_free(&c);
}

static bool ends_with(const char *text, const char *end)
{
    return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

/* A pod gets these for a service "nsad", and the like for "nsad-model", "nsad-log", … */
static void service_variables_of_kubernetes_do_no_harm(void **state)
{
    static const char *const ends[] = {"_PORT", "_SERVICE_HOST", "_SERVICE_PORT",
                                       "_ADDR", "_PROTO",        "_TCP"};
    struct config c = loaded(
        NO_ARGS,
        ENV("NSAD_SERVICE_HOST=10.0.0.1", "NSAD_SERVICE_PORT=8080", "NSAD_SERVICE_PORT_HTTP=8080",
            "NSAD_PORT=tcp://10.0.0.1:8080", "NSAD_PORT_8080_TCP=tcp://10.0.0.1:8080",
            "NSAD_PORT_8080_TCP_PROTO=tcp", "NSAD_PORT_8080_TCP_ADDR=10.0.0.1",
            "NSAD_MODEL_PORT=tcp://10.0.0.2:1", "NSAD_MODEL_SERVICE_HOST=10.0.0.2"));

    (void)state;
    for (size_t i = 0; option_table[i].name; i++) {
        char name[OPTION_NAME_BYTES];

        assert_int_equal(CONFIG_FROM_DEFAULT, c.sources[i]);
        option_variable(name, &option_table[i]);
        assert_true(strlen(name) < OPTION_NAME_BYTES - 1);
        assert_int_not_equal(0, strncmp(name, "NSAD_PORT", 9));
        assert_int_not_equal(0, strncmp(name, "NSAD_SERVICE", 12));
        for (size_t j = 0; j < sizeof ends / sizeof *ends; j++)
            assert_false(ends_with(name, ends[j]));
    }
    config_free(&c);
}

static void bad_files_name_the_key(void **state)
{
    static const struct {
        const char *json;
        nsa_status status;
        const char *part, *also;
    } cases[] = {
        {"{\"max_batch_rows\": 0}", NSA_EINVAL, "config.json:max_batch_rows: expected an integer",
         "\"0\""},
        {"{\"max_batch_rows\": \"8\"}", NSA_EINVAL, ":max_batch_rows:", "got a string"},
        {"{\"max_batch_rows\": 8.0}", NSA_EINVAL, ":max_batch_rows:", "got a real"},
        {"{\"max_batch_rows\": null}", NSA_EINVAL, ":max_batch_rows:", "got null"},
        {"{\"max_batch_rows\": -8}", NSA_EINVAL, ":max_batch_rows:", "\"-8\""},
        {"{\"max_body_bytes\": \"1MB\"}", NSA_EINVAL, ":max_body_bytes:", "1MB"},
        {"{\"access_log\": \"true\"}", NSA_EINVAL, ":access_log:", "true or false, got a string"},
        {"{\"kernel\": true}", NSA_EINVAL, ":kernel:", "got true"},
        {"{\"kernel\": [\"avx2\"]}", NSA_EINVAL, ":kernel:", "got an array"},
        {"{\"listen\": {}}", NSA_EINVAL, ":listen:", "got an object"},
        {"{\"model\": \"a=b\"}", NSA_EINVAL, ":model:", "an array of texts, got a string"},
        {"{\"model\": [\"a=b\", 3]}", NSA_EINVAL, ":model[1]:", "got an integer"},
        {"{\"model\": [\"a=b\", \"c\"]}", NSA_EINVAL, ":model[1]:", "\"c\""},
        {"{\"max-batch-rows\": 8}", NSA_EINVAL, "unknown key", "nearest is \"max_batch_rows\""},
        {"{\"max_batch_row\": 8}", NSA_EINVAL, "got \"max_batch_row\"", "\"max_batch_rows\""},
        {"{\"help\": true}", NSA_EINVAL, "unknown key", "got \"help\""},
        {"{\"config\": \"x\"}", NSA_EINVAL, "unknown key", "got \"config\""},
        {"{\"\": 1}", NSA_EINVAL, "unknown key", "got \"\""},
        {"{\"kernel\": \"a\\u0000b\"}", NSA_EFORMAT, "config.json:1:", "NUL"},
        {"{\"kernel\": \"avx2\", \"kernel\": \"avx2\"}", NSA_EFORMAT, "duplicate", "kernel"},
        {"{\"kernel\": \"avx2\",}", NSA_EFORMAT, "config.json:1:", ""},
        {"{} {}", NSA_EFORMAT, "config.json:1:", ""},
        {"[]", NSA_EFORMAT, "expected a JSON object", ""},
        {"", NSA_EFORMAT, "config.json:1:", ""},
        {"\xFF", NSA_EFORMAT, "config.json:", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = config_file(cases[i].json);

        REFUSED(cases[i].status, ARGS("--config", path), NO_ENV, cases[i].part, cases[i].also);
        unlink(path);
    }
}

static void a_file_sets_every_type(void **state)
{
    const char *path = config_file("{\"listen\": \"unix:/s\", \"model\": [], \"max_batch_rows\": 5,"
                                   " \"max_body_bytes\": \"2KiB\", \"max_queue_bytes\": 9,"
                                   " \"access_log\": true, \"log_format\": \"json\"}");
    struct config c = loaded(ARGS("--config", path), NO_ENV);

    (void)state;
    assert_string_equal("unix:/s", c.listen);
    assert_int_equal(0, c.models.count);
    assert_int_equal(5, c.max_batch_rows);
    assert_int_equal(2048, c.max_body_bytes);
    assert_int_equal(9, c.max_queue_bytes);
    assert_true(c.access_log);
    assert_string_equal("json", c.log_format);
    config_free(&c);
    unlink(path);
}

static void files_that_cannot_be_read(void **state)
{
    size_t size = CONFIG_MAX_FILE_BYTES + 1;
    char *blanks = malloc(size);
    const char *path;
    struct config c;

    (void)state;
    assert_non_null(blanks);
    memset(blanks, ' ', size);
    memcpy(blanks, "{}", 2);
    path = write_temporary("large.json", blanks, size);
    REFUSED(NSA_ELIMIT, ARGS("--config", path), NO_ENV, path, "1048576");
    unlink(path);
    path = write_temporary("large.json", blanks, size - 1);
    c = loaded(ARGS("--config", path), NO_ENV);
    config_free(&c);
    unlink(path);
    free(blanks);
    REFUSED(NSA_EIO, ARGS("--config", "/nonexistent/nsad.json"), NO_ENV, "/nonexistent/nsad.json",
            "No such file");
    REFUSED(NSA_EIO, ARGS("--config", "/tmp"), NO_ENV, "/tmp: ");
}

static void help_and_version_need_no_environment(void **state)
{
    struct config c =
        loaded(ARGS("--help", "--config=/nonexistent"), ENV("NSAD_MAX_BATCH_ROWS=bad"));

    (void)state;
    assert_true(c.help);
    config_free(&c);
    c = loaded(ARGS("--version"), ENV("NSAD_CONFIG=/nonexistent"));
    assert_true(c.version);
    config_free(&c);
}

static nsa_status load_from_everywhere(void *path)
{
    struct config c;
    nsa_status status = load(&c, ARGS("--config", path, "--model=a=b", "--model=c=d"),
                             ENV("NSAD_MODEL=e=f,g=h", "NSAD_MODEL_REPOSITORY=/m"), NULL);
    FILE *to;

    if (status != NSA_OK)
        return status;
    to = fopen("/dev/null", "w");
    assert_non_null(to);
    status = config_print_json(to, &c);
    fclose(to);
    config_free(&c);
    return status;
}

/* Short texts only: jansson 2.14 reads on past one whose buffer failed to grow (at 16 bytes). */
static void every_allocation_may_fail(void **state)
{
    const char *path = config_file("{\"listen\": \"[::]:80\", \"model\": [\"x=y\"],"
                                   " \"log_level\": \"error\", \"http_threads\": 9}");

    (void)state;
    check_every_allocation(load_from_everywhere, (void *)path);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_contract),
        cmocka_unit_test(flags_take_both_forms_and_the_last_wins),
        cmocka_unit_test(a_bool_has_four_spellings),
        cmocka_unit_test(flag_beats_environment_beats_file_beats_default),
        cmocka_unit_test(a_list_is_replaced_as_a_whole),
        cmocka_unit_test(a_bad_flag_names_option_range_and_value),
        cmocka_unit_test(models_need_a_name_and_a_file),
        cmocka_unit_test(unknown_flags_name_the_nearest),
        cmocka_unit_test(the_environment_is_checked_and_named),
        cmocka_unit_test(service_variables_of_kubernetes_do_no_harm),
        cmocka_unit_test(bad_files_name_the_key),
        cmocka_unit_test(a_file_sets_every_type),
        cmocka_unit_test(files_that_cannot_be_read),
        cmocka_unit_test(help_and_version_need_no_environment),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
