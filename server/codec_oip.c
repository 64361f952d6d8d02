/* Answers of the Open Inference Protocol, and the names it has for things. */
#include "server/json_scan.h"
#include "server/oip.h"
#include "server/server.h"
#include "server/shared_memory.h"

#include <inttypes.h>
#include <string.h>

static const char *const datatypes[NSA_DTYPE_COUNT] = {
    [NSA_F32] = "FP32", [NSA_F16] = "FP16",  [NSA_BF16] = "BF16",
    [NSA_F64] = "FP64", [NSA_I64] = "INT64",
};

const char *oip_datatype(nsa_dtype dtype)
{
    return datatypes[dtype];
}

bool oip_datatype_parse(nsa_dtype *out, const char *text)
{
    for (size_t i = 0; i < NSA_DTYPE_COUNT; i++) {
        if (strcmp(datatypes[i], text) == 0) {
            *out = (nsa_dtype)i;
            return true;
        }
    }
    return false;
}

int64_t oip_dimension(const nsa_model_info *info, const nsa_tensor_spec *spec, size_t index)
{
    for (size_t i = 0; spec->dims[index] && i < info->dim_count; i++) {
        if (strcmp(info->dims[i].name, spec->dims[index]) == 0)
            return (int64_t)info->dims[i].value;
    }
    return -1;
}

bool oip_param_is_input(const nsa_param_spec *param)
{
    return param->required;
}

/* Regions that the client names must hold their outputs. */
static nsa_status oip_admit(const struct inference *inference, nsa_error *err)
{
    struct shared_memory *shared = inference->ex->server->shared_memory;

    for (size_t i = 0; i < inference->output_count; i++) {
        const struct inference_output *output = &inference->outputs[i];
        size_t bytes = inference_bytes(inference, output);
        nsa_status status;

        if (output->form != OUTPUT_SHARED)
            continue;
        if (bytes > output->room_bytes)
            return nsa_error_set(err, NSA_EINVAL,
                                 "outputs[%zu].shared_memory_byte_size: expected at least %zu, got "
                                 "%" PRIu64,
                                 i, bytes, output->room_bytes);
        status = shared_memory_check(shared, output->region, output->offset, bytes, err);
        if (status != NSA_OK)
            return status;
    }
    return NSA_OK;
}

/* Where the elements are: the C++ client takes no keys but these among an output's parameters. */
static void write_place(const struct inference *inference, const struct inference_output *output,
                        buffer *out)
{
    size_t bytes = inference_bytes(inference, output);

    if (output->form == OUTPUT_TEXT) {
        buffer_append_text(out, ",\"data\":");
        json_write_array(out, inference_tensor(inference, output), true, false);
    } else if (output->form == OUTPUT_BYTES) {
        buffer_printf(out, ",\"parameters\":{\"binary_data_size\":%zu}", bytes);
    } else {
        buffer_append_text(out, ",\"parameters\":{\"shared_memory_region\":");
        buffer_append_json_string(out, output->region);
        buffer_printf(out, ",\"shared_memory_offset\":%" PRIu64 ",\"shared_memory_byte_size\":%zu}",
                      output->offset, bytes);
    }
}

static void write_json(const struct inference *inference, buffer *out)
{
    const nsa_op *op = inference->fields.op;

    buffer_printf(out, "{\"model_name\":\"%s\",\"model_version\":\"%s\"", inference->served->name,
                  inference->served->version_text);
    if (inference->id) {
        buffer_append_text(out, ",\"id\":");
        buffer_append_json_string(out, inference->id);
    }
    buffer_append_text(out, ",\"outputs\":[");
    for (size_t i = 0; i < inference->output_count; i++) {
        const struct inference_output *output = &inference->outputs[i];
        const nsa_tensor *tensor = inference_tensor(inference, output);

        buffer_printf(out, "%s{\"name\":\"%s\",\"datatype\":\"%s\",\"shape\":[", i ? "," : "",
                      op->outputs[output->index].name, oip_datatype(tensor->dtype));
        for (size_t d = 0; d < tensor->shape.rank; d++)
            buffer_printf(out, "%s%zu", d ? "," : "", tensor->shape.dims[d]);
        buffer_append_text(out, "]");
        write_place(inference, output, out);
        buffer_append_text(out, "}");
    }
    buffer_append_text(out, "]}");
}

/* Say what the answer is, and how long the JSON, if anything follows it. */
static void announce(struct inference *inference, size_t json_bytes)
{
    bool bytes = inference_has_form(inference, OUTPUT_BYTES);

    inference->content_type = bytes ? "application/octet-stream" : "application/json";
    if (bytes)
        answer_header_number(inference->ex, OIP_HEADER_LENGTH, json_bytes);
}

static nsa_status oip_head(struct inference *inference, buffer *head, nsa_error *err)
{
    (void)err;
    write_json(inference, head);
    /* Blanks count as JSON, and align what follows. */
    while (inference_has_form(inference, OUTPUT_BYTES) && head->status == NSA_OK &&
           head->size % CODEC_HEAD_ALIGN != 0)
        buffer_append_text(head, " ");
    announce(inference, head->size);
    return NSA_OK;
}

static void oip_encode(struct inference *inference, buffer *out)
{
    write_json(inference, out);
    announce(inference, out->size);
    for (size_t i = 0; i < inference->output_count; i++) {
        const struct inference_output *output = &inference->outputs[i];

        if (output->form == OUTPUT_BYTES)
            buffer_append(out, inference_tensor(inference, output)->data,
                          inference_bytes(inference, output));
    }
}

const struct codec codec_oip = {
    .media_type = "application/json",
    .form = OUTPUT_TEXT,
    .decode = oip_decode,
    .admit = oip_admit,
    .encode = oip_encode,
    .head = oip_head,
};
