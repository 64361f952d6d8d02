/* Arrays of numbers: text to tensor memory and back. */
#include "server/json_scan.h"

#include "server/json_number.h"
#include "tests/unit/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Random arrays that are written, read and compared. */
#define RANDOM_ARRAYS 300

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
        float floats[16];
        int64_t integers[16];
        nsa_shape shape;
        nsa_error err;

        if (span.end[-1] == ' ')
            span.end--;
        assert_status(NSA_OK, json_scan_f32(floats, span.commas + 1, &shape, &span, "x", &err));
        expect_shape(&shape, rows[i].shape);
        assert_status(NSA_OK, json_scan_i64(integers, rows[i].count + 1, &shape, &span, "x", &err));
        expect_shape(&shape, rows[i].shape);
        for (size_t n = 0; n < rows[i].count; n++) {
            assert_true(floats[n] == (float)(n + 1));
            assert_true(integers[n] == (int64_t)(n + 1));
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
    assert_status(NSA_OK, json_scan_f32(got, 8, &shape, &span, "x", NULL));
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
    {"[[1,1e999]]", NSA_EINVAL, "input[0][1]: 1e999 does not fit float32"},
    {"[-3.5e38]", NSA_EINVAL, "input[0]: -3.5e38 does not fit float32"},
    {"[[NaN],NaN]", NSA_EINVAL, "input[1]: expected an array of 1, got a number"},
    {"[NaNs]", NSA_EFORMAT, "input[0]: expected ',' or ']' after it, got 's'"},
    {"[-NaN]", NSA_EFORMAT, "input[0]: malformed number '-NaN'"},
    {"[100000000000000000000000000000000000000000]", NSA_EINVAL,
     "input[0]: 100000000000000000000000... does not fit float32"},
};

static const error_row integer_errors[] = {
    {"[1,3.0]", NSA_EINVAL, "input[1]: expected an integer, got 3.0"},
    {"[1e2]", NSA_EINVAL, "input[0]: expected an integer, got 1e2"},
    {"[NaN]", NSA_EINVAL, "input[0]: expected an integer, got NaN"},
    {"[9223372036854775808]", NSA_EINVAL, "input[0]: 9223372036854775808 does not fit int64"},
};

static void check_errors(const error_row *rows, size_t count, bool integers)
{
    for (size_t i = 0; i < count; i++) {
        json_span span = span_of(rows[i].text);
        char expected[NSA_ERROR_MESSAGE_BYTES];
        union {
            float floats[100];
            int64_t integers[100];
        } dst;
        nsa_shape shape = {.rank = 77};
        nsa_error err = {""};
        nsa_status status;
        char *article;

        snprintf(expected, sizeof expected, "%s", rows[i].message);
        article = strstr(expected, "a number, got ");
        if (integers && article) { /* the same sentence with another noun */
            char tail[NSA_ERROR_MESSAGE_BYTES];

            snprintf(tail, sizeof tail, "%s", article + strlen("a number"));
            snprintf(article, sizeof expected - (size_t)(article - expected), "an integer%s", tail);
        }
        if (integers)
            status = json_scan_i64(dst.integers, 100, &shape, &span, "input", &err);
        else
            status = json_scan_f32(dst.floats, 100, &shape, &span, "input", &err);
        if (status != rows[i].status || strcmp(expected, err.message) != 0)
            fail_msg("%s: expected %d '%s', got %d '%s'", rows[i].text, (int)rows[i].status,
                     expected, (int)status, err.message);
        assert_int_equal(77, shape.rank);
    }
}

static void test_errors(void **state)
{
    (void)state;
    check_errors(common_errors, sizeof common_errors / sizeof *common_errors, false);
    check_errors(common_errors, sizeof common_errors / sizeof *common_errors, true);
    check_errors(float_errors, sizeof float_errors / sizeof *float_errors, false);
    check_errors(integer_errors, sizeof integer_errors / sizeof *integer_errors, true);
}

/* --- writing ------------------------------------------------------------------------------- */

static void expect_written(const nsa_tensor *t, bool flat, bool nonfinite_null, const char *text)
{
    buffer b = {.max_bytes = (size_t)1 << 20};

    buffer_append_text(&b, "<");
    json_write_array(&b, t, flat, nonfinite_null);
    buffer_append(&b, ">", 2);
    assert_status(NSA_OK, b.status);
    assert_int_equal('<', b.data[0]);
    assert_int_equal('>', b.data[b.size - 2]);
    b.data[b.size - 2] = '\0';
    assert_string_equal(text, b.data + 1);
    buffer_free(&b);
}

