#include "server/version.h"

const char *const nsad_version = NSAD_VERSION;
const char *const nsad_revision = NSAD_REVISION;
