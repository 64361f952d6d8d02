/* A byte buffer that grows up to a limit. */
#ifndef SERVER_BUFFER_H
#define SERVER_BUFFER_H

#include <nsa/status.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * Appending to a buffer that has failed does nothing, so a writer checks once, at its end. Set
 * `max_bytes` and zero the rest to begin, or begin with memory that is lent: `data`, `capacity` and
 * `borrowed`. `data` (owned unless borrowed, may be NULL) is not NUL-terminated.
 */
typedef struct buffer {
    char *data;
    size_t size;
    size_t capacity;
    size_t max_bytes;
    bool borrowed;     /* `data` is somebody else's; growing copies what is there to its own */
    nsa_status status; /* NSA_OK, or why appending failed: NSA_ENOMEM or NSA_ELIMIT */
} buffer;

/* Make room for `size` more bytes and return where they go, or NULL; the caller adds to `size`. */
char *buffer_reserve(buffer *b, size_t size);

void buffer_append(buffer *b, const void *bytes, size_t size);
void buffer_append_text(buffer *b, const char *text);
void buffer_printf(buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `text` (NUL-terminated) as a JSON string, quotes included; invalid UTF-8 becomes U+FFFD. */
void buffer_append_json_string(buffer *b, const char *text);

/* Free the bytes and leave an empty buffer with the same limit. */
void buffer_free(buffer *b);

#endif
