/* Requests to a daemon: whole ones by libcurl, and raw bytes over a plain socket. */
#ifndef TESTS_HTTP_H
#define TESTS_HTTP_H

#include "tests/integration/daemon.h"

#include <stdbool.h>
#include <stddef.h>

#define CALL_MAX_HEADERS 8

/* Text of a header that libcurl must not add itself. */
#define NO_CONTENT_TYPE "Content-Type:"

struct call {
    const char *method;                    /* NULL: POST with a body, GET without */
    const char *path;                      /* with query */
    const void *body;                      /* NULL: none */
    size_t size;                           /* of the body; 0 of a text stands for its length */
    const char *headers[CALL_MAX_HEADERS]; /* "Name: value" */
};

struct reply {
    long status;      /* 0 when no whole answer came */
    const char *why;  /* then libcurl's reason */
    bool refused;     /* then: nobody listens there any more */
    const char *body; /* NUL-terminated */
    size_t size;
};

/* A client with one connection at most, which it keeps. Not for several threads at a time. */
struct client;

struct client *client_open(const struct daemon *daemon);
void client_close(struct client *client);

/* Let libcurl ask for gzip or deflate and undo them. */
void client_accept_compressed(struct client *client);

/* Send and wait for the answer; it is the client's, until its next call. Asserts nothing. */
const struct reply *client_call(struct client *client, const struct call *call);

/* The value of a header of the last answer, or NULL; the client's, until its next call. */
const char *client_header(struct client *client, const char *name);

/* How many connections it has made. */
long client_connections(const struct client *client);

/* The common kinds of calls. */
const struct reply *client_get(struct client *client, const char *path);
const struct reply *client_json(struct client *client, const char *path, const char *body);

/* Fail the test unless the reply has `status` and its body holds `part` (NULL: whatever). */
void expect_reply(const struct reply *reply, long status, const char *part);

/* The body of the last answer. */
const char *client_body(const struct client *client);

/* Fail the test unless the last answer has the header `name` with `value`. */
void expect_header(struct client *client, const char *name, const char *value);

/*
 * The value of a series of /metrics, named as there: 'nsad_rows_total{op="select",model="select"}'.
 * A missing one fails the test.
 */
double metric(struct client *client, const char *series);

/* Wait until the series is at least `value`; fails the test if it never is. */
void wait_metric(struct client *client, const char *series, double value);

/* --- plain sockets ------------------------------------------------------------------------- */

int raw_open(const struct daemon *daemon);

/* Send all; false when the other side has closed. */
bool raw_send(int fd, const void *bytes, size_t size);
bool raw_text(int fd, const char *text);

struct raw_reply {
    int status;      /* 0: the connection was closed before an answer */
    char head[4096]; /* status line and headers */
    char body[4096]; /* NUL-terminated; the rest is read and dropped */
};

/* POST `body` as JSON: a whole request, sent without waiting for the answer. */
bool raw_post(int fd, const char *path, const char *body);

/* Read one answer with a Content-Length, or one without a body. */
struct raw_reply raw_read(int fd);

/* Whether bytes, or the end of the connection, can be read now. */
bool raw_readable(int fd);

/* Wait until the other side closes, dropping what comes before; false when it doesn't. */
bool raw_wait_closed(int fd);

#endif
