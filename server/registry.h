/*
 * The catalog in force. Whoever serves a request holds the catalog that it began with until it is
 * answered; a model that has been replaced is freed when the last such catalog is let go.
 */
#ifndef SERVER_REGISTRY_H
#define SERVER_REGISTRY_H

#include "server/catalog.h"

#include <stdbool.h>

struct registry;

/* A registry with nothing published; NULL without memory. Caller frees with registry_close(). */
struct registry *registry_open(void);

/* Free all. Nothing may be held. NULL is allowed. */
void registry_close(struct registry *registry);

/* The catalog in force, held until registry_release(); NULL before the first. Thread-safe. */
const struct catalog *registry_acquire(struct registry *registry);

/* NULL is allowed. Thread-safe; frees nothing, so it takes no time. */
void registry_release(struct registry *registry, const struct catalog *catalog);

/*
 * Put `next`, which the registry takes over, in force: its models are ready, and those of the one
 * before that it doesn't have no longer. Thread-safe.
 */
void registry_publish(struct registry *registry, struct catalog *next);

/*
 * Free what nobody holds any more, and give its memory back to the system. Returns whether there
 * was anything. Thread-safe; to be called a few times a second, by a thread that may take a while.
 */
bool registry_sweep(struct registry *registry);

#endif
