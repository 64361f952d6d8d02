#if defined(__x86_64__)
#define KERNELS nsa_kernels_avx512
#define KERNELS_NAME "avx512"
#define KERNELS_LINEAR &nsa_panels_avx512
#define KERNELS_LINEAR_BF16 &nsa_panels_avx512bf16
#include "lib/ops/kernels/elementwise.h"
#endif
