#include "server/listener.h"

#include "server/options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define UNIX_PREFIX "unix:"

static void describe(char bound[LISTENER_ADDRESS_BYTES], int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    char host[INET6_ADDRSTRLEN] = "";

    getsockname(fd, (struct sockaddr *)&address, &size);
    if (address.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&address;

        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(bound, LISTENER_ADDRESS_BYTES, "%s:%u", host, ntohs(in->sin_port));
    } else if (address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address;

        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        snprintf(bound, LISTENER_ADDRESS_BYTES, "[%s]:%u", host, ntohs(in6->sin6_port));
    } else {
        snprintf(bound, LISTENER_ADDRESS_BYTES, UNIX_PREFIX "%s",
                 ((const struct sockaddr_un *)&address)->sun_path);
    }
}

/* Remove the socket at `path` if nobody answers there. */
static void remove_stale(const struct sockaddr_un *address, socklen_t size)
{
    struct stat info;
    int fd;

    if (stat(address->sun_path, &info) != 0 || !S_ISSOCK(info.st_mode))
        return;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)address, size) != 0 && errno == ECONNREFUSED)
        unlink(address->sun_path);
    close(fd);
}

nsa_status listener_open(int *fd, char bound[LISTENER_ADDRESS_BYTES], const char *address,
                         nsa_error *err)
{
    struct sockaddr_storage storage;
    socklen_t size;
    int on = 1;
    int opened;
    nsa_status status = config_parse_address(&storage, &size, address, err);

    if (status != NSA_OK)
        return status;
    if (storage.ss_family == AF_UNIX)
        remove_stale((const struct sockaddr_un *)&storage, size);
    opened = socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (opened < 0)
        return nsa_error_set(err, NSA_EIO, "listen %s: %s", address, strerror(errno));
    if (storage.ss_family != AF_UNIX)
        setsockopt(opened, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(opened, (const struct sockaddr *)&storage, size) != 0 ||
        listen(opened, SOMAXCONN) != 0) {
        status = nsa_error_set(err, NSA_EIO, "listen %s: %s", address, strerror(errno));
        close(opened);
        return status;
    }
    describe(bound, opened);
    *fd = opened;
    return NSA_OK;
}

void listener_unlink(const char *bound)
{
    if (strncmp(bound, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
        unlink(bound + strlen(UNIX_PREFIX));
}
