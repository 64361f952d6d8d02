#include "server/json_scan.h"

#include "server/json_decimal.h"
#include "server/json_number.h"
#include "server/json_text.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* As much of a client's text as a message shows. */
#define TOKEN_TEXT_BYTES 28

/* "[18446744073709551615]" for each level. */
#define PATH_TEXT_BYTES ((size_t)22 * NSA_MAX_RANK + 1)

typedef struct scanner scanner;

/* What differs between dtypes. */
typedef struct number_kind {
    const char *name;
    nsa_status (*scan_row)(scanner *s);
} number_kind;

/* Read the number at `text` into element `index` of `dst`, as json_parse_f32() does. */
typedef json_number_status read_function(void *dst, size_t index, const char **next,
                                         const char *text, const char *end);

struct scanner {
    const char *at;
    const char *end;
    const number_kind *kind;
    nsa_dtype dtype;
    void *dst;
    size_t capacity;
    size_t count; /* numbers in dst */
    size_t depth; /* arrays open at `at` */
    size_t rank;  /* the depth at which numbers stand; 0 until the first, or an empty array */
    size_t known; /* dims from here to the rank are known: an array of that level was closed */
    size_t dims[NSA_MAX_RANK];
    size_t index[NSA_MAX_RANK]; /* of the next element in each open array */
    const char *path;
    nsa_error *err;
};

static inline json_number_status read_f32(void *dst, size_t index, const char **next,
                                          const char *text, const char *end)
{
    return json_parse_f32_inline((float *)dst + index, next, text, end);
}

static json_number_status read_i64(void *dst, size_t index, const char **next, const char *text,
                                   const char *end)
{
    return json_parse_i64((int64_t *)dst + index, next, text, end);
}

static json_number_status read_f64(void *dst, size_t index, const char **next, const char *text,
                                   const char *end)
{
    return json_parse_f64((double *)dst + index, next, text, end);
}

/*
 * A float32 that rounds to either 16-bit type as `value` does.
 *
 * The nearest would not do: that of 1 + 2^-11 + 2^-40 is 1 + 2^-11, which is midway between two
 * float16 and goes to the even one below. So round to odd: cut off what float32 has no bits for,
 * and if that was not nothing, set the last bit. Where two 16-bit numbers are neighbours, subnormal
 * ones too, float32 has at least two bits more: they and their midpoint end in a zero, and no odd
 * number has moved to, or past, any of them.
 */
static float round_to_odd(double value)
{
    float result = (float)value;
    uint32_t bits;

    if ((double)result == value || isnan(value))
        return result;
    memcpy(&bits, &result, sizeof bits);
    bits -= fabs((double)result) > fabs(value); /* back, towards zero, from rounding up */
    bits |= 1;
    memcpy(&result, &bits, sizeof result);
    return result;
}

static json_number_status read_16(uint16_t *out, nsa_dtype dtype, const char **next,
                                  const char *text, const char *end)
{
    double value;
    float odd;
    float back;
    uint16_t rounded;
    json_number_status status = json_parse_f64(&value, next, text, end);

    if (status != JSON_NUMBER_OK)
        return status;
    odd = round_to_odd(value);
    nsa_from_f32(&rounded, dtype, &odd, 1);
    nsa_to_f32(&back, &rounded, dtype, 1);
    if (isinf(back) && !isinf(value))
        return JSON_NUMBER_RANGE;
    *out = rounded;
    return JSON_NUMBER_OK;
}

static json_number_status read_f16(void *dst, size_t index, const char **next, const char *text,
                                   const char *end)
{
    return read_16((uint16_t *)dst + index, NSA_F16, next, text, end);
}

static json_number_status read_bf16(void *dst, size_t index, const char **next, const char *text,
                                    const char *end)
{
    return read_16((uint16_t *)dst + index, NSA_BF16, next, text, end);
}

/* --- messages ------------------------------------------------------------------------------ */

/* "[2][0]": the way to an element `levels` arrays deep. */
static const char *index_text(char text[PATH_TEXT_BYTES], const scanner *s, size_t levels)
{
    size_t size = 0;

    text[0] = '\0';
    for (size_t i = 0; i < levels; i++)
        size += (size_t)snprintf(text + size, PATH_TEXT_BYTES - size, "[%zu]", s->index[i]);
    return text;
}

