#include "server/compression.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

/* zlib counts in 32 bits: larger inputs and outputs are handed over in pieces. */
#define MAX_PIECE_BYTES ((size_t)1 << 30)

/* Least room asked of the output at a time. */
#define STEP_BYTES ((size_t)64 * 1024)

#define WINDOW_BITS 15
#define GZIP_WRAPPER 16 /* added to the window bits: gzip in place of the zlib format */
#define MEMORY_LEVEL 8  /* zlib's default */

static const struct {
    const char *name;
    enum content_encoding encoding;
} encodings[] = {
    {"identity", ENCODING_IDENTITY},
    {"gzip", ENCODING_GZIP},
    {"x-gzip", ENCODING_GZIP},
    {"deflate", ENCODING_DEFLATE},
};

/* A piece of a header, without the blanks around it. */
struct token {
    const char *text;
    size_t size;
};

static struct token trim(const char *text, size_t size)
{
    while (size > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        size--;
    }
    while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t'))
        size--;
    return (struct token){text, size};
}

static bool token_is(struct token token, const char *word)
{
    return token.size == strlen(word) && strncasecmp(token.text, word, token.size) == 0;
}

static enum content_encoding find_encoding(struct token name)
{
    for (size_t i = 0; i < sizeof encodings / sizeof *encodings; i++) {
        if (token_is(name, encodings[i].name))
            return encodings[i].encoding;
    }
    return ENCODING_UNSUPPORTED;
}

enum content_encoding content_encoding_parse(const char *header)
{
    struct token token = trim(header ? header : "", header ? strlen(header) : 0);

    return token.size == 0 ? ENCODING_IDENTITY : find_encoding(token);
}

const char *content_encoding_name(enum content_encoding encoding)
{
    size_t i = 0;

    assert(encoding != ENCODING_UNSUPPORTED);
    while (encodings[i].encoding != encoding)
        i++;
    return encodings[i].name;
}

/* A weight, 0 to 1 with up to three decimals, in thousandths; -1 for anything else. */
static int parse_weight(struct token weight)
{
    static const int units[] = {1000, 0, 100, 10, 1}; /* the second is the point */
    int thousandths = 0;

    if (weight.size == 0 || weight.size > sizeof units / sizeof *units ||
        (weight.size > 1 && weight.text[1] != '.'))
        return -1;
    for (size_t i = 0; i < weight.size; i++) {
        char c = weight.text[i];

        if (i != 1 && (c < '0' || c > '9'))
            return -1;
        thousandths += (c - '0') * units[i];
    }
    return thousandths <= 1000 ? thousandths : -1;
}

/* Split "coding;q=weight", or "coding" of the full weight; false when it is malformed. */
static bool parse_coding(struct token *coding, int *weight, const char *text, size_t size)
{
    const char *semicolon = memchr(text, ';', size);
    struct token parameter;

    *coding = trim(text, semicolon ? (size_t)(semicolon - text) : size);
    *weight = 1000;
    if (!semicolon)
        return true;
    parameter = trim(semicolon + 1, size - (size_t)(semicolon + 1 - text));
    if (parameter.size < 2 || strncasecmp(parameter.text, "q=", 2) != 0)
        return false;
    *weight = parse_weight((struct token){parameter.text + 2, parameter.size - 2});
    return *weight >= 0 && coding->size > 0;
}

enum content_encoding accept_encoding_choose(const char *header)
{
    static const enum content_encoding preferred[] = {ENCODING_GZIP, ENCODING_DEFLATE,
                                                      ENCODING_IDENTITY};
    enum content_encoding choice = ENCODING_IDENTITY;
    int weights[ENCODING_UNSUPPORTED + 1] = {[ENCODING_GZIP] = -1}; /* until it is named */
    int star = 0;
    int most = 0;

    while (header && *header) {
        size_t size = strcspn(header, ",");
        struct token coding;
        int weight;
        int *slot;

        if (!parse_coding(&coding, &weight, header, size))
            return ENCODING_IDENTITY;
        slot = token_is(coding, "*") ? &star : &weights[find_encoding(coding)];
        if (weight > *slot)
            *slot = weight;
        header += header[size] == ',' ? size + 1 : size;
    }
    if (weights[ENCODING_GZIP] < 0)
        weights[ENCODING_GZIP] = star;
    for (size_t i = 0; i < sizeof preferred / sizeof *preferred; i++) {
        if (weights[preferred[i]] > most) {
            choice = preferred[i];
            most = weights[choice];
        }
    }
    return choice;
}

/* zlib would call malloc out of reach of the program's own allocator. */
static void *allocate(void *context, uInt count, uInt size)
{
    (void)context;
    return malloc((size_t)count * size);
}

static void release(void *context, void *pointer)
{
    (void)context;
    free(pointer);
}

static int window_bits(enum content_encoding encoding)
{
    return WINDOW_BITS + (encoding == ENCODING_GZIP ? GZIP_WRAPPER : 0);
}

