/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random trees, random edits on both sides, two passes; the result must equal that of a plain recursive model
 * which shares no code with the plan. Every other seed gives the manifests made-up inode numbers, equal where
 * nothing was edited, as on disks that descend from one; the others go through molt_merge with hashes only.
 * XENMOLT_TEST_SEEDS=N and XENMOLT_TEST_SEED=N (only that one) change what runs.
 */
#include "test_merge_util.h"

enum ntype { DIR_, FILE_, LINK_, FIFO_ };

struct node {
    enum ntype type;
    char name[8];
    char text[160]; /* content or target */
    unsigned mode;
    int64_t mtime;
    uint64_t ver;
    struct node *kid[8]; /* by name index */
};

static const char *const tops[] = {"act", "app", "drp", "ref", "upg"};
static const char *const names[] = {"a", "a-b", "b", "c.d"};
enum { N_TOPS = 5, N_NAMES = 4 };
static uint64_t rng, stamp;

static unsigned rnd(unsigned n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(rng >> 33) % n;
}

static struct node *new_node(enum ntype t, const char *name)
{
    struct node *n = calloc(1, sizeof(*n));
    n->type = t;
    snprintf(n->name, sizeof(n->name), "%s", name);
    n->ver = n->mtime = (int64_t)++stamp;
    n->mode = t == LINK_ ? 0777 : t == DIR_ ? 0755 : 0644;
    snprintf(n->text, sizeof(n->text), "t%u\n", rnd(3));
    return n;
}

static void node_free(struct node *n)
{
    for (int i = 0; n && i < 8; i++)
        node_free(n->kid[i]);
    free(n);
}

static struct node *copy(const struct node *n)
{
    if (!n)
        return NULL;
    struct node *c = malloc(sizeof(*c));
    *c = *n;
    for (int i = 0; i < 8; i++)
        c->kid[i] = copy(n->kid[i]);
    return c;
}

static struct node *random_tree(int depth, const char *name)
{
    struct node *n = new_node(depth == 0 ? FILE_ : rnd(2) ? DIR_ : (enum ntype)(1 + rnd(3)), name);
    for (int i = 0; n->type == DIR_ && i < N_NAMES; i++)
        if (rnd(3))
            n->kid[i] = random_tree(depth - 1, names[i]);
    return n;
}

/* --- edits, on the model only; the disk follows by sync_tree --- */

static void touch(struct node *n)
{
    n->ver = ++stamp;
    n->mtime = (int64_t)stamp;
}

static void edit_below(struct node *dir, int depth)
{
    int i = (int)rnd(N_NAMES);
    struct node **k = &dir->kid[i];
    if (*k && (*k)->type == DIR_ && rnd(3)) {
        edit_below(*k, depth - 1);
        return;
    }
    if (*k && rnd(3)) {
        switch (rnd((*k)->type == FILE_ ? 5 : 2)) {
        case 0:
            if ((*k)->type != LINK_) {
                (*k)->mode = (*k)->mode == 0700 ? 0750 : 0700;
                (*k)->ver = ++stamp;
            }
            return;
        case 1: /* time only */
            touch(*k);
            return;
        case 2:
            snprintf((*k)->text, sizeof((*k)->text), "w%u\n", rnd(3));
            touch(*k);
            return;
        case 3:
            if (strlen((*k)->text) + 8 < sizeof((*k)->text))
                snprintf((*k)->text + strlen((*k)->text), 8, "+%u\n", rnd(9));
            touch(*k);
            return;
        default:
            break;
        }
    }
    bool was = *k;
    node_free(*k);
    *k = was && rnd(2) ? NULL : random_tree(depth > 0 ? depth - 1 : 0, names[i]);
    touch(dir);
}

static void edit(struct node *root)
{
    for (unsigned n = rnd(8); n > 0; n--)
        edit_below(root->kid[rnd(N_TOPS)], 2);
}

/* --- the model on disk --- */

