#include "tests/unit/support.h"

#include "server/connections.h"
#include "server/healthcheck.h"
#include "server/listener.h"

#include <nsa/batcher.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MINUTE_NS UINT64_C(60000000000)

/* A connection on one end of a pair of sockets; the test holds the other. */
struct pair {
    struct connection *connection;
    int peer, fd;
};

static struct pair make_pair(struct connections *list)
{
    int fds[2];
    struct pair pair;

    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    pair.peer = fds[0];
    pair.fd = fds[1];
    pair.connection = connections_add(list, fds[1]);
    assert_non_null(pair.connection);
    return pair;
}

static void drop_pair(struct connections *list, struct pair *pair)
{
    connections_remove(list, pair->connection);
    close(pair->fd);
    close(pair->peer);
}

/* Whether the other end sees the connection's end, after `expected`. */
static bool is_cut(const struct pair *pair, const char *expected)
{
    char bytes[64] = "";
    ssize_t got = recv(pair->peer, bytes, sizeof bytes - 1, MSG_DONTWAIT);

    if (*expected) {
        if (got != (ssize_t)strlen(expected) || strcmp(bytes, expected) != 0)
            return false;
        got = recv(pair->peer, bytes, sizeof bytes, MSG_DONTWAIT);
    }
    return got == 0;
}

static void the_sweep_cuts_what_is_over_its_time(void **state)
{
    static const char *const slow[2] = {"slow", "slow, under /v2"};
    struct connections list;
    struct pair idle, reading, oip, answering;

    (void)state;
    connections_init(&list);
    idle = make_pair(&list);
    reading = make_pair(&list);
    oip = make_pair(&list);
    answering = make_pair(&list);
    connection_enter(reading.connection, CONNECTION_READING);
    connection_enter(oip.connection, CONNECTION_READING);
    connection_enter(answering.connection, CONNECTION_ANSWERING);
    assert_int_equal(0, connections_sweep(&list, MINUTE_NS, MINUTE_NS, slow));
    assert_false(is_cut(&idle, "") || is_cut(&reading, "slow") || is_cut(&answering, ""));

    atomic_store(&reading.connection->since_ns, nsa_now_ns() - 2 * MINUTE_NS);
    atomic_store(&answering.connection->since_ns, nsa_now_ns() - 2 * MINUTE_NS);
    atomic_store(&oip.connection->since_ns, nsa_now_ns() - 2 * MINUTE_NS);
    atomic_store(&oip.connection->oip, true);
    assert_int_equal(2, connections_sweep(&list, MINUTE_NS, MINUTE_NS, slow));
    assert_true(is_cut(&reading, "slow"));
    assert_true(is_cut(&oip, "slow, under /v2"));
    assert_int_equal(CONNECTION_CUT, atomic_load(&reading.connection->phase));
    assert_false(connection_enter(reading.connection, CONNECTION_ANSWERING));
    assert_int_equal(0, connections_sweep(&list, MINUTE_NS, MINUTE_NS, slow));

    atomic_store(&idle.connection->since_ns, nsa_now_ns() - 2 * MINUTE_NS);
    assert_int_equal(0, connections_sweep(&list, MINUTE_NS, MINUTE_NS, slow));
    assert_true(is_cut(&idle, ""));
    assert_false(is_cut(&answering, ""));
    drop_pair(&list, &reading);
    drop_pair(&list, &oip);
    drop_pair(&list, &idle);
    drop_pair(&list, &answering);
    assert_null(list.first);
    connections_destroy(&list);
}

static void idle_means_no_request_and_no_bytes(void **state)
{
    struct connections list;
    struct pair first, second;

    (void)state;
    connections_init(&list);
    assert_true(connections_idle(&list));
    first = make_pair(&list);
    second = make_pair(&list);
    assert_true(connections_idle(&list));
    connection_enter(first.connection, CONNECTION_ANSWERING);
    assert_false(connections_idle(&list));
    connection_enter(first.connection, CONNECTION_IDLE);
    assert_int_equal(1, send(second.peer, "G", 1, 0));
    assert_false(connections_idle(&list));
    drop_pair(&list, &second);
    assert_true(connections_idle(&list));
    drop_pair(&list, &first);
    connections_destroy(&list);
}

static void a_connection_without_memory_is_refused(void **state)
{
    struct connections list;

    (void)state;
    connections_init(&list);
    fail_allocation_after(0);
    assert_null(connections_add(&list, 0));
    fail_allocation_after(-1);
    connections_remove(&list, NULL);
    connections_destroy(&list);
}

static void port_0_picks_one_and_a_taken_one_is_refused(void **state)
{
    char bound[LISTENER_ADDRESS_BYTES];
    char again[LISTENER_ADDRESS_BYTES];
    nsa_error err;
    int fd;
    int second;

    (void)state;
    assert_status(NSA_OK, listener_open(&fd, bound, "127.0.0.1:0", &err));
    assert_int_equal(0, strncmp(bound, "127.0.0.1:", 10));
    assert_true(atoi(bound + 10) > 0);
    assert_status(NSA_EIO, listener_open(&second, again, bound, &err));
    assert_message(err, bound);
    close(fd);
    assert_status(NSA_EINVAL, listener_open(&fd, bound, "nonsense", &err));
}

static void a_stale_socket_file_is_replaced_a_live_one_not(void **state)
{
    char address[128];
    char bound[LISTENER_ADDRESS_BYTES];
    nsa_error err;
    int first;
    int second;

    (void)state;
    snprintf(address, sizeof address, "unix:/tmp/nsa-listener-%ld", (long)getpid());
    assert_status(NSA_OK, listener_open(&first, bound, address, &err));
    assert_string_equal(address, bound);
    assert_status(NSA_EIO, listener_open(&second, bound, address, &err));
    close(first);
    assert_status(NSA_OK, listener_open(&second, bound, address, &err));
    close(second);
    listener_unlink(bound);
    assert_int_not_equal(0, access(address + 5, F_OK));
    listener_unlink("127.0.0.1:8080");
}

static void the_health_check_wants_a_server(void **state)
{
    char address[128];
    nsa_error err;

    (void)state;
    assert_status(NSA_EINVAL, healthcheck("https://127.0.0.1/", &err));
    assert_message(err, "expected http://HOST:PORT/PATH or unix:/PATH, got 'https://127.0.0.1/'");
    assert_status(NSA_EINVAL, healthcheck("http://127.0.0.1/", &err));
    snprintf(address, sizeof address, "unix:/tmp/nsa-nowhere-%ld", (long)getpid());
    assert_status(NSA_EIO, healthcheck(address, &err));
    assert_message(err, address);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sweep_cuts_what_is_over_its_time),
        cmocka_unit_test(idle_means_no_request_and_no_bytes),
        cmocka_unit_test(a_connection_without_memory_is_refused),
        cmocka_unit_test(port_0_picks_one_and_a_taken_one_is_refused),
        cmocka_unit_test(a_stale_socket_file_is_replaced_a_live_one_not),
        cmocka_unit_test(the_health_check_wants_a_server),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
