/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "merge/sparse.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/plan_internal.h"
#include "merge/sparse_internal.h"

struct molt_sparse *molt_sparse_new(const struct molt_sparse_opts *o)
{
    struct molt_sparse *s = molt_xcalloc(1, sizeof(*s));
    s->o = *o;
    s->answers = 1;
    s->known = molt_manifest_new();
    s->t = (struct molt_trees){molt_manifest_new(), molt_manifest_new(), molt_manifest_new(), molt_manifest_new()};
    s->linked = molt_manifest_new();
    return s;
}

void molt_sparse_free(struct molt_sparse *s)
{
    if (!s)
        return;
    molt_manifest_free(s->known);
    molt_manifest_free(s->t.base);
    molt_manifest_free(s->t.prev);
    molt_manifest_free(s->t.active);
    molt_manifest_free(s->t.upgrade);
    molt_manifest_free(s->linked);
    molt_pathset_clear(&s->pending);
    free(s);
}

const char *molt_sparse_lacks(const struct molt_sparse *s)
{
    return s->lacks;
}

void molt_sparse_reconsider(struct molt_sparse *s)
{
    s->settled |= s->pending.n == 0;
    for (size_t i = 0; i < s->known->n; i++)
        molt_pathset_add(&s->pending, s->known->v[i].path);
}

void molt_sparse_trees(const struct molt_sparse *s, struct molt_trees *ret)
{
    *ret = s->t;
}

static bool is_linked(const struct molt_entry *e)
{
    return e->nlink > 1 && e->type != MOLT_T_DIR && !(e->flags & MOLT_EF_MOUNT);
}

/* --- numbers whose names must all be known --- */

struct wanted {
    uint64_t ino;
    uint32_t nlink, found;
};
struct wants {
    struct wanted *v;
    size_t n, cap;
};

static void want(struct wants *w, uint64_t ino, uint32_t nlink)
{
    MOLT_GROW(w->v, w->n, w->cap);
    w->v[w->n++] = (struct wanted){ino, nlink, 0};
}

static void want_linked(struct wants *w, const struct molt_manifest *m)
{
    for (size_t i = 0; i < m->n; i++)
        if (is_linked(&m->v[i]))
            want(w, m->v[i].ino, m->v[i].nlink);
}

static int by_ino(const void *x, const void *y)
{
    const struct wanted *a = x, *b = y;
    return a->ino < b->ino ? -1 : a->ino > b->ino;
}

static struct wanted *find_wanted(const struct wants *w, uint64_t ino)
{
    const struct wanted key = {.ino = ino};
    return w->n ? bsearch(&key, w->v, w->n, sizeof(*w->v), by_ino) : NULL;
}

/* Sorts, of equal numbers one; counts the names in m. */
static void count_names(struct wants *w, const struct molt_manifest *m)
{
    size_t out = 0;
    if (w->n == 0)
        return;
    qsort(w->v, w->n, sizeof(*w->v), by_ino);
    for (size_t i = 0; i < w->n; i++)
        if (!out || w->v[out - 1].ino != w->v[i].ino)
            w->v[out++] = w->v[i];
    w->n = out;
    for (size_t i = 0; i < m->n; i++) {
        const struct molt_entry *e = &m->v[i];
        struct wanted *f = e->type == MOLT_T_DIR || (e->flags & MOLT_EF_MOUNT) ? NULL : find_wanted(w, e->ino);
        if (f)
            f->found++;
    }
}

static void check_names(struct molt_sparse *s, struct wants *w, const struct molt_manifest *m, const char *lacks)
{
    count_names(w, m);
    for (size_t i = 0; i < w->n && !s->lacks; i++)
        if (w->v[i].found < w->v[i].nlink)
            s->lacks = lacks;
    s->has_links |= w->n > 0;
    free(w->v);
}

/* --- getting to know paths --- */

/* Of found, what is not known yet. */
static void add_unknown(const struct molt_sparse *s, const struct molt_manifest *found, struct molt_manifest *ret,
                        struct molt_pathset *fresh)
{
    for (size_t i = 0; i < found->n; i++)
        if (!molt_manifest_find(s->known, found->v[i].path)) {
            molt_manifest_add(ret, &found->v[i]);
            molt_pathset_add(fresh, found->v[i].path);
        }
}

