#include "server/base64.h"

#include <nettle/base64.h>
#include <stdlib.h>

/* Symbols come in groups of four, of which the last ends with at most two "=". */
#define GROUP 4
#define MAX_PADDING 2

/* nettle alone would skip white space, and take "=" three times in a row. */
struct decoder {
    struct base64_decode_ctx nettle;
    unsigned char *to;
    size_t symbols; /* padding included */
    size_t padding;
};

static bool take(struct decoder *d, char symbol)
{
    int got = symbol > ' ' ? base64_decode_single(&d->nettle, d->to, symbol) : -1;

    if (got < 0)
        return false;
    d->to += got;
    d->symbols++;
    d->padding += symbol == '=';
    return d->padding <= MAX_PADDING;
}

/* Padding may be left out: what it stands for is then added. Whether the last group is whole. */
static bool finish(struct decoder *d)
{
    bool padded = d->padding > 0;

    while (!padded && d->symbols % GROUP != 0) {
        if (!take(d, '='))
            return false;
    }
    return d->symbols % GROUP == 0;
}

nsa_status json_string_base64(unsigned char **bytes, size_t *size, const json_span *span,
                              const char *path, nsa_error *err)
{
    const char *quote = span->end - 1;
    unsigned char *decoded = malloc((size_t)(span->end - span->begin) / GROUP * 3 + 3);
    struct decoder d = {.to = decoded};
    const char *p = span->begin + 1;
    bool sound = true;

    if (!decoded)
        return nsa_error_set(err, NSA_ENOMEM, "%s: out of memory for the file", path);
    base64_decode_init(&d.nettle);
    for (; sound && p < quote; p += sound) {
        p += p[0] == '\\' && p[1] == '/'; /* before the quote there is always a byte */
        sound = take(&d, *p);
    }
    if (!sound || !finish(&d)) {
        free(decoded);
        return nsa_error_set(err, NSA_EFORMAT,
                             "%s: expected base64, got something else at byte %zu", path,
                             (size_t)(p - span->begin));
    }
    *bytes = decoded;
    *size = (size_t)(d.to - decoded);
    return NSA_OK;
}