static void make(int at, const struct node *n)
{
    if (n->type == FILE_)
        put(at, n->name, n->text, 0);
    else if (n->type == LINK_)
        assert_int_equal(symlinkat(n->text, at, n->name), 0);
    else if (n->type == FIFO_)
        assert_int_equal(mkfifoat(at, n->name, 0600), 0);
    else
        assert_int_equal(mkdirat(at, n->name, 0755), 0);
}

static void drop(int at, const struct node *n)
{
    if (n->type == DIR_) {
        int fd = open_dir(at, n->name);
        for (int i = 0; i < 8; i++)
            if (n->kid[i])
                drop(fd, n->kid[i]);
        close(fd);
    }
    assert_int_equal(unlinkat(at, n->name, n->type == DIR_ ? AT_REMOVEDIR : 0), 0);
}

/* Brings the tree at fd from was (NULL: empty) to now; the root directory itself is there. */
static void sync_tree(int fd, const struct node *was, const struct node *now)
{
    for (int i = 0; i < 8; i++) {
        const struct node *w = was && was->type == DIR_ ? was->kid[i] : NULL, *n = now->kid[i];
        if (w && (!n || n->type != w->type)) {
            drop(fd, w);
            w = NULL;
        }
        if (!n)
            continue;
        if (!w)
            make(fd, n);
        else if (n->type == FILE_ && strcmp(n->text, w->text) != 0)
            put(fd, n->name, n->text, 0);
        else if (n->type == LINK_ && strcmp(n->text, w->text) != 0) {
            drop(fd, w);
            make(fd, n);
        }
        if (n->type == DIR_) {
            int sub = open_dir(fd, n->name);
            sync_tree(sub, w, n);
            close(sub);
        }
        if (n->type != LINK_)
            assert_int_equal(fchmodat(fd, n->name, n->mode, 0), 0);
        set_time(fd, n->name, n->mtime);
    }
}

/* --- the plain model of the merge --- */

static bool differs(const struct node *x, const struct node *y)
{
    if (!x || !y)
        return x != y;
    if (x->type != y->type || x->mode != y->mode)
        return true;
    return (x->type == FILE_ || x->type == LINK_) && strcmp(x->text, y->text) != 0;
}

static bool tree_differs(const struct node *x, const struct node *y)
{
    if (differs(x, y))
        return true;
    for (int i = 0; x && i < 8; i++)
        if (tree_differs(x->kid[i], y->kid[i]))
            return true;
    return false;
}

static enum molt_on_conflict option;

static const struct node *winner(const char *top, const struct node *a, const struct node *u)
{
    if (strcmp(top, "act") == 0)
        return a;
    if (strcmp(top, "app") == 0 && (!a || !u))
        return a ? a : u;
    if (strcmp(top, "ref") == 0 || strcmp(top, "app") == 0)
        return option == MOLT_ON_CONFLICT_ACTIVE ? a : u;
    return u;
}

static struct node *alone(const struct node *n)
{
    if (!n)
        return NULL;
    struct node *c = malloc(sizeof(*c));
    *c = *n;
    memset(c->kid, 0, sizeof(c->kid));
    return c;
}

