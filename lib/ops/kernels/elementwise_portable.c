#define KERNELS nsa_kernels_portable
#define KERNELS_NAME "portable"
#include "lib/ops/kernels/elementwise.h"
