/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The plan. First each path gets an outcome, for the active of the pass before and for the active of now:
 *
 *   changed by the active only                        the active's
 *   changed by the upgrade only                       the upgrade's
 *   by both, to the same result                       the upgrade's, which is there
 *   a directory by both, different attributes         attribute by attribute
 *   by both, differently                              the policy's rule
 *   content by one, attributes by the other           both, where the rule is merge or refuse
 *   file or absent <-> directory with changes below   a conflict of the whole subtree: one winner
 *   directory deleted, but something stays in it      the directory stays (dpkg's habit too)
 *   renamed by the active, content as at the snapshot the clone moves its own copy
 *
 * where "changed" leaves out times and hard-link structure; these go with the side that changed anything
 * else, or with the active when they are all that changed. Then the paths whose active entry or whose outcome
 * is not that of the pass before become actions: what clears the way for another type, puts (parents first),
 * deletions (children first), attributes and times of every directory that was touched.
 */
#include "merge/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/plan_internal.h"

#define MOLT_X(name, text) text,
static const char *const act_names[] = {MOLT_ACTS(MOLT_X)};
#undef MOLT_X

const char *molt_act_name(enum molt_act a)
{
    return act_names[a];
}

enum kind {
    K_UPGRADE,
    K_ACTIVE,
    K_DIR,
    K_APPEND,
    K_MERGE,
    K_BESIDE,
    K_KEEP_BESIDE,
    K_SPLIT_A,
    K_SPLIT_U,
    K_SKIP,
    K_TORN /* of the pass before: it is not known what lies there */
};

struct outcome {
    enum kind kind;
    const char *why;
    const struct molt_rule *rule;
};

struct row {
    const char *path;
    const struct molt_entry *b, *p, *a, *u; /* base, active of the pass before, active, upgrade */
    struct outcome prev, now;
    const char *leader; /* first path of the hard-link group that is settled the same way */
    const struct row *source; /* the clone has the content under this row's path, and has no more use for it there */
    bool touched;
    bool torn_beside;
    uint8_t count; /* enum molt_count_kind */
};

struct planner {
    struct row *v;
    size_t n, cap;
    const struct molt_policy *policy;
    enum molt_on_conflict on_conflict;
    struct molt_plan *plan; /* NULL while the pass before is resolved: no counting then */
};

static void note(struct planner *pl, const char *path, const struct molt_rule *rule, const char *kind,
                 const char *decision, bool open, bool listed)
{
    if (!pl->plan)
        return;
    struct molt_plan *p = pl->plan;
    MOLT_GROW(p->conflicts, p->n_conflicts, p->cap_conflicts);
    p->conflicts[p->n_conflicts++] = (struct molt_conflict){path, rule, kind, decision, open, listed};
    p->n_open += open;
}

/* No rule of the policy settles it. */
static enum kind settle_by_option(struct planner *pl, const char *path, const struct molt_rule *rule,
                                  const char *kind)
{
    static const char *const decisions[] = {"refuse", "active", "upgrade"};
    note(pl, path, rule, kind, decisions[pl->on_conflict], pl->on_conflict == MOLT_ON_CONFLICT_REFUSE, true);
    return pl->on_conflict == MOLT_ON_CONFLICT_ACTIVE ? K_ACTIVE : K_UPGRADE;
}

/* Both changed the path, neither is a directory (or is one, and file says so), and the results differ. */
static enum kind settle(struct planner *pl, const struct row *r, const struct molt_entry *a,
                        const struct molt_rule *rule, const char *kind, bool whole)
{
    bool both_files = a && r->u && a->type == MOLT_T_REG && r->u->type == MOLT_T_REG && !whole;
    const char *decision = molt_policy_action_name(rule->action);
    enum kind k = K_UPGRADE;
    switch (rule->action) {
    case MOLT_POLICY_ACTIVE:
        k = K_ACTIVE;
        break;
    case MOLT_POLICY_UPGRADE:
    case MOLT_POLICY_DROP:
        break;
    case MOLT_POLICY_APPEND:
    case MOLT_POLICY_BESIDE:
        if (both_files)
            k = rule->action == MOLT_POLICY_APPEND ? K_APPEND : K_BESIDE;
        else if (a && r->u)
            return settle_by_option(pl, r->path, rule, kind);
        else
            k = a ? K_ACTIVE : K_UPGRADE; /* nothing of a log is lost: whoever has it */
        break;
    case MOLT_POLICY_MERGE:
        if (both_files) {
            k = K_MERGE;
            break;
        }
        note(pl, r->path, rule, kind, "active", false, true);
        return r->u && !whole ? K_KEEP_BESIDE : K_ACTIVE;
    case MOLT_POLICY_REFUSE:
        return settle_by_option(pl, r->path, rule, kind);
    }
    note(pl, r->path, rule, kind, decision, false, rule->decided);
    return k;
}

static struct outcome both_changed(struct planner *pl, struct row *r, const struct molt_entry *a,
                                   unsigned da, unsigned du)
{
    const struct molt_entry *u = r->u;
    if (!(molt__diff(a, u) & MOLT__D_STRONG)) {
        r->count = MOLT_COUNT_SAME;
        return (struct outcome){K_UPGRADE, "both-same", NULL};
    }
    const struct molt_rule *rule = molt_policy_match(pl->policy, r->path);
    if (molt__is_dir(a) && molt__is_dir(u)) {
        bool clash;
        molt__attrs_want(molt__is_dir(r->b) ? r->b : NULL, a, u, true, &clash);
        if (!clash)
            return (struct outcome){K_DIR, "directory-attributes", NULL};
        /* A directory cannot be appended to: such a decision decides nothing. */
        if (rule->action == MOLT_POLICY_REFUSE || (rule->decided && rule->action == MOLT_POLICY_APPEND))
            return (struct outcome){settle_by_option(pl, r->path, rule, "attributes"), "directory-attributes",
                                    rule};
        bool active = rule->action == MOLT_POLICY_ACTIVE || rule->action == MOLT_POLICY_MERGE;
        note(pl, r->path, rule, "attributes", active ? "active" : "upgrade", false, rule->decided);
        return (struct outcome){active ? K_ACTIVE : K_UPGRADE, "directory-attributes", rule};
    }
    bool splits = rule->action == MOLT_POLICY_MERGE || rule->action == MOLT_POLICY_REFUSE;
    unsigned sa = da & MOLT__D_STRONG, su = du & MOLT__D_STRONG;
    if (splits && sa == MOLT__D_CONTENT && su == MOLT__D_META)
        return (struct outcome){K_SPLIT_A, "content-and-attributes", NULL};
    if (splits && su == MOLT__D_CONTENT && !(sa & ~MOLT__D_ATTRS))
        return (struct outcome){K_SPLIT_U, "content-and-attributes", NULL};
    const char *kind = !a || !u ? "deleted-vs-changed" : "changed-both";
    return (struct outcome){settle(pl, r, a, rule, kind, false), kind, rule};
}

static struct outcome one_path(struct planner *pl, struct row *r, const struct molt_entry *a)
{
    unsigned da = molt__diff(r->b, a), du = molt__diff(r->b, r->u);
    bool sa = da & MOLT__D_STRONG, su = du & MOLT__D_STRONG;
    if (sa && su)
        return both_changed(pl, r, a, da, du);
    r->count = sa ? MOLT_COUNT_ACTIVE : su ? MOLT_COUNT_UPGRADE : MOLT_COUNT_NONE;
    if (sa || (da && !su && !du))
        return (struct outcome){K_ACTIVE, "active-only", NULL};
    if (da && du && !su && r->b->type != MOLT_T_DIR)
        return (struct outcome){K_UPGRADE, "both-same", NULL};
    return (struct outcome){K_UPGRADE, su ? "upgrade-only" : "unchanged", NULL};
}

static size_t subtree_end(const struct planner *pl, size_t i)
{
    size_t j = i + 1;
    while (j < pl->n && molt_path_below(pl->v[j].path, pl->v[i].path))
        j++;
    return j;
}

/* Row i is a directory on one side and something else on the other: one winner for the whole subtree. */
static size_t file_vs_directory(struct planner *pl, size_t i, bool now)
{
    struct row *r = &pl->v[i];
    const struct molt_entry *a = now ? r->a : r->p;
    size_t end = subtree_end(pl, i);
    bool a_is_dir = molt__is_dir(a);
    bool other_changed = molt__diff(r->b, a_is_dir ? r->u : a) & MOLT__D_STRONG, dir_changed = false;
    for (size_t k = i; k < end && !dir_changed; k++) {
        const struct row *s = &pl->v[k];
        const struct molt_entry *sa = now ? s->a : s->p;
        dir_changed = molt__diff(s->b, a_is_dir ? sa : s->u) & MOLT__D_STRONG;
    }
    struct outcome o = {K_UPGRADE, "type-change", NULL};
    bool active_changed = a_is_dir ? dir_changed : other_changed;
    if (other_changed && dir_changed) {
        o.rule = molt_policy_match(pl->policy, r->path);
        o.why = "file-vs-directory";
        o.kind = settle(pl, r, a, o.rule, o.why, true);
    } else {
        o.kind = active_changed ? K_ACTIVE : K_UPGRADE;
        for (size_t k = i; k < end; k++)
            if (pl->v[k].b || pl->v[k].u || (now ? pl->v[k].a : pl->v[k].p)) /* else an earlier pass saw it last */
                pl->v[k].count = active_changed ? MOLT_COUNT_ACTIVE : MOLT_COUNT_UPGRADE;
    }
    for (size_t k = i; k < end; k++)
        *(now ? &pl->v[k].now : &pl->v[k].prev) = o;
    return end;
}

static const struct molt_entry *result_of(const struct row *r, bool now)
{
    const struct molt_entry *a = now ? r->a : r->p;
    switch (now ? r->now.kind : r->prev.kind) {
    case K_ACTIVE:
    case K_APPEND:
    case K_MERGE:
    case K_KEEP_BESIDE:
    case K_SPLIT_A:
        return a;
    case K_UPGRADE:
    case K_DIR:
    case K_BESIDE:
    case K_SPLIT_U:
    case K_SKIP:
    case K_TORN:
        break;
    }
    return r->u;
}

/* A directory that would go stays when something below it stays. */
static void keep_parents(struct planner *pl, bool now)
{
    const char *next = NULL; /* the next path that is there in the result */
    for (size_t i = pl->n; i-- > 0;) {
        struct row *r = &pl->v[i];
        struct outcome *o = now ? &r->now : &r->prev;
        if (!result_of(r, now) && o->kind != K_SKIP && next && molt_path_below(next, r->path)) {
            o->kind = molt__is_dir(r->u) ? K_UPGRADE : K_ACTIVE;
            o->why = "parent-kept";
        }
        bool beside = o->kind == K_KEEP_BESIDE && r->u && !molt__is_dir(r->u);
        if (result_of(r, now) || o->kind == K_SKIP || beside)
            next = r->path;
    }
}

static bool is_mount(const struct row *r)
{
    return ((r->b ? r->b->flags : 0) | (r->p ? r->p->flags : 0) | (r->a ? r->a->flags : 0) |
            (r->u ? r->u->flags : 0)) &
           MOLT_EF_MOUNT;
}

static void resolve(struct planner *pl, bool now)
{
    for (size_t i = 0; i < pl->n; i++)
        pl->v[i].count = MOLT_COUNT_NONE;
    for (size_t i = 0; i < pl->n;) {
        struct row *r = &pl->v[i];
        const struct molt_entry *a = now ? r->a : r->p;
        if (is_mount(r)) {
            size_t end = subtree_end(pl, i);
            for (; i < end; i++)
                *(now ? &pl->v[i].now : &pl->v[i].prev) = (struct outcome){K_SKIP, "mount-point", NULL};
        } else if (a && r->u && molt__is_dir(a) != molt__is_dir(r->u)) {
            i = file_vs_directory(pl, i, now);
        } else {
            *(now ? &r->now : &r->prev) = one_path(pl, r, a);
            i++;
        }
    }
    keep_parents(pl, now);
}

/* Joins the four manifests; what is provably unchanged everywhere and no directory needs no row. */
static int join(struct planner *pl, const struct molt_manifest *const m[4], const struct molt_torn *torn,
                struct molt_error **err)
{
    size_t i[4] = {0}, t = 0;
    const char *last = NULL;
    for (;;) {
        const char *path = torn && t < torn->paths.n ? torn->paths.v[t] : NULL;
        for (int k = 0; k < 4; k++)
            if (i[k] < m[k]->n && (!path || molt_path_cmp(m[k]->v[i[k]].path, path) < 0))
                path = m[k]->v[i[k]].path;
        if (!path)
            return 0;
        if (last && molt_path_cmp(last, path) >= 0)
            return molt_error_set(err, MOLT_E_INTERNAL, "manifest is out of order");
        last = path;
        const struct molt_entry *e[4];
        for (int k = 0; k < 4; k++) {
            bool here = i[k] < m[k]->n && strcmp(m[k]->v[i[k]].path, path) == 0;
            e[k] = here ? &m[k]->v[i[k]++] : NULL;
        }
        bool is_torn = torn && t < torn->paths.n && strcmp(torn->paths.v[t], path) == 0;
        t += is_torn;
        if (!is_torn && e[0] && e[0]->type != MOLT_T_DIR && molt__same_inode(e[0], e[1]) &&
            molt__same_inode(e[0], e[2]) && molt__same_inode(e[0], e[3]))
            continue;
        MOLT_GROW(pl->v, pl->n, pl->cap);
        pl->v[pl->n++] = (struct row){.path = path, .b = e[0], .p = e[1], .a = e[2], .u = e[3]};
    }
}

/* After the outcomes of the pass before, which these paths do not have. */
static void tear(struct planner *pl, const struct molt_torn *torn)
{
    for (size_t i = 0; torn && i < pl->n; i++) {
        struct row *r = &pl->v[i];
        if (r->prev.kind != K_SKIP && molt_pathset_has(&torn->paths, r->path))
            r->prev.kind = K_TORN;
        r->torn_beside = r->prev.kind == K_TORN && molt_pathset_has(&torn->beside, r->path);
    }
}

struct link_ref {
    uint64_t ino;
    size_t row;
};

static int by_ino(const void *x, const void *y)
{
    const struct link_ref *a = x, *b = y;
    if (a->ino != b->ino)
        return a->ino < b->ino ? -1 : 1;
    return a->row < b->row ? -1 : a->row > b->row;
}

/* Of the rows of one inode the first leads the others. */
static void lead(struct planner *pl, struct link_ref *v, size_t n)
{
    if (n)
        qsort(v, n, sizeof(*v), by_ino);
    for (size_t i = 1, first = 0; i < n; i++) {
        if (v[i].ino != v[first].ino)
            first = i;
        else
            pl->v[v[i].row].leader = pl->v[v[first].row].path;
    }
}

static bool comes_back(const struct row *r)
{
    return r->now.kind == K_UPGRADE && r->prev.kind != K_UPGRADE && r->prev.kind != K_BESIDE && r->u &&
           molt__same_inode(r->b, r->u);
}

static void find_leaders(struct planner *pl)
{
    struct link_ref *v = NULL;
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < pl->n; i++) {
        const struct row *r = &pl->v[i];
        if (r->now.kind == K_ACTIVE && r->a && r->a->link_sig) {
            MOLT_GROW(v, n, cap);
            v[n++] = (struct link_ref){r->a->ino, i};
        }
    }
    lead(pl, v, n);
    n = 0;
    /* What comes back from the base disk does so once. */
    for (size_t i = 0; i < pl->n; i++) {
        const struct row *r = &pl->v[i];
        if (comes_back(r) && r->u->link_sig) {
            MOLT_GROW(v, n, cap);
            v[n++] = (struct link_ref){r->u->ino, i};
        }
    }
    lead(pl, v, n);
    free(v);
}

