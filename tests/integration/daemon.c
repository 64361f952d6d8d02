#include "tests/integration/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_ARGUMENTS 64
#define MAX_LOG_BYTES ((size_t)1 << 20)
#define EXEC_FAILED 127
#define POLL_MS 2

struct daemon {
    pid_t pid;
    int log_fd;
    bool shared;
    char address[160];
    pthread_t reader;
    bool reader_joined;
    pthread_mutex_t lock; /* guards the log */
    char *log;            /* (MAX_LOG_BYTES + 1), NUL-terminated; what does not fit is dropped */
    size_t log_bytes;
    bool log_ended;
    struct daemon *next; /* of those running */
};

/* Every daemon that was started and not waited for; used by the tests' thread alone. */
static struct daemon *running;

void sleep_ms(long ms)
{
    const struct timespec period = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&period, NULL);
}

bool wait_until(bool (*condition)(void *context), void *context)
{
    for (long waited = 0; waited < PATIENCE_MS; waited += POLL_MS) {
        if (condition(context))
            return true;
        sleep_ms(POLL_MS);
    }
    return false;
}

/* --- processes ----------------------------------------------------------------------------- */

static const char *program(void)
{
    const char *path = getenv("NSAD");

    return path && *path ? path : "build/nsad";
}

static void fill_arguments(char *argv[MAX_ARGUMENTS], const char *const arguments[])
{
    bool listens = false;
    size_t count = 0;

    argv[count++] = (char *)(uintptr_t)program();
    for (size_t i = 0; arguments[i]; i++) {
        assert_true(count < MAX_ARGUMENTS - 3);
        listens |= strcmp(arguments[i], "--listen") == 0;
        argv[count++] = (char *)(uintptr_t)arguments[i];
    }
    if (!listens) {
        argv[count++] = (char *)(uintptr_t) "--listen";
        argv[count++] = (char *)(uintptr_t) "127.0.0.1:0";
    }
    argv[count] = NULL;
}

/* Start the program; -1 keeps a standard stream as it is. It dies with the tests. */
static pid_t spawn(char *argv[], int out_fd, int err_fd)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_DFL);
    if ((out_fd >= 0 && dup2(out_fd, STDOUT_FILENO) < 0) ||
        (err_fd >= 0 && dup2(err_fd, STDERR_FILENO) < 0))
        _exit(EXEC_FAILED);
    execv(argv[0], argv);
    _exit(EXEC_FAILED);
}

