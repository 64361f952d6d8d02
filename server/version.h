/* What this build calls itself. */
#ifndef SERVER_VERSION_H
#define SERVER_VERSION_H

extern const char *const nsad_version;  /* "0.1.0" */
extern const char *const nsad_revision; /* of the source, or "unknown" */

#endif
