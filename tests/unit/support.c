#include "tests/unit/support.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <nsa/model.h>
#include <nsa/npy.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *pointer, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *pointer, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

static pthread_mutex_t allocation_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the three below */
static long allocations_left = -1;
static size_t allocations;
static bool failed;

static bool must_fail(void)
{
    bool fail;

    pthread_mutex_lock(&allocation_lock);
    allocations++;
    fail = allocations_left == 0;
    if (fail)
        failed = true;
    if (allocations_left >= 0)
        allocations_left--;
    pthread_mutex_unlock(&allocation_lock);
    if (fail)
        errno = ENOMEM;
    return fail;
}

void *__wrap_malloc(size_t size)
{
    return must_fail() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return must_fail() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *pointer, size_t size)
{
    return must_fail() ? NULL : __real_realloc(pointer, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return must_fail() ? NULL : __real_aligned_alloc(alignment, size);
}

void fail_allocation_after(long succeed)
{
    json_set_alloc_funcs(__wrap_malloc, free);
    pthread_mutex_lock(&allocation_lock);
    allocations_left = succeed;
    failed = false;
    pthread_mutex_unlock(&allocation_lock);
}

bool allocation_failed(void)
{
    bool result;

    pthread_mutex_lock(&allocation_lock);
    result = failed;
    pthread_mutex_unlock(&allocation_lock);
    return result;
}

size_t allocation_count(void)
{
    size_t result;

    pthread_mutex_lock(&allocation_lock);
    result = allocations;
    pthread_mutex_unlock(&allocation_lock);
    return result;
}

void check_every_allocation(nsa_status (*body)(void *context), void *context)
{
    for (long nth = 0;; nth++) {
        nsa_status status;

        fail_allocation_after(nth);
        status = body(context);
        if (!allocation_failed()) {
            fail_allocation_after(-1);
            assert_status(NSA_OK, status);
            assert_true(nth > 0);
            return;
        }
        fail_allocation_after(-1);
        if (status != NSA_ENOMEM)
            fail_msg("allocation %ld failed: expected NSA_ENOMEM, got %d", nth, (int)status);
    }
}

void assert_once(const char *text, const char *part)
{
    const char *found = strstr(text, part);

    if (!found || strstr(found + 1, part))
        fail_msg("expected '%s' once in: %s", part, text);
}

static unsigned char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    unsigned char *bytes;
    long length;

    if (!file)
        fail_msg("cannot open %s", path);
    assert_int_equal(0, fseek(file, 0, SEEK_END));
    length = ftell(file);
    rewind(file);
    bytes = malloc((size_t)length + 1);
    assert_non_null(bytes);
    assert_int_equal(length, fread(bytes, 1, (size_t)length, file));
    bytes[length] = 0;
    fclose(file);
    *size = (size_t)length;
    return bytes;
}

unsigned char *read_golden(const char *name, size_t *size)
{
    char path[512];

    snprintf(path, sizeof path, "tests/golden/%s", name);
    return read_file(path, size);
}

nsa_tensor load_golden(const char *name, unsigned char **bytes)
{
    size_t size;
    nsa_tensor tensor;
    nsa_error err;

    *bytes = read_golden(name, &size);
    if (nsa_npy_parse(&tensor, *bytes, size, &err) != NSA_OK)
        fail_msg("%s: %s", name, err.message);
    return tensor;
}

const char *write_temporary(const char *name, const void *bytes, size_t size)
{
    static char paths[8][256];
    static size_t slot;
    char *path = paths[slot++ % 8];
    FILE *file;

    snprintf(path, sizeof paths[0], "/tmp/nsa-test-%ld-%s", (long)getpid(), name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(size, fwrite(bytes, 1, size, file));
    assert_int_equal(0, fclose(file));
    return path;
}

/* xorshift64*, Vigna 2016. */
uint64_t random_u64(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545F4914F6CDD1D);
}

