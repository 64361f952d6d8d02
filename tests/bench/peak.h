/*
 * What the processor can do at most, measured: multiply-adds on registers alone, and reads of
 * memory that no cache holds.
 */
#ifndef BENCH_PEAK_H
#define BENCH_PEAK_H

#include <stddef.h>
#include <stdint.h>

/* One way to do arithmetic or to read. A file for each ISA; peak.c runs what the processor has. */
struct peak_kernel {
    const char *name;
    double flop_per_step;
    float (*run)(size_t steps); /* the result keeps the work alive */

    /*
     * Read `streams` ranges of `bytes`, one behind the other in memory, side by side. bytes is a
     * multiple of PEAK_READ_UNIT, memory is aligned to a cache line.
     */
    uint64_t (*read)(const void *memory, size_t bytes, size_t streams);
};

#define PEAK_READ_UNIT ((size_t)256)

/* Steps in a row that don't wait for one another: more than any processor's latency x width. */
#define PEAK_CHAINS 16

extern const struct peak_kernel peak_portable;
extern const struct peak_kernel peak_avx2;
extern const struct peak_kernel peak_avx512;
extern const struct peak_kernel peak_avx512_bf16; /* has no `read` */

/* Floating-point operations a second of one thread; NULL in *name where there is no such unit. */
double peak_f32(const char **name, double budget_s);
double peak_bf16(const char **name, double budget_s);

/* Bytes a second that `threads` threads read together from memory. */
double peak_bandwidth(size_t threads, double budget_s);

#endif
