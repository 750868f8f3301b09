/* Packs and unpacks: pak pack|unpack FROM TO */
#include <bytes.h>
#include <pack.h>
#include <stdio.h>
#include <string.h>

int main(int count, char **arguments)
{
    if (count != 4 || (strcmp(arguments[1], "pack") != 0 && strcmp(arguments[1], "unpack") != 0)) {
        fprintf(stderr, "usage: pak pack|unpack FROM TO\n");
        return 2;
    }
    struct bytes from = {0}, to = {0};
    if (bytes_read_file(&from, arguments[2]) != 0) {
        perror(arguments[2]);
        return 1;
    }
    if (arguments[1][0] == 'p') {
        pack_write(&from, &to);
    } else {
        const char *wrong = pack_read(&from, &to);
        if (wrong) {
            fprintf(stderr, "pak: %s: %s\n", arguments[2], wrong);
            return 1;
        }
    }
    if (bytes_write_file(&to, arguments[3]) != 0) {
        perror(arguments[3]);
        return 1;
    }
    printf("%s: %zu -> %zu bytes\n", arguments[2], from.length, to.length);
    bytes_free(&from);
    bytes_free(&to);
    return 0;
}
