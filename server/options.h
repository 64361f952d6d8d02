/* The configuration: from flags, the environment, a JSON file and defaults, in this order. */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <nsa/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>

#define CONFIG_MAX_OPTIONS 64
#define CONFIG_MAX_MODELS ((size_t)1024)
#define CONFIG_MAX_TEXT_BYTES ((size_t)4096)        /* of one value, its NUL included */
#define CONFIG_MAX_FILE_BYTES ((size_t)1024 * 1024) /* of the --config file */

/* Where an option's value came from, the weakest first. */
enum config_source {
    CONFIG_FROM_DEFAULT,
    CONFIG_FROM_FILE,
    CONFIG_FROM_ENVIRONMENT,
    CONFIG_FROM_FLAG
};

struct config_model {
    char *name;
    char *path; /* of a .safetensors file */
};

struct config_models {
    struct config_model *items;
    size_t count;
};

/* Texts are owned by the config; NULL where an option has no default and was not given. */
struct config {
    char *listen; /* an address that config_parse_address() takes */
    char *model_repository;
    struct config_models models;
    size_t http_threads;    /* 0: one for each processor */
    size_t compute_threads; /* 0: one for each processor */
    size_t max_body_bytes;
    size_t max_connections;
    size_t max_batch_rows;
    size_t max_queue_delay_us;
    size_t max_queue_bytes;
    size_t request_timeout_ms;
    size_t idle_timeout_ms;
    size_t drain_delay_ms;
    size_t drain_timeout_ms;
    const char *model_control; /* "none", "explicit" or "poll"; static */
    size_t poll_interval_ms;
    bool allow_client_shm;
    const char *kernel;     /* a name for nsa_cpu_use(); static */
    const char *log_format; /* a name for log_format_from_name(); static */
    const char *log_level;  /* a name for log_level_from_name(); static */
    bool access_log;
    char *config;
    bool check;
    bool print_config;
    char *healthcheck; /* a URL */
    bool version;
    bool help;
    unsigned char sources[CONFIG_MAX_OPTIONS]; /* of enum config_source, in the table's order */
};

/**
 * Gather the configuration: a flag beats the environment, which beats the file named by --config,
 * which beats the default. Values that are beaten are checked too. With --help or --version neither
 * the environment nor the file is read, so that both work whatever these hold. Environment
 * variables that belong to no option, and empty ones, are ignored.
 * @param[out] out   caller frees with config_free(); untouched on error
 * @param argc, argv as main() got them
 * @param envp       as environ: "NAME=value" texts, then NULL
 * @return NSA_OK; NSA_EINVAL for an unknown option or key (the message names the nearest known one)
 *         or a bad value (the message names where it came from, what was expected, and the value);
 *         NSA_EIO, NSA_EFORMAT or NSA_ELIMIT for a file that cannot be read, is not JSON or is too
 *         large; NSA_ENOMEM
 */
nsa_status config_load(struct config *out, int argc, char *const argv[], char *const envp[],
                       nsa_error *err);

/* Free what the config owns and zero it. */
void config_free(struct config *config);

/**
 * Parse "127.0.0.1:8080", "localhost:8080" (127.0.0.1), "[::1]:8080" or "unix:/path".
 * @param[out] out, out_bytes  ready for bind(2); untouched on error
 * @return NSA_OK, or NSA_EINVAL
 */
nsa_status config_parse_address(struct sockaddr_storage *out, socklen_t *out_bytes,
                                const char *text, nsa_error *err);

/* What --help prints. */
void config_print_help(FILE *to);

/*
 * The effective configuration as one JSON object: each key has {"value": …, "source": "flag" |
 * "environment" | "file" | "default"}. NSA_ENOMEM, with nothing printed, or NSA_EIO.
 */
nsa_status config_print_json(FILE *to, const struct config *config);

/* Every option as a Markdown table. */
void options_print_markdown(FILE *to);

#endif
