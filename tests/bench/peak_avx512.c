#if defined(__x86_64__)
#include "tests/bench/peak.h"

#include <immintrin.h>

#define vec __m512
#define SET1 _mm512_set1_ps
#define FMADD _mm512_fmadd_ps
#define REDUCE _mm512_reduce_add_ps
#define ivec __m512i
#define IZERO _mm512_setzero_si512
#define ILOAD _mm512_load_si512
#define IXOR _mm512_xor_si512
#define IREDUCE (uint64_t) _mm512_reduce_or_epi64
#define LANES 16
#define PEAK peak_avx512
#define PEAK_NAME "avx512"
#include "tests/bench/peak_simd.h"
#endif
