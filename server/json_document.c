#include "server/json_scan.h"
#include "server/json_text.h"

#include <errno.h>
#include <nsa/size.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Bytes looked at together when an array is skipped; their counts fit a byte. */
#define BLOCK_BYTES 64

/* What stands for a value: its index, which is one digit, and a space so that no ".5" joins it. */
#define PLACEHOLDER_BYTES 2
_Static_assert(JSON_MAX_SPANS <= 10, "a placeholder is one digit");

/* As much of a client's key as a message shows. */
#define KEY_TEXT_BYTES 100

struct json_document {
    json_t *root;
    size_t span_count;
    json_span spans[JSON_MAX_SPANS]; /* in the order of the text */
};

/* The kinds of values that are taken out. */
static const struct {
    char opening;
    const char *name;
    const char *noun;
    const char *plural;
} kinds[] = {
    [JSON_ARRAY] = {'[', "an array of numbers", "array", "arrays of numbers"},
    [JSON_STRING] = {'"', "a string", "string", "strings"},
};

typedef struct walker {
    const char *at;
    const char *end;
    const json_place *places;
    size_t depth;       /* containers open at `at` */
    size_t token_bytes; /* of the longest token, quotes included */
    json_document *document;
    nsa_error *err;
} walker;

/* The byte after the string that opens at `p`; NULL if nothing closes it. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end; p++) {
        if (*p == '"')
            return p + 1;
        if (*p == '\\')
            p++;
    }
    return NULL;
}

/*
 * Whether the string [raw, end), quotes included, spells the key of `place` or begins with it, with
 * \u escapes or not: there is no shorter escape for what such keys are made of.
 */
static bool key_matches(const char *raw, const char *end, const json_place *place)
{
    const char *p = raw + 1;

    for (const char *key = place->key; *key; key++) {
        if (*p == *key) {
            p++;
        } else if (p[0] == '\\' && p[1] == 'u' && end - p > 6) {
            char digits[5] = {p[2], p[3], p[4], p[5], '\0'};

            /* strtoul is laxer about digits than JSON; jansson refuses those texts later. */
            if (strtoul(digits, NULL, 16) != (unsigned char)*key)
                return false;
            p += 6;
        } else {
            return false;
        }
    }
    return place->prefix || p == end - 1;
}

static const json_place *find_place(const walker *w, const char *raw, const char *end)
{
    for (const json_place *place = w->places; place->key; place++) {
        if (place->depth == w->depth && key_matches(raw, end, place))
            return place;
    }
    return NULL;
}

/* What messages call the value behind the key [raw, end): of a prefix, what the document has. */
static const char *key_text(char text[KEY_TEXT_BYTES], const json_place *place, const char *raw,
                            const char *end)
{
    size_t bytes = (size_t)(end - raw) - 2;

    if (!place->prefix)
        return place->key;
    if (bytes > KEY_TEXT_BYTES - 1)
        bytes = KEY_TEXT_BYTES - 1;
    memcpy(text, raw + 1, bytes);
    text[bytes] = '\0';
    return text;
}

/*
 * The byte after the array that opens at span->begin, or NULL; counts its commas. Only square
 * brackets and strings matter here: anything else that does not belong in an array of numbers is
 * found when the numbers are read.
 *
 * Blocks without a quote and with too few brackets to close the array are only counted, which
 * compilers turn into vector code; that makes this pass cost little beside reading the numbers.
 */
static const char *skip_array(json_span *span, const char *end)
{
    const char *p = span->begin;
    size_t open = 0;

    while (p < end) {
        const char *stop = end;

        if (end - p >= BLOCK_BYTES) {
            uint8_t commas = 0;
            uint8_t opening = 0;
            uint8_t closing = 0;
            uint8_t quotes = 0;

            for (size_t i = 0; i < BLOCK_BYTES; i++) {
                commas = (uint8_t)(commas + (p[i] == ','));
                opening = (uint8_t)(opening + (p[i] == '['));
                closing = (uint8_t)(closing + (p[i] == ']'));
                quotes = (uint8_t)(quotes + (p[i] == '"'));
            }
            stop = p + BLOCK_BYTES;
            if (quotes == 0 && closing < open) {
                span->commas += commas;
                open = open + opening - closing;
                p = stop;
                continue;
            }
        }
        while (p < stop) {
            if (*p == '"') {
                p = skip_string(p, end);
                if (!p)
                    return NULL;
                continue;
            }
            span->commas += *p == ',';
            open += *p == '[';
            open -= *p == ']';
            p++;
            if (open == 0)
                return p;
        }
    }
    return NULL;
}

