/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a merge must give, path by path, as xenmolt-policy(5) and the comment in plan.c say it. Slow, recursive, from
 * whole trees with their contents; it knows no inode numbers but for hard links, no passes and no order.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "model.h"

enum rule { ACT, APP, BES, DRP, MRG, REF, UPG }; /* as model_tops */

struct ctx {
    enum rule rule;
    bool active_wins;
    enum wrong wrong;
};

enum { D_TYPE = 1, D_CONTENT = 2, D_META = 4, D_XATTR = 8, D_TIME = 16, D_LINK = 32 };
enum { STRONG = D_TYPE | D_CONTENT | D_META | D_XATTR };

static bool same_text(const char *x, const char *y)
{
    return x == y || (x && y && strcmp(x, y) == 0);
}

static unsigned differ(const struct node *x, const struct node *y)
{
    unsigned d = 0;
    if (!x || !y)
        return x == y ? 0 : D_TYPE;
    if (x->type != y->type)
        return D_TYPE;
    if (x->size != y->size || x->hash != y->hash || x->rdev != y->rdev || (x->type == 'l' && !same_text(x->text, y->text)))
        d |= D_CONTENT;
    if (x->mode != y->mode || x->uid != y->uid || x->gid != y->gid || x->iflags != y->iflags)
        d |= D_META;
    if (!same_text(x->xattrs, y->xattrs))
        d |= D_XATTR;
    if (x->mtime != y->mtime)
        d |= D_TIME;
    if (!same_text(x->links, y->links))
        d |= D_LINK;
    return d;
}

static bool touched(const struct node *x, const struct node *y)
{
    return y->size > 0 && (!x || x->ino != y->ino || x->ctime != y->ctime);
}

static bool is_dir(const struct node *n)
{
    return n && n->type == 'd';
}

static bool is_file(const struct node *n)
{
    return n && n->type == 'f';
}

/* --- results --- */

static struct node *whole(const struct ctx *c, const struct node *n, enum side side)
{
    if (!n)
        return NULL;
    struct node *r = tree_copy_one(n);
    if (r->type != 'd' && c->wrong != WRONG_LINKS)
        r->group = (const void *)(uintptr_t)(n->ino * 4 + 1 + side);
    if (c->wrong == WRONG_TIME)
        r->mtime -= r->mtime % 2;
    return r;
}

static struct node *active_whole(const struct ctx *c, const struct node *a, const struct node *u)
{
    if (!a && c->wrong == WRONG_DELETED)
        return whole(c, u, UPGRADE);
    struct node *r = whole(c, a, ACTIVE);
    if (is_file(a) && is_file(u) && u->ino == a->ino && !a->links && !u->links && !(u->mode & 0111) && !u->iflags)
        r->keep_ino = a->ino;
    if (r && u && c->wrong == WRONG_XATTRS) {
        free(r->xattrs);
        r->xattrs = molt_xstrdup(u->xattrs);
    }
    return r;
}

static struct node *subtree(const struct ctx *c, const struct node *n, enum side side)
{
    struct node *r = whole(c, n, side);
    for (size_t i = 0; n && i < n->n_kids; i++)
        tree_add(r, subtree(c, n->kid[i], side));
    return r;
}

/* Each attribute from the side that changed it; where both did, the preferred side's. True: they clashed somewhere. */
static bool mix_attributes(struct node *r, const struct node *b, const struct node *a, const struct node *u, bool prefer_active)
{
    bool clash = false;
    const struct node *from;
#define FROM(differ)                                                                                              \
    (!b || (differ(b, a) && differ(b, u)) ? (clash |= differ(a, u), prefer_active ? a : u) : differ(b, a) ? a : u)
#define MODE(x, y)  ((x)->mode != (y)->mode)
#define UID(x, y)   ((x)->uid != (y)->uid)
#define GID(x, y)   ((x)->gid != (y)->gid)
#define FLAGS(x, y) ((x)->iflags != (y)->iflags)
#define XATTR(x, y) (!same_text((x)->xattrs, (y)->xattrs))
    r->mode = FROM(MODE)->mode;
    r->uid = FROM(UID)->uid;
    r->gid = FROM(GID)->gid;
    r->iflags = FROM(FLAGS)->iflags;
    from = FROM(XATTR);
    /* An ACL and the mode bits are one thing: they cannot come from two sides. */
    r->any_mode = strstr(from->xattrs, "posix_acl_access") != NULL;
    free(r->xattrs);
    r->xattrs = molt_xstrdup(from->xattrs);
    return clash;
}

