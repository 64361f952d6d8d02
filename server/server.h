/* What the whole process shares: made by main.c, passed to everything, freed by main.c. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "server/metrics.h"
#include "server/options.h"

#include <nsa/batcher.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Of all HTTP threads together, but no less than the second for each. */
#define SERVER_KEPT_BYTES ((size_t)4 * 1024 * 1024)
#define SERVER_LEAST_KEPT_BYTES ((size_t)1024 * 1024)

struct control;
struct memory;
struct registry;
struct shared_memory;

struct server {
    struct config config;
    nsa_batcher *batcher;
    struct memory *memory; /* of requests */
    struct metrics *metrics;
    struct registry *registry;           /* without a catalog while the models load */
    _Atomic(struct control *) control;   /* NULL while they do */
    struct shared_memory *shared_memory; /* NULL: clients may not use any */

    atomic_bool ready;    /* models are loaded and no drain has begun */
    atomic_bool draining; /* answers carry Connection: close */

    /* An exchange counts itself as suspended before it looks whether the server is closed. */
    atomic_bool closed;
    atomic_size_t suspended; /* exchanges that were, until their answer is sent */
};

#endif
