/* Size arithmetic that cannot wrap: every size that comes from outside goes through here. */
#ifndef NSA_SIZE_H
#define NSA_SIZE_H

#include <stdbool.h>
#include <stddef.h>

/* *out = a * b; false, with *out untouched, when the product does not fit. */
static inline bool nsa_size_mul(size_t *out, size_t a, size_t b)
{
    size_t product;

    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

/* *out = a + b; false, with *out untouched, when the sum does not fit. */
static inline bool nsa_size_add(size_t *out, size_t a, size_t b)
{
    size_t sum;

    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

/* The least multiple of `unit` (a power of two) that is not below `size`; false when none fits. */
static inline bool nsa_size_round_up(size_t *out, size_t size, size_t unit)
{
    size_t raised;

    if (!nsa_size_add(&raised, size, unit - 1))
        return false;
    *out = raised & ~(unit - 1);
    return true;
}

#endif
