#if defined(__x86_64__)
#define KERNELS nsa_kernels_avx2
#define KERNELS_NAME "avx2"
#define KERNELS_LINEAR &nsa_panels_avx2,
#define KERNELS_SELECT nsa_select_rows_avx2
#include "lib/ops/kernels/elementwise.h"
#endif
