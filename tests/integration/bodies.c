#include "tests/integration/bodies.h"

#include <math.h>
#include <nsa/npy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PATH_BYTES 1024

const char *const format_types[FORMAT_COUNT] = {"application/json", "application/x-npy",
                                                "application/octet-stream"};

size_t tensor_bytes(const nsa_tensor *tensor)
{
    size_t bytes = 0;

    assert_status(NSA_OK, nsa_shape_bytes(&bytes, &tensor->shape, tensor->dtype, NULL));
    return bytes;
}

static size_t tensor_count(const nsa_tensor *tensor)
{
    return tensor_bytes(tensor) / nsa_dtype_size(tensor->dtype);
}

/* --- requests ------------------------------------------------------------------------------ */

/* Nine digits tell every float32 from its neighbours. */
static void print_number(FILE *to, float value)
{
    if (isnan(value))
        fputs("NaN", to);
    else if (isinf(value))
        fputs(value < 0 ? "-Infinity" : "Infinity", to);
    else
        fprintf(to, "%.9g", (double)value);
}

static void print_nested(FILE *to, const nsa_shape *shape, size_t axis, const float **values)
{
    if (axis == shape->rank) {
        print_number(to, *(*values)++);
        return;
    }
    fputc('[', to);
    for (size_t i = 0; i < shape->dims[axis]; i++) {
        if (i > 0)
            fputc(',', to);
        print_nested(to, shape, axis + 1, values);
    }
    fputc(']', to);
}

static struct body make_json(const nsa_tensor *input, const char *more)
{
    float *values = malloc(tensor_count(input) * sizeof *values + 1);
    const float *at = values;
    struct body body;
    FILE *to = open_memstream(&body.bytes, &body.size);

    assert_non_null(values);
    assert_non_null(to);
    nsa_to_f32(values, input->data, input->dtype, tensor_count(input));
    fputs("{\"input\": ", to);
    print_nested(to, &input->shape, 0, &at);
    fprintf(to, "%s}", more ? more : "");
    assert_int_equal(0, fclose(to));
    free(values);
    return body;
}

struct body make_body(enum format format, const nsa_tensor *input, const char *more)
{
    size_t bytes = tensor_bytes(input);
    struct body body = {NULL, 0};
    char head[NSA_NPY_HEADER_BYTES];

    if (format == FORMAT_JSON)
        return make_json(input, more);
    if (format == FORMAT_NPY)
        assert_status(NSA_OK,
                      nsa_npy_write_header(head, &body.size, &input->shape, input->dtype, NULL));
    body.bytes = malloc(body.size + bytes + 1);
    assert_non_null(body.bytes);
    memcpy(body.bytes, head, body.size);
    if (bytes > 0)
        memcpy(body.bytes + body.size, input->data, bytes);
    body.size += bytes;
    body.bytes[body.size] = '\0';
    return body;
}

/* "2,8,16,32" */
static void print_shape(char *text, size_t size, const nsa_shape *shape)
{
    text[0] = '\0';
    for (size_t i = 0; i < shape->rank; i++)
        snprintf(text + strlen(text), size - strlen(text), "%s%zu", i > 0 ? "," : "",
                 shape->dims[i]);
}

/* --- answers ------------------------------------------------------------------------------- */

/* Read "2, 3]" or "2,3"; false for anything else. */
static bool read_shape(nsa_shape *shape, const char *text)
{
    shape->rank = 0;
    while (*text >= '0' && *text <= '9') {
        char *end;

        if (shape->rank == NSA_MAX_RANK)
            return false;
        shape->dims[shape->rank++] = strtoull(text, &end, 10);
        text = end + strspn(end, ", ");
    }
    return *text == '\0' || *text == ']';
}

