/* Powers of ten for converting between decimal and binary, of either float type. */
#ifndef SERVER_JSON_POWERS_H
#define SERVER_JSON_POWERS_H

#include <stdint.h>

/* Of a decimal of 19 digits: one power below, it is less than half of the least float64. */
#define JSON_POWER_MIN (-342)
/* What the least float64 is multiplied by to print it. */
#define JSON_POWER_MAX 324

/* floor(log2(10^k)), exact for |k| <= 600; the compilers in use shift negative numbers down. */
#define JSON_POWER_LOG2(k) (((k)*217706) >> 16)

/* The first 64 bits of a power, and the next 64. */
typedef struct json_power {
    uint64_t high;
    uint64_t low;
} json_power;

/*
 * json_powers[k - JSON_POWER_MIN] is the g, of 128 bits, with
 *
 *     g <= 10^k / 2^(floor(log2(10^k)) - 127) < g + 1,
 *
 * equal for k from 0 to 55. The same holds for `high` and 64 bits, with equality for k from 0 to
 * 27. Neither word is ever 2^64 - 1, so one may be added to both.
 */
extern const json_power json_powers[JSON_POWER_MAX - JSON_POWER_MIN + 1];

static inline json_power json_power_of(int k)
{
    return json_powers[k - JSON_POWER_MIN];
}

#endif
