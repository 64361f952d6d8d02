#include "tests/unit/repository_files.h"

static const struct served_model *find(const struct catalog *catalog, nsa_op_id op,
                                       const char *name, const char *version, nsa_error *err)
{
    const struct served_model *served = NULL;
    nsa_status status = catalog_find(&served, catalog, nsa_op_at(op), name, version, err);

    assert_true((status == NSA_OK) == (served != NULL));
    return served;
}

static void the_highest_version_serves_by_default(void **state)
{
    struct catalog *catalog = NULL;
    nsa_error err;

    (void)state;
    put_golden("keys/2", "compress_tiny.safetensors");
    put_golden("keys/10", "compress_odd.safetensors");
    put_golden("keys/draft", "compress_odd.safetensors");
    put_golden("keys/007", "compress_odd.safetensors");
    put(".hidden/1", "model.safetensors", "", 0);
    put("", "README", "", 0);
    assert_status(NSA_OK, load(&catalog, &err));
    assert_int_equal(3, catalog->count); /* with select */
    assert_int_equal(10, find(catalog, NSA_COMPRESS, NULL, NULL, &err)->version);
    assert_int_equal(10, find(catalog, NSA_COMPRESS, "keys", NULL, &err)->version);
    assert_int_equal(2, find(catalog, NSA_COMPRESS, "keys", "2", &err)->version);
    assert_null(find(catalog, NSA_COMPRESS, "keys", "3", &err));
    assert_string_equal("version: model 'keys' has no version 3", err.message);
    assert_null(find(catalog, NSA_COMPRESS, "keys", "-1", &err));
    assert_string_equal("version: expected a positive integer, got '-1'", err.message);
    assert_null(find(catalog, NSA_POSEMBED, NULL, NULL, &err));
    assert_string_equal("no model for posembed is loaded", err.message);
    assert_null(find(catalog, NSA_POSEMBED, "keys", NULL, &err));
    assert_string_equal("model: expected a model for posembed, got 'keys', which is for compress",
                        err.message);
    assert_null(find(catalog, NSA_SELECT, "nobody", NULL, &err));
    assert_string_equal("model: no model is called 'nobody'; for select: select", err.message);
    assert_int_equal(1, find(catalog, NSA_SELECT, "select", "1", &err)->version);
    catalog_free(catalog);
}

static void the_default_is_the_op_s_namesake_or_the_only_one(void **state)
{
    struct catalog *catalog = NULL;
    nsa_error err;

    (void)state;
    put_golden("first/1", "compress_tiny.safetensors");
    put_golden("second/1", "compress_tiny.safetensors");
    put_golden("second/2", "compress_tiny.safetensors");
    assert_status(NSA_OK, load(&catalog, &err));
    assert_null(find(catalog, NSA_COMPRESS, NULL, NULL, &err));
    assert_string_equal("model: expected one of first, second, got none", err.message);
    catalog_free(catalog);
    put_golden("compress/1", "compress_tiny.safetensors");
    assert_status(NSA_OK, load(&catalog, &err));
    assert_string_equal("compress", find(catalog, NSA_COMPRESS, NULL, NULL, &err)->name);
    catalog_free(catalog);
}

static void config_json_says_what_the_file_cannot(void **state)
{
    struct catalog *catalog = NULL;
    const struct served_model *served;
    nsa_error err;

    (void)state;
    put_golden("keys/1", "compress_tiny.safetensors");
    put_config("keys", "{\"op\": \"compress\", \"activation\": \"relu\", \"precision\": \"bf16\", "
                       "\"key_prefix\": \"\", \"max_batch_rows\": 7, \"max_queue_delay_us\": 5, "
                       "\"description\": \"for tests\"}");
    assert_status(NSA_OK, load(&catalog, &err));
    served = find(catalog, NSA_COMPRESS, NULL, NULL, &err);
    assert_int_equal(NSA_RELU, nsa_model_describe(served->model)->activation);
    assert_int_equal(NSA_PRECISION_BF16, nsa_model_describe(served->model)->precision);
    assert_int_equal(7, served->lane_options.max_batch_rows);
    assert_int_equal(5000, served->lane_options.max_queue_delay_ns);
    assert_string_equal("for tests", served->description);
    assert_int_equal(64, find(catalog, NSA_SELECT, NULL, NULL, &err)->lane_options.max_batch_rows);
    catalog_free(catalog);
}

static void a_bad_config_json_is_refused_by_key(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{\"activatoin\": \"gelu\"}", "unknown key 'activatoin'; expected op, activation"},
        {"{\"op\": \"topk\"}",
         "op: expected \"compress\", \"posembed\" or \"select\", got \"topk\""},
        {"{\"num_selected_blocks\": 2}", "expected beside \"op\": \"select\" only"},
        {"{\"op\": \"select\", \"num_selected_blocks\": -1}", "an integer of at least 0, got -1"},
        {"{\"op\": \"select\", \"activation\": \"relu\"}", "for models with weights only"},
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
    struct model_config read;
    struct catalog *catalog = NULL;
    nsa_error err;

    (void)state;
    snprintf(path, sizeof path, "%s/keys/config.json", root);
    put_golden("keys/1", "compress_tiny.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_config("keys", cases[i].text);
        assert_int_not_equal(NSA_OK, model_config_read(&read, path, &err));
        assert_message(err, path);
        assert_message(err, cases[i].message);
        assert_status(NSA_EINVAL, load(&catalog, &err));
        assert_string_equal("1 refused", err.message);
    }
}

