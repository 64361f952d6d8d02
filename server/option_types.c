#include "server/option_types.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <nsa/size.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define MAX_HOST_BYTES 64

/* The largest first, so that printing finds the shortest text. */
static const struct {
    const char *suffix;
    size_t bytes;
} units[] = {
    {"GiB", (size_t)1 << 30},
    {"MiB", (size_t)1 << 20},
    {"KiB", (size_t)1 << 10},
    {"", 1},
};

#define UNIT_COUNT (sizeof units / sizeof *units)

/* --- addresses ------------------------------------------------------------------------------- */

static bool parse_unix(struct sockaddr_storage *out, socklen_t *out_bytes, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(path) + 1;

    if (*path != '/' || size > sizeof address.sun_path)
        return false;
    memcpy(address.sun_path, path, size);
    memset(out, 0, sizeof *out);
    memcpy(out, &address, sizeof address);
    *out_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    return true;
}

/* A decimal number of at most five digits and 65535. */
static bool parse_port(in_port_t *out, const char *text)
{
    size_t digits = strspn(text, "0123456789");
    unsigned long port;

    if (digits == 0 || digits > 5 || text[digits] != '\0')
        return false;
    port = strtoul(text, NULL, 10);
    if (port > 65535)
        return false;
    *out = htons((in_port_t)port);
    return true;
}

static bool parse_inet(struct sockaddr_storage *out, socklen_t *out_bytes, const char *text)
{
    const char *colon = strrchr(text, ':');
    bool bracketed = *text == '[';
    char host[MAX_HOST_BYTES];
    size_t size;
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    in_port_t port;

    if (!colon || !parse_port(&port, colon + 1))
        return false;
    size = (size_t)(colon - text);
    if (bracketed && (size < 2 || text[size - 1] != ']'))
        return false;
    text += bracketed;
    size -= bracketed ? 2 : 0;
    if (size >= sizeof host)
        return false;
    memcpy(host, text, size);
    host[size] = '\0';
    v4.sin_port = v6.sin6_port = port;
    if (bracketed ? inet_pton(AF_INET6, host, &v6.sin6_addr) != 1
                  : inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host,
                              &v4.sin_addr) != 1)
        return false;
    memset(out, 0, sizeof *out);
    memcpy(out, bracketed ? (const void *)&v6 : &v4, bracketed ? sizeof v6 : sizeof v4);
    *out_bytes = bracketed ? sizeof v6 : sizeof v4;
    return true;
}

nsa_status config_parse_address(struct sockaddr_storage *out, socklen_t *out_bytes,
                                const char *text, nsa_error *err)
{
    static const char scheme[] = "unix:";
    bool ok = strncmp(text, scheme, sizeof scheme - 1) == 0
                  ? parse_unix(out, out_bytes, text + sizeof scheme - 1)
                  : parse_inet(out, out_bytes, text);

    if (!ok)
        return nsa_error_set(err, NSA_EINVAL,
                             "expected ADDR:PORT, [ADDR]:PORT or unix:/path, got \"%s\"", text);
    return NSA_OK;
}

/* --- values ---------------------------------------------------------------------------------- */

static nsa_status parse_text(void *field, const struct option *option, const char *text)
{
    char **to = field;
    size_t size = strlen(text) + 1;
    char *copy;

    (void)option;
    if (size == 1 || size > CONFIG_MAX_TEXT_BYTES)
        return NSA_EINVAL;
    copy = malloc(size);
    if (!copy)
        return NSA_ENOMEM;
    memcpy(copy, text, size);
    free(*to);
    *to = copy;
    return NSA_OK;
}

static void print_text(buffer *out, const void *field)
{
    const char *text = *(char *const *)field;

    if (text)
        buffer_append_json_string(out, text);
    else
        buffer_append_text(out, "null");
}

static void release_text(void *field)
{
    char **text = field;

    free(*text);
    *text = NULL;
}

