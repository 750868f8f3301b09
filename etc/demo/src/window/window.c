#include "window.h"

#include <stdlib.h>
#include <string.h>

/* A literal run is its length (1..127) and its bytes; a match is 128 + length - SHORTEST, then two bytes of distance. */
enum { REACH = 65535, SHORTEST = 4, LONGEST = 131, SLOTS = 1 << 16, TRIES = 256 };

static unsigned slot_of(const unsigned char *at)
{
    return ((unsigned)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3]) * 2654435761u >> 16;
}

static void literals(struct bytes *out, const unsigned char *from, size_t count)
{
    while (count > 0) {
        size_t run = count < 127 ? count : 127;
        bytes_put(out, run);
        bytes_append(out, from, run);
        from += run;
        count -= run;
    }
}

void window_shrink(const struct bytes *plain, struct bytes *shrunk)
{
    const unsigned char *data = plain->data;
    size_t length = plain->length, start = 0;
    size_t *heads = calloc(SLOTS, sizeof *heads);
    size_t *earlier = calloc(length + 1, sizeof *earlier);
    if (!heads || !earlier)
        abort();
    for (size_t at = 0; at < length;) {
        size_t best = 0, distance = 0, limit = length - at < LONGEST ? length - at : LONGEST;
        if (limit >= SHORTEST) {
            int tries = TRIES;
            /* Positions are kept plus one, so that zero ends a chain. */
            for (size_t seen = heads[slot_of(data + at)]; seen && at - (seen - 1) <= REACH && tries--; seen = earlier[seen - 1]) {
                size_t same = 0;
                while (same < limit && data[seen - 1 + same] == data[at + same])
                    same++;
                if (same > best) {
                    best = same;
                    distance = at - (seen - 1);
                }
            }
        }
        size_t step = best >= SHORTEST ? best : 1;
        if (best >= SHORTEST) {
            literals(shrunk, data + start, at - start);
            bytes_put(shrunk, 128 + best - SHORTEST);
            bytes_put(shrunk, distance & 0xff);
            bytes_put(shrunk, distance >> 8);
            start = at + best;
        }
        for (; step > 0; step--, at++)
            if (length - at >= SHORTEST) {
                unsigned slot = slot_of(data + at);
                earlier[at] = heads[slot];
                heads[slot] = at + 1;
            }
    }
    literals(shrunk, data + start, length - start);
    free(heads);
    free(earlier);
}

int window_expand(const struct bytes *shrunk, struct bytes *plain)
{
    for (size_t at = 0; at < shrunk->length;) {
        size_t kind = shrunk->data[at++];
        if (kind < 128) {
            if (kind == 0 || shrunk->length - at < kind)
                return -1;
            bytes_append(plain, shrunk->data + at, kind);
            at += kind;
            continue;
        }
        if (shrunk->length - at < 2)
            return -1;
        size_t distance = shrunk->data[at] | (size_t)shrunk->data[at + 1] << 8;
        at += 2;
        if (distance == 0 || distance > plain->length)
            return -1;
        for (size_t left = kind - 128 + SHORTEST; left > 0; left--)
            bytes_put(plain, plain->data[plain->length - distance]);
    }
    return 0;
}
