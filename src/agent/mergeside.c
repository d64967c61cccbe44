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
#include "agent/peer.h"
#include "agent/warm.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/packages.h"
#include "proto/resolve.h"

#define BASE_DIR MOLT_AGENT_RUN "/base"
#define STASH_DIR MOLT_AGENT_LIB "/stash"
#define USER_POLICY MOLT_AGENT_ETC "/merge.policy"

struct merge_state {
    struct molt_merge *merge;
    /* The policy, and what was decided in front of it: each rests on the one before, the last is in force. */
    struct molt_policy **policies;
    size_t n_policies, cap_policies;
    int rootfd, basefd;
    struct peer_stream stream;
    bool called;
};

void merge_free(struct session *s)
{
    struct merge_state *m = s->merge;
    if (!m)
        return;
    molt_merge_free(m->merge);
    while (m->n_policies)
        molt_policy_free(m->policies[--m->n_policies]);
    free(m->policies);
    molt_msg_clear(&m->stream.msg);
    molt_error_free(m->stream.error);
    if (m->rootfd >= 0)
        close(m->rootfd);
    if (m->basefd >= 0)
        close(m->basefd);
    umount2(BASE_DIR, MNT_DETACH);
    molt_remove_tree(STASH_DIR, NULL);
    free(m);
    s->merge = NULL;
}

/* The device that shows the base's copy of this root: the root's device with its disk's name replaced. */
static int base_device(const char *disk, char **ret, struct molt_error **err)
{
    struct stat st;
    char link[512];
    if (stat("/", &st) < 0)
        return molt_error_errno(err, "stat /");
    CLEANUP_FREE char *sys = molt_xasprintf("/sys/dev/block/%u:%u", major(st.st_dev), minor(st.st_dev));
    ssize_t n = readlink(sys, link, sizeof(link) - 1);
    if (n < 0)
        return molt_error_errno(err, "%s", sys);
    link[n] = 0;
    const char *name = strrchr(link, '/') + 1; /* "xvda" or "xvda2" */
    size_t digits = strlen(name);
    while (digits && name[digits - 1] >= '0' && name[digits - 1] <= '9')
        digits--;
    *ret = molt_xasprintf("/dev/%s%s", disk, name + digits);
    return 0;
}

static int mount_base(const char *disk, const char *fstype, struct molt_error **err)
{
    CLEANUP_FREE char *dev = NULL;
    int r = base_device(disk, &dev, err);
    if (r == 0)
        r = molt_mkdir_p(BASE_DIR, 0700, err);
    if (r < 0)
        return r;
    /* Frozen at the snapshot, so its journal is empty; it must not be replayed into a read-only disk anyway. */
    const char *opts = !strcmp(fstype, "xfs") ? "norecovery,nouuid" : "noload";
    if (mount(dev, BASE_DIR, fstype, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, opts) < 0)
        return molt_error_errno(err, "mount the base disk %s", dev);
    return 0;
}

static int open_dirs(struct merge_state *m, struct molt_error **err)
{
    int r = molt_tree_open("/", &m->rootfd, err);
    if (r < 0)
        return r;
    m->basefd = open(BASE_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return m->basefd < 0 ? molt_error_errno(err, "open the base") : 0;
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
    if ((r = peer_stream_begin(&m->stream, "merge", args, req, len, true, err)) < 0)
        return r;
    *ret = (struct molt_source){peer_stream_read, &m->stream};
    return 0;
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
    int r = molt_exists(USER_POLICY) ? molt_policy_load(USER_POLICY, &p, err) : molt_policy_choose(m->rootfd, &p, NULL, err);
    if (r == 0) {
        push_policy(m, p);
        r = molt_packages_conffiles(m->rootfd, &c, err);
    }
    if (r == 0)
        r = molt_packages_conffiles(m->basefd, &c, err);
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

/* {"disk": "xvdy", "fstype", "on_conflict", "snapshot_ns", "resolve": text}: mounts the base, scans base and this tree. */
int h_merge_begin(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *disk = molt_json_get_string(rq->args, "disk"), *fstype = molt_json_get_string(rq->args, "fstype");
    const char *oc = molt_json_get_string(rq->args, "on_conflict");
    if (!disk || !fstype || strchr(disk, '/') || !s->peer)
        return molt_error_set(err, MOLT_E_PROTOCOL, "merge-begin: bad arguments");
    merge_free(s);
    struct merge_state *m = s->merge = molt_xcalloc(1, sizeof(*m));
    m->rootfd = m->basefd = -1;
    int64_t t0 = molt_mono_ms();
    int r = mount_base(disk, fstype, err);
    if (r == 0)
        r = open_dirs(m, err);
    if (r == 0)
        r = load_policy(m, err);
    if (r == 0)
        r = decide(m, molt_json_get_string(rq->args, "resolve"), NULL, err);
    struct molt_merge_opts o = {
        .rootfd = m->rootfd, .basefd = m->basefd, .stash = STASH_DIR, .policy = policy_of(m), .exclude = peer_exclude, .log = s->log,
        .on_conflict = molt_streq(oc, "active") ? MOLT_ON_CONFLICT_ACTIVE : molt_streq(oc, "upgrade") ? MOLT_ON_CONFLICT_UPGRADE : MOLT_ON_CONFLICT_REFUSE,
        .snapshot_ns = molt_json_get_int(rq->args, "snapshot_ns", 0),
    };
    if (r == 0) {
        struct warm warm;
        warm_start(&warm, (const int[]){m->basefd, m->rootfd}, 2);
        r = molt_merge_new(&o, &m->merge, err);
        warm_end(&warm);
    }
    struct molt_merge_peer peer = {ask_peer, s};
    if (r == 0)
        r = settle(m, molt_merge_check_packages(m->merge, &peer, err), err);
    molt_json_set_int(reply, "ms", molt_mono_ms() - t0);
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
    struct molt_merge_peer peer = {ask_peer, s};
    unsigned flags = molt_json_get_bool(rq->args, "dry", false) ? MOLT_PASS_DRY : 0;
    r = settle(s->merge, molt_merge_pass(s->merge->merge, &peer, flags, &st, err), err);
    molt_json_set_int(reply, "number", st.number);
    molt_json_set_int(reply, "actions", (int64_t)st.actions);
    molt_json_set_int(reply, "vanished", (int64_t)st.vanished);
    molt_json_set_int(reply, "conflicts_open", (int64_t)st.conflicts_open);
    molt_json_set_int(reply, "bytes", (int64_t)st.bytes);
    molt_json_set_int(reply, "ms", st.ms);
    molt_json_set_int(reply, "scan_ms", st.scan_ms);
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
    CLEANUP_JSON struct molt_json *v = molt_merge_report(s->merge->merge);
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
    struct molt_merge_peer peer = {ask_peer, s};
    r = settle(s->merge, molt_merge_plan(s->merge->merge, &peer, &st, &v, err), err);
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
    molt_merge_set_policy(s->merge->merge, policy_of(s->merge));
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
    struct molt_merge_peer peer = {ask_peer, s};
    return settle(s->merge, molt_merge_check_packages(s->merge->merge, &peer, err), err);
}
