/* Compressed bodies, in and out. */
#include "tests/integration/bodies.h"
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_TYPE "Content-Type: application/json"
#define SELECT "/v1/select"
#define LIMIT "10000" /* bytes of a body */

static const char small_json[] = "{\"input\": [3, 1, 2], \"num_selected_blocks\": 1}";

static struct call call_with(const struct body *body, const char *encoding)
{
    return (struct call){
        .path = SELECT, .body = body->bytes, .size = body->size, .headers = {JSON_TYPE, encoding}};
}

static void test_request_encodings(void **state)
{
    static const struct {
        const char *header;
        struct body (*pack)(const void *bytes, size_t size);
    } rows[] = {
        {"Content-Encoding: gzip", pack_gzip},    {"Content-Encoding: GZip", pack_gzip},
        {"Content-Encoding: x-gzip", pack_gzip},  {"Content-Encoding: deflate", pack_zlib},
        {"Content-Encoding: Deflate", pack_zlib},
    };
    struct client *client = client_open(small());

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct body body = rows[i].pack(small_json, strlen(small_json));
        struct call call = call_with(&body, rows[i].header);

        expect_reply(client_call(client, &call), 200, "\"indices\": [0]");
        call.headers[1] = NULL;
        expect_reply(client_call(client, &call), 400, "\"malformed_body\"");
        free(body.bytes);
    }
    for (enum format format = FORMAT_JSON; format < FORMAT_COUNT; format++) {
        static const float scores[] = {1, 3, 2};
        const nsa_tensor input = {(void *)(uintptr_t)scores, NSA_F32, {1, {3}}};
        struct body plain = make_body(format, &input, NULL);
        struct body body = pack_gzip(plain.bytes, plain.size);
        char type[64];
        struct call call = call_with(&body, "Content-Encoding: gzip");

        snprintf(type, sizeof type, "Content-Type: %s", format_types[format]);
        call.path = format == FORMAT_RAW ? SELECT "?num_selected_blocks=1&shape=3&dtype=float32"
                                         : SELECT "?num_selected_blocks=1";
        call.headers[0] = type;
        call.headers[2] = "Accept: application/json";
        expect_reply(client_call(client, &call), 200, "\"indices\": [1]");
        call.headers[0] = NO_CONTENT_TYPE; /* known by the bytes that come out */
        if (format != FORMAT_RAW)
            expect_reply(client_call(client, &call), 200, "\"indices\": [1]");
        free(plain.bytes);
        free(body.bytes);
    }
    client_close(client);
}

/* A compressed body that is cut anywhere, or goes on, or is wrong in any byte of its checksum. */
static void test_broken_streams(void **state)
{
    struct client *client = client_open(small());
    struct body body = pack_gzip(small_json, strlen(small_json));
    struct call call = call_with(&body, "Content-Encoding: gzip");

    (void)state;
    for (call.size = 1; call.size < body.size; call.size++)
        expect_reply(client_call(client, &call), 400, "compressed body: ");
    for (size_t i = body.size - 8; i < body.size; i++) {
        body.bytes[i] ^= 1;
        expect_reply(client_call(client, &call), 400, "compressed body: ");
        body.bytes[i] ^= 1;
    }
    expect_reply(client_call(client, &call), 200, NULL);
    free(body.bytes);
    body = pack_zlib(small_json, strlen(small_json));
    call = call_with(&body, "Content-Encoding: deflate");
    call.size++; /* its NUL */
    expect_reply(client_call(client, &call), 400, "compressed body: goes on after its end");
    call.size--;
    expect_reply(client_call(client, &call), 200, NULL);
    call.headers[1] = "Content-Encoding: br";
    expect_reply(client_call(client, &call), 415, "expected gzip, deflate or identity");
    call.headers[1] = "Content-Encoding: gzip, deflate";
    expect_reply(client_call(client, &call), 415, "\"unsupported_encoding\"");
    assert_int_equal(1, client_connections(client));
    free(body.bytes);
    client_close(client);
}

