/*
 * Reading numbers by integer arithmetic. strtof() and strtod() take 60 to 130 ns for what this
 * takes 7 to 30; they are asked only for what 128 bits cannot round.
 */
#include "server/json_number.h"

#include "server/json_decimal.h"

#include <math.h>
#include <stdlib.h>

/* An exponent stops growing here: past what any body's worth of zeros could make up for. */
#define EXPONENT_CAP INT64_C(100000000000000000)

/* The greatest float64 is below 10^309. */
#define MAX_POWER 308

/* What is to be known of a type of floats. */
typedef struct float_type {
    int fraction_bits;
    int min_exponent; /* the least subnormal is 2^min_exponent */
    uint64_t infinity;
} float_type;

static const float_type f32_type = {23, F32_MIN_EXPONENT, F32_INFINITY};
static const float_type f64_type = {52, -1074, UINT64_C(0x7FF) << 52};

size_t json_count_significant(const char *p, const char *stop)
{
    size_t points = 0;

    for (; p < stop && (*p == '0' || *p == '.'); p++)
        ;
    for (const char *q = p; q < stop; q++)
        points += *q == '.';
    return (size_t)(stop - p) - points;
}

const char *json_read_exponent(int64_t *out, const char *p)
{
    bool negative = *p == '-';
    int64_t value = 0;

    if (*p == '-' || *p == '+')
        p++;
    if (!json_is_digit(*p))
        return NULL;
    for (; json_is_digit(*p); p++) {
        if (value < EXPONENT_CAP)
            value = value * 10 + (*p - '0');
    }
    *out = negative ? -value : value;
    return p;
}

/* Replace the digits of the number at `p`, which may have wrapped, by the first 19 significant. */
static void cut_digits(json_decimal *d, const char *p)
{
    size_t count = 0;

    d->digits = 0;
    while (*p == '0' || *p == '.')
        p++;
    for (; count < JSON_MAX_DIGITS; p++) {
        if (*p == '.')
            continue;
        d->digits = d->digits * 10 + (uint64_t)(*p - '0');
        count++;
    }
    d->exponent += (int64_t)(d->significant - JSON_MAX_DIGITS);
}

/*
 * The bits of the float nearest to `d`, whose digits were cut if they are more than 19; false if
 * that cannot be told here. As json_round_f32() does it, with twice the bits of power and product.
 *
 * In units of the product's last bit, the true magnitude lies above the product by less than 1 for
 * the word that is left out, by less than 1 for what the power lacks and, if digits were cut, by at
 * most 2^(64 + shift): the digits lack less than 1, and the power is below 2^64 of them. Cut digits
 * are at least 10^18, so shift <= 4 then.
 */
static inline bool round_decimal(uint64_t *bits, const json_decimal *d, const float_type *type)
{
    json_power power;
    unsigned __int128 product;
    unsigned __int128 rest;
    unsigned __int128 half;
    unsigned __int128 slack = 2;
    uint64_t digits;
    uint64_t kept;
    int shift;
    int drop;
    int exponent;

    /* Less than half of the least float64. */
    if (d->digits == 0 || d->exponent < JSON_POWER_MIN) {
        *bits = 0;
        return true;
    }
    if (d->exponent > MAX_POWER) {
        *bits = type->infinity;
        return true;
    }
    power = json_power_of((int)d->exponent);
    shift = __builtin_clzll(d->digits);
    digits = d->digits << shift;
    product = (unsigned __int128)digits * power.high +
              (uint64_t)((unsigned __int128)digits * power.low >> 64);
    if (d->significant > JSON_MAX_DIGITS)
        slack += (unsigned __int128)1 << (64 + shift);
    /* The value is product * 2^exponent. Drop bits until as many are left as the type has, less for
     * subnormal numbers. */
    exponent = JSON_POWER_LOG2((int)d->exponent) + 1 - shift - 64;
    drop = 127 - type->fraction_bits - __builtin_clzll((uint64_t)(product >> 64));
    if (exponent + drop < type->min_exponent)
        drop = type->min_exponent - exponent;
    if (drop > 128) {
        *bits = 0;
        return true;
    }
    kept = drop < 128 ? (uint64_t)(product >> drop) : 0;
    half = (unsigned __int128)1 << (drop - 1);
    rest = product & (half * 2 - 1);
    if (half - rest < slack)
        return false;
    *bits = ((uint64_t)(exponent + drop - type->min_exponent) << type->fraction_bits) + kept +
            (rest > half);
    if (*bits > type->infinity)
        *bits = type->infinity;
    return true;
}

