/* A request's body, as it arrives: into one aligned buffer, within the limit; and its deadline. */
#ifndef SERVER_BODY_H
#define SERVER_BODY_H

#include "server/exchange.h"

#include <stdbool.h>
#include <stddef.h>

/* The head is there: make room for a body of the length that it says. False: answered instead. */
bool body_begin(struct exchange *ex);

/*
 * Take the next part of the body. One that nobody will read, because of its route, its length or a
 * lack of memory, is read all the same, up to twice the limit, so that the connection can be used
 * again. False: past that, cut the connection.
 */
bool body_read(struct exchange *ex, const char *data, size_t size);

/* Undo its Content-Encoding, within the limit. False: answered instead. */
bool body_decode(struct exchange *ex);

/* Lower the exchange's deadline to what X-Request-Timeout-Ms asks for; NSA_EINVAL. */
nsa_status exchange_apply_timeout(struct exchange *ex, nsa_error *err);

#endif
