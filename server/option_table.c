#include "server/option_types.h"
#include "server/processors.h"

#include <nsa/batcher.h>

#define FIELD(name) offsetof(struct config, name)
#define MAX_BYTES ((size_t)1 << 40)
#define DAY_MS ((size_t)24 * 60 * 60 * 1000)
#define MINUTE_US ((size_t)60 * 1000 * 1000)
#define MAX_CONNECTIONS ((size_t)1000000)

static const char *const model_controls[] = {"none", "explicit", "poll", NULL};
static const char *const kernels[] = {"auto", "avx512", "avx2", "portable", NULL};
static const char *const log_formats[] = {"json", "logfmt", NULL};
static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};

/*
 * Columns: name, type, scope, field; least and most; default; what --help calls the value; choices;
 * help. Keep names clear of what Kubernetes puts into the environment for a service called nsad or
 * nsad-…: no NSAD_PORT…, no NSAD_SERVICE_…, nothing that ends in _PORT, _SERVICE_HOST or
 * _SERVICE_PORT.
 */
const struct option option_table[] = {
    {"listen", OPTION_ADDRESS, OPTION_EVERYWHERE, FIELD(listen), 0, 0, "127.0.0.1:8080",
     "ADDR:PORT", NULL, "Where to serve; port 0 picks a free one; unix:/path is a socket file."},
    {"model-repository", OPTION_TEXT, OPTION_EVERYWHERE, FIELD(model_repository), 0, 0, NULL, "DIR",
     NULL, "Serve the models of DIR/NAME/VERSION/model.safetensors."},
    {"model", OPTION_MODELS, OPTION_EVERYWHERE, FIELD(models), 0, 0, NULL, "NAME=FILE", NULL,
     "Serve one .safetensors file as version 1 of NAME; may be repeated."},
    {"http-threads", OPTION_NUMBER, OPTION_EVERYWHERE, FIELD(http_threads), 0,
     PROCESSORS_MAX_THREADS, "0", "N", NULL,
     "Threads that parse and answer; 0: one for each processor."},
    {"compute-threads", OPTION_NUMBER, OPTION_EVERYWHERE, FIELD(compute_threads), 0,
     PROCESSORS_MAX_THREADS, "0", "N", NULL,
     "Threads that run batches; 0: one for each processor."},
    {"max-body-bytes", OPTION_BYTES, OPTION_EVERYWHERE, FIELD(max_body_bytes), 1, MAX_BYTES,
     "64MiB", "BYTES", NULL, "Largest request body, before and after decompression."},
    {"max-connections", OPTION_NUMBER, OPTION_EVERYWHERE, FIELD(max_connections), 1,
     MAX_CONNECTIONS, "1024", "N", NULL, "Connections open at the same time."},
    {"max-batch-rows", OPTION_NUMBER, OPTION_EVERYWHERE, FIELD(max_batch_rows), 1,
     NSA_MAX_BATCH_ROWS, "1024", "N", NULL, "Rows computed together in one batch."},
    {"max-queue-delay-us", OPTION_NUMBER, OPTION_EVERYWHERE, FIELD(max_queue_delay_us), 0,
     MINUTE_US, "0", "US", NULL, "How long a free worker waits for a fuller batch."},
    {"max-queue-bytes", OPTION_BYTES, OPTION_EVERYWHERE, FIELD(max_queue_bytes), 1, MAX_BYTES,
     "256MiB", "BYTES", NULL, "Input and output bytes that may wait; past it the answer is 429."},
    {"request-timeout-ms", OPTION_NUMBER, OPTION_EVERYWHERE, FIELD(request_timeout_ms), 1, DAY_MS,
     "30000", "MS", NULL, "Longest time from a request's first byte to its answer."},
    {"idle-timeout-ms", OPTION_NUMBER, OPTION_EVERYWHERE, FIELD(idle_timeout_ms), 1, DAY_MS,
     "60000", "MS", NULL, "Close a connection that has been silent for so long."},
    {"drain-delay-ms", OPTION_NUMBER, OPTION_EVERYWHERE, FIELD(drain_delay_ms), 0, DAY_MS, "0",
     "MS", NULL, "After SIGTERM, serve on for so long while readiness says 503."},
    {"drain-timeout-ms", OPTION_NUMBER, OPTION_EVERYWHERE, FIELD(drain_timeout_ms), 0, DAY_MS,
     "30000", "MS", NULL, "After the drain delay, wait at most so long for requests in flight."},
    {"model-control", OPTION_CHOICE, OPTION_EVERYWHERE, FIELD(model_control), 0, 0, "none", "NAME",
     model_controls,
     "What changes models, besides SIGHUP: explicit requests, or a poll of the disk."},
    {"poll-interval-ms", OPTION_NUMBER, OPTION_EVERYWHERE, FIELD(poll_interval_ms), 10, DAY_MS,
     "5000", "MS", NULL, "Time between two polls of the disk, with --model-control poll."},
    {"allow-client-shm", OPTION_BOOL, OPTION_EVERYWHERE, FIELD(allow_client_shm), 0, 0, "false",
     NULL, NULL, "Let clients pass tensors in this machine's POSIX shared memory."},
    {"kernel", OPTION_CHOICE, OPTION_EVERYWHERE, FIELD(kernel), 0, 0, "auto", "NAME", kernels,
     "Which kernels compute; auto takes the best that the processor has."},
    {"log-format", OPTION_CHOICE, OPTION_EVERYWHERE, FIELD(log_format), 0, 0, "logfmt", "NAME",
     log_formats, "How log lines on standard error are written."},
    {"log-level", OPTION_CHOICE, OPTION_EVERYWHERE, FIELD(log_level), 0, 0, "info", "NAME",
     log_levels, "The least severe events that are logged."},
    {"access-log", OPTION_BOOL, OPTION_EVERYWHERE, FIELD(access_log), 0, 0, "false", NULL, NULL,
     "Log a line for each request."},
    {"config", OPTION_TEXT, OPTION_FLAG_AND_ENVIRONMENT, FIELD(config), 0, 0, NULL, "FILE", NULL,
     "Read options from a JSON file: an object with the keys of this table."},
    {"check", OPTION_BOOL, OPTION_FLAG_ONLY, FIELD(check), 0, 0, "false", NULL, NULL,
     "Load everything, print what would be served, and exit; 2 if anything is refused."},
    {"print-config", OPTION_BOOL, OPTION_FLAG_ONLY, FIELD(print_config), 0, 0, "false", NULL, NULL,
     "Print the configuration in force, with the source of each value, and exit."},
    {"healthcheck", OPTION_TEXT, OPTION_FLAG_ONLY, FIELD(healthcheck), 0, 0, NULL, "URL", NULL,
     "Ask a server's health URL and exit: 0 if it answers 200, else 1."},
    {"version", OPTION_BOOL, OPTION_FLAG_ONLY, FIELD(version), 0, 0, "false", NULL, NULL,
     "Print the version and exit."},
    {"help", OPTION_BOOL, OPTION_FLAG_ONLY, FIELD(help), 0, 0, "false", NULL, NULL,
     "Print this text and exit."},
    {.name = NULL},
};

_Static_assert(sizeof option_table / sizeof *option_table <= CONFIG_MAX_OPTIONS,
               "struct config has a source for each option");
