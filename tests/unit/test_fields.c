#include "tests/unit/support.h"

#include "server/fields.h"

#include <stdio.h>
#include <string.h>

static struct fields fields;
static nsa_error err;

static nsa_status set_json(const char *name, const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    nsa_status status;

    assert_non_null(value);
    status = fields_set_json(&fields, name, value, &err);
    json_decref(value);
    return status;
}

static nsa_status set_query(const char *name, const char *text)
{
    return fields_set_text(&fields, FIELDS_QUERY, name, text, &err);
}

static int begin(void **state)
{
    (void)state;
    fields_init(&fields, nsa_op_at(NSA_SELECT));
    return 0;
}

static void the_same_field_from_text_and_json(void **state)
{
    (void)state;
    assert_status(NSA_OK, set_query("num_selected_blocks", "8"));
    assert_status(NSA_OK, set_json("return_values", "true"));
    assert_status(NSA_OK, set_query("model", "keys"));
    assert_status(NSA_OK, set_json("version", "3"));
    assert_status(NSA_OK, set_json("shape", "[2, 0, 16]"));
    assert_status(NSA_OK, set_query("flat", "1"));
    assert_status(NSA_OK, set_json("nonfinite", "\"null\""));
    assert_int_equal(8, fields.params[0]);
    assert_int_equal(1, fields.params[1]);
    assert_string_equal("keys", fields.model);
    assert_string_equal("3", fields.version);
    assert_int_equal(3, fields.shape.rank);
    assert_int_equal(16, fields.shape.dims[2]);
    assert_true(fields.flat && fields.nonfinite_null && fields.has_shape);
    assert_status(NSA_OK, fields_complete(&fields, 3, &err));
    assert_int_equal(8, fields.params[0]); /* as given */
}

static void a_param_may_come_as_an_integer(void **state)
{
    (void)state;
    assert_int_equal(0, fields_param(fields.op, "num_selected_blocks"));
    assert_int_equal(fields.op->param_count, fields_param(fields.op, "offset"));
    assert_status(NSA_OK, fields_set_integer(&fields, 0, 5, &err));
    assert_int_equal(5, fields.params[0]);
    assert_status(NSA_EINVAL, fields_set_integer(&fields, 0, 5, &err));
    assert_string_equal("num_selected_blocks: given twice", err.message);
}

static void defaults_hold_and_required_is_missed(void **state)
{
    (void)state;
    assert_int_equal(0, fields.params[1]);
    assert_false(fields.flat || fields.nonfinite_null || fields.has_shape || fields.has_dtype);
    assert_status(NSA_EINVAL, fields_complete(&fields, -1, &err));
    assert_string_equal("num_selected_blocks: expected an integer, got none", err.message);
    assert_status(NSA_OK, fields_complete(&fields, 3, &err));
    assert_int_equal(3, fields.params[0]);
    fields_init(&fields, nsa_op_at(NSA_POSEMBED));
    assert_status(NSA_OK, fields_complete(&fields, -1, &err));
    assert_int_equal(0, fields.params[0]);
}

static void said_twice_is_refused(void **state)
{
    (void)state;
    assert_status(NSA_OK, set_query("num_selected_blocks", "8"));
    assert_status(NSA_EINVAL, set_json("num_selected_blocks", "8"));
    assert_string_equal("num_selected_blocks: given twice", err.message);
    assert_status(NSA_OK, set_json("flat", "false"));
    assert_status(NSA_EINVAL, set_query("flat", "true"));
}

static void unknown_names_list_the_known(void **state)
{
    (void)state;
    assert_status(NSA_EINVAL, set_query("num_selected_block", "8"));
    assert_string_equal(
        "unknown field 'num_selected_block': expected model, version, shape, dtype, "
        "flat, nonfinite, num_selected_blocks, return_values",
        err.message);
    assert_status(NSA_EINVAL, set_json("offset", "1"));
    assert_message(err, "expected input, model");
    /* JSON says its dtype by being JSON; headers say shape and dtype alone. */
    assert_status(NSA_EINVAL, set_json("dtype", "\"float32\""));
    assert_status(NSA_EINVAL, fields_set_text(&fields, FIELDS_HEADER, "model", "keys", &err));
    assert_status(NSA_EINVAL,
                  fields_set_text(&fields, FIELDS_HEADER, "num_selected_blocks", "1", &err));
}

