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

static nsa_status npy_head(struct exchange *ex, char head[CODEC_HEAD_BYTES], size_t *size,
                           const nsa_tensor *output, nsa_error *err)
{
    _Static_assert(NSA_NPY_HEADER_BYTES <= CODEC_HEAD_BYTES, "room for the header");
    (void)ex;
    return nsa_npy_write_header(head, size, &output->shape, output->dtype, err);
}

const struct codec codec_npy = {
    .media_type = "application/x-npy",
    .decode = npy_decode,
    .head = npy_head,
};
