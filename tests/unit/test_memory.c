/* Memory of requests: what is kept, for whom, and how much. */
#include "tests/unit/support.h"

#include "server/memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_BYTES ((size_t)64 * 1024)

static struct memory *memory;

static int start(void **state)
{
    (void)state;
    return memory_open(&memory, KEPT_BYTES, NULL) == NSA_OK ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    memory_close(memory);
    return 0;
}

/* Every size is usable from end to end, and aligned. */
static void test_sizes(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes < 3 * MEMORY_MAX_KEPT_BLOCK; bytes += 1 + bytes / 7) {
        char *block = memory_take(memory, bytes);

        assert_non_null(block);
        assert_int_equal(0, (uintptr_t)block % MEMORY_ALIGN);
        memset(block, 0xA5, bytes);
        memory_give(block);
    }
    memory_give(NULL);
    assert_null(memory_take(memory, SIZE_MAX));
    assert_null(memory_take(memory, SIZE_MAX - MEMORY_ALIGN));
}

/* What was given back serves the next one of its size, and no other. */
static void test_kept(void **state)
{
    char *first = memory_take(memory, 5000);
    char *second = memory_take(memory, 5000);
    char *other;
    size_t before;

    (void)state;
    assert_ptr_not_equal(first, second);
    memory_give(first);
    before = allocation_count();
    assert_ptr_equal(first, memory_take(memory, 4200));
    assert_int_equal(before, allocation_count());
    memory_give(second);
    other = memory_take(memory, 9000);
    assert_ptr_not_equal(second, other);
    assert_int_equal(before + 1, allocation_count());
    memory_give(other);
    memory_give(first);
}

/* Past the limit, blocks go back to the allocator; what is taken makes room again. */
static void test_limit(void **state)
{
    void *blocks[10] = {NULL};

    (void)state;
    for (size_t round = 0; round < 4; round++) {
        size_t before = allocation_count();

        for (size_t i = 0; i < 10; i++)
            blocks[i] = memory_take(memory, 16 * 1024);
        if (round > 0)
            assert_int_equal(before + 10 - KEPT_BYTES / (16 * 1024), allocation_count());
        for (size_t i = 0; i < 10; i++)
            memory_give(blocks[i]);
    }
}

/* What a load that is over left behind makes room for another's; half the limit is the most of one.
 */
static void test_change_of_load(void **state)
{
    size_t before;

    (void)state;
    for (size_t i = 0; i < 2; i++)
        memory_give(memory_take(memory, KEPT_BYTES / 2 - 100));
    for (size_t bytes = 1024; bytes <= KEPT_BYTES / 4; bytes *= 2) {
        void *one = memory_take(memory, bytes);
        void *other = memory_take(memory, bytes);

        memory_give(one);
        memory_give(other);
        before = allocation_count();
        one = memory_take(memory, bytes);
        other = memory_take(memory, bytes);
        assert_int_equal(before, allocation_count());
        memory_give(one);
        memory_give(other);
    }
    memory_give(memory_take(memory, KEPT_BYTES / 2 + 100));
    before = allocation_count();
    memory_give(memory_take(memory, KEPT_BYTES / 2 + 100));
    assert_int_equal(before + 1, allocation_count());
}

/* A block past the largest size is never kept, whatever the limit. */
static void test_large(void **state)
{
    struct memory *large = NULL;
    size_t before;

    (void)state;
    assert_status(NSA_OK, memory_open(&large, SIZE_MAX, NULL));
    memory_give(memory_take(large, MEMORY_MAX_KEPT_BLOCK));
    memory_give(memory_take(large, MEMORY_MAX_KEPT_BLOCK + 1));
    before = allocation_count();
    memory_give(memory_take(large, MEMORY_MAX_KEPT_BLOCK));
    assert_int_equal(before, allocation_count());
    memory_give(memory_take(large, MEMORY_MAX_KEPT_BLOCK + 1));
    assert_int_equal(before + 1, allocation_count());
    memory_close(large);
}

static void *give(void *block)
{
    memory_give(block);
    return NULL;
}

/* A thread keeps what it gave back for itself, and it is freed after its end. */
static void test_threads(void **state)
{
    void *block = memory_take(memory, 3000);
    pthread_t thread;
    size_t before;

    (void)state;
    assert_int_equal(0, pthread_create(&thread, NULL, give, block));
    assert_int_equal(0, pthread_join(thread, NULL));
    before = allocation_count();
    memory_give(memory_take(memory, 3000));
    assert_int_equal(before + 1, allocation_count());
}

static nsa_status open_and_take(void *context)
{
    struct memory *one = NULL;
    nsa_status status = memory_open(&one, KEPT_BYTES, NULL);
    void *block = one ? memory_take(one, 100) : NULL;

    (void)context;
    if (one && !block)
        status = NSA_ENOMEM;
    memory_give(block);
    memory_close(one);
    return status;
}

/* Without memory for a thread's lists, nothing is kept and nothing else is amiss. */
static void test_out_of_memory(void **state)
{
    struct memory *one = NULL;
    void *block;

    (void)state;
    fail_allocation_after(0);
    assert_status(NSA_ENOMEM, open_and_take(NULL));
    fail_allocation_after(2);
    assert_status(NSA_ENOMEM, open_and_take(NULL));
    fail_allocation_after(1);
    assert_status(NSA_OK, memory_open(&one, KEPT_BYTES, NULL));
    block = memory_take(one, 100);
    assert_true(allocation_failed());
    fail_allocation_after(-1);
    assert_non_null(block);
    memory_give(block);
    memory_close(one);
    memory_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sizes, start, stop),
        cmocka_unit_test_setup_teardown(test_kept, start, stop),
        cmocka_unit_test_setup_teardown(test_limit, start, stop),
        cmocka_unit_test_setup_teardown(test_change_of_load, start, stop),
        cmocka_unit_test(test_large),
        cmocka_unit_test_setup_teardown(test_threads, start, stop),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
