#include "server/options.h"

#include "server/option_types.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

struct loader {
    struct config config;
    struct config beaten; /* takes the values that a stronger source has already given */
    nsa_error *err;
};

static void *field_of(struct config *config, const struct option *option)
{
    return (char *)config + option->offset;
}

void config_free(struct config *config)
{
    for (const struct option *option = option_table; option->name; option++) {
        if (option_kinds[option->type].release)
            option_kinds[option->type].release(field_of(config, option));
    }
    *config = (struct config){0};
}

/* Give `option` a value, unless a stronger source has. `origin` says where the text stands. */
static nsa_status set_option(struct loader *loader, const struct option *option,
                             enum config_source source, const char *origin, const char *text)
{
    const struct option_kind *kind = &option_kinds[option->type];
    unsigned char *current = &loader->config.sources[option - option_table];
    bool beaten = source < *current;
    void *field = field_of(beaten ? &loader->beaten : &loader->config, option);
    char range[OPTION_RANGE_BYTES];
    nsa_status status;

    if (kind->repeatable && source > *current) /* the list replaces a default */
        kind->release(field);
    status = kind->parse(field, option, text);
    if (status == NSA_ENOMEM)
        return nsa_error_set(loader->err, status, "%s: no memory for the value", origin);
    if (status != NSA_OK)
        return nsa_error_set(loader->err, status, "%s: expected %s, got \"%s\"", origin,
                             option_range(range, option), text);
    if (!beaten)
        *current = (unsigned char)source;
    return NSA_OK;
}

static nsa_status load_defaults(struct loader *loader)
{
    nsa_status status = NSA_OK;

    for (const struct option *option = option_table; option->name && status == NSA_OK; option++) {
        if (option->default_text)
            status =
                set_option(loader, option, CONFIG_FROM_DEFAULT, option->name, option->default_text);
    }
    return status;
}

/* --- names ----------------------------------------------------------------------------------- */

/* The option whose name is the first `size` bytes of `name`, or NULL. */
static const struct option *find_option(const char *name, size_t size)
{
    for (const struct option *option = option_table; option->name; option++) {
        if (strlen(option->name) == size && memcmp(option->name, name, size) == 0)
            return option;
    }
    return NULL;
}

static size_t least_of(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;

    return least < c ? least : c;
}

/* Edits (insert, delete, replace) that turn `a` into `b`; Wagner and Fischer, 1974. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[OPTION_NAME_BYTES];
    size_t columns = strnlen(b, COUNT_OF(row) - 1);

    for (size_t j = 0; j <= columns; j++)
        row[j] = j;
    for (size_t i = 0; a[i] && i < OPTION_NAME_BYTES; i++) {
        size_t diagonal = row[0];

        row[0] = i + 1;
        for (size_t j = 1; j <= columns; j++) {
            size_t above = row[j];

            row[j] = least_of(above + 1, row[j - 1] + 1, diagonal + (a[i] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[columns];
}

/* The option that someone who wrote `name` may have meant, among those of `scope` and wider. */
static const struct option *nearest_option(const char *name, enum option_scope scope)
{
    const struct option *nearest = NULL;
    size_t least = SIZE_MAX;

    for (const struct option *option = option_table; option->name; option++) {
        size_t distance = edit_distance(name, option->name);

        if (option->scope >= scope && distance < least) {
            least = distance;
            nearest = option;
        }
    }
    return nearest;
}

/* --- flags ----------------------------------------------------------------------------------- */

/*
 * The option that the flag names: "--name", "--name=value", or "--no-name" for a bool. *value is
 * what goes with it: its own part, or what a bool means, or NULL when the next argument holds it.
 */
static const struct option *match_flag(const char *flag, const char **value)
{
    const char *name = flag + 2;
    size_t size = strcspn(name, "=");
    const struct option *option = find_option(name, size);
    bool negated = false;

    if (!option && strncmp(name, "no-", 3) == 0 && name[size] == '\0') {
        option = find_option(name + 3, size - 3);
        negated = true;
        if (option && option->type != OPTION_BOOL)
            option = NULL;
    }
    if (!option)
        return NULL;
    *value = name[size] == '=' ? name + size + 1 : NULL;
    if (!*value && option->type == OPTION_BOOL)
        *value = negated ? "false" : "true";
    return option;
}

