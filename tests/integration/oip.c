#include "tests/integration/oip.h"

#include "tests/integration/bodies.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH "Inference-Header-Content-Length"

static const char *const datatypes[NSA_DTYPE_COUNT] = {
    [NSA_F32] = "FP32", [NSA_F16] = "FP16",  [NSA_BF16] = "BF16",
    [NSA_F64] = "FP64", [NSA_I64] = "INT64",
};

const char *oip_datatype_of(nsa_dtype dtype)
{
    return datatypes[dtype];
}

const struct reply *oip_post(struct client *client, const char *path, const void *body, size_t size,
                             const char *json_bytes)
{
    char header[96];
    struct call call = {
        .method = "POST", .path = path, .body = body, .size = size, .headers = {NO_CONTENT_TYPE}};

    if (json_bytes) {
        snprintf(header, sizeof header, "inference-header-content-length: %s", json_bytes);
        call.headers[1] = header;
    }
    return client_call(client, &call);
}

const struct reply *oip_json(struct client *client, const char *path, const char *body)
{
    return oip_post(client, path, body, 0, NULL);
}

/* --- answers ------------------------------------------------------------------------------- */

static size_t count_of(const nsa_tensor *tensor)
{
    return tensor_bytes(tensor) / nsa_dtype_size(tensor->dtype);
}

/* What follows `key` in the output's own part of the JSON, or NULL. */
static const char *find_key(const char *output, const char *end, const char *key)
{
    const char *found = strstr(output, key);

    return found && found < end ? found + strlen(key) : NULL;
}

static void put_number(nsa_tensor *tensor, size_t index, const char *text, char **end)
{
    char *at = (char *)tensor->data + index * nsa_dtype_size(tensor->dtype);
    float single;

    if (tensor->dtype == NSA_I64) {
        *(int64_t *)(void *)at = strtoll(text, end, 10);
    } else if (tensor->dtype == NSA_F64) {
        *(double *)(void *)at = strtod(text, end);
    } else {
        single = strtof(text, end);
        nsa_from_f32(at, tensor->dtype, &single, 1);
    }
}

/* A flat array of as many numbers as the shape has. */
static void read_data(nsa_tensor *tensor, const char *text)
{
    size_t count = count_of(tensor);

    for (size_t i = 0; i < count; i++) {
        char *end = NULL;

        put_number(tensor, i, text, &end);
        if (end == text || *end != (i + 1 < count ? ',' : ']'))
            fail_msg("expected %zu numbers, got: %.60s", count, text);
        text = end + 1;
    }
    if (count == 0)
        assert_int_equal(']', *text);
}

static void read_shape(nsa_shape *shape, const char *text)
{
    *shape = (nsa_shape){0};
    while (*text != ']') {
        char *end;

        shape->dims[shape->rank++] = strtoull(text, &end, 10);
        text = *end == ',' ? end + 1 : end;
    }
}

static nsa_dtype read_datatype(const char *text)
{
    for (size_t i = 0; i < NSA_DTYPE_COUNT; i++) {
        if (strncmp(text, datatypes[i], strlen(datatypes[i])) == 0 &&
            text[strlen(datatypes[i])] == '"')
            return (nsa_dtype)i;
    }
    fail_msg("no datatype: %.20s", text);
    return NSA_F32;
}

nsa_tensor oip_output(struct client *client, const char *name)
{
    const char *header = client_header(client, LENGTH);
    const char *json = client_body(client);
    const char *blob = json + (header ? strtoull(header, NULL, 10) : 0);
    const char *output = strstr(json, "\"outputs\":[");
    nsa_tensor tensor = {0};
    char wanted[64];

    snprintf(wanted, sizeof wanted, "{\"name\":\"%s\"", name);
    if (!output)
        fail_msg("no outputs: %.300s", json);
    for (output = strstr(output, "{\"name\""); output;) {
        const char *next = strstr(output + 1, "{\"name\"");
        const char *end = next ? next : output + strlen(output);
        const char *size = find_key(output, end, "\"binary_data_size\":");
        const char *data = find_key(output, end, "\"data\":[");
        bool found = strncmp(output, wanted, strlen(wanted)) == 0;

        if (found) {
            tensor.dtype = read_datatype(find_key(output, end, "\"datatype\":\""));
            read_shape(&tensor.shape, find_key(output, end, "\"shape\":["));
            tensor.data = calloc(1, tensor_bytes(&tensor) + 1);
            assert_true((size != NULL) != (data != NULL));
            if (size) {
                assert_int_equal(tensor_bytes(&tensor), strtoull(size, NULL, 10));
                memcpy(tensor.data, blob, tensor_bytes(&tensor));
            } else {
                read_data(&tensor, data);
            }
            return tensor;
        }
        if (size)
            blob += strtoull(size, NULL, 10);
        output = next;
    }
    fail_msg("no output %s: %.300s", name, json);
    return tensor;
}

/* --- requests ------------------------------------------------------------------------------ */

struct oip_body oip_body_make(const char *json, const nsa_tensor *const *blobs, size_t count)
{
    struct oip_body body = {.size = strlen(json)};
    size_t total = body.size;

    for (size_t i = 0; i < count; i++)
        total += tensor_bytes(blobs[i]);
    if (count > 0)
        snprintf(body.json_bytes, sizeof body.json_bytes, "%zu", body.size);
    body.bytes = malloc(total + 1);
    assert_non_null(body.bytes);
    memcpy(body.bytes, json, body.size + 1);
    for (size_t i = 0; i < count; i++) {
        memcpy(body.bytes + body.size, blobs[i]->data, tensor_bytes(blobs[i]));
        body.size += tensor_bytes(blobs[i]);
    }
    return body;
}

static void print_element(FILE *to, const nsa_tensor *tensor, size_t index)
{
    const char *at = (const char *)tensor->data + index * nsa_dtype_size(tensor->dtype);
    double value;
    float single;

    if (tensor->dtype == NSA_I64) {
        fprintf(to, "%lld", (long long)*(const int64_t *)(const void *)at);
        return;
    }
    nsa_to_f32(&single, at, tensor->dtype, 1);
    value = tensor->dtype == NSA_F64 ? *(const double *)(const void *)at : (double)single;
    if (isnan(value))
        fputs("NaN", to);
    else if (isinf(value))
        fputs(value < 0 ? "-Infinity" : "Infinity", to);
    else
        fprintf(to, "%.17g", value);
}

char *oip_input(const char *name, const nsa_tensor *tensor, bool binary)
{
    char *text;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    assert_non_null(to);
    fprintf(to, "{\"name\": \"%s\", \"datatype\": \"%s\", \"shape\": [", name,
            datatypes[tensor->dtype]);
    for (size_t i = 0; i < tensor->shape.rank; i++)
        fprintf(to, "%s%zu", i ? ", " : "", tensor->shape.dims[i]);
    if (binary) {
        fprintf(to, "], \"parameters\": {\"binary_data_size\": %zu}}", tensor_bytes(tensor));
    } else {
        fputs("], \"data\": [", to);
        for (size_t i = 0; i < count_of(tensor); i++) {
            if (i > 0)
                fputc(',', to);
            print_element(to, tensor, i);
        }
        fputs("]}", to);
    }
    assert_int_equal(0, fclose(to));
    return text;
}
