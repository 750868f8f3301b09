/*
 * Writes a small processor as C: opcodes as functions, in several files, and the same opcodes as data for an interpreter.
 * generate FILES FUNCTIONS
 */
#include <stdio.h>
#include <stdlib.h>

static unsigned long long state = 42;

static unsigned long long next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

int main(int count, char **arguments)
{
    if (count != 3) {
        fprintf(stderr, "usage: generate FILES FUNCTIONS\n");
        return 2;
    }
    int files = atoi(arguments[1]), functions = atoi(arguments[2]), opcode = 0;
    FILE *table = fopen("table.c", "w");
    FILE *header = fopen("opcodes.h", "w");
    if (!table || !header)
        return 1;
    fprintf(header, "#include <stdint.h>\n#define OPCODES %d\nstruct step { char kind; uint64_t number; };\n"
                    "typedef uint64_t opcode(uint64_t);\nextern opcode *const opcodes[OPCODES];\nextern const struct step steps[OPCODES][12];\n",
            files * functions);
    fputs("#include \"opcodes.h\"\nconst struct step steps[OPCODES][12] = {\n", table);
    for (int file = 0; file < files; file++) {
        char name[32];
        sprintf(name, "opcodes%d.c", file);
        FILE *code = fopen(name, "w");
        if (!code)
            return 1;
        fputs("#include \"opcodes.h\"\n", code);
        for (int function = 0; function < functions; function++, opcode++) {
            fprintf(header, "opcode opcode%d;\n", opcode);
            fprintf(code, "uint64_t opcode%d(uint64_t x)\n{\n", opcode);
            fputs("    {", table);
            for (int step = 0; step < 12; step++) {
                unsigned long long number = next();
                switch (number % 5) {
                case 0:
                    fprintf(code, "    x = x * 0x%llxu + 1;\n", number);
                    fprintf(table, "{'*', 0x%llxu}, ", number);
                    break;
                case 1:
                    fprintf(code, "    x ^= 0x%llxu;\n", number);
                    fprintf(table, "{'^', 0x%llxu}, ", number);
                    break;
                case 2:
                    fprintf(code, "    x = x << %llu | x >> %llu;\n", number % 61 + 1, 63 - number % 61);
                    fprintf(table, "{'<', %llu}, ", number % 61 + 1);
                    break;
                case 3:
                    fprintf(code, "    x += x / 0x%llxu;\n", number | 1);
                    fprintf(table, "{'/', 0x%llxu}, ", number | 1);
                    break;
                default:
                    fprintf(code, "    if (x %% 0x%llxu > 0x%llxu)\n        x = ~x;\n", number >> 20 | 1, number >> 24);
                    fprintf(table, "{'%%', 0x%llxu}, ", number);
                }
            }
            fputs("    return x;\n}\n", code);
            fputs("},\n", table);
        }
        fclose(code);
    }
    fputs("};\nopcode *const opcodes[OPCODES] = {\n", table);
    for (int i = 0; i < opcode; i++)
        fprintf(table, "    opcode%d,\n", i);
    fputs("};\n", table);
    return fclose(table) || fclose(header);
}
