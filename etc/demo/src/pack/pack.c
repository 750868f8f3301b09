#include "pack.h"
#include "checksum.h"
#include "huffman.h"
#include "window.h"

#include <string.h>

static const char mark[4] = {'P', 'A', 'K', '1'};

void pack_write(const struct bytes *plain, struct bytes *packed)
{
    struct bytes windowed = {0};
    bytes_append(packed, mark, sizeof mark);
    bytes_put_u32(packed, checksum_crc32(plain->data, plain->length));
    bytes_put_u32(packed, plain->length);
    window_shrink(plain, &windowed);
    huffman_shrink(&windowed, packed);
    bytes_free(&windowed);
}

const char *pack_read(const struct bytes *packed, struct bytes *plain)
{
    if (packed->length < 12 || memcmp(packed->data, mark, sizeof mark) != 0)
        return "not a packed file";
    struct bytes body = {.data = packed->data + 12, .length = packed->length - 12, .room = 0}, windowed = {0};
    if (huffman_expand(&body, &windowed) != 0 || window_expand(&windowed, plain) != 0) {
        bytes_free(&windowed);
        return "the packed file is damaged";
    }
    bytes_free(&windowed);
    if (plain->length != bytes_u32(packed, 8) || checksum_crc32(plain->data, plain->length) != bytes_u32(packed, 4))
        return "the checksum does not match";
    return NULL;
}