static void test_written(void **state)
{
    float floats[] = {0, -0.0F, 1, -1.5F, 1e20F, 0.1F};
    float special[] = {NAN, INFINITY, -INFINITY, 1};
    uint16_t halves[] = {0x3C00, 0xC000, 0x7C00, 0x0001};
    uint16_t brains[] = {0x3F80, 0x4049};
    double doubles[] = {0.1, 1e300};
    int64_t integers[] = {0, -1, INT64_MAX, INT64_MIN, 5, 6};

    (void)state;
    expect_written(&(nsa_tensor){floats, NSA_F32, {2, {2, 3}}}, false, false,
                   "[[0.0,-0.0,1],[-1.5,1e20,0.1]]");
    expect_written(&(nsa_tensor){floats, NSA_F32, {2, {2, 3}}}, true, false,
                   "[0.0,-0.0,1,-1.5,1e20,0.1]");
    expect_written(&(nsa_tensor){floats, NSA_F32, {3, {3, 2, 1}}}, false, true,
                   "[[[0.0],[-0.0]],[[1],[-1.5]],[[1e20],[0.1]]]");
    expect_written(&(nsa_tensor){floats + 3, NSA_F32, {0}}, false, false, "-1.5");
    expect_written(&(nsa_tensor){floats + 3, NSA_F32, {0}}, true, false, "[-1.5]");
    expect_written(&(nsa_tensor){NULL, NSA_F32, {1, {0}}}, false, false, "[]");
    expect_written(&(nsa_tensor){NULL, NSA_F32, {2, {2, 0}}}, false, false, "[[],[]]");
    expect_written(&(nsa_tensor){NULL, NSA_F32, {3, {2, 0, 3}}}, false, false, "[[],[]]");
    expect_written(&(nsa_tensor){NULL, NSA_I64, {2, {0, 3}}}, false, false, "[]");
    expect_written(&(nsa_tensor){NULL, NSA_F32, {2, {2, 0}}}, true, false, "[]");
    expect_written(&(nsa_tensor){special, NSA_F32, {1, {4}}}, false, false,
                   "[NaN,Infinity,-Infinity,1]");
    expect_written(&(nsa_tensor){special, NSA_F32, {1, {4}}}, false, true, "[null,null,null,1]");
    expect_written(&(nsa_tensor){halves, NSA_F16, {1, {4}}}, false, false,
                   "[1,-2,Infinity,5.9604645e-8]");
    expect_written(&(nsa_tensor){brains, NSA_BF16, {1, {2}}}, false, false, "[1,3.140625]");
    expect_written(&(nsa_tensor){doubles, NSA_F64, {1, {2}}}, false, false, "[0.1,Infinity]");
    expect_written(&(nsa_tensor){integers, NSA_I64, {2, {3, 2}}}, false, true,
                   "[[0,-1],[9223372036854775807,-9223372036854775808],[5,6]]");
    expect_written(&(nsa_tensor){integers, NSA_I64, {2, {3, 2}}}, true, false,
                   "[0,-1,9223372036854775807,-9223372036854775808,5,6]");
}

/* Any shape, across the steps in which memory is reserved, comes back bit for bit. */
static void test_round_trip(void **state)
{
    uint64_t random = 5;

    (void)state;
    for (int i = 0; i < RANDOM_ARRAYS; i++) {
        nsa_tensor t = {.dtype = NSA_F32, .shape = {.rank = 1 + random_below(&random, 4)}};
        bool flat = i % 5 == 0;
        buffer b = {.max_bytes = (size_t)1 << 24};
        nsa_shape shape;
        json_span span;
        size_t count = 1;
        uint32_t *bits;
        float *back;

        for (size_t d = 0; d < t.shape.rank; d++) {
            t.shape.dims[d] = 1 + random_below(&random, t.shape.rank == 1 ? 2100 : 12);
            count *= t.shape.dims[d];
        }
        bits = malloc(count * sizeof *bits);
        back = malloc(count * sizeof *back);
        assert_non_null(bits);
        assert_non_null(back);
        for (size_t n = 0; n < count; n++) {
            bits[n] = (uint32_t)random_u64(&random);
            if ((bits[n] & 0x7FFFFFFF) > 0x7F800000)
                bits[n] = 0x7FC00000; /* the one NaN that there is a token for */
        }
        t.data = bits;
        json_write_array(&b, &t, flat, false);
        assert_status(NSA_OK, b.status);
        buffer_append(&b, "", 1);
        span = span_of(b.data);
        assert_int_equal(
            count, json_scan_f32(back, count, &shape, &span, "x", NULL) == NSA_OK ? count : 0);
        if (flat)
            assert_true(shape.rank == 1 && shape.dims[0] == count);
        else
            assert_true(nsa_shape_equal(&shape, &t.shape));
        assert_memory_equal(bits, back, count * sizeof *bits);
        free(bits);
        free(back);
        buffer_free(&b);
    }
}

static nsa_status write_once(void *context)
{
    float values[2000] = {0};
    nsa_tensor t = {values, NSA_F32, {2, {2, 1000}}};
    buffer b = {.max_bytes = *(size_t *)context};
    nsa_status status;

    json_write_array(&b, &t, false, false);
    status = b.status;
    buffer_free(&b);
    return status;
}

static void test_write_failures(void **state)
{
    size_t limit = (size_t)1 << 20;

    (void)state;
    check_every_allocation(write_once, &limit);
    limit = 8005; /* one byte more than the text: the slack is what is missing */
    assert_status(NSA_ELIMIT, write_once(&limit));
    limit += JSON_WRITE_SLACK;
    assert_status(NSA_OK, write_once(&limit));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),     cmocka_unit_test(test_values),
        cmocka_unit_test(test_errors),     cmocka_unit_test(test_written),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_write_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
