/* Compressed bodies: there and back, cut, damaged, limited. */
#include "tests/unit/support.h"

#include "server/compression.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define LARGE ((size_t)3 * 1024 * 1024)

/* Half noise, half zeros; the caller frees. */
static unsigned char *mixed_bytes(size_t size)
{
    unsigned char *bytes = malloc(size + 1);
    uint64_t seed = 7;

    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = i / 4096 % 2 ? 0 : (unsigned char)random_u64(&seed);
    return bytes;
}

/* `bytes` as a gzip member or a zlib stream, in a buffer that the caller frees. */
static buffer compressed(const void *bytes, size_t size, enum content_encoding encoding)
{
    buffer out = {.max_bytes = SIZE_MAX};

    assert_status(NSA_OK, deflate_body(&out, bytes, size, encoding));
    return out;
}

static const enum content_encoding both[] = {ENCODING_GZIP, ENCODING_DEFLATE};

static void bodies_survive_the_round_trip(void **state)
{
    static const size_t sizes[] = {0, 1, 2, 255, 256, 65535, 65536, 65537, 200001, LARGE};
    unsigned char *bytes = mixed_bytes(LARGE);

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t e = 0; e < 2; e++) {
            buffer packed = compressed(bytes, sizes[i], both[e]);
            buffer out = {.max_bytes = sizes[i] + 3}; /* three bytes are in it already */

            buffer_append_text(&out, "abc");
            assert_status(NSA_OK, inflate_body(&out, packed.data, packed.size, both[e], NULL));
            assert_int_equal(sizes[i] + 3, out.size);
            assert_memory_equal("abc", out.data, 3);
            assert_memory_equal(bytes, out.data + 3, sizes[i]);
            buffer_free(&out);
            out.max_bytes = sizes[i] - 1; /* for 0: no limit */
            assert_status(sizes[i] ? NSA_ELIMIT : NSA_OK,
                          inflate_body(&out, packed.data, packed.size, both[e], NULL));
            buffer_free(&out);
            buffer_free(&packed);
        }
    }
    free(bytes);
}

/* What comes out is what the encoding's name promises: zlib itself takes the zlib format only. */
static void streams_are_in_their_formats(void **state)
{
    unsigned char *bytes = mixed_bytes(LARGE);
    unsigned char *got = malloc(LARGE);
    buffer zlib = compressed(bytes, LARGE, ENCODING_DEFLATE);
    buffer gzip = compressed(bytes, LARGE, ENCODING_GZIP);
    uLongf length = LARGE;

    (void)state;
    assert_non_null(got);
    assert_int_equal(Z_OK, uncompress(got, &length, (Bytef *)zlib.data, zlib.size));
    assert_int_equal(LARGE, length);
    assert_memory_equal(bytes, got, LARGE);
    assert_memory_equal("\x1F\x8B\x08", gzip.data, 3);
    assert_true(zlib.size < LARGE * 6 / 10);
    assert_true(gzip.size < LARGE * 6 / 10);
    buffer_free(&zlib);
    buffer_free(&gzip);
    free(got);
    free(bytes);
}

static void identity_copies_up_to_the_limit(void **state)
{
    buffer out = {.max_bytes = 3};
    nsa_error err;

    (void)state;
    assert_status(NSA_OK, inflate_body(&out, "abc", 3, ENCODING_IDENTITY, &err));
    assert_memory_equal("abc", out.data, 3);
    assert_status(NSA_ELIMIT, inflate_body(&out, "d", 1, ENCODING_IDENTITY, &err));
    assert_message(err, "at most 3 bytes");
    assert_int_equal(3, out.size);
    buffer_free(&out);
}

/* A few kilobytes that want to become 64 MiB: refused without taking the memory. */
static void a_bomb_is_cut_at_the_limit(void **state)
{
    static const size_t limits[] = {0, 1, 1000, 65536, 100000};
    unsigned char *zeros = calloc(1, (size_t)64 << 20);

    (void)state;
    assert_non_null(zeros);
    for (size_t e = 0; e < 2; e++) {
        buffer packed = compressed(zeros, (size_t)64 << 20, both[e]);

        for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
            buffer out = {.max_bytes = limits[i]};
            nsa_error err;

            assert_status(NSA_ELIMIT, inflate_body(&out, packed.data, packed.size, both[e], &err));
            assert_message(err, "got more");
            assert_int_equal(0, out.size);
            assert_int_equal(NSA_ELIMIT, out.status);
            assert_in_range(out.capacity, 0, limits[i] < 256 ? 256 : limits[i]);
            buffer_free(&out);
        }
        buffer_free(&packed);
    }
    free(zeros);
}