static void note_racy(struct molt_sparse *s, const char *path)
{
    struct molt_entry *k = molt_manifest_find(s->known, path);
    if (k)
        k->ino = s->answers;
}

void molt__sparse_settle(const struct molt_sparse *s, struct molt_entry *e)
{
    const struct molt_entry *k = e->flags & MOLT_EF_RACY ? molt_manifest_find(s->known, e->path) : NULL;
    if (k && k->ino <= s->proven)
        e->flags &= (uint8_t)~MOLT_EF_RACY;
}

/* A path was not known, so that nothing of it changed on the active side and nothing of ours is there on the other. */
static void enter(struct molt_sparse *s, struct molt_manifest *base, const struct molt_manifest *upgrade,
                  struct molt_pathset *fresh)
{
    CLEANUP_MANIFEST struct molt_manifest *names = molt_manifest_new();
    struct wants wb = {0}, wu = {0};
    molt_pathset_sort(fresh);
    for (size_t i = 0; i < fresh->n; i++) {
        molt_manifest_add(names, &(struct molt_entry){.path = fresh->v[i]});
        molt_pathset_add(&s->pending, fresh->v[i]);
    }
    molt_manifest_update(s->known, names, fresh->v, fresh->n);
    for (size_t i = 0; i < base->n; i++)
        base->v[i].flags |= MOLT_EF_AS_BASE;
    molt_manifest_update(s->t.base, base, fresh->v, fresh->n);
    molt_manifest_update(s->t.upgrade, upgrade, fresh->v, fresh->n);
    want_linked(&wb, base);
    want_linked(&wu, upgrade);
    check_names(s, &wb, s->t.base, "a file of the base has names that no one told");
    check_names(s, &wu, s->t.upgrade, "a file of the upgrade has names that no one told");
    if (s->has_links) {
        molt_manifest_relink(s->t.base);
        molt_manifest_relink(s->t.upgrade);
    }
    molt_manifest_update(s->t.prev, s->t.base, fresh->v, fresh->n);
    molt_manifest_update(s->t.active, s->t.base, fresh->v, fresh->n);
    for (size_t i = 0; i < base->n; i++)
        note_racy(s, base->v[i].path);
}

static bool is_deep(const struct molt_sparse *s, const char *path)
{
    const struct molt_entry *k = molt_manifest_find(s->known, path);
    return k && k->flags & SPARSE_DEEP;
}

/* Base and upgrade of these paths, of the directories above them, and of all that lies below the deep ones. */
static int learn(struct molt_sparse *s, const struct molt_pathset *plain, const struct molt_pathset *deep,
                 struct molt_error **err)
{
    CLEANUP_PATHSET struct molt_pathset all = {0}, fresh = {0};
    CLEANUP_MANIFEST struct molt_manifest *base = molt_manifest_new(), *upgrade = molt_manifest_new();
    CLEANUP_MANIFEST struct molt_manifest *new_base = molt_manifest_new(), *new_upgrade = molt_manifest_new();
    for (int k = 0; k < 2; k++) {
        const struct molt_pathset *from = k ? deep : plain;
        for (size_t i = 0; from && i < from->n; i++) {
            molt_pathset_add(&all, from->v[i]);
            molt_pathset_add_parents(&all, from->v[i]);
        }
    }
    molt_pathset_sort(&all);
    CLEANUP_FREE struct molt_look *v = molt_xmalloc((all.n + 1) * sizeof(*v));
    size_t n = 0;
    for (size_t i = 0; i < all.n; i++) {
        bool walk = deep && molt_pathset_has(deep, all.v[i]) && !is_deep(s, all.v[i]);
        if (walk || !molt_manifest_find(s->known, all.v[i]))
            v[n++] = (struct molt_look){all.v[i], walk};
    }
    if (n == 0)
        return 0;
    const struct molt_scan_opts ob = {.exclude = s->o.exclude, .racy_from_ns = s->o.racy_from_ns};
    const struct molt_scan_opts ou = {.exclude = s->o.exclude};
    int rc = molt_manifest_stat(s->o.basefd, &ob, v, n, base, err);
    if (rc == 0)
        rc = molt_manifest_stat(s->o.rootfd, &ou, v, n, upgrade, err);
    if (rc < 0)
        return rc;
    add_unknown(s, base, new_base, &fresh);
    add_unknown(s, upgrade, new_upgrade, &fresh);
    for (size_t i = 0; i < n; i++)
        if (!molt_manifest_find(s->known, v[i].path))
            molt_pathset_add(&fresh, v[i].path);
    enter(s, new_base, new_upgrade, &fresh);
    for (size_t i = 0; i < n; i++)
        if (v[i].subtree)
            molt_manifest_find(s->known, v[i].path)->flags |= SPARSE_DEEP;
    return 0;
}

