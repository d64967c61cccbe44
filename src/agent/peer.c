/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The active's agent serves the clone's over a ring of their own (guest to guest; dom0 only tells the two of each
 * other): merge questions, pins, dump images.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "agent/agent.h"
#include "agent/folders.h"
#include "agent/overlays.h"
#include "agent/peer.h"
#include "agent/units.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/merge.h"
#include "merge/pack.h"
#include "procmig/execs.h"
#include "procmig/predump.h"
#include "procmig/touched.h"
#include "proto/vchan.h"

#define ACCEPT_MS 120000
#define BUFFER (256u << 10)

/* A file system that the other side asks about. */
struct served_tree {
    char *dir;
    int rootfd;
    const char **exclude;
    struct molt_merge_server *merge;
};

struct peer_state {
    const struct session *session;
    struct served_tree trees[MOUNTS_MAX];
    size_t n_trees;
    struct molt_pins *pins;
};

/* A sink over the reply that gathers small writes. */
struct out {
    struct molt_request *rq;
    struct molt_strbuf b;
};

static int out_flush(struct out *o)
{
    int r = o->b.len ? molt_request_data(o->rq, o->b.s, o->b.len, NULL) : 0;
    o->b.len = 0;
    if (r < 0)
        errno = EPIPE;
    return r < 0 ? -1 : 0;
}

static int out_write(void *ctx, const void *buf, size_t len)
{
    struct out *o = ctx;
    molt_strbuf_add(&o->b, buf, len);
    return o->b.len >= BUFFER ? out_flush(o) : 0;
}

static int gather(void *ctx, const void *buf, size_t len, struct molt_error **err)
{
    (void)err;
    molt_strbuf_add(ctx, buf, len);
    return 0;
}

static void serve_recorded(const struct session *s, struct served_tree *t)
{
    unsigned i = 0;
    while (s->recorded[i] && strcmp(s->recorded[i], t->dir) != 0)
        i++;
    if (s->recorder && s->recorded[i])
        molt_merge_server_record(t->merge, s->recorder, i, NULL);
    else
        molt_merge_server_record(t->merge, NULL, 0,
                                 s->no_recorder ? s->no_recorder : s->recorder ? "it is not recorded" : "no recording was begun");
}

/* The tree of the file system that is mounted at dir, which must be one of the guest's own; or a directory that dom0 named. */
static int find_tree(struct peer_state *s, const char *dir, struct served_tree **ret, struct molt_error **err)
{
    CLEANUP_MOUNTS struct agent_mounts m = {.n = 0};
    for (size_t i = 0; i < s->n_trees; i++)
        if (strcmp(s->trees[i].dir, dir) == 0) {
            *ret = &s->trees[i];
            return 0;
        }
    const struct molt_json *folders = s->session->folders;
    int r = folders ? 0 : mounts_read(&m, err);
    size_t i = 0;
    while (r == 0 && i < m.n && strcmp(m.v[i].dir, dir) != 0)
        i++;
    if (r < 0 || (folders ? !folders_has(folders, dir) : i == m.n) || s->n_trees == MOUNTS_MAX)
        return r < 0 ? r : molt_error_set(err, MOLT_E_UNSUPPORTED, "the running guest has no file system of its own, and no directory that goes along, at %.200s", dir);
    struct served_tree *t = &s->trees[s->n_trees];
    *t = (struct served_tree){.rootfd = -1};
    if ((r = molt_tree_open(dir, &t->rootfd, err)) < 0)
        return r;
    t->dir = molt_xstrdup(dir);
    t->exclude = trees_exclude(dir + 1);
    t->merge = molt_merge_server_new(t->rootfd, t->exclude);
    serve_recorded(s->session, t);
    s->n_trees++;
    *ret = t;
    return 0;
}

/* {"q", "tree": where it is mounted}, the question's own bytes as upload */
static int p_merge(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct peer_state *s = rq->ctx;
    CLEANUP_STRBUF struct molt_strbuf req = MOLT_STRBUF_INIT;
    struct out o = {rq, MOLT_STRBUF_INIT};
    struct served_tree *t;
    const char *dir = molt_json_get_string(rq->args, "tree");
    (void)reply;
    int r = molt_request_upload(rq, MOLT_MERGE_REQUEST_MAX, gather, &req, err);
    if (r == 0)
        r = find_tree(s, dir ? dir : "/", &t, err);
    if (r < 0)
        return r;
    struct molt_sink sink = {out_write, &o};
    r = molt_merge_serve(t->merge, (enum molt_merge_question)molt_json_get_int(rq->args, "q", 0), molt_strbuf_str(&req), req.len, &sink, err);
    if (r == 0 && out_flush(&o) < 0)
        r = molt_error_errno(err, "send");
    molt_strbuf_free(&o.b);
    return r;
}

static int p_pins(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct peer_state *s = rq->ctx;
    const char *unit = molt_json_get_string(rq->args, "unit");
    CLEANUP_WORKLOAD struct molt_workload *w = NULL;
    int r = molt_workload_scan(unit ? unit : "", &w, err);
    if (r < 0)
        return r;
    molt_pins_free(s->pins);
    s->pins = NULL;
    if ((r = molt_pins_collect(w, &s->pins, err)) < 0 || (r = molt_pins_add_execs(s->pins, w, MOLT_AGENT_ETC "/exec", err)) < 0)
        return r;
    overlays_own(s->pins, unit);
    for (size_t i = 0; s->session->folders && i < s->pins->n; i++)
        s->pins->v[i].ctime_ns = 0; /* the other disk is no snapshot of ours: its inodes say nothing */
    molt_json_set(reply, "pins", molt_pins_json(s->pins));
    return 0;
}

