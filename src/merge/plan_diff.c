/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What differs between two entries, attribute-wise merging, and which content hashes a plan needs to know. */
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "merge/plan_internal.h"

bool molt__same_inode(const struct molt_entry *a, const struct molt_entry *b)
{
    /* A name of it may have come or gone with a directory that was renamed, which no time of change tells. */
    return molt_entry_same_inode(a, b) && (!a || a->link_sig == b->link_sig);
}

static bool content_differs(const struct molt_entry *a, const struct molt_entry *b)
{
    switch (a->type) {
    case MOLT_T_REG:
        if (a->size != b->size)
            return true;
        return a->size > 0 && (a->content_hash == 0 || a->content_hash != b->content_hash);
    case MOLT_T_LNK:
        return !molt_streq(a->target, b->target);
    case MOLT_T_CHR:
    case MOLT_T_BLK:
        return a->rdev != b->rdev;
    default:
        return false;
    }
}

unsigned molt__diff(const struct molt_entry *a, const struct molt_entry *b)
{
    if (!a || !b)
        return a == b ? 0 : MOLT__D_TYPE;
    if (molt_entry_same_inode(a, b))
        return a->link_sig == b->link_sig ? 0 : MOLT__D_LINK;
    if (a->type != b->type)
        return MOLT__D_TYPE;
    unsigned d = 0;
    if (content_differs(a, b))
        d |= MOLT__D_CONTENT;
    if (a->mode != b->mode || a->uid != b->uid || a->gid != b->gid || ((a->flags ^ b->flags) & MOLT_EF_INODE))
        d |= MOLT__D_META;
    if (a->xattr_hash != b->xattr_hash)
        d |= MOLT__D_XATTR;
    if (a->mtime_ns != b->mtime_ns)
        d |= MOLT__D_MTIME;
    if (a->link_sig != b->link_sig)
        d |= MOLT__D_LINK;
    return d;
}

struct molt_entry molt__attrs_want(const struct molt_entry *b, const struct molt_entry *a,
                                   const struct molt_entry *u, bool prefer_active, bool *ret_clash)
{
    bool clash = false;
    struct molt_entry w = prefer_active ? *a : *u;
#define ONE(field, mask)                                                                                     \
    do {                                                                                                     \
        bool da = !b || (b->field & (mask)) != (a->field & (mask));                                          \
        bool du = !b || (b->field & (mask)) != (u->field & (mask));                                          \
        bool both = da && du && (a->field & (mask)) != (u->field & (mask));                                  \
        clash |= both;                                                                                       \
        const struct molt_entry *from = both ? (prefer_active ? a : u) : da ? a : u;                         \
        w.field = (__typeof__(w.field))((w.field & ~(mask)) | (from->field & (mask)));                       \
    } while (0)
    ONE(mode, ~0u);
    ONE(uid, ~0u);
    ONE(gid, ~0u);
    ONE(flags, MOLT_EF_INODE);
    ONE(xattr_hash, ~UINT64_C(0));
#undef ONE
    /* Times are the active's only when it alone changed them. */
    w.mtime_ns = b && b->mtime_ns == u->mtime_ns ? a->mtime_ns : u->mtime_ns;
    if (ret_clash)
        *ret_clash = clash;
    return w;
}

struct path_list {
    const char **v;
    size_t n, cap;
};

static void need(struct path_list *l, const struct molt_entry *e)
{
    if (!e || e->type != MOLT_T_REG || e->content_hash || e->size == 0)
        return;
    if (l->n && l->v[l->n - 1] == e->path)
        return;
    MOLT_GROW(l->v, l->n, l->cap);
    l->v[l->n++] = e->path;
}

static bool same_size(const struct molt_entry *x, const struct molt_entry *y)
{
    return x && y && x->type == MOLT_T_REG && y->type == MOLT_T_REG && x->size == y->size &&
           !molt_entry_same_inode(x, y);
}

/* Nothing but the nearness of the snapshot makes them doubtful. */
static bool looks_same(const struct molt_entry *x, const struct molt_entry *y)
{
    return same_size(x, y) && x->ino == y->ino && x->ctime_ns == y->ctime_ns;
}

