/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The clone's side of the merge: base disk mounted read-only, passes against the active's agent. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "agent/agent.h"
#include "agent/clonerecord.h"
#include "agent/folders.h"
#include "agent/peer.h"
#include "agent/trees.h"
#include "agent/warm.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/merges.h"
#include "merge/packages.h"
#include "proto/resolve.h"

#define USER_POLICY MOLT_AGENT_ETC "/merge.policy"

struct merge_state {
    struct molt_merges *merge;
    /* The policy, and what was decided in front of it: each rests on the one before, the last is in force. */
    struct molt_policy **policies;
    size_t n_policies, cap_policies;
    struct agent_trees trees;
    struct warm warm;
    char *tree; /* where the file system is mounted that questions are about */
    struct peer_stream stream;
    bool called;
};

void merge_free(struct session *s)
{
    struct merge_state *m = s->merge;
    if (!m)
        return;
    molt_merges_free(m->merge);
    while (m->n_policies)
        molt_policy_free(m->policies[--m->n_policies]);
    free(m->policies);
    molt_msg_clear(&m->stream.msg);
    molt_error_free(m->stream.error);
    trees_close(&m->trees);
    free(m->tree);
    free(m);
    s->merge = NULL;
}

static int ask_peer(void *ctx, enum molt_merge_question q, const void *req, size_t len, struct molt_source *ret, struct molt_error **err)
{
    struct session *s = ctx;
    struct merge_state *m = s->merge;
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    int r = m->called ? peer_stream_end(&m->stream, err) : 0;
    if (r < 0)
        return r;
    m->called = true;
    m->stream.chan = s->peer;
    molt_json_set_int(args, "q", q);
    molt_json_set_string(args, "tree", m->tree ? m->tree : "/");
    if ((r = peer_stream_begin(&m->stream, "merge", args, req, len, true, err)) < 0)
        return r;
    *ret = (struct molt_source){peer_stream_read, &m->stream};
    return 0;
}

static void select_tree(void *ctx, const char *prefix)
{
    struct merge_state *m = ((struct session *)ctx)->merge;
    free(m->tree);
    m->tree = molt_xasprintf("/%s", prefix);
}

static void on_scanning(void *ctx, bool begin)
{
    struct merge_state *m = ctx;
    int fds[2 * MOUNTS_MAX];
    size_t n = 0;
    if (!begin) {
        warm_end(&m->warm);
        return;
    }
    for (size_t i = 0; i < m->trees.n; i++) {
        fds[n++] = m->trees.v[i].basefd;
        fds[n++] = m->trees.v[i].rootfd;
    }
    warm_start(&m->warm, fds, n);
}

/* Ends the last question's answer, so that the ring is free for other calls. The cause behind a cut stream is what
 * the peer said, not "broken pipe". */
static int settle(struct merge_state *m, int r, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *cause = NULL;
    int p = m->called ? peer_stream_end(&m->stream, &cause) : 0;
    m->called = false;
    if (p < 0) {
        molt_error_move(err, MOLT_STEAL_PTR(cause));
        return p;
    }
    return r;
}

static void push_policy(struct merge_state *m, struct molt_policy *p)
{
    MOLT_GROW(m->policies, m->n_policies, m->cap_policies);
    m->policies[m->n_policies++] = p;
}

static const struct molt_policy *policy_of(const struct merge_state *m)
{
    return m->n_policies ? m->policies[m->n_policies - 1] : NULL;
}

/* The administrator's policy, or the one for this system; with the conffiles of both systems' packages. */
static int load_policy(struct merge_state *m, struct molt_error **err)
{
    struct molt_policy *p = NULL;
    struct molt_conffiles c = {0};
    int r = molt_exists(USER_POLICY) ? molt_policy_load(USER_POLICY, &p, err) : molt_policy_choose(m->trees.v[0].rootfd, &p, NULL, err);
    if (r == 0)
        push_policy(m, p);
    for (size_t i = 0; r == 0 && i < m->trees.n; i++) {
        const struct agent_tree *t = &m->trees.v[i];
        r = molt_packages_conffiles(t->rootfd, t->prefix, &c, err);
        if (r == 0)
            r = molt_packages_conffiles(t->basefd, t->prefix, &c, err);
    }
    if (r == 0)
        molt_policy_add_conffiles(p, &c);
    molt_conffiles_clear(&c);
    return r;
}

