#if defined(__x86_64__)
#include <immintrin.h>

#define vec __m256
#define VEC_ZERO _mm256_setzero_ps
#define VEC_LOAD _mm256_loadu_ps
#define VEC_STORE _mm256_storeu_ps
#define VEC_ADD _mm256_add_ps
#define HOLD(w) __asm__("" : "+x"(w))
#define LANES 8
#define PANEL_VECS 2
#define operand __m256
#define OPERAND_LOAD(p) _mm256_loadu_ps((const float *)(const void *)(p))
#define OPERAND_SPREAD(p) _mm256_set1_ps(load_f32(p))
#define MULTIPLY_ADD(sum, x, w) _mm256_fmadd_ps(x, w, sum)
#define ENGINE nsa_panels_avx2
#define ENGINE_NAME "panels-avx2"
#define ENGINE_INPUT NSA_F32
#define ENGINE_INPUT_BYTES 4
#define ENGINE_ROUND NULL
#define ENGINE_SUPPORTED NULL
#include "lib/ops/kernels/panels.h"
#endif