static struct node *mixed(const struct node *content, const struct node *b, const struct node *a, const struct node *u,
                          bool prefer_active)
{
    struct node *r = tree_copy_one(content);
    mix_attributes(r, b, a, u, prefer_active);
    r->any_group = true;
    return r;
}

static struct node *directory(const struct node *b, const struct node *a, const struct node *u, bool prefer_active)
{
    const struct node *base = is_dir(b) ? b : NULL;
    struct node *r = tree_copy_one(u);
    mix_attributes(r, base, a, u, prefer_active);
    r->mtime = base && base->mtime == u->mtime ? a->mtime : u->mtime;
    return r;
}

static void set_text(struct node *r, char *text, size_t n)
{
    free(r->text);
    r->text = text;
    r->size = n;
    r->hash = 0; /* by text */
}

static struct node *appended(const struct node *b, const struct node *a, const struct node *u)
{
    struct node *r = mixed(a, is_file(b) ? b : NULL, a, u, true);
    r->mtime = a->mtime > u->mtime ? a->mtime : u->mtime;
    bool known = a->text && u->text && (!is_file(b) || b->text);
    if (!known) {
        r->any_content = true;
        return r;
    }
    size_t skip = is_file(b) && u->size >= b->size && memcmp(b->text, u->text, b->size) == 0 ? b->size : 0;
    size_t n = a->size + u->size - skip;
    char *text = molt_xcalloc(1, n + 1);
    memcpy(text, a->text, a->size);
    memcpy(text + a->size, u->text + skip, u->size - skip);
    set_text(r, text, n);
    return r;
}

/* The three parts between the anchors, NUL-terminated in a copy; false: not such a text. */
static bool parts(const struct node *n, char **copy, char *part[3])
{
    static const char anchor[] = "\n====\n----\n====\n----\n";
    *copy = NULL;
    if (!is_file(n) || !n->text || strlen(n->text) != n->size || n->size == 0 || n->text[n->size - 1] != '\n')
        return false;
    *copy = molt_xstrdup(n->text);
    part[0] = *copy;
    for (int i = 1; i < 3; i++) {
        char *p = strstr(part[i - 1], anchor);
        if (!p)
            return false;
        *p = '\0';
        part[i] = p + strlen(anchor);
    }
    return !strstr(part[2], "====") && !strchr(part[0], '\n') && !strchr(part[1], '\n');
}

/* 1: merged into r, 0: they overlap, -1: not texts of whose merge the model is sure. */
static int merge_lines(struct node *r, const struct node *b, const struct node *a, const struct node *u)
{
    char *cb, *ca, *cu, *pb[3], *pa[3], *pu[3];
    struct molt_strbuf out = MOLT_STRBUF_INIT;
    bool ok = parts(b, &cb, pb);
    ok &= parts(a, &ca, pa);
    ok &= parts(u, &cu, pu);
    int rc = ok ? 1 : -1;
    for (int i = 0; rc >= 0 && i < 3; i++) {
        bool da = strcmp(pa[i], pb[i]) != 0, du = strcmp(pu[i], pb[i]) != 0;
        if (da && du && strcmp(pa[i], pu[i]) != 0) /* of several lines they may be different ones */
            rc = strchr(pb[i], '\n') && strchr(pb[i], '\n')[1] ? -1 : rc < 0 ? rc : 0;
        molt_strbuf_addf(&out, "%s%s", i ? "\n====\n----\n====\n----\n" : "", da ? pa[i] : pu[i]);
    }
    free(cb);
    free(ca);
    free(cu);
    if (rc == 1) {
        size_t n = out.len;
        set_text(r, molt_strbuf_steal(&out), n);
    }
    molt_strbuf_free(&out);
    return rc;
}

