/* Models that are replaced while they serve: no request is lost, and no memory. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <nsa/cpu.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLIENTS 4
#define RELOADS 20
#define SETTLED 4 /* reloads after which an allocator has what it keeps of them */
#define IN 1024
#define HIDDEN 2048
#define OUT 16
#define MODEL_BYTES ((double)(IN * HIDDEN + HIDDEN * OUT) * sizeof(float))

static char root[REPOSITORY_MAX_PATH_BYTES];

/* Two models of the same shape, and what each makes of the one row that is asked for. */
static char *weights[2];
static size_t weight_bytes[2];
static float row[IN];
static float expected[2][OUT];

static int make_models(void **state)
{
    uint64_t random = 11;

    (void)state;
    assert_status(NSA_OK, nsa_cpu_use("auto", NULL));
    for (size_t i = 0; i < IN; i++)
        row[i] = random_float(&random);
    for (size_t i = 0; i < 2; i++) {
        nsa_mlp mlp = {.in = IN, .hidden = HIDDEN, .out = OUT};
        const char *path = write_mlp(&mlp, NSA_F32, &random);
        nsa_tensor input = {row, NSA_F32, {2, {1, IN}}};
        nsa_model *model = load_model(path, NULL);
        nsa_request request = compute(model, &input, NULL);

        memcpy(expected[i], request.outputs[0].data, sizeof expected[i]);
        free_outputs(&request);
        nsa_model_unref(model);
        weights[i] = read_whole(path, &weight_bytes[i]);
        unlink(path);
        free_mlp(&mlp);
    }
    return 0;
}

static int free_models(void **state)
{
    (void)state;
    free(weights[0]);
    free(weights[1]);
    return 0;
}

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

/* Put one of the two where the model's version is, as a whole: the file is renamed into place. */
static void put_model(size_t which, const char *path)
{
    char from[2 * REPOSITORY_MAX_PATH_BYTES];
    char to[2 * REPOSITORY_MAX_PATH_BYTES];

    repository_put(root, "keys/incoming", weights[which], weight_bytes[which]);
    repository_put_text(root, path, "");
    snprintf(from, sizeof from, "%s/keys/incoming", root);
    snprintf(to, sizeof to, "%s/%s", root, path);
    assert_int_equal(0, rename(from, to));
}

/* --- clients ------------------------------------------------------------------------------- */

struct load {
    struct client *client;
    const atomic_bool *over;
    atomic_size_t answers;
    atomic_int last; /* which model gave the last answer */
    char failure[256];
};

/* Which of the two models gave the answer; -1: neither. */
static int which_model(const void *bytes, size_t size)
{
    for (int i = 0; i < 2; i++) {
        if (size >= sizeof expected[i] && memcmp((const char *)bytes + size - sizeof expected[i],
                                                 expected[i], sizeof expected[i]) == 0)
            return i;
    }
    return -1;
}

/* By turns as raw elements under /v1, and as a binary tensor without JSON under /v2. */
static void *send_load(void *argument)
{
    static const struct call calls[2] = {
        {.path = "/v1/compress?model=keys&shape=1,1024&dtype=float32",
         .body = row,
         .size = sizeof row,
         .headers = {"Content-Type: application/octet-stream"}},
        {.path = "/v2/models/keys/infer",
         .body = row,
         .size = sizeof row,
         .headers = {"Inference-Header-Content-Length: 0"}},
    };
    struct load *load = argument;

    while (!atomic_load(load->over)) {
        const struct reply *reply =
            client_call(load->client, &calls[atomic_load(&load->answers) % 2]);
        int which = which_model(reply->body, reply->size);

        if (reply->status != 200 || which < 0) {
            snprintf(load->failure, sizeof load->failure, "after %zu answers: %ld %s %.100s",
                     atomic_load(&load->answers), reply->status, reply->why ? reply->why : "",
                     reply->status == 200 ? "with other bits" : reply->body);
            break;
        }
        atomic_store(&load->last, which);
        atomic_fetch_add(&load->answers, 1);
    }
    return NULL;
}

