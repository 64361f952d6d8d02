/* Tensors in shared memory: registered, read, written, and taken away by a client. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"
#include "tests/integration/oip.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define INFER "/v2/models/select/infer"
#define SEGMENT_BYTES 4096
#define ROOT "/v2/systemsharedmemory"

static struct daemon *server;
static struct client *client;
static char key[64];
static int segment;
static char *memory; /* the client's mapping of the segment */

static int start(void **state)
{
    (void)state;
    snprintf(key, sizeof key, "/nsa-oip-%ld", (long)getpid());
    segment = shm_open(key, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(segment >= 0);
    assert_int_equal(0, ftruncate(segment, SEGMENT_BYTES));
    memory = mmap(NULL, SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, segment, 0);
    assert_true(memory != MAP_FAILED);
    server = DAEMON("--allow-client-shm");
    client = client_open(server);
    return 0;
}

static int stop(void **state)
{
    client_close(client);
    munmap(memory, SEGMENT_BYTES);
    close(segment);
    shm_unlink(key);
    return daemons_kill(state);
}

/* Register `name` for a part of the segment. */
static const struct reply *register_region(const char *name, size_t offset, size_t bytes)
{
    char path[128];
    char body[256];

    snprintf(path, sizeof path, ROOT "/region/%s/register", name);
    snprintf(body, sizeof body, "{\"key\": \"%s\", \"offset\": %zu, \"byte_size\": %zu}", key,
             offset, bytes);
    return oip_json(client, path, body);
}

/* Select one of four scores that are in the region "in"; `outputs` is the rest of the request. */
static const struct reply *infer_shared(size_t offset, const char *outputs)
{
    char body[1024];

    snprintf(body, sizeof body,
             "{\"inputs\": [{\"name\": \"scores\", \"datatype\": \"FP32\", \"shape\": [4], "
             "\"parameters\": {\"shared_memory_region\": \"in\", \"shared_memory_offset\": %zu, "
             "\"shared_memory_byte_size\": 16}}], \"parameters\": {\"num_selected_blocks\": 1}%s}",
             offset, outputs);
    return oip_json(client, INFER, body);
}

static void put_scores(size_t offset)
{
    static const float scores[4] = {0.5f, 3, 1, 2};

    memcpy(memory + offset, scores, sizeof scores);
}

static void regions_come_and_go(void **state)
{
    char expected[256];

    (void)state;
    expect_reply(client_get(client, ROOT "/status"), 200, "[]");
    expect_reply(register_region("in", 64, 128), 200, NULL);
    expect_reply(register_region("in", 0, 16), 400, "region 'in': already registered");
    expect_reply(register_region("all", 0, SEGMENT_BYTES), 200, NULL);
    snprintf(expected, sizeof expected,
             "{\"name\": \"in\", \"key\": \"%s\", \"offset\": 64, \"byte_size\": 128}", key);
    expect_reply(client_get(client, ROOT "/status"), 200, expected);
    expect_reply(client_get(client, ROOT "/region/in/status"), 200, expected);
    assert_null(strstr(client_body(client), "\"all\""));
    expect_reply(client_get(client, ROOT "/region/none/status"), 404, "region 'none'");
    expect_reply(oip_json(client, ROOT "/region/in/unregister", "{}"), 200, NULL);
    expect_reply(client_get(client, ROOT "/region/in/status"), 404, NULL);
    expect_reply(oip_json(client, ROOT "/region/in/unregister", "{}"), 200, NULL);
    expect_reply(oip_json(client, ROOT "/unregister", "{}"), 200, NULL);
    expect_reply(client_get(client, ROOT "/status"), 200, "[]");
    daemon_stop(server);
}

static void bad_regions_are_refused(void **state)
{
    static const struct {
        const char *body, *part;
    } cases[] = {
        {"", "key: expected the name of a segment"},
        {"{}", "key: expected"},
        {"{\"key\": 7, \"byte_size\": 1}", "key: expected"},
        {"{\"key\": \"/nsa-none\", \"byte_size\": 1}", "cannot open '/nsa-none'"},
        {"{\"key\": \"/../etc/passwd\", \"byte_size\": 1}", "key: expected"},
        {"{\"key\": \"..\", \"byte_size\": 1}", "key: expected"},
        {"{\"key\": \"/nsa-none\"}", "byte_size: expected an integer of at least 1"},
        {"{\"key\": \"/nsa-none\", \"byte_size\": 0}", "byte_size: expected"},
        {"{\"key\": \"/nsa-none\", \"byte_size\": -1}", "byte_size: expected"},
        {"{\"key\": \"/nsa-none\", \"offset\": -1, \"byte_size\": 1}", "offset: expected"},
        {"{\"key\": \"/nsa-none\", \"byte_size\": 99999999999999999999}", "malformed JSON"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_reply(oip_json(client, ROOT "/region/r/register", cases[i].body), 400,
                     cases[i].part);
    expect_reply(register_region("r", 0, SEGMENT_BYTES + 1), 400, "to be at most the 4096 bytes");
    expect_reply(register_region("r", SEGMENT_BYTES, 1), 400, "to be at most the 4096 bytes");
    expect_reply(register_region("r", 9223372036854775807u, 9223372036854775807u), 400, NULL);
    daemon_stop(server);
}

static void inputs_and_outputs_in_regions(void **state)
{
    int64_t index = -1;
    float value = 0;

    (void)state;
    expect_reply(register_region("in", 64, 64), 200, NULL);
    expect_reply(register_region("out", 128, 64), 200, NULL);
    put_scores(64 + 16);
    expect_reply(infer_shared(16, ""), 200, "\"data\":[1]},{\"name\":\"values\"");
    expect_reply(
        infer_shared(16,
                     ", \"outputs\": [{\"name\": \"values\", \"parameters\": "
                     "{\"shared_memory_region\": \"out\", \"shared_memory_byte_size\": 4}}, "
                     "{\"name\": \"indices\", \"parameters\": {\"shared_memory_region\": "
                     "\"out\", \"shared_memory_offset\": 12, \"shared_memory_byte_size\": 20}}]"),
        200,
        "{\"name\":\"indices\",\"datatype\":\"INT64\",\"shape\":[1],\"parameters\":"
        "{\"shared_memory_region\":\"out\",\"shared_memory_offset\":12,"
        "\"shared_memory_byte_size\":8}}]}");
    expect_header(client, "Content-Type", "application/json");
    memcpy(&value, memory + 128, sizeof value);
    memcpy(&index, memory + 128 + 12, sizeof index);
    assert_true(value == 3 && index == 1);
    expect_reply(infer_shared(16,
                              ", \"outputs\": [{\"name\": \"indices\", \"parameters\": "
                              "{\"binary_data\": true}}, {\"name\": \"values\", \"parameters\": "
                              "{\"shared_memory_region\": \"out\", \"shared_memory_byte_size\": "
                              "4}}]"),
                 200, "\"binary_data_size\":8}},{\"name\":\"values\"");
    daemon_stop(server);
}

static void regions_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    expect_reply(infer_shared(0, ""), 400, "region 'in': not registered");
    expect_reply(register_region("in", 0, 64), 200, NULL);
    put_scores(0);
    expect_reply(infer_shared(0, ""), 200, NULL);
    expect_reply(infer_shared(48, ""), 200, NULL);
    expect_reply(infer_shared(49, ""), 400, "region 'in': expected at most 15 bytes");
    expect_reply(infer_shared(18446744073709551615u, ""), 400, NULL);
    expect_reply(infer_shared(0, ", \"outputs\": [{\"name\": \"indices\", \"parameters\": "
                                 "{\"shared_memory_region\": \"in\", \"shared_memory_byte_size\": "
                                 "7}}]"),
                 400, "outputs[0].shared_memory_byte_size: expected at least 8, got 7");
    expect_reply(infer_shared(0, ", \"outputs\": [{\"name\": \"indices\", \"parameters\": "
                                 "{\"shared_memory_region\": \"in\", \"shared_memory_offset\": 60, "
                                 "\"shared_memory_byte_size\": 8}}]"),
                 400, "region 'in': expected at most 4 bytes");
    assert_int_equal(0, ftruncate(segment, (off_t)1 << 40)); /* costs nothing to whoever does it */
    expect_reply(register_region("huge", 0, (size_t)1 << 40), 200, NULL);
    expect_reply(oip_json(client, INFER,
                          "{\"inputs\": [{\"name\": \"scores\", \"datatype\": \"FP32\", \"shape\": "
                          "[274877906944], \"parameters\": {\"shared_memory_region\": \"huge\", "
                          "\"shared_memory_byte_size\": 1099511627776}}], \"parameters\": "
                          "{\"num_selected_blocks\": 1}}"),
                 400, "inputs[0]: expected at most 67108864 bytes");
    expect_reply(infer_shared(0, ", \"outputs\": [{\"name\": \"indices\", \"parameters\": "
                                 "{\"shared_memory_region\": \"none\", "
                                 "\"shared_memory_byte_size\": 8}}]"),
                 400, "region 'none': not registered");
    daemon_stop(server);
}

/* A client that cuts its segment short harms nobody but itself. */
static void a_truncated_segment_is_an_error(void **state)
{
    static const char output[] = ", \"outputs\": [{\"name\": \"indices\", \"parameters\": "
                                 "{\"shared_memory_region\": \"out\", "
                                 "\"shared_memory_byte_size\": 8}}]";

    (void)state;
    expect_reply(register_region("in", 0, 64), 200, NULL);
    expect_reply(register_region("out", 2048, 64), 200, NULL);
    put_scores(0);
    expect_reply(infer_shared(0, output), 200, NULL);
    assert_int_equal(0, ftruncate(segment, 1024));
    expect_reply(infer_shared(0, ""), 200, NULL);
    expect_reply(infer_shared(0, output), 400, "it has shrunk since it was registered");
    assert_int_equal(0, ftruncate(segment, 0));
    expect_reply(infer_shared(0, ""), 400, "it has shrunk since it was registered");
    expect_reply(client_get(client, "/livez"), 200, NULL);
    assert_int_equal(0, ftruncate(segment, SEGMENT_BYTES));
    expect_reply(infer_shared(0, output), 200, NULL);
    daemon_stop(server);
}

static void it_is_off_by_default(void **state)
{
    struct daemon *plain = DAEMON("--compute-threads", "1");

    (void)state;
    client_close(client);
    client = client_open(plain);
    expect_reply(register_region("in", 0, 64), 501, "only with --allow-client-shm");
    expect_reply(client_get(client, ROOT "/status"), 501, "only with --allow-client-shm");
    expect_reply(oip_json(client, ROOT "/unregister", "{}"), 501, NULL);
    expect_reply(infer_shared(0, ""), 400, "the server runs without --allow-client-shm");
    assert_null(strstr(client_get(client, "/v2")->body, "system_shared_memory"));
    daemon_stop(plain);
    daemon_stop(server);
}

int run_oip_shared(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(regions_come_and_go, start, stop),
        cmocka_unit_test_setup_teardown(bad_regions_are_refused, start, stop),
        cmocka_unit_test_setup_teardown(inputs_and_outputs_in_regions, start, stop),
        cmocka_unit_test_setup_teardown(regions_that_do_not_fit_are_refused, start, stop),
        cmocka_unit_test_setup_teardown(a_truncated_segment_is_an_error, start, stop),
        cmocka_unit_test_setup_teardown(it_is_off_by_default, start, stop),
    };

    return cmocka_run_group_tests_name("oip: shared memory", tests, NULL, NULL);
}