float random_float(uint64_t *state)
{
    return (float)((double)(random_u64(state) >> 11) * 0x1p-52 - 1.0);
}

size_t random_below(uint64_t *state, size_t limit)
{
    return (size_t)(random_u64(state) % limit);
}

/* As safetensors spells them; in the order of nsa_dtype. */
static const char *const dtype_texts[NSA_DTYPE_COUNT] = {"F32", "F16", "BF16", "F64", "I64"};

const char *write_safetensors(const char *name, const struct weight *weights, size_t count)
{
    json_t *root = json_object();
    size_t data_bytes = 0;
    size_t header_bytes;
    unsigned char *file;
    unsigned char *at;
    char *header;
    const char *path;

    for (size_t i = 0; i < count; i++) {
        json_t *shape = json_array();
        size_t bytes = 0;

        for (size_t axis = 0; axis < weights[i].shape.rank; axis++)
            json_array_append_new(shape, json_integer((json_int_t)weights[i].shape.dims[axis]));
        assert_status(NSA_OK, nsa_shape_bytes(&bytes, &weights[i].shape, weights[i].dtype, NULL));
        json_object_set_new(root, weights[i].name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype",
                                      dtype_texts[weights[i].dtype], "shape", shape, "data_offsets",
                                      (json_int_t)data_bytes, (json_int_t)(data_bytes + bytes)));
        data_bytes += bytes;
    }
    header = json_dumps(root, JSON_COMPACT);
    header_bytes = strlen(header);
    file = calloc(1, 8 + header_bytes + data_bytes);
    assert_non_null(file);
    for (size_t i = 0; i < 8; i++)
        file[i] = (unsigned char)(header_bytes >> (8 * i));
    memcpy(file + 8, header, header_bytes);
    at = file + 8 + header_bytes;
    for (size_t i = 0; i < count; i++) {
        size_t elements = 0;

        assert_status(NSA_OK, nsa_shape_count(&elements, &weights[i].shape, NULL));
        if (weights[i].values && nsa_dtype_is_float(weights[i].dtype))
            nsa_from_f32(at, weights[i].dtype, weights[i].values, elements);
        at += elements * nsa_dtype_size(weights[i].dtype);
    }
    path = write_temporary(name, file, 8 + header_bytes + data_bytes);
    free(file);
    free(header);
    json_decref(root);
    return path;
}

/* Fill `weight` from "name dtype dims"; `name` holds the name. */
static void parse_weight(struct weight *weight, char name[64], const char *text)
{
    char dtype[8];
    int used = 0;
    char *end;

    *weight = (struct weight){.name = name};
    assert_int_equal(2, sscanf(text, "%63s %7s%n", name, dtype, &used));
    while (strcmp(dtype_texts[weight->dtype], dtype) != 0)
        weight->dtype++;
    for (text += used;; text = end) {
        size_t dim = strtoull(text, &end, 10);

        if (end == text)
            return;
        weight->shape.dims[weight->shape.rank++] = dim;
    }
}

const char *write_zeros(const char *name, const char *text)
{
    struct weight weights[16];
    char names[16][64];
    size_t count = 0;
    char *copy = strdup(text);
    char *rest = copy;

    for (char *one = strsep(&rest, ";"); rest; one = strsep(&rest, ";")) {
        assert_true(count < 16);
        parse_weight(&weights[count], names[count], one);
        count++;
    }
    free(copy);
    return write_safetensors(name, weights, count);
}

/* `count` random numbers in [-scale, scale) as `dtype` holds them. */
static float *random_values(size_t count, float scale, nsa_dtype dtype, uint64_t *random)
{
    float *values = malloc(count * sizeof *values + 1);
    void *narrow = malloc(count * nsa_dtype_size(dtype) + 1);

    assert_non_null(values);
    assert_non_null(narrow);
    for (size_t i = 0; i < count; i++)
        values[i] = random_float(random) * scale;
    nsa_from_f32(narrow, dtype, values, count);
    nsa_to_f32(values, narrow, dtype, count);
    free(narrow);
    return values;
}

