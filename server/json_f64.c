/*
 * JSON numbers as float64. The C library converts, exactly and not fast: requests are read as
 * float32, and few answers are float64. The grammar and the style are those of float32.
 */
#include "server/json_number.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_number_status json_parse_f64(double *out, const char **next, const char *text, const char *end)
{
    float nearest = 0;
    const char *stop;
    char *other_stop;
    double value;
    json_number_status status = json_parse_f32(&nearest, &stop, text, end);

    if (status == JSON_NUMBER_MALFORMED)
        return status;
    *next = stop;
    if (status == JSON_NUMBER_OK && !isfinite(nearest)) { /* a token */
        *out = (double)nearest;
        return JSON_NUMBER_OK;
    }
    value = strtod(text, &other_stop);
    /* Its grammar is wider only for what starts with "0x": to JSON, a zero and what follows it. */
    if (other_stop != stop)
        value = (double)nearest;
    if (isinf(value))
        return JSON_NUMBER_RANGE;
    *out = value;
    return JSON_NUMBER_OK;
}

/* digits[0].digits[1]digits[2]... * 10^power */
typedef struct decimal {
    char digits[DBL_DECIMAL_DIG];
    int count; /* the last digit is no zero */
    int power;
} decimal;

/*
 * The decimal with the fewest digits, out of `value` (positive) rounded to each number of digits,
 * that reads back as `value`.
 *
 * A float of b bits keeps apart all decimals of floor((b - 1) * log10(2)) digits: if one that short
 * reads back, rounding to that many digits gives it, with zeros behind. So there is where to start:
 * at 15 digits, and earlier only for subnormal numbers, whose bits are fewer. 17 always do.
 */
static decimal shortest_decimal(double value)
{
    int bits = ilogb(value) + 1 - (DBL_MIN_EXP - DBL_MANT_DIG);
    int precision = bits < DBL_MANT_DIG ? (bits - 1) * 30103 / 100000 : DBL_DIG;
    char text[40]; /* as in "1.2345e-07" */
    const char *p;
    decimal d = {.count = 0};

    if (precision == 0)
        precision = 1;
    do {
        snprintf(text, sizeof text, "%.*e", precision - 1, value);
        precision++;
    } while (strtod(text, NULL) != value);
    for (p = text; *p != 'e'; p++) {
        if (*p != '.')
            d.digits[d.count++] = *p;
    }
    while (d.digits[d.count - 1] == '0')
        d.count--;
    d.power = atoi(p + 1);
    return d;
}

/* Write `d` in plain notation if that is not longer than with an exponent; returns the end. */
static char *write_decimal(char *to, const decimal *d)
{
    /* The powers of ten that the first and the last digit of plain notation stand for. */
    int first = d->power > 0 ? d->power : 0;
    int last = d->power - d->count + 1 < 0 ? d->power - d->count + 1 : 0;
    char exponent[16];
    int exponent_bytes = snprintf(exponent, sizeof exponent, "e%d", d->power);

    if (first - last + 1 + (last < 0) <= d->count + (d->count > 1) + exponent_bytes) {
        for (int place = first; place >= last; place--) {
            int index = d->power - place;

            if (place == -1)
                *to++ = '.';
            *to++ = index >= 0 && index < d->count ? d->digits[index] : '0';
        }
        return to;
    }
    for (int i = 0; i < d->count; i++) {
        if (i == 1)
            *to++ = '.';
        *to++ = d->digits[i];
    }
    memcpy(to, exponent, (size_t)exponent_bytes);
    return to + exponent_bytes;
}

size_t json_print_f64(char *to, double value)
{
    char *at = to;
    decimal d;

    if (value == 0 || !isfinite(value))
        return json_print_f32(to, (float)value);
    if (value < 0)
        *at++ = '-';
    d = shortest_decimal(fabs(value));
    return (size_t)(write_decimal(at, &d) - to);
}
