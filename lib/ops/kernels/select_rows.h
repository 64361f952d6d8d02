/*
 * Selection with vectors, included once for each ISA by a file that defines
 *
 *   vec            a vector of LANES entries: 64-bit integers of a score's key above its
 *                  complemented index, so that all of a row differ and "greater" is "comes first"
 *   VEC_...        what the name says; loads and stores take any alignment
 *   ENTRY_SHIFT    bits below the key
 *   ENTRY_BIAS     what an entry of key 0 has besides the index
 *   keys_vec       a vector of KEY_LANES keys: the scores' order as 32-bit integers
 *   KEYS_...       what the name says
 *   keys_...()     load scores as keys, count those that reach a bound, keep those above one
 *   columns_of()   entries of LANES rows, transposed
 *   vec_...()      sort a vector, clean a bitonic one, store a part of one
 *   NETWORK_MAX_N  the longest rows for which networks are the faster way
 *   SELECT_ROWS    the name of the kernel
 *
 * Few of each row: LANES rows at once, one in each lane, by sorting networks. What a network does
 * depends on no score, so every row takes the same time.
 *
 * More: a lower bound of the k-th greatest, then a sort of the scores that reach it.
 *
 * What is left, very long rows and very many of a row, goes to the heap.
 */
#include "lib/ops/kernels/kernels.h"

#include <nsa/dtype.h>
#include <string.h>

/* Scores of a row that are widened to float32 at a time. */
#define CHUNK 64

#define NETWORK_MAX_K 16

#define SORT_MAX_K 2048
#define SORT_MAX_N (UINT32_C(1) << 20)
#define ENTRIES_MIN 128
#define STAGED_MAX 512
#define ENTRIES_MAX (2 * SORT_MAX_K)

#define INDEX_MASK ((INT64_C(1) << ENTRY_SHIFT) - 1)

#define INLINE static inline __attribute__((always_inline))

/* `count` scores (any alignment) as float32: in place, or in `widened`. */
INLINE const unsigned char *as_f32(float *widened, const unsigned char *scores, nsa_dtype dtype,
                                   size_t count)
{
    if (dtype == NSA_F32)
        return scores;
    nsa_kernels_active()->to_f32[dtype](widened, scores, count);
    return (const unsigned char *)widened;
}

/* --- networks: few of LANES rows ------------------------------------------------------------ */

/* Order pairs of v so that the greater comes first: `blocks` times `distance` pairs. */
INLINE void order(vec *v, size_t first, size_t distance, size_t blocks)
{
#pragma GCC unroll 8
    for (size_t pair = 0; pair < blocks * distance; pair++) {
        size_t i = first + pair / distance * 2 * distance + pair % distance;
        vec greater = VEC_MAX(v[i], v[i + distance]);

        v[i + distance] = VEC_MIN(v[i], v[i + distance]);
        v[i] = greater;
    }
}

/* Batcher's odd-even merge sort of 8 and of 16. */
INLINE void sort8(vec *v)
{
    order(v, 0, 1, 4);
    order(v, 0, 2, 2);
    order(v, 1, 1, 1);
    order(v, 5, 1, 1);
    order(v, 0, 4, 1);
    order(v, 2, 2, 1);
    order(v, 1, 1, 3);
}

INLINE void sort16(vec *v)
{
    sort8(v);
    sort8(v + 8);
    order(v, 0, 8, 1);
    order(v, 4, 4, 1);
    order(v, 2, 2, 3);
    order(v, 1, 1, 7);
}

/* best (width) = the greatest of best and v (width), both sorted: Batcher's bitonic merge. */
INLINE void merge(vec *best, const vec *v, const size_t width)
{
    for (size_t i = 0; i < width; i++)
        best[i] = VEC_MAX(best[i], v[width - 1 - i]);
    if (width == 16)
        order(best, 0, 8, 1);
    order(best, 0, 4, width / 8);
    order(best, 0, 2, width / 4);
    order(best, 0, 1, width / 2);
}

