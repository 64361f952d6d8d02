/* Body formats, as a table: a new format is a new row. */
#ifndef SERVER_CODEC_H
#define SERVER_CODEC_H

#include "server/buffer.h"

#include <nsa/status.h>
#include <nsa/tensor.h>
#include <stddef.h>

struct inference;

/* How an output goes to the client. */
enum output_form {
    OUTPUT_TEXT,  /* numbers in the text of the answer */
    OUTPUT_BYTES, /* its elements behind the answer's head */
    OUTPUT_SHARED /* its elements in a region of shared memory */
};

/* The elements behind a head are aligned if its size is a multiple of this. */
#define CODEC_HEAD_ALIGN ((size_t)64)

struct codec {
    const char *media_type;
    enum output_form form; /* of outputs that the request says nothing of */

    /* Fill `fields`, `request.input` and perhaps `outputs` of the inference from the body. */
    nsa_status (*decode)(struct inference *inference, nsa_error *err);

    /*
     * Refuse an answer, planned but not computed, that the format doesn't have, or that would be
     * out of all proportion to its numbers. NULL: none.
     */
    nsa_status (*admit)(const struct inference *inference, nsa_error *err);

    /* An answer with outputs as text: append the whole of it. NULL: the format has none. */
    void (*encode)(struct inference *inference, buffer *out);

    /*
     * An answer without: append its head, in a size that is a multiple of CODEC_HEAD_ALIGN if the
     * bytes of outputs follow. NULL: the format has none. Failure may be left in `head`.
     */
    nsa_status (*head)(struct inference *inference, buffer *head, nsa_error *err);
};

/* The codec of a body: by its Content-Type, or without one (NULL) by its first bytes; or NULL. */
const struct codec *codec_of_request(const char *content_type, const char *body, size_t body_bytes);

/* The codec that Accept (NULL: none) prefers, `request_codec` where it is indifferent; or NULL. */
const struct codec *codec_of_answer(const char *accept, const struct codec *request_codec);

/* An `admit` for formats that carry one tensor. */
nsa_status codec_admit_one(const struct inference *inference, nsa_error *err);

/* "application/json, application/x-npy or application/octet-stream", for messages. */
extern const char codec_media_types[];

extern const struct codec codec_json;
extern const struct codec codec_npy;
extern const struct codec codec_raw;
extern const struct codec codec_oip; /* of the Open Inference Protocol's routes alone */

#endif
