/* What the whole process shares: made by main.c, passed to everything, freed by main.c. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "server/metrics.h"
#include "server/options.h"

#include <nsa/batcher.h>
#include <stdatomic.h>
#include <stdbool.h>

struct registry;

struct server {
    struct config config;
    struct metrics *metrics;
    nsa_batcher *batcher;

    _Atomic(struct registry *) registry; /* NULL while the models load; set once, before `ready` */

    atomic_bool ready;    /* models are loaded and no drain has begun */
    atomic_bool draining; /* answers carry Connection: close */

    /* An exchange counts itself as suspended before it looks whether the server is closed. */
    atomic_bool closed;
    atomic_size_t suspended; /* exchanges that were, until their answer is sent */
};

#endif
