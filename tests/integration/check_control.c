/* Models that clients load and unload, with --model-control explicit. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <nettle/base64.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TINY_INFER                                                                                 \
    "{\"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [1, 16], \"data\": "       \
    "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}]}"
#define LOAD "/v2/repository/models/keys/load"
#define UNLOAD "/v2/repository/models/keys/unload"
#define INFER "/v2/models/keys/infer"

static char root[REPOSITORY_MAX_PATH_BYTES];
static struct daemon *daemon;
static struct client *client;

static int start(void **state)
{
    (void)state;
    repository_make(root);
    repository_copy(root, "keys/1/model.safetensors", TINY_WEIGHTS);
    daemon = DAEMON("--model-repository", root, "--model-control", "explicit");
    client = client_open(daemon);
    return 0;
}

static int stop(void **state)
{
    client_close(client);
    repository_remove(root);
    return daemons_kill(state);
}

static const struct reply *post(const char *path, const char *body)
{
    const struct call call = {.method = "POST", .path = path, .body = body};

    return client_call(client, &call);
}

static const char *index_text(void)
{
    const struct reply *reply = post("/v2/repository/index", NULL);

    expect_reply(reply, 200, NULL);
    return reply->body;
}

static void expect_index(const char *part)
{
    const char *text = index_text();

    if (!strstr(text, part))
        fail_msg("expected %s in the index: %s", part, text);
}

static bool metrics_forget(void *context)
{
    (void)context;
    return !strstr(client_get(client, "/metrics")->body, "model=\"keys\"");
}

static void test_unload_and_load(void **state)
{
    (void)state;
    expect_reply(post(INFER, TINY_INFER), 200, "\"model_name\":\"keys\"");
    expect_reply(post(UNLOAD, "{\"parameters\": {\"unload_dependents\": false}}"), 200, NULL);
    expect_reply(post(INFER, TINY_INFER), 404, "Request for unknown model: 'keys' is not found");
    expect_reply(client_json(client, "/v1/compress", "{\"input\": []}"), 404,
                 "no model for compress is loaded");
    expect_index("{\"name\":\"keys\",\"version\":\"\",\"state\":\"UNAVAILABLE\","
                 "\"reason\":\"unloaded\"}");
    expect_reply(post("/v2/repository/index", "{\"ready\": true}"), 200, NULL);
    assert_null(strstr(client_body(client), "keys"));
    assert_true(wait_until(metrics_forget, NULL));
    expect_reply(post(LOAD, NULL), 200, NULL);
    expect_index("{\"name\":\"keys\",\"version\":\"1\",\"state\":\"READY\",\"reason\":\"\"}");
    expect_reply(post(INFER, TINY_INFER), 200, NULL);
    daemon_stop(daemon);
}

/* New names are listed, and served when somebody asks for them. */
static void test_new_names(void **state)
{
    (void)state;
    repository_copy(root, "more/3/model.safetensors", TINY_WEIGHTS);
    expect_index("{\"name\":\"more\",\"version\":\"\",\"state\":\"UNAVAILABLE\","
                 "\"reason\":\"not loaded\"}");
    expect_reply(post("/v2/repository/models/more/load", "{}"), 200, NULL);
    expect_index("{\"name\":\"more\",\"version\":\"3\",\"state\":\"READY\",\"reason\":\"\"}");
    expect_reply(post("/v2/models/more/versions/3/infer", TINY_INFER), 200,
                 "\"model_name\":\"more\",\"model_version\":\"3\"");
    daemon_stop(daemon);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *path, *body;
        long status;
        const char *part;
    } cases[] = {
        {"/v2/repository/models/nobody/load", "{}", 404, "Request for unknown model: 'nobody'"},
        {"/v2/repository/models/nobody/unload", "{}", 404, "Request for unknown model: 'nobody'"},
        {"/v2/repository/models/../load", "{}", 404, "Request for unknown model: '..'"},
        {"/v2/repository/models/%2e%2e/load", "{}", 404, "Request for unknown model: '..'"},
        {"/v2/repository/models/keys%2fload", "{}", 404, "no such route"},
        {"/v2/repository/models/select/unload", "{}", 400, "select has no weights"},
        {LOAD, "{", 400, "malformed JSON"},
        {LOAD, "[]", 400, "expected a JSON object, got an array"},
        {LOAD, "{\"parameters\": 1}", 400, "parameters: expected an object"},
        {LOAD, "{\"parameters\": {\"config\": {}}}", 400, "parameters.config: expected JSON in a"},
        {LOAD, "{\"parameters\": {\"config\": \"{\"}}", 400, "parameters.config: line 1"},
        {LOAD, "{\"parameters\": {\"config\": \"{\\\"backend\\\": 1}\"}}", 400,
         "unknown key 'backend'"},
        {LOAD, "{\"parameters\": {\"file:1/model.onnx\": \"\"}}", 400,
         "expected \\\"file:VERSION/model.safetensors\\\", got \\\"file:1/model.onnx\\\""},
        {LOAD, "{\"parameters\": {\"file:0/model.safetensors\": \"\"}}", 400, "file:VERSION"},
        {LOAD, "{\"parameters\": {\"file:1/model.safetensors\": 7}}", 400, "expected a string"},
        {LOAD, "{\"parameters\": {\"file:1/model.safetensors\": \"A\"}}", 400, "file:1"},
        {LOAD, "{\"parameters\": {\"file:1/model.safetensors\": \"AAAA\"}}", 400,
         "failed to load 'keys': keys/1/model.safetensors: expected at least 8 bytes"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_reply(post(cases[i].path, cases[i].body), cases[i].status, cases[i].part);
    expect_reply(post(INFER, TINY_INFER), 200, NULL);
    daemon_stop(daemon);
}

/* A load that fails leaves what serves, and the index says why. */
static void test_a_broken_file(void **state)
{
    (void)state;
    repository_put_text(root, "keys/1/model.safetensors", "broken");
    expect_reply(post(LOAD, "{}"), 400, "failed to load 'keys': ");
    expect_index("{\"name\":\"keys\",\"version\":\"1\",\"state\":\"READY\",\"reason\":\"");
    expect_index("keys/1/model.safetensors: expected at least 8 bytes");
    expect_reply(post(INFER, TINY_INFER), 200, NULL);
    daemon_stop(daemon);
}

/* The client's own configuration, then its own weights, in place of the repository's. */
static void test_overrides(void **state)
{
    const char *table = write_table("override.safetensors");
    size_t size;
    char *bytes = read_whole(table, &size);
    char *body = malloc(BASE64_ENCODE_RAW_LENGTH(size) + 128);
    size_t used;

    (void)state;
    expect_reply(
        post(LOAD, "{\"parameters\": {\"config\": \"{\\\"activation\\\": \\\"relu\\\"}\"}}"), 200,
        NULL);
    assert_non_null(strstr(client_get(client, "/v1/models")->body, "\"activation\": \"relu\""));
    used = (size_t)sprintf(body, "{\"parameters\": {\"file:5/model.safetensors\": \"");
    base64_encode_raw(body + used, size, (const uint8_t *)bytes);
    strcpy(body + used + BASE64_ENCODE_RAW_LENGTH(size), "\"}}");
    expect_reply(post(LOAD, body), 200, NULL);
    expect_reply(
        post("/v2/models/keys/versions/5/infer",
             "{\"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [1, 1, 2], "
             "\"data\": [10, 20]}]}"),
        200, "\"data\":[11,22]");
    expect_reply(post("/v2/models/keys/versions/1/infer", TINY_INFER), 404, "version 1");
    expect_reply(post(LOAD, "{}"), 200, NULL);
    expect_reply(post(INFER, TINY_INFER), 200, "\"model_version\":\"1\"");
    free(body);
    free(bytes);
    remove(table);
    daemon_stop(daemon);
}

/* --- at the same time ---------------------------------------------------------------------- */

struct ask {
    struct client *client;
    struct call call;
    long status;
};

static void *send_ask(void *argument)
{
    struct ask *ask = argument;

    ask->status = client_call(ask->client, &ask->call)->status;
    return NULL;
}

/* A request that waits for its batch is answered by the model that it began with. */
static void test_unload_with_a_request_waiting(void **state)
{
    struct ask ask;
    pthread_t thread;

    (void)state;
    repository_put_text(root, "keys/config.json", "{\"max_queue_delay_us\": 1000000}");
    expect_reply(post(LOAD, "{}"), 200, NULL);
    ask = (struct ask){client_open(daemon), {.path = INFER, .body = TINY_INFER}, 0};
    assert_int_equal(0, pthread_create(&thread, NULL, send_ask, &ask));
    wait_metric(client, "nsad_queue_rows", 1);
    expect_reply(post(UNLOAD, "{}"), 200, NULL);
    expect_reply(post(INFER, TINY_INFER), 404, NULL);
    pthread_join(thread, NULL);
    assert_int_equal(200, ask.status);
    client_close(ask.client);
    daemon_stop(daemon);
}

struct changer {
    struct client *client;
    char load[64], unload[64], infer[64];
    char failure[128];
};

static void *load_and_unload(void *argument)
{
    struct changer *changer = argument;
    const struct call calls[] = {
        {.method = "POST", .path = changer->load, .body = "{}"},
        {.path = changer->infer, .body = TINY_INFER},
        {.method = "POST", .path = changer->unload, .body = "{}"},
    };

    for (size_t i = 0; i < 30 && !changer->failure[0]; i++) {
        const struct reply *reply = client_call(changer->client, &calls[i % 3]);

        if (reply->status != 200)
            snprintf(changer->failure, sizeof changer->failure, "%s: %ld", calls[i % 3].path,
                     reply->status);
    }
    return NULL;
}

/* Changes come one after the other, whoever asks; each client sees its own model. */
static void test_many_changers(void **state)
{
    struct changer changers[4];
    pthread_t threads[4];

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct changer *changer = &changers[i];
        char path[64];

        *changer = (struct changer){.client = client_open(daemon)};
        snprintf(path, sizeof path, "m%zu/1/model.safetensors", i);
        repository_copy(root, path, TINY_WEIGHTS);
        snprintf(changer->load, sizeof changer->load, "/v2/repository/models/m%zu/load", i);
        snprintf(changer->unload, sizeof changer->unload, "/v2/repository/models/m%zu/unload", i);
        snprintf(changer->infer, sizeof changer->infer, "/v2/models/m%zu/infer", i);
        assert_int_equal(0, pthread_create(&threads[i], NULL, load_and_unload, changer));
    }
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < 4; i++) {
        if (changers[i].failure[0])
            fail_msg("%s", changers[i].failure);
        client_close(changers[i].client);
    }
    expect_reply(post(INFER, TINY_INFER), 200, NULL);
    daemon_stop(daemon);
}

