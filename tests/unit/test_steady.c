/*
 * A server under a steady load of binary requests allocates nothing: counted are the calls of the
 * code linked into this program, not those inside the libraries it uses.
 */
#include "tests/unit/support.h"

#include "server/http.h"
#include "server/loader.h"
#include "server/memory.h"
#include "server/options.h"
#include "server/registry.h"
#include "server/server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <nsa/npy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WARM_UP 20
#define REQUESTS 100
#define MAX_REQUEST_BYTES ((size_t)8 * 1024 * 1024)

static struct server server;
static struct http *http;

/* `*state`: the bytes that the HTTP thread may keep. */
static int start(void **state)
{
    char *const arguments[] = {"nsad",
                               "--listen=127.0.0.1:0",
                               "--model-repository=docker/models",
                               "--http-threads=1",
                               "--compute-threads=1",
                               NULL};
    char *const environment[] = {NULL};
    const struct metrics_setup setup = {.version = "", .revision = "", .kernel = ""};
    const nsa_batcher_options pool = {1, SIZE_MAX};
    struct loader loader = {.config = &server.config};
    struct catalog *catalog = NULL;
    size_t refused = 0;

    memset(&server, 0, sizeof server);
    assert_status(NSA_OK, config_load(&server.config, 5, arguments, environment, NULL));
    assert_status(NSA_OK, metrics_create(&server.metrics, &setup, NULL));
    assert_status(NSA_OK, nsa_batcher_open(&server.batcher, &pool, NULL));
    assert_status(NSA_OK, memory_open(&server.memory, *(const size_t *)*state, NULL));
    server.registry = registry_open();
    assert_non_null(server.registry);
    loader.batcher = server.batcher;
    loader.metrics = server.metrics;
    assert_status(NSA_OK, loader_reload(&catalog, &refused, &loader, NULL, NULL));
    assert_int_equal(0, refused);
    registry_publish(server.registry, catalog);
    assert_status(NSA_OK, http_start(&http, &server, NULL));
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_stop(http);
    registry_close(server.registry);
    nsa_batcher_close(server.batcher);
    memory_close(server.memory);
    metrics_free(server.metrics);
    config_free(&server.config);
    return 0;
}

/* --- a client ------------------------------------------------------------------------------ */

static int connect_to_server(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_port = htons((uint16_t)atoi(strrchr(http_address(http), ':') + 1));
    assert_true(fd >= 0);
    assert_int_equal(0, connect(fd, (struct sockaddr *)&address, sizeof address));
    return fd;
}

/* Ask and read the whole answer, which must be a 200. */
static void ask(int fd, const char *request, size_t size)
{
    static char answer[MAX_REQUEST_BYTES];
    size_t got = 0;
    size_t expected = SIZE_MAX;

    assert_int_equal(size, send(fd, request, size, MSG_NOSIGNAL));
    while (got < expected) {
        ssize_t part = recv(fd, answer + got, sizeof answer - 1 - got, 0);
        const char *head_end;

        assert_true(part > 0);
        got += (size_t)part;
        answer[got] = '\0';
        head_end = strstr(answer, "\r\n\r\n");
        if (head_end && expected == SIZE_MAX) {
            const char *length = strcasestr(answer, "Content-Length: ");

            assert_non_null(length);
            expected = (size_t)(head_end + 4 - answer) + (size_t)atol(length + 16);
        }
    }
    if (strncmp(answer, "HTTP/1.1 200 ", 13) != 0)
        fail_msg("%s", answer);
}

/* --- what is asked ------------------------------------------------------------------------- */

struct load {
    const char *target;
    const char *type;
    nsa_shape shape; /* of float32 zeros; raw if the type says so, else an .npy */
};

static const struct load loads[] = {
    {"/v1/select?num_selected_blocks=8", "application/x-npy", {2, {16, 32}}},
    {"/v1/select?num_selected_blocks=4&shape=256,32&dtype=float32",
     "application/octet-stream",
     {2, {256, 32}}},
    {"/v1/compress", "application/x-npy", {3, {1, 4, 64}}},
    {"/v1/compress", "application/x-npy", {3, {400, 4, 64}}}, /* through the pool */
    {"/v1/posembed", "application/x-npy", {3, {2, 32, 512}}},
};

/* Write the request at `to`; returns its size. */
static size_t write_request(char *to, const struct load *load)
{
    char head[NSA_NPY_HEADER_BYTES];
    size_t head_bytes = 0;
    size_t bytes = 0;
    size_t size;

    assert_status(NSA_OK, nsa_shape_bytes(&bytes, &load->shape, NSA_F32, NULL));
    if (strcmp(load->type, "application/x-npy") == 0)
        assert_status(NSA_OK, nsa_npy_write_header(head, &head_bytes, &load->shape, NSA_F32, NULL));
    size = (size_t)sprintf(to,
                           "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n"
                           "Content-Length: %zu\r\n\r\n",
                           load->target, load->type, head_bytes + bytes);
    memcpy(to + size, head, head_bytes);
    memset(to + size + head_bytes, 0, bytes);
    return size + head_bytes + bytes;
}

static void test_nothing_is_allocated(void **state)
{
    static char request[MAX_REQUEST_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        size_t size = write_request(request, &loads[i]);
        int fd = connect_to_server();
        size_t before;
        size_t made;

        for (size_t n = 0; n < WARM_UP; n++)
            ask(fd, request, size);
        before = allocation_count();
        for (size_t n = 0; n < REQUESTS; n++)
            ask(fd, request, size);
        made = allocation_count() - before;
        if (made > 0)
            fail_msg("%s: %zu allocations in %d requests", loads[i].target, made, REQUESTS);
        close(fd);
    }
}

int main(void)
{
    static size_t kept[] = {SERVER_KEPT_BYTES, SERVER_LEAST_KEPT_BYTES};
    const struct CMUnitTest tests[] = {
        {"all that may be kept", test_nothing_is_allocated, start, stop, &kept[0]},
        {"the least that is", test_nothing_is_allocated, start, stop, &kept[1]},
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
