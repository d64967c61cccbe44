/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The side that starts the recorder and asks it. */
#include "merge/record.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/manifest.h"
#include "merge/record_internal.h"

#ifndef FAN_REPORT_TARGET_FID
#define FAN_REPORT_TARGET_FID 0x1000
#endif

/* CLOSE_WRITE also comes when the last writable mapping of a file goes. ATTRIB comes without a name when a link count
 * changes. FAN_RENAME (Linux 5.17) would tell nothing that MOVED_FROM and MOVED_TO do not. */
#define EVENTS                                                                                               \
    (FAN_CREATE | FAN_DELETE | FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB | FAN_MOVED_FROM | FAN_MOVED_TO |   \
     FAN_ONDIR)

struct molt_recorder {
    int ctl, journal;
    pid_t pid, owner;
    char *dir, *file;
    struct rec_root *roots;
    size_t n_roots;
};

static void free_roots(struct rec_root *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(v[i].path);
        free(v[i].at);
        if (v[i].treefd >= 0)
            close(v[i].treefd);
        if (v[i].fsfd >= 0)
            close(v[i].fsfd);
    }
    free(v);
}

static void cut_slash(char *s)
{
    size_t n = strlen(s);
    if (n && s[n - 1] == '/')
        s[n - 1] = '\0';
}

static int open_root(struct rec_root *r, const char *path, struct molt_error **err)
{
    struct stat st;
    struct statfs fs;
    char link[64], at[4096];
    r->treefd = r->fsfd = -1;
    r->path = realpath(path, NULL);
    if (!r->path)
        return molt_error_errno(err, "%s", path);
    cut_slash(r->path);
    int rc = molt_tree_open(path, &r->treefd, err);
    if (rc < 0)
        return rc;
    r->fsfd = openat(r->treefd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->fsfd < 0 || fstat(r->fsfd, &st) < 0 || fstatfs(r->fsfd, &fs) < 0)
        return molt_error_errno(err, "open %s", path);
    memcpy(&r->fsid, &fs.f_fsid, sizeof(r->fsid));
    r->dev = st.st_dev;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", r->fsfd);
    ssize_t n = readlink(link, at, sizeof(at) - 1);
    if (n < 0)
        return molt_error_errno(err, "%s", link);
    at[n] = '\0';
    r->at = molt_xstrdup(at);
    cut_slash(r->at);
    return 0;
}

static int open_fanotify(struct molt_error **err)
{
    const unsigned base = FAN_CLASS_NOTIF | FAN_REPORT_DFID_NAME | FAN_REPORT_FID | FAN_CLOEXEC | FAN_NONBLOCK;
    /* With the target's handle in them, a file's creation and its first writes are one event. */
    int fd = fanotify_init(base | FAN_REPORT_TARGET_FID, O_RDONLY);
    if (fd < 0 && errno == EINVAL)
        fd = fanotify_init(base, O_RDONLY);
    return fd >= 0 ? fd : molt_error_set(err, MOLT_E_UNSUPPORTED, "fanotify_init: %s", strerror(errno));
}

static int mark_roots(int fan, const struct rec_root *v, size_t n, struct molt_error **err)
{
    for (size_t i = 0; i < n; i++)
        if (fanotify_mark(fan, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, EVENTS, v[i].fsfd, ".") < 0)
            return molt_error_set(err, MOLT_E_UNSUPPORTED, "fanotify_mark %s/: %s", v[i].path, strerror(errno));
    return 0;
}

