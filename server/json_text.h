/* What the readers of JSON text in json_document.c and json_scan.c have in common. */
#ifndef SERVER_JSON_TEXT_H
#define SERVER_JSON_TEXT_H

#include <stddef.h>

/* The first byte in [p, end) that is not white space to JSON, or `end`. */
static inline const char *json_skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

/* What the value that begins with `c` is; NULL for what no value begins with. */
static inline const char *json_value_name(char c)
{
    switch (c) {
    case '"':
        return "a string";
    case '{':
        return "an object";
    case '[':
        return "an array";
    case 't':
        return "true";
    case 'f':
        return "false";
    case 'n':
        return "null";
    case '-':
    case 'N':
    case 'I':
        return "a number";
    default:
        return c >= '0' && c <= '9' ? "a number" : NULL;
    }
}

#endif
