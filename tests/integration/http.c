#include "tests/integration/http.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define UNIX_PREFIX "unix:"
#define MAX_URL_BYTES 4096

struct client {
    CURL *curl;
    char base[192]; /* of URLs */
    char error[CURL_ERROR_SIZE];
    long connections;
    char *head; /* owned, NUL-terminated, as is body */
    size_t head_bytes;
    char *body;
    size_t body_bytes;
    char value[1024];
    struct reply reply;
};

/* --- by libcurl ---------------------------------------------------------------------------- */

static size_t append(char **to, size_t *size, const char *bytes, size_t count)
{
    char *grown = realloc(*to, *size + count + 1);

    if (!grown)
        return 0;
    memcpy(grown + *size, bytes, count);
    *to = grown;
    *size += count;
    grown[*size] = '\0';
    return count;
}

static size_t take_body(char *bytes, size_t one, size_t count, void *context)
{
    struct client *client = context;

    return append(&client->body, &client->body_bytes, bytes, one * count);
}

static size_t take_head(char *bytes, size_t one, size_t count, void *context)
{
    struct client *client = context;

    return append(&client->head, &client->head_bytes, bytes, one * count);
}

struct client *client_open(const struct daemon *daemon)
{
    const char *address = daemon_address(daemon);
    struct client *client = calloc(1, sizeof *client);

    assert_non_null(client);
    client->curl = curl_easy_init();
    assert_non_null(client->curl);
    if (strncmp(address, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0) {
        snprintf(client->base, sizeof client->base, "http://localhost");
        curl_easy_setopt(client->curl, CURLOPT_UNIX_SOCKET_PATH, address + strlen(UNIX_PREFIX));
    } else {
        snprintf(client->base, sizeof client->base, "http://%s", address);
    }
    curl_easy_setopt(client->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(client->curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(client->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(client->curl, CURLOPT_TIMEOUT_MS, (long)PATIENCE_MS);
    curl_easy_setopt(client->curl, CURLOPT_MAXCONNECTS, 1L);
    curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, client->error);
    curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, client);
    curl_easy_setopt(client->curl, CURLOPT_HEADERFUNCTION, take_head);
    curl_easy_setopt(client->curl, CURLOPT_HEADERDATA, client);
    return client;
}

void client_close(struct client *client)
{
    curl_easy_cleanup(client->curl);
    free(client->head);
    free(client->body);
    free(client);
}

void client_accept_compressed(struct client *client)
{
    curl_easy_setopt(client->curl, CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
}

static void set_method(CURL *curl, const struct call *call)
{
    const char *body = call->body;

    curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(curl, CURLOPT_NOBODY, 0L);
    if (body) {
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE,
                         (curl_off_t)(call->size > 0 ? call->size : strlen(body)));
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, call->method);
    if (call->method && strcmp(call->method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
}

const struct reply *client_call(struct client *client, const struct call *call)
{
    struct curl_slist *headers = NULL;
    char url[MAX_URL_BYTES];
    CURLcode code;
    long connects = 0;

    snprintf(url, sizeof url, "%s%s", client->base, call->path);
    curl_easy_setopt(client->curl, CURLOPT_URL, url);
    set_method(client->curl, call);
    for (size_t i = 0; i < CALL_MAX_HEADERS && call->headers[i]; i++)
        headers = curl_slist_append(headers, call->headers[i]);
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, headers);
    client->head_bytes = client->body_bytes = 0;
    append(&client->head, &client->head_bytes, "", 0);
    append(&client->body, &client->body_bytes, "", 0);
    client->error[0] = '\0';
    code = curl_easy_perform(client->curl);
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    curl_easy_getinfo(client->curl, CURLINFO_NUM_CONNECTS, &connects);
    client->connections += connects;
    client->reply = (struct reply){.body = client->body, .size = client->body_bytes};
    client->reply.why = client->error[0] ? client->error : curl_easy_strerror(code);
    client->reply.refused = code == CURLE_COULDNT_CONNECT;
    if (code == CURLE_OK)
        curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &client->reply.status);
    return &client->reply;
}

/* The value of header `name` in `head`, into `value`; or NULL. */
static const char *find_header(char *value, size_t size, const char *head, const char *name)
{
    size_t length = strlen(name);

    for (const char *line = strchr(head, '\n'); line; line = strchr(line, '\n')) {
        line++;
        if (strncasecmp(line, name, length) != 0 || line[length] != ':')
            continue;
        line += length + 1;
        line += strspn(line, " ");
        snprintf(value, size, "%.*s", (int)strcspn(line, "\r\n"), line);
        return value;
    }
    return NULL;
}

const char *client_header(struct client *client, const char *name)
{
    return find_header(client->value, sizeof client->value, client->head, name);
}

const char *client_body(const struct client *client)
{
    return client->body;
}

long client_connections(const struct client *client)
{
    return client->connections;
}

const struct reply *client_get(struct client *client, const char *path)
{
    return client_call(client, &(struct call){.path = path});
}

const struct reply *client_json(struct client *client, const char *path, const char *body)
{
    return client_call(
        client,
        &(struct call){.path = path, .body = body, .headers = {"Content-Type: application/json"}});
}

void expect_reply(const struct reply *reply, long status, const char *part)
{
    if (reply->status == 0)
        fail_msg("expected status %ld, got no answer: %s", status, reply->why);
    if (reply->status != status)
        fail_msg("expected status %ld, got %ld: %.2000s", status, reply->status, reply->body);
    if (part && !strstr(reply->body, part))
        fail_msg("expected an answer with '%s', got %.2000s", part, reply->body);
}

void expect_header(struct client *client, const char *name, const char *value)
{
    const char *got = client_header(client, name);

    if (!got || strcmp(got, value) != 0)
        fail_msg("%s: expected '%s', got '%s'", name, value, got ? got : "none");
}

/* The value in a page of metrics; -1 without such a series. */
static double find_metric(const char *page, const char *series)
{
    size_t length = strlen(series);

    for (const char *line = page; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, series, length) == 0 && line[length] == ' ')
            return strtod(line + length, NULL);
    }
    return -1;
}

