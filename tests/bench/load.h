/* Sending one request over and over: see load.c. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LOAD_MAX_CONNECTIONS ((size_t)1024)
#define LOAD_MAX_REQUESTS ((size_t)1 << 22)

struct load_options {
    const char *request; /* (request_bytes): head and body */
    size_t request_bytes;
    uint16_t port;      /* on the loopback interface */
    pid_t pid;          /* whose CPU time is counted; 0: nobody's */
    size_t connections; /* each waits for its answer before it sends again */
    double warm_s;      /* before what is measured */
    double measure_s;
    size_t max_requests; /* that are measured; the first of the two limits ends it */
};

struct load_result {
    size_t count;           /* answers within the measured time */
    uint64_t *latencies_ns; /* (count), the caller's to free */
    double seconds;
    double server_cpu_s;
    double client_cpu_s;
    size_t answer_bytes; /* of the body */
};

/* Ends the program with a message when an answer isn't a 200 with the body of the first one. */
void load_run(struct load_result *result, const struct load_options *options);

#endif