static json_number_status read_token(float *out, const char **next, const char *text,
                                     const char *end)
{
    static const struct {
        const char *name;
        size_t size;
        float value;
    } tokens[] = {{"NaN", 3, NAN}, {"Infinity", 8, INFINITY}, {"-Infinity", 9, -INFINITY}};

    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        if ((size_t)(end - text) < tokens[i].size ||
            memcmp(text, tokens[i].name, tokens[i].size) != 0)
            continue;
        *out = tokens[i].value;
        *next = text + tokens[i].size;
        return JSON_NUMBER_OK;
    }
    return JSON_NUMBER_MALFORMED;
}

json_number_status json_parse_f32_any(float *out, const char **next, const char *text,
                                      const char *end)
{
    bool negative = *text == '-';
    json_decimal d = json_read_decimal(text + negative, end);
    uint64_t bits;
    uint32_t word;
    float value;

    if (!d.next)
        return read_token(out, next, text, end);
    *next = d.next;
    if (d.significant > JSON_MAX_DIGITS)
        cut_digits(&d, text + negative);
    if (round_decimal(&bits, &d, &f32_type)) {
        word = (uint32_t)bits | (negative ? F32_SIGN : 0);
        memcpy(&value, &word, sizeof value);
    } else {
        /* Rare, and exact for any length. It stops where we did: the grammar is wider only for
         * texts that were refused above, and for what starts with "0x". */
        value = strtof(text, NULL);
    }
    if (isinf(value))
        return JSON_NUMBER_RANGE;
    *out = value;
    return JSON_NUMBER_OK;
}

json_number_status json_parse_f32(float *out, const char **next, const char *text, const char *end)
{
    return json_parse_f32_inline(out, next, text, end);
}

json_number_status json_parse_f64(double *out, const char **next, const char *text, const char *end)
{
    bool negative = *text == '-';
    json_decimal d = json_read_decimal(text + negative, end);
    uint64_t bits;
    float token;
    double value;

    if (!d.next) {
        json_number_status status = read_token(&token, next, text, end);

        if (status == JSON_NUMBER_OK)
            *out = (double)token;
        return status;
    }
    *next = d.next;
    if (d.significant > JSON_MAX_DIGITS)
        cut_digits(&d, text + negative);
    if (round_decimal(&bits, &d, &f64_type)) {
        bits |= (uint64_t)negative << 63;
        memcpy(&value, &bits, sizeof value);
    } else {
        value = strtod(text, NULL); /* as for float32 */
    }
    if (isinf(value))
        return JSON_NUMBER_RANGE;
    *out = value;
    return JSON_NUMBER_OK;
}

json_number_status json_parse_i64(int64_t *out, const char **next, const char *text,
                                  const char *end)
{
    bool negative = *text == '-';
    const char *whole = text + negative;
    uint64_t magnitude = 0;
    const char *stop = json_read_digits(&magnitude, whole, end);

    if (stop == whole || (*whole == '0' && stop - whole > 1))
        return JSON_NUMBER_MALFORMED;
    if (*stop == '.' || *stop == 'e' || *stop == 'E')
        return JSON_NUMBER_MALFORMED;
    *next = stop;
    if (stop - whole > JSON_MAX_DIGITS || magnitude > (uint64_t)INT64_MAX + negative)
        return JSON_NUMBER_RANGE;
    /* Negated before it is signed, because -INT64_MIN is no int64. */
    *out = (int64_t)(negative ? 0 - magnitude : magnitude);
    return JSON_NUMBER_OK;
}
