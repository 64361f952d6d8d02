#include "lib/ops/kernels/kernels.h"

/* Whether position a comes before position b. */
static bool precedes(const float *scores, size_t a, size_t b)
{
    uint32_t key_a = nsa_score_key(scores[a]);
    uint32_t key_b = nsa_score_key(scores[b]);

    return key_a != key_b ? key_a > key_b : a < b;
}

/* k passes, each finding the first position that comes after the one found before. */
void nsa_select_row_ref(int64_t *indices, const float *scores, size_t n, size_t k)
{
    for (size_t rank = 0; rank < k; rank++) {
        size_t best = SIZE_MAX;

        for (size_t i = 0; i < n; i++) {
            bool after_last = rank == 0 || precedes(scores, (size_t)indices[rank - 1], i);

            if (after_last && (best == SIZE_MAX || precedes(scores, i, best)))
                best = i;
        }
        indices[rank] = (int64_t)best;
    }
}
