#include "checksum.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static void expect(const char *text, const char *wanted)
{
    unsigned char digest[32];
    char hex[65];
    checksum_sha256(text, strlen(text), digest);
    for (int i = 0; i < 32; i++)
        sprintf(hex + 2 * i, "%02x", digest[i]);
    printf("sha256(\"%s\") = %s\n", text, hex);
    assert(strcmp(hex, wanted) == 0);
}

int main(void)
{
    /* Known answers: FIPS 180-4 and the usual CRC check value. */
    assert(checksum_crc32("123456789", 9) == 0xcbf43926u);
    expect("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
           "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    return 0;
}
