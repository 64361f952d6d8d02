/* Inference requests of the Open Inference Protocol: JSON, and behind it the binary tensors. */
#include "server/json_scan.h"
#include "server/oip.h"
#include "server/server.h"
#include "server/shared_memory.h"

#include <inttypes.h>
#include <nsa/size.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_US 1000u
#define LABEL_BYTES 48

/* inputs[].data: the object of the document, the array, the object of the input. */
static const json_place places[] = {{.depth = 3, .key = "data", .kind = JSON_ARRAY}, {0}};

/* A request being read. */
struct reader {
    struct inference *inference;
    const json_document *document;
    const char *blob; /* the binary tensors not taken yet: (blob_bytes) */
    size_t blob_bytes;
    enum output_form form; /* of outputs that don't say */
    nsa_error *err;
};

/* An input tensor as the request describes it, and how messages call it. */
struct input {
    char label[LABEL_BYTES];
    nsa_tensor tensor;
    size_t count;
    size_t bytes;
    const json_t *data;
    const json_t *parameters;
};

/* --- JSON ---------------------------------------------------------------------------------- */

static nsa_status expected(const struct reader *r, const char *label, const char *key,
                           const char *what, const json_t *got)
{
    char *text = got ? json_dumps(got, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

    nsa_error_set(r->err, NSA_EINVAL, "%s%s%s: expected %s, got %.64s", label, *label ? "." : "",
                  key, what, text ? text : "none");
    free(text);
    return NSA_EINVAL;
}

/* The text `key` of `object`. */
static nsa_status read_text(const char **out, const struct reader *r, const char *label,
                            const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_string(value))
        return expected(r, label, key, "a text", value);
    *out = json_string_value(value);
    return NSA_OK;
}

/* The integer `key`, at least 0, of `object`; *out stays as it is if there is none. */
static nsa_status read_size(uint64_t *out, const struct reader *r, const char *label,
                            const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (!value)
        return NSA_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return expected(r, label, key, "an integer of at least 0", value);
    *out = (uint64_t)json_integer_value(value);
    return NSA_OK;
}

static nsa_status read_bool(bool *out, const struct reader *r, const char *label,
                            const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (!value)
        return NSA_OK;
    if (!json_is_boolean(value))
        return expected(r, label, key, "true or false", value);
    *out = json_is_true(value);
    return NSA_OK;
}

/* An object that need not be there. */
static nsa_status read_object(const json_t **out, const struct reader *r, const char *label,
                              const json_t *object, const char *key)
{
    *out = json_object_get(object, key);
    if (*out && !json_is_object(*out))
        return expected(r, label, key, "an object", *out);
    return NSA_OK;
}

static nsa_status read_shape(nsa_shape *out, const struct reader *r, const char *label,
                             const json_t *object)
{
    const json_t *shape = json_object_get(object, "shape");

    if (!json_is_array(shape) || json_array_size(shape) > NSA_MAX_RANK)
        return expected(r, label, "shape", "an array of up to 32 integers", shape);
    out->rank = json_array_size(shape);
    for (size_t i = 0; i < out->rank; i++) {
        const json_t *dim = json_array_get(shape, i);

        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return expected(r, label, "shape", "integers of at least 0", shape);
        out->dims[i] = (size_t)json_integer_value(dim);
    }
    return NSA_OK;
}

/* --- elements ------------------------------------------------------------------------------ */

static nsa_status allocate(void **out, const struct input *input, size_t bytes, nsa_error *err)
{
    *out = malloc(bytes > 0 ? bytes : 1);
    return *out ? NSA_OK
                : nsa_error_set(err, NSA_ENOMEM, "%s: out of memory for %zu bytes", input->label,
                                bytes);
}

/* The numbers in the text; any nesting will do as long as their number is the shape's. */
static nsa_status read_data(void **owned, struct input *input, const struct reader *r)
{
    const json_span *span = json_document_span(r->document, input->data);
    size_t capacity = span ? span->commas + 1 : 0; /* below the body's size */
    char path[LABEL_BYTES + sizeof ".data"];
    nsa_shape shape;
    size_t got;
    nsa_status status;

    if (!span)
        return expected(r, input->label, "data", "an array of numbers", input->data);
    status = allocate(owned, input, capacity * nsa_dtype_size(input->tensor.dtype), r->err);
    if (status != NSA_OK)
        return status;
    snprintf(path, sizeof path, "%s.data", input->label);
    status = json_scan(*owned, input->tensor.dtype, capacity, &shape, span, path, r->err);
    if (status != NSA_OK)
        return status;
    status = nsa_shape_count(&got, &shape, r->err);
    if (status == NSA_OK && got != input->count) {
        char text[NSA_SHAPE_TEXT_BYTES];

        status = nsa_error_set(r->err, NSA_EINVAL, "%s: expected %zu numbers for shape %s, got %zu",
                               path, input->count, nsa_shape_text(text, &input->tensor.shape), got);
    }
    input->tensor.data = *owned;
    return status;
}

