#include "server/process_metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* A /proc/self/stat is some 300 bytes. */
#define MAX_STAT_BYTES 2048

/* Longest line of /proc/stat that is read in one piece; btime's is short. */
#define MAX_LINE_BYTES 256

struct process_stat {
    uint64_t cpu_ticks, start_ticks, virtual_bytes, resident_bytes;
};

static FILE *open_file(const char *proc_root, const char *name)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", proc_root, name);

    if (length < 0 || (size_t)length >= sizeof path)
        return NULL;
    return fopen(path, "re");
}

/* See proc(5): fields 14, 15 (utime, stime), 22 (starttime), 23 (vsize) and 24 (rss, in pages). */
static bool read_stat(struct process_stat *out, const char *proc_root)
{
    char text[MAX_STAT_BYTES];
    FILE *file = open_file(proc_root, "self/stat");
    const char *after_name;
    size_t size;
    uint64_t user, system, start, virtual_bytes, resident_pages;

    if (!file)
        return false;
    size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = '\0';
    /* The program's name, in parentheses, may itself hold blanks and parentheses. */
    after_name = strrchr(text, ')');
    if (!after_name || sscanf(after_name + 1,
                              " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64 " %" SCNu64
                              " %*s %*s %*s %*s %*s %*s %" SCNu64 " %" SCNu64 " %" SCNu64,
                              &user, &system, &start, &virtual_bytes, &resident_pages) != 5)
        return false;
    *out = (struct process_stat){
        .cpu_ticks = user + system,
        .start_ticks = start,
        .virtual_bytes = virtual_bytes,
        .resident_bytes = resident_pages * (uint64_t)sysconf(_SC_PAGESIZE),
    };
    return true;
}

/* When the system started, in seconds since 1970. */
static bool read_boot_time(uint64_t *out_seconds, const char *proc_root)
{
    char line[MAX_LINE_BYTES];
    FILE *file = open_file(proc_root, "stat");
    bool found = false;

    if (!file)
        return false;
    while (!found && fgets(line, sizeof line, file))
        found = sscanf(line, "btime %" SCNu64, out_seconds) == 1;
    fclose(file);
    return found;
}

/* Open descriptors, less the one that the counting takes. */
static bool count_descriptors(uint64_t *out, const char *proc_root)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/self/fd", proc_root);
    const struct dirent *entry;
    uint64_t count = 0;
    DIR *directory;

    if (length < 0 || (size_t)length >= sizeof path)
        return false;
    directory = opendir(path);
    if (!directory)
        return false;
    for (entry = readdir(directory); entry; entry = readdir(directory))
        count += entry->d_name[0] != '.';
    closedir(directory);
    *out = count > 0 ? count - 1 : 0;
    return true;
}

static void append_head(buffer *out, const char *name, const char *type, const char *help)
{
    buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void append_gauge(buffer *out, const char *name, const char *help, uint64_t value)
{
    append_head(out, name, "gauge", help);
    buffer_printf(out, "%s %" PRIu64 "\n", name, value);
}

void process_metrics_write(buffer *out, const char *proc_root)
{
    const double ticks_per_second = (double)sysconf(_SC_CLK_TCK);
    struct process_stat stat;
    struct rlimit limit;
    uint64_t boot_seconds, descriptors;

    if (read_stat(&stat, proc_root)) {
        append_head(out, "process_cpu_seconds_total", "counter",
                    "User and system CPU time spent, in seconds.");
        buffer_printf(out, "process_cpu_seconds_total %.2f\n",
                      (double)stat.cpu_ticks / ticks_per_second);
        append_gauge(out, "process_resident_memory_bytes", "Resident memory size, in bytes.",
                     stat.resident_bytes);
        append_gauge(out, "process_virtual_memory_bytes", "Virtual memory size, in bytes.",
                     stat.virtual_bytes);
        if (read_boot_time(&boot_seconds, proc_root)) {
            append_head(out, "process_start_time_seconds", "gauge",
                        "Start time of the process, in seconds since 1970.");
            buffer_printf(out, "process_start_time_seconds %.2f\n",
                          (double)boot_seconds + (double)stat.start_ticks / ticks_per_second);
        }
    }
    if (count_descriptors(&descriptors, proc_root))
        append_gauge(out, "process_open_fds", "Open file descriptors.", descriptors);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        append_gauge(out, "process_max_fds", "Most file descriptors that may be open.",
                     limit.rlim_cur);
}
