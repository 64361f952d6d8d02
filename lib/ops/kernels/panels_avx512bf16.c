#if defined(__x86_64__)
#include "lib/ops/kernels/panels_avx512.h"

/* An element is two bfloat16, which one instruction multiplies and adds up; subnormal numbers count
 * as zero in it. */
#define operand __m512i
#define OPERAND_LOAD(p) _mm512_loadu_si512(p)
#define OPERAND_SPREAD(p) _mm512_set1_epi32(load_i32(p))
#define MULTIPLY_ADD(sum, x, w) _mm512_dpbf16_ps(sum, (__m512bh)(x), (__m512bh)(w))
#define ENGINE nsa_panels_avx512bf16
#define ENGINE_NAME "panels-avx512bf16"
#define ENGINE_INPUT NSA_BF16
#define ENGINE_INPUT_BYTES 2
#define ENGINE_SUPPORTED nsa_cpu_has_avx512bf16
#include "lib/ops/kernels/panels.h"
#endif