/* The upgrade's file with attributes of the active's: one file again, where both sides agree on its names. */
static void find_split_leaders(struct planner *pl)
{
    struct link_ref *v = NULL;
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < pl->n; i++) {
        const struct row *r = &pl->v[i];
        if (r->now.kind == K_SPLIT_U && r->u->link_sig && r->u->link_sig == r->a->link_sig) {
            MOLT_GROW(v, n, cap);
            v[n++] = (struct link_ref){r->u->ino, i};
        }
    }
    lead(pl, v, n);
    free(v);
}

#define WHOLE (MOLT__D_TYPE | MOLT__D_CONTENT | MOLT__D_LINK) /* what is not changed in place */

/* The clone's file is the base's to this day, but for attributes. */
static bool has_base(const struct row *r)
{
    return r->b && molt__same_inode(r->b, r->u) &&
           (r->prev.kind == K_UPGRADE || (r->prev.kind == K_ACTIVE && !(molt__diff(r->b, r->p) & WHOLE)));
}

static bool same_content(const struct molt_entry *b, const struct molt_entry *a)
{
    if (a->type != MOLT_T_REG || b->size != a->size)
        return false;
    return molt_entry_same_inode(b, a) || (b->content_hash && b->content_hash == a->content_hash);
}

/* Files that the active renamed, alone or with a directory, or gave another name: the clone moves its own copy. Only where
 * no name keeps the old inode for itself: all of them are the active's now. */