/* The next bytes behind the JSON. */
static nsa_status read_blob(struct input *input, struct reader *r)
{
    uint64_t size = 0;
    nsa_status status = read_size(&size, r, input->label, input->parameters, "binary_data_size");

    if (status != NSA_OK)
        return status;
    if (size != input->bytes)
        return nsa_error_set(r->err, NSA_EINVAL,
                             "%s.binary_data_size: expected %zu bytes for its datatype and shape, "
                             "got %" PRIu64,
                             input->label, input->bytes, size);
    if (size > r->blob_bytes)
        return nsa_error_set(r->err, NSA_EINVAL,
                             "%s: expected %" PRIu64 " bytes behind the JSON, got %zu",
                             input->label, size, r->blob_bytes);
    input->tensor.data = (char *)r->blob;
    r->blob += size;
    r->blob_bytes -= size;
    return NSA_OK;
}

/* The region, where in it, and how many bytes there, that `parameters` name. */
static nsa_status read_region(const char **region, uint64_t *offset, uint64_t *bytes,
                              const struct reader *r, const char *label, const json_t *parameters)
{
    nsa_status status = read_text(region, r, label, parameters, "shared_memory_region");

    *offset = 0;
    *bytes = UINT64_MAX;
    if (status == NSA_OK && !r->inference->ex->server->shared_memory)
        status = nsa_error_set(r->err, NSA_EINVAL,
                               "%s.shared_memory_region: expected none, as the server runs without "
                               "--allow-client-shm",
                               label);
    if (status == NSA_OK)
        status = read_size(offset, r, label, parameters, "shared_memory_offset");
    if (status == NSA_OK)
        status = read_size(bytes, r, label, parameters, "shared_memory_byte_size");
    if (status == NSA_OK && *bytes == UINT64_MAX)
        status = expected(r, label, "shared_memory_byte_size", "an integer of at least 0", NULL);
    return status;
}

static nsa_status read_shared(void **owned, struct input *input, const struct reader *r)
{
    const char *region;
    uint64_t offset;
    uint64_t bytes;
    nsa_status status = read_region(&region, &offset, &bytes, r, input->label, input->parameters);

    if (status != NSA_OK)
        return status;
    if (bytes != input->bytes)
        return nsa_error_set(r->err, NSA_EINVAL,
                             "%s.shared_memory_byte_size: expected %zu bytes for its datatype and "
                             "shape, got %" PRIu64,
                             input->label, input->bytes, bytes);
    status = shared_memory_check(r->inference->ex->server->shared_memory, region, offset,
                                 input->bytes, r->err);
    if (status == NSA_OK)
        status = allocate(owned, input, input->bytes, r->err);
    if (status == NSA_OK)
        status = shared_memory_read(r->inference->ex->server->shared_memory, region, offset, *owned,
                                    input->bytes, r->err);
    input->tensor.data = *owned;
    return status;
}

/* Get the elements by the one way that the request says; *owned is memory for the caller to free.
 */
static nsa_status read_elements(void **owned, struct input *input, struct reader *r)
{
    bool blob = json_object_get(input->parameters, "binary_data_size") != NULL;
    bool shared = json_object_get(input->parameters, "shared_memory_region") != NULL;

    *owned = NULL;
    if ((input->data != NULL) + blob + shared != 1)
        return nsa_error_set(r->err, NSA_EINVAL,
                             "%s: expected exactly one of data, parameters.binary_data_size and "
                             "parameters.shared_memory_region, got %d",
                             input->label, (input->data != NULL) + blob + shared);
    if (blob)
        return read_blob(input, r);
    return shared ? read_shared(owned, input, r) : read_data(owned, input, r);
}

/* --- inputs -------------------------------------------------------------------------------- */