/* {"unit"} -> {"touched"}: which parts of its files it has used (procmig/touched.h). */
static int p_touched(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const char *unit = molt_json_get_string(rq->args, "unit");
    CLEANUP_WORKLOAD struct molt_workload *w = NULL;
    int r = molt_workload_scan(unit ? unit : "", &w, err);
    if (r == 0)
        molt_json_set(reply, "touched", molt_touched_collect(w));
    return r;
}

/* {"indexes": [i, ...]} -> {"pins": [...]}: those again, with their hashes. */
static int p_pin_hashes(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct peer_state *s = rq->ctx;
    const struct molt_json *list = molt_json_get(rq->args, "indexes");
    struct molt_pins some = {0};
    int r = 0;
    some.v = molt_xcalloc(molt_json_size(list) + 1, sizeof(*some.v));
    for (size_t k = 0; k < molt_json_size(list) && r == 0; k++) {
        int64_t i = molt_json_intval(molt_json_at(list, k), -1);
        if (!s->pins || i < 0 || (size_t)i >= s->pins->n)
            r = molt_error_set(err, MOLT_E_PROTOCOL, "no such pin");
        else if ((r = molt_pin_hash(&s->pins->v[i], err)) == 0)
            some.v[some.n++] = s->pins->v[i]; /* a look at it, not one more owner */
    }
    if (r == 0)
        molt_json_set(reply, "pins", molt_pins_json(&some));
    free(some.v);
    return r;
}

/* {"index": i}: the content of the i-th pin as it is now. */
static int p_pin(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct peer_state *s = rq->ctx;
    int64_t i = molt_json_get_int(rq->args, "index", -1);
    (void)reply;
    if (!s->pins || i < 0 || (size_t)i >= s->pins->n)
        return molt_error_set(err, MOLT_E_PROTOCOL, "no such pin");
    CLEANUP_CLOSE int fd = open(s->pins->v[i].source, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return molt_error_errno(err, "open %s", s->pins->v[i].path);
    return molt_request_fd(rq, fd, err);
}

/* {"unit", "round": 0 the dump's, else those of that round of memory, which are forgotten here when they are sent; "follow": the dump goes on} */
static int p_images(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const char *unit;
    unsigned round = 0;
    (void)reply;
    int r = units_name(rq, &unit, err);
    if (r == 0)
        r = predump_number(rq->args, "round", &round, err);
    if (r < 0)
        return r;
    CLEANUP_FREE char *images = units_images(unit);
    if (round == 0)
        return images_send(rq, images, molt_json_get_bool(rq->args, "follow", false), err);
    CLEANUP_FREE char *dir = molt_predump_dir(images, round);
    r = images_send(rq, dir, false, err);
    if (r == 0)
        molt_predump_forget_pages(images, round);
    return r;
}

void peer_serve(struct molt_chan *chan, const struct session *session)
{
    static const struct molt_handler handlers[] = {{"merge", p_merge}, {"pins", p_pins}, {"pin-hashes", p_pin_hashes}, {"pin", p_pin}, {"touched", p_touched}, {"images", p_images}, {NULL, NULL}};
    struct peer_state s = {.session = session};
    CLEANUP_ERROR struct molt_error *err = NULL;
    while (molt_serve_one(chan, handlers, &s, -1, &err) == 0)
        molt_error_clear(&err);
    molt_info(session->log, "peer gone: %s", molt_error_text(err));
    for (size_t i = 0; i < s.n_trees; i++)
        molt_merge_server_free(s.trees[i].merge);
    molt_pins_free(s.pins);
}

void peer_stop(struct session *s)
{
    if (s->peer_server > 0) {
        kill(s->peer_server, SIGTERM);
        waitpid(s->peer_server, NULL, 0);
        agent_forget(s->peer_path);
    }
    free(s->peer_path);
    s->peer_path = NULL;
    s->peer_server = 0;
}

/* {"domid": N, "path": "data/xenmolt/p-...", "folders": [path], all that the other may merge from; without it file systems}: offers the ring and serves it in a child of its own. */
int h_peer_listen(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *path = molt_json_get_string(rq->args, "path");
    int64_t domid = molt_json_get_int(rq->args, "domid", -1);
    (void)reply;
    if (!path || strncmp(path, "data/xenmolt/", 13) != 0 || strstr(path, "..") || domid <= 0 || domid > 0x7fef)
        return molt_error_set(err, MOLT_E_PROTOCOL, "peer-listen: bad arguments");
    peer_stop(s);
    molt_json_free(s->folders);
    s->folders = molt_json_get(rq->args, "folders") ? molt_json_copy(molt_json_get(rq->args, "folders")) : NULL; /* a copy of nothing is a null */
    pid_t pid = fork();
    if (pid < 0)
        return molt_error_errno(err, "fork");
    if (pid == 0) {
        CLEANUP_ERROR struct molt_error *e = NULL;
        struct molt_chan *chan;
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (molt_vchan_listen((uint32_t)domid, path, MOLT_PEER_RING, &chan, &e) < 0 || molt_vchan_accept(chan, ACCEPT_MS, &e) < 0) {
            molt_err(s->log, "%s", molt_error_text(e));
            _exit(1);
        }
        peer_serve(chan, s);
        molt_chan_close(chan);
        _exit(0);
    }
    s->peer_server = pid;
    s->peer_path = molt_xstrdup(path);
    return 0;
}
