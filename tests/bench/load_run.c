#include "tests/bench/load.h"
#include "tests/bench/measure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_ANSWER_BYTES ((size_t)256 << 20)
#define FIRST_CAPACITY ((size_t)64 << 10)
#define SILENCE_MS 20000
#define LENGTH_FIELD "\r\ncontent-length:"

/* One connection, with the answer that it is reading. */
struct client {
    int fd;
    size_t sent;
    uint64_t begin_ns;
    char *answer; /* (capacity) */
    size_t size;
    size_t capacity;
    size_t head_bytes; /* 0 until all of the head is there */
    size_t body_bytes;
};

struct load {
    const struct load_options *options;
    int epoll;
    struct client *clients;
    char *body; /* of the first answer: (body_bytes) */
    size_t body_bytes;
    bool measuring;
    struct load_result *result;
};

static int connect_loopback(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons(port),
    };
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        bench_fail("cannot connect to port %u: %s", port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void watch(struct load *load, struct client *client, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};

    if (epoll_ctl(load->epoll, operation, client->fd, &event) != 0)
        bench_fail("epoll_ctl: %s", strerror(errno));
}

/* Send what is left of the request, as much as the socket takes. */
static void send_request(struct load *load, struct client *client)
{
    const struct load_options *options = load->options;
    bool waited = client->sent > 0;

    while (client->sent < options->request_bytes) {
        ssize_t n = send(client->fd, options->request + client->sent,
                         options->request_bytes - client->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            watch(load, client, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            return;
        }
        if (n < 0)
            bench_fail("cannot send: %s", strerror(errno));
        client->sent += (size_t)n;
    }
    if (waited)
        watch(load, client, EPOLL_CTL_MOD, EPOLLIN);
}

static void begin_request(struct load *load, struct client *client)
{
    client->sent = client->size = client->head_bytes = client->body_bytes = 0;
    client->begin_ns = bench_wall_ns();
    send_request(load, client);
}

/* Look for the end of the head, and for the length of the body in it. */
static void read_head(struct client *client)
{
    char *end = memmem(client->answer, client->size, "\r\n\r\n", 4);
    char *field;

    if (!end)
        return;
    end[2] = '\0';
    client->head_bytes = (size_t)(end - client->answer) + 4;
    field = strcasestr(client->answer, LENGTH_FIELD);
    if (strncmp(client->answer, "HTTP/1.1 200", 12) != 0 || !field)
        bench_fail("expected HTTP/1.1 200 with a Content-Length, got:\n%s%.*s", client->answer,
                   (int)(client->size - client->head_bytes), end + 4);
    client->body_bytes = strtoull(field + strlen(LENGTH_FIELD), NULL, 10);
    if (client->body_bytes > MAX_ANSWER_BYTES)
        bench_fail("expected an answer of at most %zu bytes", MAX_ANSWER_BYTES);
}

static void check_body(struct load *load, const struct client *client)
{
    const char *body = client->answer + client->head_bytes;

    if (!load->body) {
        load->body = bench_allocate(client->body_bytes);
        memcpy(load->body, body, client->body_bytes);
        load->body_bytes = client->body_bytes;
    }
    if (client->size != client->head_bytes + client->body_bytes ||
        client->body_bytes != load->body_bytes || memcmp(body, load->body, load->body_bytes) != 0)
        bench_fail("an answer differs from the first one");
}

static void make_room(struct client *client)
{
    size_t wanted = client->head_bytes + client->body_bytes;

    if (client->size < client->capacity && wanted <= client->capacity)
        return;
    client->capacity = wanted > client->capacity ? wanted : 2 * client->capacity;
    if (client->capacity > 2 * MAX_ANSWER_BYTES)
        bench_fail("the answer's head has no end");
    client->answer = realloc(client->answer, client->capacity);
    if (!client->answer)
        bench_fail("out of memory for an answer");
}

/* Read what is there; whether the answer is complete. */
static bool read_answer(struct client *client)
{
    ssize_t n;

    make_room(client);
    n = recv(client->fd, client->answer + client->size, client->capacity - client->size,
             MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0)
        bench_fail("the server closed a connection: %s", n < 0 ? strerror(errno) : "end");
    client->size += (size_t)n;
    if (client->head_bytes == 0)
        read_head(client);
    return client->head_bytes > 0 && client->size >= client->head_bytes + client->body_bytes;
}

static void on_event(struct load *load, struct client *client, uint32_t events)
{
    struct load_result *result = load->result;

    if (events & EPOLLOUT)
        send_request(load, client);
    if (!(events & ~(uint32_t)EPOLLOUT) || !read_answer(client))
        return;
    check_body(load, client);
    if (load->measuring && result->count < load->options->max_requests)
        result->latencies_ns[result->count++] = bench_wall_ns() - client->begin_ns;
    begin_request(load, client);
}

/* Serve events until `until_ns`, or until there are enough samples. */
static void run_until(struct load *load, uint64_t until_ns)
{
    struct epoll_event events[64];

    while (bench_wall_ns() < until_ns && load->result->count < load->options->max_requests) {
        int count = epoll_wait(load->epoll, events, 64, SILENCE_MS);

        if (count == 0 || (count < 0 && errno != EINTR))
            bench_fail("no answer within %d ms", SILENCE_MS);
        for (int i = 0; i < count; i++)
            on_event(load, events[i].data.ptr, events[i].events);
    }
}

/* CPU seconds that all threads of `pid` have had so far. */
static double process_cpu_s(pid_t pid)
{
    struct timespec time;
    clockid_t clock;

    if (pid == 0)
        return 0;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0)
        bench_fail("process %ld is not there", (long)pid);
    return (double)time.tv_sec + (double)time.tv_nsec / NS_PER_S;
}

static void run_measured(struct load *load)
{
    const struct load_options *options = load->options;
    struct load_result *result = load->result;
    double server_s = process_cpu_s(options->pid);
    double client_s = process_cpu_s(getpid());
    uint64_t begin_ns = bench_wall_ns();

    load->measuring = true;
    run_until(load, begin_ns + (uint64_t)(options->measure_s * NS_PER_S));
    result->seconds = (double)(bench_wall_ns() - begin_ns) / NS_PER_S;
    result->client_cpu_s = process_cpu_s(getpid()) - client_s;
    result->server_cpu_s = process_cpu_s(options->pid) - server_s;
    result->answer_bytes = load->body_bytes;
    if (result->count == 0)
        bench_fail("no answer within the measured time");
}

void load_run(struct load_result *result, const struct load_options *options)
{
    struct load load = {.options = options, .result = result, .epoll = epoll_create1(0)};

    *result = (struct load_result){0};
    result->latencies_ns = bench_allocate(options->max_requests * sizeof *result->latencies_ns);
    load.clients = bench_allocate(options->connections * sizeof *load.clients);
    if (load.epoll < 0)
        bench_fail("epoll_create1: %s", strerror(errno));
    for (size_t i = 0; i < options->connections; i++) {
        struct client *client = &load.clients[i];

        *client = (struct client){.fd = connect_loopback(options->port)};
        client->capacity = FIRST_CAPACITY;
        client->answer = bench_allocate(client->capacity);
        watch(&load, client, EPOLL_CTL_ADD, EPOLLIN);
        begin_request(&load, client);
    }
    run_until(&load, bench_wall_ns() + (uint64_t)(options->warm_s * NS_PER_S));
    run_measured(&load);
    for (size_t i = 0; i < options->connections; i++) {
        close(load.clients[i].fd);
        free(load.clients[i].answer);
    }
    close(load.epoll);
    free(load.clients);
    free(load.body);
}