static nsa_status describe_input(struct input *input, struct reader *r, const json_t *object)
{
    const char *datatype;
    nsa_status status = read_text(&datatype, r, input->label, object, "datatype");

    if (status == NSA_OK && !oip_datatype_parse(&input->tensor.dtype, datatype))
        status = nsa_error_set(r->err, NSA_EINVAL,
                               "%s.datatype: expected FP32, FP16, BF16, FP64 or INT64, got %.32s",
                               input->label, datatype);
    if (status == NSA_OK)
        status = read_shape(&input->tensor.shape, r, input->label, object);
    if (status == NSA_OK)
        status = nsa_shape_count(&input->count, &input->tensor.shape, r->err);
    if (status == NSA_OK)
        status = nsa_shape_bytes(&input->bytes, &input->tensor.shape, input->tensor.dtype, r->err);
    if (status == NSA_OK)
        status = read_object(&input->parameters, r, input->label, object, "parameters");
    input->data = json_object_get(object, "data");
    return status;
}

/* The op's tensor. */
static nsa_status read_tensor(struct input *input, struct reader *r)
{
    struct inference *inference = r->inference;
    const char *name = inference->fields.op->input.name;
    nsa_status status;

    if (inference->request.input.data)
        return nsa_error_set(r->err, NSA_EINVAL, "%s: '%s' is given twice", input->label, name);
    if (!nsa_dtype_is_float(input->tensor.dtype))
        return nsa_error_set(r->err, NSA_EINVAL,
                             "%s.datatype: expected FP32, FP16, BF16 or FP64 for '%s', got %s",
                             input->label, name, oip_datatype(input->tensor.dtype));
    status = read_elements(&inference->input_memory, input, r);

    inference->request.input = input->tensor;
    return status;
}

/* A tensor of one integer that stands for the param `index`. */
static nsa_status read_param_tensor(struct input *input, struct reader *r, size_t index)
{
    int64_t value = 0;
    void *owned;
    nsa_status status;

    if (input->tensor.dtype != NSA_I64 || input->count != 1) {
        char text[NSA_SHAPE_TEXT_BYTES];

        return nsa_error_set(r->err, NSA_EINVAL, "%s: expected INT64 [1], got %s %s", input->label,
                             oip_datatype(input->tensor.dtype),
                             nsa_shape_text(text, &input->tensor.shape));
    }
    status = read_elements(&owned, input, r);
    if (status == NSA_OK) {
        memcpy(&value, input->tensor.data, sizeof value);
        status = fields_set_integer(&r->inference->fields, index, value, r->err);
    }
    free(owned);
    return status;
}

static nsa_status read_input(struct reader *r, const json_t *object, size_t index)
{
    const nsa_op *op = r->inference->fields.op;
    struct input input = {0};
    const char *name;
    size_t param;
    nsa_status status;

    snprintf(input.label, sizeof input.label, "inputs[%zu]", index);
    if (!json_is_object(object))
        return expected(r, "", input.label, "an object", object);
    status = read_text(&name, r, input.label, object, "name");
    if (status != NSA_OK)
        return status;
    param = fields_param(op, name);
    if (param < op->param_count && !oip_param_is_input(&op->params[param]))
        param = op->param_count;
    if (strcmp(name, op->input.name) != 0 && param == op->param_count)
        return nsa_error_set(r->err, NSA_EINVAL,
                             "%s: unexpected input '%.64s' for model '%s', expected '%s'",
                             input.label, name, r->inference->served->name, op->input.name);
    status = describe_input(&input, r, object);
    if (status != NSA_OK)
        return status;
    return param < op->param_count ? read_param_tensor(&input, r, param) : read_tensor(&input, r);
}

static nsa_status read_inputs(struct reader *r, const json_t *root)
{
    const json_t *inputs = json_object_get(root, "inputs");
    const json_t *object;
    size_t index;

    if (!json_is_array(inputs))
        return expected(r, "", "inputs", "an array", inputs);
    json_array_foreach(inputs, index, object)
    {
        nsa_status status = read_input(r, object, index);

        if (status != NSA_OK)
            return status;
    }
    if (!r->inference->request.input.data)
        return nsa_error_set(r->err, NSA_EINVAL, "inputs: expected '%s', got none of that name",
                             r->inference->fields.op->input.name);
    if (r->blob_bytes > 0)
        return nsa_error_set(r->err, NSA_EINVAL,
                             "body: expected its end behind the inputs, got %zu more bytes",
                             r->blob_bytes);
    return NSA_OK;
}

