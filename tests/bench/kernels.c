/*
 * The library and the processor's peak, measured one figure at a time as bench.py asks for them:
 *   SECONDS peak f32|bf16                          {"rate": flop/s, "unit": NAME}
 *   SECONDS bandwidth THREADS                      {"rate": bytes/s}
 *   SECONDS compress FILE PRECISION ACTIVATION ROWS
 *   SECONDS select ROWS N K
 *   SECONDS posembed FILE BATCH L                  {"seconds": of a call, "check", "engine": NAME}
 * "check" is the mean of the output's magnitudes. All on one thread, but for the bandwidth of
 * several.
 */
#include "tests/bench/measure.h"
#include "tests/bench/peak.h"
#include "tests/bench/protocol.h"

#include <math.h>
#include <nsa/cpu.h>
#include <nsa/model.h>
#include <nsa/ops.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MODELS 8
#define MAX_KEY 1024
#define MAX_DIM ((size_t)1 << 24)

/* Models stay loaded: they are measured in turns. */
static struct {
    char key[MAX_KEY]; /* what they were loaded from and with */
    nsa_model *model;
} models[MAX_MODELS];

static nsa_model *load_model(const char *path, const nsa_model_options *options)
{
    char key[MAX_KEY];
    size_t i = 0;
    nsa_error err;

    snprintf(key, sizeof key, "%d %d %s", (int)options->precision, (int)options->activation, path);
    while (i < MAX_MODELS && models[i].model && strcmp(models[i].key, key) != 0)
        i++;
    if (i == MAX_MODELS)
        bench_fail("expected at most %d models", MAX_MODELS);
    if (!models[i].model) {
        if (nsa_model_load(&models[i].model, path, options, &err) != NSA_OK)
            bench_fail("%s", err.message);
        memcpy(models[i].key, key, sizeof key);
    }
    return models[i].model;
}

/* --- operations ---------------------------------------------------------------------------- */

struct work {
    const nsa_model *model;
    nsa_request request;
    void *scratch;
};

static void run_work(void *context)
{
    struct work *work = context;
    const nsa_span all = {&work->request, 0, work->request.rows};

    nsa_run(work->model, &all, 1, work->scratch);
}

/* The mean magnitude of an output: other programs' must be close to it. */
static double mean(const nsa_tensor *tensor, size_t bytes)
{
    size_t count = bytes / nsa_dtype_size(tensor->dtype);
    double total = 0;

    for (size_t i = 0; i < count; i++)
        total += tensor->dtype == NSA_I64 ? (double)((const int64_t *)tensor->data)[i]
                                          : fabs((double)((const float *)tensor->data)[i]);
    return total / (double)count;
}

/* Plan a request for float32 input of `shape`, give it memory, measure it and say so. */
static void measure(double budget_s, const nsa_model *model, const nsa_shape *shape, int64_t param)
{
    struct work work = {.model = model, .request.input = {.dtype = NSA_F32, .shape = *shape}};
    nsa_request *request = &work.request;
    const char *engine = nsa_model_describe(model)->engine;
    size_t count;
    size_t bytes;
    double seconds;
    nsa_error err;

    request->params[0] = param;
    if (nsa_request_plan(request, model, &err) != NSA_OK ||
        nsa_shape_count(&count, shape, &err) != NSA_OK ||
        nsa_shape_bytes(&bytes, &request->outputs[0].shape, request->outputs[0].dtype, &err) !=
            NSA_OK)
        bench_fail("%s", err.message);
    request->input.data = bench_allocate(count * sizeof(float));
    request->outputs[0].data = bench_allocate(bytes);
    work.scratch = bench_allocate(nsa_run_scratch_bytes(model));
    bench_fill(request->input.data, count);
    seconds = bench_seconds(budget_s, run_work, &work);
    printf("{\"seconds\": %.9g, \"check\": %.9g, \"engine\": \"%s\"}\n", seconds,
           mean(&request->outputs[0], bytes), engine ? engine : nsa_cpu_kernel());
    free(work.scratch);
    free(request->outputs[0].data);
    free(request->input.data);
}

static size_t dimension(const nsa_model *model, const char *name)
{
    const nsa_model_info *info = nsa_model_describe(model);

    for (size_t i = 0; i < info->dim_count; i++) {
        if (strcmp(info->dims[i].name, name) == 0)
            return info->dims[i].value;
    }
    bench_fail("the model has no dimension %s", name);
}

static void compress(double budget_s, char *const arguments[])
{
    nsa_model_options options = {0};
    nsa_shape shape = {.rank = 2};
    nsa_model *model;

    if (!nsa_precision_from_name(&options.precision, arguments[1]) ||
        !nsa_activation_from_name(&options.activation, arguments[2]))
        bench_fail("unknown precision '%s' or activation '%s'", arguments[1], arguments[2]);
    model = load_model(arguments[0], &options);
    shape.dims[0] = protocol_size(arguments[3], 1, MAX_DIM);
    shape.dims[1] = dimension(model, "dim_head") * dimension(model, "compress_block_size");
    measure(budget_s, model, &shape, 0);
}

static void select_blocks(double budget_s, char *const arguments[])
{
    static nsa_model *model;
    nsa_shape shape = {.rank = 2};
    nsa_error err;

    if (!model && nsa_model_create(&model, NSA_SELECT, &err) != NSA_OK)
        bench_fail("%s", err.message);
    shape.dims[0] = protocol_size(arguments[0], 1, MAX_DIM);
    shape.dims[1] = protocol_size(arguments[1], 1, MAX_DIM);
    measure(budget_s, model, &shape, (int64_t)protocol_size(arguments[2], 1, MAX_DIM));
}

static void posembed(double budget_s, char *const arguments[])
{
    const nsa_model_options options = {0};
    nsa_model *model = load_model(arguments[0], &options);
    nsa_shape shape = {.rank = 3};

    shape.dims[0] = protocol_size(arguments[1], 1, MAX_DIM);
    shape.dims[1] = protocol_size(arguments[2], 1, MAX_DIM);
    shape.dims[2] = dimension(model, "dim");
    measure(budget_s, model, &shape, 0);
}

/* --- the processor ------------------------------------------------------------------------- */

static void peak(double budget_s, char *const arguments[])
{
    const char *name;
    double rate =
        strcmp(arguments[0], "bf16") == 0 ? peak_bf16(&name, budget_s) : peak_f32(&name, budget_s);

    printf("{\"rate\": %.6g, \"unit\": \"%s\"}\n", rate, name ? name : "");
}

static void bandwidth(double budget_s, char *const arguments[])
{
    printf("{\"rate\": %.6g}\n", peak_bandwidth(protocol_size(arguments[0], 1, 256), budget_s));
}

int main(void)
{
    static const struct protocol_command commands[] = {
        {"peak", 1, peak},         {"bandwidth", 1, bandwidth},
        {"compress", 4, compress}, {"select", 3, select_blocks},
        {"posembed", 3, posembed}, {0},
    };
    nsa_error err;

    if (nsa_cpu_use("auto", &err) != NSA_OK)
        bench_fail("%s", err.message);
    protocol_serve(commands);
    for (size_t i = 0; i < MAX_MODELS; i++)
        nsa_model_unref(models[i].model);
    return EXIT_SUCCESS;
}