static void find_sources(struct planner *pl)
{
    struct link_ref *v = NULL;
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < pl->n; i++) {
        if (pl->v[i].b && pl->v[i].b->type == MOLT_T_REG && pl->v[i].b->size) {
            MOLT_GROW(v, n, cap);
            v[n++] = (struct link_ref){pl->v[i].b->ino, i};
        }
    }
    if (n)
        qsort(v, n, sizeof(*v), by_ino);
    for (size_t i = 0; n && i < pl->n; i++) {
        struct row *r = &pl->v[i];
        size_t lo = 0, hi = n;
        if (r->now.kind != K_ACTIVE || !r->a || r->leader || (has_base(r) && !(molt__diff(r->b, r->a) & WHOLE)))
            continue;
        while (lo < hi) {
            size_t mid = lo + (hi - lo) / 2;
            if (v[mid].ino < r->a->ino)
                lo = mid + 1;
            else
                hi = mid;
        }
        const struct row *found = NULL;
        for (; lo < n && v[lo].ino == r->a->ino; lo++) {
            const struct row *s = &pl->v[v[lo].row];
            bool stays = s->a && s->a->ino != r->a->ino && !(molt__diff(s->b, s->a) & WHOLE);
            if (s->now.kind != K_ACTIVE || stays || !has_base(s) || !same_content(s->b, r->a)) {
                found = NULL;
                break;
            }
            found = found ? found : s;
        }
        r->source = found;
    }
    free(v);
}

