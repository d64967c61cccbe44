/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "merge/pathset.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/wire.h"

/* The slot that holds path, or the free one where it belongs. */
static uint32_t *place(const struct molt_pathset *s, const char *path)
{
    size_t i = XXH3_64bits(path, strlen(path)) & (s->n_slots - 1);
    while (s->slots[i] && strcmp(s->v[s->slots[i] - 1], path) != 0)
        i = (i + 1) & (s->n_slots - 1);
    return &s->slots[i];
}

static void index_all(struct molt_pathset *s, size_t n_slots)
{
    free(s->slots);
    s->n_slots = n_slots;
    s->slots = molt_xcalloc(n_slots, sizeof(*s->slots));
    for (size_t i = 0; i < s->n; i++)
        *place(s, s->v[i]) = (uint32_t)i + 1;
}

bool molt_pathset_add(struct molt_pathset *s, const char *path)
{
    if (s->n * 2 >= s->n_slots)
        index_all(s, s->n_slots ? s->n_slots * 2 : 64);
    uint32_t *slot = place(s, path);
    if (*slot)
        return false;
    MOLT_GROW(s->v, s->n, s->cap);
    s->v[s->n++] = molt_xstrdup(path);
    *slot = (uint32_t)s->n;
    return true;
}

void molt_pathset_add_parents(struct molt_pathset *s, const char *path)
{
    CLEANUP_FREE char *dir = molt_xstrdup(path);
    while (*dir) {
        char *cut = strrchr(dir, '/');
        *(cut ? cut : dir) = '\0';
        if (!molt_pathset_add(s, dir))
            return; /* then all above it are there */
    }
}

bool molt_pathset_has(const struct molt_pathset *s, const char *path)
{
    return s->n && *place(s, path);
}

static int by_path(const void *a, const void *b)
{
    return molt_path_cmp(*(const char *const *)a, *(const char *const *)b);
}

void molt_pathset_sort(struct molt_pathset *s)
{
    if (s->n == 0)
        return;
    qsort(s->v, s->n, sizeof(*s->v), by_path);
    index_all(s, s->n_slots);
}

void molt_pathset_clear(struct molt_pathset *s)
{
    for (size_t i = 0; i < s->n; i++)
        free((char *)s->v[i]);
    free(s->v);
    free(s->slots);
    *s = (struct molt_pathset){0};
}
