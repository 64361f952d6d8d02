#if defined(__x86_64__)
#include <immintrin.h>

#define vec __m256
#define VEC_LOAD _mm256_loadu_ps
#define VEC_STORE _mm256_storeu_ps
#define VEC_SPREAD _mm256_set1_ps
#define VEC_FMA _mm256_fmadd_ps
#define VEC_ADD _mm256_add_ps
#define LANES 8
#define PANEL_VECS 2
#define ENGINE nsa_panels_avx2
#define ENGINE_NAME "panels-avx2"
#include "lib/ops/kernels/panels.h"
#endif
