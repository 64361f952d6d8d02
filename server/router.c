#include "server/router.h"

#include "server/infer.h"
#include "server/pages.h"

#include <stdio.h>
#include <string.h>

#define READ (METRICS_GET | METRICS_HEAD)

/* One row per path of openapi.yaml; tests/contract checks both directions. */
static const struct route routes[] = {
    {"/v1/select", METRICS_POST, infer_submit, NSA_SELECT},
    {"/v1/compress", METRICS_POST, infer_submit, NSA_COMPRESS},
    {"/v1/posembed", METRICS_POST, infer_submit, NSA_POSEMBED},
    {"/v1/models", READ, page_models, NSA_OP_COUNT},
    {"/livez", READ, page_live, NSA_OP_COUNT},
    {"/readyz", READ, page_ready, NSA_OP_COUNT},
    {"/v2/health/live", READ, page_live, NSA_OP_COUNT},
    {"/v2/health/ready", READ, page_ready, NSA_OP_COUNT},
    {"/metrics", READ, page_metrics, NSA_OP_COUNT},
    {"/openapi.yaml", READ, page_openapi, NSA_OP_COUNT},
};

#define ROUTE_COUNT (sizeof routes / sizeof *routes)

static const struct {
    const char *name;
    unsigned bit;
} methods[] = {{"GET", METRICS_GET}, {"HEAD", METRICS_HEAD}, {"POST", METRICS_POST}};

#define METHOD_COUNT (sizeof methods / sizeof *methods)

static void answer_unknown(struct exchange *ex)
{
    char message[NSA_ERROR_MESSAGE_BYTES];

    snprintf(message, sizeof message, "no such route: %.256s", ex->path);
    answer_error(ex, 404, "unknown_route", message);
}

static void answer_unreadable(struct exchange *ex)
{
    answer_error(ex, 400, "invalid_argument", "the address: expected no %00, got one");
}

static const struct route unknown = {"other", ~0u, answer_unknown, NSA_OP_COUNT};
static const struct route unreadable = {"other", ~0u, answer_unreadable, NSA_OP_COUNT};

const struct route *router_routes(size_t *count)
{
    *count = ROUTE_COUNT;
    return routes;
}

size_t router_index(const struct route *route)
{
    return route->handle == answer_unknown || route->handle == answer_unreadable
               ? ROUTE_COUNT
               : (size_t)(route - routes);
}

const struct route *router_find(const char *path)
{
    if (!path)
        return &unreadable;
    for (size_t i = 0; i < ROUTE_COUNT; i++) {
        if (strcmp(path, routes[i].path) == 0)
            return &routes[i];
    }
    return &unknown;
}

static void answer_wrong_method(struct exchange *ex)
{
    char message[NSA_ERROR_MESSAGE_BYTES];
    char allowed[32] = "";

    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (!(ex->route->methods & methods[i].bit))
            continue;
        snprintf(allowed + strlen(allowed), sizeof allowed - strlen(allowed), "%s%s",
                 *allowed ? ", " : "", methods[i].name);
    }
    snprintf(message, sizeof message, "%s: expected %s, got %.32s", ex->route->path, allowed,
             ex->method);
    answer_error(ex, 405, "method_not_allowed", message);
    answer_header(ex, "Allow", "%s", allowed);
}

void router_dispatch(struct exchange *ex)
{
    unsigned bit = 0;

    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (strcmp(ex->method, methods[i].name) == 0)
            bit = methods[i].bit;
    }
    if ((ex->route->methods & bit) || ex->route->methods == ~0u)
        ex->route->handle(ex);
    else
        answer_wrong_method(ex);
}
