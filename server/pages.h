/* The pages that are read: health, models, metrics, the specification. */
#ifndef SERVER_PAGES_H
#define SERVER_PAGES_H

#include "server/catalog.h"
#include "server/exchange.h"

void page_live(struct exchange *ex);
void page_ready(struct exchange *ex);
void page_models(struct exchange *ex);
void page_metrics(struct exchange *ex);
void page_openapi(struct exchange *ex);

/* The catalog in force, for the caller to release; NULL, and an answer, while there is none. */
const struct catalog *page_catalog(struct exchange *ex);

/* What GET /v1/models and --check print: {"models": [...]}, one model a line. */
void pages_write_models(buffer *out, const struct catalog *catalog);

#endif
