/*
 * Printing floats. One mechanism serves both types: the shortest decimal by integer arithmetic,
 * then its digits eight at a time. The C library's "%.*e", tried with more digits until it reads
 * back, takes 800 ns for a float64 where this takes 24.
 */
#include "server/json_number.h"

#include "server/json_powers.h"

#include <stdbool.h>
#include <string.h>

#define F32_INFINITY UINT32_C(0x7F800000)
#define F32_FRACTION_BITS 23
#define F32_MIN_EXPONENT (-149) /* the least subnormal is 2^-149 */

#define F64_INFINITY UINT64_C(0x7FF0000000000000)
#define F64_FRACTION_BITS 52
#define F64_MIN_EXPONENT (-1074)

#define TEN_8 100000000
#define TEN_16 UINT64_C(10000000000000000)

/* --- the shortest decimal ------------------------------------------------------------------- */

/* A positive float c * 2^q, and what its decimals are looked for with. */
typedef struct binary {
    uint64_t c;
    uint32_t uneven; /* below a power of two, floats stand twice as close */
    int k;           /* the greatest with 10^k <= the distance to the next float */
    int shift;       /* what brings c * 10^-k into place, for its power's table entry */
} binary;

/* The reals that round to a float, from `low` to `high`, and itself, in quarters of 10^k. */
typedef struct interval {
    uint64_t low;
    uint64_t value;
    uint64_t high;
} interval;

typedef struct decimal {
    uint64_t digits;
    int exponent;
} decimal;

static inline binary take_apart(uint64_t bits, int fraction_bits, int min_exponent)
{
    uint64_t hidden = UINT64_C(1) << fraction_bits;
    uint64_t fraction = bits & (hidden - 1);
    int field = (int)(bits >> fraction_bits);
    int q = (field ? field : 1) - 1 + min_exponent;
    binary b = {.c = field ? fraction | hidden : fraction, .uneven = fraction == 0 && field > 1};

    /* floor(log10(2^q)), or of 3/4 * 2^q: multiplied by 2^22. */
    b.k = (q * 1262611 - (b.uneven ? 524031 : 0)) >> 22;
    b.shift = q + JSON_POWER_LOG2(-b.k) + 1;
    return b;
}

/*
 * value * power / 2^64, with the last bit set if that is not a whole number. `power` may be too
 * large by 1, the product thus by less than 2^32: what stands above those bits is the true rest,
 * since no float's product comes so near to a whole number from above without being one.
 */
static inline uint64_t scale_f32(uint64_t power, uint64_t value)
{
    unsigned __int128 product = (unsigned __int128)power * value;

    return (uint64_t)(product >> 64) | ((uint64_t)product >= UINT64_C(2) << 32);
}

/* The same with a power of 128 bits, over 2^128; the lowest word of the product is left out. */
static inline uint64_t scale_f64(json_power power, uint64_t value)
{
    uint64_t carry = (uint64_t)((unsigned __int128)power.low * value >> 64);
    unsigned __int128 product = (unsigned __int128)power.high * value + carry;

    return (uint64_t)(product >> 64) | ((uint64_t)product > 1);
}

/* An end of the interval rounds to the float only if c is even; else it is moved inside. */
static inline interval interval_f32(const binary *b)
{
    uint64_t power = json_power_of(-b->k).high + 1;
    uint64_t c = 4 * b->c;
    uint64_t open = b->c & 1;

    return (interval){
        .low = scale_f32(power, (c - 2 + b->uneven) << b->shift) + open,
        .value = scale_f32(power, c << b->shift),
        .high = scale_f32(power, (c + 2) << b->shift) - open,
    };
}

static inline interval interval_f64(const binary *b)
{
    json_power power = json_power_of(-b->k);
    uint64_t c = 4 * b->c;
    uint64_t open = b->c & 1;

    power.low++;
    return (interval){
        .low = scale_f64(power, (c - 2 + b->uneven) << b->shift) + open,
        .value = scale_f64(power, c << b->shift),
        .high = scale_f64(power, (c + 2) << b->shift) - open,
    };
}

/*
 * The decimal with the fewest digits in the interval, and the nearest of those. R. Giulietti, "The
 * Schubfach way to render doubles" (2020).
 *
 * By the choice of k, the interval holds a multiple of 10^k and at most one multiple of 10^(k+1):
 * that one if it is there, else the nearest multiple of 10^k. Everything is compared in quarters of
 * 10^k, where the interval's ends are whole numbers times a power; rounding those to odd keeps all
 * the comparisons right.
 */