static struct node *both(const char *top, const struct node *b, const struct node *a, const struct node *u)
{
    struct node *r;
    if (!differs(a, u))
        return alone(u);
    bool ref = strcmp(top, "ref") == 0;
    if (a && u && a->type == DIR_ && u->type == DIR_) {
        bool a_mode = !b || b->mode != a->mode, u_mode = !b || b->mode != u->mode;
        r = alone(u);
        if (a_mode && u_mode)
            r->mode =
                (strcmp(top, "act") == 0 || (ref && option == MOLT_ON_CONFLICT_ACTIVE)) ? a->mode : u->mode;
        else if (a_mode)
            r->mode = a->mode;
        return r;
    }
    if (ref && a && u && b && a->type == b->type && u->type == b->type) {
        bool at = strcmp(a->text, b->text) != 0, ut = strcmp(u->text, b->text) != 0;
        if (a->type != FILE_ && a->type != LINK_)
            at = ut = false;
        bool am = a->mode != b->mode, um = u->mode != b->mode;
        if (at && !am && !ut && um) {
            r = alone(a);
            r->mode = u->mode;
            return r;
        }
        if (ut && !um && !at && am) {
            r = alone(u);
            r->mode = a->mode;
            return r;
        }
    }
    if (strcmp(top, "app") == 0 && a && u && a->type == FILE_ && u->type == FILE_) {
        r = alone(a);
        size_t skip =
            b && b->type == FILE_ && strncmp(u->text, b->text, strlen(b->text)) == 0 ? strlen(b->text) : 0;
        snprintf(r->text + strlen(r->text), sizeof(r->text) - strlen(r->text), "%s", u->text + skip);
        bool b_file = b && b->type == FILE_;
        if (b_file && a->mode == b->mode)
            r->mode = u->mode;
        r->mtime = a->mtime > u->mtime ? a->mtime : u->mtime;
        return r;
    }
    return alone(winner(top, a, u));
}

static struct node *own(const char *top, const struct node *b, const struct node *a, const struct node *u)
{
    struct node *r;
    bool ca = differs(b, a), cu = differs(b, u);
    if (ca && cu)
        r = both(top, b, a, u);
    else if (ca)
        r = alone(a);
    else if (cu || !a)
        r = alone(u);
    else
        r = alone(b->mtime == u->mtime ? a : u);
    if (r && r->type == DIR_ && a && u && a->type == DIR_ && u->type == DIR_)
        r->mtime = b && b->mtime == u->mtime ? a->mtime : u->mtime;
    return r;
}

static const struct node *kid(const struct node *n, int i)
{
    return n && n->type == DIR_ ? n->kid[i] : NULL;
}

static struct node *model(const char *top, const struct node *b, const struct node *a, const struct node *u)
{
    if (!b && !a && !u)
        return NULL;
    if (a && u && (a->type == DIR_) != (u->type == DIR_)) {
        const struct node *d = a->type == DIR_ ? a : u, *o = d == a ? u : a;
        bool co = differs(b, o), cd = tree_differs(b, d);
        if (co && cd)
            return copy(winner(top, a, u));
        return copy((d == a) == cd ? a : u);
    }
    struct node *r = own(top, b, a, u);
    for (int i = 0; i < 8; i++) {
        struct node *k = model(top, kid(b, i), kid(a, i), kid(u, i));
        if (k && !r)
            r = alone(u && u->type == DIR_ ? u : a);
        if (k)
            r->kid[i] = k;
    }
    return r;
}

/* --- comparison --- */

static void show(const char *side, const struct node *n, const char *path)
{
    if (!getenv("XENMOLT_TEST_SEED") || !n)
        return;
    print_message("%s %s type %d mode %o time %ld %s\n", side, path, (int)n->type, n->mode, (long)n->mtime,
                  n->type == DIR_ ? "\n" : n->text);
    for (int i = 0; i < 8; i++) {
        if (n->kid[i]) {
            char sub[256];
            snprintf(sub, sizeof(sub), "%s/%s", path, n->kid[i]->name);
            show(side, n->kid[i], sub);
        }
    }
}

static int bad(const char *path, const char *what)
{
    print_error("%s: %s\n", path, what);
    return 1;
}

