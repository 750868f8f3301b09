/* Gives frequent bytes short codes (canonical Huffman). */
#ifndef HUFFMAN_H
#define HUFFMAN_H

#include "bytes.h"

void huffman_shrink(const struct bytes *plain, struct bytes *shrunk);
/* Returns 0, or -1 when the input was not written by huffman_shrink. */
int huffman_expand(const struct bytes *shrunk, struct bytes *plain);

#endif
