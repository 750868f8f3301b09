/* Evaluates sums. It forgets the last term, which its check finds: the build fails on purpose. */
#include <stdio.h>
#include <stdlib.h>

static long sum(const char *text)
{
    long total = 0;
    char *end;
    for (long term = strtol(text, &end, 10); *end == '+'; term = strtol(end + 1, &end, 10))
        total += term;
    return total;
}

int main(void)
{
    long got = sum("1+2+3");
    printf("check: 1+2+3 = %ld\n", got);
    if (got != 6) {
        fprintf(stderr, "check failed: 6 was expected\n");
        return 1;
    }
    return 0;
}
