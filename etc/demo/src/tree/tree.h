/* Counts words in a balanced tree. */
#ifndef TREE_H
#define TREE_H

#include <stddef.h>

struct tree;

/* Counts a word once more and gives the new root. */
struct tree *tree_count(struct tree *root, const char *word);
/* Calls back for each word in order. */
void tree_walk(const struct tree *root, void (*visit)(const char *word, unsigned long count));
size_t tree_height(const struct tree *root);
void tree_free(struct tree *root);

#endif
