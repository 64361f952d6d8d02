#include "tests/unit/support.h"

#include "server/router.h"

#include <string.h>

static char params[EXCHANGE_MAX_PARAMS][EXCHANGE_PARAM_BYTES];

/* Whether it fits, and if so with these parameters. */
static void expect(bool fits, const char *pattern, const char *path, const char *first,
                   const char *second)
{
    if (router_match(params, pattern, path) != fits)
        fail_msg("%s %s %s", path, fits ? "doesn't fit" : "fits", pattern);
    if (!fits)
        return;
    assert_string_equal(first, params[0]);
    assert_string_equal(second, params[1]);
}

static void plain_paths_fit_themselves(void **state)
{
    (void)state;
    expect(true, "/v1/select", "/v1/select", "", "");
    expect(false, "/v1/select", "/v1/select/", "", "");
    expect(false, "/v1/select", "/v1/selec", "", "");
    expect(false, "/v1/select", "/v1/selects", "", "");
    expect(false, "/v1/select", "", "", "");
}

static void names_take_one_segment(void **state)
{
    (void)state;
    expect(true, "/m/{model}/x", "/m/keys/x", "keys", "");
    expect(true, "/m/{model}", "/m/{model}", "{model}", "");
    expect(false, "/m/{model}/x", "/m//x", "", "");
    expect(false, "/m/{model}/x", "/m/a/b/x", "", "");
    expect(false, "/m/{model}", "/m/a/", "", "");
    expect(true, "/m/{a}/{b}", "/m/1/2", "1", "2");
}

static void what_stands_in_brackets_may_be_left_out(void **state)
{
    static const char pattern[] = "/m[/{model}[/v/{version}]]/stats";

    (void)state;
    expect(true, pattern, "/m/stats", "", "");
    expect(true, pattern, "/m/a/stats", "a", "");
    expect(true, pattern, "/m/a/v/1/stats", "a", "1");
    expect(true, pattern, "/m/stats/stats", "stats", "");
    expect(false, pattern, "/m/a/v/stats", "", "");
    expect(false, pattern, "/m/a/v/1", "", "");
    expect(true, "/v2[/]", "/v2", "", "");
    expect(true, "/v2[/]", "/v2/", "", "");
    expect(false, "/v2[/]", "/v2//", "", "");
}

static void a_segment_has_a_limit(void **state)
{
    char path[EXCHANGE_PARAM_BYTES + 8] = "/m/";

    (void)state;
    memset(path + 3, 'a', EXCHANGE_PARAM_BYTES - 1);
    expect(true, "/m/{model}", path, path + 3, "");
    path[strlen(path)] = 'a';
    expect(false, "/m/{model}", path, "", "");
}

static void every_route_is_found_by_its_own_path(void **state)
{
    size_t count;
    const struct route *routes = router_routes(&count);

    (void)state;
    for (size_t i = 0; i < count; i++) {
        char path[256] = "";
        struct exchange ex = {.path = path};
        size_t size = 0;

        /* A name stands for itself; what may be left out is. */
        for (const char *p = routes[i].path, *end = p + strcspn(p, "["); p < end; p++)
            path[size++] = *p;
        if (strchr(routes[i].path, ']'))
            strcat(path, strrchr(routes[i].path, ']') + 1);
        router_find(&ex, ROUTER_PLAIN);
        assert_ptr_equal(&routes[i], ex.route);
        assert_int_equal(i, router_index(ex.route));
        assert_true(ex.oip == (strncmp(path, "/v2", 3) == 0));
        router_find(&ex, ROUTER_UNREADABLE);
        assert_int_equal(count, router_index(ex.route));
        router_find(&ex, ROUTER_SLASHED);
        assert_int_equal(count, router_index(ex.route));
    }
}

static void only_whole_v2_is_the_protocol_s(void **state)
{
    struct exchange ex = {.path = (char *)"/v2x"};

    (void)state;
    router_find(&ex, ROUTER_PLAIN);
    assert_false(ex.oip);
    ex.path = (char *)"/v2/nothing";
    router_find(&ex, ROUTER_PLAIN);
    assert_true(ex.oip);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_paths_fit_themselves),
        cmocka_unit_test(names_take_one_segment),
        cmocka_unit_test(what_stands_in_brackets_may_be_left_out),
        cmocka_unit_test(a_segment_has_a_limit),
        cmocka_unit_test(every_route_is_found_by_its_own_path),
        cmocka_unit_test(only_whole_v2_is_the_protocol_s),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
