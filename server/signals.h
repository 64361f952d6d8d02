/*
 * Signals as events for main() to wait for. By handlers, not by a mask: a library may have started
 * threads before main() that block nothing, and a signal left at its default ends the process
 * there.
 */
#ifndef SERVER_SIGNALS_H
#define SERVER_SIGNALS_H

#include <stdbool.h>

/* Take over SIGTERM, SIGINT and SIGHUP, and ignore SIGPIPE. False without file descriptors. */
bool signals_install(void);

/* Wait up to `timeout_ms` for the next signal; its number, or 0. */
int signals_wait(int timeout_ms);

#endif
