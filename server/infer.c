#include "server/infer.h"

#include "server/body.h"
#include "server/memory.h"
#include "server/registry.h"
#include "server/router.h"
#include "server/server.h"

#include <nsa/decimal.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS 1000000u
#define NS_PER_S 1000000000u
#define NS_PER_US 1000u
#define US_PER_MS 1000u

/*
 * What a request may keep its HTTP thread from other connections: some hand-overs' worth, for each
 * costs processors and the asker 20 to 40 us. So short, neither deadline nor departure is looked at
 * before the answer.
 */
#define MOST_NS_HERE UINT64_C(100000)

static void free_inference(void *state)
{
    struct inference *inference = state;

    registry_release(inference->ex->server->registry, inference->catalog);
    free(inference->id);
    memory_give(inference->input_memory);
    outputs_free(inference);
    memory_give(inference);
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

/* Choose the codecs of both sides; answers and returns false when there is none. */
static bool choose_codecs(struct inference *inference)
{
    struct exchange *ex = inference->ex;
    const char *type = exchange_header(ex, "Content-Type");
    const char *accept = exchange_header(ex, "Accept");
    nsa_error err;

    if (ex->oip) {
        inference->request_codec = inference->answer_codec = &codec_oip;
        return true;
    }
    inference->request_codec = codec_of_request(type, ex->body, ex->body_bytes);
    if (!inference->request_codec) {
        nsa_error_set(&err, NSA_EUNSUPPORTED, "Content-Type: expected %s, got %.128s",
                      codec_media_types, type ? type : "none, and a body that begins as neither");
        answer_error(ex, FAULT_UNSUPPORTED_MEDIA_TYPE, err.message);
        return false;
    }
    inference->answer_codec = codec_of_answer(accept, inference->request_codec);
    if (!inference->answer_codec) {
        nsa_error_set(&err, NSA_EUNSUPPORTED, "Accept: expected %s, got %.128s", codec_media_types,
                      accept);
        answer_error(ex, FAULT_NOT_ACCEPTABLE, err.message);
        return false;
    }
    return true;
}

/* A request of the Open Inference Protocol names its model in the path; others name it anywhere. */
static nsa_status read_named(struct inference *inference, nsa_error *err)
{
    struct exchange *ex = inference->ex;
    const char *version = *ex->params[1] ? ex->params[1] : NULL;
    nsa_status status =
        catalog_find(&inference->served, inference->catalog, NULL, ex->params[0], version, err);

    if (status != NSA_OK)
        return status;
    fields_init(&inference->fields, nsa_model_describe(inference->served->model)->op);
    return inference->request_codec->decode(inference, err);
}

static nsa_status read_any(struct inference *inference, nsa_error *err)
{
    struct exchange *ex = inference->ex;
    struct fields *fields = &inference->fields;
    nsa_status status;

    fields_init(fields, nsa_op_at(ex->route->op));
    status = exchange_each_query(ex, set_query_field, fields, err);
    if (status == NSA_OK)
        status = inference->request_codec->decode(inference, err);
    if (status != NSA_OK)
        return status;
    return catalog_find(&inference->served, inference->catalog, fields->op,
                        *fields->model ? fields->model : NULL,
                        *fields->version ? fields->version : NULL, err);
}

/* Read fields and tensor, find the model, and plan. */
static nsa_status read_request(struct inference *inference, nsa_error *err)
{
    struct fields *fields = &inference->fields;
    nsa_status status = exchange_apply_timeout(inference->ex, err);

    if (status == NSA_OK)
        status = inference->ex->oip ? read_named(inference, err) : read_any(inference, err);
    if (status == NSA_OK)
        status = fields_complete(fields, inference->served->num_selected_blocks, err);
    if (status != NSA_OK)
        return status;
    memcpy(inference->request.params, fields->params, sizeof fields->params);
    return nsa_request_plan(&inference->request, inference->served->model, err);
}

/* --- answering ----------------------------------------------------------------------------- */

static double to_ms(uint64_t ns)
{
    return (double)ns / NS_PER_MS;
}

/* A request whose model is known counts among that model's, one way or the other. */
static void count_failure(const struct inference *inference)
{
    if (inference->served)
        metrics_count_failure(inference->served->series, nsa_now_ns() - inference->ex->begin_ns);
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
    count_failure(inference);
}

/* Nanoseconds as milliseconds with three decimals. */
static char *write_ms(char *to, uint64_t ns)
{
    uint64_t us = (ns + NS_PER_US / 2) / NS_PER_US;
    unsigned rest = (unsigned)(us % US_PER_MS);

    to = nsa_decimal(to, us / US_PER_MS);
    *to++ = '.';
    *to++ = (char)('0' + rest / 100);
    *to++ = (char)('0' + rest / 10 % 10);
    *to++ = (char)('0' + rest % 10);
    return to;
}

static void answer_timing(struct exchange *ex, const uint64_t stage_ns[METRICS_STAGE_COUNT])
{
    static const char *const parts[METRICS_STAGE_COUNT] = {
        [METRICS_PARSE] = "parse;dur=",
        [METRICS_QUEUE] = ", queue;dur=",
        [METRICS_COMPUTE] = ", compute;dur=",
        [METRICS_ENCODE] = ", encode;dur=",
    };
    char text[METRICS_STAGE_COUNT * (16 + NSA_DECIMAL_BYTES + 4) + 1];
    char *to = text;

    for (size_t i = 0; i < METRICS_STAGE_COUNT; i++)
        to = write_ms(nsa_decimal_text(to, parts[i]), stage_ns[i]);
    *to = '\0';
    answer_header_copy(ex, "Server-Timing", text);
}

/* Encode and answer what was computed, in time or not. */
static void finish(struct inference *inference)
{
    struct exchange *ex = inference->ex;
    const uint64_t *stage_ns = inference->stage_ns;

    inference->mark_ns = nsa_now_ns();
    outputs_answer(inference);
    answer_header(ex, "Vary", ex->oip ? "Accept-Encoding" : "Accept, Accept-Encoding");
    answer_compress(ex);
    end_stage(inference, METRICS_ENCODE);
    if (ex->answer.status != 200) {
        count_failure(inference);
        return;
    }
    if (nsa_now_ns() > ex->deadline_ns) {
        refuse(inference, NSA_ETIMEDOUT, "encode");
        return;
    }
    answer_timing(ex, stage_ns);
    answer_header_number(ex, "X-Batch-Rows", inference->job.batch_rows);
    metrics_count_success(ex->metrics, inference->served->series, stage_ns,
                          nsa_now_ns() - ex->begin_ns, inference->request.rows);
}

/* --- computing ----------------------------------------------------------------------------- */

/*
 * Compute on this thread what costs it less than a hand-over: always if that is so by its size
 * alone, else if a worker is free and the measured speed says so. False: it is for the pool.
 */
static bool compute_here(struct inference *inference)
{
    const nsa_span all = {&inference->request, 0, inference->request.rows};
    const struct served_model *served = inference->served;

    if (all.row_count > 0 && nsa_request_is_cheap(&inference->request, served->model)) {
        nsa_run(served->model, &all, 1, NULL);
        metrics_count_batch(inference->ex->metrics, served->series, all.row_count);
    } else if (all.row_count > 0 &&
               !nsa_lane_run(served->lane, &inference->request, MOST_NS_HERE)) {
        return false;
    }
    inference->job.batch_rows = all.row_count;
    end_stage(inference, METRICS_COMPUTE);
    finish(inference);
    return true;
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
        answer_error(ex, FAULT_NOT_READY, "the server is stopping");
        metrics_reject(ex->metrics, METRICS_NOT_READY);
        count_failure(inference);
        return;
    }
    ex->resumed = job_resumed;
    status = nsa_lane_submit(inference->served->lane, job, &retry_after_ns, &err);
    if (status == NSA_OK)
        return;
    metrics_reject(ex->metrics, status == NSA_EFULL ? METRICS_QUEUE_FULL : METRICS_DEADLINE);
    answer_failure(ex, status, &err);
    if (status == NSA_EFULL)
        answer_header_number(ex, "Retry-After", retry_after_ns / NS_PER_S + 1);
    count_failure(inference);
    ex->resumed = NULL;
    exchange_resume(ex);
}

