/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on a tree, by plain system calls; what cannot be done is left. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "model.h"

enum { DEEP_STEPS = 20, MANY_FILES = 40, BIG_MIN = 270000, NAME_ROOM = 256 };

/* Opens the directory of a path, one component after the other; name gets the last one. make: directories that are
 * missing, too. */
static int open_parent(int rootfd, const char *path, char name[NAME_ROOM], bool make)
{
    int at = dup(rootfd);
    for (const char *p = ops_path(path); at >= 0;) {
        size_t n = strcspn(p, "/");
        if (n >= NAME_ROOM)
            break;
        memcpy(name, p, n);
        name[n] = '\0';
        if (!p[n])
            return at;
        if (make)
            mkdirat(at, name, 0755);
        int next = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(at);
        at = next;
        p += n + 1;
    }
    if (at >= 0)
        close(at);
    return -1;
}

static bool put_all(int fd, const char *p, size_t n, off_t at)
{
    return pwrite(fd, p, n, at) == (ssize_t)n;
}

/* Three lines between anchors, so that what a merge of lines must give is clear (expect.c reads it). */
static bool put_blocks(int fd, unsigned x, unsigned y, unsigned z)
{
    static const char anchor[] = "====\n----\n====\n----\n";
    char text[128];
    int n = snprintf(text, sizeof(text), "x%u\n%sy%u\n%sz%u\n", x % 4, anchor, y % 4, anchor, z % 4);
    return ftruncate(fd, 0) == 0 && put_all(fd, text, (size_t)n, 0);
}

static bool set_block(int fd, unsigned which, char value)
{
    char text[TEXT_ROOM];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return false;
    text[n] = '\0';
    const char *first = strchr("xyz", "xyz"[which % 3]);
    for (char *p = text; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
        if (*p == *first && p[1])
            return put_all(fd, &value, 1, p + 1 - text);
    return false;
}

static bool put_big(int fd, unsigned arg)
{
    size_t n = BIG_MIN + arg * 5u;
    CLEANUP_FREE char *p = molt_xmalloc(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)('a' + (i / 4096 * 7 + i + arg) % 26);
    return ftruncate(fd, 0) == 0 && put_all(fd, p, n, 0);
}

static bool edit_open(const struct op *x, int fd, const struct stat *st)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "+%u\n", x->arg % 100);
    switch (x->kind) {
    case OP_WRITE:
        return put_blocks(fd, x->arg, x->arg / 4, x->arg / 16);
    case OP_APPEND:
        return put_all(fd, text, (size_t)n, st->st_size);
    case OP_BLOCK:
        return set_block(fd, x->arg, (char)('0' + x->arg / 3 % 4));
    case OP_BIG:
        return put_big(fd, x->arg);
    case OP_POKE:
        return st->st_size > 0 && put_all(fd, "POKE", 4, (off_t)(x->arg * 13u % (uint64_t)st->st_size));
    case OP_TRUNCATE:
        return ftruncate(fd, x->arg % 3 ? st->st_size / 2 : 0) == 0;
    case OP_SPARSE:
        return ftruncate(fd, 0) == 0 && ftruncate(fd, (1 << 20) + (off_t)x->arg * 32) == 0 &&
               put_all(fd, text, (size_t)n, (off_t)(x->arg % 8) << 17) && (x->arg % 2 == 0 || put_all(fd, "end", 3, 1 << 20));
    case OP_PUNCH:
        return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, st->st_size / 2) == 0;
    default:
        return false;
    }
}

