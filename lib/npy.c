/*
 * The header of an .npy file is a Python dictionary literal. What is read here is the part of
 * Python's grammar that NumPy writes, with Python's freedom in spacing, quotes, the order of keys
 * and trailing commas; expressions, escapes and nested values other than the shape are refused.
 */
#include <assert.h>
#include <nsa/decimal.h>
#include <nsa/npy.h>
#include <nsa/size.h>
#include <stdint.h>
#include <string.h>

static const char magic[] = "\x93NUMPY";
#define MAGIC_BYTES (sizeof magic - 1)
#define VERSION_BYTES 2
#define DATA_ALIGN 64

/* Of a name or a value from the file, what a message shows. */
#define SHOWN_BYTES 32

static const char *const descrs[NSA_DTYPE_COUNT] = {
    [NSA_F32] = "<f4", [NSA_F16] = "<f2", [NSA_F64] = "<f8", [NSA_I64] = "<i8"};

/* The unread part of the header. */
struct cursor {
    const char *at;
    const char *end;
};

/* A string's contents, without its quotes. */
struct text {
    const char *at;
    size_t size;
};

struct header {
    struct text descr;
    bool fortran_order;
    nsa_shape shape;
    bool seen[3]; /* as `keys` below lists them */
};

/* A copy of `text` for a message: cut, and printable. */
static const char *show(char shown[SHOWN_BYTES + 1], struct text text)
{
    size_t size = text.size < SHOWN_BYTES ? text.size : SHOWN_BYTES;

    for (size_t i = 0; i < size; i++)
        shown[i] = (char)(text.at[i] >= ' ' && text.at[i] <= '~' ? text.at[i] : '?');
    shown[size] = '\0';
    return shown;
}

static bool text_is(struct text text, const char *wanted)
{
    return strlen(wanted) == text.size && memcmp(wanted, text.at, text.size) == 0;
}

/* Skip white space; whether that reached the end. */
static bool at_end(struct cursor *c)
{
    while (c->at < c->end && memchr(" \t\r\n\f", *c->at, 5))
        c->at++;
    return c->at == c->end;
}

/* The next character that is not white space, left unread; '\0', never legal, at the end. */
static char peek(struct cursor *c)
{
    return (char)(at_end(c) ? '\0' : *c->at);
}

static bool accept_char(struct cursor *c, char wanted)
{
    if (peek(c) != wanted)
        return false;
    c->at++;
    return true;
}

/* `what` was expected where the cursor stands. */
static nsa_status expected(struct cursor *c, const char *what, nsa_error *err)
{
    char shown[SHOWN_BYTES + 1];

    if (at_end(c))
        return nsa_error_set(err, NSA_EFORMAT, "npy header: expected %s, got its end", what);
    return nsa_error_set(err, NSA_EFORMAT, "npy header: expected %s, got \"%s\"", what,
                         show(shown, (struct text){c->at, (size_t)(c->end - c->at)}));
}

static nsa_status parse_string(struct text *out, struct cursor *c, const char *what, nsa_error *err)
{
    char quote = peek(c);
    const char *close;

    if (quote != '\'' && quote != '"')
        return expected(c, what, err);
    close = memchr(c->at + 1, quote, (size_t)(c->end - c->at) - 1);
    if (!close || memchr(c->at, '\\', (size_t)(close - c->at)))
        return expected(c, "a string without escapes, and its closing quote", err);
    *out = (struct text){c->at + 1, (size_t)(close - c->at) - 1};
    c->at = close + 1;
    return NSA_OK;
}

static nsa_status parse_descr(struct header *h, struct cursor *c, nsa_error *err)
{
    char first = peek(c);

    if (first == '[' || first == '(')
        return nsa_error_set(err, NSA_EUNSUPPORTED,
                             "npy descr: expected one element type, got a structured type");
    return parse_string(&h->descr, c, "descr to be a string", err);
}

static nsa_status parse_fortran_order(struct header *h, struct cursor *c, nsa_error *err)
{
    static const char *const literals[] = {"False", "True"};

    peek(c);
    for (size_t i = 0; i < 2; i++) {
        size_t size = strlen(literals[i]);

        if ((size_t)(c->end - c->at) < size || memcmp(c->at, literals[i], size) != 0)
            continue;
        c->at += size;
        h->fortran_order = i == 1;
        return NSA_OK;
    }
    return expected(c, "fortran_order to be True or False", err);
}

static bool is_digit(char ch)
{
    return ch >= '0' && ch <= '9';
}

static nsa_status parse_dim(nsa_shape *shape, struct cursor *c, nsa_error *err)
{
    const char *start;
    size_t dim = 0;

    if (!is_digit(peek(c)))
        return expected(c, "a dimension", err);
    if (shape->rank == NSA_MAX_RANK)
        return nsa_error_set(err, NSA_ELIMIT, "npy shape: expected at most %d dimensions, got more",
                             NSA_MAX_RANK);
    start = c->at;
    for (; c->at < c->end && is_digit(*c->at); c->at++) {
        if (!nsa_size_mul(&dim, dim, 10) || !nsa_size_add(&dim, dim, (size_t)(*c->at - '0')))
            return nsa_error_set(err, NSA_ELIMIT,
                                 "npy shape: expected dimension %zu to be at most %zu, got more",
                                 shape->rank, SIZE_MAX);
    }
    if (*start == '0' && c->at - start > 1) {
        c->at = start;
        return expected(c, "a dimension without leading zeros", err);
    }
    shape->dims[shape->rank++] = dim;
    return NSA_OK;
}