static inline decimal choose(const interval *i, int k)
{
    uint64_t one = i->value / 4;
    uint64_t ten = one / 10;
    bool ten_fits = i->low <= 40 * ten;
    bool next_ten_fits = 40 * ten + 40 <= i->high;
    bool one_fits = i->low <= 4 * one;
    bool next_one_fits = 4 * one + 4 <= i->high;
    /* The nearer one; of two equally near the even one. */
    bool next_is_nearer = i->value + (one & 1) > 4 * one + 2;
    /* No short cuts: which of them it is no branch could predict. */
    bool one_decides = one_fits ^ next_one_fits;
    uint64_t by_one =
        one + ((one_decides & next_one_fits) | ((one_decides ^ true) & next_is_nearer));
    bool is_ten = (ten > 0) & (ten_fits ^ next_ten_fits);

    return (decimal){by_one + ((ten + next_ten_fits - by_one) & -(uint64_t)is_ten), k + is_ten};
}

/* --- digits --------------------------------------------------------------------------------- */

/* The digits of a positive decimal, before a point and an exponent are put to them. */
typedef struct digit_text {
    /* In memory order, from the second on, and zeros; 8 of them if not `wide`. */
    unsigned __int128 rest;
    char first; /* no zero */
    bool wide;
    int count; /* of digits up to the last that is no zero */
    int point; /* digits before the decimal point; 0 and less: zeros come behind it */
} digit_text;

/*
 * The eight digits of `value`, one to a byte, the first one in the lowest: split into fours, pairs
 * and single digits by multiplying with a reciprocal, rounded up, that is exact for as many digits
 * as there are. With q the quotient by n, q + (value - q * n) * 2^s is value * 2^s - q * (n * 2^s -
 * 1).
 */
static inline uint64_t eight_digits(uint32_t value)
{
    uint64_t thousands = value / 10000;
    uint64_t fours = ((uint64_t)value << 32) - thousands * ((UINT64_C(10000) << 32) - 1);
    uint64_t hundreds = fours * 5243 >> 19 & UINT64_C(0x0000007F0000007F);
    uint64_t pairs = (fours << 16) - hundreds * ((100 << 16) - 1);
    uint64_t tens = pairs * 103 >> 10 & UINT64_C(0x000F000F000F000F);

    return (pairs << 8) - tens * ((10 << 8) - 1);
}

/* Of at most 9 digits. */
static inline digit_text split_f32(decimal d)
{
    static const uint32_t factors[] = {1, 10, 100, 1000};
    uint32_t value = (uint32_t)d.digits;
    /* Normal numbers have at least 6 digits; no branches, since any number of them is usual. */
    int missing = (value < TEN_8) + (value < TEN_8 / 10) + (value < TEN_8 / 100);
    uint64_t rest;

    value *= factors[missing];
    for (; value < TEN_8; value *= 10)
        missing++;
    rest = eight_digits(value % TEN_8);
    return (digit_text){
        .rest = rest | UINT64_C(0x3030303030303030),
        .first = (char)('0' + value / TEN_8),
        .count = rest > 0 ? 9 - (int)((unsigned)__builtin_clzll(rest) / 8) : 1,
        .point = 9 - missing + d.exponent,
    };
}

/* Of at most 17 digits. */
static inline digit_text split_f64(decimal d)
{
    uint64_t head;
    uint64_t middle;
    uint64_t last;
    int count = 1;

    /* Normal numbers have at least 15 digits; again no branches. */
    for (int i = 0; i < 2; i++) {
        bool fewer = d.digits < TEN_16;

        d.digits = fewer ? d.digits * 10 : d.digits;
        d.exponent -= fewer;
    }
    for (; d.digits < TEN_16; d.digits *= 10)
        d.exponent--;
    head = d.digits / TEN_8;
    middle = eight_digits((uint32_t)(head % TEN_8));
    last = eight_digits((uint32_t)(d.digits % TEN_8));
    if (last > 0)
        count = 17 - (int)((unsigned)__builtin_clzll(last) / 8);
    else if (middle > 0)
        count = 9 - (int)((unsigned)__builtin_clzll(middle) / 8);
    return (digit_text){
        .rest = (unsigned __int128)(last | UINT64_C(0x3030303030303030)) << 64 | middle |
                UINT64_C(0x3030303030303030),
        .first = (char)('0' + head / TEN_8),
        .wide = true,
        .count = count,
        .point = 17 + d.exponent,
    };
}

/* Write the digits from the second on, and the zeros that lie behind. */
static inline void put_rest(char *to, const digit_text *d)
{
    memcpy(to, &d->rest, d->wide ? 16 : 8);
}

/* The same with a point behind `before` of them. */
static inline void put_pointed_rest(char *to, const digit_text *d, int before)
{
    unsigned __int128 mask = ((unsigned __int128)1 << 8 * before) - 1;
    unsigned __int128 pointed =
        (d->rest & mask) | (unsigned __int128)'.' << 8 * before | (d->rest & ~mask) << 8;

    memcpy(to, &pointed, d->wide ? 16 : 8);
    to[d->wide ? 16 : 8] = (char)(d->rest >> (d->wide ? 120 : 56));
}

static char *put_power(char *to, int power)
{
    *to++ = 'e';
    if (power < 0) {
        *to++ = '-';
        power = -power;
    }
    if (power > 99)
        *to++ = (char)('0' + power / 100);
    if (power > 9)
        *to++ = (char)('0' + power / 10 % 10);
    *to++ = (char)('0' + power % 10);
    return to;
}