static nsa_status unknown_flag(const char *flag, nsa_error *err)
{
    char name[OPTION_NAME_BYTES];

    snprintf(name, sizeof name, "%.*s", (int)strcspn(flag + 2, "="), flag + 2);
    return nsa_error_set(err, NSA_EINVAL, "unknown option; the nearest is --%s; got \"%s\"",
                         nearest_option(name, OPTION_FLAG_ONLY)->name, flag);
}

static nsa_status load_flags(struct loader *loader, int argc, char *const argv[])
{
    nsa_status status = NSA_OK;

    for (int i = 1; i < argc && status == NSA_OK; i++) {
        const struct option *option;
        const char *value;
        char origin[OPTION_NAME_BYTES];
        char range[OPTION_RANGE_BYTES];

        if (strncmp(argv[i], "--", 2) != 0 || argv[i][2] == '\0')
            return nsa_error_set(loader->err, NSA_EINVAL,
                                 "unexpected argument: expected an option (see --help), got \"%s\"",
                                 argv[i]);
        option = match_flag(argv[i], &value);
        if (!option)
            return unknown_flag(argv[i], loader->err);
        snprintf(origin, sizeof origin, "--%s", option->name);
        /* A flag in the place of a value is a forgotten value; "--name=--value" says otherwise. */
        if (!value && i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0)
            value = argv[++i];
        if (!value)
            return nsa_error_set(loader->err, NSA_EINVAL, "%s: expected %s, got no value", origin,
                                 option_range(range, option));
        status = set_option(loader, option, CONFIG_FROM_FLAG, origin, value);
    }
    return status;
}

/* --- environment ----------------------------------------------------------------------------- */

static const char *find_variable(char *const envp[], const char *name)
{
    size_t size = strlen(name);

    for (size_t i = 0; envp && envp[i]; i++) {
        if (strncmp(envp[i], name, size) == 0 && envp[i][size] == '=')
            return envp[i] + size + 1;
    }
    return NULL;
}

/* Set `option` from each part of a list with commas. */
static nsa_status set_list(struct loader *loader, const struct option *option, const char *origin,
                           const char *list)
{
    for (;;) {
        size_t size = strcspn(list, ",");
        char *item = strndup(list, size);
        nsa_status status;

        if (!item)
            return nsa_error_set(loader->err, NSA_ENOMEM, "%s: no memory for the value", origin);
        status = set_option(loader, option, CONFIG_FROM_ENVIRONMENT, origin, item);
        free(item);
        if (status != NSA_OK || list[size] == '\0')
            return status;
        list += size + 1;
    }
}

static nsa_status load_environment(struct loader *loader, char *const envp[])
{
    nsa_status status = NSA_OK;

    for (const struct option *option = option_table; option->name && status == NSA_OK; option++) {
        char name[OPTION_NAME_BYTES];
        const char *value = find_variable(envp, option_variable(name, option));

        if (option->scope < OPTION_FLAG_AND_ENVIRONMENT || !value || *value == '\0')
            continue;
        status = option_kinds[option->type].repeatable
                     ? set_list(loader, option, name, value)
                     : set_option(loader, option, CONFIG_FROM_ENVIRONMENT, name, value);
    }
    return status;
}

/* --- file ------------------------------------------------------------------------------------ */

/* The text of a JSON scalar, in `digits` or in the value itself. */
static const char *scalar_text(char digits[32], const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        return json_string_value(value);
    case JSON_INTEGER:
        snprintf(digits, 32, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return digits;
    case JSON_TRUE:
        return "true";
    default:
        return "false";
    }
}