int molt_sparse_add_upgrade(struct molt_sparse *s, const struct molt_look *v, size_t n, struct molt_error **err)
{
    CLEANUP_PATHSET struct molt_pathset plain = {0}, deep = {0};
    for (size_t i = 0; i < n; i++)
        if (!molt_path_excluded(v[i].path, s->o.exclude))
            molt_pathset_add(v[i].subtree ? &deep : &plain, v[i].path);
    return learn(s, &plain, &deep, err);
}

/* --- the active's answer --- */

/* The active's entries at and below what is dropped, unless they are told anew. */
static void find_removed(const struct molt_sparse *s, const struct molt_manifest *drop, struct molt_pathset *ret)
{
    const struct molt_manifest *a = s->t.active;
    for (size_t i = 0; i < drop->n; i++)
        for (size_t k = molt_manifest_lower(a, drop->v[i].path); k < a->n && molt_path_below(a->v[k].path, drop->v[i].path); k++)
            molt_pathset_add(ret, a->v[k].path);
}

static bool has_directory(const struct molt_sparse *s, const struct molt_manifest *put, const struct molt_pathset *removed,
                          const char *path)
{
    if (*path == '\0')
        return true;
    const char *cut = strrchr(path, '/');
    CLEANUP_FREE char *dir = molt_xstrndup(path, cut ? (size_t)(cut - path) : 0);
    const struct molt_entry *e = molt_manifest_find(put, dir);
    if (!e && !molt_pathset_has(removed, dir))
        e = molt_manifest_find(s->t.active, dir);
    return e && e->type == MOLT_T_DIR && !(e->flags & MOLT_EF_MOUNT);
}

/* What is not in a directory is about to be told anew; until then it is left out. */
static void choose(const struct molt_sparse *s, const struct molt_manifest *set, struct molt_pathset *changed,
                   struct molt_manifest *put)
{
    CLEANUP_PATHSET struct molt_pathset removed = {0};
    for (size_t i = 0; i < changed->n; i++)
        molt_pathset_add(&removed, changed->v[i]);
    for (size_t i = 0; i < set->n; i++) {
        if (molt_path_excluded(set->v[i].path, s->o.exclude))
            continue;
        molt_pathset_add(changed, set->v[i].path);
        if (has_directory(s, put, &removed, set->v[i].path))
            molt_manifest_add(put, &set->v[i]);
    }
    molt_pathset_sort(changed);
}

/* Under their other names, files that were told have the same new attributes. */
static void follow_names(struct molt_sparse *s, const struct molt_manifest *told)
{
    CLEANUP_INODES struct molt_inodes l = {0};
    molt_inodes_add(&l, s->linked, false);
    for (size_t i = 0; l.n && i < s->t.active->n; i++) {
        struct molt_entry *e = &s->t.active->v[i];
        if (molt_manifest_find(told, e->path) || !molt_inodes_follow(&l, e))
            continue;
        molt_pathset_add(&s->pending, e->path);
        note_racy(s, e->path);
    }
}

static void keep_linked(struct molt_sparse *s, const struct molt_manifest *put, const struct molt_manifest *inodes)
{
    molt_manifest_free(s->linked);
    s->linked = molt_manifest_new();
    for (size_t i = 0; i < put->n; i++)
        if (is_linked(&put->v[i]))
            molt_manifest_add(s->linked, &put->v[i]);
    for (size_t i = 0; i < inodes->n; i++)
        molt_manifest_add(s->linked, &inodes->v[i]);
}