static nsa_status parse_address(void *field, const struct option *option, const char *text)
{
    struct sockaddr_storage address;
    socklen_t bytes;

    if (config_parse_address(&address, &bytes, text, NULL) != NSA_OK)
        return NSA_EINVAL;
    return parse_text(field, option, text);
}

/* "NAME=FILE", where no other model has the name. The name's copy holds the path too. */
static nsa_status parse_model(void *field, const struct option *option, const char *text)
{
    struct config_models *models = field;
    struct config_model *items;
    const char *equals = strchr(text, '=');
    char *name = NULL;
    size_t name_bytes;
    nsa_status status;

    if (!equals || equals == text || equals[1] == '\0' || models->count >= CONFIG_MAX_MODELS)
        return NSA_EINVAL;
    name_bytes = (size_t)(equals - text);
    for (size_t i = 0; i < models->count; i++) {
        if (strlen(models->items[i].name) == name_bytes &&
            memcmp(models->items[i].name, text, name_bytes) == 0)
            return NSA_EINVAL;
    }
    status = parse_text(&name, option, text);
    if (status != NSA_OK)
        return status;
    items = realloc(models->items, (models->count + 1) * sizeof *items);
    if (!items) {
        free(name);
        return NSA_ENOMEM;
    }
    name[name_bytes] = '\0';
    models->items = items;
    items[models->count++] = (struct config_model){.name = name, .path = name + name_bytes + 1};
    return NSA_OK;
}

static void print_models(buffer *out, const void *field)
{
    const struct config_models *models = field;

    buffer_append_text(out, "[");
    for (size_t i = 0; i < models->count; i++) {
        char text[CONFIG_MAX_TEXT_BYTES];

        snprintf(text, sizeof text, "%s=%s", models->items[i].name, models->items[i].path);
        buffer_append_text(out, i ? ", " : "");
        buffer_append_json_string(out, text);
    }
    buffer_append_text(out, "]");
}

static void release_models(void *field)
{
    struct config_models *models = field;

    for (size_t i = 0; i < models->count; i++)
        free(models->items[i].name);
    free(models->items);
    *models = (struct config_models){0};
}

/* The digits at the start of `text`; false without one, or past what a size_t holds. */
static bool parse_digits(size_t *out, const char **text)
{
    char *end;
    unsigned long long value;

    if (!isdigit((unsigned char)**text))
        return false;
    errno = 0;
    value = strtoull(*text, &end, 10);
    if (errno != 0 || value > SIZE_MAX)
        return false;
    *out = (size_t)value;
    *text = end;
    return true;
}

static nsa_status parse_number(void *field, const struct option *option, const char *text)
{
    size_t value;

    if (!parse_digits(&value, &text) || *text != '\0' || value < option->min || value > option->max)
        return NSA_EINVAL;
    *(size_t *)field = value;
    return NSA_OK;
}

static nsa_status parse_bytes(void *field, const struct option *option, const char *text)
{
    size_t value;

    if (!parse_digits(&value, &text))
        return NSA_EINVAL;
    if (text[0] == ' ' && text[1] != '\0')
        text++;
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        if (strcmp(units[i].suffix, text) != 0)
            continue;
        if (!nsa_size_mul(&value, value, units[i].bytes) || value < option->min ||
            value > option->max)
            return NSA_EINVAL;
        *(size_t *)field = value;
        return NSA_OK;
    }
    return NSA_EINVAL;
}

static void print_number(buffer *out, const void *field)
{
    buffer_printf(out, "%zu", *(const size_t *)field);
}

static nsa_status parse_bool(void *field, const struct option *option, const char *text)
{
    bool truth = strcmp(text, "true") == 0;

    (void)option;
    if (!truth && strcmp(text, "false") != 0)
        return NSA_EINVAL;
    *(bool *)field = truth;
    return NSA_OK;
}

static void print_bool(buffer *out, const void *field)
{
    buffer_append_text(out, *(const bool *)field ? "true" : "false");
}

