/*
 * oneDNN on one thread, for peers.py: compress as two inner products, GELU and ReLU as the first
 * one's post-operation, weights in whatever layout oneDNN likes best. In bfloat16 the input is
 * converted within the time that is measured, as nsa does.
 *   SECONDS compress FILE PRECISION ACTIVATION ROWS       {"seconds": of a call, "check": mean}
 */
#include "tests/bench/measure.h"
#include "tests/bench/protocol.h"

#include <math.h>
#include <nsa/safetensors.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROWS ((size_t)1 << 20)
#define MAX_ARGUMENTS 4

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static void must(dnnl_status_t status, const char *what)
{
    if (status != dnnl_success)
        bench_fail("oneDNN: %s: status %d", what, (int)status);
}

/* --- weights ------------------------------------------------------------------------------- */

struct weights {
    char path[1024];
    float *tensors[4]; /* (hidden, in), (hidden), (out, hidden), (out) */
    size_t in, hidden, out;
};

static void read_weights(struct weights *w, const char *path)
{
    static const char *const names[4] = {"mlp.1.weight", "mlp.1.bias", "mlp.3.weight",
                                         "mlp.3.bias"};
    nsa_safetensors_want wants[4];
    char sha256[NSA_SHA256_HEX_BYTES];
    nsa_safetensors *file;
    nsa_error err;

    if (nsa_safetensors_open(&file, path, &err) != NSA_OK)
        bench_fail("%s", err.message);
    for (size_t i = 0; i < 4; i++) {
        size_t index = nsa_safetensors_find(file, names[i]);
        const nsa_safetensors_entry *entry;

        if (index == SIZE_MAX)
            bench_fail("%s: no tensor %s", path, names[i]);
        entry = nsa_safetensors_at(file, index);
        w->tensors[i] = bench_allocate(entry->bytes / nsa_dtype_size(entry->dtype) * sizeof(float));
        wants[i] = (nsa_safetensors_want){index, w->tensors[i]};
        if (i == 0)
            w->in = entry->shape.dims[1];
        if (i == 2) {
            w->out = entry->shape.dims[0];
            w->hidden = entry->shape.dims[1];
        }
    }
    if (nsa_safetensors_read(file, wants, 4, sha256, &err) != NSA_OK)
        bench_fail("%s", err.message);
    nsa_safetensors_close(file);
    snprintf(w->path, sizeof w->path, "%s", path);
}

/* Kept for the next command, which most often has the same file. */
static const struct weights *weights_of(const char *path)
{
    static struct weights kept;

    if (strcmp(kept.path, path) != 0) {
        for (size_t i = 0; i < 4; i++)
            free(kept.tensors[i]);
        read_weights(&kept, path);
    }
    return &kept;
}

/* --- memory -------------------------------------------------------------------------------- */

static dnnl_memory_desc_t describe(size_t rows, size_t columns, dnnl_data_type_t type,
                                   dnnl_format_tag_t tag)
{
    const dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    dnnl_memory_desc_t desc;

    must(dnnl_memory_desc_init_by_tag(&desc, columns > 0 ? 2 : 1, dims, type, tag), "describe");
    return desc;
}

/* `data` NULL: oneDNN's own memory. */
static dnnl_memory_t hold(const dnnl_memory_desc_t *desc, void *data)
{
    dnnl_memory_t memory;

    must(dnnl_memory_create(&memory, desc, engine, data ? data : DNNL_MEMORY_ALLOCATE), "memory");
    return memory;
}

/* A step of the work, with what it is given. */
struct step {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t arguments[MAX_ARGUMENTS];
    int argument_count;
};

static void run_step(const struct step *step)
{
    must(dnnl_primitive_execute(step->primitive, stream, step->argument_count, step->arguments),
         "execute");
}

static struct step make_reorder(dnnl_memory_t to, dnnl_memory_t from)
{
    struct step step = {.arguments = {{DNNL_ARG_SRC, from}, {DNNL_ARG_DST, to}},
                        .argument_count = 2};
    const dnnl_memory_desc_t *from_desc;
    const dnnl_memory_desc_t *to_desc;
    dnnl_primitive_desc_t desc;

    must(dnnl_memory_get_memory_desc(from, &from_desc), "reorder");
    must(dnnl_memory_get_memory_desc(to, &to_desc), "reorder");
    must(dnnl_reorder_primitive_desc_create(&desc, from_desc, engine, to_desc, engine, NULL),
         "reorder");
    must(dnnl_primitive_create(&step.primitive, desc), "reorder");
    must(dnnl_primitive_desc_destroy(desc), "reorder");
    return step;
}

/* --- the model ----------------------------------------------------------------------------- */

struct mlp {
    struct step steps[3]; /* the input's conversion, unless it is float32; two products */
    size_t first_step;
    dnnl_memory_t memories[8];
    size_t memory_count;
};

static dnnl_memory_t keep(struct mlp *mlp, dnnl_memory_t memory)
{
    mlp->memories[mlp->memory_count++] = memory;
    return memory;
}

/* One product: what it reads and writes, and its weights as they are in the file. */
struct layer {
    dnnl_memory_t src;
    dnnl_memory_t dst;
    float *weight; /* (out, in) */
    float *bias;   /* (out) */
    size_t in, out;
    dnnl_alg_kind_t activation; /* dnnl_alg_kind_undef: none */
    dnnl_data_type_t type;
};

