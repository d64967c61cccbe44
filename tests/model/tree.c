/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading a tree, slowly and plainly: every file, every attribute. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "model.h"

uint64_t tree_hash(const char *p, size_t n)
{
    uint64_t h = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)p[i]) * UINT64_C(1099511628211);
    return h;
}

void tree_free(struct node *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->n_kids; i++)
        tree_free(n->kid[i]);
    free(n->kid);
    free(n->name);
    free(n->text);
    free(n->xattrs);
    free(n->links);
    free(n);
}

struct node *tree_kid(const struct node *n, const char *name)
{
    for (size_t i = 0; n && i < n->n_kids; i++)
        if (strcmp(n->kid[i]->name, name) == 0)
            return n->kid[i];
    return NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct node *const *)a)->name, (*(struct node *const *)b)->name);
}

void tree_add(struct node *dir, struct node *kid)
{
    MOLT_GROW(dir->kid, dir->n_kids, dir->cap_kids);
    dir->kid[dir->n_kids++] = kid;
}

static char *again(const char *s)
{
    return s ? molt_xstrdup(s) : NULL;
}

/* Without what is below it. */
struct node *tree_copy_one(const struct node *n)
{
    struct node *c = molt_xcalloc(1, sizeof(*c));
    *c = *n;
    c->kid = NULL;
    c->n_kids = c->cap_kids = 0;
    c->name = again(n->name);
    c->xattrs = again(n->xattrs);
    c->links = again(n->links);
    c->text = NULL;
    if (n->text) {
        c->text = molt_xmalloc(n->size + 1);
        memcpy(c->text, n->text, n->size);
        c->text[n->size] = '\0';
    }
    return c;
}

/* Of the pages that are not all zero, and where they are: the same with holes and without. */
static uint64_t hash_content(int fd, uint64_t size)
{
    enum { PAGE = 4096 };
    static const char zero[PAGE];
    char buf[PAGE];
    uint64_t h = size;
    for (off_t at = 0; (uint64_t)at < size;) {
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0)
            break;
        at = data / PAGE * PAGE;
        ssize_t n = pread(fd, buf, PAGE, at);
        if (n <= 0)
            break;
        memset(buf + n, 0, (size_t)(PAGE - n));
        if (memcmp(buf, zero, PAGE) != 0)
            h = (h ^ tree_hash(buf, PAGE) ^ (uint64_t)at) * UINT64_C(1099511628211);
        at += PAGE;
    }
    return h;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *read_xattrs(int dirfd, const char *name)
{
    char path[300], list[8192];
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd, name);
    ssize_t len = llistxattr(path, list, sizeof(list));
    const char *names[64];
    size_t n = 0;
    for (ssize_t i = 0; i < len && n < 64; i += (ssize_t)strlen(list + i) + 1)
        names[n++] = list + i;
    qsort(names, n, sizeof(*names), by_text);
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    for (size_t i = 0; i < n; i++) {
        unsigned char v[8192];
        ssize_t l = lgetxattr(path, names[i], v, sizeof(v));
        molt_strbuf_addf(&b, "%s=%zd:", names[i], l);
        for (ssize_t k = 0; k < l && k < 48; k++)
            molt_strbuf_addf(&b, "%02x", v[k]);
        molt_strbuf_add(&b, "\n", 1);
    }
    return molt_strbuf_steal(&b);
}

static void read_file(struct node *n, int dirfd)
{
    CLEANUP_CLOSE int fd = openat(dirfd, n->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME | O_CLOEXEC);
    int flags = 0;
    if (fd < 0)
        return;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0)
        n->iflags = (unsigned)flags & (FS_IMMUTABLE_FL | FS_APPEND_FL);
    if (n->type != 'f')
        return;
    n->hash = hash_content(fd, n->size);
    if (n->size > TEXT_ROOM)
        return;
    n->text = molt_xcalloc(1, n->size + 1);
    if (pread(fd, n->text, n->size, 0) != (ssize_t)n->size)
        abort();
}

static struct node *read_node(int dirfd, const char *name)
{
    static const struct {
        unsigned mode;
        char type;
    } types[] = {{S_IFREG, 'f'}, {S_IFDIR, 'd'}, {S_IFLNK, 'l'}, {S_IFIFO, 'p'}, {S_IFSOCK, 's'}, {S_IFCHR, 'c'}, {S_IFBLK, 'b'}};
    struct stat st;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        abort();
    struct node *n = molt_xcalloc(1, sizeof(*n));
    n->name = molt_xstrdup(name);
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
        if ((st.st_mode & S_IFMT) == types[i].mode)
            n->type = types[i].type;
    n->mode = st.st_mode & 07777;
    n->uid = st.st_uid;
    n->gid = st.st_gid;
    n->mtime = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
    n->ctime = st.st_ctim.tv_sec * INT64_C(1000000000) + st.st_ctim.tv_nsec;
    n->ino = st.st_ino;
    n->allocated = (uint64_t)st.st_blocks * 512;
    if (n->type == 'c' || n->type == 'b')
        n->rdev = st.st_rdev;
    n->xattrs = read_xattrs(dirfd, name);
    if (n->type == 'f' || n->type == 'd') {
        n->size = n->type == 'f' ? (uint64_t)st.st_size : 0;
        read_file(n, dirfd);
    } else if (n->type == 'l') {
        n->text = molt_xcalloc(1, 65536);
        ssize_t l = readlinkat(dirfd, name, n->text, 65535);
        n->size = l > 0 ? (uint64_t)l : 0;
    }
    return n;
}

static void read_below(struct node *n, int fd)
{
    CLEANUP_CLOSEDIR DIR *d = fdopendir(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const struct dirent *e;
    while (d && (e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            tree_add(n, read_node(fd, e->d_name));
    if (n->n_kids)
        qsort(n->kid, n->n_kids, sizeof(*n->kid), by_name);
    for (size_t i = 0; i < n->n_kids; i++) {
        if (n->kid[i]->type != 'd')
            continue;
        CLEANUP_CLOSE int sub = openat(fd, n->kid[i]->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub >= 0)
            read_below(n->kid[i], sub);
    }
}

struct names {
    struct {
        struct node *n;
        char *path;
    } * v;
    size_t n, cap;
};

static void collect(struct names *l, struct node *n, const char *path)
{
    for (size_t i = 0; i < n->n_kids; i++) {
        char *p = molt_xasprintf("%s/%s", path, n->kid[i]->name);
        if (n->kid[i]->type == 'd') {
            collect(l, n->kid[i], p);
            free(p);
        } else {
            MOLT_GROW(l->v, l->n, l->cap);
            l->v[l->n].n = n->kid[i];
            l->v[l->n++].path = p;
        }
    }
}

void tree_find_links(struct node *root)
{
    struct names l = {0};
    collect(&l, root, "");
    for (size_t i = 0; i < l.n; i++) {
        struct molt_strbuf b = MOLT_STRBUF_INIT;
        size_t same = 0;
        for (size_t k = 0; k < l.n; k++) {
            if (l.v[k].n->ino != l.v[i].n->ino)
                continue;
            molt_strbuf_addf(&b, "%s\n", l.v[k].path);
            same++;
        }
        if (same > 1)
            l.v[i].n->links = molt_strbuf_steal(&b);
        molt_strbuf_free(&b);
    }
    for (size_t i = 0; i < l.n; i++)
        free(l.v[i].path);
    free(l.v);
}

struct node *tree_read(int fd)
{
    struct node *root = read_node(fd, ".");
    read_below(root, fd);
    tree_find_links(root);
    return root;
}
