/* A health probe that needs no other program: `nsad --healthcheck URL`. */
#ifndef SERVER_HEALTHCHECK_H
#define SERVER_HEALTHCHECK_H

#include <nsa/status.h>

/**
 * GET `url`, "http://HOST:PORT/PATH" or "unix:/path/of/socket" (then /readyz), within five seconds.
 * HOST is an IPv4 address, an IPv6 address in brackets, or localhost.
 * @return NSA_OK when the answer is 200; NSA_EINVAL for another kind of URL; NSA_EIO otherwise
 */
nsa_status healthcheck(const char *url, nsa_error *err);

#endif
