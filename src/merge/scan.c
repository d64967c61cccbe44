/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scan: one statx an entry, directories read in big buffers, each opened by its path below the root, so
 * that one descriptor is open at a time whatever the depth. Extended attributes cost a call an entry on ext4;
 * they are read only where the reference manifest does not prove that nothing changed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/apply.h"
#include "merge/manifest.h"

#define DENTS_BUF (256u * 1024u)
#define PATH_STEP 4000u    /* what one open is given of a long path */

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif

/* A copy of a shared mount is one of its peers. A mount namespace that is made meanwhile may get this one as the master of its own, and
 * from a detached mount nothing ever reaches it: what is mounted in the guest from then on would not be seen there. By
 * mount_setattr (5.12) or the way before it. */
static void make_private(int fd)
{
    struct mount_attr a = {.propagation = MS_PRIVATE};
    if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &a, sizeof(a)) == 0)
        return;
    char self[40];
    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    mount(NULL, self, NULL, MS_PRIVATE, NULL);
}

int molt_tree_open(const char *path, int *ret_fd, struct molt_error **err)
{
    /* Closing the descriptor dissolves the detached mount. */
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd >= 0)
        make_private(fd);
    if (fd < 0)
        fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    *ret_fd = fd;
    return 0;
}

static int open_step(int dirfd, const char *path, int flags)
{
    struct open_how how = {
        .flags = (unsigned)(flags | O_NOFOLLOW | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
    };
    int fd, tries = 0;
    do
        fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
    while (fd < 0 && (errno == EAGAIN || errno == EINTR) && ++tries < 100);
    return fd;
}

int molt_open_beneath(int rootfd, const char *path, int flags)
{
    CLEANUP_CLOSE int at = -1;
    while (strlen(path) > PATH_STEP) {
        char part[PATH_STEP + 1];
        memcpy(part, path, PATH_STEP);
        part[PATH_STEP] = '\0';
        char *cut = strrchr(part, '/');
        if (!cut) {
            errno = ENAMETOOLONG;
            return -1;
        }
        *cut = '\0';
        int next = open_step(at >= 0 ? at : rootfd, part, O_PATH | O_DIRECTORY);
        if (next < 0)
            return -1;
        if (at >= 0)
            close(at);
        at = next;
        path += cut - part + 1;
    }
    return open_step(at >= 0 ? at : rootfd, *path ? path : ".", flags);
}

int molt_open_parent(int rootfd, const char *path, const char **ret_name)
{
    const char *cut = strrchr(path, '/');
    *ret_name = cut ? cut + 1 : path;
    if (!cut)
        return molt_open_beneath(rootfd, "", O_PATH | O_DIRECTORY);
    CLEANUP_FREE char *dir = molt_xstrndup(path, (size_t)(cut - path));
    return molt_open_beneath(rootfd, dir, O_PATH | O_DIRECTORY);
}

static int cmp_str(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

uint64_t molt_xattr_hash(int dirfd, const char *name)
{
    char path[MOLT_NAME_LIMIT + 40], small[1024];
    CLEANUP_FREE char *big = NULL, *value = NULL;
    char *list = small;
    /* Without a name, the link itself is followed, and no further. */
    ssize_t (*const list_of)(const char *, char *, size_t) = *name ? llistxattr : listxattr;
    ssize_t (*const get)(const char *, const char *, void *, size_t) = *name ? lgetxattr : getxattr;
    snprintf(path, sizeof(path), *name ? "/proc/self/fd/%d/%s" : "/proc/self/fd/%d%s", dirfd, name);
    ssize_t len = list_of(path, small, sizeof(small));
    if (len < 0 && errno == ERANGE) {
        list = big = molt_xmalloc(XATTR_LIST_MAX);
        len = list_of(path, big, XATTR_LIST_MAX);
    }
    if (len <= 0)
        return 0;
    const char *names[XATTR_LIST_MAX / 8];
    size_t n = 0;
    for (ssize_t i = 0; i < len && n < sizeof(names) / sizeof(names[0]); i += (ssize_t)strlen(list + i) + 1)
        names[n++] = list + i;
    qsort(names, n, sizeof(names[0]), cmp_str);
    value = molt_xmalloc(XATTR_SIZE_MAX);
    uint64_t h = 0;
    for (size_t i = 0; i < n; i++) {
        ssize_t vlen = get(path, names[i], value, XATTR_SIZE_MAX);
        if (vlen < 0)
            continue;
        h = XXH3_64bits_withSeed(names[i], strlen(names[i]) + 1, h + 1);
        h = XXH3_64bits_withSeed(value, (size_t)vlen, h);
    }
    return h;
}

/* One directory on the way down: its entries, of which the ones before i are done. */
struct frame {
    struct molt_entry *v; /* path and target malloc'd until they are emitted */
    size_t n, cap, i;
};

struct scan {
    int rootfd;
    const struct molt_scan_opts *o;
    struct molt_manifest *m;
    char *dents;
    struct frame *stack;
    size_t depth, cap;
    uint64_t dev;
    int64_t racy_from;
};

static int64_t ns_of(struct statx_timestamp t)
{
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static uint8_t type_of(unsigned mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return MOLT_T_REG;
    case S_IFDIR:
        return MOLT_T_DIR;
    case S_IFLNK:
        return MOLT_T_LNK;
    case S_IFCHR:
        return MOLT_T_CHR;
    case S_IFBLK:
        return MOLT_T_BLK;
    case S_IFIFO:
        return MOLT_T_FIFO;
    default:
        return MOLT_T_SOCK;
    }
}

static char *read_link(int dirfd, const char *name, uint64_t size)
{
    for (size_t cap = size ? size + 1 : 256;; cap *= 2) {
        char *p = molt_xmalloc(cap + 1);
        ssize_t r = readlinkat(dirfd, name, p, cap);
        if (r >= 0 && (size_t)r < cap) {
            p[r] = '\0';
            return p;
        }
        free(p);
        if (r < 0 || cap > MOLT_PATH_LIMIT)
            return NULL;
    }
}

/* From *hint on, which moves forward: siblings are looked up in order. */
static const struct molt_entry *find_ref(const struct molt_manifest *ref, const char *path, size_t *hint)
{
    if (!ref)
        return NULL;
    size_t lo = *hint, step = 1;
    while (lo + step < ref->n && molt_path_cmp(ref->v[lo + step].path, path) <= 0) {
        lo += step;
        step *= 2;
    }
    size_t hi = lo + step < ref->n ? lo + step : ref->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = molt_path_cmp(ref->v[mid].path, path);
        if (c == 0) {
            *hint = mid;
            return &ref->v[mid];
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *hint = lo < ref->n ? lo : ref->n ? ref->n - 1 : 0;
    return NULL;
}

/* Fills e (path set) from dirfd/name. False: vanished. */
static bool stat_entry(struct scan *s, int dirfd, const char *name, struct molt_entry *e, size_t *hint)
{
    struct statx st;
    if (statx(dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH, STATX_BASIC_STATS, &st) < 0)
        return false;
    e->type = type_of(st.stx_mode);
    e->mode = st.stx_mode & 07777;
    e->uid = st.stx_uid;
    e->gid = st.stx_gid;
    e->nlink = st.stx_nlink;
    e->ino = st.stx_ino;
    e->size = e->type == MOLT_T_REG ? st.stx_size : 0;
    e->mtime_ns = ns_of(st.stx_mtime);
    e->ctime_ns = ns_of(st.stx_ctime);
    if (e->type == MOLT_T_CHR || e->type == MOLT_T_BLK)
        e->rdev = makedev(st.stx_rdev_major, st.stx_rdev_minor);
    uint64_t dev = makedev(st.stx_dev_major, st.stx_dev_minor);
    if (*e->path == '\0')
        s->dev = dev;
    else if (dev != s->dev || (st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
        e->flags |= MOLT_EF_MOUNT;
    if (st.stx_attributes & STATX_ATTR_IMMUTABLE)
        e->flags |= MOLT_EF_IMMUTABLE;
    if (st.stx_attributes & STATX_ATTR_APPEND)
        e->flags |= MOLT_EF_APPEND;
    if (e->ctime_ns >= s->racy_from)
        e->flags |= MOLT_EF_RACY;
    const struct molt_entry *ref = find_ref(s->o->ref, e->path, hint);
    if (ref && !(e->flags & MOLT_EF_MOUNT) && molt_entry_same_inode(ref, e)) {
        e->xattr_hash = ref->xattr_hash;
        e->content_hash = ref->content_hash;
        e->target = ref->target ? molt_xstrdup(ref->target) : NULL;
        return true;
    }
    if (e->flags & MOLT_EF_MOUNT)
        return true;
    e->xattr_hash = molt_xattr_hash(dirfd, name);
    if (e->type == MOLT_T_LNK)
        e->target = read_link(dirfd, name, st.stx_size);
    return e->type != MOLT_T_LNK || e->target;
}

static bool is_tmp(const char *name)
{
    return strncmp(name, MOLT_TMP_PREFIX, sizeof(MOLT_TMP_PREFIX) - 1) == 0;
}

bool molt_path_excluded(const char *path, const char *const *exclude)
{
    for (const char *p = path; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (is_tmp(p))
            return true;
    }
    for (; exclude && *exclude; exclude++)
        if (molt_path_below(path, *exclude))
            return true;
    return false;
}

static bool excluded(const struct scan *s, const char *path, const char *name)
{
    if (is_tmp(name))
        return true;
    for (const char *const *x = s->o->exclude; x && *x; x++)
        if (strcmp(*x, path) == 0)
            return true;
    return false;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct molt_entry *)a)->path, ((const struct molt_entry *)b)->path);
}

static int read_names(struct scan *s, int fd, struct frame *f)
{
    ssize_t r;
    while ((r = getdents64(fd, s->dents, DENTS_BUF)) > 0) {
        for (ssize_t off = 0; off < r;) {
            const struct dirent64 *d = (const void *)(s->dents + off);
            off += d->d_reclen;
            const char *name = d->d_name;
            if (name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0')))
                continue;
            MOLT_GROW(f->v, f->n, f->cap);
            f->v[f->n++] = (struct molt_entry){.path = molt_xstrdup(name)};
        }
    }
    if (r < 0 && errno != ENOENT)
        return -1;
    if (f->n)
        qsort(f->v, f->n, sizeof(f->v[0]), by_name);
    return 0;
}

/* Reads the directory dir and puts its frame on the stack; one that vanished or is a mount leaves no frame.
 */
static int push_dir(struct scan *s, const char *dir, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = molt_open_beneath(s->rootfd, dir, O_RDONLY | O_DIRECTORY | O_NOATIME);
    if (fd < 0 && errno == EPERM)
        fd = molt_open_beneath(s->rootfd, dir, O_RDONLY | O_DIRECTORY);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EXDEV))
        return 0;
    MOLT_GROW(s->stack, s->depth, s->cap);
    struct frame *f = &s->stack[s->depth++];
    memset(f, 0, sizeof(*f));
    if (fd < 0 || read_names(s, fd, f) < 0) {
        CLEANUP_FREE char *text = molt_path_text(dir);
        return molt_error_errno(err, "read directory %s", text);
    }
    size_t out = 0, hint = 0;
    for (size_t i = 0; i < f->n; i++) {
        struct molt_entry e = f->v[i];
        char *name = (char *)e.path;
        e.path = *dir ? molt_xasprintf("%s/%s", dir, name) : molt_xstrdup(name);
        if (!excluded(s, e.path, name) && stat_entry(s, fd, name, &e, &hint)) {
            f->v[out++] = e;
        } else {
            free((char *)e.path);
            free((char *)e.target);
        }
        free(name);
    }
    f->n = out;
    return 0;
}

static void pop_dir(struct scan *s)
{
    struct frame *f = &s->stack[--s->depth];
    for (; f->i < f->n; f->i++) {
        free((char *)f->v[f->i].path);
        free((char *)f->v[f->i].target);
    }
    free(f->v);
}

/* What lies below the directory dir, which is in the manifest. */
static int walk_below(struct scan *s, const char *dir, struct molt_error **err)
{
    int rc = push_dir(s, dir, err);
    while (rc == 0 && s->depth) {
        struct frame *f = &s->stack[s->depth - 1];
        if (f->i == f->n) {
            pop_dir(s);
            continue;
        }
        struct molt_entry *e = &f->v[f->i++];
        const struct molt_entry *kept = molt_manifest_add(s->m, e);
        free((char *)e->path);
        free((char *)e->target);
        if (kept->type == MOLT_T_DIR && !(kept->flags & MOLT_EF_MOUNT))
            rc = push_dir(s, kept->path, err);
    }
    return rc;
}

static int stat_root(struct scan *s, struct molt_entry *root, struct molt_error **err)
{
    size_t hint = 0;
    *root = (struct molt_entry){.path = ""};
    return stat_entry(s, s->rootfd, ".", root, &hint) ? 0 : molt_error_errno(err, "stat the root of the tree");
}

static int walk(struct scan *s, struct molt_error **err)
{
    struct molt_entry root;
    int rc = stat_root(s, &root, err);
    if (rc < 0)
        return rc;
    molt_manifest_add(s->m, &root);
    return walk_below(s, "", err);
}

static struct scan scan_begin(int rootfd, const struct molt_scan_opts *opts, struct molt_manifest *m, char *dents)
{
    static const struct molt_scan_opts plain;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    struct scan s = {.rootfd = rootfd, .o = opts ? opts : &plain, .m = m, .dents = dents};
    s.racy_from =
        s.o->racy_from_ns ? s.o->racy_from_ns : now.tv_sec * INT64_C(1000000000) + now.tv_nsec - MOLT_RACY_NS;
    return s;
}

static void scan_end(struct scan *s)
{
    while (s->depth)
        pop_dir(s);
    free(s->stack);
}

int molt_manifest_scan(int rootfd, const struct molt_scan_opts *opts, struct molt_manifest **ret,
                       struct molt_error **err)
{
    CLEANUP_MANIFEST struct molt_manifest *m = molt_manifest_new();
    CLEANUP_FREE char *dents = molt_xmalloc(DENTS_BUF);
    struct scan s = scan_begin(rootfd, opts, m, dents);
    int rc = walk(&s, err);
    scan_end(&s);
    if (rc == 0)
        rc = molt_manifest_finish(m, err);
    if (rc == 0)
        *ret = MOLT_STEAL_PTR(m);
    return rc;
}

/* The looks at a list of paths, in tree order: the directory of the last one stays open. */
struct looks {
    struct scan s;
    struct molt_manifest *drop; /* NULL: plain entries, nothing is forced to be racy */
    char *at;                   /* the directory that fd has open */
    int fd;
    const char *done; /* what lies below it was walked or is gone */
};

static int open_dir_of(struct looks *l, const char *path, struct molt_error **err)
{
    const char *cut = strrchr(path, '/');
    size_t len = cut ? (size_t)(cut - path) : 0;
    if (l->at && strlen(l->at) == len && memcmp(l->at, path, len) == 0)
        return 0;
    free(l->at);
    l->at = molt_xstrndup(path, len);
    if (l->fd >= 0)
        close(l->fd);
    l->fd = molt_open_beneath(l->s.rootfd, l->at, O_PATH | O_DIRECTORY);
    if (l->fd < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP && errno != EXDEV)
        return molt_error_errno(err, "open a directory");
    return 0;
}

/* Adds the path to the manifest, or to what is dropped. */
static int look_at(struct looks *l, const struct molt_look *k, struct molt_error **err)
{
    const char *cut = strrchr(k->path, '/'), *name = cut ? cut + 1 : k->path;
    struct molt_entry e = {.path = k->path}, gone = {.path = k->path};
    size_t hint = 0;
    int rc = open_dir_of(l, k->path, err);
    if (rc < 0)
        return rc;
    bool there = l->fd >= 0 && stat_entry(&l->s, l->fd, *name ? name : ".", &e, &hint);
    const bool is_dir = there && e.type == MOLT_T_DIR && !(e.flags & MOLT_EF_MOUNT);
    if (!is_dir || k->subtree) {
        l->done = k->path;
        if (l->drop)
            molt_manifest_add(l->drop, &gone);
    }
    if (there) {
        if (l->drop) {
            e.flags |= MOLT_EF_RACY;
            e.content_hash = 0;
        }
        molt_manifest_add(l->s.m, &e);
    }
    free((char *)e.target);
    return is_dir && k->subtree ? walk_below(&l->s, k->path, err) : 0;
}

/* Entries that a walk found and that are listed themselves. */
static void mark_listed(struct molt_manifest *m, const struct molt_look *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct molt_entry *e = molt_manifest_find(m, v[i].path);
        if (e) {
            e->flags |= MOLT_EF_RACY;
            e->content_hash = 0;
        }
    }
}