const char *write_mlp(nsa_mlp *mlp, nsa_dtype dtype, uint64_t *random)
{
    float scale1 = 1.0f / sqrtf((float)mlp->in); /* as torch.nn.Linear begins */
    float scale2 = 1.0f / sqrtf((float)mlp->hidden);
    struct weight weights[4] = {
        {"mlp.1.weight", dtype, {2, {mlp->hidden, mlp->in}}, NULL},
        {"mlp.1.bias", dtype, {1, {mlp->hidden}}, NULL},
        {"mlp.3.weight", dtype, {2, {mlp->out, mlp->hidden}}, NULL},
        {"mlp.3.bias", dtype, {1, {mlp->out}}, NULL},
    };

    weights[0].values = mlp->w1 = random_values(mlp->hidden * mlp->in, scale1, dtype, random);
    weights[1].values = mlp->b1 = random_values(mlp->hidden, scale1, dtype, random);
    weights[2].values = mlp->w2 = random_values(mlp->out * mlp->hidden, scale2, dtype, random);
    weights[3].values = mlp->b2 = random_values(mlp->out, scale2, dtype, random);
    return write_safetensors("mlp.safetensors", weights, 4);
}

void free_mlp(nsa_mlp *mlp)
{
    free((void *)(uintptr_t)mlp->w1);
    free((void *)(uintptr_t)mlp->b1);
    free((void *)(uintptr_t)mlp->w2);
    free((void *)(uintptr_t)mlp->b2);
}

nsa_model *load_model(const char *path, const nsa_model_options *options)
{
    nsa_model *model = NULL;
    nsa_error err;

    if (nsa_model_load(&model, path, options, &err) != NSA_OK)
        fail_msg("%s", err.message);
    return model;
}

nsa_tensor random_tensor(nsa_dtype dtype, const nsa_shape *shape, uint64_t *random)
{
    nsa_tensor tensor = {.dtype = dtype, .shape = *shape};
    size_t count = 0;
    float *values;

    assert_status(NSA_OK, nsa_shape_count(&count, shape, NULL));
    values = random_values(count, 1.0f, dtype, random);
    tensor.data = malloc(count * nsa_dtype_size(dtype) + 1);
    assert_non_null(tensor.data);
    nsa_from_f32(tensor.data, dtype, values, count);
    free(values);
    return tensor;
}

void free_tensor(nsa_tensor *tensor)
{
    free(tensor->data);
    tensor->data = NULL;
}

size_t output_bytes(const nsa_request *request, size_t index)
{
    const nsa_tensor *output = &request->outputs[index];
    size_t bytes = 0;

    assert_status(NSA_OK, nsa_shape_bytes(&bytes, &output->shape, output->dtype, NULL));
    return bytes;
}

void plan_outputs(nsa_request *request, const nsa_model *model)
{
    nsa_error err;

    if (nsa_request_plan(request, model, &err) != NSA_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < request->output_count; i++) {
        size_t bytes = output_bytes(request, i);

        request->outputs[i].data = malloc(bytes + 1);
        assert_non_null(request->outputs[i].data);
        memset(request->outputs[i].data, 0xA5, bytes + 1);
    }
}

void free_outputs(nsa_request *request)
{
    for (size_t i = 0; i < request->output_count; i++)
        free_tensor(&request->outputs[i]);
}

void run_whole(const nsa_model *model, const nsa_request *request)
{
    nsa_span span = {request, 0, request->rows};
    size_t bytes = nsa_run_scratch_bytes(model);
    void *scratch = bytes > 0 ? aligned_alloc(NSA_SCRATCH_ALIGN, bytes) : NULL;

    assert_true(bytes == 0 || scratch);
    nsa_run(model, &span, 1, scratch);
    free(scratch);
}
