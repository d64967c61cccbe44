/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * treelist DIR...: a line for each path below, on one file system: path, type, inode, mode, owner, group, mtime, size, device,
 * inode flags, KiB on disk, hash of content or target, hash of extended attributes; separated by tabs, bytes that would
 * disturb as \xNN.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static uint64_t hash(uint64_t h, const void *p, size_t n)
{
    const unsigned char *s = p;
    for (; n >= 8; n -= 8, s += 8) {
        uint64_t w;
        memcpy(&w, s, 8);
        h = (h ^ w) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    while (n--)
        h = (h ^ *s++) * 1099511628211u;
    return h;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static uint64_t hash_xattrs(const char *path)
{
    char list[4096], value[65536], *names[64];
    ssize_t len = llistxattr(path, list, sizeof(list));
    size_t n = 0;
    uint64_t h = 0;
    for (ssize_t i = 0; i < len && n < 64; i += (ssize_t)strlen(list + i) + 1)
        names[n++] = list + i;
    qsort(names, n, sizeof(*names), by_text);
    for (size_t i = 0; i < n; i++) {
        ssize_t l = lgetxattr(path, names[i], value, sizeof(value));
        h = hash(h + 1, names[i], strlen(names[i]));
        h = hash(h, value, l > 0 ? (size_t)l : 0);
    }
    return h;
}

/* Data alone, and where it is. */
static uint64_t hash_file(const char *path, off_t size, int *flags)
{
    static char buf[1 << 16];
    uint64_t h = (uint64_t)size;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NOATIME);
    *flags = 0;
    if (fd < 0)
        return 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, flags) == 0)
        *flags &= FS_IMMUTABLE_FL | FS_APPEND_FL;
    for (off_t at = 0; at < size;) {
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0)
            break;
        at = data / (off_t)sizeof(buf) * (off_t)sizeof(buf);
        ssize_t n = pread(fd, buf, sizeof(buf), at);
        if (n <= 0)
            break;
        static const char zero[sizeof(buf)];
        if (memcmp(buf, zero, (size_t)n) != 0)
            h = hash(h ^ (uint64_t)at, buf, (size_t)n);
        at += sizeof(buf);
    }
    close(fd);
    return h;
}

static void print_path(const char *p)
{
    for (; *p; p++)
        printf((unsigned char)*p <= ' ' || (unsigned char)*p > 126 || *p == '\\' ? "\\x%02x" : "%c", (unsigned char)*p);
}

static void list(const char *path, dev_t dev)
{
    struct stat st;
    char target[4096];
    uint64_t h = 0;
    int flags = 0;
    if (lstat(path, &st) < 0 || (dev && st.st_dev != dev))
        return;
    if (S_ISREG(st.st_mode))
        h = hash_file(path, st.st_size, &flags);
    if (S_ISLNK(st.st_mode))
        h = hash(0, target, (size_t)readlink(path, target, sizeof(target)));
    print_path(path);
    printf("\t%o\t%lu\t%o\t%u\t%u\t%ld.%09ld\t%lld\t%lx\t%x\t%lld\t%llx\t%llx\n", st.st_mode >> 12, (unsigned long)st.st_ino,
           st.st_mode & 07777, st.st_uid, st.st_gid, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
           S_ISDIR(st.st_mode) ? 0 : (long long)st.st_size, S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? (long)st.st_rdev : 0, (unsigned)flags,
           (long long)st.st_blocks / 2, (unsigned long long)h, (unsigned long long)hash_xattrs(path));
    if (!S_ISDIR(st.st_mode))
        return;
    DIR *d = opendir(path);
    const struct dirent *e;
    while (d && (e = readdir(d))) {
        char *sub;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || asprintf(&sub, "%s/%s", path, e->d_name) < 0)
            continue;
        list(sub, st.st_dev);
        free(sub);
    }
    if (d)
        closedir(d);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        list(argv[i], 0);
    return fflush(stdout) != 0;
}
