#include "tests/unit/options_support.h"

#include "server/log.h"
#include "server/option_types.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

static void byte_sizes_take_suffixes(void **state)
{
    static const struct {
        const char *text;
        size_t expected; /* 0: refused */
    } cases[] = {
        {"1", 1},
        {"65536", 65536},
        {"1KiB", 1024},
        {"64MiB", 64 << 20},
        {"64 MiB", 64 << 20},
        {"2GiB", (size_t)2 << 30},
        {"1024GiB", (size_t)1 << 40},
        {"1025GiB", 0},
        {"0", 0},
        {"0KiB", 0},
        {"1MB", 0},
        {"1kib", 0},
        {"1  KiB", 0},
        {"1 ", 0},
        {"KiB", 0},
        {"1KiBx", 0},
        {"1.5MiB", 0},
        {"18446744073709551615GiB", 0},
        {"17179869184GiB", 0}, /* 2^64 */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config c;

        if (cases[i].expected == 0) {
            REFUSED(NSA_EINVAL, ARGS("--max-body-bytes", cases[i].text), NO_ENV,
                    "--max-body-bytes: expected bytes from 1 to 1024GiB", cases[i].text);
            continue;
        }
        c = loaded(ARGS("--max-body-bytes", cases[i].text), NO_ENV);
        assert_int_equal(cases[i].expected, c.max_body_bytes);
        config_free(&c);
    }
}

static void addresses_parse_to_sockets(void **state)
{
    struct sockaddr_storage socket;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&socket;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&socket;
    const struct sockaddr_un *un = (const struct sockaddr_un *)&socket;
    socklen_t bytes;

    (void)state;
    assert_status(NSA_OK, config_parse_address(&socket, &bytes, "127.0.0.1:8080", NULL));
    assert_int_equal(AF_INET, v4->sin_family);
    assert_int_equal(INADDR_LOOPBACK, ntohl(v4->sin_addr.s_addr));
    assert_int_equal(8080, ntohs(v4->sin_port));
    assert_int_equal(sizeof *v4, bytes);
    assert_status(NSA_OK, config_parse_address(&socket, &bytes, "localhost:0", NULL));
    assert_int_equal(INADDR_LOOPBACK, ntohl(v4->sin_addr.s_addr));
    assert_int_equal(0, v4->sin_port);
    assert_status(NSA_OK, config_parse_address(&socket, &bytes, "[::1]:65535", NULL));
    assert_int_equal(AF_INET6, v6->sin6_family);
    assert_true(IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr));
    assert_int_equal(65535, ntohs(v6->sin6_port));
    assert_int_equal(sizeof *v6, bytes);
    assert_status(NSA_OK, config_parse_address(&socket, &bytes, "unix:/run/a:b", NULL));
    assert_int_equal(AF_UNIX, un->sun_family);
    assert_string_equal("/run/a:b", un->sun_path);
    assert_int_equal(offsetof(struct sockaddr_un, sun_path) + 9, bytes);
}

static void bad_addresses_are_refused(void **state)
{
    static const char *const bad[] = {
        "",
        ":",
        ":80",
        "80",
        "127.0.0.1",
        "127.0.0.1:",
        "1.2.3:80",
        "1.2.3.4:x",
        "1.2.3.4:-1",
        "1.2.3.4:65536",
        "1.2.3.4:+80",
        "1.2.3.4: 80",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[]:80",
        "[:80",
        "[1.2.3.4]:80",
        "unix:",
        "unix:run/x",
        "Unix:/x",
        "example.org:80",
        "1.2.3.4:000080",
        "[::1]x:80",
        "http://1.2.3.4:80",
        "1.2.3.4:80/",
        "111111111111111111111111111111111111111111111111111111111111111111111111111111:80"};
    struct sockaddr_storage socket;
    char path[200] = "unix:/";
    socklen_t bytes = 77;
    nsa_error err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (config_parse_address(&socket, &bytes, bad[i], &err) != NSA_EINVAL)
            fail_msg("%s was taken", bad[i]);
        assert_message(err, bad[i]);
    }
    memset(path + 6, 'x', 5 + 108 - 6); /* as many bytes as sun_path has, and no NUL */
    assert_status(NSA_EINVAL, config_parse_address(&socket, &bytes, path, &err));
    assert_int_equal(77, bytes);
    path[5 + 107] = '\0';
    assert_status(NSA_OK, config_parse_address(&socket, &bytes, path, &err));
}

static void texts_and_lists_are_bounded(void **state)
{
    static char text[CONFIG_MAX_TEXT_BYTES + 1];
    static char list[16 + CONFIG_MAX_MODELS * 8] = "NSAD_MODEL=";
    struct config c;

    (void)state;
    memset(text, 'x', CONFIG_MAX_TEXT_BYTES);
    REFUSED(NSA_EINVAL, ARGS("--model-repository", text), NO_ENV, "--model-repository", "4095");
    text[CONFIG_MAX_TEXT_BYTES - 1] = '\0';
    c = loaded(ARGS("--model-repository", text), NO_ENV);
    assert_string_equal(text, c.model_repository);
    config_free(&c);
    for (size_t i = 0; i < CONFIG_MAX_MODELS; i++)
        sprintf(list + strlen(list), "%sm%zu=f", i ? "," : "", i);
    c = loaded(NO_ARGS, ENV(list));
    assert_int_equal(CONFIG_MAX_MODELS, c.models.count);
    config_free(&c);
    strcat(list, ",z=f");
    REFUSED(NSA_EINVAL, NO_ARGS, ENV(list), "NSAD_MODEL", "at most 1024", "z=f");
}

