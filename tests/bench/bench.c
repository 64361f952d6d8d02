/*
 * Rows per second of each operation through the library, on one thread, for shapes from small to
 * large. Prints a Markdown table. Weights of the sizes that are asked for are made up and loaded
 * as any model's.
 */
#include "tests/unit/support.h"

#include <nsa/cpu.h>
#include <nsa/model.h>
#include <nsa/ops.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MEASURE_NS UINT64_C(300000000)
#define ROUNDS 3

/* One line of the table. */
struct shape {
    nsa_op_id op;
    nsa_shape input;
    int64_t k;           /* of select */
    double flop_per_row; /* of compress */
};

static void *allocate(size_t bytes)
{
    void *memory = aligned_alloc(NSA_SCRATCH_ALIGN, (bytes + NSA_SCRATCH_ALIGN) & ~(size_t)63);

    if (!memory)
        exit(EXIT_FAILURE);
    return memory;
}

static void fill(float *values, size_t count, float scale)
{
    uint64_t state = 7;

    for (size_t i = 0; i < count; i++)
        values[i] = scale * random_float(&state);
}

/* A compress model with the seed's hidden size, by way of a file. */
static nsa_model *make_compress(size_t d, size_t n)
{
    size_t in = n * d;
    size_t hidden = 2 * in;
    const size_t counts[4] = {hidden * in, hidden, d * hidden, d};
    size_t total = counts[0] + counts[1] + counts[2] + counts[3];
    float *values = allocate(total * sizeof *values);
    char path[] = "/tmp/nsa-bench-XXXXXX";
    char header[512];
    nsa_model *model;
    nsa_error err;
    uint64_t length;
    FILE *file;
    int fd = mkstemp(path);

    fill(values, total, 0.05f);
    length = (uint64_t)snprintf(
        header, sizeof header,
        "{\"mlp.1.weight\":{\"dtype\":\"F32\",\"shape\":[%zu,%zu],\"data_offsets\":[0,%zu]},"
        "\"mlp.1.bias\":{\"dtype\":\"F32\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]},"
        "\"mlp.3.weight\":{\"dtype\":\"F32\",\"shape\":[%zu,%zu],\"data_offsets\":[%zu,%zu]},"
        "\"mlp.3.bias\":{\"dtype\":\"F32\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}}",
        hidden, in, 4 * counts[0], hidden, 4 * counts[0], 4 * (counts[0] + hidden), d, hidden,
        4 * (counts[0] + hidden), 4 * (total - d), d, 4 * (total - d), 4 * total);
    file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (!file || fwrite(&length, 8, 1, file) != 1 || fwrite(header, length, 1, file) != 1 ||
        fwrite(values, 4, total, file) != total || fclose(file) != 0 ||
        nsa_model_load(&model, path, NULL, &err) != NSA_OK)
        exit(EXIT_FAILURE);
    unlink(path);
    free(values);
    return model;
}

/* CPU time, which other programs on the machine take no part of. */
static uint64_t thread_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Best seconds of one run of `request`, of ROUNDS rounds. */
static double measure(const nsa_model *model, const nsa_request *request)
{
    const nsa_span all = {request, 0, request->rows};
    void *scratch = allocate(nsa_run_scratch_bytes(model));
    double best = 1e9;

    for (int round = 0; round < ROUNDS; round++) {
        uint64_t begin = thread_ns();
        uint64_t end;
        size_t runs = 0;
        double seconds;

        do {
            nsa_run(model, &all, 1, scratch);
            runs++;
            end = thread_ns();
        } while (end - begin < MEASURE_NS);
        seconds = (double)(end - begin) / 1e9 / (double)runs;
        best = seconds < best ? seconds : best;
    }
    free(scratch);
    return best;
}

static void bench(const nsa_model *model, const struct shape *shape)
{
    nsa_request request = {.input = {.dtype = NSA_F32, .shape = shape->input}};
    char text[NSA_SHAPE_TEXT_BYTES];
    nsa_error err;
    size_t count;
    size_t bytes;
    double seconds;

    if (shape->op == NSA_SELECT)
        request.params[0] = shape->k;
    if (nsa_request_plan(&request, model, &err) != NSA_OK ||
        nsa_shape_count(&count, &shape->input, &err) != NSA_OK ||
        nsa_shape_bytes(&bytes, &request.outputs[0].shape, request.outputs[0].dtype, &err) !=
            NSA_OK)
        exit(EXIT_FAILURE);
    request.input.data = allocate(count * sizeof(float));
    request.outputs[0].data = allocate(bytes);
    fill(request.input.data, count, 1.0f);
    seconds = measure(model, &request);
    printf("| %s | %s | %lld | %.1f | %.0f | %.2f |\n", nsa_op_at(shape->op)->name,
           nsa_shape_text(text, &shape->input), (long long)shape->k, seconds * 1e6,
           (double)request.rows / seconds,
           shape->flop_per_row > 0 ? shape->flop_per_row * (double)request.rows / seconds / 1e9
                                   : (double)(count * sizeof(float) + bytes) / seconds / 1e9);
    free(request.outputs[0].data);
    free(request.input.data);
}

static void bench_compress(size_t d, size_t n, const size_t *rows, size_t count)
{
    nsa_model *model = make_compress(d, n);
    double in = (double)(n * d);

    printf("\ncompress d=%zu n=%zu: engine %s\n\n", d, n, nsa_model_describe(model)->engine);
    printf("| op | input | k | us | rows/s | GFLOP/s |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        const struct shape shape = {
            NSA_COMPRESS, {3, {rows[i], n, d}}, 0, 2 * (in * 2 * in + 2 * in * (double)d)};

        bench(model, &shape);
    }
    nsa_model_unref(model);
}

int main(void)
{
    static const struct shape selects[] = {
        {NSA_SELECT, {2, {256, 32}}, 8, 0},     {NSA_SELECT, {2, {16384, 64}}, 16, 0},
        {NSA_SELECT, {2, {32768, 128}}, 16, 0}, {NSA_SELECT, {2, {32, 1024}}, 16, 0},
        {NSA_SELECT, {2, {1024, 2048}}, 64, 0}, {NSA_SELECT, {2, {64, 131072}}, 2048, 0},
    };
    static const size_t small[] = {1, 4, 16, 64, 256, 4096};
    static const size_t large[] = {1, 16, 64, 256};
    nsa_model *select;
    nsa_error err;

    if (nsa_cpu_use("auto", &err) != NSA_OK ||
        nsa_model_create(&select, NSA_SELECT, &err) != NSA_OK)
        return EXIT_FAILURE;
    printf("kernel %s, one thread\n\n| op | input | k | us | rows/s | GB/s "
           "|\n|---|---|---|---|---|---|\n",
           nsa_cpu_kernel());
    for (size_t i = 0; i < sizeof selects / sizeof *selects; i++)
        bench(select, &selects[i]);
    nsa_model_unref(select);
    bench_compress(64, 4, small, sizeof small / sizeof *small);
    bench_compress(128, 32, large, sizeof large / sizeof *large);
    return EXIT_SUCCESS;
}
