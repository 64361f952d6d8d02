#include "server/control.h"

#include "server/log.h"
#include "server/registry.h"
#include "server/server.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

struct control {
    struct server *server;
    struct loader loader;
    uint64_t poll_ns; /* 0: the disk is not polled */
    pthread_t thread;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    struct control_task *first, *last;
    size_t task_count;
    bool reload;
    bool closing;
};

/* Publish what a change came to, unless nothing has. */
static void publish(struct control *control, struct catalog *next)
{
    if (next)
        registry_publish(control->server->registry, next);
}

static void run_task(struct control *control, struct control_task *task)
{
    struct registry *registry = control->server->registry;
    const struct catalog *now = registry_acquire(registry);
    struct catalog *next = NULL;

    if (task->deadline_ns && nsa_now_ns() >= task->deadline_ns)
        task->status = nsa_error_set(&task->err, NSA_ETIMEDOUT,
                                     "the deadline passed before the change was begun");
    else if (task->abandoned && task->abandoned(task))
        task->status = nsa_error_set(&task->err, NSA_ECANCELED, "the client closed the connection");
    else if (task->unload)
        task->status = loader_unload(&next, now, task->request.name, &task->err);
    else
        task->status = loader_load(&next, &control->loader, now, &task->request, &task->err);
    publish(control, next);
    registry_release(registry, now);
    task->done(task);
}

static void run_reload(struct control *control)
{
    struct registry *registry = control->server->registry;
    const struct catalog *now = registry_acquire(registry);
    struct catalog *next = NULL;
    size_t refused = 0;
    nsa_error err;
    nsa_status status = loader_reload(&next, &refused, &control->loader, now, &err);

    if (status != NSA_OK)
        log_event(LOG_ERROR, "reload failed", LOG_STR("reason", err.message), LOG_END);
    else if (next || control->poll_ns == 0)
        log_event(LOG_INFO, "reloaded", LOG_BOOL("changed", next != NULL),
                  LOG_INT("refused", refused), LOG_END);
    publish(control, next);
    registry_release(registry, now);
}

/* Wait for something to do until `due_ns` (0: for ever). The lock is held. */
static void wait_for_work(struct control *control, uint64_t due_ns)
{
    const struct timespec due = {(time_t)(due_ns / NS_PER_S), (long)(due_ns % NS_PER_S)};

    if (due_ns == 0)
        pthread_cond_wait(&control->work, &control->lock);
    else
        pthread_cond_timedwait(&control->work, &control->lock, &due);
}

static struct control_task *take_task(struct control *control)
{
    struct control_task *task = control->first;

    control->first = task->next;
    if (!control->first)
        control->last = NULL;
    control->task_count--;
    return task;
}

static void *control_main(void *argument)
{
    struct control *control = argument;
    uint64_t due_ns = control->poll_ns ? nsa_now_ns() + control->poll_ns : 0;

    pthread_mutex_lock(&control->lock);
    while (!control->closing || control->first) {
        if (control->reload || (!control->first && due_ns && nsa_now_ns() >= due_ns)) {
            control->reload = false;
            pthread_mutex_unlock(&control->lock);
            run_reload(control);
            due_ns = control->poll_ns ? nsa_now_ns() + control->poll_ns : 0;
        } else if (control->first) {
            struct control_task *task = take_task(control);

            pthread_mutex_unlock(&control->lock);
            run_task(control, task);
        } else {
            wait_for_work(control, due_ns);
            continue;
        }
        pthread_mutex_lock(&control->lock);
    }
    pthread_mutex_unlock(&control->lock);
    return NULL;
}

nsa_status control_open(struct control **out, struct server *server, nsa_error *err)
{
    const struct config *config = &server->config;
    struct control *control = calloc(1, sizeof *control);
    pthread_condattr_t monotonic;

    if (!control)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the model control");
    control->server = server;
    control->loader = (struct loader){config, server->batcher, server->metrics};
    if (strcmp(config->model_control, "poll") == 0)
        control->poll_ns = config->poll_interval_ms * NS_PER_MS;
    pthread_mutex_init(&control->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&control->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&control->thread, NULL, control_main, control) != 0) {
        pthread_cond_destroy(&control->work);
        pthread_mutex_destroy(&control->lock);
        free(control);
        return nsa_error_set(err, NSA_ENOMEM, "cannot start the thread of the model control");
    }
    *out = control;
    return NSA_OK;
}

void control_close(struct control *control)
{
    if (!control)
        return;
    pthread_mutex_lock(&control->lock);
    control->closing = true;
    pthread_cond_signal(&control->work);
    pthread_mutex_unlock(&control->lock);
    pthread_join(control->thread, NULL);
    pthread_cond_destroy(&control->work);
    pthread_mutex_destroy(&control->lock);
    free(control);
}

nsa_status control_submit(struct control *control, struct control_task *task, nsa_error *err)
{
    nsa_status status = NSA_OK;

    pthread_mutex_lock(&control->lock);
    if (control->task_count == CONTROL_MAX_TASKS) {
        status = nsa_error_set(err, NSA_EFULL, "expected at most %d changes of models to wait",
                               CONTROL_MAX_TASKS);
    } else {
        task->next = NULL;
        if (control->last)
            control->last->next = task;
        else
            control->first = task;
        control->last = task;
        control->task_count++;
        pthread_cond_signal(&control->work);
    }
    pthread_mutex_unlock(&control->lock);
    return status;
}

void control_reload(struct control *control)
{
    pthread_mutex_lock(&control->lock);
    control->reload = true;
    pthread_cond_signal(&control->work);
    pthread_mutex_unlock(&control->lock);
}
