/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From events to paths. An event names a directory by its handle, and a name in it; the path is the directory's path
 * at the moment of reading. That is enough: between the event and now only a rename or the end of a directory above can
 * have changed it, and the ends of a rename and a deleted directory's path are told as subtrees.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/cleanup.h"
#include "merge/manifest.h"
#include "merge/record_internal.h"

#define DIRS_MAX       32768u
#define DIRS_MAX_BYTES (8u << 20)
#define HUSHED_MAX     1024 /* each keeps an inode in memory */
#define SEEN_MAX       (256u << 10)
#define PATH_STEP      4000 /* longer ones are not given to one system call */

struct rec_dir {
    uint64_t lo, hi; /* hash of the handle */
    char *path;      /* NULL: free place */
};

/* What an event says. */
struct event {
    uint64_t mask;
    unsigned root;
    union rec_handle dir, target;
    bool has_dir, has_target;
    const char *name; /* NULL: the directory itself */
};

void rec_forget_dirs(struct recorder *c)
{
    for (size_t i = 0; i < c->cap_dirs; i++)
        free(c->dirs[i].path);
    free(c->dirs);
    c->dirs = NULL;
    c->n_dirs = c->cap_dirs = c->dir_bytes = 0;
}

static struct rec_dir *find_place(struct rec_dir *v, size_t cap, uint64_t lo, uint64_t hi)
{
    size_t i = lo & (cap - 1);
    while (v[i].path && (v[i].lo != lo || v[i].hi != hi))
        i = (i + 1) & (cap - 1);
    return &v[i];
}

/* Small again after each rename of a directory, which may come often. */
static struct rec_dir *dir_place(struct recorder *c, XXH128_hash_t h)
{
    if (c->n_dirs * 2 >= c->cap_dirs) {
        size_t cap = c->cap_dirs ? c->cap_dirs * 2 : 64;
        struct rec_dir *v = molt_xcalloc(cap, sizeof(*v));
        for (size_t i = 0; i < c->cap_dirs; i++)
            if (c->dirs[i].path)
                *find_place(v, cap, c->dirs[i].lo, c->dirs[i].hi) = c->dirs[i];
        free(c->dirs);
        c->dirs = v;
        c->cap_dirs = cap;
    }
    return find_place(c->dirs, c->cap_dirs, h.low64, h.high64);
}

static size_t handle_size(const union rec_handle *u)
{
    return sizeof(u->h) + u->h.handle_bytes;
}

static int open_handle(struct recorder *c, unsigned root, union rec_handle *u)
{
    int fd = rec_open_handle(c->roots[root].fsfd, &u->h);
    if (fd < 0 && errno != ESTALE && errno != ENOENT)
        rec_lose(c, "a file handle cannot be opened");
    return fd;
}

/* The path below the root of an open directory; NULL when it is gone or lies elsewhere. */
static char *path_of(struct recorder *c, unsigned root, int fd)
{
    const struct rec_root *r = &c->roots[root];
    struct stat st, there;
    char link[64], at[4097];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (fstat(fd, &st) < 0 || st.st_nlink == 0)
        return NULL;
    ssize_t n = readlink(link, at, sizeof(at) - 1);
    if (n < 0 || n >= PATH_STEP) {
        rec_lose(c, "a directory's path is too long");
        return NULL;
    }
    at[n] = '\0';
    size_t skip = strlen(r->at);
    if (strncmp(at, r->at, skip) != 0 || (at[skip] != '/' && at[skip] != '\0'))
        return NULL;
    const char *rel = at[skip] ? at + skip + 1 : "";
    /* A rename under way is told by its own events; a path into another mount is not ours. */
    if (fstatat(r->fsfd, *rel ? rel : ".", &there, AT_SYMLINK_NOFOLLOW) < 0 || there.st_ino != st.st_ino ||
        there.st_dev != st.st_dev)
        return NULL;
    return molt_xstrdup(rel);
}

