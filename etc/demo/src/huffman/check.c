#include "huffman.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    unsigned long state = 7;
    for (int round = 0; round < 24; round++) {
        struct bytes plain = {0}, shrunk = {0}, again = {0};
        for (int i = 0; i < round * 40000; i++) {
            state = state * 6364136223846793005UL + 1442695040888963407UL;
            unsigned byte = (state >> 40) & 0xff;
            bytes_put(&plain, byte & (state >> 48) & (state >> 56));
        }
        huffman_shrink(&plain, &shrunk);
        assert(huffman_expand(&shrunk, &again) == 0);
        assert(plain.length == again.length && (plain.length == 0 || memcmp(plain.data, again.data, plain.length) == 0));
        printf("huffman: %zu -> %zu\n", plain.length, shrunk.length);
        if (round > 0) {
            shrunk.length--;
            struct bytes cut = {0};
            assert(huffman_expand(&shrunk, &cut) == -1 || cut.length == plain.length);
            bytes_free(&cut);
        }
        bytes_free(&plain);
        bytes_free(&shrunk);
        bytes_free(&again);
    }
    return 0;
}
