/* Models that are refused: --check and a start both exit 2 and say file, tensor, expected, got. */
#include "tests/integration/fixtures.h"
#include "tests/integration/groups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL_FILE "model.safetensors"

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

/* Both ways of loading exit 2; each of `parts` (NULL past the last) is in both messages. */
static void expect_refused(const char *const arguments[], const char *const parts[])
{
    for (int with_check = 0; with_check < 2; with_check++) {
        const char *all[16] = {NULL};
        struct outcome outcome;

        for (size_t i = 0; arguments[i]; i++)
            all[i] = arguments[i];
        for (size_t i = 0; with_check && i < 16; i++) {
            if (!all[i]) {
                all[i] = "--check";
                break;
            }
        }
        outcome = run_program(all);
        if (outcome.exit_status != 2)
            fail_msg("expected exit status 2, got %d and:\n%s%s", outcome.exit_status, outcome.out,
                     outcome.err);
        assert_string_equal("", outcome.out);
        assert_null(strstr(outcome.err, "msg=ready"));
        for (size_t i = 0; parts[i]; i++) {
            if (!strstr(outcome.err, parts[i]))
                fail_msg("expected '%s' in:\n%s", parts[i], outcome.err);
        }
        outcome_free(&outcome);
    }
}

#define REFUSED(arguments, ...) expect_refused(arguments, (const char *const[]){__VA_ARGS__, NULL})

/* A file of `bytes` is refused, and the message names it. */
static void expect_bytes_refused(const void *bytes, size_t size, const char *part)
{
    char path[2 * REPOSITORY_MAX_PATH_BYTES];

    snprintf(path, sizeof path, "%s/%s", root, MODEL_FILE);
    repository_put(root, MODEL_FILE, bytes, size);
    REFUSED(((const char *const[]){"--model", model_argument("m", path), NULL}), path, part);
}

static void test_bytes(void **state)
{
    size_t size;
    char *bytes = read_whole(TINY_WEIGHTS, &size);

    (void)state;
    expect_bytes_refused("", 0, "expected at least 8 bytes of header length, got a file of 0");
    expect_bytes_refused("{}", 2, "got a file of 2");
    expect_bytes_refused("\0\0\0\0\0\0\0\0", 8, "got a length of 0");
    expect_bytes_refused("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFFx", 9, "got a length of");
    expect_bytes_refused("\2\0\0\0\0\0\0\0{]", 10, "expected a header in JSON, got");
    expect_bytes_refused("\2\0\0\0\0\0\0\0{}", 10, "expected the tensors of compress or posembed");
    expect_bytes_refused(bytes, size - 1, "expected its data to end within the file's 3");
    bytes[size] = 'x';
    expect_bytes_refused(bytes, size + 1, "bytes of data after the header, got");
    expect_bytes_refused("PK\3\4 this is a zip file, as torch.save() writes", 47, "got a length");
    free(bytes);
}

