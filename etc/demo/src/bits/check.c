#include "bits.h"

#include <assert.h>
#include <stdio.h>

int main(void)
{
    struct bytes bytes = {0};
    struct bit_writer writer = {.bytes = &bytes};
    unsigned long total = 0;
    for (unsigned long value = 0; value < 200000; value++) {
        int count = 1 + value % 32;
        bits_put(&writer, value, count);
        total += count;
    }
    bits_flush(&writer);
    assert(bytes.length == (total + 7) / 8);
    struct bit_reader reader = {.bytes = &bytes};
    for (unsigned long value = 0; value < 200000; value++) {
        int count = 1 + value % 32;
        unsigned long got = 0;
        for (int bit = 0; bit < count; bit++)
            got = got << 1 | bits_get(&reader);
        assert(got == (value & ((1ULL << count) - 1)));
    }
    printf("bits: %lu bits written and read again\n", total);
    bytes_free(&bytes);
    return 0;
}