struct actions {
    struct molt_action *v;
    size_t n, cap;
};

struct emit {
    struct actions first, clear, put, del, meta;
};

static void add(struct actions *l, const struct row *r, enum molt_act act, enum molt_fetch fetch,
                const struct molt_entry *want, bool stash)
{
    MOLT_GROW(l->v, l->n, l->cap);
    struct molt_action *x = &l->v[l->n++];
    *x = (struct molt_action){.act = act,
                              .fetch = fetch,
                              .path = r->path,
                              .active = r->a,
                              .upgrade = r->u,
                              .base = r->b,
                              .stash = stash,
                              .rule = r->now.rule,
                              .why = r->now.why};
    if (want)
        x->want = *want;
}

static struct molt_entry dir_want(const struct row *r, const struct molt_entry *a, enum kind k)
{
    if (molt__is_dir(a) && molt__is_dir(r->u))
        return molt__attrs_want(molt__is_dir(r->b) ? r->b : NULL, a, r->u, k == K_ACTIVE, NULL);
    return molt__is_dir(a) ? *a : *r->u;
}

static void emit_dir(struct emit *e, struct row *r, const struct molt_entry *was)
{
    struct molt_entry want = dir_want(r, r->a, r->now.kind);
    bool made = !molt__is_dir(was);
    struct molt_entry old = made ? want : dir_want(r, r->p, r->prev.kind);
    bool foreign = want.xattr_hash != (molt__is_dir(r->u) ? r->u->xattr_hash : 0);
    /* An earlier pass gave it the active's, which the active has no more. */
    foreign |= !made && old.xattr_hash != want.xattr_hash && r->a && r->a->xattr_hash == want.xattr_hash;
    r->touched = true;
    if (!made && old.mode == want.mode && old.uid == want.uid && old.gid == want.gid &&
        !((old.flags ^ want.flags) & MOLT_EF_INODE) && old.xattr_hash == want.xattr_hash)
        return;
    bool stash = r->u && (molt__is_dir(r->u) ? r->u->xattr_hash != 0 : made && !molt__same_inode(r->b, r->u));
    add(&e->put, r, MOLT_ACT_PUT_DIR, foreign && molt__is_dir(r->a) ? MOLT_FETCH_META : MOLT_FETCH_NONE,
        &want, stash);
}

