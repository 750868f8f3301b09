/* A packed file: a mark, the checksum and length of the plain text, and the text through window and huffman. */
#ifndef PACK_H
#define PACK_H

#include "bytes.h"

void pack_write(const struct bytes *plain, struct bytes *packed);
/* Returns NULL, or what is wrong with the packed file. */
const char *pack_read(const struct bytes *packed, struct bytes *plain);

#endif