static nsa_status parse_choice(void *field, const struct option *option, const char *text)
{
    for (const char *const *choice = option->choices; *choice; choice++) {
        if (strcmp(*choice, text) == 0) {
            *(const char **)field = *choice;
            return NSA_OK;
        }
    }
    return NSA_EINVAL;
}

#define TAKES(type) (1U << (type))

const struct option_kind option_kinds[OPTION_TYPE_COUNT] = {
    [OPTION_TEXT] = {false, TAKES(JSON_STRING), parse_text, print_text, release_text},
    [OPTION_ADDRESS] = {false, TAKES(JSON_STRING), parse_address, print_text, release_text},
    [OPTION_MODELS] = {true, TAKES(JSON_STRING), parse_model, print_models, release_models},
    [OPTION_NUMBER] = {false, TAKES(JSON_INTEGER), parse_number, print_number, NULL},
    [OPTION_BYTES] = {false, TAKES(JSON_INTEGER) | TAKES(JSON_STRING), parse_bytes, print_number,
                      NULL},
    [OPTION_BOOL] = {false, TAKES(JSON_TRUE) | TAKES(JSON_FALSE), parse_bool, print_bool, NULL},
    [OPTION_CHOICE] = {false, TAKES(JSON_STRING), parse_choice, print_text, NULL},
};

/* --- names and ranges ------------------------------------------------------------------------ */

const char *option_variable(char text[OPTION_NAME_BYTES], const struct option *option)
{
    snprintf(text, OPTION_NAME_BYTES, "NSAD_%s", option->name);
    for (char *c = text; *c; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    return text;
}

const char *option_key(char text[OPTION_NAME_BYTES], const struct option *option)
{
    snprintf(text, OPTION_NAME_BYTES, "%s", option->name);
    for (char *c = text; *c; c++)
        *c = *c == '-' ? '_' : *c;
    return text;
}

/* "64MiB" for 67108864: the largest unit that divides it. */
static void bytes_text(char text[32], size_t bytes)
{
    size_t i = 0;

    while (bytes % units[i].bytes != 0 || bytes == 0) {
        if (units[i].bytes == 1)
            break;
        i++;
    }
    snprintf(text, 32, "%zu%s", bytes / units[i].bytes, units[i].suffix);
}

static void choices_text(char text[OPTION_RANGE_BYTES], const struct option *option)
{
    size_t used = (size_t)snprintf(text, OPTION_RANGE_BYTES, "one of");

    for (size_t i = 0; option->choices[i] && used < OPTION_RANGE_BYTES; i++)
        used += (size_t)snprintf(text + used, OPTION_RANGE_BYTES - used, "%s %s", i ? "," : "",
                                 option->choices[i]);
}

const char *option_range(char text[OPTION_RANGE_BYTES], const struct option *option)
{
    char least[32], most[32];

    switch (option->type) {
    case OPTION_TEXT:
        snprintf(text, OPTION_RANGE_BYTES, "1 to %zu bytes of text", CONFIG_MAX_TEXT_BYTES - 1);
        break;
    case OPTION_ADDRESS:
        snprintf(text, OPTION_RANGE_BYTES, "ADDR:PORT, [ADDR]:PORT or unix:/path");
        break;
    case OPTION_MODELS:
        snprintf(text, OPTION_RANGE_BYTES, "NAME=FILE, each NAME once, at most %zu",
                 CONFIG_MAX_MODELS);
        break;
    case OPTION_NUMBER:
        snprintf(text, OPTION_RANGE_BYTES, "an integer from %zu to %zu", option->min, option->max);
        break;
    case OPTION_BYTES:
        bytes_text(least, option->min);
        bytes_text(most, option->max);
        snprintf(text, OPTION_RANGE_BYTES, "bytes from %s to %s; suffixes KiB, MiB, GiB", least,
                 most);
        break;
    case OPTION_BOOL:
        snprintf(text, OPTION_RANGE_BYTES, "true or false");
        break;
    case OPTION_CHOICE:
        choices_text(text, option);
        break;
    case OPTION_TYPE_COUNT:
        break;
    }
    return text;
}
