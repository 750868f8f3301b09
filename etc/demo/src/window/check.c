#include "window.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    unsigned long state = 1;
    for (int round = 0; round < 40; round++) {
        struct bytes plain = {0}, shrunk = {0}, again = {0};
        for (int i = 0; i < round * 9000; i++) {
            state = state * 6364136223846793005UL + 1442695040888963407UL;
            bytes_put(&plain, round % 2 ? "build farm "[(state >> 33) % 11] : "ab"[(state >> 60) & 1]);
        }
        window_shrink(&plain, &shrunk);
        assert(window_expand(&shrunk, &again) == 0);
        assert(plain.length == again.length && (plain.length == 0 || memcmp(plain.data, again.data, plain.length) == 0));
        printf("window: %zu -> %zu\n", plain.length, shrunk.length);
        bytes_free(&plain);
        bytes_free(&shrunk);
        bytes_free(&again);
    }
    struct bytes wrong = {0}, nothing = {0};
    bytes_put(&wrong, 200);
    assert(window_expand(&wrong, &nothing) == -1);
    bytes_free(&wrong);
    return 0;
}