/* --- outputs ------------------------------------------------------------------------------- */

/* Add the op's output `index` to the answer, and have it computed. */
static struct inference_output *add_output(struct reader *r, size_t index)
{
    struct inference *inference = r->inference;
    struct inference_output *output = &inference->outputs[inference->output_count++];
    const nsa_op *op = inference->fields.op;

    *output = (struct inference_output){.index = index, .form = r->form};
    for (size_t i = 0; i < op->param_count; i++) {
        if (op->params[i].output > 0 && op->params[i].output == index)
            inference->fields.params[i] = 1;
    }
    return output;
}

static nsa_status read_output_form(struct inference_output *output, struct reader *r,
                                   const char *label, const json_t *parameters)
{
    bool binary = output->form == OUTPUT_BYTES;
    const char *region;
    nsa_status status;

    if (json_object_get(parameters, "classification"))
        return nsa_error_set(r->err, NSA_EINVAL,
                             "%s.classification: expected none, as no output here is of classes",
                             label);
    status = read_bool(&binary, r, label, parameters, "binary_data");
    output->form = binary ? OUTPUT_BYTES : OUTPUT_TEXT;
    if (status != NSA_OK || !json_object_get(parameters, "shared_memory_region"))
        return status;
    status = read_region(&region, &output->offset, &output->room_bytes, r, label, parameters);
    if (status != NSA_OK)
        return status;
    output->form = OUTPUT_SHARED;
    output->region = strdup(region);
    return output->region ? NSA_OK : nsa_error_set(r->err, NSA_ENOMEM, "out of memory");
}

static nsa_status read_output(struct reader *r, const json_t *object, size_t index)
{
    const struct inference *inference = r->inference;
    const nsa_op *op = inference->fields.op;
    const json_t *parameters;
    char label[LABEL_BYTES];
    const char *name;
    size_t found = 0;
    nsa_status status;

    snprintf(label, sizeof label, "outputs[%zu]", index);
    if (!json_is_object(object))
        return expected(r, "", label, "an object", object);
    status = read_text(&name, r, label, object, "name");
    if (status == NSA_OK)
        status = read_object(&parameters, r, label, object, "parameters");
    if (status != NSA_OK)
        return status;
    while (found < op->output_count && strcmp(op->outputs[found].name, name) != 0)
        found++;
    if (found == op->output_count)
        return nsa_error_set(
            r->err, NSA_EINVAL, "%s: unexpected output '%.64s' for model '%s', expected '%s'%s%s%s",
            label, name, inference->served->name, op->outputs[0].name, found > 1 ? " or '" : "",
            found > 1 ? op->outputs[1].name : "", found > 1 ? "'" : "");
    for (size_t i = 0; i < inference->output_count; i++) {
        if (inference->outputs[i].index == found)
            return nsa_error_set(r->err, NSA_EINVAL, "%s: '%s' is given twice", label, name);
    }
    return read_output_form(add_output(r, found), r, label, parameters);
}

/* Those listed, in their order; all, if there is no list. */
static nsa_status read_outputs(struct reader *r, const json_t *root)
{
    const json_t *outputs = json_object_get(root, "outputs");
    const json_t *object;
    size_t index;

    if (outputs && !json_is_array(outputs))
        return expected(r, "", "outputs", "an array", outputs);
    json_array_foreach(outputs, index, object)
    {
        nsa_status status = read_output(r, object, index);

        if (status != NSA_OK)
            return status;
    }
    for (size_t i = 0; index == 0 && i < r->inference->fields.op->output_count; i++)
        add_output(r, i);
    return NSA_OK;
}

/* --- the request --------------------------------------------------------------------------- */

