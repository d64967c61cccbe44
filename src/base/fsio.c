/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/fsio.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/strbuf.h"

int molt_write_all(int fd, const void *buf, size_t len)
{
    const char *p = buf;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

int molt_read_all(int fd, void *buf, size_t len)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = read(fd, (char *)buf + got, len - got);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        if (n == 0) {
            if (got == 0)
                return 0;
            errno = EPIPE;
            return -1;
        }
        got += (size_t)n;
    }
    return 1;
}

ssize_t molt_pread_all(int fd, void *buf, size_t len, uint64_t off)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(fd, (char *)buf + got, len - got, (off_t)(off + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

int molt_read_file_at(int dirfd, const char *path, size_t max, char **ret_text, size_t *ret_len, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    char buf[16384];
    for (;;) {
        ssize_t n = read(fd, buf, sizeof(buf));
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return molt_error_errno(err, "read %s", path);
        }
        if (n == 0)
            break;
        if (b.len + (size_t)n > max)
            return molt_error_set(err, MOLT_E_PROTOCOL, "%s: larger than %zu bytes", path, max);
        molt_strbuf_add(&b, buf, (size_t)n);
    }
    if (ret_len)
        *ret_len = b.len;
    *ret_text = molt_strbuf_steal(&b);
    return 0;
}

int molt_read_file(const char *path, size_t max, char **ret_text, size_t *ret_len, struct molt_error **err)
{
    return molt_read_file_at(AT_FDCWD, path, max, ret_text, ret_len, err);
}

int molt_fsync_dir(const char *path, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    if (fsync(fd) < 0)
        return molt_error_errno(err, "fsync %s", path);
    return 0;
}

static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return molt_xstrdup(".");
    return molt_xstrndup(path, slash == path ? 1 : (size_t)(slash - path));
}

int molt_write_file_atomic(const char *path, const void *data, size_t len, mode_t mode, struct molt_error **err)
{
    CLEANUP_FREE char *tmp = molt_xasprintf("%s.tmp-XXXXXX", path);
    CLEANUP_FREE char *dir = dir_of(path);
    CLEANUP_CLOSE int fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0)
        return molt_error_errno(err, "create %s", tmp);
    if (molt_write_all(fd, data, len) < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(tmp, path) < 0) {
        int r = molt_error_errno(err, "write %s", path);
        unlink(tmp);
        return r;
    }
    return molt_fsync_dir(dir, err);
}

int molt_write_file(const char *path, const void *data, size_t len, mode_t mode, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    if (molt_write_all(fd, data, len) < 0)
        return molt_error_errno(err, "write %s", path);
    return 0;
}

int molt_mkdir_p(const char *path, mode_t mode, struct molt_error **err)
{
    CLEANUP_FREE char *p = molt_xstrdup(path);
    for (char *s = p + 1; *s; s++) {
        if (*s != '/')
            continue;
        *s = 0;
        if (mkdir(p, mode) < 0 && errno != EEXIST)
            return molt_error_errno(err, "mkdir %s", p);
        *s = '/';
    }
    if (mkdir(p, mode) < 0 && errno != EEXIST)
        return molt_error_errno(err, "mkdir %s", p);
    return 0;
}

static int remove_children(int dirfd, dev_t dev, struct molt_error **err);

static int remove_at(int dirfd, const char *name, dev_t dev, struct molt_error **err)
{
    struct stat st;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : molt_error_errno(err, "stat %s", name);
    if (!S_ISDIR(st.st_mode)) {
        if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
            return molt_error_errno(err, "unlink %s", name);
        return 0;
    }
    if (st.st_dev != dev)
        return molt_error_set(err, MOLT_E_INTERNAL, "%s: a file system is mounted there", name);
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return molt_error_errno(err, "open %s", name);
    int r = remove_children(fd, dev, err);
    if (r == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        r = molt_error_errno(err, "rmdir %s", name);
    return r;
}

/* Takes over fd. */
static int remove_children(int fd, dev_t dev, struct molt_error **err)
{
    CLEANUP_CLOSEDIR DIR *d = fdopendir(fd);
    if (!d) {
        int r = molt_error_errno(err, "opendir");
        close(fd);
        return r;
    }
    struct dirent *e;
    while ((e = readdir(d))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        int r = remove_at(dirfd(d), e->d_name, dev, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int molt_remove_tree(const char *path, struct molt_error **err)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : molt_error_errno(err, "stat %s", path);
    int r = remove_at(AT_FDCWD, path, st.st_dev, err);
    return r < 0 ? molt_error_prefix(err, "remove %s", path) : 0;
}

bool molt_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}
