/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The recorder's process. It reads lazily, so that the kernel folds the many events of a busy file into one, and the
 * sooner the more there is, because the queue is bounded and old kernels search all of it for every event.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "merge/apply.h"
#include "merge/manifest.h"
#include "merge/record_internal.h"

#define LAZY_MS   100
#define STEP_MS   10
#define MANY      1024  /* queued events that end the wait; a queue holds 16384 */
#define OUT_MAX   65536 /* bytes kept back from the journal */

bool rec_set_add(struct rec_set *s, uint64_t lo, uint64_t hi)
{
    if (!lo && !hi)
        lo = 1; /* 0, 0 is a free place */
    if (s->n * 2 >= s->cap) {
        struct rec_set old = *s;
        s->cap = old.cap ? old.cap * 2 : 1024;
        s->v = molt_xcalloc(s->cap, sizeof(*s->v));
        s->n = 0;
        for (size_t i = 0; i < old.cap; i++)
            if (old.v[i][0] || old.v[i][1])
                rec_set_add(s, old.v[i][0], old.v[i][1]);
        free(old.v);
    }
    size_t i = lo & (s->cap - 1);
    while (s->v[i][0] || s->v[i][1]) {
        if (s->v[i][0] == lo && s->v[i][1] == hi)
            return false;
        i = (i + 1) & (s->cap - 1);
    }
    s->v[i][0] = lo;
    s->v[i][1] = hi;
    s->n++;
    return true;
}

void rec_set_clear(struct rec_set *s)
{
    free(s->v);
    *s = (struct rec_set){0};
}

static void broken(struct recorder *c, const char *what)
{
    if (!c->broken[0])
        snprintf(c->broken, sizeof(c->broken), "%s: %s", what, strerror(errno));
}

static void flush_out(struct recorder *c)
{
    if (!c->broken[0] && c->out.len && molt_write_all(c->journal, c->out.s, c->out.len) < 0)
        broken(c, "the journal of changes");
    c->end += c->out.len;
    c->out.len = 0;
}

void rec_put(struct recorder *c, unsigned kind, unsigned root, uint64_t x, const void *p, size_t len)
{
    molt_put_num(&c->out, kind);
    molt_put_num(&c->out, root);
    molt_put_num(&c->out, x);
    molt_put_bytes(&c->out, p, len);
    if (c->out.len >= OUT_MAX)
        flush_out(c);
}

void rec_lose(struct recorder *c, const char *why)
{
    if (c->lost)
        return;
    c->lost = true;
    molt_warn(c->o->log, "record: %s", why);
    rec_put(c, REC_LOST, 0, 0, why, strlen(why) + 1);
}

static uint64_t max_journal(const struct recorder *c)
{
    return c->o->max_journal ? c->o->max_journal : MOLT_RECORD_MAX_JOURNAL;
}

/* False: in the journal since the last sync, or no more is taken. */
static bool is_new(struct recorder *c, unsigned salt, const void *p, size_t len)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(p, len, c->seed + salt);
    if (c->lost || !rec_set_add(&c->dirty, h.low64, h.high64))
        return false;
    if (c->dirty.n > (c->o->max_paths ? c->o->max_paths : MOLT_RECORD_MAX_PATHS))
        rec_lose(c, "too many files changed");
    else if (c->end - c->base + c->out.len + len > max_journal(c))
        rec_lose(c, "the journal of changes became too long");
    return !c->lost;
}

void rec_add(struct recorder *c, unsigned root, const char *path, unsigned flags)
{
    size_t len = strlen(path) + 1;
    if (len > MOLT_PATH_LIMIT)
        rec_lose(c, "a path is too long");
    else if (!molt_path_excluded(path, c->roots[root].exclude) && is_new(c, root * 256 + flags, path, len))
        rec_put(c, REC_PATH, root, flags, path, len);
}

void rec_add_inode(struct recorder *c, unsigned root, int type, const void *handle, unsigned len)
{
    if (len > MOLT_RECORD_HANDLE_MAX)
        rec_lose(c, "a file handle is too long");
    else if (is_new(c, root * 256 + 255, handle, len))
        rec_put(c, REC_INODE, root, (uint64_t)type, handle, len);
}

