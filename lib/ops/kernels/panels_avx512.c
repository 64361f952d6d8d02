#if defined(__x86_64__)
#include <immintrin.h>

#define vec __m512
#define VEC_LOAD _mm512_loadu_ps
#define VEC_STORE _mm512_storeu_ps
#define VEC_SPREAD _mm512_set1_ps
#define VEC_FMA _mm512_fmadd_ps
#define VEC_ADD _mm512_add_ps
#define LANES 16
#define PANEL_VECS 4
#define ENGINE nsa_panels_avx512
#define ENGINE_NAME "panels-avx512"
#include "lib/ops/kernels/panels.h"
#endif
