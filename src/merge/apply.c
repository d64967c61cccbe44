/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The plan's actions in order; those that need the active's record are carried out as the records stream in.
 *
 * Durability: nothing is fsynced one by one; the pass ends with one syncfs. Until the pivot, which comes
 * after the last pass, a crash of the clone costs only the clone: the active is the guest. What must not
 * happen is a path that a running program of the clone sees half-written; the rename sees to that. (Large data files
 * of which only differences come are written in place: apply_want.c. So are files that the active wrote in place: programs
 * remember numbers of inodes, SQLite that of its database, and both disks began as the same one. A pass that is cut short
 * leaves such a file torn: merge.c remembers it, and the next pass puts it anew.)
 */
#include "merge/apply.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/apply_fs.h"

#define TEXT_MAX (4u << 20) /* larger files are not merged as text */

/* A new version of something under a temporary name. */
struct put {
    struct molt__place *place;
    char tmp[64];
    int fd; /* of a regular file */
    bool made;
    bool in_place; /* no temporary name: written over the file itself */
    bool whole;    /* and not differences (apply_want.c says where those come): what no data comes for is a hole */
    uint64_t end;  /* of the data that came */
};

struct run {
    struct molt_apply *a;
    const struct molt_plan *plan;
    struct molt__place place;
    const struct molt_wants *want;
    size_t next; /* first action not yet carried out */
    const struct molt_action *cur;
    const struct molt_record *rec;
    const char *name;
    struct put put;
    bool skip;
};

static int put_begin(struct put *p, struct molt__place *place, const struct molt_entry *e,
                     struct molt_error **err)
{
    *p = (struct put){.place = place, .fd = -1};
    molt__tmp_name(place, p->tmp);
    int rc = molt__make_node(place, p->tmp, e, &p->fd, err);
    p->made = rc == 0;
    /* Its size first: XFS reserves space behind the end of a file that grows, and holes would be filled by that. */
    if (p->fd >= 0 && e->size && ftruncate(p->fd, (off_t)e->size) < 0)
        return molt_error_errno(err, "set the size");
    return rc;
}

