/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From the known paths to whole trees, where a recording does not suffice any more. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/sparse_internal.h"

static void paths_of(const struct molt_manifest *m, const char ***ret)
{
    *ret = molt_xmalloc((m->n + 1) * sizeof(**ret));
    for (size_t i = 0; i < m->n; i++)
        (*ret)[i] = m->v[i].path;
}

/* A copy of whole, with the known paths as in part. */
static struct molt_manifest *overlay(const struct molt_sparse *s, const struct molt_manifest *whole,
                                     const struct molt_manifest *part)
{
    struct molt_manifest *m = molt_manifest_new();
    CLEANUP_FREE const char **paths = NULL;
    for (size_t i = 0; i < whole->n; i++)
        molt_manifest_add(m, &whole->v[i]);
    paths_of(s->known, &paths);
    molt_manifest_update(m, part, paths, s->known->n);
    molt_manifest_relink(m);
    return m;
}

static int by_ino(const void *x, const void *y)
{
    const struct molt_entry *a = *(const struct molt_entry *const *)x, *b = *(const struct molt_entry *const *)y;
    return a->ino < b->ino ? -1 : a->ino > b->ino;
}

/* The names of what changed that nobody told. */
static void follow_all(const struct molt_sparse *s, struct molt_manifest *active)
{
    CLEANUP_FREE const struct molt_entry **v = molt_xmalloc((s->linked->n + 1) * sizeof(*v));
    size_t n = 0;
    for (; n < s->linked->n; n++)
        v[n] = &s->linked->v[n];
    if (n == 0)
        return;
    qsort(v, n, sizeof(*v), by_ino);
    for (size_t i = 0; i < active->n; i++) {
        struct molt_entry *e = &active->v[i];
        const struct molt_entry *key = e;
        if (e->type == MOLT_T_DIR || (e->flags & MOLT_EF_MOUNT) || molt_manifest_find(s->known, e->path))
            continue;
        const struct molt_entry *const *f = bsearch(&key, v, n, sizeof(*v), by_ino);
        if (f)
            molt_sparse_follow(e, *f);
    }
    molt_manifest_relink(active);
}

int molt_sparse_complete(struct molt_sparse *s, struct molt_trees *ret, struct molt_error **err)
{
    CLEANUP_MANIFEST struct molt_manifest *base = NULL, *upgrade = NULL;
    struct molt_scan_opts o = {.exclude = s->o.exclude, .racy_from_ns = s->o.racy_from_ns};
    int rc = molt_manifest_scan(s->o.basefd, &o, &base, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < base->n; i++)
        base->v[i].flags |= MOLT_EF_AS_BASE; /* and so are the copies below; but not by `ref`, which takes no flags */
    for (size_t i = 0; i < s->t.base->n; i++) {
        struct molt_entry *e = molt_manifest_find(base, s->t.base->v[i].path);
        if (e)
            e->content_hash = s->t.base->v[i].content_hash;
    }
    o = (struct molt_scan_opts){.exclude = s->o.exclude, .ref = base};
    rc = molt_manifest_scan(s->o.rootfd, &o, &upgrade, err);
    if (rc < 0)
        return rc;
    /* Where passes were at work, the upgrade's version is the one that was known before. */
    ret->upgrade = overlay(s, upgrade, s->t.upgrade);
    ret->prev = overlay(s, base, s->t.prev);
    ret->active = overlay(s, base, s->t.active);
    ret->base = MOLT_STEAL_PTR(base);
    follow_all(s, ret->active);
    return 0;
}