static nsa_status parse_shape(struct header *h, struct cursor *c, nsa_error *err)
{
    bool comma = false;

    if (!accept_char(c, '('))
        return expected(c, "shape to be a tuple such as (2, 3)", err);
    h->shape.rank = 0;
    while (!accept_char(c, ')')) {
        nsa_status status;

        if (h->shape.rank > 0 && !comma)
            return expected(c, "\",\" or \")\" after a dimension", err);
        status = parse_dim(&h->shape, c, err);
        if (status != NSA_OK)
            return status;
        comma = accept_char(c, ',');
    }
    /* To Python, (3) is a number. */
    if (h->shape.rank == 1 && !comma)
        return nsa_error_set(err, NSA_EFORMAT,
                             "npy shape: expected a tuple such as (%zu,), got (%zu)",
                             h->shape.dims[0], h->shape.dims[0]);
    return NSA_OK;
}

static const struct {
    const char *name;
    nsa_status (*parse)(struct header *h, struct cursor *c, nsa_error *err);
} keys[] = {
    {"descr", parse_descr},
    {"fortran_order", parse_fortran_order},
    {"shape", parse_shape},
};
#define KEY_COUNT (sizeof keys / sizeof *keys)

static nsa_status parse_item(struct header *h, struct cursor *c, nsa_error *err)
{
    char shown[SHOWN_BYTES + 1];
    struct text name = {"", 0};
    nsa_status status = parse_string(&name, c, "a key or \"}\"", err);
    size_t i = 0;

    if (status != NSA_OK)
        return status;
    while (i < KEY_COUNT && !text_is(name, keys[i].name))
        i++;
    if (i == KEY_COUNT)
        return nsa_error_set(
            err, NSA_EFORMAT,
            "npy header: expected the keys descr, fortran_order and shape, got \"%s\"",
            show(shown, name));
    if (h->seen[i])
        return nsa_error_set(err, NSA_EFORMAT, "npy header: expected one %s, got two",
                             keys[i].name);
    h->seen[i] = true;
    if (!accept_char(c, ':'))
        return expected(c, "\":\" after a key", err);
    return keys[i].parse(h, c, err);
}

static nsa_status parse_header(struct header *h, struct cursor c, nsa_error *err)
{
    bool comma = true;

    if (!accept_char(&c, '{'))
        return expected(&c, "a dictionary", err);
    while (!accept_char(&c, '}')) {
        nsa_status status;

        if (!comma)
            return expected(&c, "\",\" or \"}\" after a value", err);
        status = parse_item(h, &c, err);
        if (status != NSA_OK)
            return status;
        comma = accept_char(&c, ',');
    }
    if (!at_end(&c))
        return expected(&c, "nothing but white space after \"}\"", err);
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (!h->seen[i])
            return nsa_error_set(err, NSA_EFORMAT, "npy header: expected the key %s, got none",
                                 keys[i].name);
    }
    return NSA_OK;
}

static nsa_status find_dtype(nsa_dtype *out, struct text descr, nsa_error *err)
{
    char shown[SHOWN_BYTES + 1];

    for (size_t i = 0; i < NSA_DTYPE_COUNT; i++) {
        if (descrs[i] && text_is(descr, descrs[i])) {
            *out = (nsa_dtype)i;
            return NSA_OK;
        }
    }
    return nsa_error_set(err, NSA_EUNSUPPORTED,
                         "npy descr: expected little-endian '<f2', '<f4', '<f8' or '<i8', "
                         "got %s'%s'",
                         descr.size > 0 && *descr.at == '>' ? "big-endian " : "",
                         show(shown, descr));
}

/* Whether elements lie the same way in C and in Fortran order: then NumPy may write either. */
static bool order_is_moot(const nsa_shape *shape)
{
    size_t longer = 0;

    for (size_t i = 0; i < shape->rank; i++) {
        if (shape->dims[i] == 0)
            return true;
        if (shape->dims[i] > 1)
            longer++;
    }
    return longer <= 1;
}

