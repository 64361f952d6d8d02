#if defined(__x86_64__)
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define vec __m256i
#define LANES 4
#define VEC_LOAD(from) _mm256_loadu_si256((const __m256i *)(from))
#define VEC_STORE(to, v) _mm256_storeu_si256((__m256i *)(to), v)
#define VEC_MAX(a, b)                                                                              \
    _mm256_castpd_si256(_mm256_max_pd(_mm256_castsi256_pd(a), _mm256_castsi256_pd(b)))
#define VEC_MIN(a, b)                                                                              \
    _mm256_castpd_si256(_mm256_min_pd(_mm256_castsi256_pd(a), _mm256_castsi256_pd(b)))
#define VEC_ADD _mm256_add_epi64
#define VEC_SUB _mm256_sub_epi64
#define VEC_ANDNOT _mm256_andnot_si256
#define VEC_SPREAD _mm256_set1_epi64x
#define VEC_SHIFT_LEFT _mm256_slli_epi64
#define VEC_FROM_I32(from) _mm256_cvtepi32_epi64(_mm_loadu_si128((const __m128i *)(from)))
#define VEC_REVERSE(v) _mm256_permute4x64_epi64(v, 0x1B)

#define keys_vec __m256i
#define KEY_LANES 8
#define KEYS_STORE(to, v) _mm256_storeu_si256((__m256i *)(to), v)
#define KEYS_MAX _mm256_max_epi32
#define KEYS_SPREAD _mm256_set1_epi32

/*
 * AVX2 has no maximum of 64-bit integers, but one of doubles: an entry is a double in [1, 2), the
 * key and 20 bits of complemented index its fraction. Such doubles are ordered as their bits are,
 * whatever the modes of the floating-point unit.
 */
#define ENTRY_SHIFT 20
#define ENTRY_BIAS ((INT64_C(0x3FF) << 52) + (INT64_C(1) << 51))

#define NETWORK_MAX_N 512
#define SELECT_ROWS nsa_select_rows_avx2

/* The order of nsa_score_key() as signed integers, of eight scores. */
static inline __m256i keys_of(__m256i bits)
{
    __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(INT32_MAX));
    __m256i negative = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)0xFF800001), bits);

    magnitude = _mm256_min_epu32(magnitude, _mm256_set1_epi32(0x7F800001));
    return _mm256_sub_epi32(_mm256_xor_si256(magnitude, negative), negative);
}

static inline __m256i keys_load(const unsigned char *scores)
{
    return keys_of(_mm256_loadu_si256((const __m256i *)scores));
}

static inline __m256i keys_positions(uint32_t first)
{
    return _mm256_add_epi32(_mm256_set1_epi32((int)first),
                            _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
}

static inline __m256i keys_load_part(const unsigned char *scores, size_t count)
{
    __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), keys_positions(0));

    return _mm256_blendv_epi8(
        _mm256_set1_epi32(INT32_MIN),
        keys_of(_mm256_maskload_epi32((const int *)(const void *)scores, mask)), mask);
}

/* How many keys are `bound` or above. */
static inline size_t keys_reach(__m256i keys, __m256i bound)
{
    __m256i below = _mm256_cmpgt_epi32(bound, keys);

    return 8 - (size_t)__builtin_popcount((unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(below)));
}

/* The set bits of a mask of four, the lowest first. */
static const int32_t set_bits[16][4] = {
    {0}, {0},    {1},    {0, 1},    {2},    {0, 2},    {1, 2},    {0, 1, 2},
    {3}, {0, 3}, {1, 3}, {0, 1, 3}, {2, 3}, {0, 2, 3}, {1, 2, 3}, {0, 1, 2, 3},
};

static inline void compress_half(void *to, __m128i from, unsigned mask)
{
    __m128i places = _mm_loadu_si128((const __m128i *)set_bits[mask]);

    _mm_storeu_si128(to, _mm_castps_si128(_mm_permutevar_ps(_mm_castsi128_ps(from), places)));
}

