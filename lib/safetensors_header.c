#include "lib/safetensors_header.h"

#include <errno.h>
#include <nsa/size.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a message shows of a tensor's name, of its dtype, and of what is wrong with it. */
#define SHOWN_NAME_BYTES 100
#define SHOWN_DTYPE_BYTES 16
#define DETAIL_BYTES 320

#define METADATA_KEY "__metadata__"

_Static_assert(SIZE_MAX >= INT64_MAX, "a JSON integer that is not negative is a size_t");

/* Every dtype of the format, so that byte ranges are checked for tensors that nobody asks for. */
static const struct dtype_row {
    const char *name;
    size_t bits;
    nsa_dtype dtype;
} dtype_rows[] = {
    {"F32", 32, NSA_F32},
    {"F16", 16, NSA_F16},
    {"BF16", 16, NSA_BF16},
    {"F64", 64, NSA_F64},
    {"BOOL", 8, NSA_DTYPE_COUNT},
    {"U8", 8, NSA_DTYPE_COUNT},
    {"I8", 8, NSA_DTYPE_COUNT},
    {"I16", 16, NSA_DTYPE_COUNT},
    {"U16", 16, NSA_DTYPE_COUNT},
    {"I32", 32, NSA_DTYPE_COUNT},
    {"U32", 32, NSA_DTYPE_COUNT},
    {"I64", 64, NSA_DTYPE_COUNT},
    {"U64", 64, NSA_DTYPE_COUNT},
    {"C64", 64, NSA_DTYPE_COUNT},
    {"F8_E5M2", 8, NSA_DTYPE_COUNT},
    {"F8_E4M3", 8, NSA_DTYPE_COUNT},
    {"F8_E8M0", 8, NSA_DTYPE_COUNT},
    {"F6_E2M3", 6, NSA_DTYPE_COUNT},
    {"F6_E3M2", 6, NSA_DTYPE_COUNT},
    {"F4", 4, NSA_DTYPE_COUNT},
};

/* Bytes of `text`, at most `most`, that end between UTF-8 characters: their second and further
 * bytes are 10xxxxxx. */
static int shown_bytes(const char *text, size_t most)
{
    size_t bytes = strnlen(text, most);

    while (bytes > 0 && ((unsigned char)text[bytes] & 0xC0) == 0x80)
        bytes--;
    return (int)bytes;
}

/* What is wrong with the tensor called `name`. */
static nsa_status __attribute__((format(printf, 5, 6)))
tensor_error(const struct safetensors_header *header, const char *name, nsa_error *err,
             nsa_status status, const char *format, ...)
{
    char detail[DETAIL_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    return nsa_error_set(err, status, "%s: tensor \"%.*s\": %s", header->path,
                         shown_bytes(name, SHOWN_NAME_BYTES), name, detail);
}

static nsa_status out_of_memory(const struct safetensors_header *header, const char *what,
                                nsa_error *err)
{
    return nsa_error_set(err, NSA_ENOMEM, "%s: out of memory for %s", header->path, what);
}

static nsa_status parse_json(struct safetensors_header *header, const char *text, nsa_error *err)
{
    size_t bytes = header->bytes - SAFETENSORS_LENGTH_BYTES;
    json_error_t json_error;

    if (*text != '{')
        return nsa_error_set(err, NSA_EFORMAT,
                             "%s: expected a header that begins with '{', got byte 0x%02x",
                             header->path, (unsigned)(unsigned char)*text);
    errno = 0;
    header->root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &json_error);
    if (header->root)
        return NSA_OK;
    /* jansson reports some failed allocations as syntax errors, and some as nothing at all. */
    if (errno == ENOMEM)
        return out_of_memory(header, "its header", err);
    return nsa_error_set(err, NSA_EFORMAT, "%s: expected a header in JSON, got %s at its byte %d",
                         header->path, json_error.text, json_error.position);
}

static nsa_status check_metadata(const struct safetensors_header *header, json_t *metadata,
                                 nsa_error *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(metadata))
        return nsa_error_set(err, NSA_EFORMAT, "%s: expected " METADATA_KEY " to be an object",
                             header->path);
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return nsa_error_set(err, NSA_EFORMAT,
                                 "%s: expected each value of " METADATA_KEY " to be a string",
                                 header->path);
    }
    return NSA_OK;
}

/* A JSON integer that is not negative; false for all else. */
static bool parse_size(size_t *out, const json_t *value)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (size_t)json_integer_value(value);
    return true;
}

