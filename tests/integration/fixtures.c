#include "tests/integration/fixtures.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct daemon *small_daemon;

const char *write_table(const char *name)
{
    static const float values[] = {1, 2, 3, 4, 5, 6, 7, 8};
    const struct weight table = {"embedding.weight", NSA_F32, {2, {4, 2}}, values};

    return write_safetensors(name, &table, 1);
}

int start_small(void **state)
{
    const char *table = write_table("table.safetensors");

    (void)state;
    small_daemon = daemon_share(
        DAEMON("--model", "compress=" TINY_WEIGHTS, "--model", model_argument("posembed", table)));
    unlink(table);
    return 0;
}

int stop_small(void **state)
{
    (void)state;
    daemon_stop(small_daemon);
    return 0;
}

struct daemon *small(void)
{
    return small_daemon;
}

/* --- files --------------------------------------------------------------------------------- */

void repository_make(char root[REPOSITORY_MAX_PATH_BYTES])
{
    snprintf(root, REPOSITORY_MAX_PATH_BYTES, "/tmp/nsa-test-%ld-XXXXXX", (long)getpid());
    assert_non_null(mkdtemp(root));
}

void repository_put(const char *root, const char *path, const void *bytes, size_t size)
{
    char whole[2 * REPOSITORY_MAX_PATH_BYTES];
    FILE *file;

    snprintf(whole, sizeof whole, "%s/%s", root, path);
    for (char *slash = strchr(whole + strlen(root) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(whole, 0700);
        *slash = '/';
    }
    file = fopen(whole, "wb");
    assert_non_null(file);
    assert_int_equal(size, fwrite(bytes, 1, size, file));
    assert_int_equal(0, fclose(file));
}

void repository_put_text(const char *root, const char *path, const char *text)
{
    repository_put(root, path, text, strlen(text));
}

char *read_whole(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    struct stat info;
    char *bytes;

    if (!file)
        fail_msg("cannot open %s", path);
    assert_int_equal(0, fstat(fileno(file), &info));
    *size = (size_t)info.st_size;
    bytes = malloc(*size + 1);
    assert_non_null(bytes);
    assert_int_equal(*size, fread(bytes, 1, *size, file));
    bytes[*size] = '\0';
    fclose(file);
    return bytes;
}

void repository_copy(const char *root, const char *path, const char *from)
{
    size_t size;
    char *bytes = read_whole(from, &size);

    repository_put(root, path, bytes, size);
    free(bytes);
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

void repository_remove(const char *root)
{
    assert_int_equal(0, nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS));
}

void repository_gone(const char *root, const char *path)
{
    char whole[2 * REPOSITORY_MAX_PATH_BYTES];

    snprintf(whole, sizeof whole, "%s/%s", root, path);
    repository_remove(whole);
}

const char *model_argument(const char *name, const char *path)
{
    static char texts[8][2 * REPOSITORY_MAX_PATH_BYTES];
    static size_t slot;
    char *text = texts[slot++ % 8];

    snprintf(text, sizeof texts[0], "%s=%s", name, path);
    return text;
}