/* The clients, and how many answers each must have had before the test goes on. */
struct progress {
    struct load *loads;
    size_t wanted[CLIENTS];
};

static bool have_gone_on(void *context)
{
    const struct progress *progress = context;

    for (size_t i = 0; i < CLIENTS; i++) {
        if (atomic_load(&progress->loads[i].answers) < progress->wanted[i] &&
            !progress->loads[i].failure[0])
            return false;
    }
    return true;
}

/* Wait until every client has had `count` more answers. */
static bool go_on(struct load *loads, size_t count)
{
    struct progress progress = {.loads = loads};

    for (size_t i = 0; i < CLIENTS; i++)
        progress.wanted[i] = atomic_load(&loads[i].answers) + count;
    return wait_until(have_gone_on, &progress);
}

struct memory {
    struct client *client;
    double most;
};

static bool memory_is_back(void *context)
{
    struct memory *memory = context;

    return metric(memory->client, "process_resident_memory_bytes") <= memory->most;
}

/* --- tests --------------------------------------------------------------------------------- */

/* Freed memory that AddressSanitizer keeps to itself would look lost. */
static struct daemon *start_reloading(void)
{
    const char *options = getenv("ASAN_OPTIONS");
    char before[512] = "";
    char with[600];
    struct daemon *daemon;

    snprintf(before, sizeof before, "%s", options ? options : "");
    snprintf(with, sizeof with, "%s:quarantine_size_mb=1", before);
    setenv("ASAN_OPTIONS", with, 1);
    daemon = DAEMON("--model-repository", root, "--http-threads", "2", "--compute-threads", "2");
    setenv("ASAN_OPTIONS", before, 1);
    return daemon;
}

/*
 * Twenty reloads under load from four clients: every answer is one model's or the other's, the new
 * one's as soon as the reload is over, and the memory of the old ones is given back: after all it
 * is what it was after a few, give or take two models that are just being loaded or let go.
 */
static void test_twenty_reloads(void **state)
{
    struct daemon *daemon;
    struct client *client;
    struct load loads[CLIENTS];
    pthread_t threads[CLIENTS];
    struct memory memory = {0};
    atomic_bool over = false;
    bool went_on = true;

    (void)state;
    put_model(0, "keys/1/model.safetensors");
    daemon = start_reloading();
    client = memory.client = client_open(daemon);
    for (size_t i = 0; i < CLIENTS; i++) {
        loads[i] = (struct load){.client = client_open(daemon), .over = &over};
        assert_int_equal(0, pthread_create(&threads[i], NULL, send_load, &loads[i]));
    }
    went_on = go_on(loads, 10);
    for (size_t i = 1; i <= RELOADS && went_on; i++) {
        put_model(i % 2, "keys/1/model.safetensors");
        daemon_signal(daemon, SIGHUP);
        daemon_wait_log(daemon, "msg=reloaded changed=true refused=0", i);
        went_on = go_on(loads, 3); /* two may have begun before the reload was over */
        for (size_t k = 0; k < CLIENTS && !loads[k].failure[0]; k++)
            went_on = went_on && atomic_load(&loads[k].last) == (int)(i % 2);
        if (i == SETTLED)
            memory.most = metric(client, "process_resident_memory_bytes") + 2 * MODEL_BYTES;
    }
    atomic_store(&over, true);
    for (size_t i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < CLIENTS; i++) {
        if (loads[i].failure[0])
            fail_msg("client %zu: %s", i, loads[i].failure);
        client_close(loads[i].client);
    }
    assert_true(went_on);
    if (!wait_until(memory_is_back, &memory))
        fail_msg("expected at most %.0f resident bytes, got %.0f", memory.most,
                 metric(client, "process_resident_memory_bytes"));
    client_close(client);
    daemon_stop(daemon);
}

/* A bad new version, and a bad change of the old one: refused, told once, and the old one serves.
 */
