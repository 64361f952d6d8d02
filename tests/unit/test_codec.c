#include "tests/unit/support.h"

#include "server/codec.h"

#include <string.h>

static void content_type_names_the_codec(void **state)
{
    (void)state;
    assert_ptr_equal(&codec_json, codec_of_request("application/json", NULL, 0));
    assert_ptr_equal(&codec_json, codec_of_request(" Application/JSON; charset=utf-8", NULL, 0));
    assert_ptr_equal(&codec_npy, codec_of_request("application/x-npy", NULL, 0));
    assert_ptr_equal(&codec_raw, codec_of_request("application/octet-stream", NULL, 0));
    assert_null(codec_of_request("text/plain", "{}", 2));
    assert_null(codec_of_request("application/jsonp", NULL, 0));
    assert_null(codec_of_request("", "{}", 2));
}

static void without_a_type_the_first_bytes_do(void **state)
{
    (void)state;
    assert_ptr_equal(&codec_json, codec_of_request(NULL, " \n{}", 4));
    assert_ptr_equal(&codec_npy, codec_of_request(NULL, "\x93NUMPY\x01", 7));
    assert_null(codec_of_request(NULL, "\x93NUMP", 5));
    assert_null(codec_of_request(NULL, "[1]", 3));
    assert_null(codec_of_request(NULL, "   ", 3));
    assert_null(codec_of_request(NULL, NULL, 0));
}

static void accept_prefers_by_weight_then_by_the_request(void **state)
{
    static const struct {
        const char *accept;
        const struct codec *expected; /* for a request in .npy */
    } cases[] = {
        {NULL, &codec_npy},
        {"*/*", &codec_npy},
        {"application/*", &codec_npy},
        {"application/json", &codec_json},
        {"application/json, application/x-npy", &codec_npy},
        {"application/json;q=0.9, application/x-npy;q=0.2", &codec_json},
        {"application/x-npy;q=0, */*", &codec_json},
        {"application/x-npy;q=0, application/json;q=0, */*;q=0.1", &codec_raw},
        {"text/html, application/octet-stream ; level=1 ; q=0.3", &codec_raw},
        {"APPLICATION/JSON;Q=0.5", &codec_json},
        {"text/html", NULL},
        {"*/*;q=0", NULL},
        {"application/json;q=7", NULL},
        {"", NULL},
        {",;,", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_ptr_equal(cases[i].expected, codec_of_answer(cases[i].accept, &codec_npy));
}

static void accept_of_any_bytes_ends(void **state)
{
    uint64_t random = 5;
    char header[64];

    (void)state;
    for (int round = 0; round < 20000; round++) {
        size_t length = random_below(&random, sizeof header);

        for (size_t i = 0; i < length; i++)
            header[i] = "*/;,q=0.1 applicationjson\t"[random_below(&random, 26)];
        header[length < sizeof header ? length : sizeof header - 1] = '\0';
        codec_of_answer(header, &codec_json);
        codec_of_request(header, NULL, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_type_names_the_codec),
        cmocka_unit_test(without_a_type_the_first_bytes_do),
        cmocka_unit_test(accept_prefers_by_weight_then_by_the_request),
        cmocka_unit_test(accept_of_any_bytes_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