static void values_that_do_not_fit_are_quoted(void **state)
{
    static const struct {
        const char *name, *query, *json, *message;
    } cases[] = {
        {"num_selected_blocks", "eight", NULL, "expected an integer, got 'eight'"},
        {"num_selected_blocks", "", NULL, "expected an integer, got ''"},
        {"num_selected_blocks", "-", NULL, "expected an integer, got '-'"},
        {"num_selected_blocks", "+1", NULL, "expected an integer, got '+1'"},
        {"num_selected_blocks", " 1", NULL, "expected an integer, got ' 1'"},
        {"num_selected_blocks", "9223372036854775808", NULL, "got '9223372036854775808'"},
        {"num_selected_blocks", NULL, "8.0", "expected an integer, got 8.0"},
        {"num_selected_blocks", NULL, "\"8\"", "expected an integer, got \"8\""},
        {"num_selected_blocks", NULL, "null", "expected an integer, got null"},
        {"return_values", NULL, "1", "expected true or false, got 1"},
        {"return_values", "yes", NULL, "expected true or false, got 'yes'"},
        {"model", "", NULL, "expected a name"},
        {"model", NULL, "7", "expected a name of 1 to 128 bytes, got 7"},
        {"version", NULL, "{}", "expected a positive integer, got {}"},
        {"shape", "2,x", NULL, "expected up to 32 integers"},
        {"shape", "2,", NULL, "expected up to 32 integers"},
        {"shape", ",2", NULL, "expected up to 32 integers"},
        {"shape", "-1", NULL, "expected up to 32 integers"},
        {"shape", "18446744073709551616", NULL, "expected up to 32 integers"},
        {"shape", NULL, "[2, -1]", "got [2,-1]"},
        {"shape", NULL, "[2, 1.0]", "got [2,1.0]"},
        {"shape", NULL, "2", "got 2"},
        {"dtype", "f32", NULL, "expected float32, float16"},
        {"nonfinite", NULL, "\"zero\"", "expected \"token\" or \"null\", got \"zero\""},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(state);
        assert_status(NSA_EINVAL, cases[i].query ? set_query(cases[i].name, cases[i].query)
                                                 : set_json(cases[i].name, cases[i].json));
        assert_int_equal(0, strncmp(err.message, cases[i].name, strlen(cases[i].name)));
        assert_message(err, cases[i].message);
    }
}

static void shapes_have_up_to_32_dimensions(void **state)
{
    char text[128] = "1";

    (void)state;
    for (int i = 1; i < NSA_MAX_RANK; i++)
        strcat(text, ",1");
    assert_status(NSA_OK, set_query("shape", text));
    assert_int_equal(NSA_MAX_RANK, fields.shape.rank);
    begin(state);
    strcat(text, ",1");
    assert_status(NSA_EINVAL, set_query("shape", text));
    begin(state);
    assert_status(NSA_OK, set_query("shape", ""));
    assert_int_equal(0, fields.shape.rank);
}

static void a_long_text_is_cut_in_the_message(void **state)
{
    char text[1000];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_status(NSA_EINVAL, set_query("model", text));
    assert_true(strlen(err.message) < 200);
    assert_status(NSA_EINVAL, set_query(text, "1"));
    assert_true(strlen(err.message) < 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_same_field_from_text_and_json, begin),
        cmocka_unit_test_setup(a_param_may_come_as_an_integer, begin),
        cmocka_unit_test_setup(defaults_hold_and_required_is_missed, begin),
        cmocka_unit_test_setup(said_twice_is_refused, begin),
        cmocka_unit_test_setup(unknown_names_list_the_known, begin),
        cmocka_unit_test_setup(values_that_do_not_fit_are_quoted, begin),
        cmocka_unit_test_setup(shapes_have_up_to_32_dimensions, begin),
        cmocka_unit_test_setup(a_long_text_is_cut_in_the_message, begin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
