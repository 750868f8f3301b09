/* Prints the SHA-256 of files as sha256sum does: digest FILE... */
#include <bytes.h>
#include <checksum.h>
#include <stdio.h>

int main(int count, char **arguments)
{
    for (int i = 1; i < count; i++) {
        struct bytes bytes = {0};
        unsigned char digest[32];
        if (bytes_read_file(&bytes, arguments[i]) != 0) {
            perror(arguments[i]);
            return 1;
        }
        checksum_sha256(bytes.data, bytes.length, digest);
        for (int byte = 0; byte < 32; byte++)
            printf("%02x", digest[byte]);
        printf("  %s\n", arguments[i]);
        bytes_free(&bytes);
    }
    return 0;
}
