/* What tests of kernels share: every table that this processor runs, and numbers of any kind. */
#ifndef TESTS_TABLES_H
#define TESTS_TABLES_H

#include "tests/unit/support.h"

#include <nsa/cpu.h>
#include <string.h>

#define LONGEST 67 /* more than any vector, unrolled fourfold, with every length of tail */

static inline float float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline const nsa_kernels *use_table(size_t index)
{
    const char *name = nsa_cpu_supported(index);

    if (!name)
        return NULL;
    assert_status(NSA_OK, nsa_cpu_use(name, NULL));
    return nsa_kernels_active();
}

/* Half of them near 0, where activations bend, half any bits at all: NaN and infinity too. */
static inline void fill_any(float *values, size_t count, uint64_t *random)
{
    for (size_t i = 0; i < count; i++)
        values[i] = random_u64(random) & 1 ? random_float(random) * 6
                                           : float_of((uint32_t)(random_u64(random) >> 32));
}

#endif
