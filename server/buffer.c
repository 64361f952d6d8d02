#include "server/buffer.h"

#include <nsa/size.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY ((size_t)256)

char *buffer_reserve(buffer *b, size_t size)
{
    size_t needed;
    size_t capacity;
    char *data;

    if (b->status != NSA_OK)
        return NULL;
    if (!nsa_size_add(&needed, b->size, size) || needed > b->max_bytes) {
        b->status = NSA_ELIMIT;
        return NULL;
    }
    if (needed <= b->capacity && b->data)
        return b->data + b->size;
    capacity = b->capacity > b->max_bytes / 2 ? b->max_bytes : b->capacity * 2;
    if (capacity < FIRST_CAPACITY)
        capacity = FIRST_CAPACITY;
    if (capacity < needed)
        capacity = needed;
    data = realloc(b->borrowed ? NULL : b->data, capacity);
    if (!data) {
        b->status = NSA_ENOMEM;
        return NULL;
    }
    if (b->borrowed)
        memcpy(data, b->data, b->size);
    b->borrowed = false;
    b->data = data;
    b->capacity = capacity;
    return b->data + b->size;
}

void buffer_append(buffer *b, const void *bytes, size_t size)
{
    char *to = buffer_reserve(b, size);

    if (!to || size == 0)
        return;
    memcpy(to, bytes, size);
    b->size += size;
}

void buffer_append_text(buffer *b, const char *text)
{
    buffer_append(b, text, strlen(text));
}

void buffer_printf(buffer *b, const char *format, ...)
{
    va_list args;
    int length;
    char *to;

    va_start(args, format);
    length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0)
        return;
    to = buffer_reserve(b, (size_t)length + 1);
    if (!to)
        return;
    va_start(args, format);
    vsnprintf(to, (size_t)length + 1, format, args);
    va_end(args);
    b->size += (size_t)length;
}

/* Length of the well-formed UTF-8 sequence at `s` (NUL-terminated), or 0 (RFC 3629). */
static size_t utf8_length(const unsigned char *s)
{
    size_t length = s[0] < 0x80                   ? 1
                    : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
                    : (s[0] & 0xF0) == 0xE0       ? 3
                    : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                                  : 0;

    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    }
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) ||
        (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F))
        return 0;
    return length;
}

void buffer_append_json_string(buffer *b, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;

    buffer_append(b, "\"", 1);
    while (*s) {
        size_t length = utf8_length(s);

        if (length == 0)
            buffer_append_text(b, "\\ufffd");
        else if (*s == '"' || *s == '\\')
            buffer_printf(b, "\\%c", *s);
        else if (*s < 0x20 || *s == 0x7F)
            buffer_printf(b, "\\u%04x", *s);
        else
            buffer_append(b, s, length);
        s += length ? length : 1;
    }
    buffer_append(b, "\"", 1);
}

void buffer_free(buffer *b)
{
    if (!b->borrowed)
        free(b->data);
    *b = (buffer){.max_bytes = b->max_bytes};
}
