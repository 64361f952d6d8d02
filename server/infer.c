#include "server/infer.h"

#include "server/compression.h"
#include "server/registry.h"
#include "server/router.h"
#include "server/server.h"

#include <inttypes.h>
#include <nsa/size.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS 1000000u
#define NS_PER_S 1000000000u

/* The longest text of an answer: a number is up to 16 bytes, and brackets around each some more. */
#define MAX_ANSWER_BYTES ((size_t)1 << 30)

/* Bytes between the tensor and the end of its allocation: aligned_alloc() wants a multiple. */
#define OUTPUT_ALIGN 64

/* The exchange is over; one whose model was found and that was not answered with 200 has failed. */
static void end_inference(void *state)
{
    struct inference *inference = state;

    if (inference->served && !inference->counted)
        metrics_count_failure(inference->served->series, nsa_now_ns() - inference->ex->begin_ns);
    free(inference->input_memory);
    for (size_t i = 0; i < NSA_MAX_OUTPUTS; i++)
        free(inference->output_memory[i]);
    free(inference);
}

static void end_stage(struct inference *inference, enum metrics_stage stage)
{
    uint64_t now = nsa_now_ns();

    inference->stage_ns[stage] = now - inference->mark_ns;
    inference->mark_ns = now;
}

/* --- decoding ------------------------------------------------------------------------------ */

static nsa_status set_query_field(void *context, const char *key, const char *value, nsa_error *err)
{
    return fields_set_text(context, FIELDS_QUERY, key, value, err);
}

/* Undo the body's Content-Encoding; answers and returns false if that can't be done. */
static bool decode_content(struct exchange *ex)
{
    enum content_encoding encoding =
        content_encoding_parse(exchange_header(ex, "Content-Encoding"));
    size_t limit = ex->server->config.max_body_bytes;
    buffer plain = {.max_bytes = limit};
    nsa_status status;
    nsa_error err;

    if (encoding == ENCODING_IDENTITY)
        return true;
    if (encoding == ENCODING_UNSUPPORTED) {
        answer_error(ex, 415, "unsupported_encoding",
                     "Content-Encoding: expected gzip, deflate or identity");
        return false;
    }
    status = inflate_body(&plain, ex->body, ex->body_bytes, encoding, &err);
    if (status == NSA_OK) {
        size_t size = plain.size;

        plain.max_bytes = limit + 1;
        buffer_append(&plain, "", 1); /* parsers may look at the byte after the body */
        if (plain.status == NSA_OK) {
            exchange_set_body(ex, plain.data, size);
            return true;
        }
        status = nsa_error_set(&err, plain.status, "out of memory for the body");
    }
    buffer_free(&plain);
    if (status == NSA_ELIMIT) {
        nsa_error_set(&err, status, "body: expected at most %zu bytes when decompressed, got more",
                      limit);
        answer_error(ex, 413, "body_too_large", err.message);
        metrics_reject(ex->metrics, METRICS_BODY_TOO_LARGE);
    } else {
        answer_failure(ex, status, &err);
    }
    return false;
}

/* Choose the codecs of both sides; answers and returns false when there is none. */
static bool choose_codecs(struct inference *inference)
{
    struct exchange *ex = inference->ex;
    const char *type = exchange_header(ex, "Content-Type");
    const char *accept = exchange_header(ex, "Accept");
    nsa_error err;

    inference->request_codec = codec_of_request(type, ex->body, ex->body_bytes);
    if (!inference->request_codec) {
        nsa_error_set(&err, NSA_EUNSUPPORTED, "Content-Type: expected %s, got %.128s",
                      codec_media_types, type ? type : "none, and a body that begins as neither");
        answer_error(ex, 415, "unsupported_media_type", err.message);
        return false;
    }
    inference->answer_codec = codec_of_answer(accept, inference->request_codec);
    if (!inference->answer_codec) {
        nsa_error_set(&err, NSA_EUNSUPPORTED, "Accept: expected %s, got %.128s", codec_media_types,
                      accept);
        answer_error(ex, 406, "not_acceptable", err.message);
        return false;
    }
    return true;
}

/* Lower the exchange's deadline to what X-Request-Timeout-Ms asks for. */
static nsa_status apply_timeout(struct exchange *ex, nsa_error *err)
{
    const char *header = exchange_header(ex, "X-Request-Timeout-Ms");
    uint64_t timeout_ms;
    char *end;

    if (!header)
        return NSA_OK;
    timeout_ms = strtoull(header, &end, 10);
    if (*header < '0' || *header > '9' || *end != '\0')
        return nsa_error_set(err, NSA_EINVAL,
                             "X-Request-Timeout-Ms: expected an integer of milliseconds, got %.64s",
                             header);
    if (timeout_ms < (ex->deadline_ns - ex->begin_ns) / NS_PER_MS)
        ex->deadline_ns = ex->begin_ns + timeout_ms * NS_PER_MS;
    return NSA_OK;
}