static int open_journal(struct molt_recorder *r, const struct molt_recorder_opts *o, struct molt_error **err)
{
    int rc = molt_mkdir_p(o->journal_dir, 0700, err);
    if (rc < 0)
        return rc;
    r->dir = molt_xstrdup(o->journal_dir);
    r->file = molt_xasprintf("%s/journal", o->journal_dir);
    if (unlink(r->file) < 0 && errno != ENOENT)
        return molt_error_errno(err, "remove %s", r->file);
    r->journal = open(r->file, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (r->journal < 0)
        return molt_error_errno(err, "open %s", r->file);
    return 0;
}

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* The child must not hold open what its parent closes for others to see. */
static void close_others(int *keep, size_t n)
{
    unsigned from = 3;
    qsort(keep, n, sizeof(*keep), by_number);
    for (size_t i = 0; i <= n; i++) {
        unsigned to = i < n ? (unsigned)keep[i] : ~0u;
        if (i == n)
            syscall(SYS_close_range, from, to, 0);
        else if (to > from)
            syscall(SYS_close_range, from, to - 1, 0);
        from = to + 1;
    }
}

static void child(struct molt_recorder *r, const struct molt_recorder_opts *o, int fan, int ctl)
{
    struct recorder c = {.o = o, .roots = r->roots, .n_roots = r->n_roots, .fan = fan, .ctl = ctl, .journal = r->journal};
    CLEANUP_FREE int *keep = molt_xmalloc((3 + 2 * r->n_roots) * sizeof(*keep));
    size_t n = 0;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGTERM, SIG_DFL);
    if (getppid() != r->owner)
        _exit(0);
    keep[n++] = fan;
    keep[n++] = ctl;
    keep[n++] = r->journal;
    for (size_t i = 0; i < r->n_roots; i++) {
        keep[n++] = r->roots[i].treefd;
        keep[n++] = r->roots[i].fsfd;
    }
    close_others(keep, n);
    if (getrandom(&c.seed, sizeof(c.seed), 0) != (ssize_t)sizeof(c.seed))
        c.seed = (uint64_t)getpid();
    rec_run(&c);
}

static int start(struct molt_recorder *r, const struct molt_recorder_opts *o, struct molt_error **err)
{
    int pair[2];
    size_t n = 0;
    while (o->roots[n])
        n++;
    r->roots = molt_xcalloc(n, sizeof(*r->roots));
    for (size_t i = 0; i < n; i++) {
        r->n_roots = i + 1;
        int rc = open_root(&r->roots[i], o->roots[i], err);
        if (rc < 0)
            return rc;
    }
    CLEANUP_CLOSE int fan = open_fanotify(err);
    int rc = fan < 0 ? fan : open_journal(r, o, err);
    if (rc == 0)
        rc = mark_roots(fan, r->roots, n, err);
    if (rc < 0)
        return rc;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return molt_error_errno(err, "socketpair");
    r->ctl = pair[0];
    CLEANUP_CLOSE int theirs = pair[1];
    pid_t pid = fork();
    if (pid < 0)
        return molt_error_errno(err, "fork");
    if (pid == 0) {
        child(r, o, fan, theirs);
        _exit(0);
    }
    r->pid = pid;
    return 0;
}

int molt_recorder_start(const struct molt_recorder_opts *o, struct molt_recorder **ret, struct molt_error **err)
{
    struct molt_recorder *r = molt_xcalloc(1, sizeof(*r));
    r->ctl = r->journal = -1;
    r->owner = getpid();
    int rc = start(r, o, err);
    if (rc < 0) {
        molt_recorder_stop(r);
        return molt_error_prefix(err, "record");
    }
    *ret = r;
    return 0;
}

pid_t molt_recorder_pid(const struct molt_recorder *r)
{
    return r->pid;
}

