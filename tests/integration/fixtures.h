/* Weight files and repositories for the tests. */
#ifndef TESTS_FIXTURES_H
#define TESTS_FIXTURES_H

#include "tests/integration/daemon.h"

#include <stddef.h>

/* A compress model of n = 2, d = 8, that every test may use. */
#define TINY_WEIGHTS "tests/golden/compress_tiny.safetensors"
#define TINY_ROW 16

/* A posembed model of max_len 4, dim 2: 1 to 8 in order. Caller unlinks the file. */
const char *write_table(const char *name);

/* A shared daemon with "compress" (the tiny one) and "posembed" (the table); a group's setup. */
int start_small(void **state);

/* The group's teardown. */
int stop_small(void **state);

/* What start_small() started. */
struct daemon *small(void);

#define REPOSITORY_MAX_PATH_BYTES 512

/* A new empty directory; its name is filled in. */
void repository_make(char root[REPOSITORY_MAX_PATH_BYTES]);

/* Write root/path, making its directories. */
void repository_put(const char *root, const char *path, const void *bytes, size_t size);
void repository_put_text(const char *root, const char *path, const char *text);

/* Copy the file `from` to root/path. */
void repository_copy(const char *root, const char *path, const char *from);

/* Remove root/path and all in it. */
void repository_gone(const char *root, const char *path);

/* Remove the directory and all in it. */
void repository_remove(const char *root);

/* "NAME=PATH" for --model; the text is static, good for eight calls. */
const char *model_argument(const char *name, const char *path);

/* The whole file; caller frees. */
char *read_whole(const char *path, size_t *size);

#endif