/* A file of its own beside another. */
static struct node *beside(const struct node *n, const char *suffix)
{
    struct node *r = tree_copy_one(n);
    free(r->name);
    r->name = molt_xasprintf("%s%s", n->name, suffix);
    r->any_group = true;
    if (strlen(r->name) > 255) /* such a name gets none */
        r->type = '?';
    return r;
}

/* Same content and attributes do not make a merge; the one that is there is told by more than its text. */
static struct node *merged(const struct node *b, const struct node *a, const struct node *u, struct node **ret_beside)
{
    struct node *r = mixed(a, is_file(b) ? b : NULL, a, u, true);
    r->mtime = a->mtime > u->mtime ? a->mtime : u->mtime;
    int m = merge_lines(r, b, a, u);
    if (m < 0)
        r->any_content = true;
    if (m <= 0)
        *ret_beside = beside(u, ".xenmolt-upgrade");
    if (m < 0 && *ret_beside)
        (*ret_beside)->any_content = (*ret_beside)->any_time = true;
    if (m < 0 && *ret_beside) /* there or not */
        (*ret_beside)->type = '?';
    return r;
}

/* --- decisions --- */

static bool active_by_option(const struct ctx *c)
{
    return c->active_wins;
}

/* Whose version it is, where a whole version must be chosen. */
static bool active_chosen(const struct ctx *c, const struct node *a, const struct node *u)
{
    switch (c->rule) {
    case ACT:
    case MRG:
        return true;
    case APP:
    case BES:
        return a && u ? active_by_option(c) : a != NULL;
    case REF:
        return active_by_option(c);
    default:
        return false;
    }
}

static struct node *both_changed(const struct ctx *c, const struct node *b, const struct node *a, const struct node *u,
                                 struct node **ret_beside)
{
    bool files = is_file(a) && is_file(u);
    unsigned da = differ(b, a) & STRONG, du = differ(b, u) & STRONG;
    if (!(differ(a, u) & STRONG) && !(c->rule == BES && files && a->size > 0 && touched(a, u)))
        return is_dir(u) ? directory(b, a, u, false) : whole(c, u, UPGRADE);
    if (is_dir(a) && is_dir(u))
        return directory(b, a, u, c->rule == ACT || c->rule == MRG || (c->rule == REF && c->active_wins));
    if (c->rule == MRG || c->rule == REF) {
        /* Content by one, attributes by the other. */
        if (da == D_CONTENT && du == D_META)
            return mixed(a, b, a, u, true);
        if (du == D_CONTENT && !(da & ~(unsigned)(D_META | D_XATTR)))
            return mixed(u, b, a, u, false);
    }
    if (c->rule == APP && files)
        return appended(b, a, u);
    if (c->rule == BES && files) {
        *ret_beside = beside(a, ".xenmolt-active");
        return whole(c, u, UPGRADE);
    }
    if (c->rule == MRG && files)
        return merged(b, a, u, ret_beside);
    if (c->rule == MRG && u && !is_dir(u))
        *ret_beside = beside(u, ".xenmolt-upgrade");
    struct node *r = active_chosen(c, a, u) ? active_whole(c, a, u) : whole(c, u, UPGRADE);
    if (r && *ret_beside)
        r->any_group = true;
    return r;
}

