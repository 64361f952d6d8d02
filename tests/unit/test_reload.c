/* What is served next, from what is served now and what is on disk. */
#include "tests/unit/repository_files.h"

#include "server/registry.h"

static struct catalog *now;

/* The next catalog takes the place of `now`, if there is one. */
static void take(struct catalog *next)
{
    if (!next)
        return;
    catalog_free(now);
    now = next;
}

static int start(void **state)
{
    nsa_error err;

    if (begin(state) != 0)
        return -1;
    put_golden("keys/1", "compress_tiny.safetensors");
    assert_status(NSA_OK, load(&now, &err));
    return 0;
}

static int stop(void **state)
{
    catalog_free(now);
    now = NULL;
    return end(state);
}

/* Reload, and expect a change or not, and so many new refusals. */
static void reload(bool changed, size_t refused)
{
    struct catalog *next = NULL;
    size_t count = 0;
    nsa_error err;

    assert_status(NSA_OK, loader_reload(&next, &count, &loader, now, &err));
    assert_int_equal(refused, count);
    assert_true(changed == (next != NULL));
    take(next);
}

/* The sha256 of a version's file as 8 digits; "" for one that isn't served. */
static const char *digest(const char *name, uint32_t version)
{
    static char text[9];
    const struct served_model *served = catalog_version(now, name, version);

    snprintf(text, sizeof text, "%.8s", served ? nsa_model_describe(served->model)->sha256 : "");
    return text;
}

static void assert_reason(const char *name, uint32_t version, const char *part)
{
    const struct refusal *refusal = catalog_refusal(now, name, version);

    assert_non_null(refusal);
    assert_non_null(strstr(refusal->reason, part));
}

static void what_has_not_changed_is_shared(void **state)
{
    const struct served_model *before = catalog_version(now, "keys", 1);

    (void)state;
    reload(false, 0);
    put_golden("more/1", "posembed_one.safetensors");
    reload(true, 0);
    assert_ptr_equal(before, catalog_version(now, "keys", 1));
    assert_non_null(catalog_version(now, "more", 1));
    assert_non_null(catalog_version(now, "select", 1));
}

static void a_changed_file_or_config_is_loaded(void **state)
{
    char before[9];

    (void)state;
    strcpy(before, digest("keys", 1));
    put_golden("keys/1", "compress_odd.safetensors");
    reload(true, 0);
    assert_string_not_equal(before, digest("keys", 1));
    put_config("keys", "{\"activation\": \"relu\"}");
    reload(true, 0);
    assert_int_equal(NSA_RELU,
                     nsa_model_describe(catalog_version(now, "keys", 1)->model)->activation);
    reload(false, 0);
}

static void a_new_version_serves_and_an_old_one_goes(void **state)
{
    const struct served_model *found;

    (void)state;
    put_golden("keys/2", "compress_odd.safetensors");
    reload(true, 0);
    assert_status(NSA_OK, catalog_find(&found, now, NULL, "keys", NULL, NULL));
    assert_int_equal(2, found->version);
    take_away("keys/1");
    reload(true, 0);
    assert_null(catalog_version(now, "keys", 1));
    take_away("keys");
    reload(true, 0);
    assert_status(NSA_ENOTFOUND, catalog_find(&found, now, NULL, "keys", NULL, NULL));
}

/* It is told once, and tried again when it has changed. */
static void what_is_refused_leaves_the_old_version_serving(void **state)
{
    const struct served_model *before = catalog_version(now, "keys", 1);

    (void)state;
    put("keys/1", "model.safetensors", "broken", 6);
    put("keys/2", "model.safetensors", "broken", 6);
    reload(true, 2);
    assert_ptr_equal(before, catalog_version(now, "keys", 1));
    assert_null(catalog_version(now, "keys", 2));
    assert_reason("keys", 1, "expected at least 8 bytes");
    assert_reason("keys", 2, "keys/2/model.safetensors");
    reload(false, 0);
    put("keys/2", "model.safetensors", "brokener", 8);
    reload(true, 1);
    put_golden("keys/1", "compress_odd.safetensors");
    put_golden("keys/2", "compress_odd.safetensors");
    reload(true, 0);
    assert_int_equal(0, now->refusal_count);
    assert_int_equal(2, now->models[0]->version);
}