static void streams_cut_anywhere_are_refused(void **state)
{
    unsigned char *bytes = mixed_bytes(700);

    (void)state;
    for (size_t e = 0; e < 2; e++) {
        buffer packed = compressed(bytes, 700, both[e]);

        for (size_t size = 0; size < packed.size; size++) {
            /* A copy of that very size, so that a read past it is seen. */
            unsigned char *cut = malloc(size ? size : 1);
            buffer out = {.max_bytes = size % 2 ? 700 : 4096};
            nsa_error err;

            assert_non_null(cut);
            memcpy(cut, packed.data, size);
            assert_status(NSA_EFORMAT, inflate_body(&out, cut, size, both[e], &err));
            assert_message(err, "compressed body");
            assert_int_equal(0, out.size);
            free(cut);
            buffer_free(&out);
        }
        buffer_free(&packed);
    }
    free(bytes);
}

static void what_follows_the_end_is_refused(void **state)
{
    static const char *const tails[] = {"\0", "x", "\x1F", "\x1F\x8B", "\x1F\x8B\x08\0\0\0\0\0\0"};
    static const size_t tail_bytes[] = {1, 1, 1, 2, 9};

    (void)state;
    for (size_t e = 0; e < 2; e++) {
        for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
            buffer packed = compressed("hello", 5, both[e]);
            buffer out = {.max_bytes = 100};

            buffer_append(&packed, tails[i], tail_bytes[i]);
            assert_status(NSA_EFORMAT, inflate_body(&out, packed.data, packed.size, both[e], NULL));
            assert_int_equal(0, out.size);
            buffer_free(&out);
            buffer_free(&packed);
        }
    }
}

static void gzip_members_may_follow_one_another(void **state)
{
    buffer packed = {.max_bytes = SIZE_MAX};
    buffer out = {.max_bytes = 10};

    (void)state;
    assert_status(NSA_OK, deflate_body(&packed, "hello", 5, ENCODING_GZIP));
    assert_status(NSA_OK, deflate_body(&packed, "", 0, ENCODING_GZIP));
    assert_status(NSA_OK, deflate_body(&packed, "world", 5, ENCODING_GZIP));
    assert_status(NSA_OK, inflate_body(&out, packed.data, packed.size, ENCODING_GZIP, NULL));
    assert_int_equal(10, out.size);
    assert_memory_equal("helloworld", out.data, 10);
    buffer_free(&out);
    out.max_bytes = 9; /* of all members together */
    assert_status(NSA_ELIMIT, inflate_body(&out, packed.data, packed.size, ENCODING_GZIP, NULL));
    buffer_free(&out);
    buffer_free(&packed);
    /* The zlib format knows no members: a second stream is one too many. */
    for (size_t i = 0; i < 2; i++) {
        buffer stream = compressed("hello", 5, ENCODING_DEFLATE);

        buffer_append(&packed, stream.data, stream.size);
        buffer_free(&stream);
    }
    out.max_bytes = 100;
    assert_status(NSA_EFORMAT,
                  inflate_body(&out, packed.data, packed.size, ENCODING_DEFLATE, NULL));
    buffer_free(&out);
    buffer_free(&packed);
}

static void a_flipped_bit_is_no_other_body(void **state)
{
    unsigned char *bytes = mixed_bytes(300);

    (void)state;
    for (size_t e = 0; e < 2; e++) {
        buffer packed = compressed(bytes, 300, both[e]);

        for (size_t bit = 0; bit < packed.size * 8; bit++) {
            buffer out = {.max_bytes = 1000};
            nsa_status status;

            packed.data[bit / 8] ^= (char)(1 << bit % 8);
            status = inflate_body(&out, packed.data, packed.size, both[e], NULL);
            packed.data[bit / 8] ^= (char)(1 << bit % 8);
            /* Some bits of a gzip header mean nothing for the body. */
            if (status == NSA_OK) {
                assert_int_equal(300, out.size);
                assert_memory_equal(bytes, out.data, 300);
            } else {
                assert_true(status == NSA_EFORMAT || status == NSA_ELIMIT);
                assert_int_equal(0, out.size);
            }
            buffer_free(&out);
        }
        buffer_free(&packed);
    }
    free(bytes);
}

