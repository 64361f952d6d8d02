#include "server/healthcheck.h"

#include "server/options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define TIMEOUT_S 5
#define SCHEME "http://"
#define STATUS_LINE_BYTES 12 /* "HTTP/1.1 200" */

/* Split `url` into an address that config_parse_address() takes and a path. */
static nsa_status split_url(char address[256], const char **path, const char *url, nsa_error *err)
{
    size_t length;

    *path = "/readyz";
    if (strncmp(url, "unix:/", 6) == 0) {
        snprintf(address, 256, "%s", url);
        return NSA_OK;
    }
    if (strncmp(url, SCHEME, strlen(SCHEME)) != 0)
        return nsa_error_set(
            err, NSA_EINVAL,
            "healthcheck: expected http://HOST:PORT/PATH or unix:/PATH, got '%.128s'", url);
    url += strlen(SCHEME);
    length = strcspn(url, "/");
    if (url[length] == '/')
        *path = url + length;
    snprintf(address, 256, "%.*s", (int)(length < 255 ? length : 255), url);
    return NSA_OK;
}

/* Read the beginning of the answer; whether it is a 200. */
static nsa_status read_status(int fd, const char *url, nsa_error *err)
{
    char line[STATUS_LINE_BYTES + 1] = "";
    size_t used = 0;

    while (used < STATUS_LINE_BYTES) {
        ssize_t got = read(fd, line + used, STATUS_LINE_BYTES - used);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return nsa_error_set(err, NSA_EIO, "%s: no answer: %s", url,
                                 got == 0 ? "connection closed" : strerror(errno));
        used += (size_t)got;
    }
    if (strncmp(line, "HTTP/1.", 7) != 0 || strcmp(line + 8, " 200") != 0)
        return nsa_error_set(err, NSA_EIO, "%s: expected status 200, got '%s'", url, line);
    return NSA_OK;
}

nsa_status healthcheck(const char *url, nsa_error *err)
{
    const struct timeval timeout = {.tv_sec = TIMEOUT_S};
    struct sockaddr_storage storage;
    socklen_t size;
    char address[256];
    char request[1024];
    const char *path;
    nsa_status status;
    int length;
    int fd;

    status = split_url(address, &path, url, err);
    if (status == NSA_OK)
        status = config_parse_address(&storage, &size, address, err);
    if (status != NSA_OK)
        return status;
    length = snprintf(request, sizeof request,
                      "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    if (length < 0 || (size_t)length >= sizeof request)
        return nsa_error_set(err, NSA_EINVAL, "healthcheck: the path is too long");
    fd = socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return nsa_error_set(err, NSA_EIO, "%s: %s", url, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(fd, (const struct sockaddr *)&storage, size) != 0 ||
        send(fd, request, (size_t)length, MSG_NOSIGNAL) != length)
        status = nsa_error_set(err, NSA_EIO, "%s: %s", url, strerror(errno));
    else
        status = read_status(fd, url, err);
    close(fd);
    return status;
}
