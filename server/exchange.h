/*
 * One HTTP request and its answer, as handlers see them.
 *
 * A handler runs on an HTTP thread once the whole body is there. It either fills the answer, or
 * sets `resumed`, calls exchange_suspend() and lets another thread call exchange_resume(): then
 * `resumed` runs on the HTTP thread and fills the answer.
 */
#ifndef SERVER_EXCHANGE_H
#define SERVER_EXCHANGE_H

#include "server/buffer.h"
#include "server/metrics.h"

#include <nsa/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXCHANGE_MAX_ID_BYTES 128 /* of a request's id, from the client or made here */
#define EXCHANGE_MAX_HEADERS 12
#define EXCHANGE_HEADER_TEXT_BYTES 1024 /* of all values that are no constants, NULs included */
#define EXCHANGE_BODY_ALIGN 64
#define EXCHANGE_MAX_PARAMS 2
#define EXCHANGE_JSON "application/json"
#define EXCHANGE_MAX_PAGE_BYTES ((size_t)64 * 1024 * 1024)
#define EXCHANGE_PARAM_BYTES 256 /* its NUL included */

/* What can be wrong with a request. answer.c has the code and the statuses of each. */
enum fault {
    FAULT_INVALID_ARGUMENT,
    FAULT_MALFORMED_BODY,
    FAULT_UNSUPPORTED_TYPE,
    FAULT_UNSUPPORTED_MEDIA_TYPE,
    FAULT_UNSUPPORTED_ENCODING,
    FAULT_NOT_ACCEPTABLE,
    FAULT_LIMIT_EXCEEDED,
    FAULT_BODY_TOO_LARGE,
    FAULT_UNKNOWN_ROUTE,
    FAULT_METHOD_NOT_ALLOWED,
    FAULT_UNKNOWN_MODEL,
    FAULT_NOT_SUPPORTED,
    FAULT_NOT_READY,
    FAULT_OUT_OF_MEMORY,
    FAULT_QUEUE_FULL,
    FAULT_DEADLINE_EXCEEDED,
    FAULT_CLIENT_GONE,
    FAULT_INTERNAL
};

struct MHD_Connection;
struct connection;
struct route;
struct server;

struct answer_header {
    const char *name;
    const char *value; /* a constant, or in the answer's `text` */
};

struct answer {
    unsigned status; /* 0: none yet */
    const char *content_type;
    char *bytes; /* owned; freed by `release` */
    void (*release)(void *bytes);
    size_t size;
    struct answer_header headers[EXCHANGE_MAX_HEADERS];
    size_t header_count;
    char text[EXCHANGE_HEADER_TEXT_BYTES];
    size_t text_bytes;
};

struct exchange {
    struct server *server;
    struct metrics *metrics;
    const struct route *route; /* never NULL once a handler runs */
    const char *method;
    const char *path; /* decoded, without query; the HTTP library's, until the exchange is over */
    bool oip;         /* under /v2: errors are told as the Open Inference Protocol has them */
    char params[EXCHANGE_MAX_PARAMS]
               [EXCHANGE_PARAM_BYTES]; /* the route's, in order; "" if absent */
    char request_id[EXCHANGE_MAX_ID_BYTES + 1];
    uint64_t begin_ns;    /* of the request's first line */
    uint64_t deadline_ns; /* past which nobody waits for the answer */

    /*
     * (body_bytes), content-decoded, with a NUL after it; aligned to EXCHANGE_BODY_ALIGN unless it
     * was decompressed.
     */
    char *body; /* freed by `release_body` */
    void (*release_body)(void *body);
    size_t body_bytes;

    struct answer answer;

    void (*resumed)(struct exchange *ex);
    void *state; /* the handler's */
    void (*free_state)(void *state);

    /* The rest is http.c's. */
    struct connection *client;
    struct MHD_Connection *connection;
    size_t body_capacity;
    size_t discarded_bytes;
    size_t received_bytes; /* of the body, as it came */
    bool suspended;        /* now or before */
    enum exchange_phase {
        EXCHANGE_BEGUN,
        EXCHANGE_READING,
        EXCHANGE_SUSPENDED,
        EXCHANGE_ANSWERED
    } phase;
};

/* The request header `name` (any case), or NULL. */
const char *exchange_header(const struct exchange *ex, const char *name);

/* Call `each` for every query parameter, decoded (value "" if there is none), until it fails. */
nsa_status exchange_each_query(const struct exchange *ex,
                               nsa_status (*each)(void *context, const char *key, const char *value,
                                                  nsa_error *err),
                               void *context, nsa_error *err);

/* Whether the client has closed its side of the connection. For a suspended exchange; any thread.
 */
bool exchange_abandoned(const struct exchange *ex);

/*
 * Suspend before handing the exchange to another thread; that thread resumes it, once. False, with
 * nothing suspended, when the server is about to end.
 */
bool exchange_suspend(struct exchange *ex);
void exchange_resume(struct exchange *ex);

/* Replace the body by `bytes`, which the exchange takes over (malloc'ed); NULL and 0 free it. */
void exchange_set_body(struct exchange *ex, char *bytes, size_t size);

/* Log a request that is over: every one with --access-log, else failures of the server. */
void exchange_log(const struct exchange *ex);

/* --- answer.c ------------------------------------------------------------------------------ */

/*
 * Add an answer header; one past EXCHANGE_MAX_HEADERS asserts, as does a value for which
 * EXCHANGE_HEADER_TEXT_BYTES leave no room. `name` is a constant, as is `value` but of the second.
 */
void answer_header(struct exchange *ex, const char *name, const char *value);
void answer_header_copy(struct exchange *ex, const char *name, const char *value);
void answer_header_number(struct exchange *ex, const char *name, uint64_t value);

/* Answer with `bytes`, which the exchange takes over and frees by `release`. */
void answer_bytes(struct exchange *ex, unsigned status, const char *content_type, char *bytes,
                  size_t size, void (*release)(void *bytes));

/* Answer with the contents of `body`, which is emptied; its failure becomes a 503. */
void answer_buffer(struct exchange *ex, unsigned status, const char *content_type, buffer *body);

/* Answer with {"error", "code", "request_id"}, under /v2 with {"error"}, and the fault's status. */
void answer_error(struct exchange *ex, enum fault fault, const char *message);

/* Answer a failure of the library or a parser as the fault that it is. */
void answer_failure(struct exchange *ex, nsa_status status, const nsa_error *err);

/* Compress the answer if the client accepts that and it pays. */
void answer_compress(struct exchange *ex);

#endif