static bool edit_file(const struct op *x, int dirfd, const char *name)
{
    const bool makes = x->kind == OP_WRITE || x->kind == OP_BIG || x->kind == OP_SPARSE || x->kind == OP_APPEND;
    struct stat st;
    int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (makes ? O_CREAT : 0);
    CLEANUP_CLOSE int fd = openat(dirfd, name, flags, 0644);
    if (fd < 0) /* an append-only file */
        fd = x->kind == OP_APPEND ? openat(dirfd, name, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && edit_open(x, fd, &st);
}

/* As editors and package managers do: beside, then renamed over. */
static bool replace(const struct op *x, int dirfd, const char *name)
{
    struct stat st;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
        return false;
    CLEANUP_CLOSE int fd = openat(dirfd, ".new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && put_blocks(fd, x->arg, x->arg / 5, x->arg / 25) && fchmod(fd, 0600 + x->arg % 3 * 044) == 0 &&
              renameat(dirfd, ".new", dirfd, name) == 0;
    if (fd >= 0 && !ok)
        unlinkat(dirfd, ".new", 0);
    return ok;
}

static bool set_xattr(int dirfd, const char *name, const char *attr, const void *value, size_t n)
{
    char path[NAME_ROOM + 40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd, name);
    return (value ? lsetxattr(path, attr, value, n, 0) : lremovexattr(path, attr)) == 0;
}

static bool set_acl(const struct op *x, int dirfd, const char *name)
{
    const struct {
        uint16_t tag, perm;
        uint32_t id;
    } e[] = {{1, 7, ~0u}, {2, (uint16_t)(x->arg % 8), 1000 + x->arg % 3}, {4, 5, ~0u}, {16, 7, ~0u}, {32, (uint16_t)(x->arg / 8 % 8), ~0u}};
    char value[4 + sizeof(e)] = {2};
    memcpy(value + 4, e, sizeof(e));
    return set_xattr(dirfd, name, x->kind == OP_ACL ? "system.posix_acl_access" : "system.posix_acl_default", value, sizeof(value));
}

static bool set_capability(const struct op *x, int dirfd, const char *name)
{
    const uint32_t value[5] = {0x02000001, 1u << x->arg % 12};
    return set_xattr(dirfd, name, "security.capability", value, sizeof(value));
}

static bool edit_xattrs(const struct op *x, int dirfd, const char *name)
{
    static const char *const names[] = {"user.one", "user.two", "trusted.three"};
    char value[2000];
    memset(value, 'a' + (int)(x->arg % 3), sizeof(value));
    switch (x->kind) {
    case OP_XATTR:
        return set_xattr(dirfd, name, names[x->arg / 3 % 3], value, x->arg % 7 == 0 ? sizeof(value) : x->arg % 5);
    case OP_RMXATTR:
        return set_xattr(dirfd, name, x->arg % 4 == 3 ? "security.capability" : names[x->arg % 3], NULL, 0);
    case OP_LABEL:
        return set_xattr(dirfd, name, "security.selinux", value, 10 + x->arg % 3);
    case OP_CAP:
        return set_capability(x, dirfd, name);
    default:
        return set_acl(x, dirfd, name);
    }
}

static bool set_flags(int dirfd, const char *name, int set)
{
    CLEANUP_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int flags;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) || ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
        return false;
    int none = flags & ~(FS_IMMUTABLE_FL | FS_APPEND_FL), want = none | set;
    /* The kernel tells nobody of these flags; a recording sees them with any other change (ARCHITECTURE.md), for which the
     * file must be free of them. */
    if (none != flags && ioctl(fd, FS_IOC_SETFLAGS, &none) < 0)
        return false;
    fchmod(fd, st.st_mode & 07777);
    return want == none || ioctl(fd, FS_IOC_SETFLAGS, &want) == 0;
}

void remove_below(int fd)
{
    CLEANUP_CLOSEDIR DIR *d = fdopendir(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const struct dirent *e;
    while (d && (e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (unlinkat(fd, e->d_name, 0) == 0)
            continue;
        if (errno == EPERM)
            set_flags(fd, e->d_name, 0);
        if (unlinkat(fd, e->d_name, 0) == 0)
            continue;
        CLEANUP_CLOSE int sub = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub >= 0)
            remove_below(sub);
        unlinkat(fd, e->d_name, AT_REMOVEDIR);
    }
}

/* As rm -rf of somebody who gives up at flags. */
static bool remove_tree(int dirfd, const char *name)
{
    if (unlinkat(dirfd, name, 0) == 0)
        return true;
    CLEANUP_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(dup(fd));
    const struct dirent *e;
    while (d && (e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            remove_tree(fd, e->d_name);
    if (d)
        closedir(d);
    return unlinkat(dirfd, name, AT_REMOVEDIR) == 0;
}

static bool make_deep(const struct op *x, int dirfd, const char *name)
{
    const char *step = ops_path("~");
    char leaf[] = "leaf";
    mkdirat(dirfd, name, 0755);
    int at = openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (unsigned i = 0; at >= 0 && i < DEEP_STEPS; i++) {
        mkdirat(at, step, 0755);
        int next = openat(at, step, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(at);
        at = next;
    }
    struct op w = *x;
    w.kind = x->arg % 2 ? OP_WRITE : OP_APPEND;
    bool ok = at >= 0 && edit_file(&w, at, leaf);
    if (at >= 0)
        close(at);
    return ok;
}

static bool make_many(const struct op *x, int dirfd, const char *name)
{
    mkdirat(dirfd, name, 0755);
    CLEANUP_CLOSE int at = openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool ok = at >= 0;
    for (unsigned i = 0; ok && i < MANY_FILES; i++) {
        char f[16];
        struct op w = *x;
        w.kind = OP_WRITE;
        w.arg += i;
        snprintf(f, sizeof(f), "m%u", i);
        ok = edit_file(&w, at, f);
    }
    return ok;
}

/* Content, attributes and times of the base back into the file that is there. */
static bool revert(const struct op *x, int dirfd, const char *name, int basefd)
{
    char base_name[NAME_ROOM], list[4096], value[4096], path[NAME_ROOM + 40], link[40];
    CLEANUP_CLOSE int from_dir = basefd < 0 ? -1 : open_parent(basefd, x->path, base_name, false);
    CLEANUP_CLOSE int from = from_dir < 0 ? -1 : openat(from_dir, base_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    CLEANUP_CLOSE int to = openat(dirfd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (x->arg % 2 ? O_CREAT : 0), 0600);
    struct stat st, now;
    if (from < 0 || to < 0 || fstat(from, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > TEXT_ROOM || fstat(to, &now) < 0 ||
        !S_ISREG(now.st_mode))
        return false;
    CLEANUP_FREE char *text = molt_xmalloc(TEXT_ROOM);
    ssize_t n = pread(from, text, TEXT_ROOM, 0);
    if (n != st.st_size || ftruncate(to, 0) < 0 || !put_all(to, text, (size_t)n, 0) || fchown(to, st.st_uid, st.st_gid) < 0)
        return false;
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd, name);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", from);
    ssize_t len = llistxattr(path, list, sizeof(list));
    for (ssize_t i = 0; i < len; i += (ssize_t)strlen(list + i) + 1)
        lremovexattr(path, list + i);
    if (fchmod(to, st.st_mode & 07777) < 0)
        return false;
    len = listxattr(link, list, sizeof(list));
    for (ssize_t i = 0; i < len; i += (ssize_t)strlen(list + i) + 1) {
        n = getxattr(link, list + i, value, sizeof(value));
        if (n >= 0)
            lsetxattr(path, list + i, value, (size_t)n, 0);
    }
    const struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, st.st_mtim};
    return futimens(to, ts) == 0;
}

static bool set_attributes(const struct op *x, int dirfd, const char *name)
{
    static const unsigned modes[] = {0644, 0600, 0755, 04755, 02711, 01777, 0, 0444};
    struct stat st;
    /* From 1961 to 2106, all nanoseconds. */
    const struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT},
                                   {.tv_sec = (time_t)x->arg * 70000 - 280000000, .tv_nsec = x->arg * 15251u % 1000000000u}};
    switch (x->kind) {
    case OP_CHMOD:
        return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISLNK(st.st_mode) &&
               fchmodat(dirfd, name, modes[x->arg % 8], 0) == 0;
    case OP_CHOWN:
        return fchownat(dirfd, name, x->arg % 3, x->arg / 3 % 3 + (x->arg % 50 == 0 ? 3000000000u : 0), AT_SYMLINK_NOFOLLOW) == 0;
    case OP_UTIME:
        return utimensat(dirfd, name, ts, AT_SYMLINK_NOFOLLOW) == 0;
    default:
        return set_flags(dirfd, name, (const int[]){0, 0, FS_IMMUTABLE_FL, FS_APPEND_FL}[x->arg % 4]);
    }
}

static bool make_node(const struct op *x, int dirfd, const char *name)
{
    switch (x->kind) {
    case OP_MKDIR:
        return mkdirat(dirfd, name, x->arg % 4 ? 0755 : 0700) == 0;
    case OP_SYMLINK:
        return symlinkat(x->arg % 3 ? ops_path(x->to) : "/nowhere/\xff", dirfd, name) == 0;
    case OP_FIFO:
        return mknodat(dirfd, name, S_IFIFO | 0640, 0) == 0;
    case OP_SOCKET:
        return mknodat(dirfd, name, S_IFSOCK | 0640, 0) == 0;
    default:
        return mknodat(dirfd, name, (x->arg % 2 ? S_IFCHR : S_IFBLK) | 0640, makedev(x->arg % 5, x->arg / 5 % 70000)) == 0;
    }
}

static bool with_two(const struct op *x, int rootfd, int dirfd, const char *name)
{
    char to[NAME_ROOM];
    CLEANUP_CLOSE int todir = open_parent(rootfd, x->to, to, x->arg % 2);
    if (todir < 0)
        return false;
    if (x->kind == OP_LINK)
        return linkat(dirfd, name, todir, to, 0) == 0;
    return renameat2(dirfd, name, todir, to, x->kind == OP_EXCHANGE ? RENAME_EXCHANGE : 0) == 0;
}

static bool run_one(const struct op *x, int rootfd, int basefd)
{
    char name[NAME_ROOM];
    const bool makes = x->kind == OP_WRITE || x->kind == OP_APPEND || x->kind == OP_BIG || x->kind == OP_SPARSE ||
                       (x->kind >= OP_MKDIR && x->kind <= OP_NODE);
    CLEANUP_CLOSE int dirfd = open_parent(rootfd, x->path, name, makes);
    if (dirfd < 0)
        return false;
    switch (x->kind) {
    case OP_WRITE ... OP_BLOCK:
    case OP_BIG ... OP_PUNCH:
        return edit_file(x, dirfd, name);
    case OP_REPLACE:
        return replace(x, dirfd, name);
    case OP_CHMOD ... OP_UTIME:
    case OP_CHATTR:
        return set_attributes(x, dirfd, name);
    case OP_XATTR ... OP_LABEL:
        return edit_xattrs(x, dirfd, name);
    case OP_DEEP:
        return make_deep(x, dirfd, name);
    case OP_MANY:
        return make_many(x, dirfd, name);
    case OP_LINK ... OP_EXCHANGE:
        return with_two(x, rootfd, dirfd, name);
    case OP_UNLINK:
        return unlinkat(dirfd, name, 0) == 0;
    case OP_RMTREE:
        return remove_tree(dirfd, name);
    case OP_REVERT:
        return revert(x, dirfd, name, basefd);
    default:
        return make_node(x, dirfd, name);
    }
}

size_t ops_run(const struct ops *o, enum side side, unsigned phase, int rootfd, int basefd)
{
    size_t done = 0;
    for (size_t i = 0; i < o->n; i++)
        if (o->v[i].side == side && (side != ACTIVE || o->v[i].phase == phase))
            done += run_one(&o->v[i], rootfd, basefd);
    return done;
}
