#include "server/json_number.h"

#include "server/json_powers.h"

#include <stdbool.h>
#include <string.h>

#define F32_INFINITY UINT32_C(0x7F800000)
#define F32_SIGN UINT32_C(0x80000000)
#define F32_HIDDEN (UINT32_C(1) << 23) /* the leading bit that normal numbers do not store */
#define F32_MIN_EXPONENT (-149)        /* the least subnormal is 2^-149 */

/*
 * value * power / 2^64, with the last bit set if that is not a whole number. `power` may be too
 * large by 1, the product thus by less than 2^32: what stands above those bits is the true rest,
 * since no float's product comes so near to a whole number from above without being one.
 */
static uint32_t scale_to_odd(uint64_t power, uint32_t value)
{
    unsigned __int128 product = (unsigned __int128)power * value;

    return (uint32_t)(product >> 64) | ((uint32_t)(product >> 32) > 1);
}

/*
 * The decimal digits * 10^exponent with the fewest digits among those that round to the positive
 * float32 of these bits, and the nearest of them. R. Giulietti, "The Schubfach way to render
 * doubles" (2020).
 *
 * The float is c * 2^q. With k the greatest such that 10^k <= its distance to the next float, the
 * interval of reals that round to it holds a multiple of 10^k and at most one multiple of
 * 10^(k+1): that one if it is there, else the nearest multiple of 10^k. Everything is compared in
 * quarters of 10^k, where the interval's ends are whole numbers times a power; rounding those to
 * odd keeps all the comparisons right.
 */
static uint32_t shortest_digits(int *exponent, uint32_t bits)
{
    uint32_t fraction = bits & (F32_HIDDEN - 1);
    int field = (int)(bits >> 23);
    /* Below a power of two, floats stand twice as close. */
    bool uneven = fraction == 0 && field > 1;
    uint32_t c = field ? fraction | F32_HIDDEN : fraction;
    int q = (field ? field : 1) - 1 + F32_MIN_EXPONENT;
    /* An end of the interval rounds to the float only if c is even. */
    uint32_t open = c & 1;
    /* floor(log10(2^q)), or of 3/4 * 2^q: multiplied by 2^22. */
    int k = (q * 1262611 - (uneven ? 524031 : 0)) >> 22;
    int shift = q + JSON_POWER_LOG2(-k) + 1;
    uint64_t power = json_powers[-k - JSON_POWER_MIN] + 1;
    uint32_t low = scale_to_odd(power, (4 * c - 2 + uneven) << shift) + open;
    uint32_t value = scale_to_odd(power, 4 * c << shift);
    uint32_t high = scale_to_odd(power, (4 * c + 2) << shift) - open;
    uint32_t one = value / 4;
    uint32_t ten = one / 10;
    bool ten_fits = low <= 40 * ten;
    bool next_ten_fits = 40 * ten + 40 <= high;
    bool one_fits = low <= 4 * one;
    bool next_one_fits = 4 * one + 4 <= high;
    /* The nearer one; of two equally near the even one. */
    bool next_is_nearer = value + (one & 1) > 4 * one + 2;
    uint32_t by_one = one + (one_fits != next_one_fits ? next_one_fits : next_is_nearer);
    /* No short cuts above: which of the two it is no branch could predict. */
    bool is_ten = (ten > 0) & (ten_fits != next_ten_fits);

    *exponent = k + is_ten;
    return is_ten ? ten + next_ten_fits : by_one;
}

/* The text of a positive decimal, before a point and an exponent are put to it. */
typedef struct digit_text {
    uint64_t eight; /* in memory order: the digits, from the first that is no zero; then zeros */
    char ninth;     /* the digit after them */
    int count;      /* of digits up to the last that is no zero */
    int point;      /* digits before the decimal point; 0 and less: zeros come behind it */
} digit_text;

/*
 * The digits of `value` (at most 10^9 - 1) times 10^exponent, one to a byte, eight at once: split
 * into fours, pairs and single digits by multiplying with a reciprocal, rounded up, that is exact
 * for as many digits as there are. The first of nine is split off before.
 */
