/*
 * Reading JSON numbers as float64. The C library converts, exactly and not fast: most requests are
 * read as float32. The grammar is that of float32.
 */
#include "server/json_number.h"

#include <math.h>
#include <stdlib.h>

json_number_status json_parse_f64(double *out, const char **next, const char *text, const char *end)
{
    float nearest = 0;
    const char *stop;
    char *other_stop;
    double value;
    json_number_status status = json_parse_f32(&nearest, &stop, text, end);

    if (status == JSON_NUMBER_MALFORMED)
        return status;
    *next = stop;
    if (status == JSON_NUMBER_OK && !isfinite(nearest)) { /* a token */
        *out = (double)nearest;
        return JSON_NUMBER_OK;
    }
    value = strtod(text, &other_stop);
    /* Its grammar is wider only for what starts with "0x": to JSON, a zero and what follows it. */
    if (other_stop != stop)
        value = (double)nearest;
    if (isinf(value))
        return JSON_NUMBER_RANGE;
    *out = value;
    return JSON_NUMBER_OK;
}
