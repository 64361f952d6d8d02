#include <nsa/cpu.h>

#include "lib/ops/kernels/kernels.h"

#include <stdbool.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* What the Makefile compiles these kernels for; the check includes the operating system's part. */
static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

bool nsa_cpu_has_avx512bf16(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

/* Leaf 7 of CPUID names both parts of AMX; its registers are large, and Linux has to be asked. */
bool nsa_cpu_has_amx(void)
{
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned eax;
    unsigned ebx;
    unsigned ecx;
    unsigned edx;

    return nsa_cpu_has_avx512bf16() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
           (edx & AMX_BF16) != 0 && (edx & AMX_TILE) != 0 &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

/* The plainest first, the best last. */
static const struct {
    const nsa_kernels *kernels;
    bool (*supported)(void);
} tables[] = {
    {&nsa_kernels_portable, always},
#if defined(__x86_64__)
    {&nsa_kernels_avx2, has_avx2},
    {&nsa_kernels_avx512, has_avx512},
#endif
};

#define TABLE_COUNT (sizeof tables / sizeof *tables)

/* Set by nsa_cpu_use() before any other thread exists. */
static const nsa_kernels *active = &nsa_kernels_portable;

nsa_status nsa_cpu_use(const char *name, nsa_error *err)
{
    const nsa_kernels *chosen = NULL;
    bool is_auto = strcmp(name, "auto") == 0;
    bool known = is_auto || strcmp(name, "avx2") == 0 || strcmp(name, "avx512") == 0;

    for (size_t i = 0; i < TABLE_COUNT; i++) {
        bool named = strcmp(name, tables[i].kernels->name) == 0;

        known = known || named;
        if ((is_auto || named) && tables[i].supported())
            chosen = tables[i].kernels;
    }
    if (!known)
        return nsa_error_set(err, NSA_EINVAL,
                             "kernel: expected auto, portable, avx2 or avx512, got '%s'", name);
    if (!chosen)
        return nsa_error_set(err, NSA_EUNSUPPORTED, "kernel: this processor does not support %s",
                             name);
    active = chosen;
    return NSA_OK;
}

const char *nsa_cpu_kernel(void)
{
    return active->name;
}

const char *nsa_cpu_supported(size_t index)
{
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        if (tables[i].supported() && index-- == 0)
            return tables[i].kernels->name;
    }
    return NULL;
}

const nsa_kernels *nsa_kernels_active(void)
{
    return active;
}
