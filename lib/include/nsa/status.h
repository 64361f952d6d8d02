/* Status codes, and the message that goes with a failure. */
#ifndef NSA_STATUS_H
#define NSA_STATUS_H

typedef enum nsa_status {
    NSA_OK = 0,
    NSA_EINVAL,       /* an argument, a shape or a parameter is not what the operation takes */
    NSA_EFORMAT,      /* bytes that are not a well-formed file, array or document */
    NSA_EUNSUPPORTED, /* well-formed, but of a kind that is not supported */
    NSA_ELIMIT,       /* larger than a named limit */
    NSA_ENOMEM,       /* an allocation failed */
    NSA_EIO,          /* a file could not be opened or read to its end */
    NSA_ENOTFOUND,    /* no such model, version or tensor */
    NSA_ESELFCHECK,   /* the fast path disagrees with the reference on this machine */
    NSA_EFULL,        /* the queue takes no more; try again later */
    NSA_ETIMEDOUT,    /* the deadline passed before the work was done */
    NSA_ECANCELED     /* whoever asked has gone */
} nsa_status;

#define NSA_ERROR_MESSAGE_BYTES 512

/* A sentence for people: what was expected and what came. Filled on failure only. */
typedef struct nsa_error {
    char message[NSA_ERROR_MESSAGE_BYTES];
} nsa_error;

/**
 * Format a message into `err` (which may be NULL; a longer message is cut, never within a UTF-8
 * character).
 * @return `status`, so that a failing function can return the call itself.
 * Thread-safe for distinct `err`.
 */
nsa_status nsa_error_set(nsa_error *err, nsa_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The short name of a status, such as "invalid argument"; a static string. */
const char *nsa_status_string(nsa_status status);

#endif