static void emit_active(struct emit *e, struct row *r, const struct molt_entry *was, bool stash)
{
    const struct molt_entry *a = r->a;
    if (has_base(r) && !(molt__diff(r->b, a) & WHOLE)) {
        unsigned d = molt__diff(was, a);
        if (d)
            add(&e->put, r, MOLT_ACT_SET_META, d & MOLT__D_XATTR ? MOLT_FETCH_META : MOLT_FETCH_NONE, a,
                false);
        return;
    }
    if (r->leader) {
        add(&e->put, r, MOLT_ACT_HARDLINK, MOLT_FETCH_NONE, a, stash);
        e->put.v[e->put.n - 1].link = r->leader;
        return;
    }
    if (r->source) {
        add(&e->first, r->source, MOLT_ACT_KEEP, MOLT_FETCH_NONE, NULL, false);
        bool same = r->source->b->xattr_hash == a->xattr_hash && !(molt__diff(r->source->b, r->source->p) & MOLT__D_XATTR);
        add(&e->put, r, MOLT_ACT_MOVE, same ? MOLT_FETCH_NONE : MOLT_FETCH_META, a, stash);
        e->put.v[e->put.n - 1].link = r->source->path;
        return;
    }
    add(&e->put, r, MOLT_ACT_PUT, MOLT_FETCH_FULL, a, stash);
}

