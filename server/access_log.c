#include "server/exchange.h"
#include "server/log.h"
#include "server/server.h"

#include <nsa/batcher.h>
#include <string.h>

#define NS_PER_MS 1e6

/* A W3C trace context goes into the log as it is, if it looks like one. */
static const char *trace_of(const struct exchange *ex)
{
    const char *header = exchange_header(ex, "traceparent");

    return header && strlen(header) == 55 && strspn(header, "0123456789abcdef-") == 55 ? header
                                                                                       : "";
}

void exchange_log(const struct exchange *ex)
{
    bool fault = ex->answer.status >= 500 && ex->answer.status != 501; /* 501 is the client's */
    enum log_level level = fault ? LOG_WARN : LOG_INFO;

    if (!ex->server->config.access_log && level == LOG_INFO)
        return;
    log_event(level, "request", LOG_STR("request_id", ex->request_id),
              LOG_STR("method", ex->method), LOG_STR("path", ex->path),
              LOG_INT("status", ex->answer.status), LOG_INT("request_bytes", ex->received_bytes),
              LOG_INT("response_bytes", ex->answer.size),
              LOG_DOUBLE("duration_ms", (double)(nsa_now_ns() - ex->begin_ns) / NS_PER_MS),
              LOG_STR("traceparent", trace_of(ex)), LOG_END);
}
