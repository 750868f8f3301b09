#include "tree.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static char last[32];
static unsigned long words, total;

static void visit(const char *word, unsigned long count)
{
    assert(strcmp(last, word) < 0);
    strcpy(last, word);
    words++;
    total += count;
}

int main(void)
{
    struct tree *root = NULL;
    char word[32];
    for (int i = 0; i < 300000; i++) {
        sprintf(word, "word-%06d", (i * 7) % 100000);
        root = tree_count(root, word);
    }
    tree_walk(root, visit);
    assert(words == 100000 && total == 300000);
    assert(tree_height(root) < 34);
    printf("tree: %lu words, height %zu\n", words, tree_height(root));
    tree_free(root);
    return 0;
}