/* Tensors of the right format and of wrong shapes. */
static void test_tensors(void **state)
{
    struct weight weights[] = {
        {"mlp.1.weight", NSA_F32, {2, {5, 4}}, NULL},     {"mlp.1.bias", NSA_F32, {1, {5}}, NULL},
        {"mlp.3.weight", NSA_F32, {2, {2, 5}}, NULL},     {"mlp.3.bias", NSA_F32, {1, {2}}, NULL},
        {"embedding.weight", NSA_F32, {2, {3, 2}}, NULL},
    };
    static const struct {
        size_t first, count; /* of the weights in the file */
        size_t changed;
        struct weight change;
        const char *parts[3];
    } rows[] = {
        {0,
         4,
         1,
         {"mlp.1.bias", NSA_F32, {1, {6}}, NULL},
         {"tensor 'mlp.1.bias'", "expected shape [5], got [6]"}},
        {0,
         4,
         2,
         {"mlp.3.weight", NSA_F32, {2, {2, 6}}, NULL},
         {"tensor 'mlp.3.weight'", "expected shape [2, 5], got [2, 6]"}},
        {0,
         4,
         2,
         {"mlp.3.weight", NSA_F32, {2, {3, 5}}, NULL},
         {"tensor 'mlp.3.weight'", "a divisor of 4, got [3, 5]"}},
        {0,
         4,
         3,
         {"mlp.3.bias", NSA_F32, {2, {2, 1}}, NULL},
         {"tensor 'mlp.3.bias'", "expected shape [2], got [2, 1]"}},
        {0,
         4,
         0,
         {"mlp.1.weight", NSA_F32, {1, {20}}, NULL},
         {"tensor 'mlp.1.weight'", "got [20]"}},
        {0,
         4,
         0,
         {"mlp.1.weight", NSA_I64, {2, {5, 4}}, NULL},
         {"tensor 'mlp.1.weight'", "expected dtype F32, F16, BF16 or F64, got I64"}},
        {0, 4, 0, {"mlp.0.weight", NSA_F32, {2, {5, 4}}, NULL}, {"mlp.1.weight", "mlp.0.weight"}},
        {4,
         1,
         4,
         {"embedding.weight", NSA_F32, {2, {3, 0}}, NULL},
         {"tensor 'embedding.weight'", "got [3, 0]"}},
        {4,
         1,
         4,
         {"embedding.weight", NSA_F32, {1, {3}}, NULL},
         {"tensor 'embedding.weight'", "got [3]"}},
        {0, 5, 4, {"embedding.weight", NSA_F32, {2, {3, 2}}, NULL}, {"compress", "posembed"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct weight kept = weights[rows[i].changed];
        const char *path;

        weights[rows[i].changed] = rows[i].change;
        path = write_safetensors("wrong.safetensors", weights + rows[i].first, rows[i].count);
        weights[rows[i].changed] = kept;
        REFUSED(((const char *const[]){"--model", model_argument("m", path), NULL}), path,
                rows[i].parts[0], rows[i].parts[1]);
        unlink(path);
    }
}

static void test_files(void **state)
{
    (void)state;
    REFUSED(((const char *const[]){"--model", "m=/nonexistent/file", NULL}), "/nonexistent/file",
            "cannot open");
    REFUSED(((const char *const[]){"--model", model_argument("m", root), NULL}), root,
            "expected a regular file");
    REFUSED(((const char *const[]){"--model", "select=" TINY_WEIGHTS, NULL}), TINY_WEIGHTS,
            "the name select is taken");
    REFUSED(
        ((const char *const[]){"--model", "m=" TINY_WEIGHTS, "--model", "m=" TINY_WEIGHTS, NULL}),
        TINY_WEIGHTS, "each NAME once");
    REFUSED(((const char *const[]){"--model", "a/b=" TINY_WEIGHTS, NULL}),
            "expected a name of 1 to 128 letters");
    REFUSED(((const char *const[]){"--model-repository", "/nonexistent", NULL}), "/nonexistent",
            "No such file");
}

/* One line for each that is refused, whatever else is. */
static void test_repository(void **state)
{
    (void)state;
    repository_copy(root, "good/1/model.safetensors", TINY_WEIGHTS);
    repository_put_text(root, "bad/1/model.safetensors", "");
    repository_put_text(root, "empty/config.json", "{}");
    repository_put_text(root, "fileless/3/weights.bin", "x");
    repository_copy(root, "a b/1/model.safetensors", TINY_WEIGHTS);
    REFUSED(((const char *const[]){"--model-repository", root, NULL}), "bad/1/model.safetensors",
            "got a file of 0", "/empty", "expected a version, as in 1/model.safetensors, got none",
            "fileless/3/model.safetensors", "/a b", "4 models were refused");
    REFUSED(
        ((const char *const[]){"--model-repository", root, "--model", "good=" TINY_WEIGHTS, NULL}),
        TINY_WEIGHTS, "given twice", "5 models were refused");
}

static void test_configs(void **state)
{
    static const struct {
        const char *config;
        const char *part;
    } rows[] = {
        {"{\"activatoin\": \"relu\"}", "unknown key 'activatoin'; expected op, activation, "},
        {"{\"op\": \"topk\"}", "op: expected "},
        {"{\"op\": \"select\", \"precision\": \"bf16\"}", "expected for models with weights only"},
        {"{\"num_selected_blocks\": 1}", "num_selected_blocks: expected beside"},
        {"{\"op\": \"posembed\"}", "embedding.weight"},
        {"{\"activation\": \"GELU\"}", "activation: expected "},
        {"{\"activation\": 1}", "gelu_tanh"},
        {"{\"precision\": \"f16\"}", "precision: expected "},
        {"{\"key_prefix\": \"x.\"}", "x."},
        {"{\"key_prefix\": 1}", "key_prefix: expected a text, got 1"},
        {"{\"max_batch_rows\": 0}", "max_batch_rows: expected an integer from 1 to 65536, got 0"},
        {"{\"max_batch_rows\": 65537}", "got 65537"},
        {"{\"max_batch_rows\": 1.5}", "got 1.5"},
        {"{\"max_queue_delay_us\": -1}", "max_queue_delay_us: expected an integer from 0"},
        {"{\"description\": [1]}", "description: expected a text, got [1]"},
        {"{\"description\": \"a\", \"description\": \"b\"}", "duplicate"},
        {"{", "line 1"},
        {"[]", "expected a JSON object"},
        {"", "line "},
    };

    (void)state;
    repository_copy(root, "m/1/model.safetensors", TINY_WEIGHTS);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        repository_put_text(root, "m/config.json", rows[i].config);
        REFUSED(((const char *const[]){"--model-repository", root, NULL}), "/m/", rows[i].part);
    }
}

int run_refused(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bytes, make_root, remove_root),
        cmocka_unit_test_teardown(test_tensors, daemons_kill),
        cmocka_unit_test_setup_teardown(test_files, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_repository, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_configs, make_root, remove_root),
    };

    return cmocka_run_group_tests_name("refused models", tests, NULL, NULL);
}
