/* A repository of its own for each test, and what its models are loaded with. */
#ifndef TESTS_REPOSITORY_FILES_H
#define TESTS_REPOSITORY_FILES_H

#include "tests/unit/scrape.h"
#include "tests/unit/support.h"

#include "server/loader.h"
#include "server/log.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];
static struct config config;
static struct loader loader = {.config = &config};

static inline int begin(void **state)
{
    const nsa_batcher_options options = {.worker_count = 1, .max_queue_bytes = SIZE_MAX};

    (void)state;
    config =
        (struct config){.model_repository = root, .max_batch_rows = 64, .model_control = "none"};
    strcpy(root, "/tmp/nsa-repository-XXXXXX");
    assert_status(NSA_OK, nsa_batcher_open(&loader.batcher, &options, NULL));
    loader.metrics = created();
    return mkdtemp(root) ? 0 : -1;
}

static inline int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

/* Remove a part of the repository, or with "" all of it. */
static inline int take_away(const char *name)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", root, name);
    return nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* metrics_free() asserts that no model is left. */
static inline int end(void **state)
{
    (void)state;
    nsa_batcher_close(loader.batcher);
    metrics_free(loader.metrics);
    return take_away("");
}

static inline void put(const char *folder, const char *name, const void *bytes, size_t size)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", root, folder);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
    mkdir(path, 0755);
    strcat(path, "/");
    strcat(path, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(size, fwrite(bytes, 1, size, file));
    fclose(file);
}

static inline void put_golden(const char *folder, const char *golden)
{
    size_t size;
    unsigned char *bytes = read_golden(golden, &size);

    put(folder, "model.safetensors", bytes, size);
    free(bytes);
}

static inline void put_config(const char *model, const char *text)
{
    put(model, "config.json", text, strlen(text));
}

/* What the program does at its start. */
static inline nsa_status load(struct catalog **out, nsa_error *err)
{
    struct catalog *catalog = NULL;
    size_t refused = 0;
    nsa_status status = loader_reload(&catalog, &refused, &loader, NULL, err);

    if (status != NSA_OK)
        return status;
    if (refused > 0) {
        catalog_free(catalog);
        return nsa_error_set(err, NSA_EINVAL, "%zu refused", refused);
    }
    *out = catalog;
    return NSA_OK;
}

static inline void quiet_log(void)
{
    log_open(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LOGFMT, LOG_ERROR);
}

#endif