/* Read fields and tensor, find the model, and plan. */
static nsa_status read_request(struct inference *inference, nsa_error *err)
{
    struct exchange *ex = inference->ex;
    struct fields *fields = &inference->fields;
    struct registry *registry = atomic_load(&ex->server->registry);
    nsa_status status;

    fields_init(fields, nsa_op_at(ex->route->op));
    status = apply_timeout(ex, err);
    if (status == NSA_OK)
        status = exchange_each_query(ex, set_query_field, fields, err);
    if (status == NSA_OK)
        status = inference->request_codec->decode(inference, err);
    if (status == NSA_OK)
        status = registry_find(&inference->served, registry, fields->op,
                               *fields->model ? fields->model : NULL,
                               *fields->version ? fields->version : NULL, err);
    if (status == NSA_OK)
        status = fields_check_required(fields, err);
    if (status != NSA_OK)
        return status;
    memcpy(inference->request.params, fields->params, sizeof fields->params);
    return nsa_request_plan(&inference->request, inference->served->model, err);
}

/* --- encoding ------------------------------------------------------------------------------ */

/* Allocate the outputs, the first behind the head of a binary answer. */
static nsa_status make_outputs(struct inference *inference, nsa_error *err)
{
    nsa_request *request = &inference->request;
    const struct codec *codec = inference->answer_codec;
    char head[CODEC_HEAD_BYTES];
    nsa_status status;

    if (codec->head && request->output_count > 1)
        return nsa_error_set(err, NSA_EINVAL,
                             "return_values: expected false, or Accept: application/json, as %s "
                             "carries one tensor",
                             codec->media_type);
    if (codec->admit) {
        status = codec->admit(inference, err);
        if (status != NSA_OK)
            return status;
    }
    if (codec->head) {
        status =
            codec->head(inference->ex, head, &inference->head_bytes, &request->outputs[0], err);
        if (status != NSA_OK)
            return status;
    }
    for (size_t i = 0; i < request->output_count; i++) {
        size_t head_bytes = i == 0 ? inference->head_bytes : 0;
        size_t bytes;
        size_t total;

        status =
            nsa_shape_bytes(&bytes, &request->outputs[i].shape, request->outputs[i].dtype, err);
        if (status != NSA_OK)
            return status;
        if (!nsa_size_add(&total, bytes, head_bytes + 1) ||
            !nsa_size_round_up(&total, total, OUTPUT_ALIGN))
            return nsa_error_set(err, NSA_ELIMIT, "the answer is too large");
        inference->output_memory[i] = aligned_alloc(OUTPUT_ALIGN, total);
        if (!inference->output_memory[i])
            return nsa_error_set(err, NSA_ENOMEM, "out of memory for %zu bytes of output", total);
        request->outputs[i].data = inference->output_memory[i] + head_bytes;
    }
    if (inference->head_bytes > 0)
        memcpy(inference->output_memory[0], head, inference->head_bytes);
    return NSA_OK;
}

static void answer_outputs(struct inference *inference)
{
    struct exchange *ex = inference->ex;
    const struct codec *codec = inference->answer_codec;
    size_t bytes = 0;

    if (codec->encode) {
        buffer text = {.max_bytes = MAX_ANSWER_BYTES};

        codec->encode(inference, &text);
        answer_buffer(ex, 200, codec->media_type, &text);
        return;
    }
    /* Cannot fail: make_outputs() had the same size. */
    nsa_shape_bytes(&bytes, &inference->request.outputs[0].shape,
                    inference->request.outputs[0].dtype, NULL);
    answer_bytes(ex, 200, codec->media_type, inference->output_memory[0],
                 inference->head_bytes + bytes);
    inference->output_memory[0] = NULL;
}

static double to_ms(uint64_t ns)
{
    return (double)ns / NS_PER_MS;
}

static void count_answer(struct inference *inference)
{
    struct exchange *ex = inference->ex;

    metrics_count_success(ex->metrics, inference->served->series, inference->stage_ns,
                          nsa_now_ns() - ex->begin_ns, inference->request.rows);
    inference->counted = true;
}

static void refuse(struct inference *inference, nsa_status status, const char *stage)
{
    struct exchange *ex = inference->ex;
    nsa_error err;

    if (status == NSA_ETIMEDOUT) {
        nsa_error_set(&err, status, "the deadline of %.0f ms passed in the stage %s",
                      to_ms(ex->deadline_ns - ex->begin_ns), stage);
        metrics_reject(ex->metrics, METRICS_DEADLINE);
    } else if (status == NSA_ECANCELED) {
        nsa_error_set(&err, status, "the client closed the connection");
    } else {
        nsa_error_set(&err, status, "%s in the stage %s", nsa_status_string(status), stage);
    }
    answer_failure(ex, status, &err);
}

