/* What the tests of the options share: loading a configuration that must, or must not, load. */
#ifndef TESTS_OPTIONS_SUPPORT_H
#define TESTS_OPTIONS_SUPPORT_H

#include "tests/unit/support.h"

#include "server/options.h"

#include <stddef.h>
#include <string.h>

#define MAX_ARGUMENTS 16

#define ARGS(...) ((const char *const[]){"nsad", __VA_ARGS__, NULL})
#define NO_ARGS ((const char *const[]){"nsad", NULL})
#define ENV(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NO_ENV ((const char *const[]){NULL})

static inline nsa_status load(struct config *out, const char *const *argv, const char *const *envp,
                              nsa_error *err)
{
    char *arguments[MAX_ARGUMENTS], *variables[MAX_ARGUMENTS];
    int argc = 0;
    size_t envc = 0;

    for (; argv[argc]; argc++)
        arguments[argc] = (char *)argv[argc];
    for (; envp[envc]; envc++)
        variables[envc] = (char *)envp[envc];
    arguments[argc] = variables[envc] = NULL;
    return config_load(out, argc, arguments, variables, err);
}

/* A configuration that must load. */
static inline struct config loaded(const char *const *argv, const char *const *envp)
{
    struct config config;
    nsa_error err;

    if (load(&config, argv, envp, &err) != NSA_OK)
        fail_msg("%s", err.message);
    return config;
}

/* Loading must fail, name all of `parts` (up to NULL) and leave the output alone. */
static inline void refused(nsa_status expected, const char *const *argv, const char *const *envp,
                           const char *const *parts)
{
    struct config config, before;
    nsa_error err = {""};

    memset(&config, 0x5A, sizeof config);
    before = config;
    assert_status(expected, load(&config, argv, envp, &err));
    assert_memory_equal(&before, &config, sizeof config);
    for (; *parts; parts++) {
        if (!strstr(err.message, *parts))
            fail_msg("expected \"%s\" in: %s", *parts, err.message);
    }
    assert_status(expected, load(&config, argv, envp, NULL));
}

#define REFUSED(status, argv, envp, ...)                                                           \
    refused((status), (argv), (envp), (const char *const[]){__VA_ARGS__, NULL})

#endif
