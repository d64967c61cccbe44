/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Scratch trees and a peer without a wire, for the merge's tests. */
#ifndef TEST_MERGE_UTIL_H
#define TEST_MERGE_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/merge.h"

#define UNUSED __attribute__((unused))
#define assert_ok(call)                                                                                      \
    do {                                                                                                     \
        struct molt_error *e_ = NULL;                                                                        \
        struct molt_error **err = &e_;                                                                       \
        int rc_ = (call);                                                                                    \
        if (rc_ < 0)                                                                                         \
            fail_msg("%s: %d %s", #call, rc_, molt_error_text(e_));                                          \
    } while (0)
#define assert_code(want, call)                                                                              \
    do {                                                                                                     \
        struct molt_error *e_ = NULL;                                                                        \
        struct molt_error **err = &e_;                                                                       \
        int rc_ = (call);                                                                                    \
        if (rc_ != (want) || molt_error_code(e_) != (want))                                                  \
            fail_msg("%s: %d %s", #call, rc_, molt_error_text(e_));                                          \
        molt_error_free(e_);                                                                                 \
    } while (0)

/* base, active (a) and upgrade (u) trees below one scratch directory. */
struct trees {
    char dir[128];
    int fd, b, a, u;
};

static inline int open_dir(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void trees_make_in(struct trees *t, const char *tmp)
{
    snprintf(t->dir, sizeof(t->dir), "%s/xenmolt-merge-XXXXXX", tmp);
    assert_non_null(mkdtemp(t->dir));
    t->fd = open_dir(AT_FDCWD, t->dir);
    assert_int_equal(mkdirat(t->fd, "b", 0755), 0);
    assert_int_equal(mkdirat(t->fd, "a", 0755), 0);
    assert_int_equal(mkdirat(t->fd, "u", 0755), 0);
    t->b = open_dir(t->fd, "b");
    t->a = open_dir(t->fd, "a");
    t->u = open_dir(t->fd, "u");
}

UNUSED static void trees_make(struct trees *t)
{
    const char *tmp = getenv("TMPDIR");
    trees_make_in(t, tmp ? tmp : "/tmp");
}

UNUSED static void trees_remove(struct trees *t)
{
    close(t->b);
    close(t->a);
    close(t->u);
    close(t->fd);
    assert_ok(molt_remove_tree(t->dir, err));
}

UNUSED static void set_time(int at, const char *path, int64_t s)
{
    const struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = s, .tv_nsec = 7}};
    assert_int_equal(utimensat(at, path, ts, AT_SYMLINK_NOFOLLOW), 0);
}

/* Replaces path by a new file with this content, mode 0644 and time. */
UNUSED static void put(int at, const char *path, const char *text, int64_t s)
{
    unlinkat(at, path, 0);
    int fd = openat(at, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0644), 0);
    assert_int_equal(molt_write_all(fd, text, strlen(text)), 0);
    close(fd);
    set_time(at, path, s);
}

UNUSED static void put3(struct trees *t, const char *path, const char *text)
{
    put(t->b, path, text, 1000);
    put(t->a, path, text, 1000);
    put(t->u, path, text, 1000);
}

UNUSED static void mkdir3(struct trees *t, const char *path)
{
    assert_int_equal(mkdirat(t->b, path, 0755), 0);
    assert_int_equal(mkdirat(t->a, path, 0755), 0);
    assert_int_equal(mkdirat(t->u, path, 0755), 0);
}

UNUSED static char *get(int at, const char *path)
{
    char *text = NULL;
    struct molt_error *e = NULL;
    if (molt_read_file_at(at, path, 1 << 20, &text, NULL, &e) < 0)
        molt_error_clear(&e);
    return text;
}

/* want NULL: not there. */
#define assert_file(at, path, want)                                                                          \
    do {                                                                                                     \
        CLEANUP_FREE char *got_ = get(at, path);                                                             \
        if (!molt_streq(got_, want))                                                                         \
            fail_msg("%s is '%s', not '%s'", path, got_ ? got_ : "(none)", (const char *)(want));            \
    } while (0)

struct peer {
    struct molt_merge_server *server;
    struct molt_strbuf reply;
    struct molt_mem mem;
    void (*before)(void *ctx, enum molt_merge_question q); /* the active acts in between */
    void *ctx;
};

UNUSED static int peer_call(void *ctx, enum molt_merge_question q, const void *req, size_t len,
                            struct molt_source *ret, struct molt_error **err)
{
    struct peer *p = ctx;
    if (p->before)
        p->before(p->ctx, q);
    p->reply.len = 0;
    struct molt_sink sink = molt_sink_strbuf(&p->reply);
    int rc = molt_merge_serve(p->server, q, req, len, &sink, err);
    p->mem = (struct molt_mem){(unsigned char *)p->reply.s, p->reply.len, 0};
    *ret = molt_source_mem(&p->mem);
    return rc;
}

struct session {
    struct trees *t;
    struct molt_policy *policy;
    struct molt_merge *m;
    struct peer peer;
    struct molt_merge_peer vt;
    struct molt_pass_stats stats;
};

static const char *const no_exclude[] = {"stash", NULL};

UNUSED static void session_start(struct session *s, struct trees *t, const char *policy,
                                 enum molt_on_conflict oc)
{
    memset(s, 0, sizeof(*s));
    s->t = t;
    if (policy)
        assert_ok(molt_policy_parse(policy, strlen(policy), "test", &s->policy, err));
    else
        assert_ok(molt_policy_default(&s->policy, err));
    struct molt_merge_opts o = {.rootfd = t->u,
                                .basefd = t->b,
                                .stash = "stash",
                                .policy = s->policy,
                                .on_conflict = oc,
                                .exclude = no_exclude};
    assert_ok(molt_merge_new(&o, &s->m, err));
    s->peer.server = molt_merge_server_new(t->a, no_exclude);
    s->vt = (struct molt_merge_peer){.call = peer_call, .ctx = &s->peer};
}

#define session_pass(s) assert_ok(molt_merge_pass((s)->m, &(s)->vt, MOLT_PASS_NO_SYNC, &(s)->stats, err))

UNUSED static void session_end(struct session *s)
{
    molt_merge_free(s->m);
    molt_merge_server_free(s->peer.server);
    molt_strbuf_free(&s->peer.reply);
    molt_policy_free(s->policy);
}

#endif