int molt_sparse_take(struct molt_sparse *s, bool from_base, const struct molt_source *src, struct molt_error **err)
{
    CLEANUP_MANIFEST struct molt_manifest *set = NULL, *drop = NULL, *inodes = NULL, *put = molt_manifest_new();
    CLEANUP_PATHSET struct molt_pathset plain = {0}, deep = {0}, changed = {0};
    struct wants w = {0};
    bool proven = !from_base && (s->settled || s->pending.n == 0);
    int rc = molt_manifest_recorded_parts(src, &set, &drop, &inodes, err);
    if (rc < 0)
        return rc;
    if (proven)
        s->proven = s->answers; /* but what it tells again */
    s->answers++;
    s->settled = false;
    for (size_t i = 0; i < set->n; i++)
        if (!molt_path_excluded(set->v[i].path, s->o.exclude))
            molt_pathset_add(&plain, set->v[i].path);
    for (size_t i = 0; i < drop->n; i++)
        if (!molt_path_excluded(drop->v[i].path, s->o.exclude))
            molt_pathset_add(&deep, drop->v[i].path);
    rc = learn(s, &plain, &deep, err);
    if (rc < 0)
        return rc;
    find_removed(s, drop, &changed);
    choose(s, set, &changed, put);
    molt_manifest_update(s->t.active, put, changed.v, changed.n);
    for (size_t i = 0; i < changed.n; i++)
        molt_pathset_add(&s->pending, changed.v[i]);
    for (size_t i = 0; i < set->n; i++)
        note_racy(s, set->v[i].path);
    keep_linked(s, put, inodes);
    follow_names(s, put);
    for (size_t i = 0; i < s->linked->n; i++)
        want(&w, s->linked->v[i].ino, s->linked->v[i].nlink);
    check_names(s, &w, s->t.active, "a file that changed has names that no one told");
    if (s->has_links)
        molt_manifest_relink(s->t.active);
    return 0;
}

/* --- the cut --- */

static bool is_dir_at(const struct molt_manifest *m, const char *path)
{
    const struct molt_entry *e = molt_manifest_find(m, path);
    return molt__is_dir(e);
}

/* A directory in some of the trees, but not in all: what lies below is decided with it. */
static bool is_mixed(const struct molt_sparse *s, const char *path)
{
    int n = is_dir_at(s->t.base, path) + is_dir_at(s->t.prev, path) + is_dir_at(s->t.active, path) +
            is_dir_at(s->t.upgrade, path);
    return n > 0 && n < 4;
}

/* The topmost mixed ones at and above the paths. */
static void find_mixed(const struct molt_sparse *s, const struct molt_pathset *paths, struct molt_pathset *ret)
{
    CLEANUP_PATHSET struct molt_pathset all = {0};
    for (size_t i = 0; i < paths->n; i++) {
        molt_pathset_add(&all, paths->v[i]);
        molt_pathset_add_parents(&all, paths->v[i]);
    }
    molt_pathset_sort(&all);
    for (size_t i = 0; i < all.n; i++) {
        bool below = ret->n && molt_path_below(all.v[i], ret->v[ret->n - 1]);
        if (!below && is_mixed(s, all.v[i]))
            molt_pathset_add(ret, all.v[i]);
    }
}

static void add_below(const struct molt_manifest *m, const char *dir, struct molt_pathset *ret)
{
    for (size_t i = molt_manifest_lower(m, dir); i < m->n && molt_path_below(m->v[i].path, dir); i++)
        molt_pathset_add(ret, m->v[i].path);
}

static void add_group_inos(const struct molt_manifest *m, const struct molt_pathset *paths, struct wants *w)
{
    for (size_t i = 0; i < paths->n; i++) {
        const struct molt_entry *e = molt_manifest_find(m, paths->v[i]);
        if (e && e->link_sig)
            want(w, e->ino, 0);
    }
    if (w->n)
        qsort(w->v, w->n, sizeof(*w->v), by_ino);
}

/* All names of each hard-linked file among the paths. */
static void add_names(const struct molt_manifest *m, struct molt_pathset *paths)
{
    struct wants w = {0};
    add_group_inos(m, paths, &w);
    for (size_t i = 0; w.n && i < m->n; i++)
        if (m->v[i].link_sig && find_wanted(&w, m->v[i].ino))
            molt_pathset_add(paths, m->v[i].path);
    free(w.v);
}

