/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a plan needs from the active, and what of it the tree has already. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "merge/apply.h"
#include "merge/apply_fs.h"
#include "merge/pathset.h"

#define DIFFERENCES_MIN (4u * MOLT_PACK_BLOCK) /* below it a file comes whole */
#define HOLES_MAX       (64u << 20)            /* above it one with holes does: they are read for the hashes, on both sides */

/* Only what can be written in place without anybody noticing: the whole content under one name, nobody's program, no
 * version that has to be kept. What is laid beside a file is ours. */
static bool may_differ_in_part(const struct molt_action *x)
{
    const struct molt_entry *e = x->active;
    return (x->act == MOLT_ACT_PUT || x->act == MOLT_ACT_BESIDE) && x->fetch == MOLT_FETCH_FULL && !x->stash && e && e->type == MOLT_T_REG &&
           e->nlink == 1 && e->size >= DIFFERENCES_MIN && !(e->mode & 0111) && !(e->flags & MOLT_EF_INODE);
}

/* size: of the active's version, whose holes beyond ours would come as data. */
static int hash_own(const struct molt_apply *a, const char *path, uint64_t size, struct molt_pack_path *p, struct molt_entry *had,
                    struct molt_error **err)
{
    struct stat st;
    uint64_t *h = NULL;
    CLEANUP_CLOSE int fd = molt_open_beneath(a->rootfd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_size < DIFFERENCES_MIN ||
        (st.st_size > HOLES_MAX && st.st_blocks * 512 < st.st_size) || size > (uint64_t)st.st_size + HOLES_MAX)
        return 0;
    if (molt_entry_of_fd(fd, had) < 0 || had->flags & MOLT_EF_INODE)
        return 0;
    int r = molt_pack_hash_blocks(fd, (uint64_t)st.st_size, &h, &p->n_have, err);
    p->have = h;
    return r;
}

/* Where the version lies that the differences go into. */
static int hash_for(const struct molt_apply *a, const struct molt_action *x, struct molt_pack_path *p, struct molt_entry *had,
                    struct molt_error **err)
{
    if (x->act != MOLT_ACT_BESIDE)
        return hash_own(a, x->path, x->active->size, p, had, err);
    char beside[MOLT_BESIDE_LIMIT], path[MOLT_PATH_LIMIT + MOLT_BESIDE_LIMIT];
    const char *cut = strrchr(x->path, '/');
    size_t n = cut ? (size_t)(cut - x->path) + 1 : 0;
    molt__beside_name(x->path + n, beside);
    snprintf(path, sizeof(path), "%.*s%s", (int)n, x->path, beside);
    return hash_own(a, path, x->active->size, p, had, err);
}

int molt_apply_want(const struct molt_apply *a, const struct molt_plan *plan, struct molt_wants *ret, struct molt_error **err)
{
    struct molt_wants w = {.v = molt_xcalloc(plan->n + 1, sizeof(*w.v)),
                           .action = molt_xcalloc(plan->n + 1, sizeof(*w.action)),
                           .had = molt_xcalloc(plan->n + 1, sizeof(*w.had))};
    CLEANUP_PATHSET struct molt_pathset kept = {0};
    int r = 0;
    for (size_t i = 0; r == 0 && i < plan->n; i++) {
        const struct molt_action *x = &plan->v[i];
        if (x->act == MOLT_ACT_KEEP)
            molt_pathset_add(&kept, x->path); /* before all others: it is moved, what takes its place is another file */
        if (x->fetch == MOLT_FETCH_NONE)
            continue;
        w.v[w.n] = (struct molt_pack_path){.path = x->path, .meta_only = x->fetch == MOLT_FETCH_META};
        w.action[w.n] = i;
        if (may_differ_in_part(x) && !molt_pathset_has(&kept, x->path))
            r = hash_for(a, x, &w.v[w.n], &w.had[w.n], err);
        w.n++;
    }
    *ret = w;
    return r;
}

void molt_wants_clear(struct molt_wants *w)
{
    for (size_t i = 0; i < w->n; i++)
        free((void *)w->v[i].have);
    free(w->v);
    free(w->action);
    free(w->had);
    *w = (struct molt_wants){0};
}
