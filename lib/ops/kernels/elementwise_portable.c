#define KERNELS nsa_kernels_portable
#define KERNELS_NAME "portable"
#define KERNELS_LINEAR NULL
#define KERNELS_LINEAR_BF16 NULL
#include "lib/ops/kernels/elementwise.h"