/* Adds all that the outcome of a path in it can have to do with. */
static void close_paths(const struct molt_sparse *s, struct molt_pathset *k)
{
    const struct molt_manifest *const m[] = {s->t.base, s->t.prev, s->t.active, s->t.upgrade};
    size_t before;
    do {
        CLEANUP_PATHSET struct molt_pathset mixed = {0};
        before = k->n;
        find_mixed(s, k, &mixed);
        for (size_t i = 0; i < mixed.n; i++)
            for (size_t j = 0; j < 4; j++)
                add_below(m[j], mixed.v[i], k);
        for (size_t j = 0; s->has_links && j < 4; j++)
            add_names(m[j], k);
    } while (k->n != before);
    for (size_t i = 0; i < before; i++)
        molt_pathset_add_parents(k, k->v[i]);
    molt_pathset_sort(k);
}

static struct molt_manifest *slice(const struct molt_sparse *s, const struct molt_manifest *m, const struct molt_pathset *k)
{
    struct molt_manifest *ret = molt_xcalloc(1, sizeof(*ret));
    for (size_t i = 0; i < k->n; i++) {
        struct molt_entry *e = molt_manifest_find(m, k->v[i]);
        if (!e)
            continue;
        if (m == s->t.prev || m == s->t.active)
            molt__sparse_settle(s, e);
        MOLT_GROW(ret->v, ret->n, ret->cap);
        ret->v[ret->n++] = *e;
    }
    return ret;
}

static void slice_free(struct molt_manifest *m)
{
    if (!m)
        return;
    free(m->v); /* the strings are borrowed */
    free(m);
}

int molt_sparse_cut(struct molt_sparse *s, struct molt_cut *ret, struct molt_error **err)
{
    CLEANUP_PATHSET struct molt_pathset mixed = {0};
    *ret = (struct molt_cut){0};
    find_mixed(s, &s->pending, &mixed);
    int rc = learn(s, NULL, &mixed, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < s->pending.n; i++)
        molt_pathset_add(&ret->paths, s->pending.v[i]);
    close_paths(s, &ret->paths);
    ret->trees = (struct molt_trees){slice(s, s->t.base, &ret->paths), slice(s, s->t.prev, &ret->paths),
                                     slice(s, s->t.active, &ret->paths), slice(s, s->t.upgrade, &ret->paths)};
    return 0;
}

void molt_cut_clear(struct molt_cut *c)
{
    slice_free(c->trees.base);
    slice_free(c->trees.prev);
    slice_free(c->trees.active);
    slice_free(c->trees.upgrade);
    molt_pathset_clear(&c->paths);
    c->trees = (struct molt_trees){0};
}

static void keep(struct molt_manifest *m, const struct molt_manifest *slice)
{
    for (size_t i = 0; i < slice->n; i++) {
        struct molt_entry *e = slice->v[i].content_hash ? molt_manifest_find(m, slice->v[i].path) : NULL;
        if (e)
            e->content_hash = slice->v[i].content_hash;
    }
}

void molt_sparse_keep_hashes(struct molt_sparse *s, const struct molt_cut *c)
{
    keep(s->t.base, c->trees.base);
    keep(s->t.active, c->trees.active);
    keep(s->t.upgrade, c->trees.upgrade);
}

void molt_sparse_count(struct molt_sparse *s, const struct molt_cut *c, const struct molt_plan *p, struct molt_counts *ret)
{
    size_t *const total[] = {NULL, &s->counts.active_only, &s->counts.upgrade_only, &s->counts.both_same};
    for (size_t i = 0; i < c->paths.n; i++) {
        struct molt_entry *k = molt_manifest_find(s->known, c->paths.v[i]);
        if (k && k->mode)
            --*total[k->mode];
        if (k)
            k->mode = MOLT_COUNT_NONE;
    }
    for (size_t i = 0; i < p->n_counted; i++) {
        struct molt_entry *k = molt_manifest_find(s->known, p->counted[i].path);
        if (k)
            k->mode = p->counted[i].kind;
        ++*total[p->counted[i].kind];
    }
    *ret = s->counts;
}

void molt_sparse_applied(struct molt_sparse *s, const struct molt_cut *c)
{
    molt_manifest_update(s->t.prev, c->trees.active, c->paths.v, c->paths.n);
    molt_pathset_clear(&s->pending);
}
