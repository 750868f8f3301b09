/* Replaces what was seen before by how far back and how long it is (LZ77). */
#ifndef WINDOW_H
#define WINDOW_H

#include "bytes.h"

void window_shrink(const struct bytes *plain, struct bytes *shrunk);
/* Returns 0, or -1 when the input was not written by window_shrink. */
int window_expand(const struct bytes *shrunk, struct bytes *plain);

#endif
