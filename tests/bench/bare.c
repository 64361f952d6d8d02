/*
 * The least that an HTTP server on libmicrohttpd can do with the same requests: the threads, flags
 * and body buffers of nsad, and no more. POST /BYTES reads the body and answers BYTES bytes. Prints
 * the port that it listens on; ends when standard input does.
 */
#include "tests/bench/measure.h"

#include <arpa/inet.h>
#include <limits.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTION_MEMORY_BYTES ((size_t)64 * 1024)
#define MAX_BYTES ((size_t)64 << 20)

static char answer_bytes[MAX_BYTES];

struct request {
    size_t size;
    size_t capacity;
    char *body; /* (capacity) */
};

static enum MHD_Result begin(struct MHD_Connection *connection, void **state)
{
    const char *length =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    struct request *request = calloc(1, sizeof *request);

    if (!request)
        return MHD_NO;
    *state = request;
    request->capacity = length ? strtoull(length, NULL, 10) : 0;
    if (request->capacity > MAX_BYTES)
        return MHD_NO;
    request->body = aligned_alloc(64, (request->capacity + 64) & ~(size_t)63);
    return request->body ? MHD_YES : MHD_NO;
}

static enum MHD_Result send_answer(struct MHD_Connection *connection, const char *path)
{
    size_t bytes = strtoull(path + 1, NULL, 10);
    struct MHD_Response *response = MHD_create_response_from_buffer(
        bytes < MAX_BYTES ? bytes : MAX_BYTES, answer_bytes, MHD_RESPMEM_PERSISTENT);
    enum MHD_Result result;

    if (!response)
        return MHD_NO;
    result = MHD_queue_response(connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *http_version, const char *data,
                              size_t *data_bytes, void **state)
{
    struct request *request = *state;

    (void)context;
    (void)method;
    (void)http_version;
    if (!request)
        return begin(connection, state);
    if (*data_bytes == 0)
        return send_answer(connection, path);
    if (*data_bytes > request->capacity - request->size)
        return MHD_NO;
    memcpy(request->body + request->size, data, *data_bytes);
    request->size += *data_bytes;
    *data_bytes = 0;
    return MHD_YES;
}

static void completed(void *context, struct MHD_Connection *connection, void **state,
                      enum MHD_RequestTerminationCode reason)
{
    struct request *request = *state;

    (void)context;
    (void)connection;
    (void)reason;
    if (!request)
        return;
    free(request->body);
    free(request);
    *state = NULL;
}

struct acceptor {
    int listen_fd;
    struct MHD_Daemon *daemon;
};

/* As nsad does: connections are accepted apart, and spread over the threads evenly. */
static void *accept_all(void *argument)
{
    const struct acceptor *acceptor = argument;

    for (;;) {
        struct sockaddr_in address;
        socklen_t bytes = sizeof address;
        int fd = accept4(acceptor->listen_fd, (struct sockaddr *)&address, &bytes,
                         SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
            return NULL;
        MHD_add_connection(acceptor->daemon, fd, (struct sockaddr *)&address, bytes);
    }
}

static int listen_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, bytes) != 0 || listen(fd, SOMAXCONN) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &bytes) != 0)
        bench_fail("cannot listen");
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static struct MHD_Daemon *start_daemon(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
            MHD_USE_NO_LISTEN_SOCKET,
        0, NULL, NULL, handle, NULL, MHD_OPTION_NOTIFY_COMPLETED, completed, NULL,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned int)INT_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        CONNECTION_MEMORY_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, 60u, MHD_OPTION_THREAD_POOL_SIZE,
        processors > 1 ? (unsigned int)processors : 0u, MHD_OPTION_END);

    if (!daemon)
        bench_fail("cannot start the HTTP threads");
    return daemon;
}

int main(void)
{
    struct acceptor acceptor = {.daemon = start_daemon()};
    pthread_t thread;
    char byte;

    memset(answer_bytes, '1', sizeof answer_bytes);
    acceptor.listen_fd = listen_loopback();
    if (pthread_create(&thread, NULL, accept_all, &acceptor) != 0)
        bench_fail("cannot start a thread");
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    shutdown(acceptor.listen_fd, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(acceptor.listen_fd);
    MHD_stop_daemon(acceptor.daemon);
    return EXIT_SUCCESS;
}
