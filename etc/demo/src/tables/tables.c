/* Prints the constants of CRC-32 and SHA-256 as a C header, from their definitions. */
#include <stdint.h>
#include <stdio.h>

/* The first 32 bits behind the point of the root of `number` of degree 2 or 3. */
static uint32_t root_fraction(unsigned number, int degree)
{
    /* Bit by bit: the largest r / 2^32 whose power does not exceed number. */
    uint64_t root = 0;
    for (int bit = 36; bit >= 0; bit--) {
        uint64_t tried = root | (uint64_t)1 << bit;
        unsigned __int128 power = (unsigned __int128)tried * tried;
        unsigned __int128 bound = (unsigned __int128)number << 64;
        if (degree == 3) {
            /* tried^3 <= number * 2^96, compared without the low 32 bits of the square. */
            power = (power >> 32) * tried + (((power & 0xffffffff) * tried) >> 32);
            bound = (unsigned __int128)number << 64;
        }
        if (power < bound || (degree == 2 && power == bound))
            root = tried;
    }
    return (uint32_t)root;
}

static int is_prime(unsigned number)
{
    for (unsigned divisor = 2; divisor * divisor <= number; divisor++)
        if (number % divisor == 0)
            return 0;
    return number > 1;
}

static void print_roots(const char *name, int count, int degree)
{
    printf("static const uint32_t %s[%d] = {\n", name, count);
    for (unsigned number = 2, found = 0; found < (unsigned)count; number++)
        if (is_prime(number)) {
            printf("    0x%08xu,\n", root_fraction(number, degree));
            found++;
        }
    puts("};");
}

int main(void)
{
    puts("#include <stdint.h>");
    puts("static const uint32_t crc_table[256] = {");
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++)
            value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
        printf("    0x%08xu,\n", value);
    }
    puts("};");
    print_roots("sha256_start", 8, 2);
    print_roots("sha256_rounds", 64, 3);
    return 0;
}
