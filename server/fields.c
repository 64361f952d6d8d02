#include "server/fields.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A value on its way into a field, whichever way it was written. */
struct value {
    enum { VALUE_TEXT, VALUE_INT, VALUE_BOOL, VALUE_SHAPE, VALUE_OTHER } kind;
    const char *text;
    int64_t integer;
    bool truth;
    nsa_shape shape;
};

/* Setters: false for a value that doesn't fit. */

static bool copy_text(char to[FIELDS_MAX_TEXT_BYTES + 1], const struct value *value)
{
    if (value->kind != VALUE_TEXT || value->text[0] == '\0' ||
        strlen(value->text) > FIELDS_MAX_TEXT_BYTES)
        return false;
    strcpy(to, value->text);
    return true;
}

static bool set_model(struct fields *fields, const struct value *value)
{
    return copy_text(fields->model, value);
}

static bool set_version(struct fields *fields, const struct value *value)
{
    if (value->kind != VALUE_INT)
        return copy_text(fields->version, value);
    snprintf(fields->version, sizeof fields->version, "%lld", (long long)value->integer);
    return true;
}

static bool set_shape(struct fields *fields, const struct value *value)
{
    if (value->kind != VALUE_SHAPE)
        return false;
    fields->shape = value->shape;
    fields->has_shape = true;
    return true;
}

static bool set_dtype(struct fields *fields, const struct value *value)
{
    fields->has_dtype = true;
    return value->kind == VALUE_TEXT && nsa_dtype_from_name(&fields->dtype, value->text);
}

static bool set_flat(struct fields *fields, const struct value *value)
{
    fields->flat = value->truth;
    return value->kind == VALUE_BOOL;
}

static bool set_nonfinite(struct fields *fields, const struct value *value)
{
    if (value->kind != VALUE_TEXT ||
        (strcmp(value->text, "null") != 0 && strcmp(value->text, "token") != 0))
        return false;
    fields->nonfinite_null = strcmp(value->text, "null") == 0;
    return true;
}

/* How text (of a query or a header) is read for a field. */
enum text_form { FORM_TEXT, FORM_INT, FORM_BOOL, FORM_SHAPE };

static const struct {
    const char *name;
    unsigned sources;
    enum text_form form;
    const char *expected;
    bool (*set)(struct fields *fields, const struct value *value);
} table[] = {
    {"model", FIELDS_QUERY | FIELDS_JSON, FORM_TEXT, "a name of 1 to 128 bytes", set_model},
    {"version", FIELDS_QUERY | FIELDS_JSON, FORM_TEXT, "a positive integer", set_version},
    {"shape", FIELDS_QUERY | FIELDS_JSON | FIELDS_HEADER, FORM_SHAPE,
     "up to 32 integers of at least 0", set_shape},
    {"dtype", FIELDS_QUERY | FIELDS_HEADER, FORM_TEXT, "float32, float16, bfloat16 or float64",
     set_dtype},
    {"flat", FIELDS_QUERY | FIELDS_JSON, FORM_BOOL, "true or false", set_flat},
    {"nonfinite", FIELDS_QUERY | FIELDS_JSON, FORM_TEXT, "\"token\" or \"null\"", set_nonfinite},
};

#define FIELD_COUNT (sizeof table / sizeof *table)

void fields_init(struct fields *fields, const nsa_op *op)
{
    *fields = (struct fields){.op = op};
    for (size_t i = 0; i < op->param_count; i++)
        fields->params[i] = op->params[i].default_value;
}

/* The row of `name` that `source` may set: below FIELD_COUNT in the table, from there on a param.
 */
static bool find_field(size_t *index, const struct fields *fields, enum fields_source source,
                       const char *name)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        *index = i;
        if (strcmp(table[i].name, name) == 0)
            return table[i].sources & source;
    }
    *index = FIELD_COUNT + fields_param(fields->op, name);
    return *index < FIELD_COUNT + fields->op->param_count && source != FIELDS_HEADER;
}

static nsa_status refuse_unknown(const struct fields *fields, enum fields_source source,
                                 const char *name, nsa_error *err)
{
    char known[256] = "";

    for (size_t i = 0; i < FIELD_COUNT + fields->op->param_count; i++) {
        size_t used = strlen(known);

        if (i >= FIELD_COUNT || (table[i].sources & source))
            snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "",
                     i < FIELD_COUNT ? table[i].name : fields->op->params[i - FIELD_COUNT].name);
    }
    return nsa_error_set(err, NSA_EINVAL, "unknown field '%.64s': expected %s%s", name,
                         source == FIELDS_JSON ? "input, " : "", known);
}

static nsa_status set_field(struct fields *fields, size_t index, const struct value *value,
                            const char *got, nsa_error *err)
{
    const nsa_param_spec *param =
        &fields->op->params[index < FIELD_COUNT ? 0 : index - FIELD_COUNT];
    const char *name = index < FIELD_COUNT ? table[index].name : param->name;
    const char *expected;
    bool fits;

    if (fields->given & 1u << index)
        return nsa_error_set(err, NSA_EINVAL, "%s: given twice", name);
    fields->given |= 1u << index;
    if (index < FIELD_COUNT) {
        expected = table[index].expected;
        fits = table[index].set(fields, value);
    } else {
        bool is_bool = param->type == NSA_PARAM_BOOL;

        expected = is_bool ? "true or false" : "an integer";
        fits = value->kind == (is_bool ? VALUE_BOOL : VALUE_INT);
        fields->params[index - FIELD_COUNT] = is_bool ? value->truth : value->integer;
    }
    if (!fits)
        return nsa_error_set(err, NSA_EINVAL, "%s: expected %s, got %.64s", name, expected, got);
    return NSA_OK;
}

