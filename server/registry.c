#include "server/registry.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

struct registry {
    pthread_mutex_t lock; /* guards all below, and the references of every catalog */
    struct catalog *current;
    struct catalog *retired; /* a list of those that nobody holds */
};

struct registry *registry_open(void)
{
    struct registry *registry = calloc(1, sizeof *registry);

    if (registry)
        pthread_mutex_init(&registry->lock, NULL);
    return registry;
}

void registry_close(struct registry *registry)
{
    if (!registry)
        return;
    registry_sweep(registry);
    catalog_free(registry->current);
    pthread_mutex_destroy(&registry->lock);
    free(registry);
}

/* The lock is held. */
static void release(struct registry *registry, struct catalog *catalog)
{
    if (--catalog->references > 0)
        return;
    catalog->next = registry->retired;
    registry->retired = catalog;
}

const struct catalog *registry_acquire(struct registry *registry)
{
    struct catalog *catalog;

    pthread_mutex_lock(&registry->lock);
    catalog = registry->current;
    if (catalog)
        catalog->references++;
    pthread_mutex_unlock(&registry->lock);
    return catalog;
}

void registry_release(struct registry *registry, const struct catalog *catalog)
{
    if (!catalog)
        return;
    pthread_mutex_lock(&registry->lock);
    release(registry, (struct catalog *)catalog);
    pthread_mutex_unlock(&registry->lock);
}

void registry_publish(struct registry *registry, struct catalog *next)
{
    struct catalog *before;

    next->references = 1; /* being in force */
    for (size_t i = 0; i < next->count; i++)
        metrics_set_model_ready(next->models[i]->series, true);
    pthread_mutex_lock(&registry->lock);
    before = registry->current;
    registry->current = next;
    for (size_t i = 0; before && i < before->count; i++) {
        struct served_model *served = before->models[i];

        if (catalog_version(next, served->name, served->version) != served)
            metrics_set_model_ready(served->series, false);
    }
    if (before)
        release(registry, before);
    pthread_mutex_unlock(&registry->lock);
}

bool registry_sweep(struct registry *registry)
{
    struct catalog *retired;

    pthread_mutex_lock(&registry->lock);
    retired = registry->retired;
    registry->retired = NULL;
    pthread_mutex_unlock(&registry->lock);
    if (!retired)
        return false;
    while (retired) {
        struct catalog *next = retired->next;

        catalog_free(retired);
        retired = next;
    }
    malloc_trim(0);
    return true;
}
