/* The log: one event is one line, and one line is one write(2). */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* PIPE_BUF of Linux: a line written to a pipe is never mixed with another. */
#define LOG_MAX_LINE_BYTES ((size_t)4096)

/* Bytes of one text value before escaping; the rest is cut and replaced by "...". */
#define LOG_MAX_VALUE_BYTES ((size_t)512)

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_LEVEL_COUNT };
enum log_format { LOG_LOGFMT, LOG_JSON, LOG_FORMAT_COUNT };

/* "debug", "info", "warn", "error" and "logfmt", "json"; false, *out untouched, for others. */
bool log_level_from_name(enum log_level *out, const char *name);
bool log_format_from_name(enum log_format *out, const char *name);

enum log_field_type {
    LOG_FIELD_NONE,
    LOG_FIELD_TEXT,
    LOG_FIELD_INT,
    LOG_FIELD_DOUBLE,
    LOG_FIELD_BOOL
};

/* A key is a constant of the program: letters, digits and '_'. Values may come from anywhere. */
struct log_field {
    const char *key;
    enum log_field_type type;
    union {
        const char *text; /* NULL is written as an empty text */
        int64_t integer;
        double number;
        bool truth;
    } value;
};

#define LOG_STR(name, what)                                                                        \
    ((struct log_field){.key = (name), .type = LOG_FIELD_TEXT, .value.text = (what)})
#define LOG_INT(name, what)                                                                        \
    ((struct log_field){.key = (name), .type = LOG_FIELD_INT, .value.integer = (int64_t)(what)})
#define LOG_DOUBLE(name, what)                                                                     \
    ((struct log_field){.key = (name), .type = LOG_FIELD_DOUBLE, .value.number = (what)})
#define LOG_BOOL(name, what)                                                                       \
    ((struct log_field){.key = (name), .type = LOG_FIELD_BOOL, .value.truth = (what)})
#define LOG_END ((struct log_field){.type = LOG_FIELD_NONE})

/*
 * Where lines go. Until the first call: standard error, logfmt, info. Call it before threads start.
 * `fd` stays the caller's. The program ignores SIGPIPE, or a closed pipe ends it.
 */
void log_open(int fd, enum log_format format, enum log_level least);

/* Change the least level that is written. Thread-safe. */
void log_set_level(enum log_level least);

/* Whether an event of `level` would be written: saves the work of gathering its fields. */
bool log_enabled(enum log_level level);

/**
 * Write one event. What a value holds cannot end the line, or begin a field or another line:
 * controls, quotes, invalid UTF-8 and Unicode's own line breaks are escaped or replaced. A field
 * that does not fit in the line is left out, and the line says truncated=true.
 *
 *     log_event(LOG_INFO, "listening", LOG_STR("address", text), LOG_INT("models", n), LOG_END);
 *
 * Thread-safe. Allocates nothing, waits for nothing but write(2), and ignores its failures.
 */
#define log_event(level, message, ...)                                                             \
    log_fields((level), (message), (const struct log_field[]){__VA_ARGS__},                        \
               sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field))

/* As log_event(), of an array; LOG_END may end it early. */
void log_fields(enum log_level level, const char *message, const struct log_field *fields,
                size_t field_count);

#endif
