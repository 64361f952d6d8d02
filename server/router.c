#include "server/router.h"

#include "server/infer.h"
#include "server/oip_pages.h"
#include "server/pages.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define READ (METRICS_GET | METRICS_HEAD)

/* A row for the paths of openapi.yaml that it stands for; tests/contract checks both directions. */
static const struct route routes[] = {
    {"/v1/select", METRICS_POST, infer_submit, true, NSA_SELECT},
    {"/v1/compress", METRICS_POST, infer_submit, true, NSA_COMPRESS},
    {"/v1/posembed", METRICS_POST, infer_submit, true, NSA_POSEMBED},
    {"/v1/models", READ, page_models, false, NSA_OP_COUNT},
    {"/livez", READ, page_live, false, NSA_OP_COUNT},
    {"/readyz", READ, page_ready, false, NSA_OP_COUNT},
    {"/metrics", READ, page_metrics, false, NSA_OP_COUNT},
    {"/openapi.yaml", READ, page_openapi, false, NSA_OP_COUNT},
    {"/v2/models/{model}[/versions/{version}]/infer", METRICS_POST, infer_submit, true,
     NSA_OP_COUNT},
    {"/v2[/]", READ, oip_server, false, NSA_OP_COUNT},
    {"/v2/health/live", READ, page_live, false, NSA_OP_COUNT},
    {"/v2/health/ready", READ, page_ready, false, NSA_OP_COUNT},
    {"/v2/models[/{model}[/versions/{version}]]/stats", READ, oip_statistics, false, NSA_OP_COUNT},
    {"/v2/models/{model}[/versions/{version}]", READ, oip_model, false, NSA_OP_COUNT},
    {"/v2/models/{model}[/versions/{version}]/ready", READ, oip_model_ready, false, NSA_OP_COUNT},
    {"/v2/models/{model}[/versions/{version}]/config", READ, oip_model_config, false, NSA_OP_COUNT},
    {"/v2/repository/index", METRICS_POST, oip_index, true, NSA_OP_COUNT},
    {"/v2/repository/models/{model}/load", METRICS_POST, oip_load, true, NSA_OP_COUNT},
    {"/v2/repository/models/{model}/unload", METRICS_POST, oip_unload, true, NSA_OP_COUNT},
    {"/v2/logging", READ | METRICS_POST, oip_logging, true, NSA_OP_COUNT},
    {"/v2[/models/{model}]/trace/setting", READ | METRICS_POST, oip_not_supported, false,
     NSA_OP_COUNT},
    {"/v2/systemsharedmemory[/region/{region}]/status", READ, oip_shared_memory_status, false,
     NSA_OP_COUNT},
    {"/v2/systemsharedmemory/region/{region}/register", METRICS_POST, oip_shared_memory_register,
     true, NSA_OP_COUNT},
    {"/v2/systemsharedmemory[/region/{region}]/unregister", METRICS_POST,
     oip_shared_memory_unregister, false, NSA_OP_COUNT},
    {"/v2/cudasharedmemory[/region/{region}]/status", READ, oip_not_supported, false, NSA_OP_COUNT},
    {"/v2/cudasharedmemory/region/{region}/register", METRICS_POST, oip_not_supported, false,
     NSA_OP_COUNT},
    {"/v2/cudasharedmemory[/region/{region}]/unregister", METRICS_POST, oip_not_supported, false,
     NSA_OP_COUNT},
};

#define ROUTE_COUNT (sizeof routes / sizeof *routes)

static const struct {
    const char *name;
    unsigned bit;
} methods[] = {{"GET", METRICS_GET}, {"HEAD", METRICS_HEAD}, {"POST", METRICS_POST}};

#define METHOD_COUNT (sizeof methods / sizeof *methods)

static void answer_unknown(struct exchange *ex)
{
    static const char models[] = "/v2/models/";
    size_t prefix = strlen(models);
    char message[NSA_ERROR_MESSAGE_BYTES];

    /* A name that no model can have, with a slash in it or too long, looks like a route. */
    if (strncmp(ex->path, models, prefix) == 0)
        snprintf(message, sizeof message,
                 "Request for unknown model: '%.256s' is not found, and no route either",
                 ex->path + prefix);
    else
        snprintf(message, sizeof message, "no such route: %.256s", ex->path);
    answer_error(ex, FAULT_UNKNOWN_ROUTE, message);
}

static void answer_unreadable(struct exchange *ex)
{
    answer_error(ex, FAULT_INVALID_ARGUMENT, "the address: expected no %00, got one");
}

static const struct route unknown = {"other", ~0u, answer_unknown, false, NSA_OP_COUNT};
static const struct route unreadable = {"other", ~0u, answer_unreadable, false, NSA_OP_COUNT};

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

/* --- matching ------------------------------------------------------------------------------ */

struct segment {
    const char *text;
    size_t size;
};

/* Match from the pattern's parameter `count` on; what is left out leaves no trace in `params`. */
static bool match(struct segment params[EXCHANGE_MAX_PARAMS], size_t count, const char *pattern,
                  const char *path)
{
    for (;; pattern++) {
        switch (*pattern) {
        case '\0':
            return *path == '\0';
        case '[':
            if (match(params, count, pattern + 1, path))
                return true;
            memset(params + count, 0, (EXCHANGE_MAX_PARAMS - count) * sizeof *params);
            for (size_t open = 1; open > 0;) {
                pattern++;
                open += *pattern == '[';
                open -= *pattern == ']';
            }
            break;
        case ']':
            break;
        case '{': {
            size_t size = strcspn(path, "/");

            if (size == 0 || size >= EXCHANGE_PARAM_BYTES)
                return false;
            assert(count < EXCHANGE_MAX_PARAMS);
            params[count++] = (struct segment){path, size};
            path += size;
            pattern = strchr(pattern, '}');
            break;
        }
        default:
            if (*path++ != *pattern)
                return false;
        }
    }
}

bool router_match(char params[EXCHANGE_MAX_PARAMS][EXCHANGE_PARAM_BYTES], const char *pattern,
                  const char *path)
{
    struct segment found[EXCHANGE_MAX_PARAMS] = {{0}};

    if (!match(found, 0, pattern, path))
        return false;
    for (size_t i = 0; i < EXCHANGE_MAX_PARAMS; i++) {
        memcpy(params[i], found[i].size > 0 ? found[i].text : "", found[i].size);
        params[i][found[i].size] = '\0';
    }
    return true;
}

bool router_is_oip(const char *path)
{
    return strncmp(path, "/v2", 3) == 0 && strchr("/?", path[3]);
}

void router_find(struct exchange *ex, enum router_address address)
{
    ex->oip = router_is_oip(ex->path);
    ex->route = address == ROUTER_UNREADABLE ? &unreadable : &unknown;
    for (size_t i = 0; address == ROUTER_PLAIN && i < ROUTE_COUNT; i++) {
        if (router_match(ex->params, routes[i].path, ex->path)) {
            ex->route = &routes[i];
            return;
        }
    }
}

/* --- dispatching --------------------------------------------------------------------------- */

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
    answer_error(ex, FAULT_METHOD_NOT_ALLOWED, message);
    answer_header_copy(ex, "Allow", allowed);
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