static void a_broken_config_leaves_all_versions_serving(void **state)
{
    const struct served_model *before = catalog_version(now, "keys", 1);

    (void)state;
    put_config("keys", "{\"activatoin\": 1}");
    put_golden("keys/2", "compress_odd.safetensors");
    reload(true, 1);
    assert_ptr_equal(before, catalog_version(now, "keys", 1));
    assert_null(catalog_version(now, "keys", 2));
    assert_reason("keys", 0, "unknown key 'activatoin'");
    reload(false, 0);
    put_config("keys", "{}");
    reload(true, 0);
    assert_int_equal(0, now->refusal_count);
    assert_non_null(catalog_version(now, "keys", 2));
}

/* What gets in the way of what serves is told once, not at every look, and leaves no trace. */
static void what_is_in_the_way_is_told_once(void **state)
{
    char path[128];
    char elsewhere[128];
    struct config_model file = {(char *)"more", path};
    const struct served_model *before;

    (void)state;
    take_away("keys");
    put_golden("files", "compress_tiny.safetensors");
    snprintf(path, sizeof path, "%s/files/model.safetensors", root);
    config.models = (struct config_models){&file, 1};
    snprintf(elsewhere, sizeof elsewhere, "%s/models", root);
    config.model_repository = elsewhere;
    put("models", "notes", "", 0);
    reload(true, 0);
    before = catalog_version(now, "more", 1);
    put_golden("models/more/1", "compress_odd.safetensors");
    put_golden("models/select/1", "compress_tiny.safetensors");
    reload(true, 2);
    assert_reason("more", 1, "given twice");
    assert_reason("select", 1, "the name select is taken");
    assert_ptr_equal(before, catalog_version(now, "more", 1));
    assert_int_equal(2, now->count);
    reload(false, 0);
    take_away("models/more");
    take_away("models/select");
    reload(true, 0);
    assert_ptr_equal(before, catalog_version(now, "more", 1));
    assert_int_equal(0, now->refusal_count);
}

/* When all that is left of a name is refused, it serves what it did. */
static void the_last_version_stays(void **state)
{
    const struct served_model *before = catalog_version(now, "keys", 1);

    (void)state;
    put("keys/2", "model.safetensors", "broken", 6);
    take_away("keys/1");
    reload(true, 1);
    assert_ptr_equal(before, catalog_version(now, "keys", 1));
    reload(false, 0);
    put_golden("keys/2", "compress_odd.safetensors");
    reload(true, 0);
    assert_null(catalog_version(now, "keys", 1));
    assert_non_null(catalog_version(now, "keys", 2));
}

/* What may be different next time is tried again, and told again only if it is. */
static void what_was_bad_luck_is_tried_again(void **state)
{
    struct catalog *next = NULL;
    size_t refused = 0;
    nsa_error err;

    (void)state;
    put_golden("keys/2", "compress_odd.safetensors");
    for (long allocation = 0; refused == 0; allocation++) {
        fail_allocation_after(allocation);
        if (loader_reload(&next, &refused, &loader, now, &err) == NSA_OK && refused == 0)
            catalog_free(next);
        fail_allocation_after(-1);
    }
    take(next);
    assert_null(catalog_version(now, "keys", 2));
    assert_reason("keys", 2, "out of memory");
    reload(true, 0);
    assert_non_null(catalog_version(now, "keys", 2));
}

static void a_repository_that_cannot_be_read_changes_nothing(void **state)
{
    struct catalog *next = NULL;
    size_t refused;
    nsa_error err;

    (void)state;
    strcat(root, "/nowhere");
    assert_status(NSA_EIO, loader_reload(&next, &refused, &loader, now, &err));
    assert_null(next);
    *strrchr(root, '/') = '\0';
}