static void each_refused_model_counts(void **state)
{
    struct catalog *catalog = NULL;
    nsa_error err;

    (void)state;
    put_golden("good/1", "compress_tiny.safetensors");
    put_golden("select/1", "compress_tiny.safetensors");
    put("empty/1", "model.safetensors", "", 0);
    put("none", "notes", "", 0);
    put_golden("bad name/1", "compress_tiny.safetensors");
    assert_status(NSA_EINVAL, load(&catalog, &err));
    assert_string_equal("4 refused", err.message);
    strcat(root, "/nowhere");
    assert_status(NSA_EIO, load(&catalog, &err));
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

static void batches_count_for_their_version(void **state)
{
    struct catalog *catalog = NULL;
    const struct served_model *served;
    struct metrics_statistics statistics;
    nsa_error err;

    (void)state;
    put_golden("keys/1", "compress_tiny.safetensors");
    put_golden("keys/2", "compress_tiny.safetensors");
    assert_status(NSA_OK, load(&catalog, &err));
    expect(loader.metrics, "nsad_model_ready{model=\"keys\",version=\"1\"}", 0);
    expect(loader.metrics, "nsad_model_ready{model=\"keys\",version=\"2\"}", 0);
    expect(loader.metrics, "nsad_rows_total{op=\"compress\",model=\"keys\"}", 0);
    for (uint32_t version = 1; version <= 2; version++) {
        served = find(catalog, NSA_COMPRESS, "keys", version == 1 ? "1" : "2", &err);
        for (uint32_t batch = 0; batch < version; batch++)
            served->lane_options.batch_done(served->lane_options.context, 5, 0);
        metrics_read_statistics(served->series, &statistics);
        assert_int_equal(version, statistics.execution_count);
    }
    expect(loader.metrics, "nsad_batch_rows_sum", 15);
    catalog_free(catalog);
}

/* A model of select needs no version, and may say how many blocks are selected. */
static void select_may_have_models_of_its_own(void **state)
{
    struct catalog *catalog = NULL;
    const struct served_model *served;
    nsa_error err;

    (void)state;
    put_config("top8", "{\"op\": \"select\", \"num_selected_blocks\": 8}");
    put_config("select", "{\"op\": \"select\", \"num_selected_blocks\": 2}");
    put_golden("top8/3", "compress_tiny.safetensors"); /* not looked at */
    assert_status(NSA_OK, load(&catalog, &err));
    assert_int_equal(2, catalog->count);
    served = find(catalog, NSA_SELECT, "top8", NULL, &err);
    assert_int_equal(3, served->version);
    assert_int_equal(8, served->num_selected_blocks);
    served = find(catalog, NSA_SELECT, NULL, NULL, &err);
    assert_string_equal("select", served->name);
    assert_int_equal(1, served->version);
    assert_int_equal(2, served->num_selected_blocks);
    catalog_free(catalog);
}

static void by_name_alone_any_op_is_found(void **state)
{
    const struct served_model *served;
    struct catalog *catalog = NULL;
    nsa_error err;

    (void)state;
    put_golden("keys/2", "compress_tiny.safetensors");
    assert_status(NSA_OK, load(&catalog, &err));
    assert_status(NSA_OK, catalog_find(&served, catalog, NULL, "keys", NULL, &err));
    assert_status(NSA_OK, catalog_find(&served, catalog, NULL, "select", "1", &err));
    assert_status(NSA_ENOTFOUND, catalog_find(&served, catalog, NULL, "nobody", NULL, &err));
    assert_string_equal("Request for unknown model: 'nobody' is not found", err.message);
    assert_status(NSA_ENOTFOUND, catalog_find(&served, catalog, NULL, "keys", "1", &err));
    assert_string_equal("Request for unknown model: 'keys' version 1 is not found", err.message);
    assert_status(NSA_EINVAL, catalog_find(&served, catalog, NULL, "keys", "x", &err));
    catalog_free(catalog);
}

static nsa_status load_and_free(void *context)
{
    struct catalog *catalog = NULL;
    nsa_error err;
    nsa_status status = load(&catalog, &err);

    (void)context;
    catalog_free(catalog);
    /* A model that there is no memory for is refused like a broken one. */
    return status == NSA_EINVAL ? NSA_ENOMEM : status;
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    put_golden("keys/1", "compress_tiny.safetensors");
    put_config("keys", "{\"description\": \"text\"}");
    check_every_allocation(load_and_free, NULL);
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
        cmocka_unit_test_setup_teardown(select_may_have_models_of_its_own, begin, end),
        cmocka_unit_test_setup_teardown(by_name_alone_any_op_is_found, begin, end),
        cmocka_unit_test_setup_teardown(every_failed_allocation_is_survived, begin, end),
    };

    quiet_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
