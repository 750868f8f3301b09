#include "huffman.h"
#include "bits.h"

#include <string.h>

/* Counts are halved until no code is longer. */
enum { LONGEST = 24 };

struct codes {
    unsigned char length[256];
    unsigned long code[256];
};

static int depth_of(const int parent[511], int leaf)
{
    int depth = 0;
    while (parent[leaf] >= 0) {
        leaf = parent[leaf];
        depth++;
    }
    return depth;
}

static void lengths(const unsigned long counts[256], unsigned char length[256])
{
    unsigned long weight[511];
    int parent[511];
    for (int shift = 0;; shift++) {
        int used = 0, longest = 0;
        memset(length, 0, 256);
        for (int i = 0; i < 511; i++) {
            weight[i] = i < 256 && counts[i] ? (counts[i] >> shift) + 1 : 0;
            parent[i] = -1;
            used += weight[i] > 0;
        }
        for (int node = 256; node < 256 + used - 1; node++) {
            int least = -1, second = -1;
            for (int i = 0; i < node; i++) {
                if (weight[i] == 0 || parent[i] >= 0)
                    continue;
                if (least < 0 || weight[i] < weight[least]) {
                    second = least;
                    least = i;
                } else if (second < 0 || weight[i] < weight[second]) {
                    second = i;
                }
            }
            weight[node] = weight[least] + weight[second];
            parent[least] = parent[second] = node;
        }
        for (int i = 0; i < 256; i++)
            if (counts[i]) {
                int depth = used == 1 ? 1 : depth_of(parent, i);
                length[i] = depth;
                if (depth > longest)
                    longest = depth;
            }
        if (longest <= LONGEST)
            return;
    }
}

static void assign(struct codes *codes)
{
    unsigned long code = 0;
    for (int length = 1; length <= LONGEST; length++, code <<= 1)
        for (int i = 0; i < 256; i++)
            if (codes->length[i] == length)
                codes->code[i] = code++;
}

void huffman_shrink(const struct bytes *plain, struct bytes *shrunk)
{
    unsigned long counts[256] = {0};
    struct codes codes = {0};
    for (size_t i = 0; i < plain->length; i++)
        counts[plain->data[i]]++;
    lengths(counts, codes.length);
    assign(&codes);
    bytes_put_u32(shrunk, plain->length);
    bytes_append(shrunk, codes.length, 256);
    struct bit_writer writer = {.bytes = shrunk};
    for (size_t i = 0; i < plain->length; i++)
        bits_put(&writer, codes.code[plain->data[i]], codes.length[plain->data[i]]);
    bits_flush(&writer);
}

int huffman_expand(const struct bytes *shrunk, struct bytes *plain)
{
    if (shrunk->length < 260)
        return -1;
    struct codes codes = {0};
    size_t left = bytes_u32(shrunk, 0);
    memcpy(codes.length, shrunk->data + 4, 256);
    assign(&codes);
    /* The symbols in the order of their codes, and where each length begins. */
    unsigned char symbols[256];
    unsigned long first[LONGEST + 1] = {0};
    int start[LONGEST + 1] = {0}, number[LONGEST + 1] = {0}, total = 0;
    for (int length = 1; length <= LONGEST; length++) {
        start[length] = total;
        for (int i = 0; i < 256; i++)
            if (codes.length[i] == length) {
                if (number[length]++ == 0)
                    first[length] = codes.code[i];
                symbols[total++] = i;
            }
    }
    struct bit_reader reader = {.bytes = shrunk, .next = 260};
    for (; left > 0; left--) {
        unsigned long code = 0;
        int length = 0, found = -1;
        while (found < 0) {
            int bit = bits_get(&reader);
            if (bit < 0 || ++length > LONGEST)
                return -1;
            code = code << 1 | bit;
            if (number[length] && code >= first[length] && code - first[length] < (unsigned long)number[length])
                found = symbols[start[length] + (code - first[length])];
        }
        bytes_put(plain, found);
    }
    return 0;
}
