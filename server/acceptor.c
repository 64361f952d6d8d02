#include "server/acceptor.h"

#include "server/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long to leave the queue alone when there is no descriptor for its first connection. */
#define PAUSE_MS 100

struct acceptor {
    struct acceptor_options options;
    atomic_size_t open;
    atomic_bool stopping;
    int wake[2]; /* a byte for each thing that the thread should look at */
    pthread_t thread;
    bool started;
    bool starving; /* the thread's: it has said that descriptors ran out */
};

static void wake(struct acceptor *acceptor)
{
    /* A full pipe wakes as well. */
    if (write(acceptor->wake[1], "", 1) < 0)
        return;
}

/* Accept and hand on one connection; false when none can be: errno says why. */
static bool accept_one(struct acceptor *acceptor)
{
    const struct acceptor_options *options = &acceptor->options;
    struct sockaddr_storage address;
    socklen_t bytes = sizeof address;
    int fd;

    do
        fd = accept4(options->listen_fd, (struct sockaddr *)&address, &bytes,
                     SOCK_CLOEXEC | SOCK_NONBLOCK);
    while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0)
        return false;
    atomic_fetch_add(&acceptor->open, 1);
    if (!options->add(options->context, fd, (const struct sockaddr *)&address, bytes))
        atomic_fetch_sub(&acceptor->open, 1);
    return true;
}

/* Accept while there is room; how long to wait then, in milliseconds, or -1 for something new. */
static int accept_all(struct acceptor *acceptor)
{
    while (atomic_load(&acceptor->open) < acceptor->options.max_connections) {
        if (accept_one(acceptor)) {
            acceptor->starving = false;
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return -1;
        if (!acceptor->starving)
            log_event(LOG_ERROR, "cannot accept connections", LOG_STR("reason", strerror(errno)),
                      LOG_END);
        acceptor->starving = true;
        return PAUSE_MS;
    }
    return -1;
}

static void *acceptor_main(void *argument)
{
    struct acceptor *acceptor = argument;
    char bytes[64];

    while (!atomic_load(&acceptor->stopping)) {
        int pause_ms = accept_all(acceptor);
        bool full = atomic_load(&acceptor->open) >= acceptor->options.max_connections;
        struct pollfd ready[2] = {
            {.fd = acceptor->wake[0], .events = POLLIN},
            {.fd = acceptor->options.listen_fd, .events = POLLIN},
        };

        /* What waits in the queue is no news while it cannot be taken. */
        poll(ready, full || pause_ms >= 0 ? 1 : 2, pause_ms);
        if (ready[0].revents && read(acceptor->wake[0], bytes, sizeof bytes) < 0)
            continue;
    }
    return NULL;
}

nsa_status acceptor_open(struct acceptor **out, const struct acceptor_options *options,
                         nsa_error *err)
{
    struct acceptor *acceptor = calloc(1, sizeof *acceptor);

    if (!acceptor)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the acceptor");
    acceptor->options = *options;
    if (pipe2(acceptor->wake, O_CLOEXEC | O_NONBLOCK) != 0) {
        free(acceptor);
        return nsa_error_set(err, NSA_EIO, "cannot make a pipe: %s", strerror(errno));
    }
    *out = acceptor;
    return NSA_OK;
}

nsa_status acceptor_start(struct acceptor *acceptor, nsa_error *err)
{
    acceptor->started = pthread_create(&acceptor->thread, NULL, acceptor_main, acceptor) == 0;
    return acceptor->started
               ? NSA_OK
               : nsa_error_set(err, NSA_ENOMEM, "cannot start the thread that accepts connections");
}

void acceptor_closed_one(struct acceptor *acceptor)
{
    /* Exactly at the limit the thread waits for this. */
    if (atomic_fetch_sub(&acceptor->open, 1) == acceptor->options.max_connections)
        wake(acceptor);
}

void acceptor_stop(struct acceptor *acceptor)
{
    if (!acceptor->started)
        return;
    acceptor->started = false;
    atomic_store(&acceptor->stopping, true);
    wake(acceptor);
    pthread_join(acceptor->thread, NULL);
    for (size_t i = 0; i < SOMAXCONN && accept_one(acceptor); i++) {
    }
}

void acceptor_close(struct acceptor *acceptor)
{
    if (!acceptor)
        return;
    close(acceptor->wake[0]);
    close(acceptor->wake[1]);
    free(acceptor);
}