static void test_bomb(void **state)
{
    struct daemon *daemon = DAEMON("--max-body-bytes", LIMIT);
    struct client *client = client_open(daemon);
    struct body bomb = pack_bomb(5000); /* 8 KB that unpack to 1.3 MB */
    struct body fits = pack_bomb(38);   /* 9805 bytes, and a wrong checksum */
    struct call call = call_with(&bomb, "Content-Encoding: gzip");

    (void)state;
    assert_true(bomb.size < strtoul(LIMIT, NULL, 10));
    expect_reply(client_call(client, &call), 413,
                 "body: expected at most " LIMIT " bytes when decompressed, got more");
    expect_reply(client_call(client, &call), 413, "\"body_too_large\"");
    call = call_with(&fits, "Content-Encoding: gzip");
    expect_reply(client_call(client, &call), 400, "incorrect data check");
    expect_reply(client_json(client, SELECT, small_json), 200, NULL);
    assert_int_equal(1, client_connections(client));
    free(bomb.bytes);
    free(fits.bytes);
    client_close(client);
    daemon_stop(daemon);
}

/*
 * Two copies of a large answer, one of them compressed on its way, are the same. `accept` is a
 * header, or NULL for libcurl's own; `encoding` what the answer must come in, or NULL for neither.
 */
static void check_answer(const char *accept, const char *encoding)
{
    static float scores[2000];
    const nsa_tensor input = {scores, NSA_F32, {1, {2000}}};
    struct body body = make_body(FORMAT_JSON, &input, ", \"num_selected_blocks\": 2000");
    struct client *plain = client_open(small());
    struct client *packed = client_open(small());
    struct call call = {.path = SELECT, .body = body.bytes, .headers = {JSON_TYPE}};
    const struct reply *expected = client_call(plain, &call);
    const struct reply *got;
    const char *header;

    expect_reply(expected, 200, NULL);
    assert_null(client_header(plain, "Content-Encoding"));
    client_accept_compressed(packed);
    call.headers[1] = accept;
    got = client_call(packed, &call);
    expect_reply(got, 200, NULL);
    header = client_header(packed, "Content-Encoding");
    if (encoding ? !header || strcmp(header, encoding) != 0 : header != NULL)
        fail_msg("%s: Content-Encoding is '%s'", accept ? accept : "libcurl's", header);
    if (encoding) {
        const char *length = client_header(packed, "Content-Length");

        assert_non_null(length);
        assert_true(strtoul(length, NULL, 10) < expected->size);
    }
    expect_header(packed, "Vary", "Accept, Accept-Encoding");
    assert_int_equal(expected->size, got->size);
    assert_memory_equal(expected->body, got->body, got->size);
    client_close(plain);
    client_close(packed);
    free(body.bytes);
}

static void test_answer_encodings(void **state)
{
    (void)state;
    check_answer(NULL, "gzip");
    check_answer("Accept-Encoding: deflate, gzip;q=0.5", "deflate");
    check_answer("Accept-Encoding: deflate, gzip", "gzip");
    check_answer("Accept-Encoding: deflate", "deflate");
    check_answer("Accept-Encoding: *", "gzip");
    check_answer("Accept-Encoding: br", NULL);
    check_answer("Accept-Encoding: gzip;q=0", NULL);
    check_answer("Accept-Encoding: identity", NULL);
}

/* A small answer is not worth it. */
static void test_small_answer(void **state)
{
    struct client *client = client_open(small());

    (void)state;
    client_accept_compressed(client);
    expect_reply(client_json(client, SELECT, small_json), 200, "\"indices\": [0]");
    assert_null(client_header(client, "Content-Encoding"));
    client_close(client);
}

int run_encodings(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_request_encodings, daemons_kill),
        cmocka_unit_test_teardown(test_broken_streams, daemons_kill),
        cmocka_unit_test_teardown(test_bomb, daemons_kill),
        cmocka_unit_test_teardown(test_answer_encodings, daemons_kill),
        cmocka_unit_test_teardown(test_small_answer, daemons_kill),
    };

    return cmocka_run_group_tests_name("encodings", tests, start_small, stop_small);
}
