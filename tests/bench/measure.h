/* What the measuring programs share: clocks, memory, numbers, and how a call is timed. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>

#define NS_PER_S 1e9

uint64_t bench_wall_ns(void);

/* CPU time of the calling thread, which other programs on the machine take no part of. */
uint64_t bench_thread_ns(void);

/* Memory aligned to a cache line; ends the program when there is none. */
void *bench_allocate(size_t bytes);

/*
 * Fixed pseudo-random numbers, uniform in [-1, 1): number i is a hash of i, so that programs in
 * other languages compute with the same ones.
 */
void bench_fill(float *values, size_t count);

/*
 * CPU seconds of one call of `call`, on this thread: the mean over at least `budget_s`, after one
 * call that warms the caches. Calls shorter than the clock's own cost are timed in batches.
 */
double bench_seconds(double budget_s, void (*call)(void *context), void *context);

/* Say why on standard error and end the program with status 1. */
_Noreturn void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
