/* However a request is expressed, its outputs are the same bits: those of the library. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"
#include "tests/integration/oip.h"

#include <nsa/cpu.h>
#include <nsa/model.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 60
#define COMPRESS "tests/golden/compress_tiny.safetensors"  /* n = 2, d = 8 */
#define POSEMBED "tests/golden/posembed_short.safetensors" /* max_len, dim of its own */

static struct daemon *daemon;
static nsa_model *models[NSA_OP_COUNT];
static size_t max_len;
static size_t dim;

static int start(void **state)
{
    const nsa_model_info *info;

    (void)state;
    assert_status(NSA_OK, nsa_cpu_use("auto", NULL));
    daemon = daemon_share(DAEMON("--model", "compress=" COMPRESS, "--model", "posembed=" POSEMBED));
    assert_status(NSA_OK, nsa_model_create(&models[NSA_SELECT], NSA_SELECT, NULL));
    models[NSA_COMPRESS] = load_model(COMPRESS, NULL);
    models[NSA_POSEMBED] = load_model(POSEMBED, NULL);
    info = nsa_model_describe(models[NSA_POSEMBED]);
    max_len = info->dims[0].value;
    dim = info->dims[1].value;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    for (size_t i = 0; i < NSA_OP_COUNT; i++)
        nsa_model_unref(models[i]);
    daemon_stop(daemon);
    return 0;
}

/* --- random requests ----------------------------------------------------------------------- */

struct request {
    const nsa_op *op;
    nsa_tensor input;
    int64_t params[NSA_MAX_PARAMS];
    nsa_request expected;
};

/* A shape that the op takes; now and then without elements. */
static nsa_shape random_shape(nsa_op_id op, uint64_t *random)
{
    size_t rows = random_below(random, 6);

    switch (op) {
    case NSA_SELECT:
        return random_below(random, 2) ? (nsa_shape){1, {1 + random_below(random, 40)}}
                                       : (nsa_shape){3, {rows, 2, 1 + random_below(random, 40)}};
    case NSA_COMPRESS:
        return random_below(random, 2) ? (nsa_shape){2, {rows, 16}}
                                       : (nsa_shape){4, {rows, 2, 2, 8}};
    default:
        return (nsa_shape){3, {rows, 1 + random_below(random, max_len), dim}};
    }
}

static struct request make_request(uint64_t *random)
{
    nsa_op_id op = (nsa_op_id)random_below(random, NSA_OP_COUNT);
    nsa_dtype dtype = (nsa_dtype)random_below(random, NSA_I64);
    nsa_shape shape = random_shape(op, random);
    struct request request = {.op = nsa_op_at(op)};

    request.input = random_tensor(dtype, &shape, random);
    if (op == NSA_SELECT) {
        request.params[0] = (int64_t)random_below(random, shape.dims[shape.rank - 1] + 1);
        request.params[1] = 1;
    } else if (op == NSA_POSEMBED) {
        request.params[0] = (int64_t)random_below(random, max_len - shape.dims[1] + 1);
    }
    request.expected = compute(models[op], &request.input, request.params);
    return request;
}

static void free_request(struct request *request)
{
    free_outputs(&request->expected);
    free_tensor(&request->input);
}

/* --- ways to say it ------------------------------------------------------------------------ */

/* How a request travels: bits that go together in any way. */
enum {
    WAY_BINARY_INPUT = 1,
    WAY_BINARY_OUTPUT = 2, /* by default */
    WAY_MIXED_OUTPUTS = 4, /* the last output the other way, and listed first */
    WAY_K_TENSOR = 8,      /* a parameter as a tensor in JSON, before the op's own */
    WAY_GZIP = 16,
    WAY_DEFLATE = 32,
    WAY_COUNT = 64
};

static void check_outputs(struct client *client, const struct request *request, const char *way)
{
    for (size_t i = 0; i < request->op->output_count; i++) {
        nsa_tensor got = oip_output(client, request->op->outputs[i].name);

        expect_same(way, &request->expected.outputs[i], &got);
        free_tensor(&got);
    }
}

