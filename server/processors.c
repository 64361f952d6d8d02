#include "server/processors.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The kernel refuses a mask shorter than its own; no Linux has more processors than this. */
#define MAX_AFFINITY_PROCESSORS ((size_t)1 << 16)

/* Longest text of a quota file, and of a line of /proc/self/cgroup, that is looked at. */
#define MAX_QUOTA_TEXT_BYTES 128
#define MAX_CGROUP_LINE_BYTES (PATH_MAX + 256)

static size_t affinity_processors(void)
{
    for (size_t most = CPU_SETSIZE; most <= MAX_AFFINITY_PROCESSORS; most *= 2) {
        size_t bytes = CPU_ALLOC_SIZE(most);
        cpu_set_t *set = CPU_ALLOC(most);
        size_t count = 0;
        int error = 0;

        if (!set)
            break;
        if (sched_getaffinity(0, bytes, set) == 0)
            count = (size_t)CPU_COUNT_S(bytes, set);
        else
            error = errno;
        CPU_FREE(set);
        if (error != EINVAL)
            return count > 0 ? count : 1;
    }
    return 1;
}

/* Read the first line of `path`/`name`; false when there is none. */
static bool read_quota_text(char text[MAX_QUOTA_TEXT_BYTES], const char *directory,
                            const char *name)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file;
    bool ok;

    if (length < 0 || (size_t)length >= sizeof path)
        return false;
    file = fopen(path, "re");
    if (!file)
        return false;
    ok = fgets(text, MAX_QUOTA_TEXT_BYTES, file) != NULL;
    fclose(file);
    return ok;
}

/* A positive number of microseconds; false for "max", -1 and all that is none. */
static bool parse_us(uint64_t *out, const char **text)
{
    char *end;
    unsigned long long value;

    if (**text < '0' || **text > '9')
        return false;
    errno = 0;
    value = strtoull(*text, &end, 10);
    if (errno != 0 || value == 0 || (*end != ' ' && *end != '\n' && *end != '\0'))
        return false;
    *text = *end == ' ' ? end + 1 : end;
    *out = value;
    return true;
}

/* Version 2: "QUOTA PERIOD", or "max PERIOD" for no limit. */
static bool read_quota_v2(uint64_t *quota_us, uint64_t *period_us, const char *directory)
{
    char text[MAX_QUOTA_TEXT_BYTES];
    const char *at = text;

    return read_quota_text(text, directory, "cpu.max") && parse_us(quota_us, &at) &&
           parse_us(period_us, &at);
}

/* Version 1: a quota of -1 is no limit. */
static bool read_quota_v1(uint64_t *quota_us, uint64_t *period_us, const char *directory)
{
    char quota[MAX_QUOTA_TEXT_BYTES], period[MAX_QUOTA_TEXT_BYTES];
    const char *quota_at = quota;
    const char *period_at = period;

    return read_quota_text(quota, directory, "cpu.cfs_quota_us") &&
           read_quota_text(period, directory, "cpu.cfs_period_us") &&
           parse_us(quota_us, &quota_at) && parse_us(period_us, &period_at);
}

/* Where a version's hierarchy may be mounted below the cgroup root, and how its quota is read. */
static const struct hierarchy {
    const char *controller; /* as in /proc/self/cgroup; "" is version 2 */
    const char *mount;
    bool (*read_quota)(uint64_t *quota_us, uint64_t *period_us, const char *directory);
} hierarchies[] = {
    {"", "", read_quota_v2},
    {"", "/unified", read_quota_v2},
    {"cpu", "/cpu", read_quota_v1},
    {"cpu", "/cpu,cpuacct", read_quota_v1},
};

/* Lower `count` by the quota of `group` and of every group above it, the root included. */
static size_t lower_by_groups(size_t count, const struct hierarchy *hierarchy, const char *root,
                              const char *group)
{
    char directory[PATH_MAX];
    int prefix = snprintf(directory, sizeof directory, "%s%s", root, hierarchy->mount);
    size_t length;

    /* A group outside of the mount's own root shows as "/..": only the root can be read then. */
    if (strstr(group, "/.."))
        group = "";
    if (prefix < 0 || (size_t)prefix + strlen(group) >= sizeof directory)
        return count;
    strcpy(directory + prefix, group);
    length = strlen(directory);
    for (;;) {
        uint64_t quota_us, period_us;

        if (hierarchy->read_quota(&quota_us, &period_us, directory)) {
            uint64_t limit = quota_us / period_us + (quota_us % period_us != 0);

            if (limit < count)
                count = (size_t)limit;
        }
        if (length == (size_t)prefix)
            return count;
        do
            length--;
        while (length > (size_t)prefix && directory[length] != '/');
        directory[length] = '\0';
    }
}

/* Whether the comma-separated `list` holds `word`; an empty list holds the empty word. */
static bool list_holds(const char *list, const char *word)
{
    size_t word_bytes = strlen(word);

    for (;;) {
        size_t bytes = strcspn(list, ",");

        if (bytes == word_bytes && memcmp(list, word, bytes) == 0)
            return true;
        if (list[bytes] == '\0')
            return false;
        list += bytes + 1;
    }
}

/* One line of /proc/self/cgroup: "ID:CONTROLLERS:/GROUP". */
static size_t lower_by_line(size_t count, char *line, const char *cgroup_root)
{
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;

    if (!group)
        return count;
    *group++ = '\0';
    controllers++;
    group[strcspn(group, "\n")] = '\0';
    if (strcmp(group, "/") == 0)
        *group = '\0';
    for (size_t i = 0; i < sizeof hierarchies / sizeof *hierarchies; i++) {
        if (list_holds(controllers, hierarchies[i].controller))
            count = lower_by_groups(count, &hierarchies[i], cgroup_root, group);
    }
    return count;
}

size_t processors_usable(const struct processor_source *source)
{
    static const struct processor_source system_source = {0};
    const struct processor_source *from = source ? source : &system_source;
    const char *proc_root = from->proc_root ? from->proc_root : "/proc";
    const char *cgroup_root = from->cgroup_root ? from->cgroup_root : "/sys/fs/cgroup";
    size_t count = from->affinity_count ? from->affinity_count : affinity_processors();
    char path[PATH_MAX];
    char line[MAX_CGROUP_LINE_BYTES];
    int length = snprintf(path, sizeof path, "%s/self/cgroup", proc_root);
    FILE *file;

    if (length < 0 || (size_t)length >= sizeof path)
        return count;
    file = fopen(path, "re");
    if (!file)
        return count;
    while (fgets(line, sizeof line, file))
        count = lower_by_line(count, line, cgroup_root);
    fclose(file);
    return count;
}

size_t threads_or_processors(size_t threads)
{
    size_t usable;

    if (threads > 0)
        return threads;
    usable = processors_usable(NULL);
    return usable < PROCESSORS_MAX_THREADS ? usable : PROCESSORS_MAX_THREADS;
}