/* Encode and answer what was computed, in time or not. */
static void finish(struct inference *inference)
{
    struct exchange *ex = inference->ex;
    const uint64_t *stage_ns = inference->stage_ns;

    inference->mark_ns = nsa_now_ns();
    answer_outputs(inference);
    answer_header(ex, "Vary", "Accept, Accept-Encoding");
    answer_compress(ex);
    end_stage(inference, METRICS_ENCODE);
    if (ex->answer.status != 200)
        return;
    if (nsa_now_ns() > ex->deadline_ns) {
        refuse(inference, NSA_ETIMEDOUT, "encode");
        return;
    }
    answer_header(ex, "Server-Timing",
                  "parse;dur=%.3f, queue;dur=%.3f, compute;dur=%.3f, encode;dur=%.3f",
                  to_ms(stage_ns[METRICS_PARSE]), to_ms(stage_ns[METRICS_QUEUE]),
                  to_ms(stage_ns[METRICS_COMPUTE]), to_ms(stage_ns[METRICS_ENCODE]));
    answer_header(ex, "X-Batch-Rows", "%zu", inference->job.batch_rows);
    count_answer(inference);
}

/* --- computing ----------------------------------------------------------------------------- */

static void compute_here(struct inference *inference)
{
    const nsa_span all = {&inference->request, 0, inference->request.rows};

    if (all.row_count > 0)
        nsa_run(inference->served->model, &all, 1, NULL);
    inference->job.batch_rows = all.row_count;
    end_stage(inference, METRICS_COMPUTE);
    if (all.row_count > 0)
        metrics_count_batch(inference->ex->metrics, inference->served->series, all.row_count);
    finish(inference);
}

static bool job_abandoned(nsa_job *job)
{
    const struct inference *inference = job->context;

    return exchange_abandoned(inference->ex);
}

static void job_done(nsa_job *job, nsa_status status)
{
    const struct inference *inference = job->context;

    if (status == NSA_ECANCELED) /* counted here: the library may close without resuming */
        metrics_reject(inference->ex->metrics, METRICS_CLIENT_GONE);
    exchange_resume(inference->ex);
}

/* On the HTTP thread again, after the pool is done with the job. */
static void job_resumed(struct exchange *ex)
{
    struct inference *inference = ex->state;
    nsa_job *job = &inference->job;

    inference->stage_ns[METRICS_QUEUE] = job->queue_ns;
    inference->stage_ns[METRICS_COMPUTE] = job->compute_ns;
    if (job->status != NSA_OK)
        refuse(inference, job->status, job->compute_ns ? "compute" : "queue");
    else
        finish(inference);
}

static void compute_in_pool(struct inference *inference)
{
    struct exchange *ex = inference->ex;
    nsa_job *job = &inference->job;
    uint64_t retry_after_ns = 0;
    nsa_error err;
    nsa_status status;

    *job = (nsa_job){
        .request = &inference->request,
        .deadline_ns = ex->deadline_ns,
        .abandoned = job_abandoned,
        .done = job_done,
        .context = inference,
    };
    if (!exchange_suspend(ex)) {
        answer_error(ex, 503, "not_ready", "the server is stopping");
        metrics_reject(ex->metrics, METRICS_NOT_READY);
        return;
    }
    ex->resumed = job_resumed;
    status = nsa_lane_submit(inference->served->lane, job, &retry_after_ns, &err);
    if (status == NSA_OK)
        return;
    metrics_reject(ex->metrics, status == NSA_EFULL ? METRICS_QUEUE_FULL : METRICS_DEADLINE);
    answer_failure(ex, status, &err);
    if (status == NSA_EFULL)
        answer_header(ex, "Retry-After", "%" PRIu64, retry_after_ns / NS_PER_S + 1);
    ex->resumed = NULL;
    exchange_resume(ex);
}

void infer_submit(struct exchange *ex)
{
    struct inference *inference;
    nsa_status status;
    nsa_error err;

    if (!atomic_load(&ex->server->registry)) {
        answer_error(ex, 503, "not_ready", "the models are still loading");
        metrics_reject(ex->metrics, METRICS_NOT_READY);
        return;
    }
    inference = calloc(1, sizeof *inference);
    if (!inference) {
        nsa_error_set(&err, NSA_ENOMEM, "out of memory for a request");
        answer_failure(ex, NSA_ENOMEM, &err);
        return;
    }
    inference->ex = ex;
    inference->mark_ns = nsa_now_ns();
    ex->state = inference;
    ex->free_state = end_inference;
    if (!decode_content(ex) || !choose_codecs(inference))
        return;
    status = read_request(inference, &err);
    if (status == NSA_OK)
        status = make_outputs(inference, &err);
    end_stage(inference, METRICS_PARSE);
    if (status == NSA_EUNSUPPORTED && inference->request.output_count > 0)
        answer_error(ex, 406, "not_acceptable", err.message); /* planned: it is the answer's */
    else if (status != NSA_OK)
        answer_failure(ex, status, &err);
    else if (inference->mark_ns > ex->deadline_ns)
        refuse(inference, NSA_ETIMEDOUT, "parse");
    else if (inference->request.rows == 0 ||
             nsa_request_is_cheap(&inference->request, inference->served->model))
        compute_here(inference);
    else
        compute_in_pool(inference);
}
