#if defined(__x86_64__)
#include "tests/bench/peak.h"

#include <immintrin.h>

/* Sixteen sums of two products each: VDPBF16PS. */
static float run(size_t steps)
{
    const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(-0.5f));
    const __m512bh b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.25f), _mm512_set1_ps(0.25f));
    __m512 sums[PEAK_CHAINS];
    __m512 total = _mm512_setzero_ps();

#pragma GCC unroll 16
    for (size_t c = 0; c < PEAK_CHAINS; c++)
        sums[c] = _mm512_set1_ps((float)c);
    for (size_t i = 0; i < steps; i++) {
#pragma GCC unroll 16
        for (size_t c = 0; c < PEAK_CHAINS; c++)
            sums[c] = _mm512_dpbf16_ps(sums[c], a, b);
    }
#pragma GCC unroll 16
    for (size_t c = 0; c < PEAK_CHAINS; c++)
        total = _mm512_add_ps(total, sums[c]);
    return _mm512_reduce_add_ps(total);
}

const struct peak_kernel peak_avx512_bf16 = {"avx512_bf16", 4.0 * 16 * PEAK_CHAINS, run, NULL};
#endif
