/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "merge/apply_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/cleanup.h"
#include "base/strbuf.h"

static int fail(struct molt_error **err, const char *what, const char *name)
{
    int saved = errno;
    CLEANUP_FREE char *text = molt_path_text(name);
    errno = saved;
    return molt_error_errno(err, "%s ..%s", what, text);
}

void molt__place_forget(struct molt__place *p)
{
    if (p->dir && p->dirfd >= 0)
        close(p->dirfd);
    free(p->dir);
    p->dir = NULL;
    p->dirfd = -1;
    p->unlocked = false;
}

void molt__place_done(struct molt__place *p)
{
    molt__place_forget(p);
}

int molt__place_at(struct molt__place *p, const char *path, const char **ret_name, struct molt_error **err)
{
    const char *cut = strrchr(path, '/');
    size_t n = cut ? (size_t)(cut - path) : 0;
    if (p->dir && strlen(p->dir) == n && memcmp(p->dir, path, n) == 0) {
        *ret_name = !*path ? "." : cut ? cut + 1 : path;
        return 0;
    }
    molt__place_forget(p);
    int fd = molt_open_parent(p->rootfd, path, ret_name);
    if (fd < 0) {
        bool missing = errno == ENOENT || errno == ENOTDIR;
        int rc = fail(err, "open the directory of", path);
        return missing ? 1 : rc;
    }
    p->dirfd = fd;
    p->dir = molt_xstrndup(path, n);
    if (!*path)
        *ret_name = ".";
    return 0;
}

void molt__place_unlock(struct molt__place *p)
{
    if (!p->unlocked)
        molt__clear_inode_flags(p->dirfd, ".");
    p->unlocked = true;
}

void molt__tmp_name(struct molt__place *p, char name[64])
{
    molt__place_unlock(p);
    snprintf(name, 64, MOLT_TMP_PREFIX "%ld-%u", (long)getpid(), p->serial++);
    /* A left-over of a killed process with our number. */
    unlinkat(p->dirfd, name, 0);
}

