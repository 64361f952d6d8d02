/* Files in JSON documents: base64 out of the text of a long string. */
#ifndef SERVER_BASE64_H
#define SERVER_BASE64_H

#include "server/json_scan.h"

#include <nsa/status.h>
#include <stddef.h>

/**
 * Decode the string at `span`: the base64 of RFC 4648, section 4, in one piece, padded or not
 * padded at all. "\/" is a slash, as some writers of JSON have it. Anything else is refused: other
 * escapes, white space, incomplete or misplaced padding, bits left over that are not zero.
 * @param span         a string that a json_document took out, quotes included
 * @param[out] bytes   (*size), caller frees; not NULL for an empty string. Untouched on error.
 * @param[out] size    untouched on error
 * @param path         what messages call the string. They count bytes from its opening quote, which
 *                     is byte 0.
 * @return NSA_OK, NSA_EFORMAT or NSA_ENOMEM
 * Thread-safe.
 */
nsa_status json_string_base64(unsigned char **bytes, size_t *size, const json_span *span,
                              const char *path, nsa_error *err);

#endif