bool json_tensor(nsa_tensor *out, const char *json, const char *key)
{
    bool integers = strcmp(key, "indices") == 0;
    const char *shape = strstr(json, "\"shape\": [");
    nsa_tensor tensor = {.dtype = integers ? NSA_I64 : NSA_F32};
    char quoted[64];
    const char *at;
    size_t count;

    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    at = strstr(json, quoted);
    if (!at || !shape || !read_shape(&tensor.shape, shape + strlen("\"shape\": [")))
        return false;
    at += strlen(quoted);
    count = tensor_count(&tensor);
    tensor.data = malloc(tensor_bytes(&tensor) + 1);
    assert_non_null(tensor.data);
    for (size_t i = 0; i < count; i++) {
        char *end;

        at += strspn(at, "[], \n");
        if (integers)
            ((int64_t *)tensor.data)[i] = strtoll(at, &end, 10);
        else
            ((float *)tensor.data)[i] = strtof(at, &end);
        if (end == at) {
            free_tensor(&tensor);
            return false;
        }
        at = end;
    }
    *out = tensor;
    return at[strspn(at, "[], \n")] == '"' || count == 0;
}

static bool raw_tensor(nsa_tensor *out, struct client *client, const struct reply *reply)
{
    nsa_tensor tensor;
    const char *header = client_header(client, "X-Tensor-Shape");

    if (!header || !read_shape(&tensor.shape, header))
        return false;
    header = client_header(client, "X-Tensor-Dtype");
    if (!header || !nsa_dtype_from_name(&tensor.dtype, header) ||
        tensor_bytes(&tensor) != reply->size)
        return false;
    tensor.data = malloc(reply->size + 1);
    assert_non_null(tensor.data);
    memcpy(tensor.data, reply->body, reply->size);
    *out = tensor;
    return true;
}

static bool npy_tensor(nsa_tensor *out, const struct reply *reply)
{
    nsa_tensor view;

    if (nsa_npy_parse(&view, reply->body, reply->size, NULL) != NSA_OK)
        return false;
    *out = view;
    out->data = malloc(tensor_bytes(&view) + 1);
    assert_non_null(out->data);
    memcpy(out->data, view.data, tensor_bytes(&view));
    return true;
}

static bool take_answer(nsa_tensor *output, struct client *client, enum format format,
                        const struct reply *reply)
{
    const char *type = client_header(client, "Content-Type");

    if (!type || strcmp(type, format_types[format]) != 0)
        return false;
    if (format == FORMAT_NPY)
        return npy_tensor(output, reply);
    if (format == FORMAT_RAW)
        return raw_tensor(output, client, reply);
    return json_tensor(output, reply->body, "output") ||
           json_tensor(output, reply->body, "indices");
}

long infer(nsa_tensor *output, struct client *client, enum format format, const char *path,
           const nsa_tensor *input)
{
    struct body body = make_body(format, input, NULL);
    char type[64], shape[256], whole[MAX_PATH_BYTES];
    const struct reply *reply;

    snprintf(type, sizeof type, "Content-Type: %s", format_types[format]);
    print_shape(shape, sizeof shape, &input->shape);
    if (format == FORMAT_RAW)
        snprintf(whole, sizeof whole, "%s%sshape=%s&dtype=%s", path, strchr(path, '?') ? "&" : "?",
                 shape, nsa_dtype_name(input->dtype));
    else
        snprintf(whole, sizeof whole, "%s", path);
    reply = client_call(
        client,
        &(struct call){.path = whole, .body = body.bytes, .size = body.size, .headers = {type}});
    free(body.bytes);
    if (reply->status == 200 && !take_answer(output, client, format, reply))
        return 0;
    return reply->status;
}

nsa_tensor must_infer(struct client *client, enum format format, const char *path,
                      const nsa_tensor *input)
{
    nsa_tensor output = {.data = NULL};
    long status = infer(&output, client, format, path, input);

    if (status != 200)
        fail_msg("%s as %s: expected 200, got %ld: %.500s", path, format_types[format], status,
                 client_body(client));
    return output;
}

nsa_request compute(const nsa_model *model, const nsa_tensor *input, const int64_t *params)
{
    nsa_request request = {.input = *input};

    if (params)
        memcpy(request.params, params, sizeof request.params);
    plan_outputs(&request, model);
    if (request.rows > 0)
        run_whole(model, &request);
    return request;
}