/* --- settings ------------------------------------------------------------------------------ */

static void test_logging(void **state)
{
    static const char path[] = "/v2/logging";
    char settings[512];

    (void)state;
    expect_reply(client_get(client, path), 200,
                 "\"log_info\":true,\"log_warning\":true,\"log_error\":true,"
                 "\"log_verbose_level\":0");
    expect_reply(post(path, "{\"log_info\": false}"), 200,
                 "\"log_info\":false,\"log_warning\":true");
    expect_reply(post(path, "{\"log_verbose_level\": 1}"), 200, "\"log_info\":true");
    expect_reply(post(path, "{\"log_verbose_level\": 0, \"log_info\": true}"), 200,
                 "\"log_verbose_level\":0");
    snprintf(settings, sizeof settings, "%s", client_get(client, path)->body);
    expect_reply(post(path, settings), 200, settings);
    expect_reply(post(path, "{\"log_warning\": false, \"log_info\": true}"), 400,
                 "log_warning: expected true, as log_info is");
    expect_reply(post(path, "{\"log_error\": false, \"log_warning\": false, \"log_info\": false}"),
                 400, "log_error: expected true");
    expect_reply(post(path, "{\"log_info\": 1}"), 400, "log_info: expected true or false");
    expect_reply(post(path, "{\"log_file\": \"/tmp/x\"}"), 400, "log_file: expected log_info");
    daemon_stop(daemon);
}

