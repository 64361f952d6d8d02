/* application/x-npy: one NumPy array; everything else in the query. */
#include "server/codec.h"
#include "server/infer.h"

#include <nsa/npy.h>

static nsa_status npy_decode(struct inference *inference, nsa_error *err)
{
    if (inference->fields.has_shape || inference->fields.has_dtype)
        return nsa_error_set(
            err, NSA_EINVAL,
            "%s: expected only with application/octet-stream; an .npy says its own",
            inference->fields.has_shape ? "shape" : "dtype");
    return nsa_npy_parse(&inference->request.input, inference->ex->body, inference->ex->body_bytes,
                         err);
}

static nsa_status npy_head(struct inference *inference, buffer *head, nsa_error *err)
{
    const nsa_tensor *output = inference_tensor(inference, &inference->outputs[0]);
    char text[NSA_NPY_HEADER_BYTES];
    size_t size;
    nsa_status status = nsa_npy_write_header(text, &size, &output->shape, output->dtype, err);

    if (status == NSA_OK)
        buffer_append(head, text, size);
    return status;
}

const struct codec codec_npy = {
    .media_type = "application/x-npy",
    .form = OUTPUT_BYTES,
    .decode = npy_decode,
    .admit = codec_admit_one,
    .head = npy_head,
};