static int compare(int fd, const struct node *n, const char *path)
{
    int wrong = 0;
    for (int i = 0; i < N_NAMES + N_TOPS; i++) {
        const char *name = i < N_NAMES ? names[i] : tops[i - N_NAMES];
        const struct node *k = NULL;
        for (int j = 0; j < 8; j++)
            if (n->kid[j] && strcmp(n->kid[j]->name, name) == 0)
                k = n->kid[j];
        char sub[256];
        snprintf(sub, sizeof(sub), "%s/%s", path, name);
        struct stat st;
        if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            wrong += k ? bad(sub, "missing") : 0;
            continue;
        }
        if (!k) {
            wrong += bad(sub, "should not be there");
            continue;
        }
        static const mode_t types[] = {S_IFDIR, S_IFREG, S_IFLNK, S_IFIFO};
        if ((st.st_mode & S_IFMT) != types[k->type]) {
            wrong += bad(sub, "wrong type");
            continue;
        }
        if (k->type != LINK_ && (st.st_mode & 07777) != k->mode)
            wrong += bad(sub, "wrong mode");
        if (st.st_mtim.tv_sec != k->mtime)
            wrong += bad(sub, "wrong time");
        if (k->type == FILE_) {
            CLEANUP_FREE char *text = get(fd, name);
            if (!molt_streq(text, k->text))
                wrong += bad(sub, text);
        } else if (k->type == LINK_) {
            char target[160] = "";
            if (readlinkat(fd, name, target, sizeof(target) - 1) < 0 || strcmp(target, k->text) != 0)
                wrong += bad(sub, "wrong target");
        } else if (k->type == DIR_) {
            int sfd = open_dir(fd, name);
            wrong += compare(sfd, k, sub);
            close(sfd);
        }
    }
    return wrong;
}

/* --- the two ways to run a pass --- */

static const char rules[] =
    "data active /act/**\nlog append /app/**\ncache drop /drp/**\ndata refuse /ref/**\n"
    "package-db upgrade /upg/**\n";

static const struct node *lookup(const struct node *root, const char *path)
{
    const struct node *n = root;
    while (n && *path) {
        size_t len = strcspn(path, "/");
        const struct node *next = NULL;
        for (int i = 0; i < 8; i++)
            if (n->kid[i] && strlen(n->kid[i]->name) == len && memcmp(n->kid[i]->name, path, len) == 0)
                next = n->kid[i];
        n = next;
        path += len + (path[len] == '/');
    }
    return n;
}

static struct molt_manifest *scan_as(int fd, const struct node *root)
{
    struct molt_manifest *m = NULL;
    const struct molt_scan_opts o = {.exclude = no_exclude};
    assert_ok(molt_manifest_scan(fd, &o, &m, err));
    for (size_t i = 0; i < m->n; i++) {
        const struct node *n = lookup(root, m->v[i].path);
        assert_non_null(n);
        m->v[i].ino = n->ver;
        m->v[i].ctime_ns = (int64_t)n->ver;
        m->v[i].flags &= (uint8_t)~MOLT_EF_RACY;
    }
    return m;
}

static void bare_pass(struct trees *t, struct molt_manifest *b, struct molt_manifest *prev,
                      struct molt_manifest *a, struct molt_manifest *u, const struct molt_policy *policy)
{
    struct molt_need_hash need;
    struct molt_plan *plan = NULL;
    CLEANUP_WANTS struct molt_wants want = {0};
    CLEANUP_STRBUF struct molt_strbuf pack = MOLT_STRBUF_INIT;
    struct molt_apply ap = {
        .rootfd = t->u, .basefd = t->b, .stashfd = open_dir(t->u, "stash"), .no_sync = true};
    molt_plan_need_hash(b, a, u, policy, &need);
    assert_ok(molt_manifest_hash_paths(t->b, b, need.base, need.n_base, err));
    assert_ok(molt_manifest_hash_paths(t->a, a, need.active, need.n_active, err));
    for (size_t i = 0; i < need.n_upgrade; i++) {
        int fd = molt_apply_open_upgrade(&ap, need.upgrade[i]);
        assert_ok(molt_hash_fd(fd, &molt_manifest_find(u, need.upgrade[i])->content_hash, err));
        close(fd);
    }
    molt_need_hash_free(&need);
    assert_ok(molt_plan_pass(b, prev, a, u, policy, option, &plan, err));
    assert_ok(molt_apply_want(&ap, plan, &want, err));
    struct molt_sink sink = molt_sink_strbuf(&pack);
    assert_ok(molt_pack_send(t->a, want.v, want.n, &sink, err));
    struct molt_mem mem = {(unsigned char *)pack.s, pack.len, 0};
    struct molt_source src = molt_source_mem(&mem);
    assert_ok(molt_apply_plan(&ap, plan, &want, &src, err));
    assert_int_equal(ap.vanished, 0);
    molt_plan_free(plan);
    close(ap.stashfd);
}

