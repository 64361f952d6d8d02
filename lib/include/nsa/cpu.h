/* Which kernels this processor runs. */
#ifndef NSA_CPU_H
#define NSA_CPU_H

#include <nsa/status.h>
#include <stddef.h>

/**
 * Choose the kernels by name: "portable", "avx2", "avx512", or "auto" for the best that the
 * processor and its operating system support. Until the first call the portable ones are in use.
 * Call it before models are loaded; it must not run at the same time as any other function of the
 * library.
 * @return NSA_OK, NSA_EINVAL for an unknown name, NSA_EUNSUPPORTED when this processor lacks it
 */
nsa_status nsa_cpu_use(const char *name, nsa_error *err);

/* The name of the kernels in use: "portable", "avx2" or "avx512". */
const char *nsa_cpu_kernel(void);

/* Every name that this processor supports, the plainest first; NULL past the last. */
const char *nsa_cpu_supported(size_t index);

#endif
