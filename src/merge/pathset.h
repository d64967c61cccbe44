/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A set of paths: each once, copied, in the order in which they came or in tree order. */
#ifndef MOLT_MERGE_PATHSET_H
#define MOLT_MERGE_PATHSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct molt_pathset {
    const char **v; /* as added, or in tree order after molt_pathset_sort */
    size_t n, cap;
    uint32_t *slots; /* private: index + 1 into v, 0: free */
    size_t n_slots;
};

/* True: was not in it. */
bool molt_pathset_add(struct molt_pathset *s, const char *path);
/* The directories above path, "" among them. */
void molt_pathset_add_parents(struct molt_pathset *s, const char *path);
bool molt_pathset_has(const struct molt_pathset *s, const char *path);
void molt_pathset_sort(struct molt_pathset *s);
void molt_pathset_clear(struct molt_pathset *s);
#define CLEANUP_PATHSET __attribute__((cleanup(molt_pathset_clear)))

#endif
