/* Changes of what is served, in the order in which they are asked for. */
#include "tests/unit/repository_files.h"

#include "server/control.h"
#include "server/registry.h"
#include "server/server.h"

#include <pthread.h>
#include <stdatomic.h>

#define TASKS 200

static struct server server;
static struct control *control;
static struct control_task tasks[TASKS];
static atomic_size_t done_count;

static int start(void **state)
{
    struct catalog *catalog = NULL;

    if (begin(state) != 0)
        return -1;
    atomic_store(&done_count, 0);
    put_golden("keys/1", "compress_tiny.safetensors");
    assert_status(NSA_OK, load(&catalog, NULL));
    server.config = config;
    server.config.model_control = "explicit";
    server.batcher = loader.batcher;
    server.metrics = loader.metrics;
    server.registry = registry_open();
    registry_publish(server.registry, catalog);
    return 0;
}

static int stop(void **state)
{
    registry_close(server.registry);
    return end(state);
}

static void done(struct control_task *task)
{
    assert_ptr_equal(&server, task->context);
    atomic_fetch_add(&done_count, 1);
}

static struct control_task *make_task(size_t index, bool unload, const char *name)
{
    tasks[index] = (struct control_task){.unload = unload, .done = done, .context = &server};
    strcpy(tasks[index].request.name, name);
    return &tasks[index];
}

/* Whether `name` is served now. */
static bool is_served(const char *name)
{
    const struct catalog *catalog = registry_acquire(server.registry);
    bool served = catalog_version(catalog, name, 1) != NULL;

    registry_release(server.registry, catalog);
    return served;
}

/* What waits is finished before the thread ends, one after the other. */
static void changes_are_made_in_order(void **state)
{
    (void)state;
    assert_status(NSA_OK, control_open(&control, &server, NULL));
    assert_status(NSA_OK, control_submit(control, make_task(0, true, "keys"), NULL));
    assert_status(NSA_OK, control_submit(control, make_task(1, true, "keys"), NULL));
    assert_status(NSA_OK, control_submit(control, make_task(2, false, "keys"), NULL));
    assert_status(NSA_OK, control_submit(control, make_task(3, false, "nobody"), NULL));
    control_close(control);
    assert_int_equal(4, atomic_load(&done_count));
    assert_status(NSA_OK, tasks[0].status);
    assert_status(NSA_ENOTFOUND, tasks[1].status);
    assert_message(tasks[1].err, "'keys' is not loaded");
    assert_status(NSA_OK, tasks[2].status);
    assert_status(NSA_ENOTFOUND, tasks[3].status);
    assert_true(is_served("keys"));
}

static bool gone(struct control_task *task)
{
    return task == &tasks[1];
}

/* What nobody waits for is not begun. */
static void late_and_abandoned_changes_are_not_made(void **state)
{
    (void)state;
    assert_status(NSA_OK, control_open(&control, &server, NULL));
    for (size_t i = 0; i < 2; i++) {
        make_task(i, true, "keys")->abandoned = gone;
        tasks[i].deadline_ns = i == 0 ? 1 : UINT64_MAX;
        assert_status(NSA_OK, control_submit(control, &tasks[i], NULL));
    }
    control_close(control);
    assert_status(NSA_ETIMEDOUT, tasks[0].status);
    assert_status(NSA_ECANCELED, tasks[1].status);
    assert_int_equal(2, atomic_load(&done_count));
    assert_true(is_served("keys"));
}

/* Asked for faster than they can be made, some are turned away, and no other is lost. */
static void so_many_may_wait_and_no_more(void **state)
{
    size_t taken = 0;
    nsa_error err;

    (void)state;
    assert_status(NSA_OK, control_open(&control, &server, NULL));
    for (size_t i = 0; i < TASKS; i++) {
        nsa_status status = control_submit(control, make_task(i, false, "keys"), &err);

        taken += status == NSA_OK;
        if (status != NSA_OK)
            assert_status(NSA_EFULL, status);
    }
    control_close(control);
    assert_in_range(taken, CONTROL_MAX_TASKS, TASKS - 1);
    assert_message(err, "at most 16 changes of models");
    assert_int_equal(taken, atomic_load(&done_count));
}

static void a_reload_looks_at_the_disk(void **state)
{
    (void)state;
    server.config.model_control = "none";
    put_golden("more/1", "posembed_one.safetensors");
    assert_status(NSA_OK, control_open(&control, &server, NULL));
    control_reload(control);
    for (int i = 0; i < 20000 && !is_served("more"); i++)
        usleep(1000);
    assert_true(is_served("more"));
    control_close(control);
}

static nsa_status open_and_close(void *context)
{
    struct control *opened;
    nsa_status status = control_open(&opened, &server, NULL);

    (void)context;
    if (status == NSA_OK)
        control_close(opened);
    return status;
}

static void every_failed_allocation_is_survived(void **state)
{
    struct registry *registry;

    (void)state;
    check_every_allocation(open_and_close, NULL);
    control_close(NULL);
    fail_allocation_after(0);
    registry = registry_open();
    fail_allocation_after(-1);
    assert_null(registry);
    registry_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(changes_are_made_in_order, start, stop),
        cmocka_unit_test_setup_teardown(late_and_abandoned_changes_are_not_made, start, stop),
        cmocka_unit_test_setup_teardown(so_many_may_wait_and_no_more, start, stop),
        cmocka_unit_test_setup_teardown(a_reload_looks_at_the_disk, start, stop),
        cmocka_unit_test_setup_teardown(every_failed_allocation_is_survived, start, stop),
    };

    quiet_log();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
