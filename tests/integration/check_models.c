/* What is served: the list, names and versions, defaults, each model's own configuration. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <jansson.h>
#include <nettle/sha2.h>
#include <nsa/model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TINY_JSON "{\"input\": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]"
#define DEMO_WEIGHTS "tests/golden/compress_demo.safetensors"

static char root[REPOSITORY_MAX_PATH_BYTES];

static int make_root(void **state)
{
    (void)state;
    repository_make(root);
    return 0;
}

static int remove_root(void **state)
{
    repository_remove(root);
    return daemons_kill(state);
}

/* --- the list ------------------------------------------------------------------------------ */

static void sha256_of(char text[65], const char *path)
{
    struct sha256_ctx context;
    uint8_t digest[SHA256_DIGEST_SIZE];
    size_t size;
    char *bytes = read_whole(path, &size);

    sha256_init(&context);
    sha256_update(&context, size, (const uint8_t *)bytes);
    sha256_digest(&context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    free(bytes);
}

/* The entry of /v1/models, or of --check, for this name and version. */
static const json_t *find_model(const json_t *list, const char *name, const char *version)
{
    size_t i;
    json_t *entry;

    json_array_foreach(json_object_get(list, "models"), i, entry)
    {
        if (strcmp(name, json_string_value(json_object_get(entry, "name"))) == 0 &&
            strcmp(version, json_string_value(json_object_get(entry, "version"))) == 0)
            return entry;
    }
    fail_msg("%s version %s is not in the list", name, version);
    return NULL;
}

static void expect_text(const json_t *entry, const char *key, const char *text)
{
    const char *got = json_string_value(json_object_get(entry, key));

    if (!got || strcmp(got, text) != 0)
        fail_msg("%s: expected %s, got %s", key, text, got ? got : "none");
}

static json_t *parse_list(const char *text)
{
    json_t *list = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

    if (!list)
        fail_msg("not JSON: %s", text);
    return list;
}

static void check_list(const char *text)
{
    json_t *list = parse_list(text);
    json_t *dimensions =
        json_pack("{s:i, s:i, s:i}", "dim_head", 64, "compress_block_size", 4, "hidden", 512);
    const json_t *entry = find_model(list, "c", "1");
    char digest[65];
    size_t size;

    assert_int_equal(4, json_array_size(json_object_get(list, "models")));
    free(read_whole(DEMO_WEIGHTS, &size));
    sha256_of(digest, DEMO_WEIGHTS);
    expect_text(entry, "op", "compress");
    expect_text(entry, "sha256", digest);
    expect_text(entry, "precision", "f32");
    expect_text(entry, "activation", "gelu");
    assert_int_equal(size, json_integer_value(json_object_get(entry, "bytes")));
    assert_true(json_equal(dimensions, json_object_get(entry, "dimensions")));
    json_decref(dimensions);
    entry = find_model(list, "p", "1");
    dimensions = json_pack("{s:i, s:i}", "max_len", 4, "dim", 2);
    expect_text(entry, "op", "posembed");
    assert_true(json_equal(dimensions, json_object_get(entry, "dimensions")));
    json_decref(dimensions);
    expect_text(find_model(list, "b", "1"), "op", "compress");
    entry = find_model(list, "select", "1");
    expect_text(entry, "op", "select");
    assert_null(json_object_get(entry, "sha256"));
    json_decref(list);
}

/* The page and --check say the same. */
static void test_list(void **state)
{
    const char *table = write_table("list.safetensors");
    const char *const arguments[] = {"--check",
                                     "--model",
                                     "c=" DEMO_WEIGHTS,
                                     "--model",
                                     model_argument("p", table),
                                     "--model",
                                     "b=tests/golden/compress_bf16.safetensors",
                                     NULL};
    struct outcome checked = run_program(arguments);
    struct daemon *daemon = daemon_start(arguments + 1);
    struct client *client = client_open(daemon);
    const struct reply *reply = client_get(client, "/v1/models");

    (void)state;
    expect_reply(reply, 200, NULL);
    expect_header(client, "Content-Type", "application/json");
    check_list(reply->body);
    assert_int_equal(0, checked.exit_status);
    assert_string_equal(reply->body, checked.out);
    unlink(table);
    outcome_free(&checked);
    client_close(client);
    daemon_stop(daemon);
}

/* --- names and versions -------------------------------------------------------------------- */

static void test_versions(void **state)
{
    struct daemon *daemon;
    struct client *client;

    (void)state;
    repository_copy(root, "compress/1/model.safetensors", TINY_WEIGHTS);
    repository_copy(root, "compress/10/model.safetensors", TINY_WEIGHTS);
    repository_copy(root, "compress/9/model.safetensors", TINY_WEIGHTS);
    repository_put_text(root, "compress/README", "no version");
    repository_put_text(root, "compress/latest/x", "no version");
    repository_put_text(root, ".git/config", "no model");
    repository_put_text(root, "README", "no model");
    daemon = DAEMON("--model-repository", root);
    client = client_open(daemon);
    expect_reply(client_json(client, "/v1/compress", TINY_JSON "}"), 200, "\"version\": \"10\"}");
    expect_reply(client_json(client, "/v1/compress?version=1", TINY_JSON "}"), 200,
                 "\"version\": \"1\"}");
    expect_reply(client_json(client, "/v1/compress", TINY_JSON ", \"version\": 9}"), 200,
                 "\"model\": \"compress\", \"version\": \"9\"}");
    expect_reply(client_json(client, "/v1/compress", TINY_JSON ", \"version\": \"10\"}"), 200,
                 "\"version\": \"10\"}");
    expect_reply(client_json(client, "/v1/compress?version=2", TINY_JSON "}"), 404,
                 "version: model 'compress' has no version 2");
    client_close(client);
    daemon_stop(daemon);
}

/* Named like the op; else the only one; else say which there are. */
static void test_defaults(void **state)
{
    struct daemon *daemon = DAEMON("--model", "left=" TINY_WEIGHTS);
    struct client *client = client_open(daemon);

    (void)state;
    expect_reply(client_json(client, "/v1/compress", TINY_JSON "}"), 200, "\"model\": \"left\"");
    expect_reply(client_json(client, "/v1/posembed", "{\"input\": [[1, 2]]}"), 404,
                 "no model for posembed is loaded");
    client_close(client);
    daemon_stop(daemon);

    daemon = DAEMON("--model", "right=" TINY_WEIGHTS, "--model", "left=" TINY_WEIGHTS);
    client = client_open(daemon);
    expect_reply(client_json(client, "/v1/compress", TINY_JSON "}"), 400,
                 "model: expected one of left, right, got none");
    expect_reply(client_json(client, "/v1/compress?model=right", TINY_JSON "}"), 200,
                 "\"model\": \"right\"");
    expect_reply(client_json(client, "/v1/compress", TINY_JSON ", \"model\": \"left\"}"), 200,
                 "\"model\": \"left\"");
    expect_reply(client_json(client, "/v1/compress?model=left", TINY_JSON ", \"model\": \"left\"}"),
                 400, "model: given twice");
    client_close(client);
    daemon_stop(daemon);

    daemon = DAEMON("--model", "a=" TINY_WEIGHTS, "--model", "compress=" TINY_WEIGHTS);
    client = client_open(daemon);
    expect_reply(client_json(client, "/v1/compress", TINY_JSON "}"), 200,
                 "\"model\": \"compress\"");
    client_close(client);
    daemon_stop(daemon);
}

/* --- config.json --------------------------------------------------------------------------- */

struct setting {
    const char *config;
    nsa_model_options options; /* that the library gives the same results with */
};

static const struct setting settings[] = {
    {"{}", {0}},
    {"{\"op\": \"compress\"}", {0}},
    {"{\"activation\": \"gelu\"}", {0}},
    {"{\"activation\": \"gelu_tanh\"}", {.activation = NSA_GELU_TANH}},
    {"{\"activation\": \"silu\"}", {.activation = NSA_SILU}},
    {"{\"activation\": \"relu\"}", {.activation = NSA_RELU}},
    {"{\"precision\": \"f32\"}", {0}},
    {"{\"precision\": \"bf16\"}", {.precision = NSA_PRECISION_BF16}},
    {"{\"key_prefix\": \"\"}", {0}},
    {"{\"max_batch_rows\": 2}", {0}},
    {"{\"max_queue_delay_us\": 10}", {0}},
    {"{\"description\": \"for tests\", \"activation\": \"relu\", \"precision\": \"bf16\"}",
     {.activation = NSA_RELU, .precision = NSA_PRECISION_BF16}},
};

#define SETTING_COUNT (sizeof settings / sizeof *settings)

/* Each setting computes what the library does with it, and no two different ones the same. */
static void test_settings(void **state)
{
    unsigned char *bytes;
    nsa_tensor input = load_golden("compress_tiny.x.npy", &bytes);
    struct daemon *daemon;
    struct client *client;
    json_t *list;

    (void)state;
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        char path[64];

        snprintf(path, sizeof path, "m%zu/1/model.safetensors", i);
        repository_copy(root, path, TINY_WEIGHTS);
        snprintf(path, sizeof path, "m%zu/config.json", i);
        repository_put_text(root, path, settings[i].config);
    }
    daemon = DAEMON("--model-repository", root);
    client = client_open(daemon);
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        nsa_model *model = load_model(TINY_WEIGHTS, &settings[i].options);
        nsa_request expected = compute(model, &input, NULL);
        nsa_tensor output;
        char path[64];

        snprintf(path, sizeof path, "/v1/compress?model=m%zu", i);
        output = must_infer(client, FORMAT_RAW, path, &input);
        expect_same(settings[i].config, &expected.outputs[0], &output);
        if (strstr(settings[i].config, "max_batch_rows"))
            expect_header(client, "X-Batch-Rows", "2");
        free_tensor(&output);
        free_outputs(&expected);
        nsa_model_unref(model);
    }
    list = parse_list(client_get(client, "/v1/models")->body);
    expect_text(find_model(list, "m11", "1"), "description", "for tests");
    expect_text(find_model(list, "m11", "1"), "activation", "relu");
    expect_text(find_model(list, "m11", "1"), "precision", "bf16");
    assert_null(json_object_get(find_model(list, "m10", "1"), "description"));
    json_decref(list);
    free(bytes);
    client_close(client);
    daemon_stop(daemon);
}

