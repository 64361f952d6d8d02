/* The process_* metrics that every Prometheus client exposes. */
#ifndef SERVER_PROCESS_METRICS_H
#define SERVER_PROCESS_METRICS_H

#include "server/buffer.h"

/*
 * Append process_cpu_seconds_total, process_resident_memory_bytes, process_virtual_memory_bytes,
 * process_open_fds, process_max_fds and process_start_time_seconds, as read from `proc_root`
 * ("/proc"). One that cannot be read is left out. Thread-safe for distinct `out`.
 */
void process_metrics_write(buffer *out, const char *proc_root);

#endif