/* Without the option nothing of this may be asked for. */
static void test_off_by_default(void **state)
{
    struct daemon *plain = DAEMON("--model", "keys=" TINY_WEIGHTS);
    struct client *other = client_open(plain);

    (void)state;
    expect_reply(client_json(other, LOAD, "{}"), 501, "the server runs with none");
    expect_reply(client_json(other, UNLOAD, "{}"), 501, "the server runs with none");
    expect_reply(client_json(other, "/v2/logging", "{\"log_info\": false}"), 501, "explicit");
    expect_reply(client_get(other, "/v2/logging"), 200, "\"log_info\":true");
    client_close(other);
    daemon_stop(plain);
    daemon_stop(daemon);
}

int run_control(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unload_and_load, start, stop),
        cmocka_unit_test_setup_teardown(test_new_names, start, stop),
        cmocka_unit_test_setup_teardown(test_refusals, start, stop),
        cmocka_unit_test_setup_teardown(test_a_broken_file, start, stop),
        cmocka_unit_test_setup_teardown(test_overrides, start, stop),
        cmocka_unit_test_setup_teardown(test_unload_with_a_request_waiting, start, stop),
        cmocka_unit_test_setup_teardown(test_many_changers, start, stop),
        cmocka_unit_test_setup_teardown(test_logging, start, stop),
        cmocka_unit_test_setup_teardown(test_off_by_default, start, stop),
    };

    return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
