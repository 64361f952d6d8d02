#include "server/json_number.h"

#include "server/json_powers.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define F32_INFINITY UINT32_C(0x7F800000)
#define F32_SIGN UINT32_C(0x80000000)
#define F32_MIN_EXPONENT (-149) /* the least subnormal is 2^-149 */
#define F32_POWER_MIN (-65)
#define F32_POWER_MAX 45

/* Any run of this many decimal digits fits 64 bits. */
#define MAX_DIGITS 19

/* An exponent stops growing here: past what any body's worth of zeros could make up for. */
#define EXPONENT_CAP INT64_C(100000000000000000)

static const uint32_t small_powers[] = {1,      10,      100,      1000,     10000,
                                        100000, 1000000, 10000000, 100000000};

/* The magnitude of a number: digits * 10^exponent, and a little more if digits were cut off. */
typedef struct decimal {
    uint64_t digits;
    int64_t exponent;
    bool cut; /* 19 significant digits are in `digits`, others follow */
} decimal;

static inline bool is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

/*
 * Append the run of digits at `p` to *digits, modulo 2^64, and return its end.
 *
 * Eight bytes at a time, so that the length of a run costs no mispredicted branch. With '0' taken
 * off, the first byte over 9 is found by carrying into bit 7; the digits before it are moved to
 * the end of the word (leading zeros come in), and neighbours are joined to pairs, fours and the
 * whole: a multiplication by 10 * 2^8 + 1 leaves 10 * a + b in the second byte of each pair.
 */
static const char *read_digits(uint64_t *digits, const char *p, const char *end)
{
    while (end - p >= 8) {
        uint64_t word;
        uint64_t other;
        unsigned count;

        memcpy(&word, p, sizeof word);
        word ^= UINT64_C(0x3030303030303030);
        other = ((word + UINT64_C(0x7676767676767676)) | word) & UINT64_C(0x8080808080808080);
        count = other ? (unsigned)__builtin_ctzll(other) / 8 : 8;
        if (count == 0)
            return p;
        word <<= 64 - 8 * count;
        word = (word * (10 * 0x100 + 1)) >> 8 & UINT64_C(0x00FF00FF00FF00FF);
        word = (word * (100 * 0x10000 + 1)) >> 16 & UINT64_C(0x0000FFFF0000FFFF);
        word = (word * (10000 * UINT64_C(0x100000000) + 1)) >> 32;
        *digits = *digits * small_powers[count] + word;
        p += count;
        if (count < 8)
            return p;
    }
    for (; is_digit(*p); p++)
        *digits = *digits * 10 + (uint64_t)(*p - '0');
    return p;
}

/* Replace the digits, which may have wrapped, by the first 19 significant ones in [p, stop). */
static void cut_digits(decimal *d, const char *p, const char *stop)
{
    size_t count = 0;

    d->digits = 0;
    while (p < stop && (*p == '0' || *p == '.'))
        p++;
    for (; p < stop && count < MAX_DIGITS; p++) {
        if (*p == '.')
            continue;
        d->digits = d->digits * 10 + (uint64_t)(*p - '0');
        count++;
    }
    for (; p < stop; p++) {
        if (*p == '.')
            continue;
        d->exponent++;
        d->cut = true;
    }
}

/* The exponent at `p`, behind its "e", is added to *exponent; NULL if there is none. */
static const char *read_exponent(int64_t *exponent, const char *p)
{
    bool negative = *p == '-';
    int64_t value = 0;

    if (*p == '-' || *p == '+')
        p++;
    if (!is_digit(*p))
        return NULL;
    for (; is_digit(*p); p++) {
        if (value < EXPONENT_CAP)
            value = value * 10 + (*p - '0');
    }
    *exponent += negative ? -value : value;
    return p;
}

/* Read the unsigned number at `whole`; returns its end, or NULL if it is malformed. */
static const char *read_decimal(decimal *d, const char *whole, const char *end)
{
    const char *p = whole;
    const char *stop;
    ptrdiff_t points = 0;

    *d = (decimal){0};
    /* Byte by byte: most numbers have one digit here. */
    for (; is_digit(*p); p++)
        d->digits = d->digits * 10 + (uint64_t)(*p - '0');
    if (p == whole || (*whole == '0' && p - whole > 1))
        return NULL;
    if (*p == '.') {
        const char *fraction = p + 1;

        p = read_digits(&d->digits, fraction, end);
        if (p == fraction)
            return NULL;
        d->exponent = fraction - p;
        points = 1;
    }
    stop = p;
    if (*p == 'e' || *p == 'E') {
        p = read_exponent(&d->exponent, p + 1);
        if (!p)
            return NULL;
    }
    if (stop - whole - points > MAX_DIGITS)
        cut_digits(d, whole, stop);
    return p;
}

