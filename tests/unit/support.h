/* What the unit tests share: cmocka, allocations that fail on demand, files, random numbers. */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

/* cmocka asks for these four before its own header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* then */
#include <cmocka.h>

#include "lib/ops/kernels/kernels.h"

#include <nsa/ops.h>
#include <nsa/status.h>
#include <nsa/tensor.h>
#include <stdbool.h>

/*
 * Fail the allocation after the next `succeed` ones made by code linked into this program, once.
 * A negative number lets all succeed. jansson allocates through the same functions.
 */
void fail_allocation_after(long succeed);

/* Whether the allocation chosen by fail_allocation_after() was reached, and failed. */
bool allocation_failed(void);

/* Allocations made so far by code linked into this program, by any thread. */
size_t allocation_count(void);

/*
 * Run `body` once for each allocation that it makes, failing that one: it must return NSA_ENOMEM
 * each time and NSA_OK when none fails. Leaks are the address sanitizer's to find.
 */
void check_every_allocation(nsa_status (*body)(void *context), void *context);

/* The bytes of tests/golden/<name>; caller frees. Fails the test if it can't be read. */
unsigned char *read_golden(const char *name, size_t *size);

/* The array in tests/golden/<name>; its data is owned by *bytes, which the caller frees. */
nsa_tensor load_golden(const char *name, unsigned char **bytes);

/* Write a temporary file, unlinked by the caller; the path is static, good for eight calls. */
const char *write_temporary(const char *name, const void *bytes, size_t size);

/* A fixed pseudo-random sequence: same seed, same numbers. */
uint64_t random_u64(uint64_t *state);
float random_float(uint64_t *state); /* uniform in [-1, 1) */
size_t random_below(uint64_t *state, size_t limit);

/* A tensor to write: `values` are converted to `dtype`; NULL or NSA_I64 writes zeros. */
struct weight {
    const char *name;
    nsa_dtype dtype;
    nsa_shape shape;
    const float *values; /* shape */
};

/* A temporary .safetensors file of `count` tensors; the path is that of write_temporary(). */
const char *write_safetensors(const char *name, const struct weight *weights, size_t count);

/* As write_safetensors(), of zeros: `text` is "name dtype dims;" of each, as in "w BF16 3 5; ". */
const char *write_zeros(const char *name, const char *text);

/*
 * A random compress model of n*d = in, in a temporary file with weights of `dtype`: sizes in and
 * out of `mlp`, whose tensors get the values that the file holds. free_mlp() frees those.
 */
const char *write_mlp(nsa_mlp *mlp, nsa_dtype dtype, uint64_t *random);
void free_mlp(nsa_mlp *mlp);

/* Load `path`, or fail the test with the message. */
nsa_model *load_model(const char *path, const nsa_model_options *options);

/* A random tensor of `shape`, values in [-1, 1) rounded to `dtype`; free_tensor() frees it. */
nsa_tensor random_tensor(nsa_dtype dtype, const nsa_shape *shape, uint64_t *random);
void free_tensor(nsa_tensor *tensor);

/* Plan `request`, or fail the test, and give its outputs memory; free_outputs() frees that. */
void plan_outputs(nsa_request *request, const nsa_model *model);
void free_outputs(nsa_request *request);

/* Compute all rows of a planned request as one span. */
void run_whole(const nsa_model *model, const nsa_request *request);

/* Bytes of output `index`. */
size_t output_bytes(const nsa_request *request, size_t index);

/* Fail unless `text` has `part` in it, and only once. */
void assert_once(const char *text, const char *part);

#define assert_status(expected, got) assert_int_equal((expected), (got))
#define assert_message(err, part) assert_non_null(strstr((err).message, (part)))

#endif