/* A resolve file's text, which the host has checked: checked again. NULL: none. */
static int decide(struct merge_state *m, const char *text, size_t *ret_n, struct molt_error **err)
{
    CLEANUP_RESOLVE struct molt_resolve *v = NULL;
    int r = text ? molt_resolve_parse(text, strlen(text), "resolve", &v, err) : 0;
    if (r < 0 || !text)
        return r;
    CLEANUP_FREE struct molt_decision *d = molt_xcalloc(v->n + 1, sizeof(*d));
    for (size_t i = 0; i < v->n; i++)
        d[i] = (struct molt_decision){v->v[i].path, (enum molt_policy_action)molt_policy_action_of(v->v[i].action), v->v[i].line};
    push_policy(m, molt_policy_decide(policy_of(m), d, v->n));
    if (ret_n)
        *ret_n = v->n;
    return 0;
}

static int begin_merges(struct session *s, const struct molt_json *args, const struct clone_changes *c, struct molt_error **err)
{
    struct merge_state *m = s->merge;
    struct molt_merge_opts o[MOUNTS_MAX];
    struct molt_look *changed[MOUNTS_MAX] = {NULL};
    const char *oc = molt_json_get_string(args, "on_conflict");
    for (size_t i = 0; i < m->trees.n; i++) {
        const struct agent_tree *t = &m->trees.v[i];
        o[i] = (struct molt_merge_opts){
            .prefix = t->prefix, .rootfd = t->rootfd, .basefd = t->basefd, .stash = t->stash, .policy = policy_of(m), .exclude = t->exclude, .log = s->log,
            .on_conflict = molt_streq(oc, "active") ? MOLT_ON_CONFLICT_ACTIVE : molt_streq(oc, "upgrade") ? MOLT_ON_CONFLICT_UPGRADE : MOLT_ON_CONFLICT_REFUSE,
            .snapshot_ns = molt_json_get_int(args, "snapshot_ns", 0), .scanning = on_scanning, .ctx = m,
        };
        if (clonerecord_of(c, &m->trees, t->dir, &changed[i], &o[i].n_changed)) {
            o[i].changed = changed[i];
            molt_info(s->log, "%s: %zu paths changed here, as recorded", t->dir, o[i].n_changed);
        } else if (!c->why_not[0])
            molt_warn(s->log, "%s is scanned: what changed there was not recorded", t->dir);
    }
    int r = molt_merges_new(o, m->trees.n, &m->merge, err);
    for (size_t i = 0; i < m->trees.n; i++)
        free(changed[i]);
    return r;
}

/* Directories that come along, into empty ones: nothing to decide, and whatever changes there is the other side's. */
static int begin_folders(struct session *s, const struct molt_json *folders, struct molt_error **err)
{
    struct merge_state *m = s->merge = molt_xcalloc(1, sizeof(*m));
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    const struct clone_changes none = {.why_not = "they came just now"};
    struct molt_policy *p = NULL;
    molt_json_set_string(args, "on_conflict", "active");
    int r = folders_open(folders, &m->trees, err);
    if (r == 0 && (r = molt_policy_default(&p, err)) == 0)
        push_policy(m, p);
    return r < 0 ? r : begin_merges(s, args, &none, err);
}

/* {"folders": as folders_open has them}, or
 * {"disks": [{"vdev": "xvda", "base": "xvdy"}], "on_conflict", "snapshot_ns", "resolve": text}: mounts the bases, takes what was recorded
 * here. */
int h_merge_begin(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const struct molt_json *disks = molt_json_get(rq->args, "disks"), *folders = molt_json_get(rq->args, "folders");
    CLEANUP_CHANGES struct clone_changes changes = {.why_not = ""};
    if (!s->peer || (!disks && !folders))
        return molt_error_set(err, MOLT_E_PROTOCOL, "merge-begin: bad arguments");
    merge_free(s);
    if (folders)
        return begin_folders(s, folders, err);
    int64_t t0 = molt_mono_ms();
    struct merge_state *m = s->merge = molt_xcalloc(1, sizeof(*m));
    clonerecord_take(&changes);
    if (changes.why_not[0])
        molt_warn(s->log, "base and upgraded tree are scanned: %s", changes.why_not);
    int r = trees_open(disks, &m->trees, err);
    if (r == 0)
        r = load_policy(m, err);
    if (r == 0)
        r = decide(m, molt_json_get_string(rq->args, "resolve"), NULL, err);
    if (r == 0)
        r = begin_merges(s, rq->args, &changes, err);
    struct molt_merge_peer peer = {ask_peer, s, select_tree};
    if (r == 0)
        r = settle(m, molt_merges_check_packages(m->merge, &peer, err), err);
    struct molt_json *dirs = molt_json_array(); /* so that the host sees whether all are merged that should be */
    for (size_t i = 0; i < m->trees.n; i++) {
        CLEANUP_FREE char *dir = disks_escape(m->trees.v[i].dir);
        molt_json_append(dirs, molt_json_string(dir));
    }
    molt_json_set(reply, "file_systems", dirs);
    molt_json_set_int(reply, "ms", molt_mono_ms() - t0);
    molt_json_set_bool(reply, "recorded", !changes.why_not[0]);
    if (changes.why_not[0])
        molt_json_set_string(reply, "reason", changes.why_not);
    return r;
}