/* Store the keys above `bound` and their positions, densely; up to a whole vector is written. */
static inline size_t keys_keep(int32_t *kept, uint32_t *kept_positions, __m256i keys,
                               __m256i positions, __m256i bound)
{
    __m256i above = _mm256_cmpgt_epi32(keys, bound);
    unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(above));
    size_t low = (size_t)__builtin_popcount(mask & 15);

    compress_half(kept, _mm256_castsi256_si128(keys), mask & 15);
    compress_half(kept_positions, _mm256_castsi256_si128(positions), mask & 15);
    compress_half(kept + low, _mm256_extracti128_si256(keys, 1), mask >> 4);
    compress_half(kept_positions + low, _mm256_extracti128_si256(positions, 1), mask >> 4);
    return low + (size_t)__builtin_popcount(mask >> 4);
}

static inline __m256i entry_of(__m128i keys, size_t index)
{
    return _mm256_add_epi64(
        _mm256_slli_epi64(_mm256_cvtepi32_epi64(keys), ENTRY_SHIFT),
        _mm256_set1_epi64x(ENTRY_BIAS + (INT64_C(1) << ENTRY_SHIFT) - 1 - (int64_t)index));
}

/*
 * columns[c], lane r = the entry of keys[r][c], whose index is begin + c: a transposition of 4
 * vectors of 8 keys.
 */
static inline __attribute__((always_inline)) void columns_of(__m256i *columns, const __m256i *keys,
                                                             size_t begin)
{
    __m256i low01 = _mm256_unpacklo_epi32(keys[0], keys[1]);
    __m256i high01 = _mm256_unpackhi_epi32(keys[0], keys[1]);
    __m256i low23 = _mm256_unpacklo_epi32(keys[2], keys[3]);
    __m256i high23 = _mm256_unpackhi_epi32(keys[2], keys[3]);
    __m256i quads[4] = {_mm256_unpacklo_epi64(low01, low23), _mm256_unpackhi_epi64(low01, low23),
                        _mm256_unpacklo_epi64(high01, high23),
                        _mm256_unpackhi_epi64(high01, high23)};

    for (size_t c = 0; c < 4; c++) {
        columns[c] = entry_of(_mm256_castsi256_si128(quads[c]), begin + c);
        columns[c + 4] = entry_of(_mm256_extracti128_si256(quads[c], 1), begin + c + 4);
    }
}

static inline __attribute__((always_inline)) void transpose(__m256i *v)
{
    __m256i a = _mm256_unpacklo_epi64(v[0], v[1]);
    __m256i b = _mm256_unpackhi_epi64(v[0], v[1]);
    __m256i c = _mm256_unpacklo_epi64(v[2], v[3]);
    __m256i d = _mm256_unpackhi_epi64(v[2], v[3]);

    v[0] = _mm256_permute2x128_si256(a, c, 0x20);
    v[1] = _mm256_permute2x128_si256(b, d, 0x20);
    v[2] = _mm256_permute2x128_si256(a, c, 0x31);
    v[3] = _mm256_permute2x128_si256(b, d, 0x31);
}

static inline void vec_store_part(int64_t *to, __m256i v, size_t count)
{
    __m256i mask =
        _mm256_cmpgt_epi64(_mm256_set1_epi64x((int64_t)count), _mm256_set_epi64x(3, 2, 1, 0));

    _mm256_maskstore_epi64((long long *)to, mask, v);
}

/* Order each lane with the one that `swapped` has in its place; the lanes of `lower`, pairs of
 * bits, get the less. */
#define ORDER_LANES(v, swapped, lower)                                                             \
    _mm256_blend_epi32(VEC_MAX(v, swapped), VEC_MIN(v, swapped), lower)

/* Sort a bitonic vector, the greatest first. */
static inline __m256i vec_clean(__m256i v)
{
    v = ORDER_LANES(v, _mm256_permute4x64_epi64(v, 0x4E), 0xF0);
    return ORDER_LANES(v, _mm256_shuffle_epi32(v, 0x4E), 0xCC);
}

static inline __m256i vec_sort(__m256i v)
{
    v = ORDER_LANES(v, _mm256_shuffle_epi32(v, 0x4E), 0xCC);
    v = ORDER_LANES(v, VEC_REVERSE(v), 0xF0);
    return ORDER_LANES(v, _mm256_shuffle_epi32(v, 0x4E), 0xCC);
}

#include "lib/ops/kernels/select_rows.h"
#endif
