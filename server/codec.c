#include "server/codec.h"

#include "server/infer.h"

#include <ctype.h>
#include <nsa/npy.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

nsa_status codec_admit_one(const struct inference *inference, nsa_error *err)
{
    if (inference->output_count > 1)
        return nsa_error_set(err, NSA_EINVAL,
                             "return_values: expected false, or Accept: application/json, as %s "
                             "carries one tensor",
                             inference->answer_codec->media_type);
    return NSA_OK;
}

static const struct codec *const codecs[] = {&codec_json, &codec_npy, &codec_raw};

#define CODEC_COUNT (sizeof codecs / sizeof *codecs)

const char codec_media_types[] = "application/json, application/x-npy or application/octet-stream";

/* The first byte of `text` that is not a blank. */
static const char *skip_blanks(const char *text)
{
    return text + strspn(text, " \t");
}

/* Length of the media type (or range) that `text` begins with, parameters not included. */
static size_t media_type_length(const char *text)
{
    return strcspn(text, "; \t,");
}

static bool same_text(const char *text, size_t length, const char *other)
{
    return strlen(other) == length && strncasecmp(text, other, length) == 0;
}

/* A body without Content-Type is known by how it begins. */
static const struct codec *codec_by_content(const char *body, size_t body_bytes)
{
    size_t start = 0;

    if (nsa_npy_is_magic(body, body_bytes))
        return &codec_npy;
    while (start < body_bytes && isspace((unsigned char)body[start]))
        start++;
    return start < body_bytes && body[start] == '{' ? &codec_json : NULL;
}

const struct codec *codec_of_request(const char *content_type, const char *body, size_t body_bytes)
{
    if (!content_type)
        return codec_by_content(body, body_bytes);
    content_type = skip_blanks(content_type);
    for (size_t i = 0; i < CODEC_COUNT; i++) {
        if (same_text(content_type, media_type_length(content_type), codecs[i]->media_type))
            return codecs[i];
    }
    return NULL;
}

/* --- Accept (RFC 9110, 12.5.1) ------------------------------------------------------------- */

/* How closely a media range names a type: 3 exactly, 2 as application / *, 1 as * / *, 0 not. */
static int range_precision(const char *range, size_t length, const char *media_type)
{
    if (same_text(range, length, media_type))
        return 3;
    if (same_text(range, length, "application/*"))
        return 2;
    return same_text(range, length, "*/*") ? 1 : 0;
}

/* The weight of the media range whose parameters begin at `text`; 1 unless it says q=. */
static double range_weight(const char *text, const char *end)
{
    while (text < end) {
        text = skip_blanks(text);
        if ((text[0] == 'q' || text[0] == 'Q') && text[1] == '=') {
            double weight = strtod(text + 2, NULL);

            return weight >= 0 && weight <= 1 ? weight : 0;
        }
        text += strcspn(text, ";,");
        if (*text != ';')
            break;
        text++;
    }
    return 1;
}

/* The weight that `header` gives to `media_type`, by the range that names it most closely. */
static double accept_weight(const char *header, const char *media_type)
{
    int best = 0;
    double weight = 0;

    for (const char *range = header; *range;) {
        const char *end = range + strcspn(range, ",");
        size_t length;
        int precision;

        range = skip_blanks(range);
        length = media_type_length(range);
        precision = range_precision(range, length, media_type);
        if (precision > best) {
            best = precision;
            weight = range_weight(range + length + strspn(range + length, "; \t"), end);
        }
        range = *end ? end + 1 : end;
    }
    return weight;
}

const struct codec *codec_of_answer(const char *accept, const struct codec *request_codec)
{
    const struct codec *best = request_codec;
    double best_weight;

    if (!accept)
        return request_codec;
    best_weight = accept_weight(accept, request_codec->media_type);
    for (size_t i = 0; i < CODEC_COUNT; i++) {
        double weight = accept_weight(accept, codecs[i]->media_type);

        if (weight > best_weight) {
            best = codecs[i];
            best_weight = weight;
        }
    }
    return best_weight > 0 ? best : NULL;
}