/* The token at s->at, or the one byte if it is punctuation, printable and not too long. */
static const char *token_text(char text[TOKEN_TEXT_BYTES], const scanner *s)
{
    static const char stops[] = " \t\r\n,:{}[]\"";
    size_t size = 0;
    const char *p = s->at;

    do {
        text[size++] = *p > ' ' && *p <= '~' ? *p : '?';
        p++;
    } while (p < s->end && !strchr(stops, p[-1]) && !strchr(stops, *p) &&
             size < TOKEN_TEXT_BYTES - 4);
    text[size] = '\0';
    if (size == TOKEN_TEXT_BYTES - 4)
        memcpy(text + size, "...", 4);
    return text;
}

static bool is_word(const scanner *s, const char *word)
{
    size_t size = strlen(word);

    return (size_t)(s->end - s->at) > size && memcmp(s->at, word, size) == 0 &&
           strchr(" \t\r\n,]", s->at[size]);
}

/* What is wrong with the element at s->at, which is no number of the kind, or no array. */
static nsa_status element_error(const scanner *s)
{
    char path[PATH_TEXT_BYTES];
    char token[TOKEN_TEXT_BYTES];
    char expected[48];
    const char *name = json_value_name(*s->at);
    float number;
    const char *next;

    index_text(path, s, s->depth);
    token_text(token, s);
    if (s->depth < s->rank)
        snprintf(expected, sizeof expected, "an array of %zu", s->dims[s->depth]);
    else
        snprintf(expected, sizeof expected, "%s", s->kind->name);
    switch (*s->at) {
    case '"':
    case '{':
    case '[':
        return nsa_error_set(s->err, NSA_EINVAL, "%s%s: expected %s, got %s", s->path, path,
                             expected, name);
    case 't':
    case 'f':
    case 'n':
        if (!is_word(s, name))
            break;
        return nsa_error_set(s->err, NSA_EINVAL, "%s%s: expected %s, got %s", s->path, path,
                             expected, name);
    default:
        if (!name)
            break;
        if (json_parse_f32(&number, &next, s->at, s->end) == JSON_NUMBER_MALFORMED)
            return nsa_error_set(s->err, NSA_EFORMAT, "%s%s: malformed number '%s'", s->path, path,
                                 token);
        return nsa_error_set(s->err, NSA_EINVAL, "%s%s: expected %s, got %s", s->path, path,
                             expected, s->depth < s->rank ? name : token);
    }
    return nsa_error_set(s->err, NSA_EFORMAT, "%s%s: expected %s, got '%s'", s->path, path,
                         expected, token);
}

static nsa_status range_error(const scanner *s)
{
    char path[PATH_TEXT_BYTES];
    char token[TOKEN_TEXT_BYTES];

    return nsa_error_set(s->err, NSA_EINVAL, "%s%s: %s does not fit %s", s->path,
                         index_text(path, s, s->depth), token_text(token, s),
                         nsa_dtype_name(s->dtype));
}

/* s->at is behind an element, but not at what may follow one. */
static nsa_status separator_error(scanner *s)
{
    char path[PATH_TEXT_BYTES];
    char token[TOKEN_TEXT_BYTES];

    s->index[s->depth - 1]--;
    return nsa_error_set(s->err, NSA_EFORMAT, "%s%s: expected ',' or ']' after it, got '%s'",
                         s->path, index_text(path, s, s->depth), token_text(token, s));
}

static nsa_status length_error(const scanner *s)
{
    char path[PATH_TEXT_BYTES];
    size_t expected = s->dims[s->depth - 1];

    return nsa_error_set(s->err, NSA_EINVAL, "%s%s: expected %zu %s%s, got %zu", s->path,
                         index_text(path, s, s->depth - 1), expected,
                         s->depth == s->rank ? "number" : "array", expected == 1 ? "" : "s",
                         s->index[s->depth - 1]);
}

/* --- scanning ------------------------------------------------------------------------------ */

/*
 * Read numbers up to the bracket that closes the innermost array. In line in one function for each
 * kind, with `read` known, and the loop's state in variables of its own: 2 ns a number of 15.
 */