/* --- what clients ask for -------------------------------------------------------------------- */

static nsa_status ask(const struct load_request *request, nsa_error *err)
{
    struct catalog *next = NULL;
    nsa_status status = loader_load(&next, &loader, now, request, err);

    take(next);
    return status;
}

static void unload(const char *name)
{
    struct catalog *next = NULL;
    nsa_error err;

    assert_status(NSA_OK, loader_unload(&next, now, name, &err));
    take(next);
}

static void with_explicit_control_nothing_comes_by_itself(void **state)
{
    const struct load_request more = {.name = "more"};
    const struct load_request keys = {.name = "keys"};
    nsa_error err;

    (void)state;
    config.model_control = "explicit";
    put_golden("more/1", "posembed_one.safetensors");
    put_golden("keys/2", "compress_odd.safetensors");
    reload(true, 0); /* a new version of what is loaded */
    assert_non_null(catalog_version(now, "keys", 2));
    assert_null(catalog_version(now, "more", 1));
    assert_status(NSA_OK, ask(&more, &err));
    assert_non_null(catalog_version(now, "more", 1));
    unload("keys");
    assert_null(catalog_version(now, "keys", 1));
    assert_reason("keys", 0, "unloaded");
    reload(false, 0);
    assert_null(catalog_version(now, "keys", 1));
    assert_status(NSA_OK, ask(&keys, &err));
    assert_non_null(catalog_version(now, "keys", 1));
    assert_non_null(catalog_version(now, "keys", 2));
    assert_int_equal(0, now->refusal_count);
}

static void what_cannot_be_loaded_is_told(void **state)
{
    static const char *const names[] = {"nobody", "..", "a/b", ""};
    const struct served_model *before = catalog_version(now, "keys", 1);
    struct load_request request = {.name = "keys"};
    struct catalog *next = NULL;
    nsa_error err;

    (void)state;
    put("keys/1", "model.safetensors", "broken", 6);
    assert_status(NSA_EINVAL, ask(&request, &err));
    assert_message(err, "failed to load 'keys': ");
    assert_message(err, "expected at least 8 bytes");
    assert_ptr_equal(before, catalog_version(now, "keys", 1));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        strcpy(request.name, names[i]);
        assert_status(NSA_ENOTFOUND, ask(&request, &err));
        assert_message(err, "Request for unknown model: '");
    }
    assert_status(NSA_ENOTFOUND, loader_unload(&next, now, "nobody", &err));
    assert_message(err, "Request for unknown model: 'nobody' is not loaded");
    assert_status(NSA_EINVAL, loader_unload(&next, now, "select", &err));
    assert_null(next);
}

/* Such a model is the client's until the client loads it without. */
static void a_configuration_of_the_client_s_stays(void **state)
{
    struct load_request request = {
        .name = "keys", .has_config = true, .config.options.activation = NSA_SILU};
    nsa_error err;

    (void)state;
    assert_status(NSA_OK, ask(&request, &err));
    put_config("keys", "{\"activation\": \"relu\"}");
    reload(false, 0);
    assert_int_equal(NSA_SILU,
                     nsa_model_describe(catalog_version(now, "keys", 1)->model)->activation);
    request.has_config = false;
    assert_status(NSA_OK, ask(&request, &err));
    assert_int_equal(NSA_RELU,
                     nsa_model_describe(catalog_version(now, "keys", 1)->model)->activation);
}

