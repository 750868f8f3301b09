#include "tree.h"

#include <stdlib.h>
#include <string.h>

struct tree {
    struct tree *left, *right;
    int level;
    unsigned long count;
    char word[];
};

static struct tree *skew(struct tree *root)
{
    if (root->left && root->left->level == root->level) {
        struct tree *left = root->left;
        root->left = left->right;
        left->right = root;
        return left;
    }
    return root;
}

static struct tree *split(struct tree *root)
{
    if (root->right && root->right->right && root->right->right->level == root->level) {
        struct tree *right = root->right;
        root->right = right->left;
        right->left = root;
        right->level++;
        return right;
    }
    return root;
}

struct tree *tree_count(struct tree *root, const char *word)
{
    if (!root) {
        size_t length = strlen(word) + 1;
        root = calloc(1, sizeof *root + length);
        if (!root)
            abort();
        root->level = 1;
        root->count = 1;
        memcpy(root->word, word, length);
        return root;
    }
    int order = strcmp(word, root->word);
    if (order == 0) {
        root->count++;
        return root;
    }
    if (order < 0)
        root->left = tree_count(root->left, word);
    else
        root->right = tree_count(root->right, word);
    return split(skew(root));
}

void tree_walk(const struct tree *root, void (*visit)(const char *word, unsigned long count))
{
    if (!root)
        return;
    tree_walk(root->left, visit);
    visit(root->word, root->count);
    tree_walk(root->right, visit);
}

size_t tree_height(const struct tree *root)
{
    if (!root)
        return 0;
    size_t left = tree_height(root->left), right = tree_height(root->right);
    return 1 + (left > right ? left : right);
}

void tree_free(struct tree *root)
{
    if (!root)
        return;
    tree_free(root->left);
    tree_free(root->right);
    free(root);
}
