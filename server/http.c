#include "server/http.h"

#include "server/acceptor.h"
#include "server/body.h"
#include "server/connections.h"
#include "server/exchange.h"
#include "server/listener.h"
#include "server/log.h"
#include "server/memory.h"
#include "server/processors.h"
#include "server/router.h"
#include "server/server.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <microhttpd.h>
#include <nsa/batcher.h>
#include <nsa/decimal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define NS_PER_MS 1000000u

/*
 * A connection's headers and the reading of its body go through this much memory, all of which the
 * library clears after each request: too little costs large bodies more calls, too much costs small
 * ones the clearing. A bare server's processor time a request, in us, by KiB of body and answer:
 *
 *                   16 KiB   32   64   96  128  256  512
 *     1 and 0.25         8    8   10   10   12   16   23
 *    32 and 8           19   15   15   13   14   19   26
 *   128 and 32          61   48   42   38   30   35   42
 *   128 and 128         83   72   67   53   43   46   59
 *   256 and 64         151  105   79   73   68   57   73
 *
 * Here 16 rows of select (2 and 1) take 20 us with 64 KiB, 23 with 96 and 25 with 128; 32 rows of
 * compress (32 and 8) the same with all; posembed (128 and 128) 78, 73 and 68. Small ones are many.
 */
#define CONNECTION_MEMORY_BYTES ((size_t)64 * 1024)

/* How a request is counted whose client left before there was an answer, as nginx does. */
#define CLIENT_GONE_STATUS 499

/* 16 hexadecimal digits, "-" and a NUL. */
#define ID_PREFIX_BYTES 18

/* What a client gets whose request takes too long to arrive; the second one under /v2. */
#define SLOW_ANSWER(size, body)                                                                    \
    "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n"      \
    "Content-Length: " size "\r\n\r\n" body

static const char *const slow_answers[2] = {
    SLOW_ANSWER("73", "{\"error\": \"the request took too long to arrive\", "
                      "\"code\": \"slow_request\"}\n"),
    SLOW_ANSWER("49", "{\"error\": \"the request took too long to arrive\"}\n"),
};

struct http {
    struct server *server;
    struct MHD_Daemon *daemon;
    int listen_fd;
    struct acceptor *acceptor;
    bool quiesced;
    char address[LISTENER_ADDRESS_BYTES];
    struct connections connections;
    char id_prefix[ID_PREFIX_BYTES]; /* made-up request ids count up behind it */
    atomic_uint_fast64_t id_count;
};

/* --- what exchanges offer to handlers ------------------------------------------------------ */

const char *exchange_header(const struct exchange *ex, const char *name)
{
    return MHD_lookup_connection_value(ex->connection, MHD_HEADER_KIND, name);
}

struct query {
    nsa_status (*each)(void *context, const char *key, const char *value, nsa_error *err);
    void *context;
    nsa_error *err;
    nsa_status status;
};

static enum MHD_Result visit_query(void *context, enum MHD_ValueKind kind, const char *key,
                                   const char *value)
{
    struct query *query = context;

    (void)kind;
    query->status = query->each(query->context, key, value ? value : "", query->err);
    return query->status == NSA_OK ? MHD_YES : MHD_NO;
}

nsa_status exchange_each_query(const struct exchange *ex,
                               nsa_status (*each)(void *context, const char *key, const char *value,
                                                  nsa_error *err),
                               void *context, nsa_error *err)
{
    struct query query = {each, context, err, NSA_OK};

    MHD_get_connection_values(ex->connection, MHD_GET_ARGUMENT_KIND, visit_query, &query);
    return query.status;
}

