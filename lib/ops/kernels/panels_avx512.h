/* The vectors of AVX-512 that both of its engines sum in; see panels.h. */
#include <immintrin.h>

#define vec __m512
#define VEC_ZERO _mm512_setzero_ps
#define VEC_LOAD _mm512_loadu_ps
#define VEC_STORE _mm512_storeu_ps
#define VEC_ADD _mm512_add_ps
#define HOLD(w) __asm__("" : "+v"(w))
#define LANES 16
#define PANEL_VECS 4
