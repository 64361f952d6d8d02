#include "server/oip_reader.h"

#include "server/server.h"

#include <stdlib.h>
#include <string.h>

const json_t *oip_get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_null(value) ? NULL : value;
}

nsa_status oip_expected(const struct oip_reader *r, const char *label, const char *key,
                        const char *what, const json_t *got)
{
    char *text = got ? json_dumps(got, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

    nsa_error_set(r->err, NSA_EINVAL, "%s%s%s: expected %s, got %.64s", label, *label ? "." : "",
                  key, what, text ? text : "none");
    free(text);
    return NSA_EINVAL;
}

/* The text `key` of `object`. */
nsa_status oip_read_text(const char **out, const struct oip_reader *r, const char *label,
                         const json_t *object, const char *key)
{
    const json_t *value = oip_get(object, key);

    if (!json_is_string(value))
        return oip_expected(r, label, key, "a text", value);
    *out = json_string_value(value);
    return NSA_OK;
}

/* The integer `key`, at least 0, of `object`; *out stays as it is if there is none. */
nsa_status oip_read_size(uint64_t *out, const struct oip_reader *r, const char *label,
                         const json_t *object, const char *key)
{
    const json_t *value = oip_get(object, key);

    if (!value)
        return NSA_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return oip_expected(r, label, key, "an integer of at least 0", value);
    *out = (uint64_t)json_integer_value(value);
    return NSA_OK;
}

nsa_status oip_read_bool(bool *out, const struct oip_reader *r, const char *label,
                         const json_t *object, const char *key)
{
    const json_t *value = oip_get(object, key);

    if (!value)
        return NSA_OK;
    if (!json_is_boolean(value))
        return oip_expected(r, label, key, "true or false", value);
    *out = json_is_true(value);
    return NSA_OK;
}

/* An object that need not be there. */
nsa_status oip_read_object(const json_t **out, const struct oip_reader *r, const char *label,
                           const json_t *object, const char *key)
{
    *out = oip_get(object, key);
    if (*out && !json_is_object(*out))
        return oip_expected(r, label, key, "an object", *out);
    return NSA_OK;
}

nsa_status oip_read_shape(nsa_shape *out, const struct oip_reader *r, const char *label,
                          const json_t *object)
{
    const json_t *shape = oip_get(object, "shape");

    if (!json_is_array(shape) || json_array_size(shape) > NSA_MAX_RANK)
        return oip_expected(r, label, "shape", "an array of up to 32 integers", shape);
    out->rank = json_array_size(shape);
    for (size_t i = 0; i < out->rank; i++) {
        const json_t *dim = json_array_get(shape, i);

        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return oip_expected(r, label, "shape", "integers of at least 0", shape);
        out->dims[i] = (size_t)json_integer_value(dim);
    }
    return NSA_OK;
}

/* The region, where in it, and how many bytes there, that `parameters` name. */
nsa_status oip_read_region(const char **region, uint64_t *offset, uint64_t *bytes,
                           const struct oip_reader *r, const char *label, const json_t *parameters)
{
    nsa_status status = oip_read_text(region, r, label, parameters, "shared_memory_region");

    *offset = 0;
    *bytes = UINT64_MAX;
    if (status == NSA_OK && !r->inference->ex->server->shared_memory)
        status = nsa_error_set(r->err, NSA_EINVAL,
                               "%s.shared_memory_region: expected none, as the server runs without "
                               "--allow-client-shm",
                               label);
    if (status == NSA_OK)
        status = oip_read_size(offset, r, label, parameters, "shared_memory_offset");
    if (status == NSA_OK)
        status = oip_read_size(bytes, r, label, parameters, "shared_memory_byte_size");
    if (status == NSA_OK && *bytes == UINT64_MAX)
        status =
            oip_expected(r, label, "shared_memory_byte_size", "an integer of at least 0", NULL);
    return status;
}
