/* Arrays of numbers: text to tensor memory. */
#include "server/json_scan.h"

#include "tests/unit/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static json_span span_of(const char *text)
{
    json_span span = {.begin = text, .end = text + strlen(text)};

    for (const char *p = text; *p; p++)
        span.commas += *p == ',';
    return span;
}

static void expect_shape(const nsa_shape *got, const char *expected)
{
    char text[NSA_SHAPE_TEXT_BYTES];

    assert_string_equal(expected, nsa_shape_text(text, got));
}

/* Where numbers of any dtype are put. */
typedef union dst_room {
    uint16_t halves[100];
    float floats[100];
    double doubles[100];
    int64_t integers[100];
} dst_room;

static double element(const dst_room *dst, nsa_dtype dtype, size_t index)
{
    float value;

    if (dtype == NSA_I64)
        return (double)dst->integers[index];
    nsa_to_f32(&value, (const char *)dst + index * nsa_dtype_size(dtype), dtype, 1);
    return (double)value;
}

static void test_shapes(void **state)
{
    static const struct {
        const char *text;
        const char *shape;
        size_t count;
    } rows[] = {
        {"[]", "[0]", 0},
        {"[ ]", "[0]", 0},
        {"[1]", "[1]", 1},
        {"[1,2,3]", "[3]", 3},
        {"[ 1 ,\t2\r\n, 3 ] ", "[3]", 3},
        {"[[]]", "[1, 0]", 0},
        {"[[],[]]", "[2, 0]", 0},
        {"[[[]],[[]]]", "[2, 1, 0]", 0},
        {"[[1,2],[3,4],[5,6]]", "[3, 2]", 6},
        {"[[[1],[2]],[[3],[4]],[[5],[6]]]", "[3, 2, 1]", 6},
        {"[ [ [ 1 , 2 ] , [ 3 , 4 ] ] ]", "[1, 2, 2]", 4},
        {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1,2]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
         "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, "
         "1, 1, 2]",
         2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_span span = span_of(rows[i].text);

        if (span.end[-1] == ' ')
            span.end--;
        for (int dtype = 0; dtype < NSA_DTYPE_COUNT; dtype++) {
            dst_room dst;
            nsa_shape shape;
            nsa_error err;

            assert_status(NSA_OK, json_scan(&dst, (nsa_dtype)dtype, span.commas + 1, &shape, &span,
                                            "x", &err));
            expect_shape(&shape, rows[i].shape);
            for (size_t n = 0; n < rows[i].count; n++)
                assert_true(element(&dst, (nsa_dtype)dtype, n) == (double)(n + 1));
        }
    }
}

static void test_values(void **state)
{
    static const char text[] = "[-0,NaN,Infinity,-Infinity,0.1,1e-50,3.4028235e38,16777217]";
    json_span span = span_of(text);
    float got[8];
    nsa_shape shape;

    (void)state;
    assert_int_equal(7, span.commas);
    assert_status(NSA_OK, json_scan(got, NSA_F32, 8, &shape, &span, "x", NULL));
    expect_shape(&shape, "[8]");
    assert_true(got[0] == 0 && signbit(got[0]));
    assert_true(isnan(got[1]));
    assert_true(got[2] == INFINITY && got[3] == -INFINITY);
    assert_true(got[4] == 0.1F && got[5] == 0 && got[7] == 16777216);
}

typedef struct error_row {
    const char *text;
    nsa_status status;
    const char *message;
} error_row;

#define ROW31 "1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1"

