#include "tests/bench/peak.h"

#include "tests/bench/measure.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#define STEPS 20000
#define READ_BYTES ((size_t)256 << 20) /* of all threads together; more than any cache */
#define MAX_THREADS ((size_t)256)

/* --- without intrinsics -------------------------------------------------------------------- */

static float run_portable(size_t steps)
{
    float sums[4 * PEAK_CHAINS];
    float total = 0;

    for (size_t c = 0; c < 4 * PEAK_CHAINS; c++)
        sums[c] = 1.0f + (float)c / 64;
    for (size_t i = 0; i < steps; i++) {
        for (size_t c = 0; c < 4 * PEAK_CHAINS; c++)
            sums[c] = sums[c] * 0.999f + 0.001f;
    }
    for (size_t c = 0; c < 4 * PEAK_CHAINS; c++)
        total += sums[c];
    return total;
}

static uint64_t read_portable(const void *memory, size_t bytes, size_t streams)
{
    uint64_t sums[8] = {0};

    for (size_t i = 0; i < bytes; i += sizeof sums) {
        for (size_t s = 0; s < streams; s++) {
            const uint64_t *at = (const uint64_t *)((const char *)memory + s * bytes + i);

            for (size_t c = 0; c < 8; c++)
                sums[c] ^= at[c];
        }
    }
    return sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
}

const struct peak_kernel peak_portable = {"portable", 2.0 * 4 * PEAK_CHAINS, run_portable,
                                          read_portable};

/* --- arithmetic ---------------------------------------------------------------------------- */

static const struct peak_kernel *best_f32(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        return &peak_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &peak_avx2;
#endif
    return &peak_portable;
}

static const struct peak_kernel *best_bf16(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16"))
        return &peak_avx512_bf16;
#endif
    return NULL;
}

static void run_steps(void *context)
{
    const struct peak_kernel *kernel = context;
    volatile float result = kernel->run(STEPS);

    (void)result;
}

static double flop_per_second(const struct peak_kernel *kernel, double budget_s)
{
    struct peak_kernel copy = *kernel;

    return kernel->flop_per_step * STEPS / bench_seconds(budget_s, run_steps, &copy);
}

double peak_f32(const char **name, double budget_s)
{
    *name = best_f32()->name;
    return flop_per_second(best_f32(), budget_s);
}

double peak_bf16(const char **name, double budget_s)
{
    *name = best_bf16() ? best_bf16()->name : NULL;
    return *name ? flop_per_second(best_bf16(), budget_s) : 0;
}

/* --- memory -------------------------------------------------------------------------------- */

/* How many ranges to read side by side: which is fastest depends on what the processor fetches
 * ahead. */
static const size_t stream_counts[] = {1, 2, 4, 8};

#define STREAM_COUNTS (sizeof stream_counts / sizeof *stream_counts)

struct reader {
    pthread_t thread;
    const char *memory; /* (bytes) */
    size_t bytes;
    uint64_t until_ns;
    double bytes_per_s; /* of its own CPU time, as other programs may be running */
};

/* Whole passes only: what is left of one may lie in a cache. */
static void *read_until(void *argument)
{
    struct reader *reader = argument;
    uint64_t ns[STREAM_COUNTS] = {0};
    size_t passes = 0;
    volatile uint64_t sink;

    do {
        for (size_t i = 0; i < STREAM_COUNTS; i++) {
            uint64_t begin = bench_thread_ns();

            sink = best_f32()->read(reader->memory, reader->bytes / stream_counts[i],
                                    stream_counts[i]);
            ns[i] += bench_thread_ns() - begin;
        }
        passes++;
    } while (bench_wall_ns() < reader->until_ns);
    (void)sink;
    for (size_t i = 0; i < STREAM_COUNTS; i++) {
        double rate = (double)(passes * reader->bytes) / ((double)ns[i] / NS_PER_S);

        reader->bytes_per_s = rate > reader->bytes_per_s ? rate : reader->bytes_per_s;
    }
    return NULL;
}

static char *map_memory(void)
{
    char *memory =
        mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        bench_fail("out of memory for %zu bytes", READ_BYTES);
    madvise(memory, READ_BYTES, MADV_HUGEPAGE); /* as fast as memory gets; refused: slower */
    memset(memory, 1, READ_BYTES);
    return memory;
}

double peak_bandwidth(size_t threads, double budget_s)
{
    static char *memory;
    struct reader readers[MAX_THREADS] = {{0}};
    size_t count = threads < MAX_THREADS ? threads : MAX_THREADS;
    size_t unit = PEAK_READ_UNIT * stream_counts[STREAM_COUNTS - 1];
    size_t share = READ_BYTES / count / unit * unit;
    double total = 0;
    uint64_t until_ns;

    if (!memory)
        memory = map_memory();
    until_ns = bench_wall_ns() + (uint64_t)(budget_s * NS_PER_S);
    for (size_t i = 0; i < count; i++) {
        readers[i].memory = memory + i * share;
        readers[i].bytes = share;
        readers[i].until_ns = until_ns;
        if (pthread_create(&readers[i].thread, NULL, read_until, &readers[i]) != 0)
            bench_fail("cannot start a thread");
    }
    for (size_t i = 0; i < count; i++) {
        pthread_join(readers[i].thread, NULL);
        total += readers[i].bytes_per_s;
    }
    return total;
}
