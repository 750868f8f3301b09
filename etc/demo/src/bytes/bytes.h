/* A buffer of bytes that grows. */
#ifndef BYTES_H
#define BYTES_H

#include <stddef.h>

struct bytes {
    unsigned char *data;
    size_t length;
    size_t room;
};

/* Appends; ends the program when memory is exhausted. */
void bytes_put(struct bytes *bytes, unsigned char byte);
void bytes_append(struct bytes *bytes, const void *data, size_t length);
/* Appends a number, least significant byte first. */
void bytes_put_u32(struct bytes *bytes, unsigned long number);
/* Reads the number at an offset; the caller has checked that four bytes are there. */
unsigned long bytes_u32(const struct bytes *bytes, size_t offset);
void bytes_free(struct bytes *bytes);

/* Whole files. Both return 0, or -1 with errno set. */
int bytes_read_file(struct bytes *bytes, const char *path);
int bytes_write_file(const struct bytes *bytes, const char *path);

#endif
