/* JSON numbers: text to float32, float64 and int64, and back. */
#ifndef SERVER_JSON_NUMBER_H
#define SERVER_JSON_NUMBER_H

#include <stddef.h>
#include <stdint.h>

typedef enum json_number_status {
    JSON_NUMBER_OK = 0,
    JSON_NUMBER_MALFORMED, /* not a number by JSON's grammar */
    JSON_NUMBER_RANGE      /* a number that the type cannot hold */
} json_number_status;

/**
 * Parse the JSON number, or the bare token NaN, Infinity or -Infinity, at `text`, to the nearest
 * float32, ties to even. A decimal too small for float32 is a zero of its sign; one that would
 * round to infinity is JSON_NUMBER_RANGE.
 * @param[out] out   untouched unless JSON_NUMBER_OK
 * @param[out] next  the byte after the number; untouched when malformed. What may follow a number
 *                   is for the caller to check.
 * @param end        the byte here must be readable and no part of a number: the NUL after a body,
 *                   the bracket after an array
 * Thread-safe, in a process whose numeric locale is "C".
 */
json_number_status json_parse_f32(float *out, const char **next, const char *text, const char *end);

/* The same for float64. */
json_number_status json_parse_f64(double *out, const char **next, const char *text,
                                  const char *end);

/**
 * Parse the JSON integer at `text`. A fraction or an exponent, even of no effect, is malformed:
 * it would be a number, but of another kind. The rest is as for json_parse_f32().
 */
json_number_status json_parse_i64(int64_t *out, const char **next, const char *text,
                                  const char *end);

/* Bytes that printing one number may write to: its text and what lies under it as scratch. */
#define JSON_F32_BYTES ((size_t)20)
#define JSON_F64_BYTES ((size_t)24)
#define JSON_I64_BYTES ((size_t)20)

/**
 * Write the shortest decimal that json_parse_f32() reads back as `value`; of the shortest, the one
 * nearest to `value`. Plain or exponent notation, whichever is shorter, plain if they are equal.
 * Zero is 0.0 or -0.0; NaN, Infinity and -Infinity are those tokens.
 * @param to  at least JSON_F32_BYTES; no NUL is written
 * @return the length of the text
 */
size_t json_print_f32(char *to, float value);

/* The same for float64 and json_parse_f64(), into at least JSON_F64_BYTES. */
size_t json_print_f64(char *to, double value);

/* Write `value` to `to`, at least JSON_I64_BYTES, without a NUL; returns the length. */
size_t json_print_i64(char *to, int64_t value);

#endif