static void run_bare(struct trees *t, const struct node *b, const struct node *a, const struct node *a2,
                     const struct node *u)
{
    CLEANUP_POLICY struct molt_policy *policy = NULL;
    assert_ok(molt_policy_parse(rules, sizeof(rules) - 1, "rules", &policy, err));
    CLEANUP_MANIFEST struct molt_manifest *mb = scan_as(t->b, b), *mu = scan_as(t->u, u),
                                          *m1 = scan_as(t->a, a);
    assert_int_equal(mkdirat(t->u, "stash", 0700), 0);
    bare_pass(t, mb, mb, m1, mu, policy);
    sync_tree(t->a, a, a2);
    CLEANUP_MANIFEST struct molt_manifest *m2 = scan_as(t->a, a2);
    bare_pass(t, mb, m1, m2, mu, policy);
}

static void run_whole(struct trees *t, const struct node *a, const struct node *a2)
{
    struct session s;
    session_start(&s, t, rules, option);
    session_pass(&s);
    sync_tree(t->a, a, a2);
    session_pass(&s);
    assert_int_equal(s.stats.vanished, 0);
    session_end(&s);
}

static int one_seed(unsigned seed)
{
    struct trees t;
    rng = seed * 2654435761u + 1;
    stamp = 1000;
    option = rnd(2) ? MOLT_ON_CONFLICT_ACTIVE : MOLT_ON_CONFLICT_UPGRADE;
    struct node *b = new_node(DIR_, "");
    for (int i = 0; i < N_TOPS; i++) {
        b->kid[i] = new_node(DIR_, tops[i]);
        for (int k = 0; k < N_NAMES; k++)
            if (rnd(3))
                b->kid[i]->kid[k] = random_tree(2, names[k]);
    }
    struct node *a = copy(b), *u = copy(b);
    edit(a);
    edit(u);
    if (rnd(4) == 0) { /* the same on both sides */
        node_free(u->kid[3]);
        u->kid[3] = copy(a->kid[3]);
        edit(u);
    }
    struct node *a2 = copy(a);
    edit(a2);
    if (rnd(4) == 0) { /* back to the base */
        node_free(a2->kid[0]);
        a2->kid[0] = copy(b->kid[0]);
        touch(a2->kid[0]);
    }
    trees_make_in(&t, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"); /* in memory: many small trees */
    sync_tree(t.b, NULL, b);
    sync_tree(t.a, NULL, a);
    sync_tree(t.u, NULL, u);
    show("base", b, "");
    show("active1", a, "");
    show("active2", a2, "");
    show("upgrade", u, "");
    if (seed % 2)
        run_bare(&t, b, a, a2, u);
    else
        run_whole(&t, a, a2);
    struct node *want = new_node(DIR_, "");
    for (int i = 0; i < N_TOPS; i++)
        want->kid[i] = model(tops[i], b->kid[i], a2->kid[i], u->kid[i]);
    int wrong = compare(t.u, want, "");
    trees_remove(&t);
    node_free(b);
    node_free(a);
    node_free(a2);
    node_free(u);
    node_free(want);
    return wrong;
}

static void random_trees_equal_the_model(void **state)
{
    (void)state;
    const char *only = getenv("XENMOLT_TEST_SEED"), *many = getenv("XENMOLT_TEST_SEEDS");
    unsigned n = many ? (unsigned)atoi(many) : 300;
    unsigned first = only ? (unsigned)atoi(only) : 1, last = only ? first : n;
    umask(022);
    for (unsigned seed = first; seed <= last; seed++)
        if (one_seed(seed))
            fail_msg("XENMOLT_TEST_SEED=%u: the result is not the model's", seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_trees_equal_the_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