static const error_row common_errors[] = {
    /* ragged */
    {"[[[1,2],[3,4]],[[5,6],[7]]]", NSA_EINVAL, "input[1][1]: expected 2 numbers, got 1"},
    {"[[1],[2,3,4]]", NSA_EINVAL, "input[1]: expected 1 number, got 3"},
    {"[[" ROW31 ",2],[" ROW31 "]]", NSA_EINVAL, "input[1]: expected 32 numbers, got 31"},
    {"[[[1],[2]],[[3]]]", NSA_EINVAL, "input[1]: expected 2 arrays, got 1"},
    {"[[[1]],[[2],[3]]]", NSA_EINVAL, "input[1]: expected 1 array, got 2"},
    {"[[],[1]]", NSA_EINVAL, "input[1]: expected 0 numbers, got 1"},
    {"[[1],[]]", NSA_EINVAL, "input[1]: expected 1 number, got 0"},
    {"[[[]],[]]", NSA_EINVAL, "input[1]: expected 1 array, got 0"},
    /* types */
    {"[[1,2],3]", NSA_EINVAL, "input[1]: expected an array of 2, got a number"},
    {"[[[1,2],[3,4]],[5]]", NSA_EINVAL, "input[1][0]: expected an array of 2, got a number"},
    {"[[1,2],-3]", NSA_EINVAL, "input[1]: expected an array of 2, got a number"},
    {"[[1,2],\"a\"]", NSA_EINVAL, "input[1]: expected an array of 2, got a string"},
    {"[[1,2],null]", NSA_EINVAL, "input[1]: expected an array of 2, got null"},
    {"[[],[[1]]]", NSA_EINVAL, "input[1][0]: expected a number, got an array"},
    {"[1,[2]]", NSA_EINVAL, "input[1]: expected a number, got an array"},
    {"[\"1\"]", NSA_EINVAL, "input[0]: expected a number, got a string"},
    {"[[[1,\"]\"]]]", NSA_EINVAL, "input[0][0][1]: expected a number, got a string"},
    {"[1,{\"a\":1}]", NSA_EINVAL, "input[1]: expected a number, got an object"},
    {"[1,2,null]", NSA_EINVAL, "input[2]: expected a number, got null"},
    {"[true]", NSA_EINVAL, "input[0]: expected a number, got true"},
    {"[1, false ]", NSA_EINVAL, "input[1]: expected a number, got false"},
    /* syntax */
    {"[1,]", NSA_EFORMAT, "input[1]: expected a number, got ']'"},
    {"[,1]", NSA_EFORMAT, "input[0]: expected a number, got ','"},
    {"[1,,2]", NSA_EFORMAT, "input[1]: expected a number, got ','"},
    {"[[1],]", NSA_EFORMAT, "input[1]: expected an array of 1, got ']'"},
    {"[1 2]", NSA_EFORMAT, "input[0]: expected ',' or ']' after it, got '2'"},
    {"[[1][2]]", NSA_EFORMAT, "input[0]: expected ',' or ']' after it, got '['"},
    {"[[1]2]", NSA_EFORMAT, "input[0]: expected ',' or ']' after it, got '2'"},
    {"[1:2]", NSA_EFORMAT, "input[0]: expected ',' or ']' after it, got ':'"},
    {"[1}]", NSA_EFORMAT, "input[0]: expected ',' or ']' after it, got '}'"},
    {"[1,2 x]", NSA_EFORMAT, "input[1]: expected ',' or ']' after it, got 'x'"},
    {"[01]", NSA_EFORMAT, "input[0]: malformed number '01'"},
    {"[1,-]", NSA_EFORMAT, "input[1]: malformed number '-'"},
    {"[5.]", NSA_EFORMAT, "input[0]: malformed number '5.'"},
    {"[1e]", NSA_EFORMAT, "input[0]: malformed number '1e'"},
    {"[.5]", NSA_EFORMAT, "input[0]: expected a number, got '.5'"},
    {"[+1]", NSA_EFORMAT, "input[0]: expected a number, got '+1'"},
    {"[nul]", NSA_EFORMAT, "input[0]: expected a number, got 'nul'"},
    {"[nulls]", NSA_EFORMAT, "input[0]: expected a number, got 'nulls'"},
    {"[nan]", NSA_EFORMAT, "input[0]: expected a number, got 'nan'"},
    {"[Inf]", NSA_EFORMAT, "input[0]: malformed number 'Inf'"},
    {"[}]", NSA_EFORMAT, "input[0]: expected a number, got '}'"},
    {"[\x01]", NSA_EFORMAT, "input[0]: expected a number, got '?'"},
    {"[\xC3\xA9]", NSA_EFORMAT, "input[0]: expected a number, got '?\?'"},
    {"[0123456789012345678901234567890]", NSA_EFORMAT,
     "input[0]: malformed number '012345678901234567890123...'"},
    /* limits */
    {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", NSA_ELIMIT,
     "input: nested deeper than 32 arrays"},
    {"[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,"
     "34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,60,61,62,63,"
     "64,65,66,67,68,69,70,71,72,73,74,75,76,77,78,79,80,81,82,83,84,85,86,87,88,89,90,91,92,93,"
     "94,95,96,97,98,99,100,101]",
     NSA_ELIMIT, "input: more than 100 numbers"},
};