static nsa_status parse_shape(nsa_shape *out, const struct safetensors_header *header,
                              const char *name, const json_t *shape, nsa_error *err)
{
    size_t rank = json_array_size(shape);

    if (!json_is_array(shape))
        return tensor_error(header, name, err, NSA_EFORMAT, "expected \"shape\" to be an array");
    if (rank > NSA_MAX_RANK)
        return tensor_error(header, name, err, NSA_ELIMIT,
                            "expected at most %d dimensions, got %zu", NSA_MAX_RANK, rank);
    for (size_t i = 0; i < rank; i++) {
        if (!parse_size(&out->dims[i], json_array_get(shape, i)))
            return tensor_error(header, name, err, NSA_EFORMAT,
                                "expected shape[%zu] to be a whole number", i);
    }
    out->rank = rank;
    return NSA_OK;
}

static const struct dtype_row *find_dtype(const char *name)
{
    for (size_t i = 0; i < sizeof dtype_rows / sizeof *dtype_rows; i++) {
        if (strcmp(dtype_rows[i].name, name) == 0)
            return &dtype_rows[i];
    }
    return NULL;
}

/* Bytes that a tensor's shape and dtype ask for. */
static nsa_status count_bytes(size_t *out, const struct safetensors_header *header,
                              const nsa_safetensors_entry *entry, size_t bits, nsa_error *err)
{
    nsa_error why = {""};
    size_t count = 0;
    size_t total = 0;
    nsa_status status = nsa_shape_count(&count, &entry->shape, &why);

    if (status != NSA_OK)
        return tensor_error(header, entry->name, err, status, "%s", why.message);
    if (!nsa_size_mul(&total, count, bits))
        return tensor_error(header, entry->name, err, NSA_ELIMIT,
                            "expected at most %zu bits, got more", SIZE_MAX);
    if (total % 8 != 0)
        return tensor_error(header, entry->name, err, NSA_EFORMAT,
                            "expected a whole number of bytes, got %zu bits", total);
    *out = total / 8;
    return NSA_OK;
}

/* Fill `entry`, with an offset from the start of the data. */
static nsa_status parse_tensor(nsa_safetensors_entry *entry,
                               const struct safetensors_header *header, const char *name,
                               const json_t *value, nsa_error *err)
{
    const char *dtype_text = json_string_value(json_object_get(value, "dtype"));
    const json_t *offsets = json_object_get(value, "data_offsets");
    const struct dtype_row *row;
    size_t begin = 0;
    size_t end = 0;
    size_t bytes = 0;
    nsa_status status;

    if (!json_is_object(value))
        return tensor_error(header, name, err, NSA_EFORMAT, "expected an object");
    if (!dtype_text)
        return tensor_error(header, name, err, NSA_EFORMAT, "expected \"dtype\" to be a string");
    row = find_dtype(dtype_text);
    if (!row)
        return tensor_error(header, name, err, NSA_EFORMAT,
                            "expected a dtype of the format, such as F32 or BF16, got \"%.*s\"",
                            shown_bytes(dtype_text, SHOWN_DTYPE_BYTES), dtype_text);
    *entry = (nsa_safetensors_entry){.name = name, .dtype_text = row->name, .dtype = row->dtype};
    status = parse_shape(&entry->shape, header, name, json_object_get(value, "shape"), err);
    if (status == NSA_OK)
        status = count_bytes(&bytes, header, entry, row->bits, err);
    if (status != NSA_OK)
        return status;
    if (json_array_size(offsets) != 2 || !parse_size(&begin, json_array_get(offsets, 0)) ||
        !parse_size(&end, json_array_get(offsets, 1)) || begin > end)
        return tensor_error(header, name, err, NSA_EFORMAT,
                            "expected \"data_offsets\" to be [begin, end] with begin <= end");
    if (end - begin != bytes)
        return tensor_error(header, name, err, NSA_EFORMAT,
                            "expected %zu bytes for its shape and dtype, got data_offsets of %zu",
                            bytes, end - begin);
    entry->offset = begin;
    entry->bytes = bytes;
    return NSA_OK;
}

