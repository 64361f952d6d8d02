#if defined(__x86_64__)
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define vec __m512i
#define LANES 8
#define VEC_LOAD _mm512_loadu_si512
#define VEC_STORE _mm512_storeu_si512
#define VEC_MAX _mm512_max_epi64
#define VEC_MIN _mm512_min_epi64
#define VEC_ADD _mm512_add_epi64
#define VEC_SUB _mm512_sub_epi64
#define VEC_ANDNOT _mm512_andnot_si512
#define VEC_SPREAD _mm512_set1_epi64
#define VEC_SHIFT_LEFT _mm512_slli_epi64
#define VEC_FROM_I32(from) _mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *)(from)))
#define VEC_REVERSE(v) _mm512_permutexvar_epi64(_mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7), v)

#define keys_vec __m512i
#define KEY_LANES 16
#define KEYS_STORE _mm512_storeu_si512
#define KEYS_MAX _mm512_max_epi32
#define KEYS_SPREAD _mm512_set1_epi32

/* An entry is the key above 32 bits of complemented index. */
#define ENTRY_SHIFT 32
#define ENTRY_BIAS 0

#define NETWORK_MAX_N 1024
#define SELECT_ROWS nsa_select_rows_avx512

/* The order of nsa_score_key() as signed integers, of sixteen scores. */
static inline __m512i keys_of(__m512i bits)
{
    __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(INT32_MAX));
    __mmask16 negative = _mm512_cmple_epi32_mask(bits, _mm512_set1_epi32((int)0xFF800000));

    magnitude = _mm512_min_epu32(magnitude, _mm512_set1_epi32(0x7F800001));
    return _mm512_mask_sub_epi32(magnitude, negative, _mm512_setzero_si512(), magnitude);
}

static inline __m512i keys_load(const unsigned char *scores)
{
    return keys_of(_mm512_loadu_si512(scores));
}

static inline __m512i keys_load_part(const unsigned char *scores, size_t count)
{
    __mmask16 mask = (__mmask16)((1u << count) - 1);

    return _mm512_mask_mov_epi32(_mm512_set1_epi32(INT32_MIN), mask,
                                 keys_of(_mm512_maskz_loadu_epi32(mask, scores)));
}

