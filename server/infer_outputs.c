/* Where outputs are computed to, and how they get from there into the answer. */
#include "server/infer.h"
#include "server/memory.h"
#include "server/server.h"
#include "server/shared_memory.h"

#include <nsa/npy.h>
#include <nsa/size.h>
#include <stdlib.h>
#include <string.h>

/* The longest text of an answer: a number is up to 24 bytes, and brackets around each some more. */
#define MAX_ANSWER_BYTES ((size_t)1 << 30)

_Static_assert(MEMORY_ALIGN % CODEC_HEAD_ALIGN == 0, "what follows a head is aligned");

size_t inference_bytes(const struct inference *inference, const struct inference_output *output)
{
    const nsa_tensor *tensor = inference_tensor(inference, output);
    size_t bytes = 0;

    nsa_shape_bytes(&bytes, &tensor->shape, tensor->dtype, NULL); /* was planned: fits */
    return bytes;
}

bool inference_has_form(const struct inference *inference, enum output_form form)
{
    for (size_t i = 0; i < inference->output_count; i++) {
        if (inference->outputs[i].form == form)
            return true;
    }
    return false;
}

static nsa_status allocate(void **out, const struct inference *inference, size_t bytes,
                           nsa_error *err)
{
    *out = memory_take(inference->ex->server->memory, bytes);
    return *out ? NSA_OK
                : nsa_error_set(err, NSA_ENOMEM, "out of memory for %zu bytes of output", bytes);
}

/* Write the head and make room for the bytes of the outputs behind it. */
static nsa_status make_answer(struct inference *inference, nsa_error *err)
{
    char room[NSA_NPY_HEADER_BYTES]; /* as much as the longest of most heads */
    buffer head = {
        .data = room, .capacity = sizeof room, .borrowed = true, .max_bytes = MAX_ANSWER_BYTES};
    size_t total;
    void *memory = NULL;
    nsa_status status = inference->answer_codec->head(inference, &head, err);

    if (status == NSA_OK && head.status != NSA_OK)
        status = nsa_error_set(err, NSA_ENOMEM, "out of memory for the answer's head");
    total = inference->head_bytes = head.size;
    for (size_t i = 0; status == NSA_OK && i < inference->output_count; i++) {
        const struct inference_output *output = &inference->outputs[i];

        if (output->form == OUTPUT_BYTES &&
            !nsa_size_add(&total, total, inference_bytes(inference, output)))
            status = nsa_error_set(err, NSA_ELIMIT, "the answer is too large");
    }
    if (status == NSA_OK)
        status = allocate(&memory, inference, total, err);
    if (status == NSA_OK && head.size > 0)
        memcpy(memory, head.data, head.size);
    buffer_free(&head);
    inference->answer = memory;
    inference->answer_bytes = total;
    return status;
}

/* Give the aligned ones of the answer's OUTPUT_BYTES their place in the answer. */
static void place_in_answer(struct inference *inference)
{
    size_t at = inference->head_bytes;

    for (size_t i = 0; inference->answer && i < inference->output_count; i++) {
        const struct inference_output *output = &inference->outputs[i];
        nsa_tensor *tensor = &inference->request.outputs[output->index];

        if (output->form != OUTPUT_BYTES)
            continue;
        if (at % nsa_dtype_size(tensor->dtype) == 0)
            tensor->data = inference->answer + at;
        at += inference_bytes(inference, output);
    }
}

/* All others, and what is planned without being asked for, get memory of their own. */
static nsa_status place_outputs(struct inference *inference, nsa_error *err)
{
    nsa_request *request = &inference->request;

    place_in_answer(inference);
    for (size_t i = 0; i < request->output_count; i++) {
        const struct inference_output output = {.index = i};
        nsa_status status;

        if (request->outputs[i].data)
            continue;
        status = allocate(&inference->output_memory[i], inference,
                          inference_bytes(inference, &output), err);
        if (status != NSA_OK)
            return status;
        request->outputs[i].data = inference->output_memory[i];
    }
    return NSA_OK;
}

nsa_status outputs_make(struct inference *inference, nsa_error *err)
{
    const struct codec *codec = inference->answer_codec;
    nsa_status status = NSA_OK;

    inference->content_type = codec->media_type;
    if (inference->output_count == 0) {
        for (size_t i = 0; i < inference->request.output_count; i++)
            inference->outputs[inference->output_count++] =
                (struct inference_output){.index = i, .form = codec->form};
    }
    if (codec->admit)
        status = codec->admit(inference, err);
    if (status == NSA_OK && !inference_has_form(inference, OUTPUT_TEXT))
        status = make_answer(inference, err);
    return status == NSA_OK ? place_outputs(inference, err) : status;
}

/* Copy to where they belong the elements that could not be computed there. */
static nsa_status deliver(struct inference *inference, nsa_error *err)
{
    struct shared_memory *shared = inference->ex->server->shared_memory;
    size_t at = inference->head_bytes;
    nsa_status status = NSA_OK;

    for (size_t i = 0; i < inference->output_count && status == NSA_OK; i++) {
        const struct inference_output *output = &inference->outputs[i];
        const char *data = inference_tensor(inference, output)->data;
        size_t bytes = inference_bytes(inference, output);

        if (output->form == OUTPUT_SHARED) {
            status = shared_memory_write(shared, output->region, output->offset, data, bytes, err);
        } else if (inference->answer) {
            if (data != inference->answer + at)
                memcpy(inference->answer + at, data, bytes);
            at += bytes;
        }
    }
    return status;
}

void outputs_answer(struct inference *inference)
{
    struct exchange *ex = inference->ex;
    nsa_error err;
    nsa_status status = deliver(inference, &err);

    if (status != NSA_OK) {
        answer_failure(ex, status, &err);
        return;
    }
    if (!inference->answer) {
        buffer text = {.max_bytes = MAX_ANSWER_BYTES};

        inference->answer_codec->encode(inference, &text);
        answer_buffer(ex, 200, inference->content_type, &text);
        return;
    }
    answer_bytes(ex, 200, inference->content_type, inference->answer, inference->answer_bytes,
                 memory_give);
    inference->answer = NULL;
}

void outputs_free(struct inference *inference)
{
    memory_give(inference->answer);
    for (size_t i = 0; i < NSA_MAX_OUTPUTS; i++) {
        free(inference->outputs[i].region);
        memory_give(inference->output_memory[i]);
    }
}
