/* The real program as a child process: started, watched, stopped. */
#ifndef TESTS_DAEMON_H
#define TESTS_DAEMON_H

#include "tests/unit/support.h"

#include <stdbool.h>
#include <sys/types.h>

/* No test waits longer than this for anything; none depends on how long it took. */
#define PATIENCE_MS 60000

struct daemon;

/*
 * Start the program named by the environment variable NSAD (build/nsad without it) with `arguments`
 * (NULL past the last), on a free loopback port unless they say --listen, and wait until its log
 * says "ready". The test fails, with the log, if it doesn't.
 */
struct daemon *daemon_start(const char *const arguments[]);
#define DAEMON(...) daemon_start((const char *const[]){__VA_ARGS__, NULL})

/* Keep it over the end of a test: for those that a group shares. Returns it. */
struct daemon *daemon_share(struct daemon *daemon);

/* What it listens on, as its log says: "127.0.0.1:40001" or "unix:/path". */
const char *daemon_address(const struct daemon *daemon);

void daemon_signal(struct daemon *daemon, int number);
bool daemon_alive(struct daemon *daemon);

/* Wait until its log holds `text`, `count` times; fails the test if that doesn't come. */
void daemon_wait_log(struct daemon *daemon, const char *text, size_t count);

/* Wait for its end, check the exit status and that no sanitizer complained, and free it. */
void daemon_expect_exit(struct daemon *daemon, int exit_status);

/* SIGTERM, and an exit status of 0. */
void daemon_stop(struct daemon *daemon);

/* A test's teardown: kill the daemons that a failed test left behind. Always 0. */
int daemons_kill(void **state);

/* One run of the program to its end. */
struct outcome {
    int exit_status;
    char *out; /* owned, as is err; NUL-terminated */
    char *err;
};

struct outcome run_program(const char *const arguments[]);
#define RUN(...) run_program((const char *const[]){__VA_ARGS__, NULL})
void outcome_free(struct outcome *outcome);

void sleep_ms(long ms);

/* Poll every few milliseconds; false when `condition` isn't true in PATIENCE_MS. */
bool wait_until(bool (*condition)(void *context), void *context);

#endif
