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
#include <sys/un.h>
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
    bool attached; /* to one that was spawned */
    pid_t pid, owner;
    int64_t begun_ns;
    char *dir, *file, *socket;
    struct rec_root *roots;
    size_t n_roots;
};

void rec_close_root(struct rec_root *r)
{
    free(r->path);
    free(r->at);
    if (r->treefd >= 0)
        close(r->treefd);
    if (r->fsfd >= 0)
        close(r->fsfd);
    *r = (struct rec_root){.treefd = -1, .fsfd = -1};
}

static void free_roots(struct rec_root *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        rec_close_root(&v[i]);
    free(v);
}

static void cut_slash(char *s)
{
    size_t n = strlen(s);
    if (n && s[n - 1] == '/')
        s[n - 1] = '\0';
}

int rec_open_root(struct rec_root *r, const struct molt_record_root *from, struct molt_error **err)
{
    const char *path = from->dir;
    struct stat st;
    struct statfs fs;
    char link[64], at[4096];
    *r = (struct rec_root){.treefd = -1, .fsfd = -1, .exclude = from->exclude};
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

int rec_mark_root(int fan, const struct rec_root *r, struct molt_error **err)
{
    if (fanotify_mark(fan, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, EVENTS, r->fsfd, ".") < 0)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "fanotify_mark %s/: %s", r->path, strerror(errno));
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

/* One of ctl and listener is -1. */
static void child(struct molt_recorder *r, const struct molt_recorder_opts *o, int fan, int ctl, int listener)
{
    struct recorder c = {.o = o, .roots = r->roots, .n_roots = r->n_roots, .cap_roots = r->n_roots, .fan = fan, .ctl = ctl, .listener = listener, .journal = r->journal, .mounts = -1, .since_ns = r->begun_ns};
    CLEANUP_FREE int *keep = molt_xmalloc((3 + 2 * r->n_roots) * sizeof(*keep));
    size_t n = 0;
    if (listener < 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        signal(SIGTERM, SIG_DFL);
        if (getppid() != r->owner)
            _exit(0);
    } else {
        signal(SIGPIPE, SIG_IGN);
        setsid();
        if (o->title)
            o->title[0] = '@';
    }
    keep[n++] = fan;
    keep[n++] = ctl >= 0 ? ctl : listener;
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

static int open_roots(struct molt_recorder *r, const struct molt_recorder_opts *o, struct molt_error **err)
{
    r->roots = molt_xcalloc(o->n_roots, sizeof(*r->roots));
    for (size_t i = 0; i < o->n_roots; i++) {
        r->n_roots = i + 1;
        int rc = rec_open_root(&r->roots[i], &o->roots[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Everything from here on is in the queue of *ret_fan. */
static int arm(struct molt_recorder *r, const struct molt_recorder_opts *o, int *ret_fan, struct molt_error **err)
{
    r->begun_ns = molt_now_us() * 1000;
    int rc = open_roots(r, o, err);
    if (rc < 0)
        return rc;
    CLEANUP_CLOSE int fan = open_fanotify(err);
    rc = fan < 0 ? fan : open_journal(r, o, err);
    for (size_t i = 0; rc == 0 && i < r->n_roots; i++)
        rc = rec_mark_root(fan, &r->roots[i], err);
    if (rc == 0)
        *ret_fan = MOLT_STEAL_FD(fan);
    return rc;
}

static int start(struct molt_recorder *r, const struct molt_recorder_opts *o, struct molt_error **err)
{
    int pair[2];
    CLEANUP_CLOSE int fan = -1;
    int rc = arm(r, o, &fan, err);
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
        child(r, o, fan, theirs, -1);
        _exit(0);
    }
    r->pid = pid;
    return 0;
}

static struct molt_recorder *new_recorder(void)
{
    struct molt_recorder *r = molt_xcalloc(1, sizeof(*r));
    r->ctl = r->journal = -1;
    r->owner = getpid();
    return r;
}

int molt_recorder_start(const struct molt_recorder_opts *o, struct molt_recorder **ret, struct molt_error **err)
{
    struct molt_recorder *r = new_recorder();
    int rc = start(r, o, err);
    if (rc < 0) {
        molt_recorder_stop(r);
        return molt_error_prefix(err, "record");
    }
    *ret = r;
    return 0;
}

static int socket_at(const char *path, struct sockaddr_un *ret, struct molt_error **err)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(ret->sun_path))
        return molt_error_set(err, MOLT_E_USAGE, "%s: too long for a socket", path);
    strcpy(ret->sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    return fd >= 0 ? fd : molt_error_errno(err, "socket");
}

static int spawn(struct molt_recorder *r, const struct molt_recorder_opts *o, struct molt_error **err)
{
    CLEANUP_CLOSE int fan = -1;
    struct sockaddr_un to;
    int rc = arm(r, o, &fan, err);
    if (rc < 0)
        return rc;
    CLEANUP_CLOSE int listener = socket_at(o->socket, &to, err);
    if (listener < 0)
        return listener;
    unlink(o->socket);
    if (bind(listener, (struct sockaddr *)&to, sizeof(to)) < 0 || chmod(o->socket, 0600) < 0 || listen(listener, 4) < 0)
        return molt_error_errno(err, "listen at %s", o->socket);
    pid_t pid = fork();
    if (pid < 0)
        return molt_error_errno(err, "fork");
    if (pid == 0) {
        child(r, o, fan, -1, listener);
        _exit(0);
    }
    return 0;
}

static void free_recorder(struct molt_recorder *r)
{
    if (r->ctl >= 0)
        close(r->ctl);
    if (r->journal >= 0)
        close(r->journal);
    free_roots(r->roots, r->n_roots);
    free(r->dir);
    free(r->file);
    free(r->socket);
    free(r);
}

int molt_recorder_spawn(const struct molt_recorder_opts *o, struct molt_error **err)
{
    struct molt_recorder *r = new_recorder();
    int rc = spawn(r, o, err);
    free_recorder(r);
    return rc < 0 ? molt_error_prefix(err, "record") : 0;
}

static int attach(struct molt_recorder *r, const struct molt_recorder_opts *o, struct molt_error **err)
{
    struct sockaddr_un to;
    r->attached = true;
    int rc = open_roots(r, o, err);
    if (rc < 0)
        return rc;
    r->ctl = socket_at(o->socket, &to, err);
    if (r->ctl < 0)
        return r->ctl;
    if (connect(r->ctl, (struct sockaddr *)&to, sizeof(to)) < 0)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "no recorder listens at %s: %s", o->socket, strerror(errno));
    r->socket = molt_xstrdup(o->socket);
    r->dir = molt_xstrdup(o->journal_dir);
    r->file = molt_xasprintf("%s/journal", o->journal_dir);
    r->journal = open(r->file, O_RDONLY | O_CLOEXEC);
    return r->journal < 0 ? molt_error_errno(err, "open %s", r->file) : 0;
}

int molt_recorder_attach(const struct molt_recorder_opts *o, struct molt_recorder **ret, struct molt_error **err)
{
    struct molt_recorder *r = new_recorder();
    int rc = attach(r, o, err);
    if (rc < 0) {
        free_recorder(r);
        return molt_error_prefix(err, "record");
    }
    *ret = r;
    return 0;
}

void molt_recorder_detach(struct molt_recorder *r)
{
    if (r)
        free_recorder(r);
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
    const char quit = REC_QUIT;
    if (r->attached && r->ctl >= 0) {
        /* Nobody waits for it: its end is the end of the connection. */
        unlink(r->socket);
        if (send(r->ctl, &quit, 1, MSG_NOSIGNAL) == 1)
            recv(r->ctl, &(char){0}, 1, 0);
    } else if (r->ctl >= 0 && owner) {
        shutdown(r->ctl, SHUT_RDWR); /* copies in other processes notwithstanding */
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
    free_recorder(r);
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
    free(s->roots);
    free(s->inodes);
    free(s->lost);
    free(s->buf);
    free(s);
}

size_t molt_dirty_looks(const struct molt_dirty_set *s, unsigned root, struct molt_look *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i].root == root)
            ret[n++] = (struct molt_look){s->v[i].path, s->v[i].flags & MOLT_DIRTY_SUBTREE};
    return n;
}

int molt_dirty_root_of(const struct molt_dirty_set *s, const char *dir, unsigned *ret)
{
    int found = 0;
    *ret = 0;
    if (strcmp(dir, "/") == 0)
        return 1;
    if (s->n_roots == 0)
        return -1; /* nothing was followed */
    for (size_t i = 0; i < s->n_roots; i++)
        if (strcmp(s->roots[i].dir, dir) == 0) {
            if (found && *ret != s->roots[i].root)
                return -1; /* one after the other */
            *ret = s->roots[i].root;
            found = s->roots[i].lost ? -1 : 1;
        }
    return found;
}

static void lost(struct molt_dirty_set *s, const char *why)
{
    if (!s->lost)
        s->lost = molt_xstrdup(why);
}

static bool ask(struct molt_recorder *r, struct rec_answer *a)
{
    ssize_t n;
    const char request = REC_ASK;
    if (send(r->ctl, &request, 1, MSG_NOSIGNAL) != 1)
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
    } else if (kind == REC_ROOT) {
        MOLT_GROW(s->roots, s->n_roots, s->cap_roots);
        s->roots[s->n_roots++] = (struct molt_dirty_root){(unsigned)root, x != 0, (const char *)p};
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

/* The bytes of a journal, which the set keeps. */
static void parse_all(struct molt_dirty_set *s, char *buf, size_t len)
{
    struct molt_mem m = {(unsigned char *)buf, len, 0};
    s->buf = buf;
    while (!s->lost && m.off < m.len)
        if (!parse(s, &m))
            lost(s, "the journal of changes is damaged");
    sort_paths(s);
}

/* What the recorder says of itself. False: told why. */
static bool usable(struct molt_dirty_set *s, struct rec_answer *a, uint64_t from)
{
    a->broken[sizeof(a->broken) - 1] = '\0';
    if (a->broken[0])
        lost(s, a->broken);
    else if (from < a->base)
        lost(s, "the journal of changes became too long");
    else if (from > a->end || a->end - from > SIZE_MAX / 2)
        lost(s, "the journal of changes is not the one that was read before");
    return !s->lost;
}

/* NULL: told why. */
static char *read_journal(struct molt_recorder *r, struct molt_dirty_set *s, uint64_t *position, size_t *ret_len)
{
    struct rec_answer a;
    uint64_t from = *position;
    if (!ask(r, &a)) {
        lost(s, "the recorder is gone");
        return NULL;
    }
    *position = a.end;
    if (!usable(s, &a, from))
        return NULL;
    *ret_len = (size_t)(a.end - from);
    CLEANUP_FREE char *buf = molt_xmalloc(*ret_len + 1);
    if (!read_range(r->journal, from, *ret_len, buf)) {
        lost(s, "the journal of changes cannot be read");
        return NULL;
    }
    return MOLT_STEAL_PTR(buf);
}

struct molt_dirty_set *molt_recorder_sync(struct molt_recorder *r, uint64_t *position)
{
    struct molt_dirty_set *s = molt_xcalloc(1, sizeof(*s));
    size_t len;
    char *buf = read_journal(r, s, position, &len);
    if (buf)
        parse_all(s, buf, len);
    return s;
}

int molt_recorder_save(struct molt_recorder *r, const char *path, struct molt_error **err)
{
    CLEANUP_DIRTY_SET struct molt_dirty_set *s = molt_xcalloc(1, sizeof(*s));
    uint64_t position = 0;
    size_t len;
    s->buf = read_journal(r, s, &position, &len);
    if (!s->buf)
        return molt_error_set(err, MOLT_E_STATE, "record: %s", s->lost);
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    const struct molt_sink sink = molt_sink_fd(&fd);
    int rc = molt_block_write(&sink, s->buf, len, err);
    if (rc == 0 && fsync(fd) < 0)
        rc = molt_error_errno(err, "write %s", path);
    return rc;
}

struct molt_dirty_set *molt_dirty_set_load(const char *path)
{
    struct molt_dirty_set *s = molt_xcalloc(1, sizeof(*s));
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    const struct molt_source src = molt_source_fd(&fd);
    char *buf;
    size_t len;
    if (fd < 0)
        lost(s, "the last boot left no journal of changes");
    else if (molt_block_read(&src, MOLT_RECORD_MAX_JOURNAL, &buf, &len, &err) < 0)
        lost(s, "the last boot's journal of changes is damaged");
    else
        parse_all(s, buf, len);
    return s;
}
