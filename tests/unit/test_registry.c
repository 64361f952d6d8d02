#include "tests/unit/scrape.h"

#include "server/log.h"
#include "server/registry.h"
#include "server/repository.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A repository of its own for each test. */
static char root[64];

static int begin(void **state)
{
    (void)state;
    strcpy(root, "/tmp/nsa-repository-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

static int end(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *folder, const char *name, const void *bytes, size_t size)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", root, folder);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
    mkdir(path, 0755);
    strcat(path, "/");
    strcat(path, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(size, fwrite(bytes, 1, size, file));
    fclose(file);
}

static void put_golden(const char *folder, const char *golden)
{
    size_t size;
    unsigned char *bytes = read_golden(golden, &size);

    put(folder, "model.safetensors", bytes, size);
    free(bytes);
}

static void put_config(const char *model, const char *text)
{
    put(model, "config.json", text, strlen(text));
}

static nsa_status load(struct registry **out, nsa_error *err)
{
    const struct config config = {.model_repository = root, .max_batch_rows = 64};

    return registry_load(out, &config, err);
}

static const struct served_model *find(struct registry *registry, nsa_op_id op, const char *name,
                                       const char *version, nsa_error *err)
{
    const struct served_model *served = NULL;
    nsa_status status = registry_find(&served, registry, nsa_op_at(op), name, version, err);

    assert_true((status == NSA_OK) == (served != NULL));
    return served;
}

static void the_highest_version_serves_by_default(void **state)
{
    struct registry *registry;
    nsa_error err;

    (void)state;
    put_golden("keys/2", "compress_tiny.safetensors");
    put_golden("keys/10", "compress_odd.safetensors");
    put_golden("keys/draft", "compress_odd.safetensors");
    put_golden("keys/007", "compress_odd.safetensors");
    put(".hidden/1", "model.safetensors", "", 0);
    put("", "README", "", 0);
    assert_status(NSA_OK, load(&registry, &err));
    assert_int_equal(3, registry->count); /* with select */
    assert_int_equal(10, find(registry, NSA_COMPRESS, NULL, NULL, &err)->version);
    assert_int_equal(10, find(registry, NSA_COMPRESS, "keys", NULL, &err)->version);
    assert_int_equal(2, find(registry, NSA_COMPRESS, "keys", "2", &err)->version);
    assert_null(find(registry, NSA_COMPRESS, "keys", "3", &err));
    assert_string_equal("version: model 'keys' has no version 3", err.message);
    assert_null(find(registry, NSA_COMPRESS, "keys", "-1", &err));
    assert_string_equal("version: expected a positive integer, got '-1'", err.message);
    assert_null(find(registry, NSA_POSEMBED, NULL, NULL, &err));
    assert_string_equal("no model for posembed is loaded", err.message);
    assert_null(find(registry, NSA_POSEMBED, "keys", NULL, &err));
    assert_string_equal("model: expected a model for posembed, got 'keys', which is for compress",
                        err.message);
    assert_null(find(registry, NSA_SELECT, "nobody", NULL, &err));
    assert_string_equal("model: no model is called 'nobody'; for select: select", err.message);
    assert_int_equal(1, find(registry, NSA_SELECT, "select", "1", &err)->version);
    registry_close(registry);
}

static void the_default_is_the_op_s_namesake_or_the_only_one(void **state)
{
    struct registry *registry;
    nsa_error err;

    (void)state;
    put_golden("first/1", "compress_tiny.safetensors");
    put_golden("second/1", "compress_tiny.safetensors");
    put_golden("second/2", "compress_tiny.safetensors");
    assert_status(NSA_OK, load(&registry, &err));
    assert_null(find(registry, NSA_COMPRESS, NULL, NULL, &err));
    assert_string_equal("model: expected one of first, second, got none", err.message);
    registry_close(registry);
    put_golden("compress/1", "compress_tiny.safetensors");
    assert_status(NSA_OK, load(&registry, &err));
    assert_string_equal("compress", find(registry, NSA_COMPRESS, NULL, NULL, &err)->name);
    registry_close(registry);
}

static void config_json_says_what_the_file_cannot(void **state)
{
    struct registry *registry;
    const struct served_model *served;
    nsa_error err;

    (void)state;
    put_golden("keys/1", "compress_tiny.safetensors");
    put_config("keys", "{\"op\": \"compress\", \"activation\": \"relu\", \"precision\": \"bf16\", "
                       "\"key_prefix\": \"\", \"max_batch_rows\": 7, \"max_queue_delay_us\": 5, "
                       "\"description\": \"for tests\"}");
    assert_status(NSA_OK, load(&registry, &err));
    served = find(registry, NSA_COMPRESS, NULL, NULL, &err);
    assert_int_equal(NSA_RELU, nsa_model_describe(served->model)->activation);
    assert_int_equal(NSA_PRECISION_BF16, nsa_model_describe(served->model)->precision);
    assert_int_equal(7, served->lane_options.max_batch_rows);
    assert_int_equal(5000, served->lane_options.max_queue_delay_ns);
    assert_string_equal("for tests", served->description);
    assert_int_equal(64, find(registry, NSA_SELECT, NULL, NULL, &err)->lane_options.max_batch_rows);
    registry_close(registry);
}

static void a_bad_config_json_is_refused_by_key(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{\"activatoin\": \"gelu\"}", "unknown key 'activatoin'; expected op, activation"},
        {"{\"op\": \"select\"}", "op: expected \"compress\" or \"posembed\", got \"select\""},
        {"{\"activation\": \"tanh\"}", "activation: expected \"gelu\""},
        {"{\"precision\": 16}", "precision: expected \"f32\" or \"bf16\", got 16"},
        {"{\"key_prefix\": null}", "key_prefix: expected a text, got null"},
        {"{\"max_batch_rows\": 0}", "max_batch_rows: expected an integer from 1 to 65536, got 0"},
        {"{\"max_batch_rows\": 65537}", "got 65537"},
        {"{\"max_queue_delay_us\": -1}", "max_queue_delay_us: expected"},
        {"{\"description\": []}", "description: expected a text, got []"},
        {"{\"op\": \"compress\", \"op\": \"compress\"}", "duplicate"},
        {"[]", "expected a JSON object"},
        {"{", "line 1"},
    };
    char path[128];
    struct model_config config;
    struct registry *registry;
    nsa_error err;

    (void)state;
    snprintf(path, sizeof path, "%s/keys/config.json", root);
    put_golden("keys/1", "compress_tiny.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_config("keys", cases[i].text);
        assert_int_not_equal(NSA_OK, model_config_read(&config, path, &err));
        assert_message(err, path);
        assert_message(err, cases[i].message);
        assert_status(NSA_EINVAL, load(&registry, &err));
        assert_string_equal("1 model was refused", err.message);
    }
}

static void each_refused_model_counts(void **state)
{
    struct registry *registry;
    nsa_error err;

    (void)state;
    put_golden("good/1", "compress_tiny.safetensors");
    put_golden("select/1", "compress_tiny.safetensors");
    put("empty/1", "model.safetensors", "", 0);
    put("none", "notes", "", 0);
    put_golden("bad name/1", "compress_tiny.safetensors");
    assert_status(NSA_EINVAL, load(&registry, &err));
    assert_string_equal("4 models were refused", err.message);
    strcat(root, "/nowhere");
    assert_status(NSA_EIO, load(&registry, &err));
    assert_message(err, root);
    *strrchr(root, '/') = '\0';
}

static void names_and_versions(void **state)
{
    char name[131];

    (void)state;
    memset(name, 'a', 130);
    name[128] = '\0';
    assert_true(model_name_valid(name));
    name[128] = 'a';
    name[129] = '\0';
    assert_false(model_name_valid(name));
    assert_true(model_name_valid("K-e_y.s2"));
    assert_false(model_name_valid(""));
    assert_false(model_name_valid(".."));
    assert_false(model_name_valid("a/b"));
    assert_false(model_name_valid("a b"));
    assert_int_equal(4294967295u, model_version_parse("4294967295"));
    assert_int_equal(0, model_version_parse("4294967296"));
    assert_int_equal(0, model_version_parse("99999999999999999999999"));
    assert_int_equal(0, model_version_parse("01"));
    assert_int_equal(0, model_version_parse("0"));
    assert_int_equal(0, model_version_parse("1x"));
    assert_int_equal(0, model_version_parse(""));
}

/* --- opening ------------------------------------------------------------------------------- */

/* What a registry is opened with. */
struct surroundings {
    nsa_batcher *batcher;
    struct metrics *metrics;
};

static void open_surroundings(struct surroundings *around)
{
    const nsa_batcher_options options = {.worker_count = 1, .max_queue_bytes = SIZE_MAX};

    assert_status(NSA_OK, nsa_batcher_open(&around->batcher, &options, NULL));
    around->metrics = created();
}

/* metrics_free() asserts that no model is left. */
static void close_surroundings(struct surroundings *around)
{
    nsa_batcher_close(around->batcher);
    metrics_free(around->metrics);
}

static void batches_count_for_their_version(void **state)
{
    struct surroundings around;
    struct registry *registry;
    const struct served_model *served;
    struct metrics_statistics statistics;
    nsa_error err;

    (void)state;
    put_golden("keys/1", "compress_tiny.safetensors");
    put_golden("keys/2", "compress_tiny.safetensors");
    open_surroundings(&around);
    assert_status(NSA_OK, load(&registry, &err));
    assert_status(NSA_OK, registry_open(registry, around.batcher, around.metrics, &err));
    expect(around.metrics, "nsad_model_ready{model=\"keys\",version=\"1\"}", 0);
    expect(around.metrics, "nsad_model_ready{model=\"keys\",version=\"2\"}", 0);
    expect(around.metrics, "nsad_rows_total{op=\"compress\",model=\"keys\"}", 0);
    for (uint32_t version = 1; version <= 2; version++) {
        served = find(registry, NSA_COMPRESS, "keys", version == 1 ? "1" : "2", &err);
        for (uint32_t batch = 0; batch < version; batch++)
            served->lane_options.batch_done(served->lane_options.context, 5, 0);
        metrics_read_statistics(served->series, &statistics);
        assert_int_equal(version, statistics.execution_count);
    }
    expect(around.metrics, "nsad_batch_rows_sum", 15);
    registry_close(registry);
    close_surroundings(&around);
}

static nsa_status load_open_and_close(void *context)
{
    const struct surroundings *around = context;
    struct registry *registry = NULL;
    nsa_error err;
    nsa_status status = load(&registry, &err);

    if (status == NSA_OK)
        status = registry_open(registry, around->batcher, around->metrics, &err);
    registry_close(registry);
    /* A model that there is no memory for is refused like a broken one. */
    return status == NSA_EINVAL ? NSA_ENOMEM : status;
}

static void every_failed_allocation_is_survived(void **state)
{
    struct surroundings around;

    (void)state;
    put_golden("keys/1", "compress_tiny.safetensors");
    put_config("keys", "{\"description\": \"text\"}");
    open_surroundings(&around);
    check_every_allocation(load_open_and_close, &around);
    close_surroundings(&around);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_highest_version_serves_by_default, begin, end),
        cmocka_unit_test_setup_teardown(the_default_is_the_op_s_namesake_or_the_only_one, begin,
                                        end),
        cmocka_unit_test_setup_teardown(config_json_says_what_the_file_cannot, begin, end),
        cmocka_unit_test_setup_teardown(a_bad_config_json_is_refused_by_key, begin, end),
        cmocka_unit_test_setup_teardown(each_refused_model_counts, begin, end),
        cmocka_unit_test(names_and_versions),
        cmocka_unit_test_setup_teardown(batches_count_for_their_version, begin, end),
        cmocka_unit_test_setup_teardown(every_failed_allocation_is_survived, begin, end),
    };
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    log_open(null, LOG_LOGFMT, LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
