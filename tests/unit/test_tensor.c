#include "tests/unit/support.h"

#include <nsa/tensor.h>
#include <string.h>

#define UNTOUCHED ((size_t)0xDEAD)

static void a_scalar_has_one_element(void **state)
{
    nsa_shape shape = {.rank = 0};
    size_t count;

    (void)state;
    assert_status(NSA_OK, nsa_shape_count(&count, &shape, NULL));
    assert_int_equal(1, count);
}

static void the_count_is_the_product_of_the_dims(void **state)
{
    nsa_shape shape = {4, {2, 8, 16, 32}};
    size_t count;

    (void)state;
    assert_status(NSA_OK, nsa_shape_count(&count, &shape, NULL));
    assert_int_equal(2 * 8 * 16 * 32, count);
}

static void a_dim_of_zero_leaves_no_elements(void **state)
{
    nsa_shape shape = {3, {5, 0, 7}};
    size_t count;

    (void)state;
    assert_status(NSA_OK, nsa_shape_count(&count, &shape, NULL));
    assert_int_equal(0, count);
}

static void rows_without_elements_are_as_many_as_fit(void **state)
{
    nsa_shape shape = {3, {SIZE_MAX, 0, 1}};
    size_t count = UNTOUCHED;

    (void)state;
    assert_status(NSA_OK, nsa_shape_count(&count, &shape, NULL));
    assert_int_equal(0, count);
    shape.dims[2] = 2;
    assert_status(NSA_ELIMIT, nsa_shape_count(&count, &shape, NULL));
}

/* Wherever the zero stands: a product that stops at it would hide the overflow. */
static void empty_rows_that_overflow_are_over_the_limit(void **state)
{
    nsa_shape first = {4, {0, SIZE_MAX, SIZE_MAX, 2}};
    nsa_shape last = {3, {2, SIZE_MAX, 0}};
    size_t count = UNTOUCHED;
    nsa_error err;

    (void)state;
    assert_status(NSA_ELIMIT, nsa_shape_count(&count, &first, NULL));
    assert_status(NSA_ELIMIT, nsa_shape_count(&count, &last, &err));
    assert_message(err, "elements, got more");
    assert_int_equal(UNTOUCHED, count);
}

static void a_count_that_overflows_is_over_the_limit(void **state)
{
    nsa_shape fits = {2, {(size_t)1 << 32, ((size_t)1 << 32) - 1}};
    nsa_shape wraps = {2, {(size_t)1 << 32, (size_t)1 << 32}};
    nsa_shape wraps_late = {3, {(size_t)1 << 33, (size_t)1 << 33, 1}};
    nsa_error err;
    size_t count;

    (void)state;
    assert_status(NSA_OK, nsa_shape_count(&count, &fits, &err));
    assert_true(count == fits.dims[0] * fits.dims[1]);
    count = UNTOUCHED;
    assert_status(NSA_ELIMIT, nsa_shape_count(&count, &wraps, &err));
    assert_message(err, "[4294967296, 4294967296]");
    assert_message(err, "18446744073709551615 elements");
    assert_status(NSA_ELIMIT, nsa_shape_count(&count, &wraps_late, &err));
    assert_int_equal(UNTOUCHED, count);
}

static void bytes_are_elements_times_their_size(void **state)
{
    nsa_shape shape = {2, {3, 5}};
    size_t bytes;

    (void)state;
    for (int i = 0; i < NSA_DTYPE_COUNT; i++) {
        assert_status(NSA_OK, nsa_shape_bytes(&bytes, &shape, (nsa_dtype)i, NULL));
        assert_int_equal(15 * nsa_dtype_size((nsa_dtype)i), bytes);
    }
}

static void bytes_that_overflow_are_over_the_limit(void **state)
{
    nsa_shape shape = {1, {SIZE_MAX / 8 + 1}};
    nsa_shape uncountable = {2, {SIZE_MAX, SIZE_MAX}};
    nsa_error err;
    size_t bytes;

    (void)state;
    assert_status(NSA_OK, nsa_shape_bytes(&bytes, &shape, NSA_F32, &err));
    bytes = UNTOUCHED;
    assert_status(NSA_ELIMIT, nsa_shape_bytes(&bytes, &shape, NSA_F64, &err));
    assert_message(err, "float64");
    assert_status(NSA_ELIMIT, nsa_shape_bytes(&bytes, &uncountable, NSA_F32, &err));
    assert_int_equal(UNTOUCHED, bytes);
}

