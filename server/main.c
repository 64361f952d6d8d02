/* The process: configuration, start, signals, drain. */
#include "server/control.h"
#include "server/healthcheck.h"
#include "server/http.h"
#include "server/log.h"
#include "server/memory.h"
#include "server/pages.h"
#include "server/processors.h"
#include "server/registry.h"
#include "server/router.h"
#include "server/server.h"
#include "server/shared_memory.h"
#include "server/signals.h"
#include "server/version.h"

#include <errno.h>
#include <nsa/cpu.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXIT_BAD_USAGE 2
#define SWEEP_MS 100
#define NS_PER_MS UINT64_C(1000000)

extern char **environ;

static int fail(const nsa_error *err)
{
    fprintf(stderr, "nsad: %s\n", err->message);
    return EXIT_BAD_USAGE;
}

/* --- signals ------------------------------------------------------------------------------- */

/* Wait for a signal for SWEEP_MS, then sweep. True for a signal to stop. */
static bool wait_to_stop(struct server *server, struct http *http)
{
    int number = signals_wait(SWEEP_MS);

    if (number == SIGHUP)
        control_reload(atomic_load(&server->control));
    http_sweep(http);
    registry_sweep(server->registry);
    return number == SIGTERM || number == SIGINT;
}

/* --- drain --------------------------------------------------------------------------------- */

/*
 * Not ready at once; serve on for the delay, then finish what has begun. Returns the exit status: 1
 * when a second signal or the timeout ends it early.
 */