/* The exit status of `pid`; one killed by a signal has 128 and its number. */
static int wait_exit(pid_t pid)
{
    int status = 0;

    for (long waited = 0; waited < PATIENCE_MS; waited += POLL_MS) {
        pid_t ended = waitpid(pid, &status, WNOHANG);

        if (ended == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        sleep_ms(POLL_MS);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

/* What a sanitizer says begins so, whichever it is. */
static bool sanitizer_spoke(const char *log)
{
    return strstr(log, "Sanitizer") || strstr(log, "runtime error:");
}

/* --- the log ------------------------------------------------------------------------------- */

static void *read_log(void *argument)
{
    struct daemon *daemon = argument;
    char piece[4096];

    for (;;) {
        ssize_t size = read(daemon->log_fd, piece, sizeof piece);
        size_t room;

        if (size < 0 && errno == EINTR)
            continue;
        pthread_mutex_lock(&daemon->lock);
        if (size <= 0) {
            daemon->log_ended = true;
            pthread_mutex_unlock(&daemon->lock);
            return NULL;
        }
        room = MAX_LOG_BYTES - daemon->log_bytes;
        room = (size_t)size < room ? (size_t)size : room;
        memcpy(daemon->log + daemon->log_bytes, piece, room);
        daemon->log_bytes += room;
        daemon->log[daemon->log_bytes] = '\0';
        pthread_mutex_unlock(&daemon->lock);
    }
}

/* Whether the log holds `text` `count` times; *ended says that no more will come. */
static bool log_holds(struct daemon *daemon, const char *text, size_t count, bool *ended)
{
    size_t found = 0;

    pthread_mutex_lock(&daemon->lock);
    *ended = daemon->log_ended;
    for (const char *at = strstr(daemon->log, text); at; at = strstr(at + 1, text))
        found++;
    pthread_mutex_unlock(&daemon->lock);
    return found >= count;
}

void daemon_wait_log(struct daemon *daemon, const char *text, size_t count)
{
    bool ended = false;

    for (long waited = 0; waited < PATIENCE_MS && !ended; waited += POLL_MS) {
        if (log_holds(daemon, text, count, &ended))
            return;
        sleep_ms(POLL_MS);
    }
    fail_msg("expected '%s' %zu times in the log, got:\n%s", text, count, daemon->log);
}

/* --- life ---------------------------------------------------------------------------------- */

/* After the program's end: have all of its log. */
static void finish_log(struct daemon *daemon)
{
    if (!daemon->reader_joined)
        pthread_join(daemon->reader, NULL);
    daemon->reader_joined = true;
}

/* The program has ended and been waited for: take it off the list and free it. */
static void daemon_free(struct daemon *daemon)
{
    struct daemon **link = &running;

    finish_log(daemon);
    while (*link != daemon)
        link = &(*link)->next;
    *link = daemon->next;
    pthread_mutex_destroy(&daemon->lock);
    close(daemon->log_fd);
    free(daemon->log);
    free(daemon);
}

struct daemon *daemon_start(const char *const arguments[])
{
    static const char key[] = "msg=listening address=";
    struct daemon *daemon = calloc(1, sizeof *daemon);
    char *argv[MAX_ARGUMENTS];
    const char *address;
    int fds[2];

    assert_non_null(daemon);
    daemon->log = calloc(1, MAX_LOG_BYTES + 1);
    assert_non_null(daemon->log);
    fill_arguments(argv, arguments);
    assert_int_equal(0, pipe2(fds, O_CLOEXEC));
    daemon->pid = spawn(argv, -1, fds[1]);
    close(fds[1]);
    daemon->log_fd = fds[0];
    pthread_mutex_init(&daemon->lock, NULL);
    assert_int_equal(0, pthread_create(&daemon->reader, NULL, read_log, daemon));
    daemon->next = running;
    running = daemon;
    daemon_wait_log(daemon, key, 1);
    daemon_wait_log(daemon, "msg=ready", 1);
    pthread_mutex_lock(&daemon->lock);
    address = strstr(daemon->log, key) + strlen(key);
    snprintf(daemon->address, sizeof daemon->address, "%.*s", (int)strcspn(address, "\n"), address);
    pthread_mutex_unlock(&daemon->lock);
    return daemon;
}

struct daemon *daemon_share(struct daemon *daemon)
{
    daemon->shared = true;
    return daemon;
}

const char *daemon_address(const struct daemon *daemon)
{
    return daemon->address;
}

void daemon_signal(struct daemon *daemon, int number)
{
    assert_int_equal(0, kill(daemon->pid, number));
}

bool daemon_alive(struct daemon *daemon)
{
    siginfo_t info = {0};

    return waitid(P_PID, (id_t)daemon->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
}

void daemon_expect_exit(struct daemon *daemon, int exit_status)
{
    int got = wait_exit(daemon->pid);

    daemon->pid = 0;
    finish_log(daemon);
    if (got != exit_status || sanitizer_spoke(daemon->log))
        fail_msg("expected exit status %d and no sanitizer's report, got %d and:\n%s", exit_status,
                 got, daemon->log);
    daemon_free(daemon);
}

void daemon_stop(struct daemon *daemon)
{
    daemon_signal(daemon, SIGTERM);
    daemon_expect_exit(daemon, EXIT_SUCCESS);
}

int daemons_kill(void **state)
{
    struct daemon *next;

    (void)state;
    for (struct daemon *daemon = running; daemon; daemon = next) {
        next = daemon->next;
        if (daemon->shared)
            continue;
        if (daemon->pid > 0) {
            kill(daemon->pid, SIGKILL);
            waitpid(daemon->pid, NULL, 0);
        }
        daemon_free(daemon);
    }
    return 0;
}

/* --- runs ---------------------------------------------------------------------------------- */

static char *read_all(FILE *file)
{
    long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    char *text;

    assert_true(size >= 0);
    text = calloc(1, (size_t)size + 1);
    assert_non_null(text);
    rewind(file);
    assert_int_equal(size, fread(text, 1, (size_t)size, file));
    fclose(file);
    return text;
}

struct outcome run_program(const char *const arguments[])
{
    FILE *out = tmpfile();
    FILE *err = tmpfile();
    char *argv[MAX_ARGUMENTS];
    struct outcome outcome;

    assert_non_null(out);
    assert_non_null(err);
    fill_arguments(argv, arguments);
    outcome.exit_status = wait_exit(spawn(argv, fileno(out), fileno(err)));
    outcome.out = read_all(out);
    outcome.err = read_all(err);
    if (sanitizer_spoke(outcome.err))
        fail_msg("a sanitizer's report:\n%s", outcome.err);
    return outcome;
}

void outcome_free(struct outcome *outcome)
{
    free(outcome->out);
    free(outcome->err);
}