bool exchange_abandoned(const struct exchange *ex)
{
    char byte;

    return recv(ex->client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

bool exchange_suspend(struct exchange *ex)
{
    struct server *server = ex->server;

    atomic_fetch_add(&server->suspended, 1);
    if (atomic_load(&server->closed)) {
        atomic_fetch_sub(&server->suspended, 1);
        return false;
    }
    ex->suspended = true;
    ex->phase = EXCHANGE_SUSPENDED;
    MHD_suspend_connection(ex->connection);
    return true;
}

void exchange_resume(struct exchange *ex)
{
    MHD_resume_connection(ex->connection);
}

void exchange_set_body(struct exchange *ex, char *bytes, size_t size)
{
    if (ex->body)
        ex->release_body(ex->body);
    ex->body = bytes;
    ex->release_body = free;
    ex->body_bytes = ex->body_capacity = size;
}

/* --- answering ----------------------------------------------------------------------------- */

static enum MHD_Result send_answer(struct exchange *ex)
{
    struct answer *answer = &ex->answer;
    struct MHD_Response *response;
    enum MHD_Result result;

    if (!connection_enter(ex->client, CONNECTION_ANSWERING))
        return MHD_NO;
    response = MHD_create_response_from_buffer_with_free_callback(
        answer->size, answer->bytes ? answer->bytes : (void *)"",
        answer->bytes ? answer->release : NULL);
    if (!response)
        return MHD_NO;
    answer->bytes = NULL; /* the response's from here on */
    if (answer->content_type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->content_type);
    MHD_add_response_header(response, "X-Request-Id", ex->request_id);
    for (size_t i = 0; i < answer->header_count; i++)
        MHD_add_response_header(response, answer->headers[i].name, answer->headers[i].value);
    if (atomic_load(&ex->server->draining))
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    ex->phase = EXCHANGE_ANSWERED;
    result = MHD_queue_response(ex->connection, answer->status, response);
    MHD_destroy_response(response);
    return result;
}

/* --- reading ------------------------------------------------------------------------------- */

static bool id_is_plain(const char *id)
{
    size_t length = strlen(id);

    for (size_t i = 0; i < length; i++) {
        if (id[i] < '!' || id[i] > '~')
            return false;
    }
    return length > 0 && length <= EXCHANGE_MAX_ID_BYTES;
}

static void set_request_id(struct exchange *ex, struct http *http)
{
    const char *given = exchange_header(ex, "X-Request-Id");
    char *to = ex->request_id;

    if (given && id_is_plain(given))
        to = nsa_decimal_text(to, given);
    else
        to = nsa_decimal(nsa_decimal_text(to, http->id_prefix),
                         atomic_fetch_add_explicit(&http->id_count, 1, memory_order_relaxed));
    *to = '\0';
}

static struct connection *client_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

static struct exchange *begin_exchange(struct http *http, struct MHD_Connection *connection,
                                       const char *path, const char *method)
{
    struct connection *client = client_of(connection);
    struct exchange *ex = client ? memory_take(http->server->memory, sizeof *ex) : NULL;

    if (!ex)
        return NULL;
    memset(ex, 0, sizeof *ex);
    ex->path = path;
    ex->server = http->server;
    ex->metrics = http->server->metrics;
    ex->connection = connection;
    ex->client = client;
    ex->method = method;
    router_find(ex, (enum router_address)client->address);
    ex->begin_ns = atomic_load(&client->since_ns);
    ex->deadline_ns = ex->begin_ns + http->server->config.request_timeout_ms * NS_PER_MS;
    set_request_id(ex, http);
    metrics_begin_request(ex->metrics);
    return ex;
}

/* The whole request is there, or the exchange was resumed. */
static enum MHD_Result answer_request(struct exchange *ex)
{
    if (ex->phase == EXCHANGE_READING) {
        if (!connection_enter(ex->client, CONNECTION_ANSWERING))
            return MHD_NO;
        ex->received_bytes = ex->body_bytes + ex->discarded_bytes;
        metrics_add_bytes(ex->metrics, ex->received_bytes, 0);
        if (ex->answer.status == 0)
            router_dispatch(ex);
        if (ex->phase == EXCHANGE_SUSPENDED)
            return MHD_YES;
    } else if (ex->answer.status == 0) {
        ex->resumed(ex);
    }
    return send_answer(ex);
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *http_version, const char *data,
                              size_t *data_bytes, void **state)
{
    struct exchange *ex = *state;

    (void)http_version;
    if (!ex) {
        ex = begin_exchange(context, connection, path, method);
        *state = ex;
        if (!ex)
            return MHD_NO;
        ex->phase = EXCHANGE_READING;
        return body_begin(ex) ? MHD_YES : send_answer(ex);
    }
    if (*data_bytes > 0) {
        bool more = body_read(ex, data, *data_bytes);

        *data_bytes = 0;
        return more ? MHD_YES : MHD_NO;
    }
    return answer_request(ex);
}

/* --- life of connections and requests ------------------------------------------------------ */

/* Whether the path, not the query, has "%2F". */
static bool has_encoded_slash(const char *uri)
{
    const char *found = strcasestr(uri, "%2f");

    return found && found < uri + strcspn(uri, "?");
}

static void *request_line_arrived(void *context, const char *uri, struct MHD_Connection *connection)
{
    struct connection *client = client_of(connection);

    (void)context;
    if (!client)
        return NULL;
    client->address = strstr(uri, "%00")       ? ROUTER_UNREADABLE
                      : has_encoded_slash(uri) ? ROUTER_SLASHED
                                               : ROUTER_PLAIN;
    atomic_store(&client->oip, router_is_oip(uri));
    connection_enter(client, CONNECTION_READING);
    return NULL;
}

static void request_completed(void *context, struct MHD_Connection *connection, void **state,
                              enum MHD_RequestTerminationCode reason)
{
    struct exchange *ex = *state;
    struct connection *client = client_of(connection);

    (void)context;
    (void)reason;
    if (client)
        connection_enter(client, CONNECTION_IDLE);
    if (!ex)
        return;
    *state = NULL;
    if (ex->answer.status == 0)
        ex->answer.status = client && atomic_load(&client->phase) == CONNECTION_CUT
                                ? MHD_HTTP_REQUEST_TIMEOUT
                                : CLIENT_GONE_STATUS;
    metrics_count_request(ex->metrics, router_index(ex->route), ex->method, ex->answer.status);
    if (strcmp(ex->method, MHD_HTTP_METHOD_HEAD) != 0)
        metrics_add_bytes(ex->metrics, 0, ex->answer.size);
    exchange_log(ex);
    metrics_end_request(ex->metrics);
    if (ex->suspended)
        atomic_fetch_sub(&ex->server->suspended, 1);
    if (ex->free_state)
        ex->free_state(ex->state);
    if (ex->answer.bytes)
        ex->answer.release(ex->answer.bytes);
    exchange_set_body(ex, NULL, 0);
    memory_give(ex);
}

static void connection_changed(void *context, struct MHD_Connection *connection, void **state,
                               enum MHD_ConnectionNotificationCode change)
{
    struct http *http = context;

    if (change == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

        *state = info ? connections_add(&http->connections, info->connect_fd) : NULL;
    } else {
        connections_remove(&http->connections, *state);
        *state = NULL;
        acceptor_closed_one(http->acceptor);
    }
}

static void log_library(void *context, const char *format, va_list args)
{
    char line[256];

    (void)context;
    if (!log_enabled(LOG_DEBUG))
        return;
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = '\0';
    log_event(LOG_DEBUG, "libmicrohttpd", LOG_STR("text", line), LOG_END);
}

/* --- starting and stopping ----------------------------------------------------------------- */

static nsa_status start_daemon(struct http *http, nsa_error *err)
{
    const struct config *config = &http->server->config;
    size_t threads = threads_or_processors(config->http_threads);
    const struct MHD_OptionItem options[] = {
        {MHD_OPTION_EXTERNAL_LOGGER, (intptr_t)log_library, http},
        {MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)connection_changed, http},
        {MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)request_completed, http},
        {MHD_OPTION_URI_LOG_CALLBACK, (intptr_t)request_line_arrived, http},
        {MHD_OPTION_CONNECTION_LIMIT, INT_MAX, NULL}, /* the acceptor's to keep */
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)CONNECTION_MEMORY_BYTES, NULL},
        {MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)(config->idle_timeout_ms / 1000 + 1), NULL},
        {MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)(threads > 1 ? threads : 0), NULL},
        {MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, NULL},
        {MHD_OPTION_END, 0, NULL},
    };

    http->daemon =
        MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
                             MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG,
                         0, NULL, NULL, handle, http, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
    if (!http->daemon)
        return nsa_error_set(err, NSA_EIO, "cannot start %zu HTTP threads: %s", threads,
                             strerror(errno));
    return NSA_OK;
}

