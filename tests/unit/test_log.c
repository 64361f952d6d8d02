#include "tests/unit/support.h"

#include "server/log.h"

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A pair of datagram sockets: each write(2) to one end is one recv(2) at the other. */
static int ends[2];

static int open_ends(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
}

static int close_ends(void **state)
{
    (void)state;
    log_open(STDERR_FILENO, LOG_LOGFMT, LOG_INFO);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

/* The one line that was written, without its timestamp; static. */
static const char *next_line(enum log_format format)
{
    static char line[LOG_MAX_LINE_BYTES + 1];
    const char *head = format == LOG_JSON ? "{\"time\":\"" : "time=";
    const char *after = format == LOG_JSON ? "\"," : " ";
    const char *stamp = line + strlen(head);
    ssize_t size = recv(ends[1], line, sizeof line - 1, MSG_DONTWAIT);
    int year, month, day, hour, minute, second, ms, end = 0;

    assert_in_range(size, 1, LOG_MAX_LINE_BYTES);
    line[size] = '\0';
    assert_int_equal(size - 1, strcspn(line, "\n"));
    assert_memory_equal(head, line, strlen(head));
    assert_int_equal(7, sscanf(stamp, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour,
                               &minute, &second, &ms, &end));
    assert_int_equal(24, end);
    assert_true(year >= 2024 && month >= 1 && month <= 12 && hour < 24);
    assert_memory_equal(after, stamp + end, strlen(after));
    line[size - 1] = '\0';
    return stamp + end + strlen(after);
}

static bool nothing_written(void)
{
    char byte;

    return recv(ends[1], &byte, 1, MSG_DONTWAIT) < 0;
}

static void logfmt_lines(void **state)
{
    (void)state;
    log_open(ends[0], LOG_LOGFMT, LOG_DEBUG);
    log_event(LOG_INFO, "listening", LOG_STR("address", "127.0.0.1:8080"), LOG_INT("models", 3),
              LOG_DOUBLE("ratio", 0.25), LOG_BOOL("tls", false), LOG_END);
    assert_string_equal("level=info msg=listening address=127.0.0.1:8080 models=3 ratio=0.25 "
                        "tls=false",
                        next_line(LOG_LOGFMT));
    log_event(LOG_ERROR, "two words", LOG_STR("empty", ""), LOG_STR("null", NULL),
              LOG_STR("quote", "a\"b"), LOG_STR("equals", "a=b"), LOG_STR("slash", "a\\b"),
              LOG_END);
    assert_string_equal("level=error msg=\"two words\" empty=\"\" null=\"\" quote=\"a\\\"b\" "
                        "equals=\"a=b\" slash=\"a\\\\b\"",
                        next_line(LOG_LOGFMT));
    log_event(LOG_DEBUG, "x", LOG_INT("least", INT64_MIN), LOG_INT("most", INT64_MAX),
              LOG_DOUBLE("nan", (double)NAN), LOG_DOUBLE("inf", -(double)INFINITY), LOG_END);
    assert_string_equal("level=debug msg=x least=-9223372036854775808 most=9223372036854775807 "
                        "nan=nan inf=-inf",
                        next_line(LOG_LOGFMT));
    log_event(LOG_WARN, "alone", LOG_END);
    assert_string_equal("level=warn msg=alone", next_line(LOG_LOGFMT));
    assert_true(nothing_written());
}

static void json_lines(void **state)
{
    (void)state;
    log_open(ends[0], LOG_JSON, LOG_INFO);
    log_event(LOG_WARN, "two words", LOG_STR("path", "/a\"b\\c"), LOG_INT("n", -1),
              LOG_DOUBLE("ms", 1.5), LOG_BOOL("ok", true), LOG_DOUBLE("nan", (double)NAN),
              LOG_DOUBLE("big", 1e300), LOG_END);
    assert_string_equal("\"level\":\"warn\",\"msg\":\"two words\",\"path\":\"/a\\\"b\\\\c\","
                        "\"n\":-1,\"ms\":1.5,\"ok\":true,\"nan\":\"nan\",\"big\":1e+300}",
                        next_line(LOG_JSON));
    log_event(LOG_INFO, "alone", LOG_END);
    assert_string_equal("\"level\":\"info\",\"msg\":\"alone\"}", next_line(LOG_JSON));
}

static void arrays_end_at_their_count_or_at_the_end_mark(void **state)
{
    const struct log_field fields[] = {LOG_INT("a", 1), LOG_INT("b", 2), LOG_END, LOG_INT("c", 3)};

    (void)state;
    log_open(ends[0], LOG_LOGFMT, LOG_INFO);
    log_fields(LOG_INFO, "m", fields, 1);
    assert_string_equal("level=info msg=m a=1", next_line(LOG_LOGFMT));
    log_fields(LOG_INFO, "m", fields, 4);
    assert_string_equal("level=info msg=m a=1 b=2", next_line(LOG_LOGFMT));
    log_fields(LOG_INFO, "m", NULL, 0);
    assert_string_equal("level=info msg=m", next_line(LOG_LOGFMT));
}

static void levels_below_the_least_are_silent(void **state)
{
    (void)state;
    for (int least = 0; least < LOG_LEVEL_COUNT; least++) {
        log_open(ends[0], LOG_LOGFMT, (enum log_level)least);
        for (int level = 0; level < LOG_LEVEL_COUNT; level++) {
            assert_int_equal(level >= least, log_enabled((enum log_level)level));
            log_event((enum log_level)level, "m", LOG_END);
            if (level >= least)
                next_line(LOG_LOGFMT);
            assert_true(nothing_written());
        }
    }
}

/* Hostile values: none may end a line, add a field or leave its quotes. */
static const char *const hostile[] = {
    "a\nlevel=error msg=forged",
    "a\r\nb",
    "a b=c",
    "\" level=error x=\"",
    "\\\" level=error",
    "\",\"level\":\"error",
    "\x1B[2J\x1B]0;title\x07",
    "\x7F\x01\x1F",
    "\xFF\xFE\x80",
    "\xC3",         /* a character cut short */
    "\xE2\x80",     /* likewise */
    "\xC0\x8A",     /* an overlong line feed */
    "\xED\xA0\x80", /* a surrogate */
    "a\xC2\x85"
    "b", /* NEL */
    "a\xE2\x80\xA8"
    "b", /* LINE SEPARATOR */
    "a\xE2\x80\xAE"
    "b", /* RIGHT-TO-LEFT OVERRIDE */
    "\xC2\x9B"
    "2J", /* the one-character CSI */
};

static void hostile_values_stay_one_value(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        const char *line, *value, *s;
        json_t *root;

        log_open(ends[0], LOG_LOGFMT, LOG_INFO);
        log_event(LOG_INFO, "m", LOG_STR("v", hostile[i]), LOG_INT("after", 1), LOG_END);
        line = next_line(LOG_LOGFMT);
        assert_memory_equal("level=info msg=m v=\"", line, 20);
        value = line + 20;
        for (s = value; *s != '"'; s++) {
            assert_true((unsigned char)*s >= ' ' && *s != 0x7F);
            s += *s == '\\';
        }
        assert_string_equal("\" after=1", s);
        assert_null(strstr(line, "\xC2"));
        assert_null(strstr(line, "\xE2\x80"));

        log_open(ends[0], LOG_JSON, LOG_INFO);
        log_event(LOG_INFO, hostile[i], LOG_STR("v", hostile[i]), LOG_INT("after", 1), LOG_END);
        line = next_line(LOG_JSON) - strlen("{\"time\":\"2026-01-01T00:00:00.000Z\",");
        root = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(root);
        assert_int_equal(5, json_object_size(root));
        assert_string_equal("info", json_string_value(json_object_get(root, "level")));
        json_decref(root);
    }
}