int molt__make_node(struct molt__place *p, const char *tmp, const struct molt_entry *e, int *ret_fd,
                    struct molt_error **err)
{
    static const mode_t modes[] = {
        [MOLT_T_CHR] = S_IFCHR, [MOLT_T_BLK] = S_IFBLK, [MOLT_T_FIFO] = S_IFIFO, [MOLT_T_SOCK] = S_IFSOCK};
    int r;
    if (e->type == MOLT_T_REG) {
        r = openat(p->dirfd, tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (r >= 0)
            *ret_fd = r;
    } else if (e->type == MOLT_T_LNK) {
        r = symlinkat(e->target, p->dirfd, tmp);
    } else {
        r = mknodat(p->dirfd, tmp, modes[e->type] | 0600, (dev_t)e->rdev);
    }
    return r < 0 ? fail(err, "make", tmp) : 0;
}

/* Not being root explains a refusal (tests); a file system without xattrs is only worth a warning. */
static bool tolerable(struct molt__place *p, const char *what, const char *name)
{
    bool ok = (errno == EPERM && geteuid() != 0) || errno == ENOTSUP;
    if (ok) {
        CLEANUP_FREE char *text = molt_path_text(name);
        molt_warn(p->log, "%s of ..%s could not be set", what, text);
    }
    return ok;
}

static bool in_record(const struct molt_record *r, const char *name)
{
    for (size_t i = 0; i < r->n_xattrs; i++)
        if (strcmp(r->xattrs[i].name, name) == 0)
            return true;
    return false;
}

static int set_xattrs(struct molt__place *p, const char *name, const struct molt_record *r,
                      struct molt_error **err)
{
    char path[MOLT_NAME_LIMIT + 40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", p->dirfd, name);
    CLEANUP_FREE char *list = molt_xmalloc(XATTR_LIST_MAX);
    ssize_t len = llistxattr(path, list, XATTR_LIST_MAX);
    for (ssize_t i = 0; i < len; i += (ssize_t)strlen(list + i) + 1)
        if (!in_record(r, list + i) && lremovexattr(path, list + i) < 0 && errno != ENODATA && !tolerable(p, list + i, name))
            return fail(err, "remove an extended attribute of", name);
    for (size_t i = 0; i < r->n_xattrs; i++) {
        const struct molt_xattr *x = &r->xattrs[i];
        if (lsetxattr(path, x->name, x->value, x->len, 0) < 0 && !tolerable(p, x->name, name))
            return fail(err, "set an extended attribute of", name);
    }
    return 0;
}

struct molt_record *molt__xattrs_of(int dirfd, const char *name)
{
    char path[MOLT_NAME_LIMIT + 40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd, name);
    struct molt_record *r = molt_xcalloc(1, sizeof(*r));
    size_t cap = 0;
    r->buf = molt_xmalloc(XATTR_LIST_MAX);
    CLEANUP_FREE unsigned char *value = molt_xmalloc(XATTR_SIZE_MAX);
    ssize_t len = llistxattr(path, r->buf, XATTR_LIST_MAX);
    for (ssize_t i = 0; i < len; i += (ssize_t)strlen(r->buf + i) + 1) {
        ssize_t n = lgetxattr(path, r->buf + i, value, XATTR_SIZE_MAX);
        if (n < 0)
            continue;
        MOLT_GROW(r->xattrs, r->n_xattrs, cap);
        unsigned char *copy = molt_xmalloc((size_t)n + 1);
        memcpy(copy, value, (size_t)n);
        r->xattrs[r->n_xattrs++] = (struct molt_xattr){r->buf + i, copy, (size_t)n};
    }
    return r;
}

void molt__xattrs_free(struct molt_record *r)
{
    for (size_t i = 0; r && i < r->n_xattrs; i++)
        free((unsigned char *)r->xattrs[i].value);
    if (r) {
        free(r->xattrs);
        free(r->buf);
    }
    free(r);
}

/* fchmodat follows a symlink at the end; a descriptor that names the inode does not. */
static int change_mode(int dirfd, const char *name, mode_t mode)
{
    CLEANUP_CLOSE int fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return fd < 0 ? -1 : chmod(path, mode);
}

int molt__set_attrs(struct molt__place *p, const char *name, const struct molt_entry *want,
                    const struct molt_record *r, struct molt_error **err)
{
    struct stat st;
    if (fstatat(p->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(err, "stat", name);
    /* The order matters: a change of owner drops capabilities and set-id bits, a change of mode an ACL's
     * mask. */
    bool owner = st.st_uid != want->uid || st.st_gid != want->gid;
    CLEANUP_FREE char *caps = NULL;
    ssize_t caps_len = -1;
    char path[MOLT_NAME_LIMIT + 40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", p->dirfd, name);
    if (owner && !r && S_ISREG(st.st_mode)) {
        caps = molt_xmalloc(XATTR_SIZE_MAX);
        caps_len = lgetxattr(path, "security.capability", caps, XATTR_SIZE_MAX);
    }
    if (owner && fchownat(p->dirfd, name, want->uid, want->gid, AT_SYMLINK_NOFOLLOW) < 0 &&
        !tolerable(p, "owner", name))
        return fail(err, "set the owner of", name);
    if (want->type != MOLT_T_LNK && (owner || (st.st_mode & 07777) != want->mode) &&
        change_mode(p->dirfd, name, want->mode) < 0 && !tolerable(p, "mode", name))
        return fail(err, "set the mode of", name);
    if (caps_len > 0 && lsetxattr(path, "security.capability", caps, (size_t)caps_len, 0) < 0 &&
        !tolerable(p, "security.capability", name))
        return fail(err, "set an extended attribute of", name);
    if (r) {
        int rc = set_xattrs(p, name, r, err);
        if (rc < 0)
            return rc;
    }
    int64_t s = want->mtime_ns / 1000000000, ns = want->mtime_ns % 1000000000;
    if (ns < 0) {
        s--;
        ns += 1000000000;
    }
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = s, .tv_nsec = ns}};
    if (utimensat(p->dirfd, name, times, AT_SYMLINK_NOFOLLOW) < 0 && !tolerable(p, "time", name))
        return fail(err, "set the time of", name);
    return 0;
}

static void inode_flags(int dirfd, const char *name, bool keep, int set)
{
    CLEANUP_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int flags;
    if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
        return;
    int wanted = (keep ? flags : flags & ~(FS_IMMUTABLE_FL | FS_APPEND_FL)) | set;
    if (wanted != flags)
        ioctl(fd, FS_IOC_SETFLAGS, &wanted);
}

void molt__set_inode_flags(struct molt__place *p, const char *name, const struct molt_entry *want)
{
    int set = (want->flags & MOLT_EF_IMMUTABLE ? FS_IMMUTABLE_FL : 0) |
              (want->flags & MOLT_EF_APPEND ? FS_APPEND_FL : 0);
    if (set && (want->type == MOLT_T_REG || want->type == MOLT_T_DIR))
        inode_flags(p->dirfd, name, true, set);
}

void molt__clear_inode_flags(int dirfd, const char *name)
{
    struct statx st;
    if (statx(dirfd, name, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st) == 0 &&
        (st.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND)))
        inode_flags(dirfd, name, false, 0);
}

int molt__replace(struct molt__place *p, const char *tmp, const char *name, struct molt_error **err)
{
    molt__clear_inode_flags(p->dirfd, name);
    int r = renameat(p->dirfd, tmp, p->dirfd, name);
    if (r < 0 && errno == EISDIR && unlinkat(p->dirfd, name, AT_REMOVEDIR) == 0)
        r = renameat(p->dirfd, tmp, p->dirfd, name);
    if (r < 0) {
        int rc = fail(err, "replace", name);
        unlinkat(p->dirfd, tmp, 0);
        return rc;
    }
    /* rename does nothing when both are links to one inode. */
    unlinkat(p->dirfd, tmp, 0);
    return 0;
}

int molt__link_over(struct molt__place *p, int srcfd, const char *src, const char *name,
                    struct molt_error **err)
{
    char tmp[64];
    molt__tmp_name(p, tmp);
    if (linkat(srcfd, src, p->dirfd, tmp, 0) < 0) {
        if (errno == EPERM) {
            molt__clear_inode_flags(srcfd, src);
            if (linkat(srcfd, src, p->dirfd, tmp, 0) == 0)
                return molt__replace(p, tmp, name, err);
        }
        return errno == ENOENT ? 1 : fail(err, "link to", src);
    }
    return molt__replace(p, tmp, name, err);
}

void molt__stash_name(const char *path, char name[40])
{
    XXH128_hash_t h = XXH3_128bits(path, strlen(path));
    snprintf(name, 40, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

void molt__beside_name(const char *name, char out[MOLT_BESIDE_LIMIT])
{
    size_t n = strlen(name), suffix = sizeof(".journal") - 1;
    if (n > suffix && strcmp(name + n - suffix, ".journal") == 0)
        snprintf(out, MOLT_BESIDE_LIMIT, "%.*s%cxenmolt-active.journal", (int)(n - suffix), name,
                 strchr(name, '@') ? '-' : '@');
    else
        snprintf(out, MOLT_BESIDE_LIMIT, "%s" MOLT_BESIDE_ACTIVE, name);
}

/* Of a directory what the manifest does not tell. */
static int stash_directory(struct molt__place *p, int stashfd, const char *stash, const char *name, struct molt_error **err)
{
    if (mkdirat(stashfd, stash, 0700) < 0)
        return errno == EEXIST ? 0 : fail(err, "stash", name);
    struct molt__place at = {.dirfd = stashfd, .log = p->log};
    struct molt_record *own = molt__xattrs_of(p->dirfd, name);
    int rc = set_xattrs(&at, stash, own, err);
    molt__xattrs_free(own);
    return rc;
}

int molt__stash_save(struct molt__place *p, int stashfd, const char *path, const char *name,
                     struct molt_error **err)
{
    char stash[40];
    molt__stash_name(path, stash);
    int r = linkat(p->dirfd, name, stashfd, stash, 0);
    if (r < 0 && errno == EPERM) {
        molt__clear_inode_flags(p->dirfd, name);
        r = linkat(p->dirfd, name, stashfd, stash, 0);
    }
    /* There already: an earlier pass saved it, what lies at path now is not the upgrade's. */
    if (r == 0 || errno == EEXIST || errno == ENOENT)
        return 0;
    struct stat st;
    if (errno == EPERM && fstatat(p->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
        return stash_directory(p, stashfd, stash, name, err);
    return fail(err, "stash", name);
}

int molt_apply_stash_drop(int stashfd, const char *name)
{
    struct statx st;
    if (statx(stashfd, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &st) < 0)
        return -1;
    int flags = (st.stx_attributes & STATX_ATTR_IMMUTABLE ? FS_IMMUTABLE_FL : 0) |
                (st.stx_attributes & STATX_ATTR_APPEND ? FS_APPEND_FL : 0);
    if (!flags || S_ISDIR(st.stx_mode))
        return unlinkat(stashfd, name, S_ISDIR(st.stx_mode) ? AT_REMOVEDIR : 0);
    CLEANUP_CLOSE int fd = openat(stashfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    molt__clear_inode_flags(stashfd, name);
    int r = unlinkat(stashfd, name, 0), now;
    if (fd >= 0 && st.stx_nlink > 1 && ioctl(fd, FS_IOC_GETFLAGS, &now) == 0) {
        now |= flags;
        ioctl(fd, FS_IOC_SETFLAGS, &now);
    }
    return r;
}
