#include "server/json_scan.h"

#include "server/json_number.h"
#include "server/json_text.h"

#include <stdio.h>
#include <string.h>

/* As much of a client's text as a message shows. */
#define TOKEN_TEXT_BYTES 28

/* "[18446744073709551615]" for each level. */
#define PATH_TEXT_BYTES ((size_t)22 * NSA_MAX_RANK + 1)

/* A kind of number: what differs between the two public functions. */
typedef struct number_kind {
    const char *name;
    const char *dtype;
    json_number_status (*read)(void *dst, size_t index, const char **next, const char *text,
                               const char *end);
} number_kind;

typedef struct scanner {
    const char *at;
    const char *end;
    const number_kind *kind;
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
} scanner;

static json_number_status read_f32(void *dst, size_t index, const char **next, const char *text,
                                   const char *end)
{
    return json_parse_f32((float *)dst + index, next, text, end);
}

static json_number_status read_i64(void *dst, size_t index, const char **next, const char *text,
                                   const char *end)
{
    return json_parse_i64((int64_t *)dst + index, next, text, end);
}

static const number_kind float_kind = {"a number", "float32", read_f32};
static const number_kind integer_kind = {"an integer", "int64", read_i64};

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
                         index_text(path, s, s->depth), token_text(token, s), s->kind->dtype);
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

/* Read numbers up to the bracket that closes the innermost array. */
static nsa_status scan_row(scanner *s)
{
    const char *end = s->end;
    const number_kind *kind = s->kind;

    for (;;) {
        json_number_status status;
        const char *next;

        if (s->count == s->capacity)
            return nsa_error_set(s->err, NSA_ELIMIT, "%s: more than %zu numbers", s->path,
                                 s->capacity);
        status = kind->read(s->dst, s->count, &next, s->at, end);
        if (status == JSON_NUMBER_RANGE)
            return range_error(s);
        if (status != JSON_NUMBER_OK)
            return element_error(s);
        s->rank = s->depth;
        s->count++;
        s->index[s->depth - 1]++;
        s->at = json_skip_space(next, end);
        if (*s->at != ',')
            return *s->at == ']' ? NSA_OK : separator_error(s);
        s->at = json_skip_space(s->at + 1, end);
    }
}

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
            status = scan_row(s);
            if (status != NSA_OK)
                return status;
        }
        status = close_arrays(s);
        if (status != NSA_OK)
            return status;
    } while (s->depth > 0);
    return NSA_OK;
}

static nsa_status scan_span(scanner *s, nsa_shape *shape, const json_span *span)
{
    nsa_status status;

    s->at = span->begin;
    s->end = span->end;
    s->known = NSA_MAX_RANK;
    status = scan(s);
    if (status != NSA_OK)
        return status;
    shape->rank = s->rank;
    memcpy(shape->dims, s->dims, sizeof s->dims);
    return NSA_OK;
}

nsa_status json_scan_f32(float *dst, size_t capacity, nsa_shape *shape, const json_span *span,
                         const char *path, nsa_error *err)
{
    scanner s = {.kind = &float_kind, .dst = dst, .capacity = capacity, .path = path, .err = err};

    return scan_span(&s, shape, span);
}

nsa_status json_scan_i64(int64_t *dst, size_t capacity, nsa_shape *shape, const json_span *span,
                         const char *path, nsa_error *err)
{
    scanner s = {.kind = &integer_kind, .dst = dst, .capacity = capacity, .path = path, .err = err};

    return scan_span(&s, shape, span);
}