/* Take 16 columns of `count`, the first with the index `index`, of rows at rows[lane]. */
INLINE void take_columns(vec *best, const unsigned char *const *rows, size_t index, size_t count,
                         const size_t width)
{
    vec columns[16];

    for (size_t c = 0; c < 16; c += KEY_LANES) {
        keys_vec keys[LANES];

        for (size_t r = 0; r < LANES; r++) {
            const unsigned char *from = rows[r] + c * sizeof(float);

            if (count >= c + KEY_LANES)
                keys[r] = keys_load(from);
            else
                keys[r] = keys_load_part(from, count > c ? count - c : 0);
        }
        columns_of(columns + c, keys, index + c);
    }
    if (width == 16) {
        sort16(columns);
    } else {
        sort8(columns);
        sort8(columns + 8);
        merge(columns, columns + 8, 8);
    }
    if (index > 0) {
        merge(best, columns, width);
        return;
    }
    for (size_t i = 0; i < width; i++)
        best[i] = columns[i];
}

/* Write lane r of best (width) to row r of indices (rows, k), k <= width. */
INLINE void store_ranks(int64_t *indices, vec *best, size_t rows, size_t k, const size_t width)
{
    for (size_t rank = 0; rank < width; rank += LANES) {
        for (size_t i = rank; i < rank + LANES; i++)
            best[i] = VEC_ANDNOT(best[i], VEC_SPREAD(INDEX_MASK));
        transpose(best + rank);
        for (size_t r = 0; r < LANES && r < rows; r++) {
            if (k >= rank + LANES)
                VEC_STORE(indices + r * k + rank, best[rank + r]);
            else if (k > rank)
                vec_store_part(indices + r * k + rank, best[rank + r], k - rank);
        }
    }
}

/* Up to LANES rows; the lanes that are left repeat the last. k <= width. */
INLINE void select_lanes(int64_t *indices, const unsigned char *scores, nsa_dtype dtype,
                         size_t rows, size_t n, size_t k, const size_t width)
{
    size_t size = nsa_dtype_size(dtype);
    float widened[LANES][CHUNK];
    const unsigned char *at[LANES];
    vec best[16];

    for (size_t i = 0; i < width; i++)
        best[i] = VEC_SPREAD(0); /* n is at least 1, but compilers don't know */
    for (size_t begin = 0; begin < n; begin += CHUNK) {
        size_t count = n - begin < CHUNK ? n - begin : CHUNK;

        for (size_t r = 0; r < LANES; r++)
            at[r] = r < rows ? as_f32(widened[r], scores + (r * n + begin) * size, dtype, count)
                             : at[r - 1];
        for (size_t i = 0; i < count; i += 16) {
            take_columns(best, at, begin + i, count - i, width);
            for (size_t r = 0; r < LANES; r++)
                at[r] += 16 * sizeof(float);
        }
    }
    store_ranks(indices, best, rows, k, width);
}

static void select_lanes8(int64_t *indices, const unsigned char *scores, nsa_dtype dtype,
                          size_t rows, size_t n, size_t k)
{
    select_lanes(indices, scores, dtype, rows, n, k, 8);
}

static void select_lanes16(int64_t *indices, const unsigned char *scores, nsa_dtype dtype,
                           size_t rows, size_t n, size_t k)
{
    select_lanes(indices, scores, dtype, rows, n, k, 16);
}

/* --- one row: bound and sort ---------------------------------------------------------------- */

/*
 * Sort entries (count vectors), the greatest first: bitonic merges whose first step compares a half
 * with the other reversed, so that the less always goes to the higher place. Then those that would
 * fill a power of two up, less than any, would never move, and are left out.
 */