/* What `print` writes; the caller frees. */
static char *printed(void (*print)(FILE *to))
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    assert_non_null(to);
    print(to);
    assert_int_equal(0, fclose(to));
    return text;
}

static void effective_configuration_is_json_with_sources(void **state)
{
    struct config c = loaded(ARGS("--model=a\"b=c\\d", "--model=e=\xC3\xA9\xFF"),
                             ENV("NSAD_LOG_LEVEL=warn", "NSAD_ACCESS_LOG=true"));
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    json_t *root, *item;
    size_t settings = 0;

    (void)state;
    assert_status(NSA_OK, config_print_json(to, &c));
    fclose(to);
    root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    for (const struct option *option = option_table; option->name; option++) {
        char key[OPTION_NAME_BYTES];

        settings += option->scope != OPTION_FLAG_ONLY;
        item = json_object_get(root, option_key(key, option));
        assert_int_equal(option->scope != OPTION_FLAG_ONLY, item != NULL);
    }
    assert_int_equal(settings, json_object_size(root));
    item = json_object_get(root, "model");
    assert_string_equal("flag", json_string_value(json_object_get(item, "source")));
    item = json_object_get(item, "value");
    assert_string_equal("a\"b=c\\d", json_string_value(json_array_get(item, 0)));
    assert_string_equal("e=\xC3\xA9\xEF\xBF\xBD", json_string_value(json_array_get(item, 1)));
    item = json_object_get(root, "log_level");
    assert_string_equal("warn", json_string_value(json_object_get(item, "value")));
    assert_string_equal("environment", json_string_value(json_object_get(item, "source")));
    assert_true(json_is_true(json_object_get(json_object_get(root, "access_log"), "value")));
    item = json_object_get(root, "max_body_bytes");
    assert_int_equal(64 << 20, json_integer_value(json_object_get(item, "value")));
    assert_string_equal("default", json_string_value(json_object_get(item, "source")));
    assert_true(json_is_null(json_object_get(json_object_get(root, "config"), "value")));
    json_decref(root);
    free(text);
    config_free(&c);
}

static void printing_to_a_full_device_is_an_error(void **state)
{
    struct config c = loaded(NO_ARGS, NO_ENV);
    FILE *to = fopen("/dev/full", "w");

    (void)state;
    assert_non_null(to);
    setbuf(to, NULL);
    assert_status(NSA_EIO, config_print_json(to, &c));
    fclose(to);
    config_free(&c);
}

static void help_and_table_show_every_option(void **state)
{
    char *help = printed(config_print_help);
    char *table = printed(options_print_markdown);
    size_t rows = 0;

    (void)state;
    for (const struct option *option = option_table; option->name; option++, rows++) {
        char text[2 * OPTION_NAME_BYTES];

        snprintf(text, sizeof text, "--%s%s",
                 option->type == OPTION_BOOL && option->scope != OPTION_FLAG_ONLY ? "[no-]" : "",
                 option->name);
        assert_non_null(strstr(help, text));
        assert_non_null(strstr(help, option->help));
        snprintf(text, sizeof text, "| `--%s", option->name);
        assert_non_null(strstr(table, text));
    }
    for (const char *line = help; *line; line = strchr(line, '\n') + 1)
        assert_in_range(strcspn(line, "\n"), 0, 100);
    for (const char *line = table; *line; line = strchr(line, '\n') + 1) {
        size_t bars = 0;

        for (const char *c = line; *c != '\n'; c++)
            bars += *c == '|';
        assert_int_equal(7, bars);
        rows--;
    }
    assert_int_equal(-2, (long)rows); /* the head's two lines */
    free(help);
    free(table);
}

static void log_choices_are_those_of_the_log(void **state)
{
    enum log_format format;
    enum log_level level;
    size_t formats = 0, levels = 0;

    (void)state;
    for (const struct option *option = option_table; option->name; option++) {
        if (strcmp(option->name, "log-format") == 0) {
            for (; option->choices[formats]; formats++)
                assert_true(log_format_from_name(&format, option->choices[formats]));
        } else if (strcmp(option->name, "log-level") == 0) {
            for (; option->choices[levels]; levels++)
                assert_true(log_level_from_name(&level, option->choices[levels]));
        }
    }
    assert_int_equal(LOG_FORMAT_COUNT, formats);
    assert_int_equal(LOG_LEVEL_COUNT, levels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_sizes_take_suffixes),
        cmocka_unit_test(addresses_parse_to_sockets),
        cmocka_unit_test(bad_addresses_are_refused),
        cmocka_unit_test(texts_and_lists_are_bounded),
        cmocka_unit_test(effective_configuration_is_json_with_sources),
        cmocka_unit_test(printing_to_a_full_device_is_an_error),
        cmocka_unit_test(help_and_table_show_every_option),
        cmocka_unit_test(log_choices_are_those_of_the_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
