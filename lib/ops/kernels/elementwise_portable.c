#define KERNELS nsa_kernels_portable
#define KERNELS_NAME "portable"
#define KERNELS_LINEAR
#define KERNELS_SELECT nsa_select_rows_heap
#include "lib/ops/kernels/elementwise.h"