static const error_row float_errors[] = {
    {"[[NaN],NaN]", NSA_EINVAL, "input[1]: expected an array of 1, got a number"},
    {"[NaNs]", NSA_EFORMAT, "input[0]: expected ',' or ']' after it, got 's'"},
    {"[-NaN]", NSA_EFORMAT, "input[0]: malformed number '-NaN'"},
    {"[0x10]", NSA_EFORMAT, "input[0]: expected ',' or ']' after it, got 'x10'"},
};

static const error_row f32_errors[] = {
    {"[[1,1e999]]", NSA_EINVAL, "input[0][1]: 1e999 does not fit float32"},
    {"[-3.5e38]", NSA_EINVAL, "input[0]: -3.5e38 does not fit float32"},
    {"[100000000000000000000000000000000000000000]", NSA_EINVAL,
     "input[0]: 100000000000000000000000... does not fit float32"},
};

static const error_row f16_errors[] = {
    {"[0,1,2,70000]", NSA_EINVAL, "input[3]: 70000 does not fit float16"},
    {"[65519.99,-65520]", NSA_EINVAL, "input[1]: -65520 does not fit float16"},
    {"[1e40]", NSA_EINVAL, "input[0]: 1e40 does not fit float16"},
    {"[1e400]", NSA_EINVAL, "input[0]: 1e400 does not fit float16"},
};

static const error_row bf16_errors[] = {
    {"[[3.39e38],[3.4e38]]", NSA_EINVAL, "input[1][0]: 3.4e38 does not fit bfloat16"},
    {"[-1e40]", NSA_EINVAL, "input[0]: -1e40 does not fit bfloat16"},
    {"[1e400]", NSA_EINVAL, "input[0]: 1e400 does not fit bfloat16"},
};

static const error_row f64_errors[] = {
    {"[1e308,2e308]", NSA_EINVAL, "input[1]: 2e308 does not fit float64"},
    {"[-1e99999999999999999999]", NSA_EINVAL,
     "input[0]: -1e99999999999999999999 does not fit float64"},
};

static const error_row integer_errors[] = {
    {"[1,3.0]", NSA_EINVAL, "input[1]: expected an integer, got 3.0"},
    {"[1e2]", NSA_EINVAL, "input[0]: expected an integer, got 1e2"},
    {"[NaN]", NSA_EINVAL, "input[0]: expected an integer, got NaN"},
    {"[9223372036854775808]", NSA_EINVAL, "input[0]: 9223372036854775808 does not fit int64"},
};

static void check_errors(const error_row *rows, size_t count, nsa_dtype dtype)
{
    for (size_t i = 0; i < count; i++) {
        json_span span = span_of(rows[i].text);
        char expected[NSA_ERROR_MESSAGE_BYTES];
        dst_room dst;
        nsa_shape shape = {.rank = 77};
        nsa_error err = {""};
        nsa_status status;
        char *article;

        snprintf(expected, sizeof expected, "%s", rows[i].message);
        article = strstr(expected, "a number, got ");
        if (dtype == NSA_I64 && article) { /* the same sentence with another noun */
            char tail[NSA_ERROR_MESSAGE_BYTES];

            snprintf(tail, sizeof tail, "%s", article + strlen("a number"));
            snprintf(article, sizeof expected - (size_t)(article - expected), "an integer%s", tail);
        }
        status = json_scan(&dst, dtype, 100, &shape, &span, "input", &err);
        if (status != rows[i].status || strcmp(expected, err.message) != 0)
            fail_msg("%s: expected %d '%s', got %d '%s'", rows[i].text, (int)rows[i].status,
                     expected, (int)status, err.message);
        assert_int_equal(77, shape.rank);
    }
}

#define ROWS(table) table, sizeof table / sizeof *(table)

static void test_errors(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < NSA_DTYPE_COUNT; dtype++) {
        check_errors(ROWS(common_errors), (nsa_dtype)dtype);
        if (dtype != NSA_I64)
            check_errors(ROWS(float_errors), (nsa_dtype)dtype);
    }
    check_errors(ROWS(f32_errors), NSA_F32);
    check_errors(ROWS(f16_errors), NSA_F16);
    check_errors(ROWS(bf16_errors), NSA_BF16);
    check_errors(ROWS(f64_errors), NSA_F64);
    check_errors(ROWS(integer_errors), NSA_I64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
