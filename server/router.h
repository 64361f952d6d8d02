/* Which handler answers which path. */
#ifndef SERVER_ROUTER_H
#define SERVER_ROUTER_H

#include "server/exchange.h"

#include <nsa/ops.h>
#include <stddef.h>

struct route {
    const char *path; /* a pattern: {name} is one segment, and what stands in [] may be left out */
    unsigned methods; /* of enum metrics_method_bit */
    void (*handle)(struct exchange *ex);
    bool reads_body;
    nsa_op_id op; /* that the path names; NSA_OP_COUNT: none */
};

/* The routes, as a table, for the metrics to name. */
const struct route *router_routes(size_t *count);

/* The index of `route` in the table; the table's size for one that isn't in it. */
size_t router_index(const struct route *route);

/*
 * Whether `path` is one that `pattern` stands for. `params` then holds its names' segments in
 * order, "" for those left out; none is empty or over EXCHANGE_PARAM_BYTES - 1 bytes.
 */
bool router_match(char params[EXCHANGE_MAX_PARAMS][EXCHANGE_PARAM_BYTES], const char *pattern,
                  const char *path);

/* Whether a path, with or without query, is the Open Inference Protocol's. */
bool router_is_oip(const char *path);

/* What the path was like before it was decoded. */
enum router_address {
    ROUTER_PLAIN,
    ROUTER_SLASHED,   /* it had an encoded slash, which is none between segments: an unknown path */
    ROUTER_UNREADABLE /* it had a NUL */
};

/*
 * Set ex->route, ex->oip and ex->params by ex->path. An unknown path gets a route whose handler
 * answers 404, and an unreadable address one that answers 400; the route is never NULL.
 */
void router_find(struct exchange *ex, enum router_address address);

/* Run the handler of ex->route, or answer 405. */
void router_dispatch(struct exchange *ex);

#endif