static int drain(struct server *server, struct http *http)
{
    uint64_t begin = nsa_now_ns();
    uint64_t delay_end = begin + server->config.drain_delay_ms * NS_PER_MS;
    uint64_t end = delay_end + server->config.drain_timeout_ms * NS_PER_MS;

    atomic_store(&server->draining, true);
    atomic_store(&server->ready, false);
    log_event(LOG_INFO, "draining", LOG_INT("delay_ms", server->config.drain_delay_ms), LOG_END);
    while (nsa_now_ns() < delay_end) {
        if (wait_to_stop(server, http))
            return EXIT_FAILURE;
    }
    http_quiesce(http);
    /* Twice, a sweep apart: a request may be between the socket and its connection's phase. */
    for (int quiet = 0; quiet < 2; quiet = http_idle(http) ? quiet + 1 : 0) {
        if (wait_to_stop(server, http) || nsa_now_ns() > end)
            return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

/* --- start --------------------------------------------------------------------------------- */

static nsa_status make_metrics(struct server *server, nsa_error *err)
{
    struct metrics_setup setup = {
        .version = nsad_version,
        .revision = nsad_revision,
        .kernel = nsa_cpu_kernel(),
    };
    const struct route *table = router_routes(&setup.route_count);
    struct metrics_route *routes = calloc(setup.route_count, sizeof *routes);
    nsa_status status;

    if (!routes)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for the metrics");
    for (size_t i = 0; i < setup.route_count; i++)
        routes[i] = (struct metrics_route){table[i].path, table[i].methods};
    setup.routes = routes;
    status = metrics_create(&server->metrics, &setup, err);
    free(routes);
    return status;
}

/* Load all models; any that is refused fails it. */
static nsa_status load_all(struct catalog **out, const struct loader *loader, nsa_error *err)
{
    struct catalog *catalog = NULL;
    size_t refused = 0;
    nsa_status status = loader_reload(&catalog, &refused, loader, NULL, err);

    if (status == NSA_OK && refused > 0)
        status = nsa_error_set(err, NSA_EINVAL, "%zu model%s refused", refused,
                               refused == 1 ? " was" : "s were");
    if (status == NSA_OK)
        *out = catalog;
    else
        catalog_free(catalog);
    return status;
}

/* Load the models and open them to requests, and to changes. */
static nsa_status load_models(struct server *server, nsa_error *err)
{
    const struct loader loader = {&server->config, server->batcher, server->metrics};
    struct control *control;
    struct catalog *catalog;
    nsa_status status = load_all(&catalog, &loader, err);

    if (status != NSA_OK)
        return status;
    registry_publish(server->registry, catalog);
    status = control_open(&control, server, err);
    if (status != NSA_OK)
        return status;
    atomic_store(&server->control, control);
    atomic_store(&server->ready, true);
    return NSA_OK;
}

static nsa_status open_memory(struct server *server, nsa_error *err)
{
    size_t kept_bytes = SERVER_KEPT_BYTES / threads_or_processors(server->config.http_threads);

    return memory_open(&server->memory,
                       kept_bytes > SERVER_LEAST_KEPT_BYTES ? kept_bytes : SERVER_LEAST_KEPT_BYTES,
                       err);
}

static nsa_status open_batcher(struct server *server, nsa_error *err)
{
    const struct config *config = &server->config;
    const nsa_batcher_options options = {
        .worker_count = threads_or_processors(config->compute_threads),
        .max_queue_bytes = config->max_queue_bytes,
    };

    return nsa_batcher_open(&server->batcher, &options, err);
}

/* What there is before the first request. */
static nsa_status prepare(struct server *server, nsa_error *err)
{
    nsa_status status = make_metrics(server, err);

    server->registry = registry_open();
    if (status == NSA_OK && !server->registry)
        status = nsa_error_set(err, NSA_ENOMEM, "out of memory for the models");
    if (status == NSA_OK && server->config.allow_client_shm)
        status = shared_memory_open(&server->shared_memory, err);
    if (status == NSA_OK)
        status = open_memory(server, err);
    return status == NSA_OK ? open_batcher(server, err) : status;
}

/* Everything but HTTP, after it. */
static void dispose(struct server *server)
{
    control_close(atomic_load(&server->control));
    registry_close(server->registry);
    nsa_batcher_close(server->batcher);
    memory_close(server->memory);
    shared_memory_close(server->shared_memory);
    metrics_free(server->metrics);
}

static int serve(struct server *server)
{
    struct http *http = NULL;
    int exit_status = EXIT_BAD_USAGE;
    nsa_error err;
    nsa_status status = prepare(server, &err);

    if (status == NSA_OK)
        status = http_start(&http, server, &err);
    if (status == NSA_OK) {
        log_event(LOG_INFO, "listening", LOG_STR("address", http_address(http)), LOG_END);
        status = load_models(server, &err);
    }
    if (status == NSA_OK) {
        log_event(LOG_INFO, "ready", LOG_STR("address", http_address(http)),
                  LOG_STR("kernel", nsa_cpu_kernel()), LOG_STR("version", nsad_version), LOG_END);
        while (!wait_to_stop(server, http)) {
        }
        exit_status = drain(server, http);
        log_event(LOG_INFO, "stopped", LOG_INT("exit_status", exit_status), LOG_END);
        if (exit_status != EXIT_SUCCESS)
            _exit(exit_status); /* what is in flight ends here */
    } else {
        log_event(LOG_ERROR, "cannot start", LOG_STR("reason", err.message), LOG_END);
    }
    http_stop(http);
    dispose(server);
    return exit_status;
}

/* --check: what would be served, on standard output. */
static int check(const struct config *config)
{
    const struct loader loader = {.config = config};
    buffer page = {.max_bytes = SIZE_MAX};
    struct catalog *catalog;
    nsa_error err;

    if (load_all(&catalog, &loader, &err) != NSA_OK)
        return fail(&err);
    pages_write_models(&page, catalog);
    if (page.status == NSA_OK)
        fwrite(page.data, 1, page.size, stdout);
    buffer_free(&page);
    catalog_free(catalog);
    return fflush(stdout) == 0 && page.status == NSA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int print_config(const struct config *config)
{
    nsa_status status = config_print_json(stdout, config);

    return status == NSA_OK && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run(struct server *server)
{
    const struct config *config = &server->config;
    enum log_format format = LOG_LOGFMT;
    enum log_level level = LOG_INFO;
    nsa_error err;

    log_format_from_name(&format, config->log_format);
    log_level_from_name(&level, config->log_level);
    log_open(STDERR_FILENO, format, level);
    if (nsa_cpu_use(config->kernel, &err) != NSA_OK)
        return fail(&err);
    if (config->check)
        return check(config);
    if (!signals_install()) {
        nsa_error_set(&err, NSA_EIO, "cannot take over signals: %s", strerror(errno));
        return fail(&err);
    }
    return serve(server);
}

int main(int argc, char *argv[])
{
    static struct server server;
    nsa_error err;
    int exit_status;

    if (config_load(&server.config, argc, argv, environ, &err) != NSA_OK)
        return fail(&err);
    if (server.config.help) {
        config_print_help(stdout);
        exit_status = fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    } else if (server.config.version) {
        exit_status =
            printf("nsad %s (%s)\n", nsad_version, nsad_revision) > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    } else if (server.config.print_config) {
        exit_status = print_config(&server.config);
    } else if (server.config.healthcheck) {
        exit_status = healthcheck(server.config.healthcheck, &err) == NSA_OK ? EXIT_SUCCESS : 1;
        if (exit_status != EXIT_SUCCESS)
            fail(&err);
    } else {
        exit_status = run(&server);
    }
    config_free(&server.config);
    return exit_status;
}
