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
    nsa_batcher *batcher;

    /*
     * NULL, and metrics without models, while the models load; set once, before `ready`. An
     * exchange uses the metrics that it began with, which live as long as the server.
     */
    _Atomic(struct registry *) registry;
    _Atomic(struct metrics *) metrics;

    atomic_bool ready;    /* models are loaded and no drain has begun */
    atomic_bool draining; /* answers carry Connection: close */

    /* An exchange counts itself as suspended before it looks whether the server is closed. */
    atomic_bool closed;
    atomic_size_t suspended; /* exchanges that were, until their answer is sent */
};

#endif
