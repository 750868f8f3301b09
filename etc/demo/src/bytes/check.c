#include "bytes.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    struct bytes bytes = {0};
    for (unsigned long number = 0; number < 1000000; number += 7)
        bytes_put_u32(&bytes, number * 4001);
    for (unsigned long index = 0; index * 4 < bytes.length; index++)
        assert(bytes_u32(&bytes, index * 4) == ((index * 7 * 4001) & 0xffffffff));
    assert(bytes_write_file(&bytes, "numbers") == 0);
    struct bytes again = {0};
    assert(bytes_read_file(&again, "numbers") == 0);
    assert(again.length == bytes.length && memcmp(again.data, bytes.data, bytes.length) == 0);
    assert(bytes_read_file(&again, "absent") == -1);
    printf("bytes: %zu bytes written and read again\n", bytes.length);
    bytes_free(&bytes);
    bytes_free(&again);
    return 0;
}