static void emit_mixed(struct emit *e, struct row *r, bool stash)
{
    struct molt_entry want;
    switch (r->now.kind) {
    case K_APPEND:
    case K_MERGE:
        want = molt__attrs_want(r->b && r->b->type == MOLT_T_REG ? r->b : NULL, r->a, r->u, true, NULL);
        want.mtime_ns = r->a->mtime_ns > r->u->mtime_ns ? r->a->mtime_ns : r->u->mtime_ns;
        add(&e->put, r, r->now.kind == K_APPEND ? MOLT_ACT_APPEND : MOLT_ACT_MERGE_TEXT, MOLT_FETCH_FULL,
            &want, stash);
        return;
    case K_SPLIT_A:
        want = molt__attrs_want(r->b, r->a, r->u, true, NULL);
        want.mtime_ns = r->a->mtime_ns;
        add(&e->put, r, MOLT_ACT_PUT, MOLT_FETCH_FULL, &want, stash);
        return;
    case K_SPLIT_U:
        if (r->prev.kind != K_UPGRADE && r->prev.kind != K_SPLIT_U && r->prev.kind != K_BESIDE)
            add(&e->put, r, MOLT_ACT_RESTORE, MOLT_FETCH_NONE, r->u, false);
        want = molt__attrs_want(r->b, r->a, r->u, false, NULL);
        want.mtime_ns = r->u->mtime_ns;
        if (r->leader) {
            add(&e->put, r, MOLT_ACT_HARDLINK, MOLT_FETCH_NONE, &want, stash);
            e->put.v[e->put.n - 1].link = r->leader;
            return;
        }
        add(&e->put, r, MOLT_ACT_SET_META,
            want.xattr_hash != r->u->xattr_hash ? MOLT_FETCH_META : MOLT_FETCH_NONE, &want, stash);
        e->put.v[e->put.n - 1].unshare = true;
        return;
    case K_KEEP_BESIDE:
        add(&e->put, r, MOLT_ACT_KEEP_BESIDE, MOLT_FETCH_FULL, r->a, stash);
        return;
    case K_BESIDE:
        if (r->prev.kind != K_UPGRADE && r->prev.kind != K_BESIDE)
            add(&e->put, r, MOLT_ACT_RESTORE, MOLT_FETCH_NONE, r->u, false);
        add(&e->put, r, MOLT_ACT_BESIDE, MOLT_FETCH_FULL, r->a, false);
        return;
    case K_UPGRADE:
    case K_ACTIVE:
    case K_DIR:
    case K_SKIP:
    case K_TORN:
        return;
    }
}

static bool may_lay_beside(enum kind k)
{
    return k == K_MERGE || k == K_KEEP_BESIDE || k == K_BESIDE;
}

