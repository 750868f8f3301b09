/* Single bits, most significant first, in a buffer of bytes. */
#ifndef BITS_H
#define BITS_H

#include "bytes.h"

struct bit_writer {
    struct bytes *bytes;
    unsigned long long held;
    int count;
};

struct bit_reader {
    const struct bytes *bytes;
    size_t next;
    unsigned long long held;
    int count;
};

/* Writes the low `count` bits of `value`, 32 at most. */
void bits_put(struct bit_writer *writer, unsigned long value, int count);
/* Fills the last byte with zeroes. */
void bits_flush(struct bit_writer *writer);
/* Gives the next bit, or -1 at the end. */
int bits_get(struct bit_reader *reader);

#endif