static bool add_connection(void *context, int fd, const struct sockaddr *address,
                           socklen_t address_bytes)
{
    struct http *http = context;

    return MHD_add_connection(http->daemon, fd, address, address_bytes) == MHD_YES;
}

static nsa_status open_acceptor(struct http *http, nsa_error *err)
{
    const struct acceptor_options options = {
        .listen_fd = http->listen_fd,
        .max_connections = http->server->config.max_connections,
        .add = add_connection,
        .context = http,
    };

    return acceptor_open(&http->acceptor, &options, err);
}

nsa_status http_start(struct http **out, struct server *server, nsa_error *err)
{
    struct http *http = calloc(1, sizeof *http);
    uint64_t seed;
    nsa_status status;

    if (!http)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the HTTP server");
    http->server = server;
    http->listen_fd = -1;
    connections_init(&http->connections);
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = nsa_now_ns();
    snprintf(http->id_prefix, sizeof http->id_prefix, "%016" PRIx64 "-", seed);
    status = listener_open(&http->listen_fd, http->address, server->config.listen, err);
    if (status == NSA_OK)
        status = open_acceptor(http, err);
    if (status == NSA_OK)
        status = start_daemon(http, err);
    if (status == NSA_OK)
        status = acceptor_start(http->acceptor, err);
    if (status != NSA_OK) {
        http_stop(http);
        return status;
    }
    *out = http;
    return NSA_OK;
}

const char *http_address(const struct http *http)
{
    return http->address;
}

void http_sweep(struct http *http)
{
    const struct config *config = &http->server->config;
    size_t cut = connections_sweep(&http->connections, config->idle_timeout_ms * NS_PER_MS,
                                   config->request_timeout_ms * NS_PER_MS, slow_answers);

    while (cut-- > 0)
        metrics_reject(http->server->metrics, METRICS_SLOW_REQUEST);
}

void http_quiesce(struct http *http)
{
    if (http->quiesced)
        return;
    http->quiesced = true;
    /* What waits in the socket's queue is served: closing it would reset those connections. */
    if (http->acceptor)
        acceptor_stop(http->acceptor);
    listener_unlink(http->address);
    close(http->listen_fd);
    http->listen_fd = -1;
}

bool http_idle(struct http *http)
{
    return connections_idle(&http->connections);
}

void http_stop(struct http *http)
{
    if (!http)
        return;
    if (http->listen_fd >= 0)
        http_quiesce(http);
    if (http->daemon) {
        atomic_store(&http->server->closed, true);
        while (atomic_load(&http->server->suspended) > 0)
            usleep(1000); /* the pool finishes what it has */
        MHD_stop_daemon(http->daemon);
    }
    acceptor_close(http->acceptor);
    connections_destroy(&http->connections);
    free(http);
}
