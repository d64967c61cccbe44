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

/* The names of what changed that nobody told. */
static void follow_all(const struct molt_sparse *s, struct molt_manifest *active)
{
    CLEANUP_INODES struct molt_inodes l = {0};
    molt_inodes_add(&l, s->linked, false);
    for (size_t i = 0; l.n && i < active->n; i++)
        if (!molt_manifest_find(s->known, active->v[i].path))
            molt_inodes_follow(&l, &active->v[i]);
    if (l.n)
        molt_manifest_relink(active);
}

static void settle_all(const struct molt_sparse *s)
{
    for (size_t i = 0; i < s->t.prev->n; i++)
        molt__sparse_settle(s, &s->t.prev->v[i]);
    for (size_t i = 0; i < s->t.active->n; i++)
        molt__sparse_settle(s, &s->t.active->v[i]);
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
    settle_all(s);
    /* Where passes were at work, the upgrade's version is the one that was known before. */
    ret->upgrade = overlay(s, upgrade, s->t.upgrade);
    ret->prev = overlay(s, base, s->t.prev);
    ret->active = overlay(s, base, s->t.active);
    ret->base = MOLT_STEAL_PTR(base);
    follow_all(s, ret->active);
    return 0;
}
