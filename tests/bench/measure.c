#include "tests/bench/measure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CACHE_LINE ((size_t)64)
#define BATCH_NS 200000u /* a clock read is less than a thousandth of it */
#define MAX_BATCH ((size_t)1 << 24)

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

uint64_t bench_wall_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t bench_thread_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void *bench_allocate(size_t bytes)
{
    void *memory = NULL;

    if (bytes <= SIZE_MAX - CACHE_LINE)
        memory = aligned_alloc(CACHE_LINE, (bytes + CACHE_LINE) & ~(CACHE_LINE - 1));
    if (!memory)
        bench_fail("out of memory for %zu bytes", bytes);
    return memory;
}

void bench_fill(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t hash = (uint32_t)i * 2654435761u;

        hash = (hash ^ hash >> 15) * 2246822519u;
        hash ^= hash >> 13;
        values[i] = (float)(hash >> 8) * 0x1p-23f - 1.0f;
    }
}

static uint64_t batch_ns(size_t calls, void (*call)(void *context), void *context)
{
    uint64_t begin = bench_thread_ns();

    for (size_t i = 0; i < calls; i++)
        call(context);
    return bench_thread_ns() - begin;
}

double bench_seconds(double budget_s, void (*call)(void *context), void *context)
{
    size_t batch = 1;
    size_t calls;
    uint64_t total;

    call(context);
    total = batch_ns(batch, call, context);
    while (batch < MAX_BATCH && total < BATCH_NS) {
        batch *= 2;
        total = batch_ns(batch, call, context);
    }
    for (calls = batch; (double)total < budget_s * NS_PER_S; calls += batch)
        total += batch_ns(batch, call, context);
    return (double)total / NS_PER_S / (double)calls;
}

void bench_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}
