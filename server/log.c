#include "server/log.h"

#include "server/buffer.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Room kept at a line's end for the note that fields are missing, and the line's end itself. */
#define TAIL_BYTES ((size_t)32)

/* How one format writes what surrounds the values. */
struct syntax {
    const char *begin, *separator, *key_end, *end;
    const char *truncated;
    void (*text)(buffer *line, const char *text);
    void (*key)(buffer *line, const char *key);
};

static void json_text(buffer *line, const char *text);
static void logfmt_text(buffer *line, const char *text);
static void logfmt_key(buffer *line, const char *key);

static const struct syntax syntaxes[LOG_FORMAT_COUNT] = {
    [LOG_LOGFMT] = {"", " ", "=", "\n", "truncated=true", logfmt_text, logfmt_key},
    [LOG_JSON] = {"{", ",", ":", "}\n", "\"truncated\":true", json_text, json_text},
};

static const char *const level_names[LOG_LEVEL_COUNT] = {
    [LOG_DEBUG] = "debug",
    [LOG_INFO] = "info",
    [LOG_WARN] = "warn",
    [LOG_ERROR] = "error",
};

static const char *const format_names[LOG_FORMAT_COUNT] = {
    [LOG_LOGFMT] = "logfmt",
    [LOG_JSON] = "json",
};

/* The process's one log. Atomic, so that a late log_open() is no data race. */
static struct {
    atomic_int fd;
    atomic_int format;
    atomic_int level;
} sink = {STDERR_FILENO, LOG_LOGFMT, LOG_INFO};

static bool find_name(int *out, const char *name, const char *const *names, int count)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

bool log_level_from_name(enum log_level *out, const char *name)
{
    int index;

    if (!find_name(&index, name, level_names, LOG_LEVEL_COUNT))
        return false;
    *out = (enum log_level)index;
    return true;
}

bool log_format_from_name(enum log_format *out, const char *name)
{
    int index;

    if (!find_name(&index, name, format_names, LOG_FORMAT_COUNT))
        return false;
    *out = (enum log_format)index;
    return true;
}

void log_open(int fd, enum log_format format, enum log_level least)
{
    atomic_store_explicit(&sink.fd, fd, memory_order_relaxed);
    atomic_store_explicit(&sink.format, (int)format, memory_order_relaxed);
    atomic_store_explicit(&sink.level, (int)least, memory_order_relaxed);
}

void log_set_level(enum log_level least)
{
    atomic_store(&sink.level, least);
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&sink.level, memory_order_relaxed);
}

static void json_text(buffer *line, const char *text)
{
    buffer_append_json_string(line, text);
}

static void logfmt_key(buffer *line, const char *key)
{
    buffer_append_text(line, key);
}

/* A bare word where no reader could take it for anything else, else quoted as in JSON. */
static void logfmt_text(buffer *line, const char *text)
{
    bool bare = *text != '\0';

    for (const char *s = text; *s && bare; s++)
        bare = *s > ' ' && *s < 0x7F && *s != '"' && *s != '=' && *s != '\\';
    if (bare)
        buffer_append_text(line, text);
    else
        buffer_append_json_string(line, text);
}

/*
 * Length of the UTF-8 sequence at `s` that a terminal or a log reader may act on: the C1 controls
 * (U+0080-9F, among them NEL), and U+2028-202E, which end lines or turn the text's direction.
 */
static size_t unsafe_length(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;

    if (u[0] == 0xC2 && u[1] >= 0x80 && u[1] < 0xA0)
        return 2;
    if (u[0] == 0xE2 && u[1] == 0x80 && u[2] >= 0xA8 && u[2] <= 0xAE)
        return 3;
    return 0;
}

/* Write `text`, cut to its limit between two characters, and without unsafe characters. */
static void put_text(buffer *line, const struct syntax *syntax, const char *text)
{
    static const char ellipsis[] = "...";
    char clean[LOG_MAX_VALUE_BYTES + sizeof ellipsis];
    size_t size = 0;

    while (*text && size < LOG_MAX_VALUE_BYTES) {
        size_t skip = unsafe_length(text);

        /* 0xFF is never UTF-8, so that it comes out as U+FFFD. */
        clean[size++] = skip ? '\xFF' : *text;
        text += skip ? skip : 1;
    }
    if (*text) {
        for (int i = 1; i < 4 && size > 0 && ((unsigned char)*text & 0xC0) == 0x80; i++) {
            text--;
            size--;
        }
        memcpy(clean + size, ellipsis, sizeof ellipsis);
    } else {
        clean[size] = '\0';
    }
    syntax->text(line, clean);
}

static void put_double(buffer *line, const struct syntax *syntax, double number)
{
    char text[32];

    snprintf(text, sizeof text, "%.9g", number);
    if (isfinite(number))
        buffer_append_text(line, text);
    else
        syntax->text(line, text);
}

static void put_field(buffer *line, const struct syntax *syntax, const struct log_field *field)
{
    size_t mark = line->size;

    if (mark > strlen(syntax->begin))
        buffer_append_text(line, syntax->separator);
    syntax->key(line, field->key);
    buffer_append_text(line, syntax->key_end);
    switch (field->type) {
    case LOG_FIELD_TEXT:
        put_text(line, syntax, field->value.text ? field->value.text : "");
        break;
    case LOG_FIELD_INT:
        buffer_printf(line, "%lld", (long long)field->value.integer);
        break;
    case LOG_FIELD_DOUBLE:
        put_double(line, syntax, field->value.number);
        break;
    case LOG_FIELD_BOOL:
        buffer_append_text(line, field->value.truth ? "true" : "false");
        break;
    case LOG_FIELD_NONE:
        break;
    }
    if (line->status != NSA_OK)
        line->size = mark;
}

/* "2026-01-31T23:59:59.999Z" */
static void format_now(char text[32])
{
    struct timespec now;
    struct tm utc;
    size_t length;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    length = strftime(text, 24, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + length, 32 - length, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

void log_fields(enum log_level level, const char *message, const struct log_field *fields,
                size_t field_count)
{
    const struct syntax *syntax =
        &syntaxes[atomic_load_explicit(&sink.format, memory_order_relaxed)];
    char now[32];
    char storage[LOG_MAX_LINE_BYTES];
    const size_t limit = sizeof storage - TAIL_BYTES;
    /* A buffer over the stack: at its limit it fails, it never grows. */
    buffer line = {.data = storage, .capacity = limit, .max_bytes = limit};
    bool truncated = false;
    ssize_t written;

    if (!log_enabled(level))
        return;
    format_now(now);
    buffer_append_text(&line, syntax->begin);
    put_field(&line, syntax, &LOG_STR("time", now));
    put_field(&line, syntax, &LOG_STR("level", level_names[level]));
    put_field(&line, syntax, &LOG_STR("msg", message));
    for (size_t i = 0; i < field_count && fields[i].type != LOG_FIELD_NONE; i++) {
        put_field(&line, syntax, &fields[i]);
        if (line.status != NSA_OK)
            truncated = true;
        line.status = NSA_OK;
    }
    line.capacity = line.max_bytes = sizeof storage;
    if (truncated) {
        buffer_append_text(&line, syntax->separator);
        buffer_append_text(&line, syntax->truncated);
    }
    buffer_append_text(&line, syntax->end);
    written = write(atomic_load_explicit(&sink.fd, memory_order_relaxed), line.data, line.size);
    (void)written; /* there is nowhere to say that the log is gone */
}
