/* The listening socket. */
#ifndef SERVER_LISTENER_H
#define SERVER_LISTENER_H

#include <nsa/status.h>

#define LISTENER_ADDRESS_BYTES 160

/**
 * Bind and listen on `address`, as config_parse_address() takes it. The stale socket of a server
 * that is gone is replaced; a live one is an error, and so is any other file.
 * @param[out] fd    non-blocking; caller closes
 * @param[out] bound  where it listens, with the port that was picked for port 0
 * @return NSA_OK, NSA_EINVAL or NSA_EIO
 */
nsa_status listener_open(int *fd, char bound[LISTENER_ADDRESS_BYTES], const char *address,
                         nsa_error *err);

/* Remove the socket file of a "unix:" address; nothing for others. */
void listener_unlink(const char *bound);

#endif
