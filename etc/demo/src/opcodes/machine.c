/* Runs every opcode compiled and interpreted and compares: machine ROUNDS */
#include <opcodes.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t interpret(const struct step *program, uint64_t x)
{
    for (int i = 0; i < 12; i++) {
        uint64_t number = program[i].number;
        switch (program[i].kind) {
        case '*': x = x * number + 1; break;
        case '^': x ^= number; break;
        case '<': x = x << number | x >> (64 - number); break;
        case '/': x += x / number; break;
        case '%': if (x % (number >> 20 | 1) > number >> 24) x = ~x; break;
        }
    }
    return x;
}

int main(int count, char **arguments)
{
    long rounds = count > 1 ? strtol(arguments[1], NULL, 10) : 1;
    uint64_t compiled = 1, interpreted = 1;
    for (long round = 0; round < rounds; round++)
        for (int i = 0; i < OPCODES; i++) {
            compiled = opcodes[i](compiled);
            interpreted = interpret(steps[i], interpreted);
            if (compiled != interpreted) {
                printf("opcode %d: %016llx is not %016llx\n", i, (unsigned long long)compiled, (unsigned long long)interpreted);
                return 1;
            }
        }
    printf("%ld rounds of %d opcodes: %016llx\n", rounds, OPCODES, (unsigned long long)compiled);
    return 0;
}
