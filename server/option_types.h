/* The table of options and the types of their values; for options*.c and option_types.c alone. */
#ifndef SERVER_OPTION_TYPES_H
#define SERVER_OPTION_TYPES_H

#include "server/buffer.h"
#include "server/options.h"

#include <nsa/status.h>
#include <stdbool.h>
#include <stddef.h>

/* "NSAD_" and the longest name, or the longest name alone. */
#define OPTION_NAME_BYTES 64
#define OPTION_RANGE_BYTES 160

enum option_type {
    OPTION_TEXT,    /* char * */
    OPTION_ADDRESS, /* char *, for config_parse_address() */
    OPTION_MODELS,  /* struct config_models */
    OPTION_NUMBER,  /* size_t */
    OPTION_BYTES,   /* size_t; KiB, MiB and GiB may follow the number */
    OPTION_BOOL,    /* bool */
    OPTION_CHOICE,  /* const char *, one of the choices */
    OPTION_TYPE_COUNT
};

/* What asks for an action, or names the file itself, makes no sense in the file. */
enum option_scope { OPTION_FLAG_ONLY, OPTION_FLAG_AND_ENVIRONMENT, OPTION_EVERYWHERE };

struct option {
    const char *name; /* of the flag, without dashes; the other two names derive from it */
    enum option_type type;
    enum option_scope scope;
    size_t offset;              /* of the field in struct config */
    size_t min, max;            /* of numbers and bytes */
    const char *default_text;   /* NULL: none, the field stays zero */
    const char *metavariable;   /* what --help calls the value; NULL for a bool */
    const char *const *choices; /* of a choice, NULL past the last */
    const char *help;
};

/* Ended by a row without a name. */
extern const struct option option_table[];

/* How values of one type are read and written; `field` points into a struct config. */
struct option_kind {
    bool repeatable;     /* a value adds to those before it; a comma separates in the environment */
    unsigned json_types; /* bit 1 << t: a json_type t that is taken in the file */
    /* NSA_OK, NSA_EINVAL (no message) or NSA_ENOMEM; the field is untouched on error. */
    nsa_status (*parse)(void *field, const struct option *option, const char *text);
    void (*print)(buffer *out, const void *field); /* as JSON */
    void (*release)(void *field);                  /* free what it owns and zero it; may be NULL */
};

extern const struct option_kind option_kinds[OPTION_TYPE_COUNT];

/* "NSAD_MAX_BODY_BYTES" and "max_body_bytes" for "max-body-bytes"; each returns `text`. */
const char *option_variable(char text[OPTION_NAME_BYTES], const struct option *option);
const char *option_key(char text[OPTION_NAME_BYTES], const struct option *option);

/* What is expected, such as "an integer from 1 to 65536"; returns `text`. */
const char *option_range(char text[OPTION_RANGE_BYTES], const struct option *option);

#endif