/* The JSON of the request; the caller frees it. */
static char *write_request(const struct request *request, unsigned way)
{
    const nsa_op *op = request->op;
    bool k_tensor = (way & WAY_K_TENSOR) && op->id == NSA_SELECT;
    char *input = oip_input(op->input.name, &request->input, way & WAY_BINARY_INPUT);
    char *text;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    assert_non_null(to);
    fputs("{\"inputs\": [", to);
    if (k_tensor)
        fprintf(to,
                "{\"name\": \"%s\", \"datatype\": \"INT64\", \"shape\": [1], \"data\": [%lld]}, ",
                op->params[0].name, (long long)request->params[0]);
    fprintf(to, "%s], \"parameters\": {\"binary_data_output\": %s", input,
            way & WAY_BINARY_OUTPUT ? "true" : "false");
    if (op->id != NSA_COMPRESS && !k_tensor)
        fprintf(to, ", \"%s\": %lld", op->params[0].name, (long long)request->params[0]);
    fputs("}", to);
    if (way & WAY_MIXED_OUTPUTS) {
        fputs(", \"outputs\": [", to);
        for (size_t i = op->output_count; i-- > 0;)
            fprintf(to, "{\"name\": \"%s\"%s}%s", op->outputs[i].name,
                    i + 1 < op->output_count  ? ""
                    : way & WAY_BINARY_OUTPUT ? ", \"parameters\": {\"binary_data\": false}"
                                              : ", \"parameters\": {\"binary_data\": true}",
                    i > 0 ? ", " : "");
        fputs("]", to);
    }
    fputs("}", to);
    assert_int_equal(0, fclose(to));
    free(input);
    return text;
}

static void ask_one_way(struct client *client, const struct request *request, unsigned way)
{
    const nsa_tensor *blobs[] = {&request->input};
    char *json = write_request(request, way);
    struct oip_body body = oip_body_make(json, blobs, way & WAY_BINARY_INPUT ? 1 : 0);
    struct call call = {.method = "POST", .headers = {NO_CONTENT_TYPE}};
    struct body packed = {NULL, 0};
    char path[64];
    char header[96];
    char name[64];

    snprintf(path, sizeof path, "/v2/models/%s/infer", request->op->name);
    snprintf(name, sizeof name, "%s %s, way %u", request->op->name,
             oip_datatype_of(request->input.dtype), way);
    call.path = path;
    call.body = body.bytes;
    call.size = body.size;
    if (way & WAY_BINARY_INPUT) {
        snprintf(header, sizeof header, "Inference-Header-Content-Length: %s", body.json_bytes);
        call.headers[1] = header;
    }
    if (way & (WAY_GZIP | WAY_DEFLATE)) {
        packed =
            way & WAY_GZIP ? pack_gzip(body.bytes, body.size) : pack_zlib(body.bytes, body.size);
        call.body = packed.bytes;
        call.size = packed.size;
        call.headers[way & WAY_BINARY_INPUT ? 2 : 1] =
            way & WAY_GZIP ? "Content-Encoding: gzip" : "Content-Encoding: deflate";
    }
    expect_reply(client_call(client, &call), 200, NULL);
    check_outputs(client, request, name);
    free(packed.bytes);
    free(body.bytes);
    free(json);
}

/* The rows alone, without JSON: for FP32, and a select of the default number of blocks. */
static void ask_without_json(struct client *client, const struct request *request)
{
    char path[64];

    if (request->input.dtype != NSA_F32 || request->op->id != NSA_COMPRESS)
        return;
    snprintf(path, sizeof path, "/v2/models/%s/infer", request->op->name);
    if (tensor_bytes(&request->input) > 0) {
        nsa_tensor expected = request->expected.outputs[0];
        nsa_tensor got;

        expect_reply(
            oip_post(client, path, request->input.data, tensor_bytes(&request->input), "0"), 200,
            NULL);
        got = oip_output(client, "y");
        expected.shape = (nsa_shape){2, {tensor_bytes(&expected) / 8 / sizeof(float), 8}};
        expect_same("without JSON", &expected, &got);
        free_tensor(&got);
    }
}