/* By place; tensors without bytes come before the one that begins where they lie. */
static int compare_entries(const void *left, const void *right)
{
    const nsa_safetensors_entry *a = left;
    const nsa_safetensors_entry *b = right;

    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Sort the entries, check that they tile the data, and make their offsets those of the file. */
static nsa_status place_entries(struct safetensors_header *header, nsa_error *err)
{
    size_t data_bytes = header->file_bytes - header->bytes;
    size_t at = 0;

    qsort(header->entries, header->count, sizeof *header->entries, compare_entries);
    for (size_t i = 0; i < header->count; i++) {
        nsa_safetensors_entry *entry = &header->entries[i];

        if (entry->offset != at)
            return tensor_error(header, entry->name, err, NSA_EFORMAT,
                                "expected its data to begin at %zu, where the data before it ends, "
                                "got %zu",
                                at, (size_t)entry->offset);
        if (entry->bytes > data_bytes - at)
            return tensor_error(header, entry->name, err, NSA_EFORMAT,
                                "expected its data to end within the file's %zu bytes of data, "
                                "got %zu",
                                data_bytes, at + (size_t)entry->bytes);
        at += (size_t)entry->bytes;
        entry->offset += header->bytes;
    }
    if (at != data_bytes)
        return nsa_error_set(err, NSA_EFORMAT,
                             "%s: expected %zu bytes of data after the header, got %zu",
                             header->path, at, data_bytes);
    return NSA_OK;
}

nsa_status nsa_safetensors_header_measure(struct safetensors_header *header,
                                          const unsigned char length[SAFETENSORS_LENGTH_BYTES],
                                          nsa_error *err)
{
    size_t most = header->file_bytes - SAFETENSORS_LENGTH_BYTES;
    uint64_t bytes = 0;

    for (size_t i = 0; i < SAFETENSORS_LENGTH_BYTES; i++)
        bytes |= (uint64_t)length[i] << (8 * i);
    if (bytes > NSA_SAFETENSORS_MAX_HEADER_BYTES)
        return nsa_error_set(err, NSA_ELIMIT,
                             "%s: expected a header of at most %zu bytes, got a length of %ju",
                             header->path, NSA_SAFETENSORS_MAX_HEADER_BYTES, (uintmax_t)bytes);
    if (bytes == 0 || bytes > most)
        return nsa_error_set(err, NSA_EFORMAT,
                             "%s: expected a header of at least 1 byte and at most the %zu bytes "
                             "that follow its length, got a length of %ju",
                             header->path, most, (uintmax_t)bytes);
    header->bytes = SAFETENSORS_LENGTH_BYTES + (size_t)bytes;
    return NSA_OK;
}

static int compare_names(const void *a, const void *b, void *entries)
{
    const nsa_safetensors_entry *all = entries;

    return strcmp(all[*(const size_t *)a].name, all[*(const size_t *)b].name);
}

/* A file may hold a great many tensors, and each model looks for several. */
static nsa_status index_names(struct safetensors_header *header, nsa_error *err)
{
    header->by_name = calloc(header->count + 1, sizeof *header->by_name);
    if (!header->by_name)
        return out_of_memory(header, "its tensors", err);
    for (size_t i = 0; i < header->count; i++)
        header->by_name[i] = i;
    qsort_r(header->by_name, header->count, sizeof *header->by_name, compare_names,
            header->entries);
    return NSA_OK;
}

static nsa_status parse_entries(struct safetensors_header *header, nsa_error *err)
{
    nsa_status status;
    const char *key;
    json_t *value;

    header->entries = calloc(json_object_size(header->root) + 1, sizeof *header->entries);
    if (!header->entries)
        return out_of_memory(header, "its tensors", err);
    json_object_foreach(header->root, key, value)
    {
        if (strcmp(key, METADATA_KEY) == 0)
            status = check_metadata(header, value, err);
        else
            status = parse_tensor(&header->entries[header->count++], header, key, value, err);
        if (status != NSA_OK)
            return status;
    }
    status = place_entries(header, err);
    return status == NSA_OK ? index_names(header, err) : status;
}

size_t nsa_safetensors_header_find(const struct safetensors_header *header, const char *name)
{
    size_t begin = 0;
    size_t end = header->count;

    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;
        int order = strcmp(name, header->entries[header->by_name[middle]].name);

        if (order == 0)
            return header->by_name[middle];
        if (order < 0)
            end = middle;
        else
            begin = middle + 1;
    }
    return SIZE_MAX;
}

nsa_status nsa_safetensors_header_parse(struct safetensors_header *header, const char *text,
                                        nsa_error *err)
{
    nsa_status status = parse_json(header, text, err);

    return status == NSA_OK ? parse_entries(header, err) : status;
}

void nsa_safetensors_header_free(struct safetensors_header *header)
{
    json_decref(header->root);
    free(header->by_name);
    free(header->entries);
    header->by_name = NULL;
    header->root = NULL;
    header->entries = NULL;
    header->count = 0;
}
