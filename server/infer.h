/*
 * The one path of every op request: decode the body by its format's codec, find the model, plan,
 * compute here or in the pool, encode the answer.
 */
#ifndef SERVER_INFER_H
#define SERVER_INFER_H

#include "server/catalog.h"
#include "server/codec.h"
#include "server/exchange.h"
#include "server/fields.h"

#include <nsa/batcher.h>
#include <nsa/ops.h>

/* One output of the answer. */
struct inference_output {
    size_t index; /* among the request's outputs */
    enum output_form form;
    char *region; /* of OUTPUT_SHARED, owned; from its byte `offset` on there is room for */
    uint64_t offset, room_bytes;
};

/* An op request on its way; lives from the end of the body to the end of the exchange. */
struct inference {
    struct exchange *ex;
    const struct codec *request_codec;
    const struct codec *answer_codec;
    struct fields fields;
    const struct catalog *catalog; /* held; has `served` */
    const struct served_model *served;
    nsa_request request;
    nsa_job job;
    char *id;           /* that the client gave in the body, owned, or NULL */
    void *input_memory; /* of a decoded tensor that isn't in the body, by memory_take(), or NULL */

    struct inference_output outputs[NSA_MAX_OUTPUTS]; /* in the answer's order */
    size_t output_count;      /* 0 from a decoder: all that are planned, as the format has them */
    const char *content_type; /* of the answer */
    char *answer;             /* an answer without text: (head_bytes), then its OUTPUT_BYTES */
    size_t head_bytes, answer_bytes;
    void *output_memory[NSA_MAX_OUTPUTS]; /* of the request's outputs that aren't in `answer` */

    uint64_t mark_ns; /* when the current stage began */
    uint64_t stage_ns[METRICS_STAGE_COUNT];
};

/* Handle POST /v1/<op>, and …/infer of a model. */
void infer_submit(struct exchange *ex);

/* The tensor that an output of the answer stands for. */
static inline const nsa_tensor *inference_tensor(const struct inference *inference,
                                                 const struct inference_output *output)
{
    return &inference->request.outputs[output->index];
}

/* --- infer_outputs.c ----------------------------------------------------------------------- */

/* The size of an output's elements, of the planned request. */
size_t inference_bytes(const struct inference *inference, const struct inference_output *output);

/* Whether any output of the answer has this form. */
bool inference_has_form(const struct inference *inference, enum output_form form);

/*
 * Give the outputs of the planned request memory; those that the answer carries as bytes right
 * behind its head, from where they are sent.
 * @return NSA_OK; NSA_EINVAL, NSA_EUNSUPPORTED or NSA_ELIMIT (an answer that the format doesn't
 *         have, or would be out of all proportion); NSA_ENOMEM
 */
nsa_status outputs_make(struct inference *inference, nsa_error *err);

/* Fill the exchange's answer with the computed outputs, or with why that cannot be. */
void outputs_answer(struct inference *inference);

void outputs_free(struct inference *inference);

#endif
