#define KERNELS nsa_kernels_portable
#define KERNELS_NAME "portable"
#define KERNELS_LINEAR
#include "lib/ops/kernels/elementwise.h"
