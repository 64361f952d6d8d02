/*
 * HTTP by libmicrohttpd; http.c is the only file that knows it.
 *
 * Its epoll threads read requests into exchanges, run handlers and send answers. A client that
 * takes too long over a request, or holds an idle connection, is cut by http_sweep(), since the
 * library's own timeout starts anew with every byte.
 */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include <nsa/status.h>
#include <stdbool.h>
#include <stddef.h>

struct http;
struct server;

/**
 * Listen on config.listen and serve. SIGPIPE must be ignored.
 * @param[out] out  caller frees with http_stop(); untouched on error
 * @return NSA_OK; NSA_EINVAL or NSA_EIO (the address); NSA_ENOMEM
 */
nsa_status http_start(struct http **out, struct server *server, nsa_error *err);

/* Where it listens, as "127.0.0.1:8080", "[::1]:8080" or "unix:/path". */
const char *http_address(const struct http *http);

/* Cut connections that are over their time. To be called a few times a second. */
void http_sweep(struct http *http);

/* Take no more connections, but for those that the kernel has accepted already. */
void http_quiesce(struct http *http);

/* Whether no request is anywhere between its first byte and the end of its answer. */
bool http_idle(struct http *http);

/* Close every connection and free all. No exchange may be suspended. NULL is allowed. */
void http_stop(struct http *http);

#endif
