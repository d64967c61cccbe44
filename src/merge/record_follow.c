/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File systems that are mounted while the recorder runs. A file system can be marked only when it is mounted, and somebody may have
 * written to it by then: a child looks for what changed since the recorder began, by times of change (of a directory that changed
 * all that lies below it is told, for something may be gone). It takes its time beside everything else; a sync waits for it.
 * Their file systems stay marked, and in use by the recorder, when they are unmounted.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "merge/record_internal.h"

#define WALKS_MS   30000    /* so long a sync waits for walks */
#define STEP_MS    50
#define DRAIN_STEP 4096

/* ---- the child ---- */

struct walker {
    const struct rec_root *root;
    int64_t since_ns;
    struct molt_strbuf path, out;
    int fd;
};

static bool flush(struct walker *w)
{
    bool ok = molt_write_all(w->fd, w->out.s, w->out.len) == 0;
    w->out.len = 0;
    return ok;
}

static bool tell(struct walker *w, bool subtree)
{
    const char flags = subtree ? MOLT_DIRTY_SUBTREE : 0;
    molt_strbuf_add(&w->out, &flags, 1);
    molt_strbuf_add(&w->out, molt_strbuf_str(&w->path), w->path.len + 1);
    return w->out.len < 60000 || flush(w);
}

static bool changed(const struct walker *w, const struct stat *st)
{
    return st->st_ctim.tv_sec * INT64_C(1000000000) + st->st_ctim.tv_nsec >= w->since_ns;
}

/* What vanishes meanwhile is told by events. */
static bool walk(struct walker *w, int dirfd)
{
    CLEANUP_CLOSEDIR DIR *d = fdopendir(dirfd);
    const struct dirent *e;
    const size_t len = w->path.len;
    bool ok = d != NULL;
    while (ok && (errno = 0, e = readdir(d))) {
        struct stat st;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        molt_strbuf_addf(&w->path, "%s%s", len ? "/" : "", e->d_name);
        if (w->path.len >= MOLT_PATH_LIMIT)
            ok = false;
        else if (!molt_path_excluded(molt_strbuf_str(&w->path), w->root->exclude)) {
            int r = fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW);
            ok = r == 0 || errno == ENOENT;
            if (r == 0 && changed(w, &st))
                ok = tell(w, S_ISDIR(st.st_mode));
            else if (r == 0 && S_ISDIR(st.st_mode)) {
                int sub = openat(dirfd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                ok = sub >= 0 ? walk(w, sub) : errno == ENOENT || errno == ENOTDIR;
            }
        }
        w->path.len = len;
        if (w->path.s)
            w->path.s[len] = '\0';
    }
    return ok && errno == 0; /* then readdir has ended the loop */
}

