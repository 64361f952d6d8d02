#include "lib/ops/kernels/kernels.h"

void nsa_posembed_row_ref(float *y, const float *x, const float *e, size_t dim)
{
    for (size_t i = 0; i < dim; i++)
        y[i] = (float)((double)x[i] + (double)e[i]);
}
