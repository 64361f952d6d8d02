#if defined(__x86_64__)
#include "tests/bench/peak.h"

#include <immintrin.h>

#define vec __m256
#define SET1 _mm256_set1_ps
#define FMADD _mm256_fmadd_ps
#define REDUCE(v) _mm256_cvtss_f32(_mm256_hadd_ps(v, v))
#define ivec __m256i
#define IZERO _mm256_setzero_si256
#define ILOAD _mm256_load_si256
#define IXOR _mm256_xor_si256
#define IREDUCE(v) (uint64_t) _mm256_extract_epi64(v, 0)
#define LANES 8
#define PEAK peak_avx2
#define PEAK_NAME "avx2"
#include "tests/bench/peak_simd.h"
#endif
