/* Arrays of numbers: tensor memory to text, and back. */
#include "server/json_number.h"
#include "server/json_scan.h"
#include "tests/unit/support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Random arrays that are written, read and compared. */
#define RANDOM_ARRAYS 300

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
    double doubles[] = {0.1, 1e300, -0.0, 0x1.999999999999ap-4 * 3, NAN, -INFINITY};
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
    expect_written(&(nsa_tensor){doubles, NSA_F64, {2, {2, 3}}}, false, false,
                   "[[0.1,1e300,-0.0],[0.30000000000000004,NaN,-Infinity]]");
    expect_written(&(nsa_tensor){doubles, NSA_F64, {1, {6}}}, true, true,
                   "[0.1,1e300,-0.0,0.30000000000000004,null,null]");
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
        span = (json_span){b.data, b.data + b.size - 1, count - 1};
        assert_int_equal(
            count, json_scan(back, NSA_F32, count, &shape, &span, "x", NULL) == NSA_OK ? count : 0);
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

typedef struct write_case {
    nsa_dtype dtype;
    size_t max_bytes;
} write_case;

static nsa_status write_once(void *context)
{
    const write_case *c = context;
    double values[2000] = {0}; /* zeros in any dtype */
    nsa_tensor t = {values, c->dtype, {2, {2, 1000}}};
    buffer b = {.max_bytes = c->max_bytes};
    nsa_status status;

    json_write_array(&b, &t, false, false);
    status = b.status;
    buffer_free(&b);
    return status;
}

static void test_write_failures(void **state)
{
    static const struct {
        nsa_dtype dtype;
        size_t text_bytes;
    } rows[] = {{NSA_F32, 8005}, {NSA_F64, 8005}, {NSA_I64, 4005}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_case c = {rows[i].dtype, (size_t)1 << 20};

        check_every_allocation(write_once, &c);
        c.max_bytes = rows[i].text_bytes; /* the text has room, the slack is what is missing */
        assert_status(NSA_ELIMIT, write_once(&c));
        c.max_bytes += JSON_WRITE_SLACK;
        assert_status(NSA_OK, write_once(&c));
    }
}

/* Numbers of the greatest length fill the room that is made for them, and no more. */
static void test_longest(void **state)
{
    enum { COUNT = 2000, TEXT_BYTES = COUNT * (JSON_F64_BYTES + 1) + 1 };
    double values[COUNT];
    buffer b = {.max_bytes = TEXT_BYTES};

    (void)state;
    for (size_t i = 0; i < COUNT; i++)
        values[i] = -DBL_MIN;
    json_write_array(&b, &(nsa_tensor){values, NSA_F64, {1, {COUNT}}}, false, false);
    assert_status(NSA_OK, b.status);
    assert_int_equal(TEXT_BYTES, b.size);
    assert_memory_equal(",-2.2250738585072014e-308]", b.data + b.size - 26, 26);
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_write_failures),
        cmocka_unit_test(test_longest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