static inline nsa_status scan_row(scanner *s, read_function *read)
{
    const char *end = s->end;
    const char *at = s->at;
    void *dst = s->dst;
    size_t capacity = s->capacity;
    size_t begin = s->count;
    size_t count = begin;
    json_number_status status = JSON_NUMBER_OK;
    bool more = true;

    while (more && count < capacity) {
        const char *next;

        status = read(dst, count, &next, at, end);
        if (status != JSON_NUMBER_OK)
            break;
        count++;
        at = *next == ',' ? next : json_skip_space(next, end);
        more = *at == ',';
        if (more)
            at = json_skip_space(at + 1, end);
    }
    s->at = at;
    s->count = count;
    s->index[s->depth - 1] += count - begin;
    if (count > begin)
        s->rank = s->depth;
    if (status == JSON_NUMBER_RANGE)
        return range_error(s);
    if (status != JSON_NUMBER_OK)
        return element_error(s);
    if (more)
        return nsa_error_set(s->err, NSA_ELIMIT, "%s: more than %zu numbers", s->path, s->capacity);
    return *at == ']' ? NSA_OK : separator_error(s);
}

static nsa_status scan_f32(scanner *s)
{
    return scan_row(s, read_f32);
}

static nsa_status scan_f16(scanner *s)
{
    return scan_row(s, read_f16);
}

static nsa_status scan_bf16(scanner *s)
{
    return scan_row(s, read_bf16);
}

static nsa_status scan_f64(scanner *s)
{
    return scan_row(s, read_f64);
}

static nsa_status scan_i64(scanner *s)
{
    return scan_row(s, read_i64);
}

static const number_kind kinds[NSA_DTYPE_COUNT] = {
    [NSA_F32] = {"a number", scan_f32},   [NSA_F16] = {"a number", scan_f16},
    [NSA_BF16] = {"a number", scan_bf16}, [NSA_F64] = {"a number", scan_f64},
    [NSA_I64] = {"an integer", scan_i64},
};

/* Pass the bracket that closes the innermost array, and all that follow; then any comma. */
static nsa_status close_arrays(scanner *s)
{
    while (*s->at == ']') {
        size_t level = s->depth - 1;

        if (s->rank == 0)
            s->rank = s->depth;
        if (level < s->known) {
            s->known = level;
            s->dims[level] = s->index[level];
        } else if (s->dims[level] != s->index[level]) {
            return length_error(s);
        }
        s->at++;
        s->depth--;
        if (s->depth == 0)
            return NSA_OK;
        s->index[s->depth - 1]++;
        s->at = json_skip_space(s->at, s->end);
    }
    if (*s->at != ',')
        return separator_error(s);
    s->at = json_skip_space(s->at + 1, s->end);
    return NSA_OK;
}

/*
 * Brackets outside of strings pair up in a span, and no string is passed, so as long as an array
 * is open there is a byte before the span's end.
 */
static nsa_status scan(scanner *s)
{
    do {
        nsa_status status;

        if (*s->at == '[' && (s->rank == 0 || s->depth < s->rank)) {
            if (s->depth == NSA_MAX_RANK)
                return nsa_error_set(s->err, NSA_ELIMIT, "%s: nested deeper than %d arrays",
                                     s->path, NSA_MAX_RANK);
            s->index[s->depth++] = 0;
            s->at = json_skip_space(s->at + 1, s->end);
            if (*s->at != ']')
                continue;
        } else if (s->depth < s->rank) {
            return element_error(s);
        } else {
            status = s->kind->scan_row(s);
            if (status != NSA_OK)
                return status;
        }
        status = close_arrays(s);
        if (status != NSA_OK)
            return status;
    } while (s->depth > 0);
    return NSA_OK;
}

nsa_status json_scan(void *dst, nsa_dtype dtype, size_t capacity, nsa_shape *shape,
                     const json_span *span, const char *path, nsa_error *err)
{
    scanner s = {
        .at = span->begin,
        .end = span->end,
        .kind = &kinds[dtype],
        .dtype = dtype,
        .dst = dst,
        .capacity = capacity,
        .known = NSA_MAX_RANK,
        .path = path,
        .err = err,
    };
    nsa_status status = scan(&s);

    if (status != NSA_OK)
        return status;
    shape->rank = s.rank;
    memcpy(shape->dims, s.dims, sizeof s.dims);
    return NSA_OK;
}
