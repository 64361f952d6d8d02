/*
 * Reading a decimal and rounding it to float32, in line: for json_number.c and the loop of
 * json_scan.c. Everyone else calls the functions of json_number.h.
 */
#ifndef SERVER_JSON_DECIMAL_H
#define SERVER_JSON_DECIMAL_H

#include "server/json_number.h"
#include "server/json_powers.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define F32_INFINITY UINT32_C(0x7F800000)
#define F32_SIGN UINT32_C(0x80000000)
#define F32_MIN_EXPONENT (-149) /* the least subnormal is 2^-149 */
#define F32_POWER_MIN (-65)
#define F32_POWER_MAX 45

/* Any run of this many decimal digits fits 64 bits. */
#define JSON_MAX_DIGITS 19

/* The magnitude of a number in the text: digits * 10^exponent. */
typedef struct json_decimal {
    const char *next; /* the byte after it; NULL if it is malformed */
    uint64_t digits;  /* modulo 2^64 */
    int64_t exponent;
    size_t significant; /* digits, from the first that is no zero; or some below, if few */
} json_decimal;

static const uint32_t json_small_powers[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000};

static inline bool json_is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

/* Bit 7 of each byte of `word`, '0' taken off, that is no digit; exact up to the first of them. */
static inline uint64_t json_find_other(uint64_t word)
{
    return ((word + UINT64_C(0x7676767676767676)) | word) & UINT64_C(0x8080808080808080);
}

/*
 * The number that eight digits spell, one to a byte, the first in the lowest: neighbours are joined
 * to pairs, fours and the whole. A multiplication by 10 * 2^8 + 1 leaves 10 * a + b in the second
 * byte of each pair.
 */
static inline uint64_t json_join_digits(uint64_t word)
{
    word = (word * (10 * 0x100 + 1)) >> 8 & UINT64_C(0x00FF00FF00FF00FF);
    word = (word * (100 * 0x10000 + 1)) >> 16 & UINT64_C(0x0000FFFF0000FFFF);
    return (word * (10000 * UINT64_C(0x100000000) + 1)) >> 32;
}

/* Eight bytes at `p`, '0' taken off. */
static inline uint64_t json_load_digits(const char *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof word);
    return word ^ UINT64_C(0x3030303030303030);
}

/*
 * Append the run of digits at `p` to *digits, modulo 2^64, and return its end.
 *
 * Eight bytes at a time, so that the length of a run costs no mispredicted branch: its digits are
 * moved to the end of the word, and leading zeros come in.
 */
static inline const char *json_read_digits(uint64_t *digits, const char *p, const char *end)
{
    uint64_t value = *digits;

    while (end - p >= 8) {
        uint64_t word = json_load_digits(p);
        uint64_t other = json_find_other(word);

        if (other) {
            int count = __builtin_ctzll(other) / 8;

            /* In two steps, because all 64 bits may go. */
            word = word << 4 * (8 - count) << 4 * (8 - count);
            *digits = value * json_small_powers[count] + json_join_digits(word);
            return p + count;
        }
        value = value * 100000000 + json_join_digits(word);
        p += 8;
    }
    for (; json_is_digit(*p); p++)
        value = value * 10 + (uint64_t)(*p - '0');
    *digits = value;
    return p;
}

/* Read the exponent at `p`, behind its "e"; returns its end, or NULL if there is none. */
const char *json_read_exponent(int64_t *out, const char *p);

/* The significant digits in the number [p, stop) without an exponent. */
size_t json_count_significant(const char *p, const char *stop);