bool rec_add_absolute(struct recorder *c, const char *path, unsigned flags, ino_t ino)
{
    for (size_t i = 0; i < c->n_roots; i++) {
        size_t n = strlen(c->roots[i].path);
        struct stat st;
        if (strncmp(path, c->roots[i].path, n) != 0 || path[n] != '/')
            continue;
        const char *rel = path + n + 1;
        if (fstatat(c->roots[i].fsfd, *rel ? rel : ".", &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            st.st_dev != c->roots[i].dev || (ino && st.st_ino != ino))
            continue;
        rec_add(c, (unsigned)i, rel, flags);
        return true;
    }
    return false;
}

/* What is told now counts as unknown from here on: if it changes again it is told again. */
static void next_interval(struct recorder *c)
{
    rec_set_clear(&c->dirty);
    rec_set_clear(&c->seen);
    c->lost = false;
    c->answered = c->end;
}

/* A long journal loses what the answer before this one told: who asked then has read it. */
static void cut_journal(struct recorder *c)
{
    if (c->end - c->base < max_journal(c) / 2 || c->answered == c->base)
        return;
    if (fallocate(c->journal, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)c->base,
                  (off_t)(c->answered - c->base)) == 0)
        c->base = c->answered;
}

static size_t queued(struct recorder *c)
{
    int n = 0;
    if (ioctl(c->fan, FIONREAD, &n) < 0)
        broken(c, "FIONREAD");
    return (size_t)n / FAN_EVENT_METADATA_LEN; /* so it counts, whatever follows the heads */
}

static bool answer(struct recorder *c)
{
    cut_journal(c);
    c->may_hush = false;
    rec_follow(c);
    rec_walks_finish(c);
    /* What comes later belongs to the next sync, or a busy guest would keep us. */
    rec_drain(c, queued(c));
    /* Whatever was written unheard until now is in this answer by its path. */
    if (!rec_unhush(c))
        broken(c, "FAN_MARK_FLUSH");
    c->may_hush = true;
    rec_add_unseen(c);
    flush_out(c);
    struct rec_answer a = {.base = c->base, .end = c->end};
    memcpy(a.broken, c->broken, sizeof(a.broken));
    next_interval(c);
    return send(c->ctl, &a, sizeof(a), MSG_NOSIGNAL) == (ssize_t)sizeof(a);
}

static int control_fd(const struct recorder *c)
{
    return c->ctl >= 0 ? c->ctl : c->listener;
}

/* A question, a new asker, or the end of one. False: there is nobody left to record for. */
static bool control(struct recorder *c)
{
    char request;
    if (c->ctl < 0) {
        c->ctl = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
        return true;
    }
    ssize_t n = recv(c->ctl, &request, 1, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n == 1 && request == REC_ASK && answer(c))
        return true;
    close(c->ctl);
    c->ctl = -1;
    return c->listener >= 0 && !(n == 1 && request == REC_QUIT);
}

/* Waits for a while, unless the queue fills. False: there is a question. */
static bool be_lazy(struct recorder *c)
{
    struct pollfd p = {control_fd(c), POLLIN, 0};
    for (int ms = 0; ms < LAZY_MS && queued(c) < MANY; ms += STEP_MS)
        if (poll(&p, 1, STEP_MS) != 0)
            return false;
    return true;
}

/* What can be waited for: control, events, mounts, walks. */
static nfds_t poll_list(const struct recorder *c, struct pollfd *p)
{
    nfds_t n = 0;
    p[n++] = (struct pollfd){control_fd(c), POLLIN, 0};
    p[n++] = (struct pollfd){c->fan, POLLIN, 0};
    p[n++] = (struct pollfd){c->mounts, POLLPRI, 0}; /* -1: never ready */
    for (size_t i = 0; i < REC_WALKS; i++)
        p[n++] = (struct pollfd){c->walk[i].pid ? c->walk[i].fd : -1, POLLIN, 0};
    return n;
}

void rec_run(struct recorder *c)
{
    c->may_hush = true;
    rec_follow_begin(c);
    for (;;) {
        struct pollfd p[3 + REC_WALKS];
        nfds_t n = poll_list(c, p);
        if (poll(p, n, -1) < 0 && errno != EINTR)
            return;
        if (p[2].revents)
            rec_follow(c);
        for (nfds_t i = 3; i < n; i++)
            if (p[i].revents)
                rec_walk_read(c, &c->walk[i - 3]);
        if (p[0].revents && !control(c))
            return;
        if (p[0].revents || !p[1].revents || !be_lazy(c))
            continue;
        rec_drain(c, queued(c)); /* not to the end, which a busy guest may never let us see */
        flush_out(c);
    }
}
