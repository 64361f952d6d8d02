/* Body formats, as a table: a new format is a new row. */
#ifndef SERVER_CODEC_H
#define SERVER_CODEC_H

#include "server/buffer.h"

#include <nsa/status.h>
#include <nsa/tensor.h>
#include <stddef.h>

struct exchange;
struct inference;

/* Bytes that hold the head of any format. */
#define CODEC_HEAD_BYTES 1024

struct codec {
    const char *media_type;

    /* Fill `fields` and `request.input` of the inference from the exchange's body. */
    nsa_status (*decode)(struct inference *inference, nsa_error *err);

    /*
     * A format whose answers are text: refuse one, planned but not computed, whose text would be
     * out of all proportion to its numbers; and append the whole answer.
     */
    nsa_status (*admit)(const struct inference *inference, nsa_error *err);
    void (*encode)(const struct inference *inference, buffer *out);

    /*
     * A format whose answers are one tensor's own bytes after a head: write the head for `output`,
     * of a size that is a multiple of 64, and add the format's answer headers.
     */
    nsa_status (*head)(struct exchange *ex, char head[CODEC_HEAD_BYTES], size_t *size,
                       const nsa_tensor *output, nsa_error *err);
};

/* The codec of a body: by its Content-Type, or without one (NULL) by its first bytes; or NULL. */
const struct codec *codec_of_request(const char *content_type, const char *body, size_t body_bytes);

/* The codec that Accept (NULL: none) prefers, `request_codec` where it is indifferent; or NULL. */
const struct codec *codec_of_answer(const char *accept, const struct codec *request_codec);

/* "application/json, application/x-npy or application/octet-stream", for messages. */
extern const char codec_media_types[];

extern const struct codec codec_json;
extern const struct codec codec_npy;
extern const struct codec codec_raw;

#endif