/* Find the header dictionary of the file; what lies beyond it is data. */
static nsa_status locate_header(struct cursor *out, const unsigned char *bytes, size_t size,
                                nsa_error *err)
{
    size_t begin = MAGIC_BYTES + VERSION_BYTES;
    size_t length_bytes;
    size_t length = 0;

    if (!nsa_npy_is_magic(bytes, size))
        return nsa_error_set(
            err, NSA_EFORMAT,
            "npy: expected the file to begin with \"\\x93NUMPY\", got other bytes");
    if (size < begin)
        return nsa_error_set(err, NSA_EFORMAT,
                             "npy: expected at least %zu bytes of magic and version, got %zu",
                             begin, size);
    if (bytes[MAGIC_BYTES] < 1 || bytes[MAGIC_BYTES] > 3 || bytes[MAGIC_BYTES + 1] != 0)
        return nsa_error_set(err, NSA_EUNSUPPORTED,
                             "npy: expected version 1.0, 2.0 or 3.0, got %d.%d", bytes[MAGIC_BYTES],
                             bytes[MAGIC_BYTES + 1]);
    length_bytes = bytes[MAGIC_BYTES] == 1 ? 2 : 4;
    if (size - begin < length_bytes)
        return nsa_error_set(err, NSA_EFORMAT, "npy: expected %zu bytes of header length, got %zu",
                             length_bytes, size - begin);
    for (size_t i = 0; i < length_bytes; i++)
        length |= (size_t)bytes[begin + i] << (8 * i);
    begin += length_bytes;
    if (length > NSA_NPY_MAX_HEADER_BYTES)
        return nsa_error_set(err, NSA_ELIMIT,
                             "npy: expected a header of at most %zu bytes, got %zu",
                             NSA_NPY_MAX_HEADER_BYTES, length);
    if (length > size - begin)
        return nsa_error_set(err, NSA_EFORMAT, "npy: expected a header of %zu bytes, got %zu",
                             length, size - begin);
    out->at = (const char *)bytes + begin;
    out->end = out->at + length;
    return NSA_OK;
}

bool nsa_npy_is_magic(const void *bytes, size_t size)
{
    return size >= MAGIC_BYTES && memcmp(bytes, magic, MAGIC_BYTES) == 0;
}

nsa_status nsa_npy_parse(nsa_tensor *out, const void *bytes, size_t size, nsa_error *err)
{
    char text[NSA_SHAPE_TEXT_BYTES];
    struct header header = {.descr = {"", 0}};
    struct cursor cursor = {NULL, NULL};
    nsa_dtype dtype = NSA_F32;
    size_t data_bytes = 0;
    size_t rest;
    nsa_status status;

    status = locate_header(&cursor, bytes, size, err);
    if (status == NSA_OK)
        status = parse_header(&header, cursor, err);
    if (status == NSA_OK)
        status = find_dtype(&dtype, header.descr, err);
    if (status == NSA_OK)
        status = nsa_shape_bytes(&data_bytes, &header.shape, dtype, err);
    if (status != NSA_OK)
        return status;
    if (header.fortran_order && !order_is_moot(&header.shape))
        return nsa_error_set(err, NSA_EUNSUPPORTED,
                             "npy fortran_order: expected an array in C order, got Fortran order");
    rest = size - (size_t)(cursor.end - (const char *)bytes);
    if (rest != data_bytes)
        return nsa_error_set(err, NSA_EFORMAT,
                             "npy data: expected %zu bytes for shape %s of %s, got %zu", data_bytes,
                             nsa_shape_text(text, &header.shape), nsa_dtype_name(dtype), rest);
    /* A view has no const twin; whoever gave read-only bytes gets a tensor to read. */
    *out = (nsa_tensor){.data = (void *)cursor.end, .dtype = dtype, .shape = header.shape};
    return NSA_OK;
}

_Static_assert(NSA_MAX_RANK *(NSA_DECIMAL_BYTES + 2) + 192 <= NSA_NPY_HEADER_BYTES,
               "every shape, what stands around it, and the padding");

nsa_status nsa_npy_write_header(char header[NSA_NPY_HEADER_BYTES], size_t *size,
                                const nsa_shape *shape, nsa_dtype dtype, nsa_error *err)
{
    static const char version[] = {1, 0};
    size_t begin = MAGIC_BYTES + sizeof version + 2;
    size_t end;
    size_t total;
    char *to;

    assert(shape->rank <= NSA_MAX_RANK && (size_t)dtype < NSA_DTYPE_COUNT);
    if (!descrs[dtype])
        return nsa_error_set(err, NSA_EUNSUPPORTED,
                             "npy: expected a dtype that the format has a name for, got %s",
                             nsa_dtype_name(dtype));
    to = nsa_decimal_text(header + begin, "{'descr': '");
    to = nsa_decimal_text(to, descrs[dtype]);
    to = nsa_decimal_text(to, "', 'fortran_order': False, 'shape': (");
    for (size_t i = 0; i < shape->rank; i++)
        to = nsa_decimal(nsa_decimal_text(to, i > 0 ? ", " : ""), shape->dims[i]);
    to = nsa_decimal_text(to, shape->rank == 1 ? ",), }" : "), }");
    end = (size_t)(to - header);
    /* At least one byte more, for the newline; 32 dimensions of 20 digits leave room for it. */
    total = (end + DATA_ALIGN) / DATA_ALIGN * DATA_ALIGN;
    assert(total <= NSA_NPY_HEADER_BYTES);
    memset(header + end, ' ', total - end - 1);
    header[total - 1] = '\n';
    memcpy(header, magic, MAGIC_BYTES);
    memcpy(header + MAGIC_BYTES, version, sizeof version);
    header[begin - 2] = (char)((total - begin) & 0xFF);
    header[begin - 1] = (char)((total - begin) >> 8);
    *size = total;
    return NSA_OK;
}
