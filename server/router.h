/* Which handler answers which path. */
#ifndef SERVER_ROUTER_H
#define SERVER_ROUTER_H

#include "server/exchange.h"

#include <nsa/ops.h>
#include <stddef.h>

struct route {
    const char *path;
    unsigned methods; /* of enum metrics_method_bit */
    void (*handle)(struct exchange *ex);
    nsa_op_id op; /* of the routes that infer_submit() handles */
};

/* The routes, as a table, for the metrics to name. */
const struct route *router_routes(size_t *count);

/* The index of `route` in the table; the table's size for one that isn't in it. */
size_t router_index(const struct route *route);

/*
 * The route of `path`; for an unknown path one whose handler answers 404, and for NULL, an address
 * that cannot be read, one that answers 400. Never NULL.
 */
const struct route *router_find(const char *path);

/* Run the handler of ex->route, or answer 405. */
void router_dispatch(struct exchange *ex);

#endif