static void weights_of_the_client_s_take_the_place_of_the_repository_s(void **state)
{
    struct load_request request = {.name = "keys", .file_count = 2};
    char before[9];
    size_t size;
    nsa_error err;

    (void)state;
    strcpy(before, digest("keys", 1));
    for (uint32_t i = 0; i < 2; i++) {
        request.files[i].version = 7 + i;
        request.files[i].bytes = read_golden("compress_odd.safetensors", &size);
        request.files[i].size = size;
    }
    assert_status(NSA_OK, ask(&request, &err));
    assert_null(catalog_version(now, "keys", 1));
    assert_string_not_equal(before, digest("keys", 7));
    assert_non_null(catalog_version(now, "keys", 8));
    assert_null(catalog_version(now, "keys", 8)->path);
    reload(false, 0);
    request.files[1].version = 7;
    assert_status(NSA_EINVAL, ask(&request, &err));
    assert_message(err, "version 7 is given twice");
    request.files[1].version = 8;
    request.files[1].size = 5;
    assert_status(NSA_EINVAL, ask(&request, &err));
    assert_message(err, "keys/8/model.safetensors");
    assert_non_null(catalog_version(now, "keys", 8)); /* the old one */
    for (size_t i = 0; i < 2; i++)
        free(request.files[i].bytes);
}

/* A load is of all versions or of none, and a look at the disk changes neither. */
static void a_load_that_is_refused_in_part_changes_nothing(void **state)
{
    struct load_request request = {
        .name = "keys", .has_config = true, .config.options.op = "compress"};
    const struct served_model *first = catalog_version(now, "keys", 1);
    const struct served_model *second;
    nsa_error err;

    (void)state;
    put_golden("keys/2", "posembed_one.safetensors");
    reload(true, 0);
    second = catalog_version(now, "keys", 2);
    assert_status(NSA_EINVAL, ask(&request, &err));
    assert_ptr_equal(first, catalog_version(now, "keys", 1));
    assert_ptr_equal(second, catalog_version(now, "keys", 2));
    assert_reason("keys", 2, "mlp.1.weight");
    reload(true, 0);
    assert_ptr_equal(second, catalog_version(now, "keys", 2));
    assert_int_equal(0, now->refusal_count);
}

/* Nothing is kept of names that are neither served nor on disk. */
static void failed_loads_of_nothing_leave_nothing(void **state)
{
    struct load_request request = {.name = "made-up", .file_count = 1};
    nsa_error err;

    (void)state;
    request.files[0] = (struct load_file){1, (char *)"AAAA", 4};
    assert_status(NSA_EINVAL, ask(&request, &err));
    assert_message(err, "failed to load 'made-up': made-up/1/model.safetensors: ");
    assert_int_equal(0, now->refusal_count);
    request.config.options.op = "select";
    assert_status(NSA_EINVAL, ask(&request, &err));
    assert_message(err, "file: expected none, as select has no weights");
    request.config.options.op = NULL;
    strcpy(request.name, "select");
    assert_status(NSA_EINVAL, ask(&request, &err));
    assert_non_null(catalog_version(now, "select", 1));
}

static void select_takes_a_configuration_of_the_client_s(void **state)
{
    struct load_request request = {.name = "select",
                                   .has_config = true,
                                   .config = {.options.op = "select",
                                              .num_selected_blocks = 3,
                                              .has_num_selected_blocks = true}};
    nsa_error err;

    (void)state;
    assert_status(NSA_OK, ask(&request, &err));
    assert_int_equal(3, catalog_version(now, "select", 1)->num_selected_blocks);
    request.config.options.op = NULL;
    assert_status(NSA_EINVAL, ask(&request, &err));
    assert_int_equal(3, catalog_version(now, "select", 1)->num_selected_blocks);
    reload(false, 0);
}

static void select_can_be_loaded_but_not_replaced(void **state)
{
    const struct load_request request = {.name = "select"};
    nsa_error err;

    (void)state;
    assert_status(NSA_OK, ask(&request, &err));
    put_config("select", "{\"op\": \"select\", \"num_selected_blocks\": 3}");
    assert_status(NSA_OK, ask(&request, &err));
    assert_int_equal(3, catalog_version(now, "select", 1)->num_selected_blocks);
    put_golden("select/1", "compress_tiny.safetensors");
    put_config("select", "{}");
    assert_status(NSA_EINVAL, ask(&request, &err));
    assert_message(err, "the name select is taken");
    assert_non_null(catalog_version(now, "select", 1));
}