/* Hand zlib the next piece of the input, if it has used up the last. */
static void feed(z_stream *stream, size_t *left)
{
    size_t piece = *left < MAX_PIECE_BYTES ? *left : MAX_PIECE_BYTES;

    if (stream->avail_in > 0)
        return;
    stream->avail_in = (uInt)piece;
    *left -= piece;
}

/*
 * Point zlib at free room in `out`, or at `spare` when `out` is full: a stream may still have its
 * end to show, without another byte. NULL when memory ran out.
 */
static Bytef *make_room(z_stream *stream, buffer *out, Bytef *spare)
{
    size_t room = out->max_bytes - out->size;

    if (room == 0) {
        stream->next_out = spare;
        stream->avail_out = 1;
        return spare;
    }
    stream->next_out = (Bytef *)buffer_reserve(out, room < STEP_BYTES ? room : STEP_BYTES);
    if (!stream->next_out)
        return NULL;
    if (room > out->capacity - out->size)
        room = out->capacity - out->size;
    stream->avail_out = (uInt)(room < MAX_PIECE_BYTES ? room : MAX_PIECE_BYTES);
    return stream->next_out;
}

static nsa_status limit_reached(buffer *out, nsa_error *err)
{
    out->status = NSA_ELIMIT;
    return nsa_error_set(err, NSA_ELIMIT, "decompressed body: expected at most %zu bytes, got more",
                         out->max_bytes);
}

/*
 * Run inflate until it wants to be asked again: one piece of output. *ended says whether the stream
 * ended there.
 */
static nsa_status inflate_step(z_stream *stream, size_t *left, buffer *out, bool *ended,
                               nsa_error *err)
{
    Bytef spare;
    Bytef *start;
    int result;

    feed(stream, left);
    start = make_room(stream, out, &spare);
    if (!start)
        return nsa_error_set(err, NSA_ENOMEM, "no memory for the decompressed body");
    result = inflate(stream, Z_NO_FLUSH);
    if (result == Z_MEM_ERROR)
        return nsa_error_set(err, NSA_ENOMEM, "no memory to decompress the body");
    if (start == &spare && stream->next_out != start)
        return limit_reached(out, err);
    if (start != &spare)
        out->size += (size_t)(stream->next_out - start);
    *ended = result == Z_STREAM_END;
    if (result == Z_BUF_ERROR ||
        (result == Z_OK && stream->avail_out > 0 && stream->avail_in == 0 && *left == 0))
        return nsa_error_set(err, NSA_EFORMAT, "compressed body: ends before its stream does");
    if (result != Z_OK && result != Z_STREAM_END)
        return nsa_error_set(err, NSA_EFORMAT, "compressed body: %s",
                             stream->msg ? stream->msg : "not a stream of its encoding");
    return NSA_OK;
}

nsa_status inflate_body(buffer *out, const void *bytes, size_t size, enum content_encoding encoding,
                        nsa_error *err)
{
    z_stream stream = {.zalloc = allocate, .zfree = release};
    const size_t size_before = out->size;
    bool ended = false;
    nsa_status status = NSA_OK;

    assert(encoding != ENCODING_UNSUPPORTED);
    if (encoding == ENCODING_IDENTITY) {
        buffer_append(out, bytes, size);
        return out->status == NSA_ELIMIT ? limit_reached(out, err) : out->status;
    }
    if (out->status != NSA_OK)
        return out->status;
    if (inflateInit2(&stream, window_bits(encoding)) != Z_OK)
        return nsa_error_set(err, NSA_ENOMEM, "no memory to decompress the body");
    stream.next_in = (z_const Bytef *)bytes;
    while (status == NSA_OK && !ended) {
        status = inflate_step(&stream, &size, out, &ended, err);
        if (status != NSA_OK || !ended || stream.avail_in + size == 0)
            continue;
        if (encoding != ENCODING_GZIP) {
            status = nsa_error_set(err, NSA_EFORMAT, "compressed body: goes on after its end");
        } else {
            inflateReset(&stream);
            ended = false;
        }
    }
    inflateEnd(&stream);
    if (status != NSA_OK)
        out->size = size_before;
    return status;
}

nsa_status deflate_body(buffer *out, const void *bytes, size_t size, enum content_encoding encoding)
{
    z_stream stream = {.zalloc = allocate, .zfree = release};
    const size_t size_before = out->size;
    int result = Z_OK;

    assert(encoding == ENCODING_GZIP || encoding == ENCODING_DEFLATE);
    if (out->status != NSA_OK)
        return out->status;
    if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, window_bits(encoding), MEMORY_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return NSA_ENOMEM;
    stream.next_in = (z_const Bytef *)bytes;
    while (result != Z_STREAM_END) {
        Bytef spare;
        Bytef *start;

        feed(&stream, &size);
        start = make_room(&stream, out, &spare);
        if (!start)
            break;
        result = deflate(&stream, size == 0 ? Z_FINISH : Z_NO_FLUSH);
        if (start == &spare && stream.next_out != start) {
            out->status = NSA_ELIMIT;
            break;
        }
        if (start != &spare)
            out->size += (size_t)(stream.next_out - start);
    }
    deflateEnd(&stream);
    if (out->status != NSA_OK)
        out->size = size_before;
    return out->status;
}