double metric(struct client *client, const char *series)
{
    const struct reply *reply = client_get(client, "/metrics");
    double value;

    expect_reply(reply, 200, NULL);
    value = find_metric(reply->body, series);
    if (value < 0)
        fail_msg("no series %s in:\n%s", series, reply->body);
    return value;
}

void wait_metric(struct client *client, const char *series, double value)
{
    double got = -1;

    for (long waited = 0; waited < PATIENCE_MS; waited += 5) {
        got = metric(client, series);
        if (got >= value)
            return;
        sleep_ms(5);
    }
    fail_msg("%s: expected at least %g, got %g", series, value, got);
}

/* --- plain sockets ------------------------------------------------------------------------- */

int raw_open(const struct daemon *daemon)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    const char *text = daemon_address(daemon);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((in_port_t)strtoul(strrchr(text, ':') + 1, NULL, 10));
    assert_int_equal(0, connect(fd, (struct sockaddr *)&address, sizeof address));
    return fd;
}

bool raw_send(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;

    while (size > 0) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        size -= (size_t)sent;
    }
    return true;
}

bool raw_text(int fd, const char *text)
{
    return raw_send(fd, text, strlen(text));
}

bool raw_post(int fd, const char *path, const char *body)
{
    char head[512];

    snprintf(head, sizeof head,
             "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n",
             path, strlen(body));
    return raw_text(fd, head) && raw_text(fd, body);
}

/* Read some bytes; 0 at the end of the connection, or when nothing comes. */
static size_t receive(int fd, char *to, size_t size)
{
    struct pollfd ready = {fd, POLLIN, 0};
    ssize_t got;

    if (poll(&ready, 1, PATIENCE_MS) != 1)
        return 0;
    got = recv(fd, to, size, 0);
    return got > 0 ? (size_t)got : 0;
}

struct raw_reply raw_read(int fd)
{
    struct raw_reply reply = {0};
    char value[32];
    char dropped[4096];
    size_t used = 0;
    size_t left;

    while (used < sizeof reply.head - 1 && !strstr(reply.head, "\r\n\r\n")) {
        if (receive(fd, reply.head + used, 1) == 0)
            return reply;
        used++;
    }
    reply.status = atoi(reply.head + strcspn(reply.head, " "));
    left = find_header(value, sizeof value, reply.head, "Content-Length")
               ? strtoull(value, NULL, 10)
               : 0;
    used = 0;
    while (left > 0) {
        size_t room = sizeof reply.body - 1 - used;
        char *to = room > 0 ? reply.body + used : dropped;
        size_t most = room > 0 ? room : sizeof dropped;
        size_t got = receive(fd, to, left < most ? left : most);

        if (got == 0) {
            reply.status = 0;
            return reply;
        }
        if (room > 0)
            used += got;
        left -= got;
    }
    return reply;
}

bool raw_readable(int fd)
{
    struct pollfd ready = {fd, POLLIN, 0};

    return poll(&ready, 1, 0) == 1;
}

bool raw_wait_closed(int fd)
{
    char dropped[4096];

    for (;;) {
        struct pollfd ready = {fd, POLLIN, 0};
        ssize_t got;

        if (poll(&ready, 1, PATIENCE_MS) != 1)
            return false;
        got = recv(fd, dropped, sizeof dropped, 0);
        if (got == 0 || (got < 0 && errno != EINTR))
            return true;
    }
}