static void harmless_unicode_is_kept(void **state)
{
    (void)state;
    log_open(ends[0], LOG_LOGFMT, LOG_INFO);
    log_event(LOG_INFO, "m", LOG_STR("v", "caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"), LOG_END);
    assert_string_equal("level=info msg=m v=\"caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80\"",
                        next_line(LOG_LOGFMT));
}

static void long_values_are_cut_between_characters(void **state)
{
    char text[2 * LOG_MAX_VALUE_BYTES];
    const char *value;

    (void)state;
    log_open(ends[0], LOG_LOGFMT, LOG_INFO);
    memset(text, 'x', sizeof text);
    text[LOG_MAX_VALUE_BYTES] = '\0';
    log_event(LOG_INFO, "m", LOG_STR("v", text), LOG_END);
    value = strstr(next_line(LOG_LOGFMT), "v=");
    assert_string_equal(text, value + 2);
    text[LOG_MAX_VALUE_BYTES] = 'x';
    text[sizeof text - 1] = '\0';
    log_event(LOG_INFO, "m", LOG_STR("v", text), LOG_END);
    value = strstr(next_line(LOG_LOGFMT), "v=");
    assert_int_equal(2 + LOG_MAX_VALUE_BYTES + 3, strlen(value));
    assert_string_equal("x...", value + strlen(value) - 4);
    /* A character of four bytes across the limit, at each place. */
    for (size_t i = 1; i < 4; i++) {
        memset(text, 'x', sizeof text);
        memcpy(text + LOG_MAX_VALUE_BYTES - i, "\xF0\x9F\x98\x80", 4);
        text[sizeof text - 1] = '\0';
        log_event(LOG_INFO, "m", LOG_STR("v", text), LOG_END);
        value = strstr(next_line(LOG_LOGFMT), "v=");
        assert_int_equal(2 + LOG_MAX_VALUE_BYTES - i + 3, strlen(value));
        assert_string_equal("x...", value + strlen(value) - 4);
    }
    /* Nothing but bytes that continue a character. */
    memset(text, '\x80', sizeof text - 1);
    log_event(LOG_INFO, "m", LOG_STR("v", text), LOG_END);
    assert_non_null(strstr(next_line(LOG_LOGFMT), "\\ufffd...\""));
}

