#include "server/exchange.h"

#include "server/compression.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Below this size a stream's header and the work outweigh what is saved. */
#define COMPRESS_MIN_BYTES 1024

#define ERROR_BODY_MAX_BYTES ((size_t)8192)

/* What each failure means over HTTP. */
static const struct {
    unsigned status;
    const char *code;
} failures[] = {
    [NSA_EINVAL] = {400, "invalid_argument"},
    [NSA_EFORMAT] = {400, "malformed_body"},
    [NSA_EUNSUPPORTED] = {415, "unsupported_type"},
    [NSA_ELIMIT] = {400, "limit_exceeded"},
    [NSA_ENOMEM] = {503, "out_of_memory"},
    [NSA_EIO] = {500, "internal"},
    [NSA_ENOTFOUND] = {404, "unknown_model"},
    [NSA_ESELFCHECK] = {500, "internal"},
    [NSA_EFULL] = {429, "queue_full"},
    [NSA_ETIMEDOUT] = {504, "deadline_exceeded"},
    [NSA_ECANCELED] = {499, "client_gone"},
};

void answer_header(struct exchange *ex, const char *name, const char *format, ...)
{
    struct answer_header *header;
    va_list args;

    assert(ex->answer.header_count < EXCHANGE_MAX_HEADERS);
    header = &ex->answer.headers[ex->answer.header_count++];
    header->name = name;
    va_start(args, format);
    vsnprintf(header->value, sizeof header->value, format, args);
    va_end(args);
}

void answer_bytes(struct exchange *ex, unsigned status, const char *content_type, char *bytes,
                  size_t size)
{
    free(ex->answer.bytes);
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
    answer_bytes(ex, status, content_type, body->data, body->size);
    *body = (buffer){.max_bytes = body->max_bytes};
}

void answer_error(struct exchange *ex, unsigned status, const char *code, const char *message)
{
    buffer body = {.max_bytes = ERROR_BODY_MAX_BYTES};

    buffer_append_text(&body, "{\"error\": ");
    buffer_append_json_string(&body, message);
    buffer_printf(&body, ", \"code\": \"%s\", \"request_id\": ", code);
    buffer_append_json_string(&body, ex->request_id);
    buffer_append_text(&body, "}\n");
    if (body.status != NSA_OK)
        buffer_free(&body);      /* the status alone must do */
    ex->answer.header_count = 0; /* those of an answer that came to nothing */
    answer_bytes(ex, status, "application/json", body.data, body.size);
}

void answer_failure(struct exchange *ex, nsa_status status, const nsa_error *err)
{
    answer_error(ex, failures[status].status, failures[status].code, err->message);
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
    answer_bytes(ex, ex->answer.status, ex->answer.content_type, packed.data, packed.size);
    answer_header(ex, "Content-Encoding", "%s", content_encoding_name(encoding));
}
