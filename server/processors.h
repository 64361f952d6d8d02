/* How many processors this process may keep busy. */
#ifndef SERVER_PROCESSORS_H
#define SERVER_PROCESSORS_H

#include <stddef.h>

/* Where to look; a zeroed member stands for the system's own. */
struct processor_source {
    const char *proc_root;   /* "/proc" */
    const char *cgroup_root; /* "/sys/fs/cgroup" */
    size_t affinity_count;   /* processors in the affinity mask; 0: ask the kernel */
};

/**
 * The processors in the affinity mask, lowered to the CPU quota of the process's control group and
 * of every group above it: cpu.max of version 2, cpu.cfs_quota_us of version 1. A fraction counts
 * as one more, as in the Go and Java runtimes: a quota of 1.5 is 2. What cannot be read or parsed
 * limits nothing.
 * @param source  NULL for the system's own
 * @return at least 1
 * Thread-safe.
 */
size_t processors_usable(const struct processor_source *source);

#define PROCESSORS_MAX_THREADS ((size_t)256) /* of one kind */

/* `threads`, or for 0 as many as there are usable processors, but no more than an option may ask.
 */
size_t threads_or_processors(size_t threads);

#endif