/* Parameters that nobody knows are accepted; those of sequences and priorities cannot matter. */
static nsa_status read_parameters(struct reader *r, const json_t *root)
{
    struct inference *inference = r->inference;
    struct exchange *ex = inference->ex;
    const nsa_op *op = inference->fields.op;
    const json_t *parameters;
    bool binary = false;
    uint64_t timeout_us = 0;
    nsa_status status = read_object(&parameters, r, "", root, "parameters");

    if (status == NSA_OK)
        status = read_bool(&binary, r, "parameters", parameters, "binary_data_output");
    if (status == NSA_OK)
        status = read_size(&timeout_us, r, "parameters", parameters, "timeout");
    if (status != NSA_OK)
        return status;
    r->form = binary ? OUTPUT_BYTES : OUTPUT_TEXT;
    if (timeout_us > 0 && timeout_us < (ex->deadline_ns - ex->begin_ns) / NS_PER_US)
        ex->deadline_ns = ex->begin_ns + timeout_us * NS_PER_US;
    for (size_t i = 0; i < op->param_count; i++) {
        const json_t *value = json_object_get(parameters, op->params[i].name);

        if (!value || op->params[i].output > 0)
            continue;
        status = fields_set_json(&inference->fields, op->params[i].name, value, r->err);
        if (status != NSA_OK)
            return status;
    }
    return NSA_OK;
}

static nsa_status read_id(struct reader *r, const json_t *root)
{
    const json_t *id = json_object_get(root, "id");

    if (!id)
        return NSA_OK;
    if (!json_is_string(id))
        return expected(r, "", "id", "a text", id);
    if (json_string_length(id) == 0)
        return NSA_OK;
    r->inference->id = strdup(json_string_value(id));
    return r->inference->id ? NSA_OK : nsa_error_set(r->err, NSA_ENOMEM, "out of memory");
}

static nsa_status read_document(struct reader *r, size_t json_bytes)
{
    struct exchange *ex = r->inference->ex;
    json_document *document;
    const json_t *root;
    nsa_status status = json_document_open(&document, ex->body, json_bytes, places, r->err);

    if (status != NSA_OK)
        return status;
    r->document = document;
    root = json_document_root(document);
    status = read_id(r, root);
    if (status == NSA_OK)
        status = read_parameters(r, root);
    if (status == NSA_OK)
        status = read_inputs(r, root);
    if (status == NSA_OK)
        status = read_outputs(r, root);
    json_document_close(document);
    if (status == NSA_OK && r->inference->input_memory)
        exchange_set_body(ex, NULL, 0); /* the numbers are elsewhere */
    return status;
}

/* No JSON: the body is the op's tensor in FP32, of the model's shape and as many rows as it has. */
static nsa_status read_raw(struct reader *r)
{
    struct inference *inference = r->inference;
    const nsa_tensor_spec *spec = &inference->fields.op->input;
    nsa_tensor *input = &inference->request.input;
    size_t row_bytes = sizeof(float);

    input->shape.rank = 1;
    for (size_t i = 0; i < spec->rank; i++) {
        int64_t dim = oip_dimension(nsa_model_describe(inference->served->model), spec, i);

        if (dim < 0)
            continue;
        input->shape.dims[input->shape.rank++] = (size_t)dim;
        if (!nsa_size_mul(&row_bytes, row_bytes, (size_t)dim))
            return nsa_error_set(r->err, NSA_ELIMIT, "body: a row of the model is too large");
    }
    if (inference->ex->body_bytes % row_bytes != 0)
        return nsa_error_set(r->err, NSA_EINVAL, "body: expected a multiple of %zu bytes, got %zu",
                             row_bytes, inference->ex->body_bytes);
    input->shape.dims[0] = inference->ex->body_bytes / row_bytes;
    input->dtype = NSA_F32;
    input->data = inference->ex->body;
    r->form = OUTPUT_BYTES;
    return read_outputs(r, NULL);
}

nsa_status oip_decode(struct inference *inference, nsa_error *err)
{
    struct exchange *ex = inference->ex;
    const char *header = exchange_header(ex, OIP_HEADER_LENGTH);
    struct reader r = {.inference = inference, .err = err};
    uint64_t json_bytes = ex->body_bytes;
    char *end;

    if (header) {
        json_bytes = strtoull(header, &end, 10);
        if (*header < '0' || *header > '9' || *end != '\0' || json_bytes > ex->body_bytes)
            return nsa_error_set(err, NSA_EINVAL,
                                 OIP_HEADER_LENGTH ": expected an integer of bytes, at most the "
                                                   "%zu of the body, got %.64s",
                                 ex->body_bytes, header);
        if (json_bytes == 0)
            return read_raw(&r);
    }
    if (!ex->body)
        return nsa_error_set(err, NSA_EFORMAT, "body: expected a JSON object, got nothing");
    r.blob = ex->body + json_bytes;
    r.blob_bytes = ex->body_bytes - (size_t)json_bytes;
    return read_document(&r, (size_t)json_bytes);
}
