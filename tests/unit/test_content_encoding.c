/* The headers that choose an encoding. */
#include "tests/unit/support.h"

#include "server/compression.h"

#include <string.h>

static void content_encodings(void **state)
{
    static const struct {
        const char *header;
        enum content_encoding expected;
    } cases[] = {
        {NULL, ENCODING_IDENTITY},
        {"", ENCODING_IDENTITY},
        {" \t", ENCODING_IDENTITY},
        {"identity", ENCODING_IDENTITY},
        {"gzip", ENCODING_GZIP},
        {"GZip", ENCODING_GZIP},
        {" gzip\t", ENCODING_GZIP},
        {"x-gzip", ENCODING_GZIP},
        {"deflate", ENCODING_DEFLATE},
        {"DEFLATE", ENCODING_DEFLATE},
        {"br", ENCODING_UNSUPPORTED},
        {"gzip, gzip", ENCODING_UNSUPPORTED},
        {"gzip,", ENCODING_UNSUPPORTED},
        {"identity, gzip", ENCODING_UNSUPPORTED},
        {"gzi", ENCODING_UNSUPPORTED},
        {"gzip2", ENCODING_UNSUPPORTED},
        {"gzip;q=1", ENCODING_UNSUPPORTED},
        {"\"gzip\"", ENCODING_UNSUPPORTED},
        {"*", ENCODING_UNSUPPORTED},
        {"gz ip", ENCODING_UNSUPPORTED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (content_encoding_parse(cases[i].header) != cases[i].expected)
            fail_msg("\"%s\"", cases[i].header);
    }
}

static void names_are_what_headers_say(void **state)
{
    static const enum content_encoding all[] = {ENCODING_IDENTITY, ENCODING_GZIP, ENCODING_DEFLATE};

    (void)state;
    assert_string_equal("gzip", content_encoding_name(ENCODING_GZIP));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        assert_int_equal(all[i], content_encoding_parse(content_encoding_name(all[i])));
}

static const char *const gzip[] = {
    "gzip",
    "GZIP",
    "x-gzip",
    "gzip, deflate, br",
    "deflate, gzip",
    "deflate;q=0.5, x-gzip;q=0.5",
    "deflate;q=0.999, gzip",
    "br,gzip",
    "br , gzip ",
    "gzip;q=1",
    "gzip;q=0.001",
    "gzip; q=1.000",
    "gzip ;Q=0.5",
    "*",
    "*;q=0.1",
    "*, deflate",
    "deflate;q=0.1, *;q=0.2",
    "identity;q=0, *",
    "identity;q=0.5, gzip;q=0.5",
    "br;q=1.0, gzip;q=0.8, *;q=0.1",
    "*;q=0, gzip",
    "gzip;q=0, x-gzip",
    ",gzip,,",
    "gzip;q=1.",
};

static const char *const deflate[] = {
    "deflate",
    "Deflate",
    " deflate\t",
    "deflate;q=0.001",
    "deflate, gzip;q=0.5",
    "gzip;q=0.998, deflate;q=0.999",
    "gzip;q=0.99, deflate;q=1.",
    "deflate, gzip;q=0",
    "gzip;q=0, deflate;q=0.1, *",
    "deflate, *;q=0.9",
    "deflate, br",
    "identity, deflate",
    "identity;q=0, deflate;q=0.1",
    "deflate;q=0.2, deflate;q=0.9, gzip;q=0.5",
};

static const char *const identity[] = {
    NULL,
    "",
    " ",
    "identity",
    "br",
    "gzip;q=0",
    "gzip;q=0.000",
    "deflate;q=0",
    "gzip;q=0, deflate;q=0.0",
    "*;q=0",
    "gzip;q=0, *",
    "*, gzip;q=0",
    "identity, gzip;q=0.5, deflate;q=0.9",
    "identity;q=0.5, *;q=0.4",
    "gzipp",
    "deflat",
    "gzip;q=1.1",
    "gzip;q=1.001",
    "gzip;q=2",
    "gzip;q=",
    "gzip;q",
    "gzip;",
    "gzip;q=-1",
    "gzip;q=.5",
    "gzip;q=0.1234",
    "gzip;q=0.x",
    "gzip;q=0.:",
    "gzip;q=0./",
    "gzip;q=0:5",
    "gzip;x=1",
    ";q=1",
    "gzip;q=1;q=0",
    "gzip;q=01",
    "gzip;q=nan",
    "not gzip",
    "gzip, deflate;q=x",
    "deflate, br;q=2",
};

static void accepted_encodings(void **state)
{
    static const struct {
        const char *const *headers;
        size_t count;
        enum content_encoding expected;
    } groups[] = {
        {gzip, sizeof gzip / sizeof *gzip, ENCODING_GZIP},
        {deflate, sizeof deflate / sizeof *deflate, ENCODING_DEFLATE},
        {identity, sizeof identity / sizeof *identity, ENCODING_IDENTITY},
    };

    (void)state;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        for (size_t j = 0; j < groups[i].count; j++) {
            const char *header = groups[i].headers[j];
            enum content_encoding choice = accept_encoding_choose(header);

            if (choice != groups[i].expected)
                fail_msg("\"%s\": expected %s, got %s", header ? header : "(none)",
                         content_encoding_name(groups[i].expected), content_encoding_name(choice));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_encodings),
        cmocka_unit_test(names_are_what_headers_say),
        cmocka_unit_test(accepted_encodings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