/* Take out the value at w->at, which should be of the kind of `place`, behind the key `name`. */
static nsa_status take_value(walker *w, const json_place *place, const char *name)
{
    json_document *document = w->document;
    json_span span = {.begin = w->at};

    if (w->at == w->end || (place->nullable && *w->at == 'n'))
        return NSA_OK; /* jansson says what is missing, or more than null */
    if (*w->at != kinds[place->kind].opening) {
        const char *got = json_value_name(*w->at);

        if (!got)
            return nsa_error_set(w->err, NSA_EFORMAT, "%s: expected %s", name,
                                 kinds[place->kind].name);
        return nsa_error_set(w->err, NSA_EINVAL, "%s: expected %s, got %s", name,
                             kinds[place->kind].name, got);
    }
    if (document->span_count == JSON_MAX_SPANS)
        return nsa_error_set(w->err, NSA_ELIMIT, "%s: more than %d %s", name, JSON_MAX_SPANS,
                             kinds[place->kind].plural);
    span.end =
        place->kind == JSON_ARRAY ? skip_array(&span, w->end) : skip_string(span.begin, w->end);
    if (!span.end)
        return nsa_error_set(w->err, NSA_EFORMAT, "%s: the %s is not closed", name,
                             kinds[place->kind].noun);
    document->spans[document->span_count++] = span;
    w->at = span.end;
    return NSA_OK;
}

static void note_token(walker *w, const char *begin, const char *end)
{
    if ((size_t)(end - begin) > w->token_bytes)
        w->token_bytes = (size_t)(end - begin);
}

/* Pass the string at w->at and, if it is a key of one of the places, the value behind it. */
static nsa_status walk_string(walker *w)
{
    const char *begin = w->at;
    const char *end = skip_string(begin, w->end);
    const json_place *place;
    char text[KEY_TEXT_BYTES];

    if (!end) {
        w->at = w->end;
        return NSA_OK;
    }
    note_token(w, begin, end);
    w->at = json_skip_space(end, w->end);
    /* In a well-formed document only keys are followed by a colon; jansson refuses the others. */
    if (w->at == w->end || *w->at != ':')
        return NSA_OK;
    place = find_place(w, begin, end);
    if (!place)
        return NSA_OK;
    w->at = json_skip_space(w->at + 1, w->end);
    return take_value(w, place, key_text(text, place, begin, end));
}

/* Pass white space, punctuation, and a number or word at w->at. */
static void walk_plain(walker *w)
{
    const char *begin;

    while (w->at < w->end && strchr(" \t\r\n,:", *w->at))
        w->at++;
    begin = w->at;
    while (w->at < w->end && !strchr(" \t\r\n,:{}[]\"", *w->at))
        w->at++;
    note_token(w, begin, w->at);
}

/*
 * Find the values. The walk trusts the text to be well-formed and takes what comes if it is not:
 * what is taken is one value, as its placeholder is, so what is left is malformed too.
 */
static nsa_status walk(walker *w)
{
    while (w->at < w->end) {
        nsa_status status;

        switch (*w->at) {
        case '{':
        case '[':
            if (w->depth == JSON_MAX_DEPTH)
                return nsa_error_set(w->err, NSA_ELIMIT,
                                     "JSON nested deeper than %d arrays and objects",
                                     JSON_MAX_DEPTH);
            w->depth++;
            w->at++;
            break;
        case '}':
        case ']':
            if (w->depth == 0)
                return NSA_OK;
            w->depth--;
            w->at++;
            break;
        case '"':
            status = walk_string(w);
            if (status != NSA_OK)
                return status;
            break;
        default:
            walk_plain(w);
        }
    }
    return NSA_OK;
}

/* Copy [text, end) to `to` with placeholders for the spans; returns the end. */
static char *copy_envelope(char *to, const char *text, const char *end, const json_document *d)
{
    for (size_t i = 0; i < d->span_count; i++) {
        size_t before = (size_t)(d->spans[i].begin - text);

        memcpy(to, text, before);
        to += before;
        *to++ = (char)('0' + i);
        *to++ = ' ';
        text = d->spans[i].end;
    }
    memcpy(to, text, (size_t)(end - text));
    return to + (end - text);
}