__attribute__((noreturn)) static void walk_child(const struct recorder *c, const struct rec_root *root, int fd)
{
    struct walker w = {.root = root, .since_ns = c->since_ns - MOLT_RACY_NS, .fd = fd};
    struct stat st;
    int top = openat(root->treefd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = top >= 0 && fstat(top, &st) == 0;
    if (ok && changed(&w, &st))
        ok = tell(&w, true); /* everything */
    else if (ok)
        ok = walk(&w, top);
    _exit(ok && flush(&w) ? 0 : 1);
}

/* ---- the recorder ---- */

static void tell_root(struct recorder *c, unsigned root, bool lost)
{
    const char *dir = *c->roots[root].path ? c->roots[root].path : "/";
    rec_put(c, REC_ROOT, root, lost, dir, strlen(dir) + 1);
}

static bool start_walk(struct recorder *c, unsigned root)
{
    int fd[2];
    struct rec_walk *w = c->walk;
    while (w < c->walk + REC_WALKS && w->pid)
        w++;
    if (w == c->walk + REC_WALKS || pipe2(fd, O_CLOEXEC) < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        close(fd[0]);
        walk_child(c, &c->roots[root], fd[1]);
    }
    close(fd[1]);
    if (pid < 0)
        close(fd[0]);
    else
        *w = (struct rec_walk){.pid = pid, .fd = fd[0], .root = root, .got = MOLT_STRBUF_INIT};
    return pid > 0;
}

/* Whole records; what is left over waits for its rest. */
static void take_found(struct recorder *c, struct rec_walk *w)
{
    size_t off = 0;
    for (;;) {
        const char *end = off + 1 < w->got.len ? memchr(w->got.s + off + 1, '\0', w->got.len - off - 1) : NULL;
        if (!end)
            break;
        rec_add(c, w->root, w->got.s + off + 1, (unsigned char)w->got.s[off]);
        off = (size_t)(end - w->got.s) + 1;
    }
    if (off) {
        memmove(w->got.s, w->got.s + off, w->got.len - off);
        w->got.len -= off;
    }
}

void rec_walk_read(struct recorder *c, struct rec_walk *w)
{
    char buf[65536];
    int status = -1;
    ssize_t n = read(w->fd, buf, sizeof(buf));
    if (n < 0 && errno == EINTR)
        return;
    if (n > 0) {
        molt_strbuf_add(&w->got, buf, (size_t)n);
        take_found(c, w);
        return;
    }
    while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (n < 0 || status != 0 || w->got.len)
        tell_root(c, w->root, true);
    close(w->fd);
    molt_strbuf_free(&w->got);
    *w = (struct rec_walk){.fd = -1};
}

/* A large file system may take longer than who asks can wait: it is scanned then. The queue must not overflow meanwhile. */
void rec_walks_finish(struct recorder *c)
{
    const int64_t end = molt_mono_ms() + WALKS_MS;
    for (size_t i = 0; i < REC_WALKS; i++) {
        struct rec_walk *w = &c->walk[i];
        while (w->pid) {
            struct pollfd p = {w->fd, POLLIN, 0};
            const int64_t left = end - molt_mono_ms();
            if (left <= 0)
                kill(w->pid, SIGKILL); /* its end is read below, as that of one that failed */
            if (poll(&p, 1, left <= 0 ? -1 : left < STEP_MS ? (int)left : STEP_MS) > 0)
                rec_walk_read(c, w);
            rec_drain(c, DRAIN_STEP);
        }
    }
}

static bool is_known(const struct recorder *c, dev_t dev)
{
    for (size_t i = 0; i < c->n_roots; i++)
        if (c->roots[i].dev == dev)
            return true;
    return false;
}

static void take_up(struct recorder *c, const char *dir)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct stat st;
    struct rec_root r;
    if (stat(dir, &st) < 0 || is_known(c, st.st_dev))
        return;
    const struct molt_record_root from = {dir, c->o->follow->exclude(dir + 1)};
    if (rec_open_root(&r, &from, &err) < 0 || is_known(c, r.dev)) {
        dev_t was = st.st_dev;
        rec_close_root(&r);
        free((void *)from.exclude);
        if (stat(dir, &st) == 0 && st.st_dev == was) /* not unmounted again */
            rec_lose(c, err ? molt_error_text(err) : "a file system that was mounted cannot be opened");
        return;
    }
    bool ok = rec_mark_root(c->fan, &r, &err) == 0;
    unsigned root = (unsigned)c->n_roots;
    MOLT_GROW(c->roots, c->n_roots, c->cap_roots);
    c->roots[c->n_roots++] = r;
    tell_root(c, root, false);
    ok = ok && start_walk(c, root);
    if (!ok) {
        molt_warn(c->o->log, "record: %s is not recorded: %s", dir, err ? molt_error_text(err) : strerror(errno));
        tell_root(c, root, true);
    }
}

void rec_follow(struct recorder *c)
{
    if (c->mounts < 0)
        return;
    char **v = c->o->follow->list();
    if (!v)
        rec_lose(c, "mounted file systems cannot be listed");
    for (size_t i = 0; v && v[i]; i++) {
        take_up(c, v[i]);
        free(v[i]);
    }
    free(v);
}

void rec_follow_begin(struct recorder *c)
{
    for (size_t i = 0; i < REC_WALKS; i++)
        c->walk[i].fd = -1;
    if (!c->o->follow)
        return;
    c->mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    if (c->mounts < 0) {
        rec_lose(c, "mountinfo cannot be opened");
        return;
    }
    for (unsigned i = 0; i < c->n_roots; i++)
        tell_root(c, i, false);
    rec_follow(c);
}