void molt_recorder_stop(struct molt_recorder *r)
{
    if (!r)
        return;
    bool owner = r->owner == getpid();
    if (r->ctl >= 0) {
        if (owner)
            shutdown(r->ctl, SHUT_RDWR); /* copies in other processes notwithstanding */
        close(r->ctl);
    }
    if (owner && r->pid > 0) {
        kill(r->pid, SIGKILL); /* it has nothing to put in order */
        while (waitpid(r->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    if (owner && r->file) {
        unlink(r->file);
        rmdir(r->dir);
    }
    if (r->journal >= 0)
        close(r->journal);
    free_roots(r->roots, r->n_roots);
    free(r->dir);
    free(r->file);
    free(r);
}

int rec_open_handle(int fsfd, struct file_handle *h)
{
    int fd, tries = 0;
    /* "No memory" is also what an inode gives that is about to go. */
    while ((fd = open_by_handle_at(fsfd, h, O_PATH | O_CLOEXEC)) < 0 && errno == ENOMEM && ++tries < 50)
        molt_sleep_ms(1);
    return fd;
}

int molt_recorder_open_inode(const struct molt_recorder *r, const struct molt_dirty_inode *i)
{
    union rec_handle u;
    if (i->root >= r->n_roots || i->handle_len > MOLT_RECORD_HANDLE_MAX) {
        errno = EINVAL;
        return -1;
    }
    u.h.handle_bytes = i->handle_len;
    u.h.handle_type = i->handle_type;
    memcpy(u.h.f_handle, i->handle, i->handle_len);
    return rec_open_handle(r->roots[i->root].fsfd, &u.h);
}

/* --- the answer --- */

void molt_dirty_set_free(struct molt_dirty_set *s)
{
    if (!s)
        return;
    free(s->v);
    free(s->inodes);
    free(s->lost);
    free(s->buf);
    free(s);
}

static void lost(struct molt_dirty_set *s, const char *why)
{
    if (!s->lost)
        s->lost = molt_xstrdup(why);
}

static bool ask(struct molt_recorder *r, struct rec_answer *a)
{
    ssize_t n;
    if (send(r->ctl, "s", 1, MSG_NOSIGNAL) != 1)
        return false;
    do
        n = recv(r->ctl, a, sizeof(*a), 0);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(*a);
}

static bool read_range(int fd, uint64_t from, size_t len, char *buf)
{
    return molt_pread_all(fd, buf, len, from) == (ssize_t)len;
}

/* One record; strings stay in the buffer (a path's NUL is counted). */
static bool parse(struct molt_dirty_set *s, struct molt_mem *m)
{
    uint64_t kind, root, x;
    const unsigned char *p;
    size_t len;
    if (!molt_get_num(m, &kind) || !molt_get_num(m, &root) || !molt_get_num(m, &x) ||
        !molt_get_bytes(m, MOLT_PATH_LIMIT, &p, &len))
        return false;
    if (kind == REC_PATH) {
        MOLT_GROW(s->v, s->n, s->cap);
        s->v[s->n++] = (struct molt_dirty){(const char *)p, (unsigned)root, (unsigned)x};
    } else if (kind == REC_INODE) {
        MOLT_GROW(s->inodes, s->n_inodes, s->cap_inodes);
        s->inodes[s->n_inodes++] = (struct molt_dirty_inode){(unsigned)root, (int)x, (unsigned)len, p};
    } else {
        lost(s, (const char *)p);
    }
    return true;
}

static int by_path(const void *x, const void *y)
{
    const struct molt_dirty *a = x, *b = y;
    if (a->root != b->root)
        return a->root < b->root ? -1 : 1;
    return molt_path_cmp(a->path, b->path);
}

static void sort_paths(struct molt_dirty_set *s)
{
    size_t out = 0;
    if (s->n)
        qsort(s->v, s->n, sizeof(*s->v), by_path);
    for (size_t i = 0; i < s->n; i++) {
        struct molt_dirty *d = &s->v[i], *last = out ? &s->v[out - 1] : NULL;
        if (last && by_path(last, d) == 0)
            last->flags |= d->flags;
        else
            s->v[out++] = *d;
    }
    s->n = out;
}

struct molt_dirty_set *molt_recorder_sync(struct molt_recorder *r, uint64_t *position)
{
    struct molt_dirty_set *s = molt_xcalloc(1, sizeof(*s));
    struct rec_answer a;
    uint64_t from = *position;
    if (!ask(r, &a)) {
        lost(s, "the recorder is gone");
        return s;
    }
    *position = a.end;
    a.broken[sizeof(a.broken) - 1] = '\0';
    if (a.broken[0])
        lost(s, a.broken);
    else if (from < a.base)
        lost(s, "the journal of changes became too long");
    else if (from > a.end || a.end - from > SIZE_MAX / 2)
        lost(s, "the journal of changes is not the one that was read before");
    if (s->lost)
        return s;
    size_t len = (size_t)(a.end - from);
    s->buf = molt_xmalloc(len + 1);
    if (!read_range(r->journal, from, len, s->buf)) {
        lost(s, "the journal of changes cannot be read");
        return s;
    }
    struct molt_mem m = {(unsigned char *)s->buf, len, 0};
    while (!s->lost && m.off < m.len)
        if (!parse(s, &m))
            lost(s, "the journal of changes is damaged");
    sort_paths(s);
    return s;
}