static struct node *own(const struct ctx *c, const struct node *b, const struct node *a, const struct node *u,
                        struct node **ret_beside)
{
    unsigned da = differ(b, a), du = differ(b, u);
    if (c->rule == BES) {
        /* Their contents are not looked at, for they are large: what was touched has changed. */
        bool u_touched = !is_file(u) || touched(b, u);
        da |= is_file(a) && u_touched && touched(b, a) ? D_CONTENT : 0;
        du |= is_file(u) && u_touched ? D_CONTENT : 0;
    }
    if ((da & STRONG) && (du & STRONG))
        return both_changed(c, b, a, u, ret_beside);
    if (is_dir(a) && is_dir(u))
        return directory(b, a, u, false);
    if ((da & STRONG) || (da && !du))
        return active_whole(c, a, u);
    return whole(c, u, UPGRADE);
}

static bool changed_below(const struct node *b, const struct node *n)
{
    if (differ(b, n) & STRONG)
        return true;
    for (size_t i = 0; n && i < n->n_kids; i++)
        if (changed_below(tree_kid(b, n->kid[i]->name), n->kid[i]))
            return true;
    for (size_t i = 0; b && i < b->n_kids; i++)
        if (!tree_kid(n, b->kid[i]->name))
            return true;
    return false;
}

static struct node *one_side(const struct ctx *c, const struct node *b, const struct node *a, const struct node *u)
{
    bool a_changed = is_dir(a) ? changed_below(b, a) : differ(b, a) & STRONG;
    bool u_changed = is_dir(u) ? changed_below(b, u) : differ(b, u) & STRONG;
    if (c->rule == BES) {
        a_changed |= is_file(a) && touched(b, a);
        u_changed |= is_file(u) && touched(b, u);
    }
    bool active = a_changed && u_changed ? active_chosen(c, a, u) : a_changed;
    return active ? subtree(c, a, ACTIVE) : subtree(c, u, UPGRADE);
}

static int by_name(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

static struct node *merge(const struct ctx *c, const struct node *b, const struct node *a, const struct node *u,
                          struct node **ret_beside)
{
    const struct node *const from[3] = {b, a, u};
    if (a && u && is_dir(a) != is_dir(u))
        return one_side(c, b, a, u);
    struct node *r = own(c, b, a, u, ret_beside);
    const char **names = NULL;
    size_t n = 0, cap = 0;
    for (int s = 0; s < 3; s++) {
        for (size_t i = 0; from[s] && i < from[s]->n_kids; i++) {
            MOLT_GROW(names, n, cap);
            names[n++] = from[s]->kid[i]->name;
        }
    }
    if (n)
        qsort(names, n, sizeof(*names), by_name);
    for (size_t i = 0; i < n; i++) {
        if (i && strcmp(names[i - 1], names[i]) == 0)
            continue;
        struct node *extra = NULL;
        struct node *k = merge(c, tree_kid(b, names[i]), tree_kid(a, names[i]), tree_kid(u, names[i]), &extra);
        /* A directory that would go stays for what stays in it. */
        if ((k || extra) && !r)
            r = whole(c, is_dir(u) ? u : a, is_dir(u) ? UPGRADE : ACTIVE);
        if (k)
            tree_add(r, k);
        if (extra)
            tree_add(r, extra);
    }
    free(names);
    return r;
}

struct node *expect(const struct node *b, const struct node *a, const struct node *u, bool active_wins, bool no_beside,
                    enum wrong wrong)
{
    struct node *root = tree_copy_one(u);
    root->any_time = true; /* of the case's own directory */
    for (int i = 0; i < N_TOPS; i++) {
        struct ctx c = {no_beside && i == BES ? DRP : (enum rule)i, active_wins, wrong};
        const char *name = model_tops[i];
        struct node *none = NULL, *k = merge(&c, tree_kid(b, name), tree_kid(a, name), tree_kid(u, name), &none);
        if (k)
            tree_add(root, k);
        tree_free(none);
    }
    return root;
}
