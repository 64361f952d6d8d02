/* Content encodings of request and response bodies: gzip and deflate, by zlib. */
#ifndef SERVER_COMPRESSION_H
#define SERVER_COMPRESSION_H

#include "server/buffer.h"

#include <nsa/status.h>
#include <stdbool.h>
#include <stddef.h>

enum content_encoding {
    ENCODING_IDENTITY,
    ENCODING_GZIP,    /* RFC 1952, one member or several */
    ENCODING_DEFLATE, /* RFC 9110: the zlib format of RFC 1950 */
    ENCODING_UNSUPPORTED
};

/*
 * What a Content-Encoding header (NULL: there is none) asks for: "identity", "gzip", "x-gzip" or
 * "deflate" in any case. Anything else, and a list of several, is ENCODING_UNSUPPORTED.
 */
enum content_encoding content_encoding_parse(const char *header);

/* What a Content-Encoding header calls `encoding` (not ENCODING_UNSUPPORTED): a static string. */
const char *content_encoding_name(enum content_encoding encoding);

/*
 * The encoding of an answer to a request with this Accept-Encoding header (NULL: there is none):
 * ENCODING_GZIP, ENCODING_DEFLATE or ENCODING_IDENTITY. By RFC 9110, 12.5.3, it is the one named
 * with the greatest weight above 0; of equal ones gzip, then deflate. "*" stands for gzip where
 * that is not named. A malformed header allows nothing.
 */
enum content_encoding accept_encoding_choose(const char *header);

/**
 * Append the decoded bytes to `out`, up to its max_bytes; what lies beyond is not decoded.
 * @param encoding  not ENCODING_UNSUPPORTED; identity copies
 * @param[out] err  message for people; may be NULL
 * @return NSA_OK; NSA_ELIMIT when more would come out than `out` takes; NSA_EFORMAT for bytes that
 *         are no such stream, end too early or go on after its end; NSA_ENOMEM. On an error `out`
 *         holds what it held before.
 * Thread-safe for distinct `out`.
 */
nsa_status inflate_body(buffer *out, const void *bytes, size_t size, enum content_encoding encoding,
                        nsa_error *err);

/**
 * Append `bytes` to `out` as one gzip member or one zlib stream, at zlib's fastest level.
 * @param encoding  ENCODING_GZIP or ENCODING_DEFLATE
 * @return NSA_OK, NSA_ELIMIT or NSA_ENOMEM; on an error `out` holds what it held before
 * Thread-safe for distinct `out`.
 */
nsa_status deflate_body(buffer *out, const void *bytes, size_t size,
                        enum content_encoding encoding);

#endif
