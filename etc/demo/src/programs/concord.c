/* Counts the words of its standard input: concord */
#include <stdio.h>
#include <tree.h>

static void show(const char *word, unsigned long count)
{
    printf("%lu %s\n", count, word);
}

int main(void)
{
    struct tree *root = NULL;
    char word[128];
    size_t length = 0;
    int byte;
    do {
        byte = getchar();
        if (byte >= 'a' && byte <= 'z' && length < sizeof word - 1) {
            word[length++] = byte;
        } else if (length > 0) {
            word[length] = '\0';
            root = tree_count(root, word);
            length = 0;
        }
    } while (byte != EOF);
    tree_walk(root, show);
    tree_free(root);
    return 0;
}