static int look(int rootfd, const struct molt_scan_opts *opts, const struct molt_look *v, size_t n,
                struct molt_manifest *ret, struct molt_manifest *drop, struct molt_error **err)
{
    CLEANUP_FREE char *dents = molt_xmalloc(DENTS_BUF);
    struct looks l = {.s = scan_begin(rootfd, opts, ret, dents), .drop = drop, .fd = -1};
    struct molt_entry root;
    int rc = stat_root(&l.s, &root, err);
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (!l.done || !molt_path_below(v[i].path, l.done))
            rc = look_at(&l, &v[i], err);
    scan_end(&l.s);
    free(l.at);
    if (l.fd >= 0)
        close(l.fd);
    return rc < 0 ? rc : molt_manifest_finish(ret, err);
}

int molt_manifest_look(int rootfd, const struct molt_scan_opts *opts, const struct molt_look *v, size_t n,
                       struct molt_manifest *ret, struct molt_manifest *drop, struct molt_error **err)
{
    int rc = look(rootfd, opts, v, n, ret, drop, err);
    if (rc < 0)
        return rc;
    mark_listed(ret, v, n);
    return molt_manifest_finish(drop, err);
}

int molt_manifest_stat(int rootfd, const struct molt_scan_opts *opts, const struct molt_look *v, size_t n,
                       struct molt_manifest *ret, struct molt_error **err)
{
    return look(rootfd, opts, v, n, ret, NULL, err);
}

int molt_entry_of_fd(int fd, struct molt_entry *ret)
{
    struct molt_manifest none = {0};
    struct scan s = scan_begin(fd, NULL, &none, NULL);
    size_t hint = 0;
    *ret = (struct molt_entry){.path = ""};
    return stat_entry(&s, fd, "", ret, &hint) ? 0 : -1;
}
