#if defined(__x86_64__)
#include "lib/ops/kernels/panels_avx512.h"

/* An element is two bfloat16, which one instruction multiplies and adds up; subnormal numbers count
 * as zero in it. */
#define operand __m512i
#define OPERAND_LOAD(p) _mm512_loadu_si512(p)
#define OPERAND_SPREAD(p) _mm512_set1_epi32(load_i32(p))
#define MULTIPLY_ADD(sum, x, w) _mm512_dpbf16_ps(sum, (__m512bh)(x), (__m512bh)(w))
#define ENGINE nsa_panels_avx512bf16
#define ENGINE_ROUND nsa_round_avx512bf16
#define ENGINE_NAME "panels-avx512bf16"
#define ENGINE_INPUT NSA_BF16
#define ENGINE_INPUT_BYTES 2
#define ENGINE_SUPPORTED nsa_cpu_has_avx512bf16
#include "lib/ops/kernels/panels.h"

void nsa_round_avx512bf16(uint16_t *dst, const void *x, size_t count)
{
    const char *from = x;
    size_t i = 0;

    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        __m512 low = _mm512_loadu_ps(from + i * sizeof(float));
        __m512 high = _mm512_loadu_ps(from + (i + LANES) * sizeof(float));

        _mm512_storeu_si512(dst + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    for (; i < count; i += LANES) {
        __mmask16 mask = (__mmask16)(count - i < LANES ? (1u << (count - i)) - 1 : 0xFFFF);
        __m512 rest = _mm512_maskz_loadu_ps(mask, from + i * sizeof(float));

        _mm256_mask_storeu_epi16(dst + i, mask, (__m256i)_mm512_cvtneps_pbh(rest));
    }
}
#endif