void expect_same(const char *what, const nsa_tensor *expected, const nsa_tensor *got)
{
    char text[2][NSA_SHAPE_TEXT_BYTES];
    size_t size = nsa_dtype_size(expected->dtype);

    if (expected->dtype != got->dtype || !nsa_shape_equal(&expected->shape, &got->shape))
        fail_msg("%s: expected %s %s, got %s %s", what, nsa_dtype_name(expected->dtype),
                 nsa_shape_text(text[0], &expected->shape), nsa_dtype_name(got->dtype),
                 nsa_shape_text(text[1], &got->shape));
    for (size_t i = 0; i < tensor_bytes(expected); i += size) {
        if (memcmp((char *)expected->data + i, (char *)got->data + i, size) != 0)
            fail_msg("%s: element %zu differs in its bits", what, i / size);
    }
}

/* --- content encodings --------------------------------------------------------------------- */

static void put_bytes(FILE *to, uint64_t value, size_t count, bool big_endian)
{
    for (size_t i = 0; i < count; i++)
        fputc((int)(value >> (8 * (big_endian ? count - 1 - i : i)) & 0xFF), to);
}

/* RFC 1952, section 8, a bit at a time. */
static uint32_t crc32_of(const unsigned char *bytes, size_t size)
{
    uint32_t crc = ~UINT32_C(0);

    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xEDB88320) : 0);
    }
    return ~crc;
}

/* RFC 1950, section 9. */
static uint32_t adler32_of(const unsigned char *bytes, size_t size)
{
    uint32_t a = 1, b = 0;

    for (size_t i = 0; i < size; i++) {
        a = (a + bytes[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

/* Stored blocks of RFC 1951. */
static void put_stored(FILE *to, const char *bytes, size_t size)
{
    do {
        size_t piece = size < 65535 ? size : 65535;

        fputc(piece == size, to);
        put_bytes(to, piece, 2, false);
        put_bytes(to, ~piece, 2, false);
        fwrite(bytes, 1, piece, to);
        bytes += piece;
        size -= piece;
    } while (size > 0);
}

static void put_gzip_head(FILE *to)
{
    fwrite("\x1F\x8B\x08\0\0\0\0\0\0\xFF", 1, 10, to);
}

struct body pack_gzip(const void *bytes, size_t size)
{
    struct body body;
    FILE *to = open_memstream(&body.bytes, &body.size);

    assert_non_null(to);
    put_gzip_head(to);
    put_stored(to, bytes, size);
    put_bytes(to, crc32_of(bytes, size), 4, false);
    put_bytes(to, size, 4, false);
    assert_int_equal(0, fclose(to));
    return body;
}

struct body pack_zlib(const void *bytes, size_t size)
{
    struct body body;
    FILE *to = open_memstream(&body.bytes, &body.size);

    assert_non_null(to);
    put_bytes(to, 0x7801, 2, true);
    put_stored(to, bytes, size);
    put_bytes(to, adler32_of(bytes, size), 4, true);
    assert_int_equal(0, fclose(to));
    return body;
}

/* Bits of RFC 1951, the first in the lowest place of a byte. */
static void put_bits(FILE *to, unsigned *held, unsigned *held_bits, unsigned bits, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        *held |= (bits >> i & 1) << (*held_bits)++;
        if (*held_bits == 8) {
            fputc((int)*held, to);
            *held = *held_bits = 0;
        }
    }
}

/*
 * One block of fixed Huffman codes, which come with their highest bit first: a blank (0x50, eight
 * bits), then `count` times "258 bytes from one byte back" (0xC5 in eight bits, 0 in five), the
 * end (seven zeros). What a server must refuse for its size needs no right checksum.
 */
struct body pack_bomb(size_t count)
{
    struct body body;
    FILE *to = open_memstream(&body.bytes, &body.size);
    unsigned held = 0, held_bits = 0;

    assert_non_null(to);
    put_gzip_head(to);
    put_bits(to, &held, &held_bits, 3, 3);
    put_bits(to, &held, &held_bits, 0x0A, 8);
    for (size_t i = 0; i < count; i++)
        put_bits(to, &held, &held_bits, 0xA3, 13);
    put_bits(to, &held, &held_bits, 0, 7 + 8);
    put_bytes(to, 0, 8, false);
    assert_int_equal(0, fclose(to));
    return body;
}
