/* Choosing kernels by name. */
#include "tests/unit/support.h"

#include <nsa/cpu.h>
#include <string.h>

static bool is_supported(const char *name)
{
    for (size_t i = 0; nsa_cpu_supported(i); i++) {
        if (strcmp(nsa_cpu_supported(i), name) == 0)
            return true;
    }
    return false;
}

/* main() runs this first: nothing has chosen yet. */
static void test_portable_until_chosen(void **state)
{
    (void)state;
    assert_string_equal("portable", nsa_cpu_kernel());
    assert_string_equal("portable", nsa_kernels_active()->name);
}

static void test_supported_names_are_distinct_and_known(void **state)
{
    size_t count = 0;

    (void)state;
    assert_string_equal("portable", nsa_cpu_supported(0));
    for (; nsa_cpu_supported(count); count++) {
        const char *name = nsa_cpu_supported(count);

        assert_true(strcmp(name, "portable") == 0 || strcmp(name, "avx2") == 0 ||
                    strcmp(name, "avx512") == 0);
        for (size_t i = 0; i < count; i++)
            assert_string_not_equal(nsa_cpu_supported(i), name);
    }
    assert_in_range(count, 1, 3);
    assert_null(nsa_cpu_supported(count + 1));
    assert_null(nsa_cpu_supported(SIZE_MAX));
}

/* Each name is used if it is in the list, and refused, with nothing changed, if it is not. */
static void test_each_name(void **state)
{
    static const char *const names[] = {"portable", "avx2", "avx512"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        nsa_error err;

        assert_status(NSA_OK, nsa_cpu_use("portable", NULL));
        if (is_supported(names[i])) {
            assert_status(NSA_OK, nsa_cpu_use(names[i], &err));
            assert_string_equal(names[i], nsa_cpu_kernel());
            assert_string_equal(names[i], nsa_kernels_active()->name);
        } else {
            assert_status(NSA_EUNSUPPORTED, nsa_cpu_use(names[i], &err));
            assert_message(err, "this processor does not support");
            assert_message(err, names[i]);
            assert_string_equal("portable", nsa_cpu_kernel());
        }
    }
}

static void test_auto_is_the_best(void **state)
{
    size_t last = 0;

    (void)state;
    while (nsa_cpu_supported(last + 1))
        last++;
    assert_status(NSA_OK, nsa_cpu_use("auto", NULL));
    assert_string_equal(nsa_cpu_supported(last), nsa_cpu_kernel());
}

static void test_unknown_names(void **state)
{
    static const char *const names[] = {"", "AVX2", "avx", "avx5123", "neon", "auto "};
    nsa_error err;

    (void)state;
    assert_status(NSA_OK, nsa_cpu_use("portable", NULL));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_status(NSA_EINVAL, nsa_cpu_use(names[i], NULL));
        assert_status(NSA_EINVAL, nsa_cpu_use(names[i], &err));
        assert_message(err, "expected auto, portable, avx2 or avx512, got '");
        assert_message(err, names[i]);
        assert_string_equal("portable", nsa_cpu_kernel());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_portable_until_chosen),
        cmocka_unit_test(test_supported_names_are_distinct_and_known),
        cmocka_unit_test(test_each_name),
        cmocka_unit_test(test_auto_is_the_best),
        cmocka_unit_test(test_unknown_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
