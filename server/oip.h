/*
 * The Open Inference Protocol (version 2), as Triton and KServe speak it: what its codec and its
 * pages share. Requests for inference go through infer.c like all others, with codec_oip.
 */
#ifndef SERVER_OIP_H
#define SERVER_OIP_H

#include "server/infer.h"

#include <nsa/dtype.h>
#include <stdbool.h>

/* The length of the JSON that a body with binary tensors begins with; 0: there is none. */
#define OIP_HEADER_LENGTH "Inference-Header-Content-Length"

/* "FP32", "FP16", "BF16", "FP64", "INT64", and back. */
const char *oip_datatype(nsa_dtype dtype);
bool oip_datatype_parse(nsa_dtype *out, const char *text);

/* The value of the dimension that `spec` has at `index` for this model; -1: any. */
int64_t oip_dimension(const nsa_model_info *info, const nsa_tensor_spec *spec, size_t index);

/* An input tensor beside the op's own that stands for a param: one that requests must give. */
bool oip_param_is_input(const nsa_param_spec *param);

/* --- oip_request.c ------------------------------------------------------------------------- */

/* The codec's `decode`. */
nsa_status oip_decode(struct inference *inference, nsa_error *err);

#endif
