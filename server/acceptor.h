/*
 * The thread that accepts connections and hands them on.
 *
 * libmicrohttpd could do it itself, but its way of stopping, MHD_quiesce_daemon(), races with its
 * epoll threads for the listening socket and ends the process when it loses (seen in 0.9.75 and
 * still so in 1.0): a stop under load would be an abort now and then.
 */
#ifndef SERVER_ACCEPTOR_H
#define SERVER_ACCEPTOR_H

#include <nsa/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct acceptor;

struct acceptor_options {
    int listen_fd;          /* non-blocking; the caller's, open until acceptor_close() */
    size_t max_connections; /* open at the same time; others wait in the socket's queue */
    /* Take over `fd`, non-blocking; false when it could not be, and was closed. */
    bool (*add)(void *context, int fd, const struct sockaddr *address, socklen_t address_bytes);
    void *context;
};

/**
 * @param[out] out  caller frees with acceptor_close(); untouched on error
 * @return NSA_OK, NSA_EIO or NSA_ENOMEM
 */
nsa_status acceptor_open(struct acceptor **out, const struct acceptor_options *options,
                         nsa_error *err);

/* Begin to accept; from here on `add` may be called. Once. NSA_OK or NSA_ENOMEM. */
nsa_status acceptor_start(struct acceptor *acceptor, nsa_error *err);

/* A connection that was added has been closed. Thread-safe. */
void acceptor_closed_one(struct acceptor *acceptor);

/* Accept what waits in the queue, SOMAXCONN at the most, and no more. Not by a thread that `add`
 * depends on. */
void acceptor_stop(struct acceptor *acceptor);

/* Free it, after acceptor_stop(). NULL is allowed. */
void acceptor_close(struct acceptor *acceptor);

#endif
