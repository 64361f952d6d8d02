#if defined(__x86_64__)
#define KERNELS nsa_kernels_avx512
#define KERNELS_NAME "avx512"
#define KERNELS_LINEAR &nsa_panels_amx, &nsa_panels_avx512bf16, &nsa_panels_avx512,
#define KERNELS_SELECT nsa_select_rows_avx512
#include "lib/ops/kernels/elementwise.h"
#endif