/* Where in the whole text byte `position` of the envelope is. */
static size_t original_position(size_t position, const char *text, const json_document *d)
{
    for (size_t i = 0; i < d->span_count; i++) {
        if ((size_t)(d->spans[i].begin - text) >= position)
            break;
        position += (size_t)(d->spans[i].end - d->spans[i].begin) - PLACEHOLDER_BYTES;
    }
    return position;
}

/* Why jansson does not take the envelope. */
static nsa_status explain(const char *envelope, size_t size, const char *text,
                          const json_document *document, nsa_error *err)
{
    json_error_t error;
    json_t *root;

    errno = 0;
    root = json_loadb(envelope, size, JSON_REJECT_DUPLICATES, &error);
    if (root || errno == ENOMEM || error.text[0] == '\0') {
        json_decref(root);
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the JSON document");
    }
    return nsa_error_set(err, NSA_EFORMAT, "malformed JSON at byte %zu: %s",
                         original_position((size_t)error.position, text, document), error.text);
}

/*
 * Parse what is left of `text` without its spans.
 *
 * jansson's lexer does not notice when its token buffer, 16 bytes at first, cannot grow: it drops
 * the byte and goes on, so that a key or a value comes out wrong. The envelope is therefore parsed
 * as the second element of an array whose first is a string longer than any other token. Growing
 * happens there, where a lost byte shows as a wrong length. (The string's closing quote must not
 * be the byte that makes the buffer grow, the last before a power of two.)
 */
static nsa_status parse_envelope(const walker *w, const char *text, size_t size)
{
    json_document *document = w->document;
    size_t filler = (w->token_bytes / 64 + 1) * 64 + 8;
    size_t left = size;
    char *wrapped;
    char *envelope;
    char *end;
    json_t *root;
    nsa_status status = NSA_OK;

    for (size_t i = 0; i < document->span_count; i++)
        left -= (size_t)(document->spans[i].end - document->spans[i].begin) - PLACEHOLDER_BYTES;
    if (left > JSON_MAX_ENVELOPE_BYTES)
        return nsa_error_set(w->err, NSA_ELIMIT,
                             "the JSON beside the data has %zu bytes, more than %zu", left,
                             JSON_MAX_ENVELOPE_BYTES);
    wrapped = malloc(filler + left + sizeof "[\"\",]");
    if (!wrapped)
        return nsa_error_set(w->err, NSA_ENOMEM, "out of memory for the JSON document");
    memcpy(wrapped, "[\"", 2);
    memset(wrapped + 2, 'x', filler);
    memcpy(wrapped + 2 + filler, "\",", 2);
    envelope = wrapped + filler + 4;
    end = copy_envelope(envelope, text, text + size, document);
    *end++ = ']';
    root = json_loadb(wrapped, (size_t)(end - wrapped), JSON_REJECT_DUPLICATES, NULL);
    if (json_array_size(root) == 2 && json_string_length(json_array_get(root, 0)) == filler)
        document->root = json_incref(json_array_get(root, 1));
    json_decref(root);
    if (!document->root)
        status = explain(envelope, left, text, document, w->err);
    else if (!json_is_object(document->root))
        status = nsa_error_set(w->err, NSA_EINVAL, "expected a JSON object, got %s",
                               json_value_name(*json_skip_space(text, text + size)));
    free(wrapped);
    return status;
}

nsa_status json_document_open(json_document **out, const char *text, size_t size,
                              const json_place *places, nsa_error *err)
{
    json_document *document = calloc(1, sizeof *document);
    walker w = {.at = text, .end = text + size, .places = places, .document = document, .err = err};
    nsa_status status;

    if (!document)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the JSON document");
    status = walk(&w);
    if (status == NSA_OK)
        status = parse_envelope(&w, text, size);
    if (status == NSA_OK)
        *out = document;
    else
        json_document_close(document);
    return status;
}

json_t *json_document_root(const json_document *document)
{
    return document ? document->root : NULL;
}

const json_span *json_document_span(const json_document *document, const json_t *placeholder)
{
    json_int_t index = json_integer_value(placeholder);

    if (!json_is_integer(placeholder) || index < 0 || (size_t)index >= document->span_count)
        return NULL;
    return &document->spans[index];
}

void json_document_close(json_document *document)
{
    if (!document)
        return;
    json_decref(document->root);
    free(document);
}