static dnnl_primitive_desc_t plan(const struct layer *layer)
{
    const dnnl_memory_desc_t any =
        describe(layer->out, layer->in, layer->type, dnnl_format_tag_any);
    const dnnl_memory_desc_t bias = describe(layer->out, 0, dnnl_f32, dnnl_a);
    const dnnl_memory_desc_t *src;
    const dnnl_memory_desc_t *dst;
    dnnl_inner_product_desc_t product;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_attr_t attributes;
    dnnl_post_ops_t after;

    must(dnnl_memory_get_memory_desc(layer->src, &src), "inner product");
    must(dnnl_memory_get_memory_desc(layer->dst, &dst), "inner product");
    must(dnnl_primitive_attr_create(&attributes), "attributes");
    must(dnnl_post_ops_create(&after), "attributes");
    if (layer->activation != dnnl_alg_kind_undef)
        must(dnnl_post_ops_append_eltwise(after, 1.0f, layer->activation, 0.0f, 0.0f),
             "activation");
    must(dnnl_primitive_attr_set_post_ops(attributes, after), "attributes");
    must(dnnl_inner_product_forward_desc_init(&product, dnnl_forward_inference, src, &any, &bias,
                                              dst),
         "inner product");
    must(dnnl_primitive_desc_create(&desc, &product, attributes, engine, NULL), "inner product");
    must(dnnl_post_ops_destroy(after), "attributes");
    must(dnnl_primitive_attr_destroy(attributes), "attributes");
    return desc;
}

static struct step make_layer(struct mlp *mlp, const struct layer *layer)
{
    dnnl_primitive_desc_t desc = plan(layer);
    const dnnl_memory_desc_t plain = describe(layer->out, layer->in, dnnl_f32, dnnl_ab);
    const dnnl_memory_desc_t flat = describe(layer->out, 0, dnnl_f32, dnnl_a);
    dnnl_memory_t packed =
        keep(mlp, hold(dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0), NULL));
    dnnl_memory_t bias = keep(mlp, hold(&flat, layer->bias));
    dnnl_memory_t file = hold(&plain, layer->weight);
    struct step pack = make_reorder(packed, file);
    struct step step = {.arguments = {{DNNL_ARG_SRC, layer->src},
                                      {DNNL_ARG_WEIGHTS, packed},
                                      {DNNL_ARG_BIAS, bias},
                                      {DNNL_ARG_DST, layer->dst}},
                        .argument_count = 4};

    run_step(&pack);
    must(dnnl_stream_wait(stream), "pack");
    must(dnnl_primitive_create(&step.primitive, desc), "inner product");
    dnnl_primitive_destroy(pack.primitive);
    dnnl_memory_destroy(file);
    dnnl_primitive_desc_destroy(desc);
    return step;
}

static void make_mlp(struct mlp *mlp, const struct weights *w, float *x, float *y, size_t rows,
                     bool bf16, dnnl_alg_kind_t activation)
{
    dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    const dnnl_memory_desc_t x_desc = describe(rows, w->in, dnnl_f32, dnnl_ab);
    const dnnl_memory_desc_t src_desc = describe(rows, w->in, type, dnnl_ab);
    const dnnl_memory_desc_t hidden_desc = describe(rows, w->hidden, type, dnnl_ab);
    const dnnl_memory_desc_t y_desc = describe(rows, w->out, dnnl_f32, dnnl_ab);
    dnnl_memory_t input = keep(mlp, hold(&x_desc, x));
    dnnl_memory_t src = bf16 ? keep(mlp, hold(&src_desc, NULL)) : input;
    dnnl_memory_t hidden = keep(mlp, hold(&hidden_desc, NULL));
    dnnl_memory_t output = keep(mlp, hold(&y_desc, y));
    const struct layer first = {src,   hidden,    w->tensors[0], w->tensors[1],
                                w->in, w->hidden, activation,    type};
    const struct layer second = {hidden,    output, w->tensors[2],       w->tensors[3],
                                 w->hidden, w->out, dnnl_alg_kind_undef, type};

    mlp->first_step = bf16 ? 0 : 1;
    if (bf16)
        mlp->steps[0] = make_reorder(src, input);
    mlp->steps[1] = make_layer(mlp, &first);
    mlp->steps[2] = make_layer(mlp, &second);
}

static void run_mlp(void *context)
{
    const struct mlp *mlp = context;

    for (size_t i = mlp->first_step; i < 3; i++)
        run_step(&mlp->steps[i]);
    must(dnnl_stream_wait(stream), "wait");
}

static void free_mlp(struct mlp *mlp)
{
    for (size_t i = mlp->first_step; i < 3; i++)
        dnnl_primitive_destroy(mlp->steps[i].primitive);
    for (size_t i = 0; i < mlp->memory_count; i++)
        dnnl_memory_destroy(mlp->memories[i]);
}

static void compress(double budget_s, char *const arguments[])
{
    const struct weights *w = weights_of(arguments[0]);
    bool bf16 = strcmp(arguments[1], "bf16") == 0;
    bool gelu = strcmp(arguments[2], "gelu") == 0;
    size_t rows = protocol_size(arguments[3], 1, MAX_ROWS);
    float *x = bench_allocate(rows * w->in * sizeof *x);
    float *y = bench_allocate(rows * w->out * sizeof *y);
    struct mlp mlp = {0};
    double seconds;
    double total = 0;

    bench_fill(x, rows * w->in);
    make_mlp(&mlp, w, x, y, rows, bf16, gelu ? dnnl_eltwise_gelu_erf : dnnl_eltwise_relu);
    seconds = bench_seconds(budget_s, run_mlp, &mlp);
    for (size_t i = 0; i < rows * w->out; i++)
        total += fabs((double)y[i]);
    printf("{\"seconds\": %.9g, \"check\": %.9g}\n", seconds, total / (double)(rows * w->out));
    free_mlp(&mlp);
    free(y);
    free(x);
}

int main(void)
{
    static const struct protocol_command commands[] = {{"compress", 4, compress}, {0}};

    must(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine");
    must(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "stream");
    protocol_serve(commands);
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
    return EXIT_SUCCESS;
}
