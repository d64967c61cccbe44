/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The receiving side: passes and the report. */
#include "merge/merge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "merge/packages.h"
#include "merge/report.h"

#define HASHES_MAX        ((size_t)256 << 20)
#define DELTA_HEAD_MAX    4096

struct known_conflict {
    struct molt_conflict c; /* path and kind's rule copied: manifests come and go */
    char *path;
};

struct molt_merge {
    struct molt_merge_opts o;
    const char **exclude; /* the caller's and the stash */
    int stashfd;
    struct molt_sparse *sparse; /* both sides are recorded; NULL: the whole trees are known, as follows */
    struct molt_manifest *base, *upgrade;
    struct molt_manifest
        *applied;                 /* the active as the last pass that was carried out saw it; NULL: as base */
    struct molt_manifest *latest; /* as the peer told it last */
    bool told;                    /* the peer told something, and the next answer can rest on it */
    struct molt_torn torn;        /* by a pass that was cut short */
    struct known_conflict *conflicts;
    size_t n_conflicts;
    char **overlaps; /* paths whose texts did not merge */
    size_t n_overlaps, cap_overlaps;
    struct molt_pass_stats *passes;
    size_t n_passes, cap_passes;
    size_t active_only, upgrade_only, both_same;
    uint64_t bytes;
    size_t not_empty;
    struct molt_policy **views; /* of policies, where the tree has a prefix; the last one is in force */
    size_t n_views, cap_views;
    const struct molt_policy *applied_policy; /* by which the last pass that was carried out decided */
    struct molt_plan_counts counts;           /* of the latest plan */
};

static void free_conflicts(struct molt_merge *m)
{
    for (size_t i = 0; i < m->n_conflicts; i++)
        free(m->conflicts[i].path);
    free(m->conflicts);
    m->conflicts = NULL;
    m->n_conflicts = 0;
}

void molt_merge_free(struct molt_merge *m)
{
    if (!m)
        return;
    if (m->applied != m->latest)
        molt_manifest_free(m->applied);
    molt_manifest_free(m->latest);
    molt_manifest_free(m->base);
    molt_manifest_free(m->upgrade);
    molt_sparse_free(m->sparse);
    for (size_t i = 0; i < m->n_views; i++)
        molt_policy_free(m->views[i]);
    free(m->views);
    molt_pathset_clear(&m->torn.paths);
    molt_pathset_clear(&m->torn.beside);
    free_conflicts(m);
    for (size_t i = 0; i < m->n_overlaps; i++)
        free(m->overlaps[i]);
    free(m->overlaps);
    free(m->passes);
    free(m->exclude);
    if (m->stashfd >= 0)
        close(m->stashfd);
    free(m);
}

