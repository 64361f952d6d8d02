/* Documents cut short and damaged at random: refused, by the rules that jansson goes by. */
#include "server/json_scan.h"

#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>

/* Random changes to documents. */
#define MUTATION_COUNT 60000

static const json_place places[] = {{.depth = 1, .key = "input", .kind = JSON_ARRAY},
                                    {.depth = 1, .key = "other_2", .kind = JSON_ARRAY},
                                    {.depth = 3, .key = "data", .kind = JSON_ARRAY},
                                    {0}};

/* A document in memory of its own size, so that the address sanitizer sees any step beyond. */
typedef struct text_copy {
    char *text;
    size_t size;
} text_copy;

static text_copy copy_text(const char *text, size_t size)
{
    text_copy copy = {malloc(size + 1), size};

    assert_non_null(copy.text);
    memcpy(copy.text, text, size);
    copy.text[size] = '\0';
    return copy;
}

/* Open and scan whatever arrays there are, as a handler would. */
static nsa_status read_whole(const char *text, size_t size, nsa_error *err)
{
    static const char *const keys[] = {"input", "other_2"};
    json_document *document;
    nsa_status status = json_document_open(&document, text, size, places, err);

    if (status != NSA_OK)
        return status;
    for (size_t i = 0; i < 2 && status == NSA_OK; i++) {
        const json_t *value = json_object_get(json_document_root(document), keys[i]);
        const json_span *span = json_document_span(document, value);
        nsa_shape shape;
        float *numbers;

        if (!span)
            continue;
        numbers = malloc((span->commas + 1) * sizeof *numbers);
        if (numbers)
            status = json_scan(numbers, NSA_F32, span->commas + 1, &shape, span, keys[i], err);
        else
            status = NSA_ENOMEM;
        free(numbers);
    }
    json_document_close(document);
    return status;
}

static const char whole[] = "{\"input\": [[1.5,-2e-3,0],[0.123456789012345678901,42,1E5]], "
                            "\"num_selected_blocks\": 2, \"model\":\"a\\u00e9\\n\", "
                            "\"other_2\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,"
                            "22,23,24,25,26,27,28,29,30,31,32,33],\"flat\":true,\"x\":null}";

static void test_truncated(void **state)
{
    nsa_error err;

    (void)state;
    assert_status(NSA_OK, read_whole(whole, sizeof whole - 1, &err));
    for (size_t size = 0; size < sizeof whole - 1; size++) {
        text_copy copy = copy_text(whole, size);

        err.message[0] = '\0';
        assert_status(NSA_EFORMAT, read_whole(copy.text, copy.size, &err));
        assert_true(err.message[0] != '\0');
        free(copy.text);
    }
}

/*
 * Change, remove, add and repeat bytes. jansson must agree on what is well-formed, where it goes
 * by the same rules: it has no tokens for NaN and infinity, refuses integers over 64 bits, and
 * reads on behind the first element that is no number.
 */
static void test_mutated(void **state)
{
    static const char bytes[] = "[]{},:\"\\0123456789.eE+-tfnu \n\xC3x";
    uint64_t random = 8;
    size_t accepted = 0;
    size_t refused = 0;

    (void)state;
    for (int i = 0; i < MUTATION_COUNT; i++) {
        char text[2 * sizeof whole];
        size_t size = sizeof whole - 1;
        text_copy copy;
        json_error_t error;
        json_t *root;
        nsa_error err;
        nsa_status status;

        memcpy(text, whole, size);
        for (size_t n = random_below(&random, 3) + 1; n > 0; n--) {
            size_t at = random_below(&random, size);
            char byte = bytes[random_below(&random, sizeof bytes - 1)];

            switch (random_below(&random, 3)) {
            case 0:
                text[at] = byte;
                break;
            case 1:
                memmove(text + at, text + at + 1, size - at - 1);
                size--;
                break;
            default:
                memmove(text + at + 1, text + at, size - at);
                text[at] = byte;
                size++;
            }
        }
        copy = copy_text(text, size);
        status = read_whole(copy.text, size, &err);
        root = json_loadb(copy.text, size, JSON_REJECT_DUPLICATES, &error);
        if (status == NSA_OK)
            accepted++;
        if (status == NSA_EFORMAT)
            refused++;
        if ((status == NSA_OK && !root && json_error_code(&error) != json_error_numeric_overflow) ||
            (status == NSA_EFORMAT && root))
            fail_msg("%s: got %d '%s', jansson '%s'", copy.text, (int)status,
                     status == NSA_OK ? "" : err.message, root ? "" : error.text);
        json_decref(root);
        free(copy.text);
    }
    assert_true(accepted > MUTATION_COUNT / 50);
    assert_true(refused > MUTATION_COUNT / 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_mutated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
