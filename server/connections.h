/*
 * The open connections, for the two things that the HTTP library leaves undone: a limit on how long
 * a request may take to arrive, and knowing when all is quiet.
 */
#ifndef SERVER_CONNECTIONS_H
#define SERVER_CONNECTIONS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum connection_phase {
    CONNECTION_IDLE,      /* nothing of a request has come */
    CONNECTION_READING,   /* a request is arriving */
    CONNECTION_ANSWERING, /* a handler has it, or its answer is being sent */
    CONNECTION_CUT        /* the request took too long to arrive; nothing follows this phase */
};

struct connection {
    int fd;
    _Atomic(enum connection_phase) phase;
    atomic_uint_fast64_t since_ns; /* when the connection, or its current request, began */
    unsigned char address; /* enum router_address of the current request; the HTTP thread's own */
    atomic_bool oip;       /* the current request's path, if it is known, is under /v2 */

    /* Guarded by the list's lock. */
    uint64_t ended_since_ns; /* of the phase in which its client was seen to have left, or 0 */
    struct connection *next, *previous;
};

struct connections {
    pthread_mutex_t lock; /* guards the list; a connection on it has its descriptor open */
    struct connection *first;
};

void connections_init(struct connections *list);
void connections_destroy(struct connections *list);

/* A new connection on `fd`, or NULL without memory. */
struct connection *connections_add(struct connections *list, int fd);

/* Take it off the list and free it, before its descriptor is closed. NULL is allowed. */
void connections_remove(struct connections *list, struct connection *connection);

/* Begin `phase` now; false, with nothing done, for a connection that was cut. */
bool connection_enter(struct connection *connection, enum connection_phase phase);

/*
 * Shut down connections that have been idle for `idle_ns`, those whose request takes more than
 * `request_ns` to arrive, these after sending slow_answers[connection->oip], and those whose client
 * left before its request was complete. Returns how many requests were cut.
 */
size_t connections_sweep(struct connections *list, uint64_t idle_ns, uint64_t request_ns,
                         const char *const slow_answers[2]);

/* Whether every connection is idle and none has bytes waiting to be read. */
bool connections_idle(struct connections *list);

#endif
