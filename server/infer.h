/*
 * The one path of every op request: decode the body by its format's codec, find the model, plan,
 * compute here or in the pool, encode the answer.
 */
#ifndef SERVER_INFER_H
#define SERVER_INFER_H

#include "server/codec.h"
#include "server/exchange.h"
#include "server/fields.h"
#include "server/registry.h"

#include <nsa/batcher.h>
#include <nsa/ops.h>

/* An op request on its way; lives from the end of the body to the end of the exchange. */
struct inference {
    struct exchange *ex;
    const struct codec *request_codec;
    const struct codec *answer_codec;
    struct fields fields;
    const struct served_model *served;
    nsa_request request;
    nsa_job job;
    void *input_memory;                   /* of a decoded tensor that isn't in the body, or NULL */
    char *output_memory[NSA_MAX_OUTPUTS]; /* the first begins with the answer codec's head */
    size_t head_bytes;
    uint64_t mark_ns; /* when the current stage began */
    uint64_t stage_ns[METRICS_STAGE_COUNT];
    bool counted; /* as a success of the model */
};

/* Handle POST /v1/<op>; the op is the route's. */
void infer_submit(struct exchange *ex);

#endif
