/* Inference requests of the Open Inference Protocol: JSON, and behind it the binary tensors. */
#include "server/oip_reader.h"

#include <nsa/size.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_US 1000u

/* inputs[].data: the object of the document, the array, the object of the input. */
static const json_place places[] = {
    {.depth = 3, .key = "data", .kind = JSON_ARRAY, .nullable = true}, {0}};

/* --- outputs ------------------------------------------------------------------------------- */

/* Add the op's output `index` to the answer, and have it computed. */
static struct inference_output *add_output(struct oip_reader *r, size_t index)
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

static nsa_status read_output_form(struct inference_output *output, struct oip_reader *r,
                                   const char *label, const json_t *parameters)
{
    bool binary = output->form == OUTPUT_BYTES;
    const char *region;
    nsa_status status;

    if (oip_get(parameters, "classification"))
        return nsa_error_set(r->err, NSA_EINVAL,
                             "%s.classification: expected none, as no output here is of classes",
                             label);
    status = oip_read_bool(&binary, r, label, parameters, "binary_data");
    output->form = binary ? OUTPUT_BYTES : OUTPUT_TEXT;
    if (status != NSA_OK || !oip_get(parameters, "shared_memory_region"))
        return status;
    status = oip_read_region(&region, &output->offset, &output->room_bytes, r, label, parameters);
    if (status != NSA_OK)
        return status;
    output->form = OUTPUT_SHARED;
    output->region = strdup(region);
    return output->region ? NSA_OK : nsa_error_set(r->err, NSA_ENOMEM, "out of memory");
}

static nsa_status read_output(struct oip_reader *r, const json_t *object, size_t index)
{
    const struct inference *inference = r->inference;
    const nsa_op *op = inference->fields.op;
    const json_t *parameters;
    char label[OIP_LABEL_BYTES];
    const char *name;
    size_t found = 0;
    nsa_status status;

    snprintf(label, sizeof label, "outputs[%zu]", index);
    if (!json_is_object(object))
        return oip_expected(r, "", label, "an object", object);
    status = oip_read_text(&name, r, label, object, "name");
    if (status == NSA_OK)
        status = oip_read_object(&parameters, r, label, object, "parameters");
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
static nsa_status read_outputs(struct oip_reader *r, const json_t *root)
{
    const json_t *outputs = oip_get(root, "outputs");
    const json_t *object;
    size_t index;

    if (outputs && !json_is_array(outputs))
        return oip_expected(r, "", "outputs", "an array", outputs);
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
static nsa_status read_parameters(struct oip_reader *r, const json_t *root)
{
    struct inference *inference = r->inference;
    struct exchange *ex = inference->ex;
    const nsa_op *op = inference->fields.op;
    const json_t *parameters;
    bool binary = false;
    uint64_t timeout_us = 0;
    nsa_status status = oip_read_object(&parameters, r, "", root, "parameters");

    if (status == NSA_OK)
        status = oip_read_bool(&binary, r, "parameters", parameters, "binary_data_output");
    if (status == NSA_OK)
        status = oip_read_size(&timeout_us, r, "parameters", parameters, "timeout");
    if (status != NSA_OK)
        return status;
    r->form = binary ? OUTPUT_BYTES : OUTPUT_TEXT;
    if (timeout_us > 0 && timeout_us < (ex->deadline_ns - ex->begin_ns) / NS_PER_US)
        ex->deadline_ns = ex->begin_ns + timeout_us * NS_PER_US;
    for (size_t i = 0; i < op->param_count; i++) {
        const json_t *value = oip_get(parameters, op->params[i].name);

        if (!value || op->params[i].output > 0)
            continue;
        status = fields_set_json(&inference->fields, op->params[i].name, value, r->err);
        if (status != NSA_OK)
            return status;
    }
    return NSA_OK;
}

static nsa_status read_id(struct oip_reader *r, const json_t *root)
{
    const json_t *id = oip_get(root, "id");

    if (!id)
        return NSA_OK;
    if (!json_is_string(id))
        return oip_expected(r, "", "id", "a text", id);
    if (json_string_length(id) == 0)
        return NSA_OK;
    r->inference->id = strdup(json_string_value(id));
    return r->inference->id ? NSA_OK : nsa_error_set(r->err, NSA_ENOMEM, "out of memory");
}

static nsa_status read_document(struct oip_reader *r, size_t json_bytes)
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
        status = oip_read_inputs(r, root);
    if (status == NSA_OK)
        status = read_outputs(r, root);
    json_document_close(document);
    if (status == NSA_OK && r->inference->input_memory)
        exchange_set_body(ex, NULL, 0); /* the numbers are elsewhere */
    return status;
}

/* No JSON: the body is the op's tensor in FP32, of the model's shape and as many rows as it has. */
static nsa_status read_raw(struct oip_reader *r)
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
    struct oip_reader r = {.inference = inference, .err = err};
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