static inline __m512i keys_positions(uint32_t first)
{
    return _mm512_add_epi32(_mm512_set1_epi32((int)first),
                            _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
}

/* How many keys are `bound` or above. */
static inline size_t keys_reach(__m512i keys, __m512i bound)
{
    return (size_t)__builtin_popcount(_cvtmask16_u32(_mm512_cmpge_epi32_mask(keys, bound)));
}

/* Store the keys above `bound` and their positions, densely; up to a whole vector is written. */
static inline size_t keys_keep(int32_t *kept, uint32_t *kept_positions, __m512i keys,
                               __m512i positions, __m512i bound)
{
    __mmask16 mask = _mm512_cmpgt_epi32_mask(keys, bound);

    _mm512_storeu_si512(kept, _mm512_maskz_compress_epi32(mask, keys));
    _mm512_storeu_si512(kept_positions, _mm512_maskz_compress_epi32(mask, positions));
    /* _cvtmask16_u32(): of a mask that it keeps in memory GCC 12 else counts 32 bits, not 16. */
    return (size_t)__builtin_popcount(_cvtmask16_u32(mask));
}

/*
 * For column c of sixteen, what picks the keys of eight rows, four in each source, into the upper
 * halves of the entries; a lower half is no selector but part of the result.
 */
#define PICK(c)                                                                                    \
    {                                                                                              \
        -(c), (c) / 4 * 4, -(c), (c) / 4 * 4 + 1, -(c), (c) / 4 * 4 + 2, -(c), (c) / 4 * 4 + 3,    \
            -(c), (c) / 4 * 4 + 16, -(c), (c) / 4 * 4 + 17, -(c), (c) / 4 * 4 + 18, -(c),          \
            (c) / 4 * 4 + 19                                                                       \
    }

static const int32_t pick[16][16] = {PICK(0),  PICK(1),  PICK(2),  PICK(3), PICK(4),  PICK(5),
                                     PICK(6),  PICK(7),  PICK(8),  PICK(9), PICK(10), PICK(11),
                                     PICK(12), PICK(13), PICK(14), PICK(15)};

/*
 * columns[c], lane r = the entry of keys[r][c], whose index is begin + c: a transposition of 8
 * vectors of 16 keys.
 */
static inline __attribute__((always_inline)) void columns_of(__m512i *columns, const __m512i *keys,
                                                             size_t begin)
{
    __m512i base = _mm512_set1_epi64((long long)(uint32_t)~begin);
    __m512i pairs[8];
    __m512i quads[8]; /* quads[c % 4], 128 bits each c / 4: rows 0 to 3; quads[4 + c % 4]: 4 to 7 */

    for (size_t r = 0; r < 8; r += 2) {
        pairs[r] = _mm512_unpacklo_epi32(keys[r], keys[r + 1]);
        pairs[r + 1] = _mm512_unpackhi_epi32(keys[r], keys[r + 1]);
    }
    for (size_t r = 0; r < 8; r += 4) {
        quads[r] = _mm512_unpacklo_epi64(pairs[r], pairs[r + 2]);
        quads[r + 1] = _mm512_unpackhi_epi64(pairs[r], pairs[r + 2]);
        quads[r + 2] = _mm512_unpacklo_epi64(pairs[r + 1], pairs[r + 3]);
        quads[r + 3] = _mm512_unpackhi_epi64(pairs[r + 1], pairs[r + 3]);
    }
    for (size_t c = 0; c < 16; c++)
        columns[c] = _mm512_mask2_permutex2var_epi32(
            quads[c % 4], _mm512_add_epi32(base, _mm512_loadu_si512(pick[c])), 0xAAAA,
            quads[4 + c % 4]);
}

static inline __attribute__((always_inline)) void transpose(__m512i *v)
{
    __m512i a[8];
    __m512i b[8];

    for (size_t i = 0; i < 8; i += 2) {
        a[i] = _mm512_unpacklo_epi64(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi64(v[i], v[i + 1]);
    }
    for (size_t i = 0; i < 2; i++) {
        b[i] = _mm512_shuffle_i64x2(a[i], a[i + 2], 0x88);
        b[i + 2] = _mm512_shuffle_i64x2(a[i], a[i + 2], 0xDD);
        b[i + 4] = _mm512_shuffle_i64x2(a[i + 4], a[i + 6], 0x88);
        b[i + 6] = _mm512_shuffle_i64x2(a[i + 4], a[i + 6], 0xDD);
    }
    for (size_t i = 0; i < 4; i++) {
        v[i] = _mm512_shuffle_i64x2(b[i], b[i + 4], 0x88);
        v[i + 4] = _mm512_shuffle_i64x2(b[i], b[i + 4], 0xDD);
    }
}

static inline void vec_store_part(int64_t *to, __m512i v, size_t count)
{
    _mm512_mask_storeu_epi64(to, (__mmask8)((1u << count) - 1), v);
}

/* Order each lane with the one that `swapped` has in its place; the lanes of `lower` get the less.
 */
static inline __m512i order_lanes(__m512i v, __m512i swapped, __mmask8 lower)
{
    return _mm512_mask_min_epi64(_mm512_max_epi64(v, swapped), lower, v, swapped);
}

/* Sort a bitonic vector, the greatest first. */
static inline __m512i vec_clean(__m512i v)
{
    v = order_lanes(v, _mm512_shuffle_i64x2(v, v, 0x4E), 0xF0);
    v = order_lanes(v, _mm512_permutex_epi64(v, 0x4E), 0xCC);
    return order_lanes(v, _mm512_shuffle_epi32(v, _MM_PERM_BADC), 0xAA);
}

static inline __m512i vec_sort(__m512i v)
{
    v = order_lanes(v, _mm512_shuffle_epi32(v, _MM_PERM_BADC), 0xAA);
    v = order_lanes(v, _mm512_permutex_epi64(v, 0x1B), 0xCC);
    v = order_lanes(v, _mm512_shuffle_epi32(v, _MM_PERM_BADC), 0xAA);
    v = order_lanes(v, VEC_REVERSE(v), 0xF0);
    v = order_lanes(v, _mm512_permutex_epi64(v, 0x4E), 0xCC);
    return order_lanes(v, _mm512_shuffle_epi32(v, _MM_PERM_BADC), 0xAA);
}

#include "lib/ops/kernels/select_rows.h"
#endif
