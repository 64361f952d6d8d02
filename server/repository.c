#include "server/repository.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_PATH_BYTES ((size_t)4096)
#define NS_PER_S UINT64_C(1000000000)

bool model_name_valid(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "0123456789._-");

    return length > 0 && length <= REPOSITORY_MAX_NAME_BYTES && name[length] == '\0' &&
           name[0] != '.';
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

struct file_stamp file_stamp_of(const char *path)
{
    struct stat info;

    if (stat(path, &info) != 0)
        return (struct file_stamp){0};
    return (struct file_stamp){
        .device = info.st_dev,
        .inode = info.st_ino,
        .bytes = (uint64_t)info.st_size,
        .modified_ns = (uint64_t)info.st_mtim.tv_sec * NS_PER_S + (uint64_t)info.st_mtim.tv_nsec,
        .changed_ns = (uint64_t)info.st_ctim.tv_sec * NS_PER_S + (uint64_t)info.st_ctim.tv_nsec,
    };
}

bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b)
{
    return memcmp(a, b, sizeof *a) == 0; /* five integers, nothing between them */
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

static void visit_versions(const struct repository_visitor *visitor, const char *directory,
                           struct repository_entry *entry)
{
    struct dirent **versions = NULL;
    bool select = entry->config && model_config_is_select(entry->config);
    int count = scandir(directory, &versions, is_version, compare_names);
    char path[MAX_PATH_BYTES];

    entry->path = select ? directory : path;
    if (count == 0 && select) {
        entry->version = 1;
        visitor->found(visitor->context, entry);
    } else if (count <= 0) {
        visitor->refused(visitor->context, entry->name, directory,
                         count == 0 ? "expected a version, as in 1/model.safetensors, got none"
                                    : strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        entry->version = model_version_parse(versions[i]->d_name);
        if (!join(path, directory, versions[i]->d_name, "/model.safetensors")) {
            visitor->refused(visitor->context, entry->name, directory, "the path is too long");
            continue;
        }
        if (!select)
            entry->weights = file_stamp_of(path);
        visitor->found(visitor->context, entry);
    }
    free_names(versions, count);
}

static void visit_model(const struct repository_visitor *visitor, const char *name,
                        const char *directory, const struct model_config *given)
{
    struct repository_entry entry = {.name = name, .config = given};
    struct model_config config = {0};
    char path[MAX_PATH_BYTES];
    nsa_error err;

    if (!join(path, directory, "config.json", "")) {
        visitor->refused(visitor->context, name, directory, "the path is too long");
        return;
    }
    if (!given) {
        entry.config = &config;
        entry.config_file = file_stamp_of(path);
        if (model_config_read(&config, path, &err) != NSA_OK) {
            visitor->refused(visitor->context, name, path, err.message);
            return;
        }
    }
    visit_versions(visitor, directory, &entry);
    model_config_free(&config);
}

nsa_status repository_scan(const char *root, const struct repository_visitor *visitor,
                           nsa_error *err)
{
    struct dirent **names = NULL;
    int count = scandir(root, &names, is_visible, compare_names);

    if (count < 0)
        return nsa_error_set(err, errno == ENOMEM ? NSA_ENOMEM : NSA_EIO, "%s: %s", root,
                             strerror(errno));
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        char directory[MAX_PATH_BYTES];

        if (!join(directory, root, name, ""))
            visitor->refused(visitor->context, name, root, "a path under it is too long");
        else if (!is_directory(directory))
            continue;
        else if (!model_name_valid(name))
            visitor->refused(visitor->context, name, directory,
                             "a model's name is expected to be 1 to 128 letters, digits, '.', '_' "
                             "or '-'");
        else
            visit_model(visitor, name, directory, NULL);
    }
    free_names(names, count);
    return NSA_OK;
}

nsa_status repository_scan_model(const char *root, const char *name,
                                 const struct model_config *config,
                                 const struct repository_visitor *visitor, nsa_error *err)
{
    char directory[MAX_PATH_BYTES];

    if (!model_name_valid(name) || !join(directory, root, name, "") || !is_directory(directory))
        return nsa_error_set(err, NSA_ENOTFOUND, "'%.128s' is not in the model repository", name);
    visit_model(visitor, name, directory, config);
    return NSA_OK;
}

void repository_list(const char *root, void (*each)(void *context, const char *name), void *context)
{
    struct dirent **names = NULL;
    int count = scandir(root, &names, is_visible, compare_names);

    for (int i = 0; i < count; i++) {
        char directory[MAX_PATH_BYTES];

        if (model_name_valid(names[i]->d_name) && join(directory, root, names[i]->d_name, "") &&
            is_directory(directory))
            each(context, names[i]->d_name);
    }
    free_names(names, count);
}