/* The file must be the one that was hashed, still. */
static int put_begin_in_place(struct put *p, struct molt__place *place, const char *name, const struct molt_entry *had,
                              struct molt_error **err)
{
    struct molt_entry now;
    *p = (struct put){.place = place, .fd = -1, .in_place = true};
    p->fd = openat(place->dirfd, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (p->fd < 0)
        return molt_error_errno(err, "open");
    if (molt_entry_of_fd(p->fd, &now) < 0 || now.ino != had->ino || now.ctime_ns != had->ctime_ns || now.size != had->size)
        return molt_error_set(err, MOLT_E_STATE, "changed in the upgraded tree while it was merged");
    return 0;
}

/* The whole content goes into the file that is there. Its blocks are used again: a file system that need not free and
 * allocate is done sooner, and so is the syncfs. 1: it cannot be opened. */
static int put_begin_over(struct put *p, struct molt__place *place, const char *name, const struct molt_entry *e,
                          struct molt_error **err)
{
    *p = (struct put){.place = place, .fd = -1, .in_place = true, .whole = true};
    p->fd = openat(place->dirfd, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (p->fd < 0)
        return 1;
    return ftruncate(p->fd, (off_t)e->size) < 0 ? molt_error_errno(err, "set the size") : 0;
}

static bool all_zero(const char *p, size_t n)
{
    return n == 0 || (*p == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Differences bring the holes of a file as zeros: a page of them becomes a hole again. */
static bool put_hole(struct put *p, uint64_t off, size_t len)
{
    return fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0;
}

static int put_data(struct put *p, uint64_t off, const void *data, size_t len, struct molt_error **err)
{
    while (len) {
        ssize_t r = pwrite(p->fd, data, len, (off_t)off);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return molt_error_errno(err, "write");
        data = (const char *)data + r;
        off += (uint64_t)r;
        len -= (size_t)r;
    }
    return 0;
}

static int put_zeros(struct put *p, uint64_t off, uint64_t end, struct molt_error **err)
{
    static const char zeros[4096];
    for (; off < end; off += sizeof(zeros)) {
        int rc = put_data(p, off, zeros, end - off < sizeof(zeros) ? (size_t)(end - off) : sizeof(zeros), err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Nothing came for what lies between the data so far and off. */
static int put_gap(struct put *p, uint64_t off, struct molt_error **err)
{
    if (!p->whole || off <= p->end || put_hole(p, p->end, off - p->end))
        return 0;
    return put_zeros(p, p->end, off, err);
}

static void put_drop(struct put *p)
{
    if (p->fd >= 0)
        close(p->fd);
    if (p->made)
        unlinkat(p->place->dirfd, p->tmp, 0);
    *p = (struct put){.fd = -1};
}

static int put_end(struct put *p, const char *name, const struct molt_entry *want,
                   const struct molt_record *r, struct molt_error **err)
{
    int rc = molt__set_attrs(p->place, p->in_place ? name : p->tmp, want, r, err);
    if (rc == 0 && !p->in_place)
        rc = molt__replace(p->place, p->tmp, name, err);
    if (rc == 0) {
        molt__set_inode_flags(p->place, name, want);
        p->made = false;
    }
    put_drop(p);
    return rc;
}

int molt_apply_open_upgrade(const struct molt_apply *a, const char *path)
{
    char stash[40];
    molt__stash_name(path, stash);
    int fd = openat(a->stashfd, stash, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0 || errno != ENOENT ? fd : molt_open_beneath(a->rootfd, path, O_RDONLY | O_NONBLOCK);
}

/* Reads a whole file when it is a regular one of at most TEXT_MAX bytes. fd may be -1: an empty text. */
static bool read_text(int fd, char **ret, size_t *ret_len)
{
    struct stat st = {0};
    if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)TEXT_MAX))
        return false;
    size_t want = (size_t)st.st_size;
    CLEANUP_FREE char *buf = molt_xmalloc(want + 1);
    if (molt_pread_all(fd, buf, want, 0) != (ssize_t)want)
        return false;
    buf[want] = '\0';
    *ret_len = want;
    *ret = MOLT_STEAL_PTR(buf);
    return true;
}

/* Where the upgrade's part begins that the base does not have: behind the base's content, if it starts with
 * that. */
static off_t appended_from(int base, int upgrade)
{
    enum { STEP = 65536 };
    CLEANUP_FREE char *x = molt_xmalloc(STEP), *y = molt_xmalloc(STEP);
    for (off_t off = 0; base >= 0;) {
        ssize_t n = pread(base, x, STEP, off);
        if (n <= 0)
            return n < 0 ? 0 : off;
        ssize_t m = pread(upgrade, y, (size_t)n, off);
        if (m != n || memcmp(x, y, (size_t)n) != 0)
            return 0;
        off += n;
    }
    return 0;
}

static int append_upgrade(struct run *r, uint64_t size, struct molt_error **err)
{
    CLEANUP_CLOSE int up = molt_apply_open_upgrade(r->a, r->cur->path);
    if (up < 0)
        return 0;
    CLEANUP_CLOSE int base = molt_open_beneath(r->a->basefd, r->cur->path, O_RDONLY | O_NONBLOCK);
    CLEANUP_FREE char *buf = molt_xmalloc(MOLT_PACK_CHUNK);
    off_t from = appended_from(base, up);
    ssize_t n;
    while ((n = pread(up, buf, MOLT_PACK_CHUNK, from)) > 0) {
        int rc = put_data(&r->put, size, buf, (size_t)n, err);
        if (rc < 0)
            return rc;
        from += n;
        size += (uint64_t)n;
    }
    return n < 0 ? molt_error_errno(err, "read the upgrade's version") : 0;
}

/* The upgrade's version, out of the stash, as NAME.xenmolt-upgrade. */
static int lay_beside(struct run *r, struct molt_error **err)
{
    char stash[40], beside[MOLT_NAME_LIMIT + 1];
    molt__stash_name(r->cur->path, stash);
    if (strlen(r->name) + sizeof(MOLT_BESIDE_UPGRADE) > sizeof(beside)) {
        molt_warn(r->a->log, "a name is too long to lay the upgrade's version beside it");
        return 0;
    }
    snprintf(beside, sizeof(beside), "%s" MOLT_BESIDE_UPGRADE, r->name);
    int rc = molt__link_over(&r->place, r->a->stashfd, stash, beside, err);
    return rc < 0 ? rc : 0;
}

static void remove_beside(struct run *r, const char *beside)
{
    molt__place_unlock(&r->place);
    molt__clear_inode_flags(r->place.dirfd, beside);
    unlinkat(r->place.dirfd, beside, 0);
}

/* Of an earlier pass, whose outcome was another. */
static int unbeside(struct run *r, const struct molt_action *x, struct molt_error **err)
{
    const char *name;
    char beside[MOLT_BESIDE_LIMIT];
    CLEANUP_ERROR struct molt_error *missing = NULL;
    int rc = molt__place_at(&r->place, x->path, &name, &missing);
    if (rc < 0)
        molt_error_move(err, MOLT_STEAL_PTR(missing));
    if (rc)
        return rc < 0 ? rc : 0;
    molt__beside_name(name, beside);
    remove_beside(r, beside);
    snprintf(beside, sizeof(beside), "%s" MOLT_BESIDE_UPGRADE, name);
    remove_beside(r, beside);
    return 0;
}

/* 1: merged, the new file holds the result; 0: they overlap. */
static int merge_texts(struct run *r, struct molt_error **err)
{
    CLEANUP_CLOSE int up = molt_apply_open_upgrade(r->a, r->cur->path);
    CLEANUP_CLOSE int base = molt_open_beneath(r->a->basefd, r->cur->path, O_RDONLY | O_NONBLOCK);
    CLEANUP_FREE char *tb = NULL, *ta = NULL, *tu = NULL, *out = NULL;
    size_t lb = 0, la = 0, lu = 0, len = 0;
    if (up < 0 || !read_text(r->put.fd, &ta, &la) || !read_text(up, &tu, &lu) || !read_text(base, &tb, &lb))
        return 0;
    int rc = molt_merge_as(r->cur->path, tb, lb, ta, la, tu, lu, &out, &len, err);
    if (rc <= 0)
        return rc;
    if (ftruncate(r->put.fd, 0) < 0)
        return molt_error_errno(err, "truncate");
    rc = put_data(&r->put, 0, out, len, err);
    return rc < 0 ? rc : 1;
}

static int stash(struct run *r, const struct molt_action *x, const char *name, struct molt_error **err)
{
    return x->stash ? molt__stash_save(&r->place, r->a->stashfd, x->path, name, err) : 0;
}

/* Opens the directory of x's path, and saves the upgrade's version where the action says so. */
static int place_and_stash(struct run *r, const struct molt_action *x, const char **ret_name, struct molt_error **err)
{
    int rc = molt__place_at(&r->place, x->path, ret_name, err);
    if (rc == 0)
        rc = stash(r, x, *ret_name, err);
    return rc > 0 ? MOLT_E_INTERNAL : rc;
}

/* A directory without the active's xattrs: none (a new one inherits some), or those that the upgrade gave it. */
static int put_dir_own(struct run *r, const struct molt_action *x, const char *name, struct molt_error **err)
{
    static const struct molt_record none;
    char stash[40];
    struct molt_record *own = NULL;
    molt__stash_name(x->path, stash);
    if (x->want.xattr_hash && molt_xattr_hash(r->a->stashfd, stash) == x->want.xattr_hash)
        own = molt__xattrs_of(r->a->stashfd, stash);
    int rc = molt__set_attrs(&r->place, name, &x->want, x->want.xattr_hash ? own : &none, err);
    molt__xattrs_free(own);
    return rc;
}

static int put_dir(struct run *r, const struct molt_action *x, const struct molt_record *rec,
                   struct molt_error **err)
{
    const char *name;
    struct stat st;
    int rc = place_and_stash(r, x, &name, err);
    if (rc < 0)
        return rc;
    int fd = r->place.dirfd;
    molt__place_unlock(&r->place);
    molt__clear_inode_flags(fd, name);
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode)) {
        unlinkat(fd, name, 0);
    }
    if (mkdirat(fd, name, 0700) < 0 && errno != EEXIST) {
        CLEANUP_FREE char *text = molt_path_text(x->path);
        return molt_error_errno(err, "make the directory %s", text);
    }
    return rec ? molt__set_attrs(&r->place, name, &x->want, rec, err) : put_dir_own(r, x, name, err);
}

static int delete_path(struct run *r, const struct molt_action *x, struct molt_error **err)
{
    const char *name;
    CLEANUP_ERROR struct molt_error *missing = NULL;
    int rc = molt__place_at(&r->place, x->path, &name, &missing);
    if (rc > 0)
        return 0;
    if (rc < 0) {
        molt_error_move(err, MOLT_STEAL_PTR(missing));
        return rc;
    }
    rc = stash(r, x, name, err);
    if (rc < 0)
        return rc;
    molt__place_unlock(&r->place);
    molt__clear_inode_flags(r->place.dirfd, name);
    if (unlinkat(r->place.dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno == EISDIR && unlinkat(r->place.dirfd, name, AT_REMOVEDIR) == 0)
        return 0;
    CLEANUP_FREE char *text = molt_path_text(x->path);
    if (errno == ENOTEMPTY || errno == EBUSY) {
        molt_warn(r->a->log, "%s: kept, it is not empty", text);
        r->a->not_empty++;
        return 0;
    }
    return molt_error_errno(err, "delete %s", text);
}

static int hardlink(struct run *r, const struct molt_action *x, struct molt_error **err)
{
    const char *name, *src;
    int rc = place_and_stash(r, x, &name, err);
    if (rc < 0)
        return rc;
    CLEANUP_CLOSE int fd = molt_open_parent(r->a->rootfd, x->link, &src);
    rc = fd < 0 ? 1 : molt__link_over(&r->place, fd, src, name, err);
    if (rc > 0) {
        r->a->vanished++;
        return 0;
    }
    if (rc == 0) /* no link can be made to an immutable file: they were taken off */
        molt__set_inode_flags(&r->place, name, &x->want);
    return rc;
}

/* Names in the stash for what is to be moved; not those of the upgrade's versions. */
static void kept_name(const char *path, char name[48])
{
    name[0] = 'm';
    molt__stash_name(path, name + 1);
}

/* Before anything is put where it lies, or deleted. */
static int keep(struct run *r, const struct molt_action *x, struct molt_error **err)
{
    const char *name;
    char kept[48];
    int rc = molt__place_at(&r->place, x->path, &name, err);
    if (rc != 0)
        return rc > 0 ? MOLT_E_STATE : rc;
    kept_name(x->path, kept);
    molt__clear_inode_flags(r->place.dirfd, name);
    unlinkat(r->a->stashfd, kept, 0);
    return linkat(r->place.dirfd, name, r->a->stashfd, kept, 0) < 0 ? molt_error_errno(err, "keep what is to be moved") : 0;
}

static int move_kept(struct run *r, const struct molt_action *x, const struct molt_record *rec, struct molt_error **err)
{
    const char *name;
    char kept[48];
    int rc = place_and_stash(r, x, &name, err);
    if (rc < 0)
        return rc;
    kept_name(x->link, kept);
    rc = molt__link_over(&r->place, r->a->stashfd, kept, name, err);
    if (rc > 0)
        return molt_error_set(err, MOLT_E_STATE, "changed in the upgraded tree while it was merged");
    if (rc == 0)
        rc = molt__set_attrs(&r->place, name, &x->want, rec, err);
    unlinkat(r->a->stashfd, kept, 0);
    if (rc == 0)
        molt__set_inode_flags(&r->place, name, &x->want);
    return rc;
}

/* The active's file has the number of the tree's own, which is nobody's program and no version that has to be kept. */
static bool keeps_inode(const struct run *r)
{
    const struct molt_action *x = r->cur;
    struct statx st;
    return x->act == MOLT_ACT_PUT && !x->stash && x->active->type == MOLT_T_REG && x->active->nlink == 1 &&
           statx(r->place.dirfd, r->name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &st) == 0 && S_ISREG(st.stx_mode) && st.stx_ino == x->active->ino &&
           st.stx_nlink == 1 && !(st.stx_mode & 0111) && !(st.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND));
}

static int restore_begin(void *ctx, size_t index, const struct molt_record *rec, struct molt_error **err)
{
    struct run *r = ctx;
    (void)index;
    r->rec = rec;
    r->skip = rec->vanished || rec->e.type == MOLT_T_DIR;
    return r->skip ? 0 : put_begin(&r->put, &r->place, &rec->e, err);
}

static int on_data(void *ctx, uint64_t off, const void *p, size_t len, struct molt_error **err)
{
    enum { PAGE = 4096 };
    struct run *r = ctx;
    const char *s = p;
    if (r->skip)
        return 0;
    if (!r->put.in_place || r->put.whole) {
        int rc = put_gap(&r->put, off, err);
        r->put.end = off + len;
        return rc < 0 ? rc : put_data(&r->put, off, p, len, err);
    }
    while (len) {
        size_t n = len < PAGE ? len : PAGE;
        bool zero = all_zero(s, n);
        while (n < len && all_zero(s + n, len - n < PAGE ? len - n : PAGE) == zero)
            n += len - n < PAGE ? len - n : PAGE;
        int rc = zero && put_hole(&r->put, off, n) ? 0 : put_data(&r->put, off, s, n, err);
        if (rc < 0)
            return rc;
        s += n;
        off += n;
        len -= n;
    }
    return 0;
}

static int end_size(struct run *r, uint64_t size, struct molt_error **err)
{
    if (r->put.fd < 0)
        return 0;
    int rc = put_gap(&r->put, size, err);
    if (rc == 0 && ftruncate(r->put.fd, (off_t)size) < 0)
        return molt_error_errno(err, "truncate");
    return rc;
}

static int restore_end(void *ctx, uint64_t size, struct molt_error **err)
{
    struct run *r = ctx;
    if (r->skip)
        return 0;
    int rc = end_size(r, size, err);
    return rc < 0 ? rc : put_end(&r->put, r->name, &r->rec->e, r->rec, err);
}

/* A file of its own at x's path, as it is in the tree at fd: a pack from one directory of ours into the other, by way of a
 * file. Leaves r->rec. */
static int copy_anew(struct run *r, const struct molt_action *x, int from, struct molt_error **err)
{
    const struct molt_record *rec = r->rec;
    CLEANUP_CLOSE int fd = openat(r->a->stashfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return molt_error_errno(err, "make a temporary file in the stash");
    const struct molt_pack_path p = {.path = x->path};
    struct molt_sink sink = molt_sink_fd(&fd);
    int rc = molt_pack_send(from, &p, 1, &sink, err);
    if (rc < 0)
        return rc;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return molt_error_errno(err, "seek");
    struct molt_source src = molt_source_fd(&fd);
    const struct molt_pack_handler h = {restore_begin, on_data, restore_end, r};
    rc = molt_pack_recv(&src, &p, 1, &h, NULL, err);
    r->rec = rec;
    r->skip = false;
    return rc;
}

/* Saving the upgrade's version and replacing it took the inode flags off, under all its names. */
static void settle_stash(struct run *r, const struct molt_action *x)
{
    char name[40];
    if (!x->stash || !x->upgrade || !(x->upgrade->flags & MOLT_EF_INODE))
        return;
    struct molt__place at = {.dirfd = r->a->stashfd};
    molt__stash_name(x->path, name);
    molt__set_inode_flags(&at, name, x->upgrade);
}

/* In place: attributes only. What the clone lost since it was scanned is counted, not mourned. */
static int set_meta(struct run *r, const struct molt_action *x, const struct molt_record *rec,
                    struct molt_error **err)
{
    const char *name;
    struct stat st;
    CLEANUP_ERROR struct molt_error *missing = NULL;
    int rc = molt__place_at(&r->place, x->path, &name, &missing);
    if (rc < 0) {
        molt_error_move(err, MOLT_STEAL_PTR(missing));
        return rc;
    }
    if (rc > 0 || fstatat(r->place.dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        CLEANUP_FREE char *text = molt_path_text(x->path);
        molt_warn(r->a->log, "%s: not there any more", text);
        r->a->vanished++;
        return 0;
    }
    if (!S_ISDIR(st.st_mode) && x->act == MOLT_ACT_DIR_META)
        return 0;
    if (x->unshare) {
        r->name = name;
        rc = stash(r, x, name, err);
        if (rc == 0)
            rc = copy_anew(r, x, r->a->rootfd, err);
        if (rc < 0)
            return rc;
    }
    molt__clear_inode_flags(r->place.dirfd, name);
    rc = molt__set_attrs(&r->place, name, &x->want, rec, err);
    if (rc == 0)
        molt__set_inode_flags(&r->place, name, &x->want);
    return rc;
}

static int restore(struct run *r, const struct molt_action *x, struct molt_error **err)
{
    char name[40];
    int rc = molt__place_at(&r->place, x->path, &r->name, err);
    if (rc != 0)
        return rc > 0 ? MOLT_E_INTERNAL : rc;
    molt__stash_name(x->path, name);
    rc = molt__link_over(&r->place, r->a->stashfd, name, r->name, err);
    if (rc == 0)
        molt__set_inode_flags(&r->place, r->name, &x->want);
    if (rc <= 0)
        return rc;
    if (molt_entry_same_inode(x->base, x->upgrade))
        return copy_anew(r, x, r->a->basefd, err); /* the base's version is the upgrade's */
    return set_meta(r, x, NULL, err); /* only its attributes were ever touched */
}

static int keep_beside(struct run *r, const struct molt_action *x, struct molt_error **err)
{
    int rc = place_and_stash(r, x, &r->name, err);
    r->cur = x;
    return rc < 0 ? rc : lay_beside(r, err);
}

static int act_now(struct run *r, const struct molt_action *x, struct molt_error **err)
{
    r->a->done++;
    switch (x->act) {
    case MOLT_ACT_PUT_DIR:
        return put_dir(r, x, NULL, err);
    case MOLT_ACT_KEEP:
        return keep(r, x, err);
    case MOLT_ACT_MOVE:
        return move_kept(r, x, NULL, err);
    case MOLT_ACT_HARDLINK:
        return hardlink(r, x, err);
    case MOLT_ACT_SET_META:
    case MOLT_ACT_DIR_META:
        return set_meta(r, x, NULL, err);
    case MOLT_ACT_RESTORE:
        return restore(r, x, err);
    case MOLT_ACT_UNBESIDE:
        return unbeside(r, x, err);
    case MOLT_ACT_DELETE:
        return delete_path(r, x, err);
    case MOLT_ACT_KEEP_BESIDE: {
        int rc = keep_beside(r, x, err);
        return rc < 0 ? rc : delete_path(r, x, err);
    }
    case MOLT_ACT_PUT:
    case MOLT_ACT_APPEND:
    case MOLT_ACT_MERGE_TEXT:
    case MOLT_ACT_BESIDE:
        break;
    }
    return molt_error_set(err, MOLT_E_INTERNAL, "%s without a record", molt_act_name(x->act));
}

static int catch_up(struct run *r, size_t until, struct molt_error **err)
{
    for (; r->next < until; r->next++) {
        const struct molt_action *x = &r->plan->v[r->next];
        int rc = act_now(r, x, err);
        settle_stash(r, x);
        if (rc < 0) {
            CLEANUP_FREE char *text = molt_path_text(x->path);
            return molt_error_prefix(err, "%s %s", molt_act_name(x->act), text);
        }
    }
    return 0;
}

static int on_begin(void *ctx, size_t index, const struct molt_record *rec, struct molt_error **err)
{
    struct run *r = ctx;
    char beside[MOLT_BESIDE_LIMIT];
    int rc = catch_up(r, r->want->action[index], err);
    if (rc < 0)
        return rc;
    const struct molt_action *x = r->cur = &r->plan->v[r->next++];
    r->rec = rec;
    r->skip = rec->vanished || !x->active || rec->e.type != x->active->type;
    if (r->skip) {
        r->a->vanished++;
        return 0;
    }
    r->a->done++;
    if (x->act == MOLT_ACT_PUT_DIR || x->act == MOLT_ACT_SET_META || x->act == MOLT_ACT_MOVE)
        return 0;
    rc = molt__place_at(&r->place, x->path, &r->name, err);
    if (rc != 0)
        return rc > 0 ? MOLT_E_INTERNAL : rc;
    if (!rec->differences) {
        rc = keeps_inode(r) ? put_begin_over(&r->put, &r->place, r->name, &rec->e, err) : 1;
        return rc > 0 ? put_begin(&r->put, &r->place, &rec->e, err) : rc;
    }
    if (x->act == MOLT_ACT_BESIDE)
        molt__beside_name(r->name, beside);
    return put_begin_in_place(&r->put, &r->place, x->act == MOLT_ACT_BESIDE ? beside : r->name, &r->want->had[index], err);
}

/* Puts the file in place. Of one that is made of both sides, the extended attributes may be the upgrade's: the record has
 * the active's. */
static int end_put(struct run *r, struct molt_error **err)
{
    const struct molt_action *x = r->cur;
    const struct molt_entry *u = x->upgrade;
    if (!u || x->want.xattr_hash == x->active->xattr_hash || x->want.xattr_hash != u->xattr_hash)
        return put_end(&r->put, r->name, &x->want, r->rec, err);
    char name[40];
    struct stat st;
    molt__stash_name(x->path, name);
    bool stashed = fstatat(r->a->stashfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    struct molt_record *own = molt__xattrs_of(stashed ? r->a->stashfd : r->place.dirfd, stashed ? name : r->name);
    int rc = put_end(&r->put, r->name, &x->want, own, err);
    molt__xattrs_free(own);
    return rc;
}

static int end_content(struct run *r, uint64_t size, struct molt_error **err)
{
    const struct molt_action *x = r->cur;
    char beside[MOLT_BESIDE_LIMIT];
    int rc = end_size(r, size, err);
    if (rc == 0)
        rc = stash(r, x, r->name, err);
    if (rc < 0)
        return rc;
    switch (x->act) {
    case MOLT_ACT_APPEND:
        rc = append_upgrade(r, size, err);
        break;
    case MOLT_ACT_MERGE_TEXT:
        rc = merge_texts(r, err);
        if (rc >= 0 && r->a->merged)
            r->a->merged(r->a->ctx, x, rc == 0);
        snprintf(beside, sizeof(beside), "%s" MOLT_BESIDE_UPGRADE, r->name);
        if (rc == 0)
            rc = lay_beside(r, err);
        else if (rc > 0)
            remove_beside(r, beside);
        break;
    case MOLT_ACT_KEEP_BESIDE:
        rc = lay_beside(r, err);
        break;
    case MOLT_ACT_BESIDE:
        molt__beside_name(r->name, beside);
        return put_end(&r->put, beside, &x->want, r->rec, err);
    default:
        break;
    }
    return rc < 0 ? rc : end_put(r, err);
}

static int on_end(void *ctx, uint64_t size, struct molt_error **err)
{
    struct run *r = ctx;
    if (r->skip)
        return 0;
    int rc = r->cur->act == MOLT_ACT_PUT_DIR    ? put_dir(r, r->cur, r->rec, err)
             : r->cur->act == MOLT_ACT_SET_META ? set_meta(r, r->cur, r->rec, err)
             : r->cur->act == MOLT_ACT_MOVE     ? move_kept(r, r->cur, r->rec, err)
                                                : end_content(r, size, err);
    settle_stash(r, r->cur);
    return rc;
}

int molt_apply_plan(struct molt_apply *a, const struct molt_plan *plan, const struct molt_wants *want,
                    const struct molt_source *src, struct molt_error **err)
{
    struct run r = {.a = a, .plan = plan, .want = want, .put.fd = -1};
    r.place = (struct molt__place){.rootfd = a->rootfd, .dirfd = -1, .log = a->log};
    const struct molt_pack_handler h = {on_begin, on_data, on_end, &r};
    int rc = want->n ? molt_pack_recv(src, want->v, want->n, &h, &a->bytes, err) : 0;
    if (rc == 0)
        rc = catch_up(&r, plan->n, err);
    put_drop(&r.put);
    molt__place_done(&r.place);
    if (rc == 0 && plan->n && !a->no_sync) {
        CLEANUP_CLOSE int fd = molt_open_beneath(a->rootfd, "", O_RDONLY | O_DIRECTORY);
        if (fd < 0 || syncfs(fd) < 0)
            rc = molt_error_errno(err, "syncfs");
    }
    return rc;
}
