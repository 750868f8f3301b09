/* Writes text that looks like prose, the same for the same seed: mill SEED BYTES */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned long long state;

static unsigned below(unsigned bound)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (state >> 33) % bound;
}

static void word(char *to)
{
    static const char *const starts[] = {"b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "st", "tr", "pl", "br"};
    static const char *const middles[] = {"a", "e", "i", "o", "u", "ai", "ea", "ou", "ee"};
    static const char *const ends[] = {"", "n", "r", "s", "t", "l", "nd", "st", "rk"};
    *to = '\0';
    /* Squaring the choice makes some words frequent and most of them rare. */
    for (unsigned syllables = 1 + below(2) * below(3); syllables > 0; syllables--) {
        strcat(to, starts[below(18) * below(18) / 18]);
        strcat(to, middles[below(9) * below(9) / 9]);
        strcat(to, ends[below(9) * below(9) / 9]);
    }
}

int main(int count, char **arguments)
{
    if (count != 3) {
        fprintf(stderr, "usage: mill SEED BYTES\n");
        return 2;
    }
    state = strtoull(arguments[1], NULL, 10);
    long left = strtol(arguments[2], NULL, 10);
    while (left > 0) {
        char sentence[512] = "", next[64];
        for (unsigned words = 4 + below(12); words > 0; words--) {
            word(next);
            strcat(sentence, next);
            strcat(sentence, words > 1 ? " " : ".");
        }
        left -= printf("%s\n", sentence);
    }
    return ferror(stdout) ? 1 : 0;
}