static void fields_that_do_not_fit_are_left_out_whole(void **state)
{
    char controls[LOG_MAX_VALUE_BYTES + 1];
    enum log_format format;

    (void)state;
    memset(controls, '\x01', sizeof controls - 1);
    controls[sizeof controls - 1] = '\0';
    for (format = LOG_LOGFMT; format < LOG_FORMAT_COUNT; format++) {
        const char *line;

        log_open(ends[0], format, LOG_INFO);
        log_event(LOG_INFO, "m", LOG_INT("a", 1), LOG_STR("first", controls),
                  LOG_STR("second", controls), LOG_STR("third", controls), LOG_INT("z", 9),
                  LOG_END);
        line = next_line(format);
        assert_non_null(strstr(line, "first"));
        assert_null(strstr(line, "second"));
        assert_null(strstr(line, "third"));
        assert_non_null(strstr(line, format == LOG_JSON ? "\"z\":9,\"truncated\":true}"
                                                        : " z=9 truncated=true"));
    }
    /* However full the line is, the note still fits. */
    for (size_t size = 380; size < 480; size++) {
        char text[LOG_MAX_VALUE_BYTES];

        memset(text, 'x', size);
        text[size] = '\0';
        log_event(LOG_INFO, "m", LOG_STR("a", controls), LOG_STR("b", text), LOG_STR("c", text),
                  LOG_STR("d", text), LOG_END);
        assert_non_null(strstr(next_line(LOG_JSON), ",\"truncated\":true}"));
    }
}

static void failing_writes_are_ignored(void **state)
{
    (void)state;
    log_open(-1, LOG_LOGFMT, LOG_INFO);
    log_event(LOG_INFO, "m", LOG_END);
    assert_true(nothing_written());
}

static void nothing_is_allocated(void **state)
{
    (void)state;
    log_open(ends[0], LOG_JSON, LOG_INFO);
    fail_allocation_after(0);
    log_event(LOG_INFO, "m", LOG_STR("a", hostile[0]), LOG_DOUBLE("b", 1.5), LOG_INT("c", 1),
              LOG_END);
    assert_false(allocation_failed());
    fail_allocation_after(-1);
    next_line(LOG_JSON);
}

#define THREADS 4
#define LINES 500

static void *log_many(void *text)
{
    for (int i = 0; i < LINES; i++)
        log_event(LOG_INFO, "m", LOG_STR("v", text), LOG_INT("i", i), LOG_END);
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
    static char texts[THREADS][400];
    pthread_t threads[THREADS];
    size_t seen[THREADS] = {0};
    char line[LOG_MAX_LINE_BYTES];
    FILE *file = tmpfile();

    (void)state;
    assert_non_null(file);
    log_open(fileno(file), LOG_LOGFMT, LOG_INFO);
    for (size_t i = 0; i < THREADS; i++) {
        memset(texts[i], (int)('a' + i), sizeof texts[i] - 1);
        assert_int_equal(0, pthread_create(&threads[i], NULL, log_many, texts[i]));
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    rewind(file);
    while (fgets(line, sizeof line, file)) {
        const char *value = strstr(line, " v=");
        size_t which;

        assert_non_null(value);
        which = (size_t)(value[3] - 'a');
        assert_in_range(which, 0, THREADS - 1);
        assert_memory_equal(texts[which], value + 3, sizeof texts[which] - 1);
        seen[which]++;
    }
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(LINES, seen[i]);
    fclose(file);
}

static void names_read_back(void **state)
{
    enum log_level level = LOG_WARN;
    enum log_format format = LOG_JSON;

    (void)state;
    assert_false(log_level_from_name(&level, "fatal"));
    assert_false(log_level_from_name(&level, "INFO"));
    assert_int_equal(LOG_WARN, level);
    assert_true(log_level_from_name(&level, "error"));
    assert_int_equal(LOG_ERROR, level);
    assert_false(log_format_from_name(&format, ""));
    assert_int_equal(LOG_JSON, format);
    assert_true(log_format_from_name(&format, "logfmt"));
    assert_int_equal(LOG_LOGFMT, format);
}

#define LOG_TEST(name) cmocka_unit_test_setup_teardown(name, open_ends, close_ends)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(logfmt_lines),
        LOG_TEST(json_lines),
        LOG_TEST(arrays_end_at_their_count_or_at_the_end_mark),
        LOG_TEST(levels_below_the_least_are_silent),
        LOG_TEST(hostile_values_stay_one_value),
        LOG_TEST(harmless_unicode_is_kept),
        LOG_TEST(long_values_are_cut_between_characters),
        LOG_TEST(fields_that_do_not_fit_are_left_out_whole),
        LOG_TEST(failing_writes_are_ignored),
        LOG_TEST(nothing_is_allocated),
        LOG_TEST(lines_of_threads_do_not_mix),
        LOG_TEST(names_read_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
