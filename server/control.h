/*
 * Changes of what is served, one after the other, on a thread of their own: those that clients ask
 * for, reloads, and with model control "poll" a look at the disk at intervals.
 */
#ifndef SERVER_CONTROL_H
#define SERVER_CONTROL_H

#include "server/loader.h"

struct control;
struct server;

/* Changes that may wait. */
#define CONTROL_MAX_TASKS 16

/* One change that a client asks for. The caller fills the first part, and keeps it until `done`. */
struct control_task {
    bool unload;
    struct load_request request; /* of an unload, the name alone */
    uint64_t deadline_ns;        /* nsa_now_ns() past which it is not begun any more; 0: none */
    /* Whether whoever asked has gone, so that it need not begin; may be NULL. */
    bool (*abandoned)(struct control_task *task);
    /* Called once by the thread, under no lock; the task is the caller's again when it begins. */
    void (*done)(struct control_task *task);
    void *context;

    /* The result, valid in and after `done`; NSA_ETIMEDOUT or NSA_ECANCELED if it did not begin. */
    nsa_status status;
    nsa_error err;

    struct control_task *next; /* guarded by the lock */
};

/**
 * Start the thread. The server's registry has a catalog.
 * @param[out] out  caller frees with control_close(); untouched on error
 * @return NSA_OK or NSA_ENOMEM
 */
nsa_status control_open(struct control **out, struct server *server, nsa_error *err);

/* Finish what waits, stop the thread and free all. NULL is allowed. */
void control_close(struct control *control);

/* Queue `task`: NSA_OK, and its `done` will be called; or NSA_EFULL. Thread-safe. */
nsa_status control_submit(struct control *control, struct control_task *task, nsa_error *err);

/* Look at everything again, soon. Thread-safe. */
void control_reload(struct control *control);

#endif
