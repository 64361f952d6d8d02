/* Arrays of the 16-bit floats: every value written and read back, every midpoint rounded. */
#include "server/json_scan.h"

#include "tests/unit/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SIGN 0x8000

#define VALUE_COUNT 65536

typedef struct type_row {
    nsa_dtype dtype;
    uint16_t infinity;
    uint16_t nan;    /* what the token is read as */
    double overflow; /* what would be next to the greatest, if exponents went on */
} type_row;

static const type_row types[] = {
    {NSA_F16, 0x7C00, 0x7E00, 0x1p16},
    {NSA_BF16, 0x7F80, 0x7FC0, 0x1p128},
};

static void check_round_trip(const type_row *type)
{
    static uint16_t values[VALUE_COUNT];
    static uint16_t back[VALUE_COUNT];
    buffer b = {.max_bytes = (size_t)1 << 24};
    nsa_shape shape;
    json_span span;
    nsa_error err;

    for (size_t i = 0; i < VALUE_COUNT; i++)
        values[i] = (uint16_t)i;
    json_write_array(&b, &(nsa_tensor){values, type->dtype, {2, {256, 256}}}, false, false);
    assert_status(NSA_OK, b.status);
    buffer_append(&b, "", 1);
    span = (json_span){b.data, b.data + b.size - 1, VALUE_COUNT - 1};
    assert_status(NSA_OK, json_scan(back, type->dtype, VALUE_COUNT, &shape, &span, "x", &err));
    for (size_t i = 0; i < VALUE_COUNT; i++) {
        bool nan = (values[i] & ~SIGN) > type->infinity;

        assert_int_equal(nan ? type->nan : values[i], back[i]);
    }
    buffer_free(&b);
}

static void test_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        check_round_trip(&types[i]);
}

/* `bits` of an infinity: does not fit. */
static void expect_read(const type_row *type, const char *number, uint16_t bits)
{
    char text[100];
    int size = snprintf(text, sizeof text, "[%s]", number);
    json_span span = {text, text + size, 0};
    nsa_shape shape;
    uint16_t got = 0x5555;
    nsa_status status = json_scan(&got, type->dtype, 1, &shape, &span, "x", NULL);
    bool fits = (bits & ~SIGN) != type->infinity;

    if (status != (fits ? NSA_OK : NSA_EINVAL) || got != (fits ? bits : 0x5555))
        fail_msg("%s as %s: expected %04x, got %04x, status %d", number,
                 nsa_dtype_name(type->dtype), bits, got, (int)status);
}

static void expect_double(const type_row *type, double value, uint16_t bits)
{
    char number[40];

    snprintf(number, sizeof number, "%.17g", value);
    expect_read(type, number, bits);
}

static double widen(const type_row *type, uint16_t bits)
{
    float value;

    nsa_to_f32(&value, &bits, type->dtype, 1);
    return bits == type->infinity ? type->overflow : (double)value;
}

/*
 * The midpoint of each value and the next goes to the even one, and the doubles beside it to the
 * nearer one: seen through float32, most of those lie on the midpoint.
 */
static void check_midpoints(const type_row *type)
{
    for (uint16_t low = 0; low < type->infinity; low++) {
        uint16_t high = (uint16_t)(low + 1);
        double middle = (widen(type, low) + widen(type, high)) / 2;

        expect_double(type, middle, low % 2 ? high : low);
        expect_double(type, nextafter(middle, INFINITY), high);
        expect_double(type, nextafter(middle, 0), low);
        expect_double(type, -nextafter(middle, INFINITY), high | SIGN);
        expect_double(type, -nextafter(middle, 0), low | SIGN);
    }
}

static void test_midpoints(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        check_midpoints(&types[i]);
}

/* Decimals that float32 takes onto a midpoint, from above and below, and what lies outside it. */
static void test_decimals(void **state)
{
    static const struct {
        const char *number;
        uint16_t f16;
        uint16_t bf16;
    } rows[] = {
        {"1.00048828125", 0x3C00, 0x3F80},
        {"1.000488281250001", 0x3C01, 0x3F80},
        {"-1.000488281250001", 0xBC01, 0xBF80},
        {"1.00048828125000000000001", 0x3C00, 0x3F80}, /* as float64: the midpoint */
        {"1.001464843749999", 0x3C01, 0x3F80},
        {"1.00390625", 0x3C04, 0x3F80},
        {"1.003906250000001", 0x3C04, 0x3F81},
        {"1.011718749999999", 0x3C0C, 0x3F81},
        {"2.98023223876953125e-8", 0x0000, 0x3300},
        {"2.980232238769532e-8", 0x0001, 0x3300},
        {"65519.999999999", 0x7BFF, 0x4780},
        {"65520", 0x7C00, 0x4780},
        {"3.3961775292304602e38", 0x7C00, 0x7F80},
        {"3.39617752923045e38", 0x7C00, 0x7F7F},
        {"-3.4028235e38", 0xFC00, 0xFF80},
        {"1e39", 0x7C00, 0x7F80},
        {"1e-50", 0x0000, 0x0000},
        {"-1e-50", 0x8000, 0x8000},
        {"-1e-400", 0x8000, 0x8000},
        {"1e400", 0x7C00, 0x7F80},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        expect_read(&types[0], rows[i].number, rows[i].f16);
        expect_read(&types[1], rows[i].number, rows[i].bf16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_midpoints),
        cmocka_unit_test(test_decimals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
