#include "tests/unit/support.h"

#include "server/acceptor.h"
#include "server/log.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS 5
#define PATIENCE_MS 20000

static int listen_fd;
static struct sockaddr_in address;
static int clients[CLIENTS];
static struct acceptor *acceptor;
static atomic_size_t added;
static int added_fds[CLIENTS];
static bool refuse;

static bool add(void *context, int fd, const struct sockaddr *from, socklen_t bytes)
{
    assert_ptr_equal(&listen_fd, context);
    assert_int_equal(AF_INET, from->sa_family);
    assert_int_equal(sizeof address, bytes);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    if (refuse) {
        close(fd);
        return false;
    }
    added_fds[atomic_load(&added)] = fd;
    atomic_fetch_add(&added, 1);
    return true;
}

static void connect_clients(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(0, connect(clients[i], (struct sockaddr *)&address, sizeof address));
    }
}

static void pause_ms(long ms)
{
    const struct timespec period = {0, ms * 1000000};

    nanosleep(&period, NULL);
}

static void wait_added(size_t count)
{
    for (long waited = 0; atomic_load(&added) < count && waited < PATIENCE_MS; waited++)
        pause_ms(1);
    assert_int_equal(count, atomic_load(&added));
}

static int begin(void **state)
{
    socklen_t bytes = sizeof address;

    (void)state;
    atomic_store(&added, 0);
    refuse = false;
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(0, bind(listen_fd, (struct sockaddr *)&address, sizeof address));
    assert_int_equal(0, listen(listen_fd, CLIENTS));
    return getsockname(listen_fd, (struct sockaddr *)&address, &bytes);
}

static void start(size_t max_connections)
{
    const struct acceptor_options options = {listen_fd, max_connections, add, &listen_fd};

    assert_status(NSA_OK, acceptor_open(&acceptor, &options, NULL));
    assert_status(NSA_OK, acceptor_start(acceptor, NULL));
}

static int end(void **state)
{
    (void)state;
    acceptor_close(acceptor);
    acceptor = NULL;
    for (size_t i = 0; i < atomic_load(&added); i++)
        close(added_fds[i]);
    close(listen_fd);
    return 0;
}

static void close_clients(size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(clients[i]);
}

/* Nothing is added past the limit, though there is time; one that closes makes room for one. */
static void the_limit_holds(void **state)
{
    (void)state;
    connect_clients(4);
    start(2);
    wait_added(2);
    pause_ms(50);
    assert_int_equal(2, atomic_load(&added));
    acceptor_closed_one(acceptor);
    wait_added(3);
    pause_ms(50);
    assert_int_equal(3, atomic_load(&added));
    acceptor_stop(acceptor);
    assert_int_equal(4, atomic_load(&added)); /* what waited is not turned away */
    acceptor_stop(acceptor);
    close_clients(4);
}

/* One that could not be handed on takes no place. */
static void what_is_refused_does_not_count(void **state)
{
    char byte;

    (void)state;
    refuse = true;
    connect_clients(3);
    start(1);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(0, recv(clients[i], &byte, 1, 0));
    acceptor_stop(acceptor);
    close_clients(3);
}

/* Connections wait until there are descriptors again. */
static void running_out_of_descriptors_is_survived(void **state)
{
    struct rlimit before;
    struct rlimit none;

    (void)state;
    connect_clients(2);
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &before));
    none = before;
    start(CLIENTS);
    wait_added(2);
    none.rlim_cur = 3; /* all of these are in use */
    clients[2] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &none));
    assert_int_equal(0, connect(clients[2], (struct sockaddr *)&address, sizeof address));
    pause_ms(50);
    assert_int_equal(2, atomic_load(&added));
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &before));
    wait_added(3);
    acceptor_stop(acceptor);
    close_clients(3);
}

static nsa_status open_and_close(void *context)
{
    const struct acceptor_options options = {listen_fd, 1, add, &listen_fd};
    struct acceptor *opened;
    nsa_status status = acceptor_open(&opened, &options, NULL);

    (void)context;
    if (status == NSA_OK) {
        acceptor_stop(opened); /* never started */
        acceptor_close(opened);
    }
    return status;
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    check_every_allocation(open_and_close, NULL);
    acceptor_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_limit_holds, begin, end),
        cmocka_unit_test_setup_teardown(what_is_refused_does_not_count, begin, end),
        cmocka_unit_test_setup_teardown(running_out_of_descriptors_is_survived, begin, end),
        cmocka_unit_test_setup_teardown(every_failed_allocation_is_survived, begin, end),
    };

    log_open(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LOGFMT, LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