/*
 * The bits of the float32 nearest to `d`; false if 64 bits of the power of ten cannot tell, which
 * is when `d` is a midpoint of two floats or within 2^-57 of one, relatively.
 *
 * The idea is that of D. Lemire, "Number parsing at a gigabyte per second" (2021), with a bound in
 * place of its wider second step. Let w be the digits shifted up to 64 bits, by s, and p the
 * power's table entry. The true magnitude, in the units of the product, is W * P with
 *
 *     w <= W < w + c * 2^s, where c is 1 if digits were cut and 0 if not, and p <= P < p + 1.
 *
 * So W * P lies above w * p by less than w + c * 2^s * (p + 1) <= 2^64 * (1 + c * 2^s), and above
 * the high word of w * p, in that word's units, by less than slack = 2 + c * 2^s. Cut digits are
 * at least 10^18, so s <= 4 and slack <= 18. If the bits below the float's last one are above
 * one half, or stay below with the slack added, that decides the rounding: a carry that the slack
 * might cause lands just above the next float, far from a midpoint.
 */
static bool round_decimal(uint32_t *bits, const decimal *d)
{
    int power = (int)d->exponent;
    int shift;
    int drop;
    int exponent;
    uint64_t high;
    uint64_t kept;
    uint64_t rest;
    uint64_t half;
    uint64_t slack;

    /* Below 10^19 * 10^-66, which is less than half of 2^-149. */
    if (d->digits == 0 || d->exponent < F32_POWER_MIN) {
        *bits = 0;
        return true;
    }
    /* At least 10^46. */
    if (d->exponent > F32_POWER_MAX) {
        *bits = F32_INFINITY;
        return true;
    }
    shift = __builtin_clzll(d->digits);
    high = (uint64_t)(((unsigned __int128)(d->digits << shift) * json_power_of(power).high) >> 64);
    slack = 2 + (d->cut ? UINT64_C(1) << shift : 0);
    /* The value is high * 2^exponent. Drop bits until 24 are left, more for subnormal numbers. */
    exponent = JSON_POWER_LOG2(power) + 1 - shift;
    drop = 64 - 24 - __builtin_clzll(high);
    if (exponent + drop < F32_MIN_EXPONENT)
        drop = F32_MIN_EXPONENT - exponent;
    if (drop > 64) {
        *bits = 0;
        return true;
    }
    kept = drop < 64 ? high >> drop : 0;
    half = UINT64_C(1) << (drop - 1);
    rest = high & (half * 2 - 1);
    /* Unsigned: a rest above one half gives a huge difference. One test, because which side of
     * one half a rest lies on is a coin's toss that no branch should hang on. */
    if (half - rest < slack)
        return false;
    /* Adding the hidden bit to the exponent field, and so a carry, is what makes these normal. */
    *bits = ((uint32_t)(exponent + drop - F32_MIN_EXPONENT) << 23) + (uint32_t)kept + (rest > half);
    if (*bits > F32_INFINITY)
        *bits = F32_INFINITY;
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

json_number_status json_parse_f32(float *out, const char **next, const char *text, const char *end)
{
    bool negative = *text == '-';
    const char *stop;
    decimal d;
    uint32_t bits;
    float value;

    stop = read_decimal(&d, text + negative, end);
    if (!stop)
        return read_token(out, next, text, end);
    if (!round_decimal(&bits, &d)) {
        /* Rare, and exact for any length. It stops where we did: the grammar is wider only for
         * texts that were refused above, and for what starts with "0x". */
        value = fabsf(strtof(text, NULL));
        memcpy(&bits, &value, sizeof bits);
    }
    *next = stop;
    if (bits == F32_INFINITY)
        return JSON_NUMBER_RANGE;
    bits |= negative ? F32_SIGN : 0;
    memcpy(out, &bits, sizeof bits);
    return JSON_NUMBER_OK;
}

json_number_status json_parse_i64(int64_t *out, const char **next, const char *text,
                                  const char *end)
{
    bool negative = *text == '-';
    const char *whole = text + negative;
    uint64_t magnitude = 0;
    const char *stop = read_digits(&magnitude, whole, end);

    if (stop == whole || (*whole == '0' && stop - whole > 1))
        return JSON_NUMBER_MALFORMED;
    if (*stop == '.' || *stop == 'e' || *stop == 'E')
        return JSON_NUMBER_MALFORMED;
    *next = stop;
    if (stop - whole > MAX_DIGITS || magnitude > (uint64_t)INT64_MAX + negative)
        return JSON_NUMBER_RANGE;
    /* Negated before it is signed, because -INT64_MIN is no int64. */
    *out = (int64_t)(negative ? 0 - magnitude : magnitude);
    return JSON_NUMBER_OK;
}