/* Appends the actions of one row; clearing: the path lies where a directory makes room for something else. */
static void emit_row(struct emit *e, struct row *r, bool clearing)
{
    bool torn = r->prev.kind == K_TORN;
    const struct molt_entry *res = result_of(r, true), *was = torn ? NULL : result_of(r, false);
    /* The upgrade's version is saved unless the base has it as well. */
    bool stash = r->u && (molt__is_dir(r->u) ? r->u->xattr_hash != 0 : !molt__same_inode(r->b, r->u));
    enum kind k = r->now.kind;
    if (k == K_SKIP)
        return;
    if ((may_lay_beside(r->prev.kind) || r->torn_beside) && !may_lay_beside(k))
        add(&e->first, r, MOLT_ACT_UNBESIDE, MOLT_FETCH_NONE, NULL, false);
    if (molt__is_dir(res)) {
        emit_dir(e, r, was);
    } else if (k == K_KEEP_BESIDE && res) {
        emit_mixed(e, r, stash);
    } else if (k == K_KEEP_BESIDE && !molt__is_dir(r->u)) {
        /* Behind what is below it: an earlier pass may have made a directory here. */
        add(clearing ? &e->clear : &e->del, r, MOLT_ACT_KEEP_BESIDE, MOLT_FETCH_NONE, NULL, stash);
    } else if (!res) {
        if (was || r->u || torn)
            add(clearing ? &e->clear : &e->del, r, MOLT_ACT_DELETE, MOLT_FETCH_NONE, NULL, stash);
    } else if (k == K_ACTIVE) {
        emit_active(e, r, was, stash);
    } else if (k == K_UPGRADE) {
        if (r->prev.kind != K_UPGRADE && r->prev.kind != K_BESIDE) {
            add(&e->put, r, r->leader ? MOLT_ACT_HARDLINK : MOLT_ACT_RESTORE, MOLT_FETCH_NONE, r->u, false);
            e->put.v[e->put.n - 1].link = r->leader;
        }
    } else {
        emit_mixed(e, r, stash);
    }
}

static struct row *find_row(const struct planner *pl, const char *path)
{
    size_t lo = 0, hi = pl->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = molt_path_cmp(pl->v[mid].path, path);
        if (c == 0)
            return &pl->v[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* The upgrade's name for the same file that is there, or comes first in this pass; NULL: path itself is that one. What has
 * no row is there. */
static const char *other_name(const struct planner *pl, const struct molt_manifest *upgrade, const struct molt_entry *u)
{
    for (size_t i = 0; i < upgrade->n; i++) {
        const struct molt_entry *e = &upgrade->v[i];
        if (e->ino != u->ino || e->link_sig != u->link_sig)
            continue;
        if (strcmp(e->path, u->path) == 0)
            return NULL;
        const struct row *r = find_row(pl, e->path);
        if (!r || r->now.kind == K_UPGRADE)
            return e->path;
    }
    return NULL;
}

/* Files that the upgrade has under several names come back as one. */
static void link_restored(const struct planner *pl, const struct molt_manifest *upgrade, struct actions *put)
{
    for (size_t i = 0; i < put->n; i++) {
        struct molt_action *x = &put->v[i];
        if (x->act != MOLT_ACT_RESTORE || !x->upgrade->link_sig || find_row(pl, x->path)->now.kind != K_UPGRADE)
            continue;
        const char *name = other_name(pl, upgrade, x->upgrade);
        if (name) {
            x->act = MOLT_ACT_HARDLINK;
            x->link = name;
        }
    }
}

static void touch_parents(struct planner *pl, const struct actions *l)
{
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].act == MOLT_ACT_SET_META && !l->v[i].unshare)
            continue;
        const char *cut = strrchr(l->v[i].path, '/');
        CLEANUP_FREE char *dir = molt_xstrndup(l->v[i].path, cut ? (size_t)(cut - l->v[i].path) : 0);
        struct row *r = find_row(pl, dir);
        if (r)
            r->touched = true;
    }
}

static void take(struct molt_plan *p, struct actions *l, bool reverse)
{
    for (size_t i = 0; i < l->n; i++) {
        MOLT_GROW(p->v, p->n, p->cap);
        p->v[p->n++] = l->v[reverse ? l->n - 1 - i : i];
    }
    free(l->v);
}

