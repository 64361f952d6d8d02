/*
 * Top-k by a heap of the k best so far, worst on top: most scores of a long row fail one comparison
 * and touch nothing, and no order of the input costs more than n log k.
 *
 * A score and its position are one 64-bit integer, key above complemented index, so that all are
 * distinct and "greater" is "comes first". The heap lives in the output row, whose elements are as
 * wide, and sorting it in place leaves the greatest first.
 */
#include "lib/ops/kernels/kernels.h"

#include <nsa/dtype.h>

#define CHUNK 256

static uint64_t entry_make(float score, size_t index)
{
    return (uint64_t)nsa_score_key(score) << 32 | (UINT32_MAX - (uint32_t)index);
}

/* Let `entry` sink from the hole at `at` to its place in the min-heap of `count` entries. */
static void sift_down(uint64_t *heap, size_t count, size_t at, uint64_t entry)
{
    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= count)
            break;
        if (child + 1 < count && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= entry)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = entry;
}

static void heap_sort_descending(uint64_t *heap, size_t count)
{
    while (count > 1) {
        uint64_t least = heap[0];

        count--;
        sift_down(heap, count, 0, heap[count]);
        heap[count] = least;
    }
}

static void select_row(int64_t *indices, const void *scores, nsa_dtype dtype, size_t n, size_t k)
{
    uint64_t *heap = (uint64_t *)indices;
    size_t element_bytes = nsa_dtype_size(dtype);
    float chunk[CHUNK];

    for (size_t begin = 0; begin < n; begin += CHUNK) {
        size_t count = n - begin < CHUNK ? n - begin : CHUNK;
        size_t i = 0;

        nsa_to_f32(chunk, (const char *)scores + begin * element_bytes, dtype, count);
        for (; i < count && begin + i < k; i++) {
            heap[begin + i] = entry_make(chunk[i], begin + i);
            if (begin + i + 1 < k)
                continue;
            for (size_t parent = k / 2; parent-- > 0;)
                sift_down(heap, k, parent, heap[parent]);
        }
        for (; i < count; i++) {
            uint64_t entry = entry_make(chunk[i], begin + i);

            if (entry > heap[0])
                sift_down(heap, k, 0, entry);
        }
    }
    heap_sort_descending(heap, k);
    for (size_t rank = 0; rank < k; rank++)
        indices[rank] = (int64_t)(UINT32_MAX - (uint32_t)heap[rank]);
}

void nsa_select_rows_heap(int64_t *indices, const void *scores, nsa_dtype dtype, size_t rows,
                          size_t n, size_t k)
{
    size_t row_bytes = n * nsa_dtype_size(dtype);

    for (size_t row = 0; row < rows; row++)
        select_row(indices + row * k, (const char *)scores + row * row_bytes, dtype, n, k);
}