static nsa_status change_everything(void *context)
{
    const struct load_request request = {.name = "keys"};
    struct catalog *first = NULL;
    struct catalog *second = NULL;
    struct catalog *third = NULL;
    size_t refused = 0;
    nsa_error err;
    nsa_status status;

    (void)context;
    status = loader_reload(&first, &refused, &loader, now, &err);
    if (status == NSA_OK && refused > 0)
        status = NSA_ENOMEM; /* a model that there was no memory for */
    if (status == NSA_OK)
        status = loader_load(&second, &loader, first, &request, &err);
    if (status == NSA_OK)
        status = loader_unload(&third, second, "keys", &err);
    catalog_free(first);
    catalog_free(second);
    catalog_free(third);
    return status == NSA_EINVAL ? NSA_ENOMEM : status;
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    put_golden("keys/2", "compress_odd.safetensors");
    check_every_allocation(change_everything, NULL);
}

/* --- the registry ---------------------------------------------------------------------------- */

static void what_is_held_outlives_its_replacement(void **state)
{
    struct registry *registry = registry_open();
    struct catalog *next = NULL;
    const struct catalog *held;
    size_t refused;
    nsa_error err;

    (void)state;
    assert_null(registry_acquire(registry));
    registry_publish(registry, now);
    expect(loader.metrics, "nsad_model_ready{model=\"keys\",version=\"1\"}", 1);
    held = registry_acquire(registry);
    assert_ptr_equal(now, held);
    put_golden("keys/1", "compress_odd.safetensors");
    assert_status(NSA_OK, loader_reload(&next, &refused, &loader, held, &err));
    registry_publish(registry, next);
    assert_false(registry_sweep(registry));
    assert_int_equal(1, catalog_version(held, "keys", 1)->version); /* still there */
    assert_true(held != registry_acquire(registry));
    registry_release(registry, next);
    registry_release(registry, held);
    assert_true(registry_sweep(registry));
    assert_false(registry_sweep(registry));
    expect(loader.metrics, "nsad_model_ready{model=\"keys\",version=\"1\"}", 1);
    registry_close(registry);
    now = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_has_not_changed_is_shared, start, stop),
        cmocka_unit_test_setup_teardown(a_changed_file_or_config_is_loaded, start, stop),
        cmocka_unit_test_setup_teardown(a_new_version_serves_and_an_old_one_goes, start, stop),
        cmocka_unit_test_setup_teardown(what_is_refused_leaves_the_old_version_serving, start,
                                        stop),
        cmocka_unit_test_setup_teardown(a_broken_config_leaves_all_versions_serving, start, stop),
        cmocka_unit_test_setup_teardown(what_is_in_the_way_is_told_once, start, stop),
        cmocka_unit_test_setup_teardown(the_last_version_stays, start, stop),
        cmocka_unit_test_setup_teardown(what_was_bad_luck_is_tried_again, start, stop),
        cmocka_unit_test_setup_teardown(a_repository_that_cannot_be_read_changes_nothing, start,
                                        stop),
        cmocka_unit_test_setup_teardown(with_explicit_control_nothing_comes_by_itself, start, stop),
        cmocka_unit_test_setup_teardown(what_cannot_be_loaded_is_told, start, stop),
        cmocka_unit_test_setup_teardown(a_configuration_of_the_client_s_stays, start, stop),
        cmocka_unit_test_setup_teardown(weights_of_the_client_s_take_the_place_of_the_repository_s,
                                        start, stop),
        cmocka_unit_test_setup_teardown(a_load_that_is_refused_in_part_changes_nothing, start,
                                        stop),
        cmocka_unit_test_setup_teardown(failed_loads_of_nothing_leave_nothing, start, stop),
        cmocka_unit_test_setup_teardown(select_takes_a_configuration_of_the_client_s, start, stop),
        cmocka_unit_test_setup_teardown(select_can_be_loaded_but_not_replaced, start, stop),
        cmocka_unit_test_setup_teardown(every_failed_allocation_is_survived, start, stop),
        cmocka_unit_test_setup_teardown(what_is_held_outlives_its_replacement, start, stop),
    };

    quiet_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
