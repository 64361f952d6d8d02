#include "tests/bench/load.h"
#include "tests/bench/measure.h"

#include <dirent.h>
#include <stdio.h>

/* The first number of schedstat: nanoseconds on a processor. */
static double thread_cpu_s(pid_t pid, const char *thread)
{
    char path[512];
    unsigned long long ns = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%ld/task/%s/schedstat", (long)pid, thread);
    file = fopen(path, "r");
    if (!file)
        return 0; /* it has just ended */
    if (fscanf(file, "%llu", &ns) != 1)
        ns = 0;
    fclose(file);
    return (double)ns / NS_PER_S;
}

double load_process_cpu_s(pid_t pid)
{
    char path[64];
    double total = 0;
    struct dirent *entry;
    DIR *directory;

    if (pid == 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
    directory = opendir(path);
    if (!directory)
        bench_fail("process %ld is not there", (long)pid);
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.')
            total += thread_cpu_s(pid, entry->d_name);
    }
    closedir(directory);
    return total;
}