/* What /v1 makes of it, as raw elements. */
static void ask_v1(struct client *client, const struct request *request)
{
    nsa_tensor got;
    char path[96] = "/v1/compress";

    if (request->op->id == NSA_SELECT)
        snprintf(path, sizeof path, "/v1/select?num_selected_blocks=%lld",
                 (long long)request->params[0]);
    else if (request->op->id == NSA_POSEMBED)
        snprintf(path, sizeof path, "/v1/posembed?offset=%lld", (long long)request->params[0]);
    got = must_infer(client, FORMAT_RAW, path, &request->input);
    expect_same(path, &request->expected.outputs[0], &got);
    free_tensor(&got);
}

static void test_every_way_gives_the_same_bits(void **state)
{
    struct client *client = client_open(daemon);
    struct client *unpacking = client_open(daemon);
    uint64_t random = 3;

    (void)state;
    client_accept_compressed(unpacking);
    for (size_t round = 0; round < ROUNDS; round++) {
        struct request request = make_request(&random);

        for (unsigned way = 0; way < WAY_COUNT; way += 1 + (unsigned)random_below(&random, 5)) {
            if (!(way & WAY_GZIP) || !(way & WAY_DEFLATE))
                ask_one_way(way % 3 ? client : unpacking, &request, way);
        }
        ask_without_json(client, &request);
        ask_v1(client, &request);
        free_request(&request);
    }
    client_close(client);
    client_close(unpacking);
}

/* --- together ------------------------------------------------------------------------------ */

struct half {
    struct client *client;
    const struct request *request;
    bool oip;
    long batch_rows;
};

static void *ask_half(void *argument)
{
    struct half *half = argument;
    const char *rows;
    struct call call = {
        .method = "POST",
        .path = half->oip ? "/v2/models/compress/infer" : "/v1/compress?shape=3,16&dtype=float32",
        .body = half->request->input.data,
        .size = 3 * 16 * sizeof(float),
        .headers = {half->oip ? "Inference-Header-Content-Length: 0"
                              : "Content-Type: application/octet-stream"},
    };

    if (client_call(half->client, &call)->status == 200) {
        rows = client_header(half->client, "X-Batch-Rows");
        half->batch_rows = rows ? strtol(rows, NULL, 10) : -1;
    }
    return NULL;
}

/* A worker that waits for six rows gets three from each protocol. */
static void test_both_protocols_meet_in_one_batch(void **state)
{
    struct daemon *waiting = DAEMON("--model", "compress=" COMPRESS, "--compute-threads", "1",
                                    "--max-batch-rows", "6", "--max-queue-delay-us", "60000000");
    uint64_t random = 9;
    nsa_shape shape = {2, {3, 16}};
    struct request request = {.op = nsa_op_at(NSA_COMPRESS)};
    struct half halves[2];
    pthread_t threads[2];

    (void)state;
    request.input = random_tensor(NSA_F32, &shape, &random);
    for (size_t i = 0; i < 2; i++) {
        halves[i] = (struct half){client_open(waiting), &request, i == 1, 0};
        assert_int_equal(0, pthread_create(&threads[i], NULL, ask_half, &halves[i]));
    }
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(6, halves[i].batch_rows);
        client_close(halves[i].client);
    }
    free_tensor(&request.input);
    daemon_stop(waiting);
}

int run_oip_same(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_way_gives_the_same_bits),
        cmocka_unit_test_teardown(test_both_protocols_meet_in_one_batch, daemons_kill),
    };

    return cmocka_run_group_tests_name("oip: same bits", tests, start, stop);
}