static void shapes_are_equal_by_rank_and_dims(void **state)
{
    nsa_shape a = {2, {2, 3, 9}};
    nsa_shape same = {2, {2, 3, 8}}; /* what lies past the rank does not count */
    nsa_shape other_dim = {2, {2, 4}};
    nsa_shape other_rank = {3, {2, 3, 9}};
    nsa_shape scalar = {.rank = 0};

    (void)state;
    assert_true(nsa_shape_equal(&a, &same));
    assert_true(nsa_shape_equal(&scalar, &scalar));
    assert_false(nsa_shape_equal(&a, &other_dim));
    assert_false(nsa_shape_equal(&a, &other_rank));
    assert_false(nsa_shape_equal(&a, &scalar));
}

static void a_shape_is_written_as_a_list(void **state)
{
    nsa_shape shape = {4, {2, 8, 16, 32}};
    nsa_shape scalar = {.rank = 0};
    char text[NSA_SHAPE_TEXT_BYTES];

    (void)state;
    assert_ptr_equal(text, nsa_shape_text(text, &shape));
    assert_string_equal("[2, 8, 16, 32]", text);
    shape.rank = 1;
    assert_string_equal("[2]", nsa_shape_text(text, &shape));
    assert_string_equal("[]", nsa_shape_text(text, &scalar));
}

/* 10^(digits - 1): a dim of so many digits. */
static size_t dim_of_digits(size_t digits)
{
    size_t dim = 1;

    while (--digits > 0)
        dim *= 10;
    return dim;
}

/* Around the size at which it no longer fits, the text is whole or ends in "...". */
static void a_long_shape_is_cut_between_dims(void **state)
{
    nsa_shape shape = {.rank = 13};
    char text[NSA_SHAPE_TEXT_BYTES];

    (void)state;
    for (size_t i = 0; i < shape.rank; i++)
        shape.dims[i] = dim_of_digits(17);
    for (size_t digits = 1; digits <= 20; digits++) {
        size_t whole = strlen("[") + 12 * (17 + strlen(", ")) + digits + strlen("]");

        shape.dims[12] = dim_of_digits(digits);
        memset(text, 'x', sizeof text);
        nsa_shape_text(text, &shape);
        assert_true(strlen(text) < sizeof text);
        if (whole < sizeof text) {
            assert_int_equal(whole, strlen(text));
            assert_null(strstr(text, "..."));
        }
    }
    shape.rank = NSA_MAX_RANK;
    for (size_t i = 0; i < NSA_MAX_RANK; i++)
        shape.dims[i] = SIZE_MAX;
    nsa_shape_text(text, &shape);
    assert_string_equal("18446744073709551615, ...]", text + strlen(text) - 26);
    assert_true(strlen(text) < sizeof text);
}

static void every_length_of_text_stays_within_its_buffer(void **state)
{
    (void)state;
    for (size_t rank = 1; rank <= NSA_MAX_RANK; rank++) {
        for (size_t digits = 1; digits <= 20; digits++) {
            nsa_shape shape = {.rank = rank};
            char text[NSA_SHAPE_TEXT_BYTES + 1];
            size_t whole = 2 + rank * digits + (rank - 1) * 2;
            size_t length;

            for (size_t i = 0; i < rank; i++)
                shape.dims[i] = dim_of_digits(digits);
            memset(text, '!', sizeof text);
            length = strlen(nsa_shape_text(text, &shape));
            assert_int_equal('!', text[NSA_SHAPE_TEXT_BYTES]);
            assert_int_equal(']', text[length - 1]);
            if (whole < NSA_SHAPE_TEXT_BYTES)
                assert_int_equal(whole, length);
            else
                assert_memory_equal("0, ...]", text + length - 7, digits > 1 ? 7 : 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scalar_has_one_element),
        cmocka_unit_test(the_count_is_the_product_of_the_dims),
        cmocka_unit_test(a_dim_of_zero_leaves_no_elements),
        cmocka_unit_test(rows_without_elements_are_as_many_as_fit),
        cmocka_unit_test(empty_rows_that_overflow_are_over_the_limit),
        cmocka_unit_test(a_count_that_overflows_is_over_the_limit),
        cmocka_unit_test(bytes_are_elements_times_their_size),
        cmocka_unit_test(bytes_that_overflow_are_over_the_limit),
        cmocka_unit_test(shapes_are_equal_by_rank_and_dims),
        cmocka_unit_test(a_shape_is_written_as_a_list),
        cmocka_unit_test(a_long_shape_is_cut_between_dims),
        cmocka_unit_test(every_length_of_text_stays_within_its_buffer),
    };

    return cmocka_run_group_tests_name("tensor", tests, NULL, NULL);
}
