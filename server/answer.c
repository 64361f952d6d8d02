#include "server/exchange.h"

#include "server/compression.h"

#include <assert.h>
#include <nsa/decimal.h>
#include <stdlib.h>
#include <string.h>

/* Below this size a stream's header and the work outweigh what is saved. */
#define COMPRESS_MIN_BYTES 1024

#define ERROR_BODY_MAX_BYTES ((size_t)8192)

/* The statuses of /v2 are those that the clients of the Open Inference Protocol expect. */
static const struct {
    const char *code;
    unsigned status;
    unsigned oip_status;
} faults[] = {
    [FAULT_INVALID_ARGUMENT] = {"invalid_argument", 400, 400},
    [FAULT_MALFORMED_BODY] = {"malformed_body", 400, 400},
    [FAULT_UNSUPPORTED_TYPE] = {"unsupported_type", 415, 400},
    [FAULT_UNSUPPORTED_MEDIA_TYPE] = {"unsupported_media_type", 415, 400},
    [FAULT_UNSUPPORTED_ENCODING] = {"unsupported_encoding", 415, 400},
    [FAULT_NOT_ACCEPTABLE] = {"not_acceptable", 406, 400},
    [FAULT_LIMIT_EXCEEDED] = {"limit_exceeded", 400, 400},
    [FAULT_BODY_TOO_LARGE] = {"body_too_large", 413, 413},
    [FAULT_UNKNOWN_ROUTE] = {"unknown_route", 404, 404},
    [FAULT_METHOD_NOT_ALLOWED] = {"method_not_allowed", 405, 405},
    [FAULT_UNKNOWN_MODEL] = {"unknown_model", 404, 404},
    [FAULT_NOT_SUPPORTED] = {"not_supported", 501, 501},
    [FAULT_NOT_READY] = {"not_ready", 503, 503},
    [FAULT_OUT_OF_MEMORY] = {"out_of_memory", 503, 503},
    [FAULT_QUEUE_FULL] = {"queue_full", 429, 503},
    [FAULT_DEADLINE_EXCEEDED] = {"deadline_exceeded", 504, 504},
    [FAULT_CLIENT_GONE] = {"client_gone", 499, 499},
    [FAULT_INTERNAL] = {"internal", 500, 500},
};

static const enum fault fault_of_status[] = {
    [NSA_EINVAL] = FAULT_INVALID_ARGUMENT,
    [NSA_EFORMAT] = FAULT_MALFORMED_BODY,
    [NSA_EUNSUPPORTED] = FAULT_UNSUPPORTED_TYPE,
    [NSA_ELIMIT] = FAULT_LIMIT_EXCEEDED,
    [NSA_ENOMEM] = FAULT_OUT_OF_MEMORY,
    [NSA_EIO] = FAULT_INTERNAL,
    [NSA_ENOTFOUND] = FAULT_UNKNOWN_MODEL,
    [NSA_ESELFCHECK] = FAULT_INTERNAL,
    [NSA_EFULL] = FAULT_QUEUE_FULL,
    [NSA_ETIMEDOUT] = FAULT_DEADLINE_EXCEEDED,
    [NSA_ECANCELED] = FAULT_CLIENT_GONE,
};

void answer_header(struct exchange *ex, const char *name, const char *value)
{
    assert(ex->answer.header_count < EXCHANGE_MAX_HEADERS);
    ex->answer.headers[ex->answer.header_count++] = (struct answer_header){name, value};
}

void answer_header_copy(struct exchange *ex, const char *name, const char *value)
{
    struct answer *answer = &ex->answer;
    size_t size = strlen(value) + 1;

    assert(size <= sizeof answer->text - answer->text_bytes);
    memcpy(answer->text + answer->text_bytes, value, size);
    answer_header(ex, name, answer->text + answer->text_bytes);
    answer->text_bytes += size;
}

void answer_header_number(struct exchange *ex, const char *name, uint64_t value)
{
    char text[NSA_DECIMAL_BYTES + 1];

    *nsa_decimal(text, value) = '\0';
    answer_header_copy(ex, name, text);
}

void answer_bytes(struct exchange *ex, unsigned status, const char *content_type, char *bytes,
                  size_t size, void (*release)(void *bytes))
{
    if (ex->answer.bytes)
        ex->answer.release(ex->answer.bytes);
    ex->answer.release = release;
    ex->answer.status = status;
    ex->answer.content_type = content_type;
    ex->answer.bytes = bytes;
    ex->answer.size = size;
}

void answer_buffer(struct exchange *ex, unsigned status, const char *content_type, buffer *body)
{
    if (body->status != NSA_OK) {
        nsa_error err;
        nsa_status failure =
            body->status == NSA_ELIMIT
                ? nsa_error_set(&err, NSA_ELIMIT,
                                "the answer: expected at most %zu bytes, got more", body->max_bytes)
                : nsa_error_set(&err, NSA_ENOMEM, "out of memory for the answer");

        buffer_free(body);
        answer_failure(ex, failure, &err);
        return;
    }
    assert(!body->borrowed);
    answer_bytes(ex, status, content_type, body->data, body->size, free);
    *body = (buffer){.max_bytes = body->max_bytes};
}

void answer_error(struct exchange *ex, enum fault fault, const char *message)
{
    buffer body = {.max_bytes = ERROR_BODY_MAX_BYTES};

    buffer_append_text(&body, "{\"error\": ");
    buffer_append_json_string(&body, message);
    if (!ex->oip) {
        buffer_printf(&body, ", \"code\": \"%s\", \"request_id\": ", faults[fault].code);
        buffer_append_json_string(&body, ex->request_id);
    }
    buffer_append_text(&body, "}\n");
    if (body.status != NSA_OK)
        buffer_free(&body);      /* the status alone must do */
    ex->answer.header_count = 0; /* those of an answer that came to nothing */
    ex->answer.text_bytes = 0;
    answer_bytes(ex, ex->oip ? faults[fault].oip_status : faults[fault].status, "application/json",
                 body.data, body.size, free);
}

void answer_failure(struct exchange *ex, nsa_status status, const nsa_error *err)
{
    answer_error(ex, fault_of_status[status], err->message);
}

void answer_compress(struct exchange *ex)
{
    buffer packed = {.max_bytes = ex->answer.size};
    enum content_encoding encoding;

    if (ex->answer.size < COMPRESS_MIN_BYTES)
        return;
    encoding = accept_encoding_choose(exchange_header(ex, "Accept-Encoding"));
    if (encoding == ENCODING_IDENTITY)
        return;
    if (deflate_body(&packed, ex->answer.bytes, ex->answer.size, encoding) != NSA_OK) {
        buffer_free(&packed); /* larger than the original, or no memory: send it as it is */
        return;
    }
    answer_bytes(ex, ex->answer.status, ex->answer.content_type, packed.data, packed.size, free);
    answer_header(ex, "Content-Encoding", content_encoding_name(encoding));
}
