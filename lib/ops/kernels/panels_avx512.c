#if defined(__x86_64__)
#include "lib/ops/kernels/panels_avx512.h"

#define operand __m512
#define OPERAND_LOAD(p) _mm512_loadu_ps((const float *)(const void *)(p))
#define OPERAND_SPREAD(p) _mm512_set1_ps(load_f32(p))
#define MULTIPLY_ADD(sum, x, w) _mm512_fmadd_ps(x, w, sum)
#define ENGINE nsa_panels_avx512
#define ENGINE_NAME "panels-avx512"
#define ENGINE_INPUT NSA_F32
#define ENGINE_INPUT_BYTES 4
#define ENGINE_ROUND NULL
#define ENGINE_SUPPORTED NULL
#include "lib/ops/kernels/panels.h"
#endif
