/*
 * What a request says beside its tensor: which model, the op's parameters, how the answer is to be
 * written. The same fields come from the query, from JSON and from headers; one table names them.
 */
#ifndef SERVER_FIELDS_H
#define SERVER_FIELDS_H

#include <jansson.h>
#include <nsa/ops.h>
#include <nsa/tensor.h>
#include <stdbool.h>
#include <stdint.h>

#define FIELDS_MAX_TEXT_BYTES 128

struct fields {
    const nsa_op *op;
    unsigned given; /* bits of the table's rows, then of the op's params */

    char model[FIELDS_MAX_TEXT_BYTES + 1];   /* "" unless given */
    char version[FIELDS_MAX_TEXT_BYTES + 1]; /* "" unless given */
    nsa_shape shape;
    bool has_shape;
    nsa_dtype dtype;
    bool has_dtype;
    bool flat;           /* JSON arrays of the answer are flat */
    bool nonfinite_null; /* and NaN and infinities in them are null */
    int64_t params[NSA_MAX_PARAMS];
};

/* Where a field is said; not every field may be said everywhere. */
enum fields_source { FIELDS_QUERY = 1, FIELDS_JSON = 2, FIELDS_HEADER = 4 };

/* Nothing given, every param at its default. */
void fields_init(struct fields *fields, const nsa_op *op);

/**
 * Set the field called `name` from text, or from a JSON value.
 * @return NSA_OK; NSA_EINVAL for an unknown name, a field given twice, or a value that doesn't fit:
 *         the message says what was expected and what came
 */
nsa_status fields_set_text(struct fields *fields, enum fields_source source, const char *name,
                           const char *text, nsa_error *err);
nsa_status fields_set_json(struct fields *fields, const char *name, const json_t *value,
                           nsa_error *err);

/* The index of the op's param `name` that a client sets, or the op's param_count. */
size_t fields_param(const nsa_op *op, const char *name);

/* Set the integer param `index`; NSA_EINVAL if it is given twice. */
nsa_status fields_set_integer(struct fields *fields, size_t index, int64_t value, nsa_error *err);

/*
 * Set a required param that was not given to `standard` (-1: there is none); NSA_EINVAL, naming it,
 * when it cannot be.
 */
nsa_status fields_complete(struct fields *fields, int64_t standard, nsa_error *err);

#endif
