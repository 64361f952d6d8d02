/* application/json: the tensor as nested or flat arrays of numbers, the fields beside it. */
#include "server/codec.h"
#include "server/infer.h"
#include "server/json_scan.h"
#include "server/memory.h"
#include "server/server.h"

#include <nsa/size.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_KEY "input"

/* Arrays that an answer may nest whatever it holds; beyond, two for each number. */
#define FREE_ARRAYS ((size_t)1 << 16)

static const json_place places[] = {{.depth = 1, .key = INPUT_KEY, .kind = JSON_ARRAY}, {0}};

/* The array takes the shape that the request gives, if it gives one. */
static nsa_status apply_shape(nsa_tensor *input, const struct fields *fields, nsa_error *err)
{
    char text[2][NSA_SHAPE_TEXT_BYTES];
    size_t expected;
    size_t got;
    nsa_status status;

    if (!fields->has_shape || nsa_shape_equal(&input->shape, &fields->shape))
        return NSA_OK;
    if (input->shape.rank != 1)
        return nsa_error_set(err, NSA_EINVAL, "input: expected a flat array or shape %s, got %s",
                             nsa_shape_text(text[0], &fields->shape),
                             nsa_shape_text(text[1], &input->shape));
    status = nsa_shape_count(&expected, &fields->shape, err);
    if (status != NSA_OK)
        return status;
    got = input->shape.dims[0];
    if (expected != got)
        return nsa_error_set(err, NSA_EINVAL, "input: expected %zu numbers for shape %s, got %zu",
                             expected, nsa_shape_text(text[0], &fields->shape), got);
    input->shape = fields->shape;
    return NSA_OK;
}

static nsa_status read_input(struct inference *inference, const json_span *span, nsa_error *err)
{
    nsa_tensor *input = &inference->request.input;
    size_t capacity = span->commas + 1; /* below the body's size */
    float *data = memory_take(inference->ex->server->memory, capacity * sizeof *data);
    nsa_status status;

    if (!data)
        return nsa_error_set(err, NSA_ENOMEM, "out of memory for %zu numbers", capacity);
    inference->input_memory = data;
    status = json_scan(data, NSA_F32, capacity, &input->shape, span, INPUT_KEY, err);
    if (status != NSA_OK)
        return status;
    input->data = data;
    input->dtype = NSA_F32;
    return apply_shape(input, &inference->fields, err);
}

static nsa_status read_document(struct inference *inference, const json_document *document,
                                nsa_error *err)
{
    const json_span *span = NULL;
    const char *key;
    json_t *value;

    json_object_foreach(json_document_root(document), key, value)
    {
        nsa_status status = NSA_OK;

        if (strcmp(key, INPUT_KEY) == 0)
            span = json_document_span(document, value);
        else
            status = fields_set_json(&inference->fields, key, value, err);
        if (status != NSA_OK)
            return status;
    }
    if (!span)
        return nsa_error_set(err, NSA_EINVAL, "input: expected an array of numbers, got none");
    return read_input(inference, span, err);
}

static nsa_status json_decode(struct inference *inference, nsa_error *err)
{
    struct exchange *ex = inference->ex;
    json_document *document;
    nsa_status status;

    if (inference->fields.has_shape || inference->fields.has_dtype)
        return nsa_error_set(err, NSA_EINVAL,
                             "%s: expected in the query only with application/octet-stream",
                             inference->fields.has_shape ? "shape" : "dtype");
    if (!ex->body)
        return nsa_error_set(err, NSA_EFORMAT, "body: expected a JSON object, got nothing");
    status = json_document_open(&document, ex->body, ex->body_bytes, places, err);
    if (status != NSA_OK)
        return status;
    status = read_document(inference, document, err);
    json_document_close(document);
    if (status == NSA_OK)
        exchange_set_body(ex, NULL, 0); /* the numbers are elsewhere */
    return status;
}

/* The arrays that `shape` nests, the outermost included; SIZE_MAX if they are too many to count. */
static size_t count_arrays(const nsa_shape *shape)
{
    size_t total = 1;
    size_t level = 1;

    for (size_t i = 0; i + 1 < shape->rank; i++) {
        if (!nsa_size_mul(&level, level, shape->dims[i]) || !nsa_size_add(&total, total, level))
            return SIZE_MAX;
    }
    return total;
}

/* A shape such as [1000000, 1, 1, 1, 1, 0] is short to say, and long to write in brackets. */
static nsa_status json_admit(const struct inference *inference, nsa_error *err)
{
    const nsa_shape *shape = &inference->request.outputs[0].shape;
    size_t arrays = count_arrays(shape);
    size_t numbers = 0;
    nsa_status status = nsa_shape_count(&numbers, shape, err);

    if (status != NSA_OK || inference->fields.flat || arrays <= FREE_ARRAYS ||
        (arrays - FREE_ARRAYS) / 2 <= numbers)
        return status;
    return nsa_error_set(
        err, NSA_ELIMIT,
        "the answer: expected at most %zu arrays for %zu numbers, got %zu; ask for "
        "\"flat\": true or another format",
        FREE_ARRAYS + 2 * numbers, numbers, arrays);
}

static void write_shape(buffer *out, const nsa_shape *shape)
{
    buffer_append_text(out, "[");
    for (size_t i = 0; i < shape->rank; i++)
        buffer_printf(out, "%s%zu", i ? ", " : "", shape->dims[i]);
    buffer_append_text(out, "]");
}

/* An op's only output is called "output"; of several, each has its own name. */
static void json_encode(struct inference *inference, buffer *out)
{
    const nsa_op *op = inference->fields.op;
    const nsa_request *request = &inference->request;
    bool only = op->output_count == 1;

    buffer_append_text(out, "{");
    for (size_t i = 0; i < request->output_count; i++) {
        buffer_printf(out, "\"%s\": ", only ? "output" : op->outputs[i].name);
        json_write_array(out, &request->outputs[i], inference->fields.flat,
                         inference->fields.nonfinite_null);
        buffer_append_text(out, ", ");
    }
    buffer_append_text(out, "\"shape\": ");
    write_shape(out, &request->outputs[0].shape);
    if (only)
        buffer_printf(out, ", \"dtype\": \"%s\"", nsa_dtype_name(request->outputs[0].dtype));
    buffer_printf(out, ", \"model\": \"%s\", \"version\": \"%s\"}\n", inference->served->name,
                  inference->served->version_text);
}

const struct codec codec_json = {
    .media_type = "application/json",
    .form = OUTPUT_TEXT,
    .decode = json_decode,
    .admit = json_admit,
    .encode = json_encode,
};