/*
 * Write `d` in plain notation if that is not longer than with an exponent; returns the end.
 * (With an exponent it has `count` digits, a point if that is more than 1, "e", a sign if
 * negative, and one to three digits.)
 */
static inline char *write_decimal(char *to, const digit_text *d)
{
    int count = d->count;
    int point = d->point;
    int power = point - 1;

    /* 1.2 and 0.0012, the most frequent, and those between, without a branch to tell them apart:
     * the first digit goes over a zero, or behind it. */
    if (count > 1 && point <= 1 && point >= -2) {
        int below = -(point < 1);
        int before = (2 - point) & below;
        int behind = 2 + ((1 - point) & below);

        memcpy(to, "0.00", 4);
        to[before] = d->first;
        put_rest(to + behind, d);
        return to + behind + count - 1;
    }
    if (point >= 1 && point < count) {
        *to = d->first;
        put_pointed_rest(to + 1, d, point - 1);
        return to + count + 1;
    }
    if (point >= count && point <= count + (count > 1) + 2 + (power > 9)) {
        *to = d->first;
        put_rest(to + 1, d);
        memcpy(to + (d->wide ? 17 : 9), "0000", 4); /* as many more as there ever are */
        return to + point;
    }
    if (count == 1 && point < 1 && point >= -1) {
        memcpy(to, "0.0", 3);
        to[2 - point] = d->first;
        return to + 3 - point;
    }
    *to++ = d->first;
    if (count > 1) {
        *to = '.';
        put_rest(to + 1, d);
        to += count;
    }
    return put_power(to, power);
}

/* Write a zero, an infinity or a NaN; returns the end. */
static char *write_special(char *to, bool negative, bool zero, bool nan)
{
    if (nan) {
        memcpy(to, "NaN", 3);
        return to + 3;
    }
    *to = '-';
    to += negative;
    memcpy(to, zero ? "0.0     " : "Infinity", 8);
    return to + (zero ? 3 : 8);
}

size_t json_print_f32(char *to, float value)
{
    char *at = to;
    uint32_t word;
    uint32_t bits;
    binary b;
    interval i;
    digit_text text;

    memcpy(&word, &value, sizeof word);
    bits = word & (UINT32_MAX >> 1);
    if (bits == 0 || bits >= F32_INFINITY)
        return (size_t)(write_special(to, word != bits, bits == 0, bits > F32_INFINITY) - to);
    *at = '-';
    at += word != bits;
    b = take_apart(bits, F32_FRACTION_BITS, F32_MIN_EXPONENT);
    i = interval_f32(&b);
    text = split_f32(choose(&i, b.k));
    return (size_t)(write_decimal(at, &text) - to);
}

size_t json_print_f64(char *to, double value)
{
    char *at = to;
    uint64_t word;
    uint64_t bits;
    binary b;
    interval i;
    digit_text text;

    memcpy(&word, &value, sizeof word);
    bits = word & (UINT64_MAX >> 1);
    if (bits == 0 || bits >= F64_INFINITY)
        return (size_t)(write_special(to, word != bits, bits == 0, bits > F64_INFINITY) - to);
    *at = '-';
    at += word != bits;
    b = take_apart(bits, F64_FRACTION_BITS, F64_MIN_EXPONENT);
    i = interval_f64(&b);
    text = split_f64(choose(&i, b.k));
    return (size_t)(write_decimal(at, &text) - to);
}

/* --- integers ------------------------------------------------------------------------------- */

static const char digit_pairs[] = "0001020304050607080910111213141516171819"
                                  "2021222324252627282930313233343536373839"
                                  "4041424344454647484950515253545556575859"
                                  "6061626364656667686970717273747576777879"
                                  "8081828384858687888990919293949596979899";

/* Write the decimal digits of `value`, as many as it has, so that they end before `stop`. */
static char *write_digits_before(char *stop, uint64_t value)
{
    while (value >= 100) {
        stop -= 2;
        memcpy(stop, digit_pairs + value % 100 * 2, 2);
        value /= 100;
    }
    if (value >= 10) {
        stop -= 2;
        memcpy(stop, digit_pairs + value * 2, 2);
    } else {
        *--stop = (char)('0' + value);
    }
    return stop;
}

size_t json_print_i64(char *to, int64_t value)
{
    char text[JSON_I64_BYTES];
    char *stop = text + sizeof text;
    char *at;

    /* Most indices of blocks; one digit or two, no branch could tell. */
    if (value >= 0 && value < 100) {
        size_t two = value > 9;

        memcpy(to, digit_pairs + value * 2 + !two, 2);
        return 1 + two;
    }
    at = write_digits_before(stop, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
    if (value < 0)
        *--at = '-';
    memcpy(to, at, (size_t)(stop - at));
    return (size_t)(stop - at);
}
