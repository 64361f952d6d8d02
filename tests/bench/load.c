/*
 * A load generator: N connections, each of which sends the same request again as soon as its
 * answer is there. Every answer must be a 200 with the same body. Prints requests a second,
 * latencies, and the CPU time that the server took for a request.
 *   load PORT PID CONNECTIONS WARM_SECONDS SECONDS MAX_REQUESTS FILE
 * FILE holds the request as it is sent; PID is the server's process, 0 for none.
 */
#include "tests/bench/load.h"

#include "tests/bench/measure.h"
#include "tests/bench/protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REQUEST_BYTES ((size_t)128 << 20)

static char *read_file(size_t *size, const char *path)
{
    FILE *file = fopen(path, "rb");
    long length = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    char *bytes;

    if (length <= 0 || (size_t)length > MAX_REQUEST_BYTES)
        bench_fail("%s: expected 1 to %zu bytes", path, MAX_REQUEST_BYTES);
    *size = (size_t)length;
    bytes = bench_allocate(*size);
    rewind(file);
    if (fread(bytes, 1, *size, file) != *size)
        bench_fail("%s: cannot be read", path);
    fclose(file);
    return bytes;
}

static int compare(const void *a, const void *b)
{
    const uint64_t *left = a;
    const uint64_t *right = b;

    return (*left > *right) - (*left < *right);
}

/* The least latency that `percent` of all samples don't exceed, in microseconds. */
static double percentile(const struct load_result *result, double percent)
{
    size_t index = (size_t)((double)result->count * percent / 100);

    return (double)result->latencies_ns[index < result->count ? index : result->count - 1] / 1e3;
}

static void print(struct load_result *result)
{
    double count = (double)result->count;

    qsort(result->latencies_ns, result->count, sizeof *result->latencies_ns, compare);
    printf("{\"requests\": %zu, \"requests_per_s\": %.6g, \"cpu_us\": %.6g, \"client_us\": %.6g, "
           "\"p50_us\": %.6g, \"p99_us\": %.6g, \"p99_9_us\": %.6g, \"max_us\": %.6g, "
           "\"answer_bytes\": %zu}\n",
           result->count, count / result->seconds, result->server_cpu_s * 1e6 / count,
           result->client_cpu_s * 1e6 / count, percentile(result, 50), percentile(result, 99),
           percentile(result, 99.9), percentile(result, 100), result->answer_bytes);
}

int main(int argc, char **argv)
{
    struct load_options options;
    struct load_result result;
    char *request;

    if (argc != 8)
        bench_fail("expected PORT PID CONNECTIONS WARM_SECONDS SECONDS MAX_REQUESTS FILE");
    request = read_file(&options.request_bytes, argv[7]);
    options.request = request;
    options.port = (uint16_t)protocol_size(argv[1], 1, UINT16_MAX);
    options.pid = (pid_t)protocol_size(argv[2], 0, INT32_MAX);
    options.connections = protocol_size(argv[3], 1, LOAD_MAX_CONNECTIONS);
    options.warm_s = strtod(argv[4], NULL);
    options.measure_s = strtod(argv[5], NULL);
    options.max_requests = protocol_size(argv[6], 1, LOAD_MAX_REQUESTS);
    if (!(options.warm_s >= 0 && options.warm_s <= 60 && options.measure_s > 0 &&
          options.measure_s <= 60))
        bench_fail("expected at most 60 seconds");
    load_run(&result, &options);
    print(&result);
    free(result.latencies_ns);
    free(request);
    return EXIT_SUCCESS;
}