/* One file with two models: the prefix or the op chooses. */
static void test_prefixes(void **state)
{
    static const float tables[2][2] = {{1, 2}, {3, 4}};
    const struct weight weights[] = {
        {"a.embedding.weight", NSA_F32, {2, {1, 2}}, tables[0]},
        {"b.embedding.weight", NSA_F32, {2, {1, 2}}, tables[1]},
        {"b.other", NSA_I64, {1, {3}}, NULL},
    };
    const char *both = write_safetensors("both.safetensors", weights, 2);
    const char *one = write_safetensors("one.safetensors", weights + 1, 2);
    struct daemon *daemon;
    struct client *client;

    (void)state;
    repository_copy(root, "a/1/model.safetensors", both);
    repository_put_text(root, "a/config.json", "{\"key_prefix\": \"a.\"}");
    repository_copy(root, "b/1/model.safetensors", both);
    repository_put_text(root, "b/config.json", "{\"key_prefix\": \"b.\", \"op\": \"posembed\"}");
    repository_copy(root, "found/1/model.safetensors", one);
    daemon = DAEMON("--model-repository", root);
    client = client_open(daemon);
    expect_reply(client_json(client, "/v1/posembed?model=a", "{\"input\": [[0, 0]]}"), 200,
                 "\"output\": [[1,2]]");
    expect_reply(client_json(client, "/v1/posembed?model=b", "{\"input\": [[0, 0]]}"), 200,
                 "\"output\": [[3,4]]");
    expect_reply(client_json(client, "/v1/posembed?model=found", "{\"input\": [[0, 0]]}"), 200,
                 "\"output\": [[3,4]]");
    unlink(both);
    unlink(one);
    client_close(client);
    daemon_stop(daemon);
}

int run_models(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_list, daemons_kill),
        cmocka_unit_test_setup_teardown(test_versions, make_root, remove_root),
        cmocka_unit_test_teardown(test_defaults, daemons_kill),
        cmocka_unit_test_setup_teardown(test_settings, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_prefixes, make_root, remove_root),
    };

    return cmocka_run_group_tests_name("models", tests, NULL, NULL);
}
