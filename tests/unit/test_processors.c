#include "tests/unit/support.h"

#include "server/processors.h"

#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A made-up /proc and /sys/fs/cgroup below one temporary folder. */
static char root[64];
static char proc_root[80], cgroup_root[80];

static int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/nsa-test-XXXXXX");
    if (!mkdtemp(root))
        return -1;
    snprintf(proc_root, sizeof proc_root, "%s/proc", root);
    snprintf(cgroup_root, sizeof cgroup_root, "%s/cgroup", root);
    return 0;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Write a file below the root, and the folders above it. */
static void put(const char *name, const char *text)
{
    char path[PATH_MAX];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = path + strlen(root); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(0, fclose(file));
}

static size_t usable(size_t affinity_count)
{
    const struct processor_source source = {proc_root, cgroup_root, affinity_count};

    return processors_usable(&source);
}

static void without_control_groups_the_affinity_counts(void **state)
{
    const struct processor_source here = {proc_root, cgroup_root, 0};
    size_t count = processors_usable(&here);

    (void)state;
    assert_int_equal(7, usable(7));
    assert_in_range(count, 1, (size_t)sysconf(_SC_NPROCESSORS_CONF));
    assert_in_range(processors_usable(NULL), 1, count);
}

static void a_quota_of_version_2(void **state)
{
    static const struct {
        const char *text;
        size_t expected; /* of 16 */
    } cases[] = {
        {"200000 100000\n", 2},
        {"150000 100000\n", 2},
        {"100001 100000\n", 2},
        {"100000 100000\n", 1},
        {"1000 100000\n", 1},
        {"50000 50000\n", 1},
        {"75000 25000", 3},
        {"max 100000\n", 16},
        {"99999999 100000\n", 16},
        {"18446744073709551615 1\n", 16},
        /* Not what a kernel writes: no limit. */
        {"", 16},
        {"\n", 16},
        {"200000\n", 16},
        {"200000 0\n", 16},
        {"0 100000\n", 16},
        {"-1 100000\n", 16},
        {"200000x 100000\n", 16},
        {"99999999999999999999999 1\n", 16},
        {"2e5 100000\n", 16},
    };

    (void)state;
    put("proc/self/cgroup", "0::/a/b\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put("cgroup/a/b/cpu.max", cases[i].text);
        if (usable(16) != cases[i].expected)
            fail_msg("%s: expected %zu, got %zu", cases[i].text, cases[i].expected, usable(16));
        assert_int_equal(1, usable(1));
    }
}

static void the_tightest_group_on_the_way_up_counts(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/a/b/c\n");
    put("cgroup/a/b/c/cpu.max", "max 100000\n");
    put("cgroup/a/b/cpu.max", "800000 100000\n");
    assert_int_equal(8, usable(16));
    put("cgroup/a/cpu.max", "500000 100000\n");
    assert_int_equal(5, usable(16));
    put("cgroup/cpu.max", "300000 100000\n");
    assert_int_equal(3, usable(16));
    put("cgroup/a/b/c/cpu.max", "200000 100000\n");
    assert_int_equal(2, usable(16));
    /* Beside the way, below it, and with a name that begins alike. */
    put("cgroup/a/b/c/d/cpu.max", "100000 100000\n");
    put("cgroup/a/x/cpu.max", "100000 100000\n");
    put("cgroup/a/b/cc/cpu.max", "100000 100000\n");
    assert_int_equal(2, usable(16));
}

static void the_root_group_alone(void **state)
{
    (void)state;
    put("cgroup/cpu.max", "400000 100000\n");
    assert_int_equal(16, usable(16));
    put("proc/self/cgroup", "0::/\n");
    assert_int_equal(4, usable(16));
    /* A group outside of the namespace shows so. */
    put("proc/self/cgroup", "0::/../../other\n");
    put("cpu.max", "100000 100000\n");
    assert_int_equal(4, usable(16));
    /* The name is of the host's tree, the mount of the container's. */
    put("proc/self/cgroup", "0::/docker/0123456789abcdef\n");
    assert_int_equal(4, usable(16));
}

static void a_quota_of_version_1(void **state)
{
    (void)state;
    put("proc/self/cgroup", "12:memory:/a\n5:cpu,cpuacct:/a/b\n1:name=systemd:/a\n0::/a\n");
    put("cgroup/cpu/a/b/cpu.cfs_quota_us", "-1\n");
    put("cgroup/cpu/a/b/cpu.cfs_period_us", "100000\n");
    assert_int_equal(16, usable(16));
    put("cgroup/cpu/a/cpu.cfs_quota_us", "600000\n");
    assert_int_equal(16, usable(16)); /* without a period it says nothing */
    put("cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    assert_int_equal(6, usable(16));
    put("cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "250000\n");
    put("cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
    assert_int_equal(3, usable(16));
    /* A hybrid system: both versions, each with its own mount. */
    put("cgroup/unified/a/cpu.max", "200000 100000\n");
    assert_int_equal(2, usable(16));
}

static void other_controllers_say_nothing(void **state)
{
    (void)state;
    put("proc/self/cgroup",
        "3:cpuset:/\n2:cpuacct:/\n4:xcpu:/\n5:cpux,io:/\nno colon\n7:cpu\n\n::\n");
    put("cgroup/cpu/cpu.cfs_quota_us", "100000\n");
    put("cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(16, usable(16));
    put("proc/self/cgroup", "5:io,cpu:/\n");
    assert_int_equal(1, usable(16));
}

static void endless_names_are_survived(void **state)
{
    static char text[3 * PATH_MAX];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    memcpy(text, "0::/", 4);
    put("proc/self/cgroup", text);
    put("cgroup/cpu.max", "100000 100000\n");
    assert_in_range(usable(16), 1, 16);
    text[PATH_MAX - 8] = '\0';
    put("proc/self/cgroup", text);
    assert_in_range(usable(16), 1, 16);
}

#define PROCESSORS_TEST(name) cmocka_unit_test_setup_teardown(name, make_root, remove_root)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PROCESSORS_TEST(without_control_groups_the_affinity_counts),
        PROCESSORS_TEST(a_quota_of_version_2),
        PROCESSORS_TEST(the_tightest_group_on_the_way_up_counts),
        PROCESSORS_TEST(the_root_group_alone),
        PROCESSORS_TEST(a_quota_of_version_1),
        PROCESSORS_TEST(other_controllers_say_nothing),
        PROCESSORS_TEST(endless_names_are_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