static const char *const type_names[] = {
    [JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
    [JSON_INTEGER] = "an integer", [JSON_REAL] = "a real",    [JSON_TRUE] = "true",
    [JSON_FALSE] = "false",        [JSON_NULL] = "null",
};

static nsa_status set_scalar(struct loader *loader, const struct option *option, const char *origin,
                             const json_t *value)
{
    char digits[32], range[OPTION_RANGE_BYTES];

    if (!(option_kinds[option->type].json_types & 1U << json_typeof(value)))
        return nsa_error_set(loader->err, NSA_EINVAL, "%s: expected %s, got %s", origin,
                             option_range(range, option), type_names[json_typeof(value)]);
    return set_option(loader, option, CONFIG_FROM_FILE, origin, scalar_text(digits, value));
}

static nsa_status set_json(struct loader *loader, const char *path, const char *key,
                           const json_t *value)
{
    char name[OPTION_NAME_BYTES], origin[NSA_ERROR_MESSAGE_BYTES];
    const struct option *option = option_table;
    nsa_status status = NSA_OK;
    const json_t *item;
    size_t i;

    while (option->name &&
           (option->scope != OPTION_EVERYWHERE || strcmp(option_key(name, option), key) != 0))
        option++;
    if (!option->name)
        return nsa_error_set(loader->err, NSA_EINVAL,
                             "%s: unknown key; the nearest is \"%s\"; got \"%s\"", path,
                             option_key(name, nearest_option(key, OPTION_EVERYWHERE)), key);
    snprintf(origin, sizeof origin, "%s:%s", path, key);
    if (!option_kinds[option->type].repeatable)
        return set_scalar(loader, option, origin, value);
    if (!json_is_array(value))
        return nsa_error_set(loader->err, NSA_EINVAL, "%s: expected an array of texts, got %s",
                             origin, type_names[json_typeof(value)]);
    json_array_foreach((json_t *)value, i, item)
    {
        snprintf(origin, sizeof origin, "%s:%s[%zu]", path, key, i);
        status = set_scalar(loader, option, origin, item);
        if (status != NSA_OK)
            break;
    }
    return status;
}

/* Read the whole file into `bytes`. */
static nsa_status read_config(buffer *bytes, const char *path, nsa_error *err)
{
    FILE *file = fopen(path, "re");
    char piece[4096];
    nsa_status status = NSA_OK;
    size_t size;

    if (!file)
        return nsa_error_set(err, NSA_EIO, "%s: %s", path, strerror(errno));
    do {
        size = fread(piece, 1, sizeof piece, file);
        buffer_append(bytes, piece, size);
    } while (size == sizeof piece && bytes->status == NSA_OK);
    if (ferror(file))
        status = nsa_error_set(err, NSA_EIO, "%s: %s", path, strerror(errno));
    else if (bytes->status == NSA_ELIMIT)
        status = nsa_error_set(err, NSA_ELIMIT, "%s: expected at most %zu bytes, got more", path,
                               bytes->max_bytes);
    else if (bytes->status != NSA_OK)
        status = nsa_error_set(err, bytes->status, "%s: no memory for the file", path);
    fclose(file);
    return status;
}

static nsa_status load_file(struct loader *loader, const char *path)
{
    buffer bytes = {.max_bytes = CONFIG_MAX_FILE_BYTES};
    nsa_status status = read_config(&bytes, path, loader->err);
    json_t *root = NULL;
    json_error_t problem;
    const char *key;
    json_t *value;

    if (status != NSA_OK)
        goto out;
    errno = 0;
    problem.text[0] = '\0';
    root = json_loadb(bytes.data ? bytes.data : "", bytes.size, JSON_REJECT_DUPLICATES, &problem);
    /* jansson calls some failed allocations syntax errors, some nothing, and survives others with
     * a byte of a text missing. */
    if (errno == ENOMEM || (!root && problem.text[0] == '\0')) {
        status = nsa_error_set(loader->err, NSA_ENOMEM, "%s: no memory for the file", path);
        goto out;
    }
    if (!root) {
        status = nsa_error_set(loader->err, NSA_EFORMAT, "%s:%d:%d: %s", path, problem.line,
                               problem.column, problem.text);
        goto out;
    }
    if (!json_is_object(root)) {
        status = nsa_error_set(loader->err, NSA_EFORMAT, "%s: expected a JSON object", path);
        goto out;
    }
    json_object_foreach(root, key, value)
    {
        status = set_json(loader, path, key, value);
        if (status != NSA_OK)
            break;
    }
out:
    json_decref(root);
    buffer_free(&bytes);
    return status;
}

nsa_status config_load(struct config *out, int argc, char *const argv[], char *const envp[],
                       nsa_error *err)
{
    struct loader loader = {.err = err};
    nsa_status status = load_defaults(&loader);

    if (status == NSA_OK)
        status = load_flags(&loader, argc, argv);
    if (status == NSA_OK && !loader.config.help && !loader.config.version) {
        status = load_environment(&loader, envp);
        config_free(&loader.beaten); /* a list of the file is not compared with the environment's */
        if (status == NSA_OK && loader.config.config)
            status = load_file(&loader, loader.config.config);
    }
    config_free(&loader.beaten);
    if (status == NSA_OK)
        *out = loader.config;
    else
        config_free(&loader.config);
    return status;
}