static int need_merge(const struct session *s, struct molt_error **err)
{
    if (!s->merge || !s->merge->merge || !s->peer)
        return molt_error_set(err, MOLT_E_STATE, "peer-connect and merge-begin come first");
    return 0;
}

int h_merge_pass(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    struct molt_pass_stats st = {0};
    int r = need_merge(s, err);
    if (r < 0)
        return r;
    struct molt_merge_peer peer = {ask_peer, s, select_tree};
    unsigned flags = molt_json_get_bool(rq->args, "dry", false) ? MOLT_PASS_DRY : 0;
    r = settle(s->merge, molt_merges_pass(s->merge->merge, &peer, flags, &st, err), err);
    molt_json_set_int(reply, "number", st.number);
    molt_json_set_int(reply, "actions", (int64_t)st.actions);
    molt_json_set_int(reply, "vanished", (int64_t)st.vanished);
    molt_json_set_int(reply, "conflicts_open", (int64_t)st.conflicts_open);
    molt_json_set_int(reply, "bytes", (int64_t)st.bytes);
    molt_json_set_int(reply, "ms", st.ms);
    molt_json_set_int(reply, "scan_ms", st.scan_ms);
    molt_json_set_int(reply, "looked_at", (int64_t)st.looked_at);
    molt_json_set_bool(reply, "recorded", st.recorded);
    if (*st.reason)
        molt_json_set_string(reply, "reason", st.reason);
    return r;
}

/* The report may be large (many conflicts): it goes as data. */
int h_merge_report(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    (void)reply;
    if (!s->merge || !s->merge->merge)
        return molt_error_set(err, MOLT_E_STATE, "no merge was begun");
    CLEANUP_JSON struct molt_json *v = molt_merges_report(s->merge->merge);
    CLEANUP_FREE char *text = molt_json_print(v, false);
    return molt_request_data(rq, text, strlen(text), err);
}

/* The plan as of now, with differences, as data; changes nothing. */
int h_merge_plan(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    struct molt_pass_stats st = {0};
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = need_merge(s, err);
    if (r < 0)
        return r;
    struct molt_merge_peer peer = {ask_peer, s, select_tree};
    r = settle(s->merge, molt_merges_plan(s->merge->merge, &peer, &st, &v, err), err);
    if (r < 0)
        return r;
    molt_json_set_int(reply, "conflicts_open", (int64_t)st.conflicts_open);
    molt_json_set_int(reply, "ms", st.ms);
    CLEANUP_FREE char *text = molt_json_print(v, false);
    return molt_request_data(rq, text, strlen(text), err);
}

/* {"resolve": text}: decisions that count from the next pass on, in front of earlier ones. */
int h_merge_resolve(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    size_t n = 0;
    const char *text = molt_json_get_string(rq->args, "resolve");
    int r = need_merge(s, err);
    if (r == 0 && !text)
        r = molt_error_set(err, MOLT_E_PROTOCOL, "merge-resolve: no text");
    if (r == 0)
        r = decide(s->merge, text, &n, err);
    if (r < 0)
        return r;
    molt_merges_set_policy(s->merge->merge, policy_of(s->merge));
    molt_json_set_int(reply, "decisions", (int64_t)n);
    return 0;
}

/* Whether the active's packages are still the base's. */
int h_merge_check(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    (void)reply;
    int r = need_merge(s, err);
    if (r < 0)
        return r;
    struct molt_merge_peer peer = {ask_peer, s, select_tree};
    return settle(s->merge, molt_merges_check_packages(s->merge->merge, &peer, err), err);
}