static void streams_of_other_kinds_are_refused(void **state)
{
    buffer gzip = compressed("hello", 5, ENCODING_GZIP);
    buffer zlib = compressed("hello", 5, ENCODING_DEFLATE);
    buffer out = {.max_bytes = 100};
    /* FDICT is set: the body asks for a dictionary that nobody has. */
    static const unsigned char dictionary[] = {0x78, 0xBB, 0, 0, 0, 1, 0x03, 0, 0, 0, 0, 1};

    (void)state;
    assert_status(NSA_EFORMAT, inflate_body(&out, gzip.data, gzip.size, ENCODING_DEFLATE, NULL));
    assert_status(NSA_EFORMAT, inflate_body(&out, zlib.data, zlib.size, ENCODING_GZIP, NULL));
    /* Deflate without its wrapper. */
    assert_status(NSA_EFORMAT,
                  inflate_body(&out, zlib.data + 2, zlib.size - 6, ENCODING_DEFLATE, NULL));
    assert_status(NSA_EFORMAT,
                  inflate_body(&out, dictionary, sizeof dictionary, ENCODING_DEFLATE, NULL));
    assert_status(NSA_EFORMAT, inflate_body(&out, "{\"input\":1}", 11, ENCODING_GZIP, NULL));
    assert_status(NSA_EFORMAT, inflate_body(&out, NULL, 0, ENCODING_GZIP, NULL));
    assert_int_equal(NSA_OK, out.status);
    buffer_free(&gzip);
    buffer_free(&zlib);
    buffer_free(&out);
}

static void deflating_stops_at_the_limit(void **state)
{
    unsigned char *bytes = mixed_bytes(100000);

    (void)state;
    for (size_t e = 0; e < 2; e++) {
        buffer whole = compressed(bytes, 100000, both[e]);
        buffer out = {.max_bytes = whole.size};

        assert_status(NSA_OK, deflate_body(&out, bytes, 100000, both[e]));
        assert_int_equal(whole.size, out.size);
        buffer_free(&out);
        for (size_t i = 0; i < 3; i++) {
            out.max_bytes = i == 0 ? 0 : i == 1 ? 17 : whole.size - 1;
            assert_status(NSA_ELIMIT, deflate_body(&out, bytes, 100000, both[e]));
            assert_int_equal(0, out.size);
            assert_status(NSA_ELIMIT, deflate_body(&out, "", 0, both[e]));
            buffer_free(&out);
        }
        buffer_free(&whole);
    }
    free(bytes);
}

struct round_trip {
    const void *bytes; /* 150000 */
    enum content_encoding encoding;
};

/* There and back; both streams and both outputs are allocated. */
static nsa_status pack_and_unpack(void *context)
{
    const struct round_trip *trip = context;
    buffer packed = {.max_bytes = LARGE};
    buffer out = {.max_bytes = LARGE};
    nsa_status status = deflate_body(&packed, trip->bytes, 150000, trip->encoding);

    if (status == NSA_OK)
        status = inflate_body(&out, packed.data, packed.size, trip->encoding, NULL);
    if (status == NSA_OK)
        assert_memory_equal(trip->bytes, out.data, 150000);
    else
        assert_int_equal(0, out.size);
    buffer_free(&packed);
    buffer_free(&out);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    unsigned char *bytes = mixed_bytes(150000);

    (void)state;
    for (size_t e = 0; e < 2; e++) {
        struct round_trip trip = {bytes, both[e]};

        check_every_allocation(pack_and_unpack, &trip);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_survive_the_round_trip),
        cmocka_unit_test(streams_are_in_their_formats),
        cmocka_unit_test(identity_copies_up_to_the_limit),
        cmocka_unit_test(a_bomb_is_cut_at_the_limit),
        cmocka_unit_test(streams_cut_anywhere_are_refused),
        cmocka_unit_test(what_follows_the_end_is_refused),
        cmocka_unit_test(gzip_members_may_follow_one_another),
        cmocka_unit_test(a_flipped_bit_is_no_other_body),
        cmocka_unit_test(streams_of_other_kinds_are_refused),
        cmocka_unit_test(deflating_stops_at_the_limit),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