/* Read the unsigned number at `whole`. */
static inline json_decimal json_read_decimal(const char *whole, const char *end)
{
    json_decimal d = {.digits = 0};
    const char *p = whole;
    const char *stop;

    /* Byte by byte: most numbers have one digit here. */
    for (; json_is_digit(*p); p++)
        d.digits = d.digits * 10 + (uint64_t)(*p - '0');
    if (p == whole || (p - whole > 1 && *whole == '0'))
        return d;
    d.significant = (size_t)(p - whole);
    if (*p == '.') {
        const char *fraction = p + 1;

        p = json_read_digits(&d.digits, fraction, end);
        if (p == fraction)
            return d;
        d.exponent = fraction - p;
        d.significant += (size_t)(p - fraction);
    }
    stop = p;
    if (*p == 'e' || *p == 'E') {
        int64_t exponent;

        p = json_read_exponent(&exponent, p + 1);
        if (!p)
            return d;
        d.exponent += exponent;
    }
    if (d.significant > JSON_MAX_DIGITS)
        d.significant = json_count_significant(whole, stop);
    d.next = p;
    return d;
}

/*
 * The bits of the float32 nearest to `d`, of at most 19 digits; false if it is not found here:
 * where it is no normal number, and where 64 bits of the power of ten cannot tell, which is when
 * `d` is a midpoint of two floats or within 2^-57 of one, relatively.
 *
 * The idea is that of D. Lemire, "Number parsing at a gigabyte per second" (2021), with a bound in
 * place of its wider second step. Let w be the digits shifted up to 64 bits, and p the power's
 * table entry. The true magnitude, in the units of the product, is w * P with p <= P < p + 1. So it
 * lies above w * p by less than 2^64, and above the high word of w * p, in that word's units, by
 * less than 2; or 4 when that word is shifted up by one. If the bits below the float's last one are
 * above one half, or stay below with that added, that decides the rounding: a carry that it might
 * cause lands just above the next float, far from a midpoint.
 */
static inline bool json_round_f32(uint32_t *bits, const json_decimal *d)
{
    const uint64_t half = UINT64_C(1) << 39;
    int power = (int)d->exponent;
    int shift;
    int field;
    uint64_t high;
    uint64_t rest;

    if (d->digits == 0) {
        *bits = 0;
        return true;
    }
    if (d->exponent < F32_POWER_MIN || d->exponent > F32_POWER_MAX)
        return false;
    shift = __builtin_clzll(d->digits);
    high = (uint64_t)(((unsigned __int128)(d->digits << shift) * json_power_of(power).high) >> 64);
    /* The value is high * 2^(log2(power) + 1 - shift). Its first bit is 62 or 63: now 63. */
    field = JSON_POWER_LOG2(power) - shift + (int)(high >> 63) + 40 - F32_MIN_EXPONENT;
    high <<= high >> 63 ^ 1;
    rest = high & (half * 2 - 1);
    /* Unsigned: a rest above one half gives a huge difference. One test, because which side of
     * one half a rest lies on is a coin's toss that no branch should hang on. */
    if (field < 0 || half - rest < 4)
        return false;
    /* Adding the hidden bit to the exponent field, and so a carry, is what makes these normal. */
    *bits = ((uint32_t)field << 23) + (uint32_t)(high >> 40) + (rest > half);
    return *bits < F32_INFINITY;
}

/* json_parse_f32() of any text. */
json_number_status json_parse_f32_any(float *out, const char **next, const char *text,
                                      const char *end);

/* json_parse_f32() itself. */
static inline json_number_status json_parse_f32_inline(float *out, const char **next,
                                                       const char *text, const char *end)
{
    bool negative = *text == '-';
    json_decimal d = json_read_decimal(text + negative, end);
    uint32_t bits;

    if (!d.next || d.significant > JSON_MAX_DIGITS || !json_round_f32(&bits, &d)) {
        /* Through a variable of its own, so that *next need not be in memory otherwise. */
        const char *stop;
        json_number_status status = json_parse_f32_any(out, &stop, text, end);

        if (status != JSON_NUMBER_MALFORMED)
            *next = stop;
        return status;
    }
    *next = d.next;
    bits |= negative ? F32_SIGN : 0;
    memcpy(out, &bits, sizeof bits);
    return JSON_NUMBER_OK;
}

#endif
