#include "server/connections.h"

#include <nsa/batcher.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

void connections_init(struct connections *list)
{
    pthread_mutex_init(&list->lock, NULL);
    list->first = NULL;
}

void connections_destroy(struct connections *list)
{
    pthread_mutex_destroy(&list->lock);
}

struct connection *connections_add(struct connections *list, int fd)
{
    struct connection *connection = calloc(1, sizeof *connection);

    if (!connection)
        return NULL;
    connection->fd = fd;
    connection_enter(connection, CONNECTION_IDLE);
    pthread_mutex_lock(&list->lock);
    connection->next = list->first;
    if (list->first)
        list->first->previous = connection;
    list->first = connection;
    pthread_mutex_unlock(&list->lock);
    return connection;
}

void connections_remove(struct connections *list, struct connection *connection)
{
    if (!connection)
        return;
    pthread_mutex_lock(&list->lock);
    if (connection->next)
        connection->next->previous = connection->previous;
    if (connection->previous)
        connection->previous->next = connection->next;
    else
        list->first = connection->next;
    pthread_mutex_unlock(&list->lock);
    free(connection);
}

bool connection_enter(struct connection *connection, enum connection_phase phase)
{
    enum connection_phase now = atomic_load(&connection->phase);

    do {
        if (now == CONNECTION_CUT)
            return false;
    } while (!atomic_compare_exchange_weak(&connection->phase, &now, phase));
    atomic_store(&connection->since_ns, nsa_now_ns());
    return true;
}

/*
 * Whether the client closed its side, all its bytes were read, and the phase that began at `since`
 * still lasts: seen so by two sweeps, for between reading and answering there is a moment. The HTTP
 * library overlooks an end that comes with a connection's last bytes.
 */
static bool client_left(struct connection *connection, uint64_t since)
{
    char byte;

    if (recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0)
        return false;
    if (connection->ended_since_ns == since)
        return true;
    connection->ended_since_ns = since;
    return false;
}

size_t connections_sweep(struct connections *list, uint64_t idle_ns, uint64_t request_ns,
                         const char *const slow_answers[2])
{
    uint64_t now = nsa_now_ns();
    size_t cut = 0;

    pthread_mutex_lock(&list->lock);
    for (struct connection *c = list->first; c; c = c->next) {
        enum connection_phase phase = atomic_load(&c->phase);
        uint64_t since = atomic_load(&c->since_ns);
        uint64_t age = now > since ? now - since : 0;

        if (phase == CONNECTION_IDLE && age > idle_ns) {
            shutdown(c->fd, SHUT_RDWR);
        } else if (phase == CONNECTION_READING && age > request_ns &&
                   atomic_compare_exchange_strong(&c->phase, &phase, CONNECTION_CUT)) {
            /* Nothing was being sent while the request arrived, and from here on nothing will be.
             */
            const char *answer = slow_answers[atomic_load(&c->oip)];

            send(c->fd, answer, strlen(answer), MSG_DONTWAIT | MSG_NOSIGNAL);
            shutdown(c->fd, SHUT_RDWR);
            cut++;
        } else if (phase != CONNECTION_ANSWERING && client_left(c, since)) {
            shutdown(c->fd, SHUT_RDWR);
        }
    }
    pthread_mutex_unlock(&list->lock);
    return cut;
}

bool connections_idle(struct connections *list)
{
    bool idle = true;

    pthread_mutex_lock(&list->lock);
    for (struct connection *c = list->first; c && idle; c = c->next) {
        int waiting = 0;

        idle = atomic_load(&c->phase) == CONNECTION_IDLE &&
               (ioctl(c->fd, FIONREAD, &waiting) != 0 || waiting == 0);
    }
    pthread_mutex_unlock(&list->lock);
    return idle;
}
