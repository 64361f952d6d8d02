/* Numbers as decimal text, where printf's generality costs more than the rest of the work. */
#ifndef NSA_DECIMAL_H
#define NSA_DECIMAL_H

#include <stdint.h>
#include <string.h>

/* The most digits that nsa_decimal() writes. */
#define NSA_DECIMAL_BYTES 20

/* Write `value` at `to`, without a NUL; returns the end of what was written. */
static inline char *nsa_decimal(char *to, uint64_t value)
{
    char digits[NSA_DECIMAL_BYTES];
    char *at = digits + sizeof digits;

    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    memcpy(to, at, (size_t)(digits + sizeof digits - at));
    return to + (digits + sizeof digits - at);
}

/* Write `text` at `to`, without its NUL; returns the end of what was written. */
static inline char *nsa_decimal_text(char *to, const char *text)
{
    size_t size = strlen(text);

    memcpy(to, text, size);
    return to + size;
}

#endif