/* As much of a field's text as an error shows. */
#define MOST_QUOTED ((size_t)64)

/* --- text ---------------------------------------------------------------------------------- */

static bool parse_int(int64_t *out, const char *text)
{
    char *end;

    if (!((*text >= '0' && *text <= '9') || *text == '-'))
        return false;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return errno == 0 && *end == '\0' && end[-1] != '-';
}

/* "2,8,16,32"; an empty text is the shape of a scalar. */
static bool parse_shape(nsa_shape *out, const char *text)
{
    nsa_shape shape = {0};

    while (*text) {
        char *end;

        if (shape.rank == NSA_MAX_RANK || *text < '0' || *text > '9')
            return false;
        errno = 0;
        shape.dims[shape.rank++] = strtoull(text, &end, 10);
        if (errno != 0 || (*end != ',' && *end != '\0') || (*end == ',' && end[1] == '\0'))
            return false;
        text = *end ? end + 1 : end;
    }
    *out = shape;
    return true;
}

static struct value read_text(enum text_form form, const char *text)
{
    struct value value = {.kind = VALUE_OTHER, .text = text};

    switch (form) {
    case FORM_TEXT:
        value.kind = VALUE_TEXT;
        break;
    case FORM_INT:
        if (parse_int(&value.integer, text))
            value.kind = VALUE_INT;
        break;
    case FORM_BOOL:
        value.truth = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
        if (value.truth || strcmp(text, "false") == 0 || strcmp(text, "0") == 0)
            value.kind = VALUE_BOOL;
        break;
    case FORM_SHAPE:
        if (parse_shape(&value.shape, text))
            value.kind = VALUE_SHAPE;
        break;
    }
    return value;
}

/* "'text'": what an error says came; by hand, as printf would take longer than all else here. */
static void quote(char to[MOST_QUOTED + 3], const char *text)
{
    size_t length = strnlen(text, MOST_QUOTED);

    *to++ = '\'';
    memcpy(to, text, length);
    memcpy(to + length, "'", 2);
}

nsa_status fields_set_text(struct fields *fields, enum fields_source source, const char *name,
                           const char *text, nsa_error *err)
{
    enum text_form form;
    struct value value;
    char got[MOST_QUOTED + 3];
    size_t index;

    if (!find_field(&index, fields, source, name))
        return refuse_unknown(fields, source, name, err);
    if (index < FIELD_COUNT)
        form = table[index].form;
    else
        form =
            fields->op->params[index - FIELD_COUNT].type == NSA_PARAM_BOOL ? FORM_BOOL : FORM_INT;
    value = read_text(form, text);
    quote(got, text);
    return set_field(fields, index, &value, got, err);
}

/* --- JSON ---------------------------------------------------------------------------------- */

static struct value read_json(const json_t *json)
{
    struct value value = {.kind = VALUE_OTHER};

    if (json_is_string(json)) {
        value.kind = VALUE_TEXT;
        value.text = json_string_value(json);
    } else if (json_is_integer(json)) {
        value.kind = VALUE_INT;
        value.integer = json_integer_value(json);
    } else if (json_is_boolean(json)) {
        value.kind = VALUE_BOOL;
        value.truth = json_is_true(json);
    } else if (json_is_array(json) && json_array_size(json) <= NSA_MAX_RANK) {
        value.kind = VALUE_SHAPE;
        value.shape.rank = json_array_size(json);
        for (size_t i = 0; i < value.shape.rank; i++) {
            const json_t *dim = json_array_get(json, i);

            if (!json_is_integer(dim) || json_integer_value(dim) < 0)
                value.kind = VALUE_OTHER;
            value.shape.dims[i] = (size_t)json_integer_value(dim);
        }
    }
    return value;
}

nsa_status fields_set_json(struct fields *fields, const char *name, const json_t *value,
                           nsa_error *err)
{
    struct value read;
    nsa_status status;
    size_t index;
    char *got;

    if (!find_field(&index, fields, FIELDS_JSON, name))
        return refuse_unknown(fields, FIELDS_JSON, name, err);
    read = read_json(value);
    got = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    status = set_field(fields, index, &read, got ? got : "something else", err);
    free(got);
    return status;
}

/* --- params -------------------------------------------------------------------------------- */

size_t fields_param(const nsa_op *op, const char *name)
{
    size_t i = 0;

    while (i < op->param_count && strcmp(op->params[i].name, name) != 0)
        i++;
    return i;
}

nsa_status fields_set_integer(struct fields *fields, size_t index, int64_t value, nsa_error *err)
{
    const struct value given = {.kind = VALUE_INT, .integer = value};

    return set_field(fields, FIELD_COUNT + index, &given, "an integer", err);
}

nsa_status fields_complete(struct fields *fields, int64_t standard, nsa_error *err)
{
    for (size_t i = 0; i < fields->op->param_count; i++) {
        if (!fields->op->params[i].required || (fields->given & 1u << (FIELD_COUNT + i)))
            continue;
        if (standard < 0)
            return nsa_error_set(err, NSA_EINVAL, "%s: expected an integer, got none",
                                 fields->op->params[i].name);
        fields->params[i] = standard;
    }
    return NSA_OK;
}