static void test_bad_versions(void **state)
{
    const struct call index = {.method = "POST", .path = "/v2/repository/index"};
    struct daemon *daemon;
    struct client *client;
    const struct reply *reply;

    (void)state;
    put_model(0, "keys/1/model.safetensors");
    daemon = DAEMON("--model-repository", root);
    client = client_open(daemon);
    repository_put_text(root, "keys/2/model.safetensors", "no weights at all");
    repository_put(root, "keys/1/model.safetensors", weights[1], weight_bytes[1] - 1);
    daemon_signal(daemon, SIGHUP);
    daemon_wait_log(daemon, "msg=reloaded changed=true refused=2", 1);
    daemon_signal(daemon, SIGHUP);
    daemon_wait_log(daemon, "msg=reloaded changed=false refused=0", 1);
    reply = client_call(client, &index);
    expect_reply(reply, 200,
                 "{\"name\":\"keys\",\"version\":\"1\",\"state\":\"READY\",\"reason\":\"");
    assert_non_null(strstr(reply->body, "keys/1/model.safetensors: "));
    expect_reply(reply, 200, "\"version\":\"2\",\"state\":\"UNAVAILABLE\",\"reason\":\"");
    expect_reply(client_get(client, "/v2/models/keys"), 200, "\"versions\":[\"1\"]");
    expect_reply(client_get(client, "/v2/models/keys/versions/2/ready"), 404,
                 "Request for unknown model: 'keys' version 2 is not found");
    expect_reply(client_get(client, "/v2/models/keys/ready"), 200, NULL);
    assert_true(metric(client, "nsad_model_ready{model=\"keys\",version=\"1\"}") == 1);
    assert_true(metric(client, "nsad_models_refused") == 2);
    put_model(1, "keys/1/model.safetensors");
    put_model(0, "keys/2/model.safetensors");
    daemon_signal(daemon, SIGHUP);
    daemon_wait_log(daemon, "msg=reloaded changed=true refused=0", 1);
    expect_reply(client_get(client, "/v2/models/keys"), 200, "\"versions\":[\"1\",\"2\"]");
    assert_null(strstr(client_call(client, &index)->body, "model.safetensors"));
    assert_true(metric(client, "nsad_models_refused") == 0);
    client_close(client);
    daemon_stop(daemon);
}

struct wanted {
    struct client *client;
    const char *part;
    bool there;
};

static bool index_says(void *context)
{
    const struct wanted *wanted = context;
    const struct call index = {.method = "POST", .path = "/v2/repository/index"};
    const struct reply *reply = client_call(wanted->client, &index);

    return reply->status == 200 && (strstr(reply->body, wanted->part) != NULL) == wanted->there;
}

static void wait_index(struct client *client, const char *part, bool there)
{
    struct wanted wanted = {client, part, there};

    if (!wait_until(index_says, &wanted))
        fail_msg("the index %s: %s", there ? "never said" : "goes on to say", part);
}

/* The disk is looked at: what comes is served, what is broken told, what goes is gone. */
static void test_poll(void **state)
{
    static const char second[] = "\"version\":\"2\",\"state\":\"READY\"";
    struct daemon *daemon;
    struct client *client;

    (void)state;
    put_model(0, "keys/1/model.safetensors");
    daemon =
        DAEMON("--model-repository", root, "--model-control", "poll", "--poll-interval-ms", "10");
    client = client_open(daemon);
    put_model(1, "keys/2/model.safetensors");
    wait_index(client, second, true);
    repository_put_text(root, "more/1/model.safetensors", "broken");
    wait_index(client, "\"name\":\"more\",\"version\":\"1\",\"state\":\"UNAVAILABLE\"", true);
    repository_copy(root, "more/1/model.safetensors", TINY_WEIGHTS);
    wait_index(client, "\"name\":\"more\",\"version\":\"1\",\"state\":\"READY\",\"reason\":\"\"",
               true);
    repository_gone(root, "keys/2");
    wait_index(client, second, false);
    expect_reply(client_json(client, "/v2/repository/models/keys/load", "{}"), 501,
                 "only with --model-control explicit; the server runs with poll");
    client_close(client);
    daemon_stop(daemon);
}

int run_reload(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_twenty_reloads, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_bad_versions, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_poll, make_root, remove_root),
    };

    return cmocka_run_group_tests_name("reload", tests, make_models, free_models);
}
