/* The input tensors of a request: described in its JSON, their elements there or elsewhere. */
#include "server/memory.h"
#include "server/oip_reader.h"
#include "server/server.h"
#include "server/shared_memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* An input tensor as the request describes it, and how messages call it. */
struct input {
    char label[OIP_LABEL_BYTES];
    nsa_tensor tensor;
    size_t count;
    size_t bytes;
    const json_t *data;
    const json_t *parameters;
};

/* --- elements ------------------------------------------------------------------------------ */

static nsa_status allocate(void **out, const struct input *input, size_t bytes,
                           const struct oip_reader *r)
{
    *out = memory_take(r->inference->ex->server->memory, bytes);
    return *out ? NSA_OK
                : nsa_error_set(r->err, NSA_ENOMEM, "%s: out of memory for %zu bytes", input->label,
                                bytes);
}

/* The numbers in the text; any nesting will do as long as their number is the shape's. */
static nsa_status read_data(void **owned, struct input *input, const struct oip_reader *r)
{
    const json_span *span = json_document_span(r->document, input->data);
    size_t capacity = span ? span->commas + 1 : 0; /* below the body's size */
    char path[OIP_LABEL_BYTES + sizeof ".data"];
    nsa_shape shape;
    size_t got;
    nsa_status status;

    if (!span)
        return oip_expected(r, input->label, "data", "an array of numbers", input->data);
    status = allocate(owned, input, capacity * nsa_dtype_size(input->tensor.dtype), r);
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
static nsa_status read_blob(struct input *input, struct oip_reader *r)
{
    uint64_t size = 0;
    nsa_status status =
        oip_read_size(&size, r, input->label, input->parameters, "binary_data_size");

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

static nsa_status read_shared(void **owned, struct input *input, const struct oip_reader *r)
{
    const char *region;
    uint64_t offset;
    uint64_t bytes;
    nsa_status status =
        oip_read_region(&region, &offset, &bytes, r, input->label, input->parameters);

    if (status != NSA_OK)
        return status;
    if (bytes != input->bytes)
        return nsa_error_set(r->err, NSA_EINVAL,
                             "%s.shared_memory_byte_size: expected %zu bytes for its datatype and "
                             "shape, got %" PRIu64,
                             input->label, input->bytes, bytes);
    if (bytes > r->inference->ex->server->config.max_body_bytes)
        return nsa_error_set(r->err, NSA_ELIMIT, "%s: expected at most %zu bytes, got %" PRIu64,
                             input->label, r->inference->ex->server->config.max_body_bytes, bytes);
    status = shared_memory_check(r->inference->ex->server->shared_memory, region, offset,
                                 input->bytes, r->err);
    if (status == NSA_OK)
        status = allocate(owned, input, input->bytes, r);
    if (status == NSA_OK)
        status = shared_memory_read(r->inference->ex->server->shared_memory, region, offset, *owned,
                                    input->bytes, r->err);
    input->tensor.data = *owned;
    return status;
}

/* Get the elements by the one way that the request says; *owned is memory for the caller to free.
 */
static nsa_status read_elements(void **owned, struct input *input, struct oip_reader *r)
{
    bool blob = oip_get(input->parameters, "binary_data_size") != NULL;
    bool shared = oip_get(input->parameters, "shared_memory_region") != NULL;

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

static nsa_status describe_input(struct input *input, struct oip_reader *r, const json_t *object)
{
    const char *datatype;
    nsa_status status = oip_read_text(&datatype, r, input->label, object, "datatype");

    if (status == NSA_OK && !oip_datatype_parse(&input->tensor.dtype, datatype))
        status = nsa_error_set(r->err, NSA_EINVAL,
                               "%s.datatype: expected FP32, FP16, BF16, FP64 or INT64, got %.32s",
                               input->label, datatype);
    if (status == NSA_OK)
        status = oip_read_shape(&input->tensor.shape, r, input->label, object);
    if (status == NSA_OK)
        status = nsa_shape_count(&input->count, &input->tensor.shape, r->err);
    if (status == NSA_OK)
        status = nsa_shape_bytes(&input->bytes, &input->tensor.shape, input->tensor.dtype, r->err);
    if (status == NSA_OK)
        status = oip_read_object(&input->parameters, r, input->label, object, "parameters");
    input->data = oip_get(object, "data");
    return status;
}

/* The op's tensor. */
static nsa_status read_tensor(struct input *input, struct oip_reader *r)
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
static nsa_status read_param_tensor(struct input *input, struct oip_reader *r, size_t index)
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
    memory_give(owned);
    return status;
}

static nsa_status read_input(struct oip_reader *r, const json_t *object, size_t index)
{
    const nsa_op *op = r->inference->fields.op;
    struct input input = {0};
    const char *name;
    size_t param;
    nsa_status status;

    snprintf(input.label, sizeof input.label, "inputs[%zu]", index);
    if (!json_is_object(object))
        return oip_expected(r, "", input.label, "an object", object);
    status = oip_read_text(&name, r, input.label, object, "name");
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

nsa_status oip_read_inputs(struct oip_reader *r, const json_t *root)
{
    const json_t *inputs = oip_get(root, "inputs");
    const json_t *object;
    size_t index;

    if (!json_is_array(inputs))
        return oip_expected(r, "", "inputs", "an array", inputs);
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
