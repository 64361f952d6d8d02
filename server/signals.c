#include "server/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

/* Written by the handler, one byte a signal, read by signals_wait(); set before any handler. */
static int signal_pipe[2];

static void note_signal(int number)
{
    unsigned char byte = (unsigned char)number;
    int saved = errno;

    /* A full pipe holds more signals than anyone waits for. */
    if (write(signal_pipe[1], &byte, 1) < 0)
        errno = saved;
}

bool signals_install(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action = {.sa_handler = note_signal, .sa_flags = SA_RESTART};

    if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        return false;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    return true;
}

int signals_wait(int timeout_ms)
{
    struct pollfd readable = {.fd = signal_pipe[0], .events = POLLIN};
    unsigned char byte;

    if (poll(&readable, 1, timeout_ms) <= 0 || read(signal_pipe[0], &byte, 1) != 1)
        return 0;
    return byte;
}
