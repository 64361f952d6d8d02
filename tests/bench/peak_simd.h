/*
 * The body of peak_avx2.c and peak_avx512.c, which say what a vector is:
 * vec, SET1, FMADD, REDUCE of floats; ivec, ILOAD, IXOR, IREDUCE of bits; LANES floats each.
 */
static float run(size_t steps)
{
    vec sums[PEAK_CHAINS];
    const vec factor = SET1(0.999f); /* sums stay near 1: no denormals, no infinities */
    const vec term = SET1(0.001f);
    vec total = SET1(0.0f);

#pragma GCC unroll 16
    for (size_t c = 0; c < PEAK_CHAINS; c++)
        sums[c] = SET1(1.0f + (float)c / 64);
    for (size_t i = 0; i < steps; i++) {
#pragma GCC unroll 16
        for (size_t c = 0; c < PEAK_CHAINS; c++)
            sums[c] = FMADD(sums[c], factor, term);
    }
#pragma GCC unroll 16
    for (size_t c = 0; c < PEAK_CHAINS; c++)
        total = FMADD(sums[c], factor, total);
    return REDUCE(total);
}

static uint64_t read_memory(const void *memory, size_t bytes, size_t streams)
{
    ivec sums[4] = {IZERO(), IZERO(), IZERO(), IZERO()};

    for (size_t i = 0; i < bytes; i += sizeof sums) {
        for (size_t s = 0; s < streams; s++) {
            const ivec *at = (const ivec *)((const char *)memory + s * bytes + i);

#pragma GCC unroll 4
            for (size_t c = 0; c < 4; c++)
                sums[c] = IXOR(sums[c], ILOAD(at + c));
        }
    }
    return IREDUCE(IXOR(IXOR(sums[0], sums[1]), IXOR(sums[2], sums[3])));
}

const struct peak_kernel PEAK = {PEAK_NAME, 2.0 * LANES *PEAK_CHAINS, run, read_memory};
