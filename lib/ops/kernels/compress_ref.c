#include "lib/ops/kernels/kernels.h"

#include <math.h>
#include <nsa/dtype.h>

double nsa_activation_ref(double x, nsa_activation activation)
{
    switch (activation) {
    case NSA_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case NSA_SILU:
        return x / (1 + exp(-x));
    case NSA_RELU:
        return x > 0 || isnan(x) ? x : 0;
    case NSA_GELU:
    case NSA_ACTIVATION_COUNT:
        break;
    }
    return 0.5 * x * (1 + erf(x * M_SQRT1_2));
}

/* `value` as the model's precision sees it. */
static double quantize(double value, nsa_precision precision)
{
    float single = (float)value;
    unsigned char half[2];

    if (precision != NSA_PRECISION_BF16)
        return value;
    nsa_from_f32(half, NSA_BF16, &single, 1);
    nsa_to_f32(&single, half, NSA_BF16, 1);
    return single;
}

void nsa_compress_row_ref(double *y, double *scale, const float *x, const nsa_mlp *mlp)
{
    for (size_t o = 0; o < mlp->out; o++) {
        y[o] = mlp->b2[o];
        scale[o] = fabs(y[o]);
    }
    for (size_t j = 0; j < mlp->hidden; j++) {
        double sum = mlp->b1[j];
        double magnitude = fabs(sum);
        double hidden;

        for (size_t i = 0; i < mlp->in; i++) {
            double product = quantize(x[i], mlp->precision) * (double)mlp->w1[j * mlp->in + i];

            sum += product;
            magnitude += fabs(product);
        }
        hidden = quantize(nsa_activation_ref(sum, mlp->activation), mlp->precision);
        for (size_t o = 0; o < mlp->out; o++) {
            double weight = mlp->w2[o * mlp->hidden + j];

            y[o] += hidden * weight;
            scale[o] += magnitude * fabs(weight);
        }
    }
}