/* What an earlier merge left must not be taken for this upgrade's versions. */
static int empty_stash(int stashfd, struct molt_error **err)
{
    int fd = openat(stashfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return molt_error_errno(err, "read the stash");
    const struct dirent *e;
    while ((e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && molt_apply_stash_drop(stashfd, e->d_name) < 0)
            return molt_error_errno(err, "empty the stash: %s", e->d_name);
    return 0;
}

static int open_stash(struct molt_merge *m, struct molt_error **err)
{
    const char *name, *path = m->o.stash;
    if (!path || !molt_path_valid(path, strlen(path), false))
        return molt_error_set(err, MOLT_E_USAGE, "the stash wants a relative path");
    CLEANUP_CLOSE int dirfd = molt_open_parent(m->o.rootfd, path, &name);
    if (dirfd < 0 || (mkdirat(dirfd, name, 0700) < 0 && errno != EEXIST))
        return molt_error_errno(err, "make the stash /%s", path);
    m->stashfd = molt_open_beneath(m->o.rootfd, path, O_RDONLY | O_DIRECTORY);
    return m->stashfd < 0 ? molt_error_errno(err, "open the stash /%s", path) : empty_stash(m->stashfd, err);
}

/* Rules are about paths as the guest sees them. */
static void take_policy(struct molt_merge *m, const struct molt_policy *policy)
{
    m->o.policy = policy;
    if (!m->o.prefix || !*m->o.prefix)
        return;
    MOLT_GROW(m->views, m->n_views, m->cap_views);
    m->o.policy = m->views[m->n_views++] = molt_policy_below(policy, m->o.prefix);
}

/* Ticks around the snapshot, in which an equal ctime proves nothing. */
static int64_t racy_from(const struct molt_merge_opts *o)
{
    return o->snapshot_ns ? o->snapshot_ns - MOLT_RACY_NS : 0;
}

static void tell_scanning(const struct molt_merge *m, bool begin)
{
    if (m->o.scanning)
        m->o.scanning(m->o.ctx, begin);
}

static int scan_whole(struct molt_merge *m, struct molt_error **err)
{
    struct molt_scan_opts so = {.exclude = m->exclude, .racy_from_ns = racy_from(&m->o)};
    tell_scanning(m, true);
    int rc = molt_manifest_scan(m->o.basefd, &so, &m->base, err);
    if (rc == 0) {
        so = (struct molt_scan_opts){.exclude = m->exclude, .ref = m->base};
        rc = molt_manifest_scan(m->o.rootfd, &so, &m->upgrade, err);
    }
    tell_scanning(m, false);
    return rc;
}

/* The recordings do not suffice (any more): all that they spared is read now. */
static int complete(struct molt_merge *m, struct molt_error **err)
{
    struct molt_trees t;
    tell_scanning(m, true);
    int rc = molt_sparse_complete(m->sparse, &t, err);
    tell_scanning(m, false);
    if (rc < 0)
        return rc;
    m->base = t.base;
    m->upgrade = t.upgrade;
    m->applied = t.prev;
    m->latest = t.active;
    molt_sparse_free(m->sparse);
    m->sparse = NULL;
    return 0;
}

static int begin(struct molt_merge *m, struct molt_error **err)
{
    int rc = open_stash(m, err);
    if (rc < 0)
        return rc;
    if (!m->o.changed)
        return scan_whole(m, err);
    const struct molt_sparse_opts so = {m->o.basefd, m->o.rootfd, m->exclude, racy_from(&m->o)};
    m->sparse = molt_sparse_new(&so);
    rc = molt_sparse_add_upgrade(m->sparse, m->o.changed, m->o.n_changed, err);
    m->o.changed = NULL; /* the caller's again */
    return rc;
}

int molt_merge_new(const struct molt_merge_opts *opts, struct molt_merge **ret, struct molt_error **err)
{
    struct molt_merge *m = molt_xcalloc(1, sizeof(*m));
    m->o = *opts;
    m->stashfd = -1;
    size_t n = 0;
    while (opts->exclude && opts->exclude[n])
        n++;
    m->exclude = molt_xcalloc(n + 2, sizeof(*m->exclude));
    for (size_t i = 0; i < n; i++)
        m->exclude[i] = opts->exclude[i];
    while (m->o.stash && *m->o.stash == '/')
        m->o.stash++;
    m->exclude[n] = m->o.stash;
    take_policy(m, opts->policy);
    int rc = begin(m, err);
    if (rc < 0)
        molt_merge_free(m);
    else
        *ret = m;
    return rc;
}

/* Against what the answer is. */
static int read_since(const struct molt_merge *m, const struct molt_source *src, enum molt_merge_since *ret,
                      struct molt_pass_stats *st, struct molt_error **err)
{
    CLEANUP_FREE char *buf = NULL;
    const unsigned char *reason;
    size_t len, n;
    uint64_t since;
    int rc = molt_block_read(src, DELTA_HEAD_MAX, &buf, &len, err);
    if (rc < 0)
        return rc;
    struct molt_mem mem = {(unsigned char *)buf, len, 0};
    if (!molt_get_num(&mem, &since) || !molt_get_bytes(&mem, sizeof(st->reason) - 1, &reason, &n) || mem.off != len ||
        since > MOLT_SINCE_RECORDED || since == MOLT_SINCE_BASE || (since == MOLT_SINCE_LAST && !m->told))
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed head of changes");
    /* It goes into messages and reports. */
    for (size_t i = 0; i < n; i++)
        st->reason[i] = (char)(reason[i] >= 0x20 && reason[i] < 0x7f ? reason[i] : '?');
    st->reason[n] = '\0';
    *ret = (enum molt_merge_since)since;
    st->recorded = since == MOLT_SINCE_RECORDED;
    return 0;
}

/* Into the sparse trees; what they lack is read, and the whole trees are known then. */
static int take_recorded(struct molt_merge *m, bool from_base, const struct molt_source *src, struct molt_pass_stats *st,
                         struct molt_error **err)
{
    int rc = molt_sparse_take(m->sparse, from_base, src, err);
    const char *lacks = molt_sparse_lacks(m->sparse);
    if (rc < 0 || !lacks)
        return rc;
    snprintf(st->reason, sizeof(st->reason), "%s", lacks);
    return complete(m, err);
}

/* Into the whole trees. */
static int take_whole(struct molt_merge *m, enum molt_merge_since against, bool from_base, const struct molt_source *src,
                      struct molt_error **err)
{
    struct molt_manifest *now = NULL;
    int rc;
    /* What was not carried out yet must not count as known. The base's flags are about the upgrade's side, too. */
    bool proven = !from_base && m->latest == m->applied;
    if (against == MOLT_SINCE_RECORDED)
        rc = molt_manifest_recorded_read(from_base ? m->base : m->latest, proven, src, &now, err);
    else
        rc = molt_manifest_delta_read(against == MOLT_SINCE_LAST ? m->latest : NULL, src, &now, err);
    if (rc < 0)
        return rc;
    if (m->latest != m->applied)
        molt_manifest_free(m->latest);
    m->latest = now;
    return 0;
}

static int get_delta(struct molt_merge *m, const struct molt_merge_peer *peer, struct molt_pass_stats *st,
                     struct molt_error **err)
{
    struct molt_source src;
    const char since = m->told ? MOLT_SINCE_LAST : MOLT_SINCE_BASE;
    enum molt_merge_since against = MOLT_SINCE_NOTHING;
    int rc = peer->call(peer->ctx, MOLT_MERGE_Q_DELTA, &since, 1, &src, err);
    if (rc == 0)
        rc = read_since(m, &src, &against, st, err);
    if (rc == 0 && m->sparse && against != MOLT_SINCE_RECORDED)
        rc = complete(m, err);
    if (rc == 0)
        rc = m->sparse ? take_recorded(m, !m->told, &src, st, err) : take_whole(m, against, !m->told, &src, err);
    /* An answer that was lost on the way is known to the other side only: the next one is from the base on. */
    m->told = rc == 0;
    return rc;
}

/* What a pass is planned on: the whole trees, or a cut of the sparse ones. */
struct view {
    struct molt_trees t;
    struct molt_cut cut;
};

static int view_open(struct molt_merge *m, struct view *v, struct molt_pass_stats *st, struct molt_error **err)
{
    memset(v, 0, sizeof(*v));
    if (m->sparse) {
        int rc = molt_sparse_cut(m->sparse, &v->cut, err);
        /* On the way more paths got known, and with them names that are missing. */
        if (rc < 0 || !molt_sparse_lacks(m->sparse)) {
            v->t = v->cut.trees;
            return rc;
        }
        molt_cut_clear(&v->cut);
        snprintf(st->reason, sizeof(st->reason), "%s", molt_sparse_lacks(m->sparse));
        if ((rc = complete(m, err)) < 0)
            return rc;
    }
    v->t = (struct molt_trees){m->base, m->applied ? m->applied : m->base, m->latest, m->upgrade};
    return 0;
}

static void view_close(struct view *v)
{
    molt_cut_clear(&v->cut);
}

static int get_hashes(struct molt_manifest *active, const struct molt_merge_peer *peer, const char *const *paths,
                      size_t n, struct molt_error **err)
{
    CLEANUP_FREE struct molt_pack_path *v = molt_xmalloc(n * sizeof(*v));
    CLEANUP_STRBUF struct molt_strbuf req = MOLT_STRBUF_INIT;
    CLEANUP_FREE char *buf = NULL;
    size_t len;
    struct molt_source src;
    if (n == 0)
        return 0;
    for (size_t i = 0; i < n; i++)
        v[i] = (struct molt_pack_path){.path = paths[i]};
    molt_pack_paths_encode(v, n, &req);
    int rc = peer->call(peer->ctx, MOLT_MERGE_Q_HASHES, req.s, req.len, &src, err);
    if (rc == 0)
        rc = molt_block_read(&src, HASHES_MAX, &buf, &len, err);
    if (rc < 0)
        return rc;
    if (len != n * 8)
        return molt_error_set(err, MOLT_E_PROTOCOL, "%zu bytes of hashes for %zu paths", len, n);
    for (size_t i = 0; i < n; i++) {
        struct molt_entry *e = molt_manifest_find(active, paths[i]);
        if (e)
            e->content_hash = molt_get_le64((const unsigned char *)buf + i * 8);
    }
    return 0;
}

/* The upgrade's versions may lie in the stash by now. */
static int hash_upgrade(struct molt_manifest *upgrade, const struct molt_apply *a, const char *const *paths, size_t n,
                        struct molt_error **err)
{
    for (size_t i = 0; i < n; i++) {
        struct molt_entry *e = molt_manifest_find(upgrade, paths[i]);
        CLEANUP_CLOSE int fd = molt_apply_open_upgrade(a, paths[i]);
        int rc = 0;
        if (e && fd >= 0)
            rc = molt_hash_fd(fd, &e->content_hash, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int learn_hashes(struct molt_merge *m, const struct molt_merge_peer *peer, const struct molt_apply *a,
                        struct view *v, struct molt_error **err)
{
    struct molt_need_hash need;
    molt_plan_need_hash(v->t.base, v->t.active, v->t.upgrade, m->o.policy, &need);
    int rc = get_hashes(v->t.active, peer, need.active, need.n_active, err);
    if (rc == 0)
        rc = molt_manifest_hash_paths(m->o.basefd, v->t.base, need.base, need.n_base, err);
    if (rc == 0)
        rc = hash_upgrade(v->t.upgrade, a, need.upgrade, need.n_upgrade, err);
    molt_need_hash_free(&need);
    if (rc == 0 && m->sparse)
        molt_sparse_keep_hashes(m->sparse, &v->cut);
    return rc;
}

static int by_path(const void *a, const void *b)
{
    return molt_path_cmp(((const struct known_conflict *)a)->path, ((const struct known_conflict *)b)->path);
}

/* The plan's conflicts; of paths that it did not look at, those that are known. */
static void keep_conflicts(struct molt_merge *m, const struct molt_plan *p, const struct view *v)
{
    struct known_conflict *old = m->conflicts, *list = molt_xcalloc(m->n_conflicts + p->n_conflicts + 1, sizeof(*list));
    size_t n = 0;
    for (size_t i = 0; i < m->n_conflicts; i++)
        if (m->sparse && !molt_pathset_has(&v->cut.paths, old[i].path)) {
            list[n] = old[i];
            list[n++].path = molt_xstrdup(old[i].path);
        }
    for (size_t i = 0; i < p->n_conflicts; i++) {
        list[n].c = p->conflicts[i];
        list[n++].path = molt_xstrdup(p->conflicts[i].path);
    }
    free_conflicts(m);
    for (size_t i = 0; i < n; i++)
        list[i].c.path = list[i].path;
    if (n)
        qsort(list, n, sizeof(*list), by_path);
    m->conflicts = list;
    m->n_conflicts = n;
}

static void keep_result(struct molt_merge *m, const struct molt_plan *p, const struct view *v)
{
    struct molt_counts c = {p->active_only, p->upgrade_only, p->both_same};
    keep_conflicts(m, p, v);
    if (m->sparse)
        molt_sparse_count(m->sparse, &v->cut, p, &c);
    m->active_only = c.active_only;
    m->upgrade_only = c.upgrade_only;
    m->both_same = c.both_same;
    molt_plan_count(p, &m->counts);
}

static size_t find_overlap(const struct molt_merge *m, const char *path)
{
    size_t i = 0;
    while (i < m->n_overlaps && strcmp(m->overlaps[i], path) != 0)
        i++;
    return i;
}

void molt__merge_note_overlap(struct molt_merge *m, const char *path, bool overlap)
{
    size_t i = find_overlap(m, path);
    if (overlap && i == m->n_overlaps) {
        MOLT_GROW(m->overlaps, m->n_overlaps, m->cap_overlaps);
        m->overlaps[m->n_overlaps++] = molt_xstrdup(path);
    } else if (!overlap && i < m->n_overlaps) {
        free(m->overlaps[i]);
        m->overlaps[i] = m->overlaps[--m->n_overlaps];
    }
}

static void settle_torn(struct molt_merge *m)
{
    molt_pathset_clear(&m->torn.paths);
    molt_pathset_clear(&m->torn.beside);
}

/* The pass may have acted on any of them. */
static void note_torn(struct molt_merge *m, const struct molt_plan *plan)
{
    for (size_t i = 0; i < plan->n; i++) {
        enum molt_act act = plan->v[i].act;
        molt_pathset_add(&m->torn.paths, plan->v[i].path);
        if (act == MOLT_ACT_MERGE_TEXT || act == MOLT_ACT_BESIDE || act == MOLT_ACT_KEEP_BESIDE)
            molt_pathset_add(&m->torn.beside, plan->v[i].path);
    }
    molt_pathset_sort(&m->torn.paths);
    molt_pathset_sort(&m->torn.beside);
}

static void on_merged(void *ctx, const struct molt_action *a, bool overlap)
{
    molt__merge_note_overlap(ctx, a->path, overlap);
}

static int apply(struct molt_merge *m, const struct molt_merge_peer *peer, const struct molt_plan *plan,
                 const struct view *v, struct molt_apply *a, struct molt_error **err)
{
    CLEANUP_WANTS struct molt_wants want = {0};
    CLEANUP_STRBUF struct molt_strbuf req = MOLT_STRBUF_INIT;
    struct molt_source src;
    int rc = molt_apply_want(a, plan, &want, err);
    if (rc == 0 && want.n) {
        molt_pack_paths_encode(want.v, want.n, &req);
        rc = peer->call(peer->ctx, MOLT_MERGE_Q_PACK, req.s, req.len, &src, err);
    }
    if (rc == 0)
        rc = molt_apply_plan(a, plan, &want, want.n ? &src : NULL, err);
    if (rc < 0) {
        note_torn(m, plan);
        m->told = false; /* the channel may have been cut */
        return rc;
    }
    settle_torn(m);
    m->applied_policy = m->o.policy;
    if (m->sparse) {
        molt_sparse_applied(m->sparse, &v->cut);
        return 0;
    }
    if (m->applied != m->latest)
        molt_manifest_free(m->applied);
    m->applied = m->latest;
    return 0;
}

static int refuse(const struct molt_merge *m, const struct molt_plan *p, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    size_t shown = 0;
    for (size_t i = 0; i < p->n_conflicts && shown < 5; i++) {
        if (!p->conflicts[i].open)
            continue;
        CLEANUP_FREE char *text = molt_path_text(p->conflicts[i].path);
        const char *prefix = m->o.prefix ? m->o.prefix : "";
        molt_strbuf_addf(&b, "%s%s%s%s (%s)", shown++ ? ", " : "", *prefix ? "/" : "", prefix, text, p->conflicts[i].kind);
    }
    return molt_error_set(err, MOLT_E_CONFLICT,
                          "%zu paths changed on both sides and no policy settles them: %s%s", p->n_open,
                          molt_strbuf_str(&b), p->n_open > shown ? ", ..." : "");
}

static int plan_and_apply(struct molt_merge *m, const struct molt_merge_peer *peer, unsigned flags, struct view *v,
                          struct molt_pass_stats *st, struct molt_error **err)
{
    struct molt_apply a = {.rootfd = m->o.rootfd,
                           .basefd = m->o.basefd,
                           .stashfd = m->stashfd,
                           .log = m->o.log,
                           .no_sync = flags & MOLT_PASS_NO_SYNC,
                           .merged = on_merged,
                           .ctx = m};
    CLEANUP_PLAN struct molt_plan *plan = NULL;
    int rc = learn_hashes(m, peer, &a, v, err);
    if (rc == 0)
        rc = molt_plan_pass_anew(v->t.base, v->t.prev, v->t.active, v->t.upgrade,
                                 m->applied_policy ? m->applied_policy : m->o.policy, m->o.policy, m->o.on_conflict,
                                 &m->torn, &plan, err);
    if (rc < 0)
        return rc;
    keep_result(m, plan, v);
    st->actions = plan->n;
    st->conflicts_open = plan->n_open;
    st->looked_at = m->sparse ? v->cut.paths.n : v->t.active->n;
    st->whole = !m->sparse;
    if (plan->n_open && !(flags & MOLT_PASS_DRY))
        rc = refuse(m, plan, err);
    else if (!(flags & MOLT_PASS_DRY))
        rc = apply(m, peer, plan, v, &a, err);
    st->bytes = a.bytes;
    st->vanished = a.vanished;
    m->bytes += a.bytes;
    m->not_empty += a.not_empty;
    return rc;
}

int molt_merge_pass(struct molt_merge *m, const struct molt_merge_peer *peer, unsigned flags,
                    struct molt_pass_stats *ret, struct molt_error **err)
{
    int64_t start = molt_mono_ms();
    struct view v = {0};
    struct molt_pass_stats st = {.number = (unsigned)m->n_passes + 1};
    int rc = get_delta(m, peer, &st, err);
    st.scan_ms = molt_mono_ms() - start;
    if (rc == 0)
        rc = view_open(m, &v, &st, err);
    if (rc == 0)
        rc = plan_and_apply(m, peer, flags, &v, &st, err);
    view_close(&v);
    st.ms = molt_mono_ms() - start;
    if (rc == 0 && !(flags & MOLT_PASS_DRY)) {
        MOLT_GROW(m->passes, m->n_passes, m->cap_passes);
        m->passes[m->n_passes++] = st;
    }
    if (ret)
        *ret = st;
    return rc < 0 ? molt_error_prefix(err, "merge") : 0;
}

int molt_merge_check_packages(struct molt_merge *m, const struct molt_merge_peer *peer,
                              struct molt_error **err)
{
    struct molt_trees t = {.base = m->base, .active = m->latest};
    if (m->sparse)
        molt_sparse_trees(m->sparse, &t);
    int rc = molt_packages_check(m->o.basefd, m->o.prefix, t.base, m->told ? t.active : NULL, peer, err);
    return rc < 0 ? molt_error_prefix(err, "merge") : 0;
}

void molt_merge_set_policy(struct molt_merge *m, const struct molt_policy *policy)
{
    take_policy(m, policy);
    if (m->sparse)
        molt_sparse_reconsider(m->sparse);
}

void molt__merge_view(const struct molt_merge *m, struct molt__view *ret)
{
    struct molt_trees t = {.base = m->base, .active = m->latest, .upgrade = m->upgrade};
    if (m->sparse)
        molt_sparse_trees(m->sparse, &t);
    *ret = (struct molt__view){.rootfd = m->o.rootfd,
                               .basefd = m->o.basefd,
                               .stashfd = m->stashfd,
                               .base = t.base,
                               .latest = t.active,
                               .upgrade = t.upgrade,
                               .policy = m->o.policy,
                               .counts = m->counts,
                               .n = m->n_conflicts};
    ret->v = molt_xcalloc(m->n_conflicts + 1, sizeof(*ret->v));
    for (size_t i = 0; i < m->n_conflicts; i++) {
        const struct molt_conflict *c = &m->conflicts[i].c;
        bool overlap = find_overlap(m, c->path) < m->n_overlaps && strcmp(c->decision, "merge") == 0;
        ret->v[i] = (struct molt__view_conflict){*c, overlap};
    }
}

struct molt_json *molt_merge_report(const struct molt_merge *m)
{
    struct molt_json *o = molt_json_object();
    struct molt_json *passes = molt_json_array();
    molt_json_set_int(o, "active_only", (int64_t)m->active_only);
    molt_json_set_int(o, "upgrade_only", (int64_t)m->upgrade_only);
    molt_json_set_int(o, "both_same", (int64_t)m->both_same);
    molt_json_set_int(o, "bytes", (int64_t)m->bytes);
    molt_json_set_int(o, "directories_kept", (int64_t)m->not_empty);
    molt__report_conflicts(m, o);
    for (size_t i = 0; i < m->n_passes; i++) {
        struct molt_json *p = molt_json_object();
        molt_json_set_int(p, "number", m->passes[i].number);
        molt_json_set_int(p, "actions", (int64_t)m->passes[i].actions);
        molt_json_set_int(p, "vanished", (int64_t)m->passes[i].vanished);
        molt_json_set_int(p, "bytes", (int64_t)m->passes[i].bytes);
        molt_json_set_int(p, "looked_at", (int64_t)m->passes[i].looked_at);
        molt_json_set_int(p, "scan_ms", m->passes[i].scan_ms);
        molt_json_set_int(p, "ms", m->passes[i].ms);
        molt_json_set_bool(p, "recorded", m->passes[i].recorded);
        if (*m->passes[i].reason)
            molt_json_set_string(p, "reason", m->passes[i].reason);
        molt_json_append(passes, p);
    }
    molt_json_set(o, "passes", passes);
    return o;
}
