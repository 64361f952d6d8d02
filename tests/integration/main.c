/*
 * The program over HTTP. Run from the top of the repository; NSAD names the program (build/nsad
 * without it), and an argument such as "drain*" the tests to run.
 */
#include "tests/integration/groups.h"
#include "tests/unit/support.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

/* The program would take its options from there. */
static void forget_options(void)
{
    for (size_t i = 0; environ[i];) {
        char name[128];

        snprintf(name, sizeof name, "%.*s", (int)strcspn(environ[i], "="), environ[i]);
        if (strncmp(name, "NSAD_", 5) == 0)
            unsetenv(name);
        else
            i++;
    }
}

int main(int argc, char *argv[])
{
    static int (*const groups[])(void) = {
        run_golden,     run_formats,   run_encodings, run_transport,  run_errors,
        run_truncation, run_models,    run_refused,   run_reload,     run_control,
        run_oip_rules,  run_oip_traps, run_oip_same,  run_oip_shared, run_command,
        run_invariance, run_limits,    run_timeouts,  run_drain,      run_metrics,
    };
    int failed = 0;

    forget_options();
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        return EXIT_FAILURE;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        failed += groups[i]();
    curl_global_cleanup();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