static void refuse_request(struct inference *inference, nsa_status status, const nsa_error *err)
{
    if (status == NSA_EUNSUPPORTED && inference->request.output_count > 0)
        answer_error(inference->ex, FAULT_NOT_ACCEPTABLE, err->message); /* the answer is */
    else
        answer_failure(inference->ex, status, err);
    count_failure(inference);
}

void infer_submit(struct exchange *ex)
{
    const struct catalog *catalog = registry_acquire(ex->server->registry);
    struct inference *inference;
    nsa_status status;
    nsa_error err;

    if (!catalog) {
        answer_error(ex, FAULT_NOT_READY, "the models are still loading");
        metrics_reject(ex->metrics, METRICS_NOT_READY);
        return;
    }
    inference = memory_take(ex->server->memory, sizeof *inference);
    if (!inference) {
        registry_release(ex->server->registry, catalog);
        nsa_error_set(&err, NSA_ENOMEM, "out of memory for a request");
        answer_failure(ex, NSA_ENOMEM, &err);
        return;
    }
    memset(inference, 0, sizeof *inference);
    inference->ex = ex;
    inference->catalog = catalog;
    inference->mark_ns = nsa_now_ns();
    ex->state = inference;
    ex->free_state = free_inference;
    if (!body_decode(ex) || !choose_codecs(inference))
        return;
    status = read_request(inference, &err);
    if (status == NSA_OK)
        status = outputs_make(inference, &err);
    end_stage(inference, METRICS_PARSE);
    if (status != NSA_OK)
        refuse_request(inference, status, &err);
    else if (inference->mark_ns > ex->deadline_ns)
        refuse(inference, NSA_ETIMEDOUT, "parse");
    else if (!compute_here(inference))
        compute_in_pool(inference);
}
