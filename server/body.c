#include "server/body.h"

#include "server/compression.h"
#include "server/memory.h"
#include "server/router.h"
#include "server/server.h"

#include <nsa/size.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS 1000000u

_Static_assert(MEMORY_ALIGN % EXCHANGE_BODY_ALIGN == 0, "a body is aligned as its memory");

/* First allocation of a body whose length the client does not say. */
#define FIRST_BODY_BYTES ((size_t)16 * 1024)

static void refuse_large(struct exchange *ex)
{
    char message[NSA_ERROR_MESSAGE_BYTES];

    snprintf(message, sizeof message, "body: expected at most %zu bytes, got more",
             ex->server->config.max_body_bytes);
    answer_error(ex, FAULT_BODY_TOO_LARGE, message);
    metrics_reject(ex->metrics, METRICS_BODY_TOO_LARGE);
}

/* Make room for `size` bytes of body and a NUL; what is there is kept. */
static bool reserve_body(struct exchange *ex, size_t size)
{
    size_t bytes;
    char *body;

    if (ex->body && size <= ex->body_capacity)
        return true;
    if (!nsa_size_round_up(&bytes, size + 1, EXCHANGE_BODY_ALIGN))
        return false;
    body = memory_take(ex->server->memory, bytes);
    if (!body)
        return false;
    if (ex->body) {
        memcpy(body, ex->body, ex->body_bytes);
        ex->release_body(ex->body);
    }
    ex->body = body;
    ex->release_body = memory_give;
    ex->body_capacity = bytes - 1;
    return true;
}

bool body_begin(struct exchange *ex)
{
    const char *length = exchange_header(ex, "Content-Length");
    uint64_t size = length ? strtoull(length, NULL, 10) : 0;

    if (size > ex->server->config.max_body_bytes) {
        refuse_large(ex);
        answer_header(ex, "Connection", "close");
        return false;
    }
    if (size > 0 && ex->route->reads_body && !reserve_body(ex, (size_t)size)) {
        answer_error(ex, FAULT_OUT_OF_MEMORY, "out of memory for the body");
        answer_header(ex, "Connection", "close");
        return false;
    }
    return true;
}

bool body_read(struct exchange *ex, const char *data, size_t size)
{
    size_t limit = ex->server->config.max_body_bytes;
    size_t total = ex->body_bytes + ex->discarded_bytes + size;

    if (ex->discarded_bytes == 0 && ex->route->reads_body && total <= limit) {
        size_t doubled = ex->body_capacity < FIRST_BODY_BYTES ? FIRST_BODY_BYTES
                         : ex->body_capacity > limit / 2      ? limit
                                                              : ex->body_capacity * 2;

        if (total > ex->body_capacity && !reserve_body(ex, doubled > total ? doubled : total)) {
            answer_error(ex, FAULT_OUT_OF_MEMORY, "out of memory for the body");
        } else {
            memcpy(ex->body + ex->body_bytes, data, size);
            ex->body_bytes = total;
            ex->body[total] = '\0';
            return true;
        }
    } else if (ex->answer.status == 0 && total > limit) {
        refuse_large(ex);
    }
    ex->discarded_bytes += size;
    return total <= 2 * limit;
}

bool body_decode(struct exchange *ex)
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
        answer_error(ex, FAULT_UNSUPPORTED_ENCODING,
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
        answer_error(ex, FAULT_BODY_TOO_LARGE, err.message);
        metrics_reject(ex->metrics, METRICS_BODY_TOO_LARGE);
    } else {
        answer_failure(ex, status, &err);
    }
    return false;
}

/* --- the deadline -------------------------------------------------------------------------- */

nsa_status exchange_apply_timeout(struct exchange *ex, nsa_error *err)
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