static void sort_entries(uint64_t *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        VEC_STORE(entries + i * LANES, vec_sort(VEC_LOAD(entries + i * LANES)));
    for (size_t half = 1; half < count; half *= 2) {
        for (size_t begin = 0; begin + half < count; begin += 2 * half) {
            size_t end = begin + 2 * half < count ? begin + 2 * half : count;

            for (size_t j = begin + half; j < end; j++) {
                uint64_t *to = entries + (2 * (begin + half) - 1 - j) * LANES;
                vec a = VEC_LOAD(to);
                vec b = VEC_LOAD(entries + j * LANES);

                b = VEC_REVERSE(b);
                VEC_STORE(to, VEC_MAX(a, b));
                b = VEC_MIN(a, b);
                VEC_STORE(entries + j * LANES, VEC_REVERSE(b));
            }
        }
        for (size_t distance = half / 2; distance > 0; distance /= 2) {
            for (size_t begin = 0; begin + distance < count; begin += 2 * distance) {
                for (size_t i = begin; i < begin + distance && i + distance < count; i++) {
                    vec a = VEC_LOAD(entries + i * LANES);
                    vec b = VEC_LOAD(entries + (i + distance) * LANES);

                    VEC_STORE(entries + i * LANES, VEC_MAX(a, b));
                    VEC_STORE(entries + (i + distance) * LANES, VEC_MIN(a, b));
                }
            }
        }
        for (size_t i = 0; i < count; i++)
            VEC_STORE(entries + i * LANES, vec_clean(VEC_LOAD(entries + i * LANES)));
    }
}

/* Sort `count` entries; up to a whole vector of the least are written after them. */
static void sort_padded(uint64_t *entries, size_t count)
{
    VEC_STORE(entries + count,
              VEC_SPREAD((int64_t)((uint64_t)INT32_MIN << ENTRY_SHIFT) + ENTRY_BIAS));
    sort_entries(entries, (count + LANES - 1) / LANES);
}

/*
 * The k-th greatest of keys (count, whole vectors), bit by bit, or a less one as soon as few more
 * than k reach it.
 */
static int32_t kth_key(const int32_t *keys, size_t count, size_t k)
{
    uint32_t kth = 0;

    for (uint32_t bit = UINT32_C(1) << 31; bit > 0; bit >>= 1) {
        keys_vec bound = KEYS_SPREAD((int32_t)((kth | bit) ^ UINT32_C(0x80000000)));
        size_t reached = 0;

        for (size_t i = 0; i < count; i += KEY_LANES)
            reached += keys_reach(*(const keys_vec *)(keys + i), bound);
        if (reached >= k)
            kth |= bit;
        if (reached >= k && reached <= k + k / 8)
            break;
    }
    return (int32_t)(kth ^ UINT32_C(0x80000000));
}

/*
 * A key that at least k of scores (n) reach: the k-th greatest of the maxima of 2k groups or more.
 * Of random scores about 1.4k reach it. The scores of a group lie evenly over the row, so that an
 * order of the whole row puts none of the groups above another, and their distance is an odd
 * multiple of 16, so that a row that repeats itself doesn't often.
 */
static int32_t lower_bound(const unsigned char *scores, nsa_dtype dtype, size_t n, size_t k)
{
    _Alignas(64) int32_t maxima[ENTRIES_MAX + 16];
    float widened[CHUNK];
    size_t size = nsa_dtype_size(dtype);
    size_t groups = ((2 * k + 15) / 16 | 1) * 16;
    size_t group = 0;

    for (size_t i = 0; i < groups; i++)
        maxima[i] = INT32_MIN;
    for (size_t begin = 0; begin < n; begin += CHUNK) {
        size_t count = n - begin < CHUNK ? n - begin : CHUNK;
        const unsigned char *from = as_f32(widened, scores + begin * size, dtype, count);

        for (size_t i = 0; i < count; i += KEY_LANES) {
            keys_vec keys = count - i >= KEY_LANES
                                ? keys_load(from + i * sizeof(float))
                                : keys_load_part(from + i * sizeof(float), count - i);

            keys = KEYS_MAX(keys, *(const keys_vec *)(maxima + group));
            KEYS_STORE(maxima + group, keys);
            group = group + KEY_LANES == groups ? 0 : group + KEY_LANES;
        }
    }
    return kth_key(maxima, groups, k);
}

/* What was found of a row so far: entries, and keys and positions that are yet to become entries.
 */
struct found {
    _Alignas(64) uint64_t entries[ENTRIES_MAX + STAGED_MAX + LANES];
    int32_t keys[STAGED_MAX + KEY_LANES];
    uint32_t positions[STAGED_MAX + KEY_LANES];
    size_t filled, staged;
};