/* Borrowed until the next call. */
static const char *resolve(struct recorder *c, unsigned root, union rec_handle *u)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(u, handle_size(u), c->seed + root);
    struct rec_dir *d = dir_place(c, h);
    if (d->path)
        return d->path;
    CLEANUP_CLOSE int fd = open_handle(c, root, u);
    char *path = fd >= 0 ? path_of(c, root, fd) : NULL;
    if (!path)
        return NULL;
    if (c->n_dirs >= DIRS_MAX || c->dir_bytes > DIRS_MAX_BYTES)
        rec_forget_dirs(c);
    d = dir_place(c, h);
    *d = (struct rec_dir){h.low64, h.high64, path};
    c->n_dirs++;
    c->dir_bytes += strlen(path) + 1;
    return path;
}

/* The file of an event, when the name that the event gives (NULL: none) does not lead to it or is not its only one:
 * the other side knows its names by its number. */
static void check_inode(struct recorder *c, struct event *e, const char *path)
{
    struct stat st, there;
    CLEANUP_CLOSE int fd = open_handle(c, e->root, &e->target);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_nlink == 0 || S_ISDIR(st.st_mode))
        return;
    if (st.st_nlink == 1 && path && strlen(path) < PATH_STEP &&
        fstatat(c->roots[e->root].fsfd, path, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_ino == st.st_ino &&
        there.st_dev == st.st_dev)
        return;
    /* The kernel often knows the one name that it has by now. */
    CLEANUP_FREE char *now = st.st_nlink == 1 ? path_of(c, e->root, fd) : NULL;
    if (now)
        rec_add(c, e->root, now, 0);
    else
        rec_add_inode(c, e->root, e->target.h.handle_type, e->target.h.f_handle, e->target.h.handle_bytes);
}

static void take(struct recorder *c, struct event *e)
{
    CLEANUP_FREE char *path = NULL;
    bool moved = e->mask & (FAN_MOVED_FROM | FAN_MOVED_TO), is_dir = e->mask & FAN_ONDIR;
    /* What was in a directory that is deleted by now has no path any more, and there may be a new one in its place. */
    bool subtree = is_dir && (moved || (e->mask & FAN_DELETE));
    if (moved && is_dir)
        rec_forget_dirs(c);
    const char *dir = e->has_dir ? resolve(c, e->root, &e->dir) : NULL;
    if (dir && e->name) {
        path = *dir ? molt_xasprintf("%s/%s", dir, e->name) : molt_xstrdup(e->name);
        if (e->mask & (FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO))
            rec_add(c, e->root, dir, 0);
        rec_add(c, e->root, path, subtree ? MOLT_DIRTY_SUBTREE : 0);
    } else if (dir) {
        rec_add(c, e->root, dir, 0);
    }
    if (e->has_target && !is_dir)
        check_inode(c, e, path);
}

static bool copy_handle(union rec_handle *u, const unsigned char *p, size_t len, size_t *ret_used)
{
    if (len < sizeof(u->h))
        return false;
    memcpy(&u->h, p, sizeof(u->h));
    if (u->h.handle_bytes > MOLT_RECORD_HANDLE_MAX || u->h.handle_bytes > len - sizeof(u->h))
        return false;
    memcpy(u->h.f_handle, p + sizeof(u->h), u->h.handle_bytes);
    *ret_used = sizeof(u->h) + u->h.handle_bytes;
    return true;
}

static bool find_root(const struct recorder *c, const void *fsid, unsigned *ret)
{
    for (size_t i = 0; i < c->n_roots; i++)
        if (memcmp(&c->roots[i].fsid, fsid, sizeof(c->roots[i].fsid)) == 0) {
            *ret = (unsigned)i;
            return true;
        }
    return false;
}

/* One information record of an event. False: malformed. */
static bool read_info(struct recorder *c, struct event *e, const unsigned char *p, size_t len)
{
    struct fanotify_event_info_header head;
    size_t used, skip = sizeof(struct fanotify_event_info_fid);
    memcpy(&head, p, sizeof(head));
    bool dir = head.info_type == FAN_EVENT_INFO_TYPE_DFID_NAME || head.info_type == FAN_EVENT_INFO_TYPE_DFID;
    if (!dir && head.info_type != FAN_EVENT_INFO_TYPE_FID)
        return true;
    union rec_handle *u = dir ? &e->dir : &e->target;
    if (len < skip || !find_root(c, p + sizeof(head), &e->root) || !copy_handle(u, p + skip, len - skip, &used))
        return false;
    *(dir ? &e->has_dir : &e->has_target) = true;
    if (head.info_type == FAN_EVENT_INFO_TYPE_DFID_NAME) {
        const char *name = (const char *)p + skip + used;
        if (!memchr(name, '\0', len - skip - used))
            return false;
        e->name = *name && strcmp(name, ".") != 0 ? name : NULL;
    }
    return true;
}