static void emit_all(struct planner *pl, const struct molt_manifest *upgrade)
{
    struct emit e = {0};
    const char *room = NULL; /* below it, deletions clear the way */
    for (size_t i = 0; i < pl->n; i++) {
        struct row *r = &pl->v[i];
        if (room && !molt_path_below(r->path, room))
            room = NULL;
        if (molt__same_inode(r->p, r->a) && r->now.kind == r->prev.kind)
            continue;
        const struct molt_entry *res = result_of(r, true);
        if (!room && res && !molt__is_dir(res) && (r->prev.kind == K_TORN || molt__is_dir(result_of(r, false))))
            room = r->path;
        emit_row(&e, r, room && room != r->path);
    }
    link_restored(pl, upgrade, &e.put);
    touch_parents(pl, &e.first);
    touch_parents(pl, &e.clear);
    touch_parents(pl, &e.put);
    touch_parents(pl, &e.del);
    for (size_t i = 0; i < pl->n; i++) {
        struct row *r = &pl->v[i];
        if (!r->touched || r->now.kind == K_SKIP || !molt__is_dir(result_of(r, true)))
            continue;
        struct molt_entry want = dir_want(r, r->a, r->now.kind);
        add(&e.meta, r, MOLT_ACT_DIR_META, MOLT_FETCH_NONE, &want, false);
    }
    take(pl->plan, &e.first, false);
    take(pl->plan, &e.clear, true);
    take(pl->plan, &e.put, false);
    take(pl->plan, &e.del, true);
    take(pl->plan, &e.meta, true);
}

static void count(const struct planner *pl, struct molt_plan *p)
{
    for (size_t i = 0; i < pl->n; i++) {
        const struct row *r = &pl->v[i];
        if (r->count == MOLT_COUNT_NONE)
            continue;
        p->active_only += r->count == MOLT_COUNT_ACTIVE;
        p->upgrade_only += r->count == MOLT_COUNT_UPGRADE;
        p->both_same += r->count == MOLT_COUNT_SAME;
        MOLT_GROW(p->counted, p->n_counted, p->cap_counted);
        p->counted[p->n_counted++] = (struct molt_counted){r->path, r->count};
    }
}

int molt_plan_pass(const struct molt_manifest *base, const struct molt_manifest *prev,
                   const struct molt_manifest *active, const struct molt_manifest *upgrade,
                   const struct molt_policy *policy, enum molt_on_conflict on_conflict,
                   struct molt_plan **ret, struct molt_error **err)
{
    return molt_plan_pass_anew(base, prev, active, upgrade, policy, policy, on_conflict, NULL, ret, err);
}

int molt_plan_pass_anew(const struct molt_manifest *base, const struct molt_manifest *prev,
                        const struct molt_manifest *active, const struct molt_manifest *upgrade,
                        const struct molt_policy *prev_policy, const struct molt_policy *policy,
                        enum molt_on_conflict on_conflict, const struct molt_torn *torn, struct molt_plan **ret,
                        struct molt_error **err)
{
    const struct molt_manifest *const m[4] = {base, prev, active, upgrade};
    struct planner pl = {.policy = prev_policy, .on_conflict = on_conflict};
    int rc = join(&pl, m, torn, err);
    if (rc == 0) {
        resolve(&pl, false);
        tear(&pl, torn);
        pl.policy = policy;
        pl.plan = molt_xcalloc(1, sizeof(*pl.plan));
        resolve(&pl, true);
        count(&pl, pl.plan);
        find_leaders(&pl);
        find_split_leaders(&pl);
        find_sources(&pl);
        emit_all(&pl, upgrade);
        *ret = pl.plan;
    }
    free(pl.v);
    return rc;
}

void molt_plan_count(const struct molt_plan *p, struct molt_plan_counts *ret)
{
    *ret = (struct molt_plan_counts){0};
    for (size_t i = 0; i < p->n; i++) {
        const struct molt_action *x = &p->v[i];
        ret->by_act[x->act]++;
        if (x->fetch == MOLT_FETCH_FULL && x->active && x->active->type == MOLT_T_REG)
            ret->bytes += x->active->size;
    }
}

void molt_plan_free(struct molt_plan *p)
{
    if (!p)
        return;
    free(p->v);
    free(p->conflicts);
    free(p->counted);
    free(p);
}
