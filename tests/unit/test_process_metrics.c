#include "tests/unit/support.h"

#include "server/process_metrics.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *const names[] = {"process_cpu_seconds_total",
                                    "process_resident_memory_bytes",
                                    "process_virtual_memory_bytes",
                                    "process_start_time_seconds",
                                    "process_open_fds",
                                    "process_max_fds"};

/* What `proc_root` gives, NUL-terminated; the caller frees. */
static char *written(const char *proc_root)
{
    buffer out = {.max_bytes = 65536};

    process_metrics_write(&out, proc_root);
    buffer_append(&out, "", 1);
    assert_status(NSA_OK, out.status);
    return out.data;
}

/* The value of a metric, or -1 where it is left out. */
static double value_of(const char *text, const char *name)
{
    char start[64];
    const char *line;

    snprintf(start, sizeof start, "\n%s ", name);
    line = strstr(text, start);
    return line ? strtod(line + strlen(start), NULL) : -1;
}

/* A /proc of our own; `root` gets its path. */
static void make_proc(char root[32], const char *self_stat, const char *stat)
{
    char path[64];
    FILE *file;

    strcpy(root, "/tmp/nsa-test-XXXXXX");
    assert_non_null(mkdtemp(root));
    snprintf(path, sizeof path, "%s/self", root);
    assert_int_equal(0, mkdir(path, 0700));
    strcat(path, "/stat");
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(self_stat, file);
    fclose(file);
    snprintf(path, sizeof path, "%s/stat", root);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(stat, file);
    fclose(file);
}

static void remove_proc(const char *root)
{
    static const char *const parts[] = {"/self/stat", "/stat", "/self", ""};

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char path[64];

        snprintf(path, sizeof path, "%s%s", root, parts[i]);
        assert_int_equal(0, remove(path));
    }
}

static void this_process_is_measured(void **state)
{
    char *before = written("/proc");
    FILE *file = fopen("/dev/null", "r");
    char *after = written("/proc");
    struct rlimit limit;
    int open_count = 0;

    (void)state;
    assert_non_null(file);
    for (int fd = 0; fd < 1024; fd++)
        open_count += fcntl(fd, F_GETFD) != -1;
    assert_true(value_of(after, "process_open_fds") == open_count);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_true(value_of(before, names[i]) >= 0);
    assert_true(value_of(before, "process_open_fds") + 1 == value_of(after, "process_open_fds"));
    assert_true(value_of(after, "process_resident_memory_bytes") > 100000);
    assert_true(value_of(after, "process_virtual_memory_bytes") >
                value_of(after, "process_resident_memory_bytes"));
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &limit));
    assert_true(value_of(after, "process_max_fds") == (double)limit.rlim_cur);
    assert_true(value_of(before, "process_start_time_seconds") ==
                value_of(after, "process_start_time_seconds"));
    assert_true(value_of(after, "process_start_time_seconds") < (double)time(NULL) + 2);
    assert_true(value_of(after, "process_start_time_seconds") > (double)time(NULL) - 86400);
    fclose(file);
    free(before);
    free(after);
}

static void a_name_with_parentheses_misleads_nobody(void **state)
{
    const double ticks = (double)sysconf(_SC_CLK_TCK);
    char root[32];
    char *text;

    (void)state;
    make_proc(root,
              "7 (a) b (9 9 9 9 9 9 9 9) S 1 2 3 4 5 6 7 8 9 10 250 125 0 0 20 0 4 0 5000 "
              "123456789 300 18446744073709551615\n",
              "cpu 1 2 3\nintr 1 2 3\nbtime 1700000000\nprocesses 9\n");
    text = written(root);
    assert_true(value_of(text, "process_cpu_seconds_total") == 375 / ticks);
    assert_true(value_of(text, "process_virtual_memory_bytes") == 123456789);
    assert_true(value_of(text, "process_resident_memory_bytes") ==
                300 * (double)sysconf(_SC_PAGESIZE));
    assert_true(value_of(text, "process_start_time_seconds") == 1700000000 + 5000 / ticks);
    assert_true(value_of(text, "process_open_fds") == -1);
    free(text);
    remove_proc(root);
}

static void what_cannot_be_read_is_left_out(void **state)
{
    static const char *const broken[] = {"", "7 a S 1", "7 (a)", "7 (a) S 1 2 3 4 5 6 7 8 9 10 x y",
                                         "7 (a) S 1 2 3 4 5 6 7 8 9 10 1 2 0 0 20 0 4 0 5000 1"};
    char *text = written("/nonexistent");

    (void)state;
    for (size_t i = 0; i + 1 < sizeof names / sizeof *names; i++)
        assert_true(value_of(text, names[i]) == -1);
    free(text);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char root[32];

        make_proc(root, broken[i], "btime 5\n");
        text = written(root);
        for (size_t j = 0; j < 5; j++)
            assert_true(value_of(text, names[j]) == -1);
        free(text);
        remove_proc(root);
    }
}

static void without_a_boot_time_there_is_no_start(void **state)
{
    char root[32];
    char *text;

    (void)state;
    make_proc(root, "7 (a) S 1 2 3 4 5 6 7 8 9 10 1 2 0 0 20 0 4 0 5000 1 1\n", "cpu 1\n");
    text = written(root);
    assert_true(value_of(text, "process_start_time_seconds") == -1);
    assert_true(value_of(text, "process_virtual_memory_bytes") == 1);
    free(text);
    remove_proc(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(this_process_is_measured),
        cmocka_unit_test(a_name_with_parentheses_misleads_nobody),
        cmocka_unit_test(what_cannot_be_read_is_left_out),
        cmocka_unit_test(without_a_boot_time_there_is_no_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