/* Seen since the last sync with the very same words: its paths are in the journal. Not so for a moved directory, whose
 * every move makes known paths void. */
static bool seen(struct recorder *c, uint64_t mask, const unsigned char *info, size_t len)
{
    if ((mask & FAN_ONDIR) && (mask & (FAN_MOVED_FROM | FAN_MOVED_TO)))
        return false;
    if (c->seen.n >= SEEN_MAX)
        rec_set_clear(&c->seen);
    XXH128_hash_t h = XXH3_128bits_withSeed(info, len, c->seed ^ mask);
    return !rec_set_add(&c->seen, h.low64, h.high64);
}

static bool read_infos(struct recorder *c, struct event *e, const unsigned char *p, size_t len)
{
    for (size_t off = 0; off + sizeof(struct fanotify_event_info_header) <= len;) {
        struct fanotify_event_info_header head;
        memcpy(&head, p + off, sizeof(head));
        if (head.len < sizeof(head) || head.len > len - off || !read_info(c, e, p + off, head.len))
            return false;
        off += head.len;
    }
    return true;
}

/* A file that is written again and again: its writes are not told any more until the next sync, so that they cost their
 * process little. */
static void hush(struct recorder *c, struct event *e)
{
    char link[64];
    if (!c->may_hush || c->hushed >= HUSHED_MAX || !e->has_target)
        return;
    CLEANUP_CLOSE int fd = open_handle(c, e->root, &e->target);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (fd >= 0 && fanotify_mark(c->fan, FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY,
                                 FAN_MODIFY, AT_FDCWD, link) == 0)
        c->hushed++;
}

bool rec_unhush(struct recorder *c)
{
    bool ok = c->hushed == 0 || fanotify_mark(c->fan, FAN_MARK_FLUSH, 0, AT_FDCWD, NULL) == 0;
    c->hushed = 0;
    return ok;
}

/* p: what follows the head. */
static void event(struct recorder *c, const struct fanotify_event_metadata *m, const unsigned char *p, size_t len)
{
    if (m->vers != FANOTIFY_METADATA_VERSION) {
        rec_lose(c, "the kernel's events have another version");
        return;
    }
    if (m->mask & FAN_Q_OVERFLOW) {
        rec_lose(c, "the queue of events overflowed");
        return;
    }
    if (c->lost && !(m->mask & FAN_ONDIR))
        return;
    struct event e = {.mask = m->mask};
    if (m->pid == getpid())
        return;
    bool known = seen(c, m->mask, p, len);
    if (known && !(m->mask & FAN_MODIFY))
        return;
    if (!read_infos(c, &e, p, len))
        rec_lose(c, "an event cannot be read");
    else if (known)
        hush(c, &e);
    else if (e.has_dir || e.has_target)
        take(c, &e);
}

size_t rec_drain(struct recorder *c, size_t limit)
{
    char buf[32768];
    size_t n = 0;
    while (n < limit) {
        ssize_t r = read(c->fan, buf, sizeof(buf));
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0 && errno != EAGAIN && !c->broken[0])
            snprintf(c->broken, sizeof(c->broken), "read events: %s", strerror(errno));
        if (r <= 0)
            break;
        /* Events are as long as their names: none but the first is aligned. */
        struct fanotify_event_metadata m;
        for (size_t off = 0; off + sizeof(m) <= (size_t)r; off += m.event_len, n++) {
            memcpy(&m, buf + off, sizeof(m));
            if (m.event_len < m.metadata_len || m.metadata_len < sizeof(m) || m.event_len > (size_t)r - off) {
                rec_lose(c, "an event cannot be read");
                break;
            }
            event(c, &m, (const unsigned char *)buf + off + m.metadata_len, m.event_len - m.metadata_len);
        }
    }
    return n;
}