static const struct molt_entry *next_at(const struct molt_manifest *m, size_t *i, const char *path)
{
    while (*i < m->n && molt_path_cmp(m->v[*i].path, path) < 0)
        ++*i;
    return *i < m->n && strcmp(m->v[*i].path, path) == 0 ? &m->v[*i] : NULL;
}

static int by_inode(const void *x, const void *y)
{
    const struct molt_entry *a = *(const struct molt_entry *const *)x, *b = *(const struct molt_entry *const *)y;
    return a->ino < b->ino ? -1 : a->ino > b->ino;
}

/* Was a file renamed, and nothing else? v: files of the active at paths where the base has another, or none. */
static void need_for_moves(const struct molt_manifest *base, const struct molt_manifest *upgrade, const struct molt_entry **v,
                           size_t n, struct path_list *lb, struct path_list *la)
{
    size_t iu = 0;
    if (!n)
        return;
    qsort(v, n, sizeof(*v), by_inode);
    for (size_t i = 0; i < base->n; i++) {
        const struct molt_entry *b = &base->v[i];
        const struct molt_entry **found = b->type == MOLT_T_REG ? bsearch(&b, v, n, sizeof(*v), by_inode) : NULL;
        if (!found || (*found)->size != b->size || (*found)->mtime_ns != b->mtime_ns || molt_entry_same_inode(*found, b) ||
            !molt_entry_same_inode(b, next_at(upgrade, &iu, b->path)))
            continue;
        for (; found > v && found[-1]->ino == b->ino; found--)
            ;
        need(lb, b);
        for (; found < v + n && (*found)->ino == b->ino; found++)
            need(la, *found);
    }
}

void molt_plan_need_hash(const struct molt_manifest *base, const struct molt_manifest *active,
                         const struct molt_manifest *upgrade, const struct molt_policy *policy,
                         struct molt_need_hash *ret)
{
    struct path_list lb = {0}, la = {0}, lu = {0};
    const struct molt_entry **moved = NULL;
    size_t ib = 0, iu = 0, n_moved = 0, cap_moved = 0;
    for (size_t i = 0; i < active->n; i++) {
        const struct molt_entry *a = &active->v[i];
        if (a->type != MOLT_T_REG)
            continue;
        const struct molt_entry *b = next_at(base, &ib, a->path), *u = next_at(upgrade, &iu, a->path);
        if (b && molt_entry_same_inode(a, b))
            continue;
        if (a->size && !(b && b->ino == a->ino)) {
            MOLT_GROW(moved, n_moved, cap_moved);
            moved[n_moved++] = a;
        }
        bool u_changed = !(b && u && molt_entry_same_inode(b, u));
        if (!u_changed) {
            /* Only to learn that the content is the same; a new mtime says clearly enough that it is not. */
            if (same_size(a, b) && a->mtime_ns == b->mtime_ns) {
                need(&la, a);
                need(&lb, b);
            }
            continue;
        }
        /* Journals are large and change all the time; equal or not, the upgrade's stays. */
        if (molt_policy_match(policy, a->path)->action == MOLT_POLICY_BESIDE && !looks_same(a, b))
            continue;
        if (same_size(a, u) || same_size(a, b))
            need(&la, a);
        if (same_size(a, u))
            need(&lu, u);
        if (same_size(a, b))
            need(&lb, b);
    }
    /* Did the upgrade change what the active changed, deleted or replaced by something else? */
    size_t ia = 0;
    iu = 0;
    for (size_t i = 0; i < base->n; i++) {
        const struct molt_entry *b = &base->v[i];
        if (b->type != MOLT_T_REG)
            continue;
        const struct molt_entry *a = next_at(active, &ia, b->path), *u = next_at(upgrade, &iu, b->path);
        bool wanted = !molt_entry_same_inode(a, b) && same_size(u, b) &&
                      molt_policy_match(policy, b->path)->action != MOLT_POLICY_BESIDE;
        if (wanted || looks_same(u, b)) {
            need(&lu, u);
            need(&lb, b);
        }
    }
    need_for_moves(base, upgrade, moved, n_moved, &lb, &la);
    free(moved);
    *ret = (struct molt_need_hash){lb.v, la.v, lu.v, lb.n, la.n, lu.n};
}

void molt_need_hash_free(struct molt_need_hash *h)
{
    free(h->base);
    free(h->active);
    free(h->upgrade);
    memset(h, 0, sizeof(*h));
}
