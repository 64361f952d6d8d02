#include <nsa/status.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

nsa_status nsa_error_set(nsa_error *err, nsa_status status, const char *format, ...)
{
    va_list args;
    int length;

    if (!err)
        return status;
    va_start(args, format);
    length = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (length < 0)
        err->message[0] = '\0';
    if (length >= (int)sizeof err->message) {
        size_t end = sizeof err->message - 1;

        while (end > 0 && ((unsigned char)err->message[end - 1] & 0xC0) == 0x80)
            end--;
        if (end > 0 && (unsigned char)err->message[end - 1] >= 0xC0)
            end--;
        err->message[end] = '\0';
    }
    return status;
}

const char *nsa_status_string(nsa_status status)
{
    static const char *const names[] = {
        [NSA_OK] = "ok",
        [NSA_EINVAL] = "invalid argument",
        [NSA_EFORMAT] = "malformed data",
        [NSA_EUNSUPPORTED] = "not supported",
        [NSA_ELIMIT] = "over a limit",
        [NSA_ENOMEM] = "out of memory",
        [NSA_EIO] = "input or output failed",
        [NSA_ENOTFOUND] = "not found",
        [NSA_ESELFCHECK] = "self-check failed",
        [NSA_EFULL] = "queue full",
        [NSA_ETIMEDOUT] = "deadline passed",
        [NSA_ECANCELED] = "canceled",
    };
    size_t index = (size_t)status;

    return index < sizeof names / sizeof *names ? names[index] : "unknown status";
}
