#include "server/repository.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_NAME_BYTES 128
#define MAX_PATH_BYTES ((size_t)4096)

struct scan {
    const char *root;
    void (*each)(void *context, const struct repository_entry *entry);
    void (*refused)(void *context, const char *path, const char *reason);
    void *context;
};

bool model_name_valid(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "0123456789._-");

    return length > 0 && length <= MAX_NAME_BYTES && name[length] == '\0' && name[0] != '.';
}

uint32_t model_version_parse(const char *text)
{
    unsigned long version;

    if (text[0] < '1' || text[0] > '9' || strspn(text, "0123456789") != strlen(text))
        return 0;
    errno = 0;
    version = strtoul(text, NULL, 10);
    return errno == 0 && version <= UINT32_MAX ? (uint32_t)version : 0;
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int is_version(const struct dirent *entry)
{
    return model_version_parse(entry->d_name) != 0;
}

static bool is_directory(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* Write the joined path to `out`; false when it is too long. */
static bool join(char out[MAX_PATH_BYTES], const char *a, const char *b, const char *c)
{
    int length = snprintf(out, MAX_PATH_BYTES, "%s/%s%s", a, b, c);

    return length > 0 && (size_t)length < MAX_PATH_BYTES;
}

static void free_names(struct dirent **names, int count)
{
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static void scan_model(const struct scan *scan, const char *name, const char *directory)
{
    struct dirent **versions = NULL;
    struct model_config config = {0};
    char path[MAX_PATH_BYTES];
    nsa_error err;
    int count;

    if (!model_name_valid(name)) {
        scan->refused(scan->context, directory,
                      "a model's name is expected to be 1 to 128 letters, digits, '.', '_' or '-'");
        return;
    }
    if (!join(path, directory, "config.json", "")) {
        scan->refused(scan->context, directory, "the path is too long");
        return;
    }
    if (model_config_read(&config, path, &err) != NSA_OK) {
        scan->refused(scan->context, path, err.message);
        return;
    }
    count = scandir(directory, &versions, is_version, compare_names);
    if (count <= 0)
        scan->refused(scan->context, directory,
                      count == 0 ? "expected a version, as in 1/model.safetensors, got none"
                                 : strerror(errno));
    for (int i = 0; i < count; i++) {
        struct repository_entry entry = {name, model_version_parse(versions[i]->d_name), path,
                                         &config};

        if (join(path, directory, versions[i]->d_name, "/model.safetensors"))
            scan->each(scan->context, &entry);
        else
            scan->refused(scan->context, directory, "the path is too long");
    }
    free_names(versions, count);
    model_config_free(&config);
}

nsa_status repository_scan(const char *root,
                           void (*each)(void *context, const struct repository_entry *entry),
                           void (*refused)(void *context, const char *path, const char *reason),
                           void *context, nsa_error *err)
{
    const struct scan scan = {root, each, refused, context};
    struct dirent **names = NULL;
    int count = scandir(root, &names, is_visible, compare_names);

    if (count < 0)
        return nsa_error_set(err, errno == ENOMEM ? NSA_ENOMEM : NSA_EIO, "%s: %s", root,
                             strerror(errno));
    for (int i = 0; i < count; i++) {
        char directory[MAX_PATH_BYTES];

        if (!join(directory, root, names[i]->d_name, ""))
            refused(context, root, "a path under it is too long");
        else if (is_directory(directory))
            scan_model(&scan, names[i]->d_name, directory);
    }
    free_names(names, count);
    return NSA_OK;
}