/* Stage the keys above `bound` of a chunk, the index of whose first score is `begin`. */
INLINE void stage_chunk(struct found *found, const unsigned char *from, size_t begin, size_t count,
                        int32_t bound)
{
    size_t staged = found->staged;

    for (size_t i = 0; i < count; i += KEY_LANES) {
        keys_vec keys = count - i >= KEY_LANES
                            ? keys_load(from + i * sizeof(float))
                            : keys_load_part(from + i * sizeof(float), count - i);

        staged += keys_keep(found->keys + staged, found->positions + staged, keys,
                            keys_positions((uint32_t)(begin + i)), KEYS_SPREAD(bound));
    }
    found->staged = staged;
}

/* Make entries of what is staged. */
static void flush(struct found *found)
{
    uint64_t *entries = found->entries + found->filled;

    for (size_t i = 0; i < found->staged; i += LANES) {
        vec key = VEC_SHIFT_LEFT(VEC_FROM_I32(found->keys + i), ENTRY_SHIFT);
        vec index = VEC_FROM_I32(found->positions + i);

        VEC_STORE(entries + i, VEC_ADD(key, VEC_SUB(VEC_SPREAD(ENTRY_BIAS + INDEX_MASK), index)));
    }
    found->filled += found->staged;
    found->staged = 0;
}

/* k <= SORT_MAX_K, n <= SORT_MAX_N. */
static void select_sorted(int64_t *indices, const unsigned char *scores, nsa_dtype dtype, size_t n,
                          size_t k)
{
    struct found found;
    float widened[CHUNK];
    size_t size = nsa_dtype_size(dtype);
    size_t limit = 2 * k > ENTRIES_MIN ? 2 * k : ENTRIES_MIN;
    int32_t least = n <= limit ? INT32_MIN + 1 : lower_bound(scores, dtype, n, k);
    int32_t bound = least - 1;

    found.filled = 0;
    found.staged = 0;
    for (size_t begin = 0; begin < n; begin += CHUNK) {
        size_t count = n - begin < CHUNK ? n - begin : CHUNK;
        const unsigned char *from = as_f32(widened, scores + begin * size, dtype, count);

        stage_chunk(&found, from, begin, count, bound);
        if (found.filled + found.staged > limit) {
            flush(&found);
            sort_padded(found.entries, found.filled);
            found.filled = k;
            least =
                (int32_t)((int64_t)(found.entries[k - 1] - (uint64_t)ENTRY_BIAS) >> ENTRY_SHIFT);
        } else if (found.staged > STAGED_MAX - CHUNK) {
            flush(&found);
        }
        /* Once there are k, what is no more than equal to the least of them comes after them. */
        if (found.filled + found.staged >= k)
            bound = least;
    }
    flush(&found);
    sort_padded(found.entries, found.filled);
    for (size_t rank = 0; rank < k; rank++)
        indices[rank] = INDEX_MASK - ((int64_t)found.entries[rank] & INDEX_MASK);
}

/* --- the kernel ----------------------------------------------------------------------------- */

void SELECT_ROWS(int64_t *indices, const void *scores, nsa_dtype dtype, size_t rows, size_t n,
                 size_t k)
{
    const unsigned char *from = scores;
    size_t row_bytes = n * nsa_dtype_size(dtype);
    size_t row = 0;

    if (k > SORT_MAX_K || n > SORT_MAX_N) {
        nsa_select_rows_heap(indices, scores, dtype, rows, n, k);
        return;
    }
    /* Lanes without a row cost as much as others. */
    while (k <= NETWORK_MAX_K && n <= NETWORK_MAX_N && row < rows &&
           (n <= 64 || rows - row >= LANES / 2)) {
        size_t taken = rows - row < LANES ? rows - row : LANES;

        if (k <= 8)
            select_lanes8(indices + row * k, from + row * row_bytes, dtype, taken, n, k);
        else
            select_lanes16(indices + row * k, from + row * row_bytes, dtype, taken, n, k);
        row += taken;
    }
    for (; row < rows; row++)
        select_sorted(indices + row * k, from + row * row_bytes, dtype, n, k);
}
