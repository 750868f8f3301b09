#include "bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reserve(struct bytes *bytes, size_t more)
{
    if (bytes->room - bytes->length >= more)
        return;
    size_t room = bytes->room ? bytes->room : 64;
    while (room - bytes->length < more)
        room *= 2;
    unsigned char *data = realloc(bytes->data, room);
    if (!data) {
        fputs("memory exhausted\n", stderr);
        exit(1);
    }
    bytes->data = data;
    bytes->room = room;
}

void bytes_put(struct bytes *bytes, unsigned char byte)
{
    reserve(bytes, 1);
    bytes->data[bytes->length++] = byte;
}

void bytes_append(struct bytes *bytes, const void *data, size_t length)
{
    if (length == 0)
        return;
    reserve(bytes, length);
    memcpy(bytes->data + bytes->length, data, length);
    bytes->length += length;
}

void bytes_put_u32(struct bytes *bytes, unsigned long number)
{
    for (int shift = 0; shift < 32; shift += 8)
        bytes_put(bytes, (number >> shift) & 0xff);
}

unsigned long bytes_u32(const struct bytes *bytes, size_t offset)
{
    unsigned long number = 0;
    for (int byte = 3; byte >= 0; byte--)
        number = number << 8 | bytes->data[offset + byte];
    return number;
}

void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    bytes->data = NULL;
    bytes->length = bytes->room = 0;
}

int bytes_read_file(struct bytes *bytes, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return -1;
    unsigned char chunk[65536];
    size_t count;
    while ((count = fread(chunk, 1, sizeof chunk, file)) > 0)
        bytes_append(bytes, chunk, count);
    int failed = ferror(file);
    fclose(file);
    return failed ? -1 : 0;
}

int bytes_write_file(const struct bytes *bytes, const char *path)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return -1;
    size_t written = fwrite(bytes->data, 1, bytes->length, file);
    if (fclose(file) != 0 || written != bytes->length)
        return -1;
    return 0;
}