static digit_text split_digits(uint32_t value, int exponent)
{
    uint32_t low = value % 100000000;
    uint64_t fours = low / 10000 | (uint64_t)(low % 10000) << 32;
    uint64_t hundreds = fours * 5243 >> 19 & UINT64_C(0x0000007F0000007F);
    uint64_t pairs = hundreds | (fours - hundreds * 100) << 16;
    uint64_t tens = pairs * 103 >> 10 & UINT64_C(0x000F000F000F000F);
    uint64_t eight = tens | (pairs - tens * 10) << 8;
    uint32_t first = value / 100000000;
    uint64_t ninth = first > 0 ? eight >> 56 : 0;
    /* Not of 0: a shortest decimal of nine digits does not end in a zero. */
    int zeros = __builtin_ctzll(eight) / 8;
    uint64_t text = first > 0 ? eight << 8 | first : eight >> 8 * zeros;
    int digits = first > 0 ? 9 : 8 - zeros;
    int count = ninth > 0 ? 9 : 8 - __builtin_clzll(text) / 8;

    return (digit_text){text | UINT64_C(0x3030303030303030), (char)('0' + ninth), count,
                        digits + exponent};
}

/* Write the digits with a point behind the first `point`, 1 to 8 of them, if more follow. */
static char *put_pointed(char *to, const digit_text *d, int point)
{
    uint64_t rest = d->eight >> 8 * (point - 1) >> 8;

    memcpy(to, &d->eight, sizeof d->eight);
    if (d->count <= point)
        return to + d->count;
    to[point] = '.';
    memcpy(to + point + 1, &rest, sizeof rest);
    to[9] = d->ninth;
    return to + d->count + 1;
}

/*
 * Write `d` in plain notation if that is not longer than with an exponent; returns the end.
 * (With an exponent it has `count` digits, a point if that is more than 1, "e", a sign if
 * negative, and one or two digits.)
 */
static char *write_decimal(char *to, const digit_text *d)
{
    int count = d->count;
    int point = d->point;
    int power = point - 1;

    if (point < 1 && -point <= 1 + (count > 1)) {
        memcpy(to, "0.00", 4); /* as many zeros as plain notation ever has */
        to += 2 - point;
        memcpy(to, &d->eight, sizeof d->eight);
        to[8] = d->ninth;
        return to + count;
    }
    if (point >= 1 && point < count)
        return put_pointed(to, d, point);
    if (point >= count && point <= count + (count > 1) + 2 + (power > 9)) {
        memcpy(to, &d->eight, sizeof d->eight);
        to[8] = d->ninth;
        memcpy(to + 9, "0000", 4); /* at most four more than nine digits */
        return to + point;
    }
    to = put_pointed(to, d, 1);
    *to++ = 'e';
    if (power < 0) {
        *to++ = '-';
        power = -power;
    }
    if (power > 9)
        *to++ = (char)('0' + power / 10);
    *to++ = (char)('0' + power % 10);
    return to;
}

size_t json_print_f32(char *to, float value)
{
    char *at = to;
    uint32_t bits;
    uint32_t digits;
    int exponent;
    digit_text text;

    memcpy(&bits, &value, sizeof bits);
    if ((bits & ~F32_SIGN) > F32_INFINITY) {
        memcpy(to, "NaN", 3);
        return 3;
    }
    *at = '-';
    at += bits >> 31;
    bits &= ~F32_SIGN;
    if (bits == F32_INFINITY) {
        memcpy(at, "Infinity", 8);
        return (size_t)(at - to) + 8;
    }
    if (bits == 0) {
        memcpy(at, "0.0", 3);
        return (size_t)(at - to) + 3;
    }
    digits = shortest_digits(&exponent, bits);
    text = split_digits(digits, exponent);
    return (size_t)(write_decimal(at, &text) - to);
}

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
    char *at = write_digits_before(stop, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);

    if (value < 0)
        *--at = '-';
    memcpy(to, at, (size_t)(stop - at));
    return (size_t)(stop - at);
}
