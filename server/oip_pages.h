/* The pages of the Open Inference Protocol, under /v2. */
#ifndef SERVER_OIP_PAGES_H
#define SERVER_OIP_PAGES_H

#include "server/exchange.h"
#include "server/json_scan.h"

/* --- oip_pages.c: the server and its models ------------------------------------------------- */

void oip_server(struct exchange *ex);
void oip_model(struct exchange *ex);
void oip_model_ready(struct exchange *ex);
void oip_model_config(struct exchange *ex);
void oip_statistics(struct exchange *ex);

/* Answer {}. */
void oip_answer_empty(struct exchange *ex);

/*
 * Parse the body of a request that need not have one (*out is then NULL), with these places (NULL:
 * none) left out. False: answered instead. Caller closes the document before the exchange ends.
 */
bool oip_read_body(json_document **out, struct exchange *ex, const json_place *places);

/* --- oip_repository.c: what there is to serve, and changes of it ---------------------------- */

void oip_index(struct exchange *ex);
void oip_load(struct exchange *ex);
void oip_unload(struct exchange *ex);

/* --- oip_settings.c ------------------------------------------------------------------------- */

void oip_logging(struct exchange *ex);
void oip_shared_memory_status(struct exchange *ex);
void oip_shared_memory_register(struct exchange *ex);
void oip_shared_memory_unregister(struct exchange *ex);
void oip_not_supported(struct exchange *ex);

#endif
