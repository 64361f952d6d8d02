/* application/octet-stream: the elements alone, shape and dtype in the query or in headers. */
#include "server/codec.h"
#include "server/infer.h"

#include <nsa/decimal.h>

/* Each number with a comma or the NUL behind it. */
#define SHAPE_HEADER_BYTES (NSA_MAX_RANK * (NSA_DECIMAL_BYTES + 1))

_Static_assert(SHAPE_HEADER_BYTES + 256 <= EXCHANGE_HEADER_TEXT_BYTES, "and others have room");

/* "2,8,16,32", as the query and the header have it. */
static void write_shape(char text[SHAPE_HEADER_BYTES], const nsa_shape *shape)
{
    for (size_t i = 0; i < shape->rank; i++) {
        if (i > 0)
            *text++ = ',';
        text = nsa_decimal(text, shape->dims[i]);
    }
    *text = '\0';
}

/* A tensor header says the same as its field in the query; said in both places is said twice. */
static nsa_status set_from_header(struct inference *inference, const char *header,
                                  const char *field, nsa_error *err)
{
    const char *text = exchange_header(inference->ex, header);

    if (!text)
        return NSA_OK;
    return fields_set_text(&inference->fields, FIELDS_HEADER, field, text, err);
}

static nsa_status raw_decode(struct inference *inference, nsa_error *err)
{
    struct fields *fields = &inference->fields;
    nsa_tensor *input = &inference->request.input;
    size_t expected;
    nsa_status status;

    status = set_from_header(inference, "X-Tensor-Shape", "shape", err);
    if (status == NSA_OK)
        status = set_from_header(inference, "X-Tensor-Dtype", "dtype", err);
    if (status != NSA_OK)
        return status;
    if (!fields->has_shape || !fields->has_dtype)
        return nsa_error_set(err, NSA_EINVAL,
                             "%s: expected in the query or in %s, as in "
                             "?shape=2,8,16,32&dtype=float32, got none",
                             fields->has_shape ? "dtype" : "shape",
                             fields->has_shape ? "X-Tensor-Dtype" : "X-Tensor-Shape");
    status = nsa_shape_bytes(&expected, &fields->shape, fields->dtype, err);
    if (status != NSA_OK)
        return status;
    if (inference->ex->body_bytes != expected) {
        char text[NSA_SHAPE_TEXT_BYTES];

        return nsa_error_set(err, NSA_EINVAL, "body: expected %zu bytes for %s %s, got %zu",
                             expected, nsa_dtype_name(fields->dtype),
                             nsa_shape_text(text, &fields->shape), inference->ex->body_bytes);
    }
    input->data = inference->ex->body;
    input->dtype = fields->dtype;
    input->shape = fields->shape;
    return NSA_OK;
}

static nsa_status raw_head(struct inference *inference, buffer *head, nsa_error *err)
{
    const nsa_tensor *output = inference_tensor(inference, &inference->outputs[0]);
    struct exchange *ex = inference->ex;
    char text[SHAPE_HEADER_BYTES];

    (void)head;
    (void)err;
    write_shape(text, &output->shape);
    answer_header_copy(ex, "X-Tensor-Shape", text);
    answer_header(ex, "X-Tensor-Dtype", nsa_dtype_name(output->dtype));
    return NSA_OK;
}

const struct codec codec_raw = {
    .media_type = "application/octet-stream",
    .form = OUTPUT_BYTES,
    .decode = raw_decode,
    .admit = codec_admit_one,
    .head = raw_head,
};
