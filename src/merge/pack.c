/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A record is a head block (flags, path, attributes, xattrs) and, for a regular file with content, data
 * blocks {1, offset, bytes} and an end block {0, size}. Blocks carry their length and checksum (wire.h).
 */
#include "merge/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"

#define MAGIC_PATHS    0x32504d58u /* XMP2 */
#define MAGIC_HEAD     0x31484d58u /* XMH1 */
#define HEAD_MAX       (8u << 20)
#define XATTRS_MAX     4096u
#define HASH_BYTES     8
#define FLAG_VANISHED  1u
#define FLAG_META_ONLY 2u
#define FLAG_DIFFERENCES 4u

void molt_pack_paths_encode(const struct molt_pack_path *v, size_t n, struct molt_strbuf *out)
{
    molt_put_num(out, MAGIC_PATHS);
    molt_put_num(out, n);
    for (size_t i = 0; i < n; i++) {
        molt_put_num(out, v[i].meta_only);
        molt_put_bytes(out, v[i].path, strlen(v[i].path));
        molt_put_num(out, v[i].n_have);
        for (size_t k = 0; k < v[i].n_have; k++) {
            unsigned char le[HASH_BYTES];
            molt_put_le64(le, v[i].have[k]);
            molt_strbuf_add(out, le, sizeof(le));
        }
    }
}

/* The hashes behind a path, into h. */
static bool get_hashes(struct molt_mem *m, uint64_t *h, size_t *ret_n)
{
    uint64_t n;
    if (!molt_get_num(m, &n) || n > (m->len - m->off) / HASH_BYTES)
        return false;
    for (uint64_t i = 0; i < n; i++, m->off += HASH_BYTES)
        h[i] = molt_get_le64(m->p + m->off);
    *ret_n = n;
    return true;
}

int molt_pack_paths_decode(const void *p, size_t len, struct molt_pack_path **ret, size_t *ret_n,
                           struct molt_error **err)
{
    struct molt_mem m = {p, len, 0};
    uint64_t magic, n;
    if (!molt_get_num(&m, &magic) || magic != MAGIC_PATHS || !molt_get_num(&m, &n) || n > len / 3)
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed list of paths");
    /* Strings with their NUL and hashes fit into len: each had a length byte, or its own bytes there. */
    CLEANUP_FREE struct molt_pack_path *v = molt_xmalloc(n * sizeof(*v) + len / HASH_BYTES * HASH_BYTES + len + 1);
    uint64_t *h = (uint64_t *)(v + n);
    char *s = (char *)(h + len / HASH_BYTES);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t meta;
        const unsigned char *b;
        size_t blen;
        if (!molt_get_num(&m, &meta) || meta > 1 || !molt_get_bytes(&m, MOLT_PATH_LIMIT, &b, &blen) ||
            !molt_path_valid((const char *)b, blen, true))
            return molt_error_set(err, MOLT_E_PROTOCOL, "malformed path in a list");
        memcpy(s, b, blen);
        s[blen] = '\0';
        v[i] = (struct molt_pack_path){.path = s, .meta_only = meta, .have = h};
        if (!get_hashes(&m, h, &v[i].n_have) || (meta && v[i].n_have))
            return molt_error_set(err, MOLT_E_PROTOCOL, "malformed hashes in a list");
        h += v[i].n_have;
        s += blen + 1;
    }
    if (m.off != m.len)
        return molt_error_set(err, MOLT_E_PROTOCOL, "bytes behind a list of paths");
    *ret = MOLT_STEAL_PTR(v);
    *ret_n = n;
    return 0;
}

/* {count, (name, value)*}; xattrs that vanish meanwhile are left out. */
static void put_xattrs(struct molt_strbuf *b, int dirfd, const char *name)
{
    char path[MOLT_NAME_LIMIT + 40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd, name);
    CLEANUP_FREE char *list = molt_xmalloc(XATTR_LIST_MAX);
    CLEANUP_STRBUF struct molt_strbuf out = MOLT_STRBUF_INIT;
    ssize_t len = llistxattr(path, list, XATTR_LIST_MAX);
    CLEANUP_FREE char *value = len > 0 ? molt_xmalloc(XATTR_SIZE_MAX) : NULL;
    size_t n = 0;
    for (ssize_t i = 0; i < len && n < XATTRS_MAX && out.len < HEAD_MAX / 2;
         i += (ssize_t)strlen(list + i) + 1) {
        ssize_t vlen = lgetxattr(path, list + i, value, XATTR_SIZE_MAX);
        if (vlen < 0)
            continue;
        molt_put_bytes(&out, list + i, strlen(list + i));
        molt_put_bytes(&out, value, (size_t)vlen);
        n++;
    }
    molt_put_num(b, n);
    if (n)
        molt_strbuf_add(b, out.s, out.len);
}

static int send_block(const struct molt_sink *sink, struct molt_strbuf *b, struct molt_error **err)
{
    int rc = molt_block_write(sink, b->s, b->len, err);
    b->len = 0;
    return rc;
}

static int send_data(const struct molt_sink *sink, struct molt_strbuf *b, uint64_t off, const char *p,
                     size_t n, struct molt_error **err)
{
    molt_put_num(b, 1);
    molt_put_num(b, off);
    molt_strbuf_add(b, p, n);
    return send_block(sink, b, err);
}

static int send_end(const struct molt_sink *sink, struct molt_strbuf *b, uint64_t size, struct molt_error **err)
{
    molt_put_num(b, 0);
    molt_put_num(b, size);
    return send_block(sink, b, err);
}

/* Data extents up to the size that the file had at first; a file cut short meanwhile ends where it ends. */
static int send_content(int fd, uint64_t size, const struct molt_sink *sink, struct molt_strbuf *b,
                        struct molt_error **err)
{
    CLEANUP_FREE char *buf = molt_xmalloc(MOLT_PACK_CHUNK);
    for (uint64_t off = 0; off < size;) {
        off_t data = lseek(fd, (off_t)off, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        off_t hole = data < 0 ? (off_t)size : lseek(fd, data, SEEK_HOLE);
        if (data >= 0)
            off = (uint64_t)data;
        uint64_t end = hole < 0 || (uint64_t)hole > size ? size : (uint64_t)hole;
        while (off < end) {
            size_t want = end - off < MOLT_PACK_CHUNK ? end - off : MOLT_PACK_CHUNK;
            ssize_t r = molt_pread_all(fd, buf, want, off);
            if (r < 0)
                return molt_error_errno(err, "read");
            if (r == 0) {
                size = end = off;
                break;
            }
            int rc = send_data(sink, b, off, buf, (size_t)r, err);
            if (rc < 0)
                return rc;
            off += (uint64_t)r;
        }
    }
    return send_end(sink, b, size, err);
}

int molt_pack_hash_blocks(int fd, uint64_t size, uint64_t **ret, size_t *ret_n, struct molt_error **err)
{
    size_t n = size / MOLT_PACK_BLOCK, i = 0;
    CLEANUP_FREE char *buf = molt_xmalloc(MOLT_PACK_BLOCK);
    CLEANUP_FREE uint64_t *h = molt_xcalloc(n + 1, sizeof(*h));
    for (; i < n; i++) {
        ssize_t r = molt_pread_all(fd, buf, MOLT_PACK_BLOCK, (uint64_t)i * MOLT_PACK_BLOCK);
        if (r < 0)
            return molt_error_errno(err, "read");
        if (r < (ssize_t)MOLT_PACK_BLOCK)
            break;
        h[i] = XXH3_64bits(buf, MOLT_PACK_BLOCK);
    }
    *ret = MOLT_STEAL_PTR(h);
    *ret_n = i;
    return 0;
}

/* Holes are read like data: what lies at their place over there may be something else. */
static int send_differences(int fd, uint64_t size, const struct molt_pack_path *p, const struct molt_sink *sink,
                            struct molt_strbuf *b, struct molt_error **err)
{
    CLEANUP_FREE char *buf = molt_xmalloc(MOLT_PACK_BLOCK);
    for (uint64_t off = 0, i = 0; off < size; i++) {
        size_t want = size - off < MOLT_PACK_BLOCK ? size - off : MOLT_PACK_BLOCK;
        ssize_t r = molt_pread_all(fd, buf, want, off);
        if (r < 0)
            return molt_error_errno(err, "read");
        if ((size_t)r < want)
            size = off + (uint64_t)r;
        bool same = r == (ssize_t)MOLT_PACK_BLOCK && i < p->n_have && XXH3_64bits(buf, MOLT_PACK_BLOCK) == p->have[i];
        int rc = same || r == 0 ? 0 : send_data(sink, b, off, buf, (size_t)r, err);
        if (rc < 0)
            return rc;
        off += (uint64_t)r;
    }
    return send_end(sink, b, size, err);
}

static void put_head(struct molt_strbuf *b, const char *path, unsigned flags)
{
    b->len = 0;
    molt_put_num(b, MAGIC_HEAD);
    molt_put_num(b, flags);
    molt_put_bytes(b, path, strlen(path));
}

static uint8_t type_of(unsigned mode)
{
    static const struct {
        unsigned mode;
        uint8_t type;
    } map[] = {{S_IFREG, MOLT_T_REG}, {S_IFDIR, MOLT_T_DIR},  {S_IFLNK, MOLT_T_LNK},  {S_IFCHR, MOLT_T_CHR},
               {S_IFBLK, MOLT_T_BLK}, {S_IFIFO, MOLT_T_FIFO}, {S_IFSOCK, MOLT_T_SOCK}};
    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
        if ((mode & S_IFMT) == map[i].mode)
            return map[i].type;
    return 0;
}

/* Puts the rest of the head. False: it cannot be read (vanished). *ret_fd is open for a regular file with
 * content. */
static bool put_attrs(struct molt_strbuf *b, int dirfd, const char *name, bool meta_only, int *ret_fd,
                      uint64_t *ret_size)
{
    struct statx st;
    if (statx(dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &st) < 0)
        return false;
    CLEANUP_CLOSE int fd = -1;
    if (S_ISREG(st.stx_mode) && !meta_only) {
        fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOATIME);
        if (fd < 0 && errno == EPERM)
            fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) < 0 || !S_ISREG(st.stx_mode))
            return false;
    }
    unsigned flags = (st.stx_attributes & STATX_ATTR_IMMUTABLE ? MOLT_EF_IMMUTABLE : 0) |
                     (st.stx_attributes & STATX_ATTR_APPEND ? MOLT_EF_APPEND : 0);
    uint8_t type = type_of(st.stx_mode);
    molt_put_num(b, type);
    molt_put_num(b, flags);
    molt_put_num(b, st.stx_mode & 07777);
    molt_put_num(b, st.stx_uid);
    molt_put_num(b, st.stx_gid);
    molt_put_num(b, S_ISREG(st.stx_mode) ? st.stx_size : 0);
    molt_put_num(b, type == MOLT_T_CHR || type == MOLT_T_BLK ? makedev(st.stx_rdev_major, st.stx_rdev_minor)
                                                             : 0);
    molt_put_snum(b, st.stx_mtime.tv_sec * INT64_C(1000000000) + st.stx_mtime.tv_nsec);
    if (type == MOLT_T_LNK) {
        CLEANUP_FREE char *target = molt_xmalloc(MOLT_PATH_LIMIT);
        ssize_t n = readlinkat(dirfd, name, target, MOLT_PATH_LIMIT);
        if (n <= 0)
            return false;
        molt_put_bytes(b, target, (size_t)n);
    }
    put_xattrs(b, dirfd, name);
    *ret_size = st.stx_size;
    *ret_fd = MOLT_STEAL_FD(fd);
    return true;
}

static int send_one(int rootfd, const struct molt_pack_path *p, const struct molt_sink *sink,
                    struct molt_strbuf *b, struct molt_error **err)
{
    const char *name;
    uint64_t size = 0;
    CLEANUP_CLOSE int fd = -1;
    CLEANUP_CLOSE int dirfd = molt_open_parent(rootfd, p->path, &name);
    put_head(b, p->path, p->meta_only ? FLAG_META_ONLY : p->n_have ? FLAG_DIFFERENCES : 0);
    if (dirfd < 0 || !put_attrs(b, dirfd, *name ? name : ".", p->meta_only, &fd, &size)) {
        put_head(b, p->path, FLAG_VANISHED);
        return send_block(sink, b, err);
    }
    int rc = send_block(sink, b, err);
    if (rc == 0 && fd >= 0)
        rc = p->n_have ? send_differences(fd, size, p, sink, b, err) : send_content(fd, size, sink, b, err);
    return rc;
}

int molt_pack_send(int rootfd, const struct molt_pack_path *v, size_t n, const struct molt_sink *sink,
                   struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    for (size_t i = 0; i < n; i++) {
        int rc = send_one(rootfd, &v[i], sink, &b, err);
        if (rc < 0) {
            CLEANUP_FREE char *text = molt_path_text(v[i].path);
            return molt_error_prefix(err, "send %s", text);
        }
    }
    return 0;
}

static char *take_string(const unsigned char *p, size_t n)
{
    return memchr(p, '\0', n) ? NULL : molt_xstrndup((const char *)p, n);
}

/* Values stay in the head's buffer, names and target are copied (they need a NUL). */
static bool get_rest(struct molt_mem *m, struct molt_record *r)
{
    uint64_t type, flags, mode, uid, gid, n;
    const unsigned char *p;
    size_t len;
    if (!molt_get_num(m, &type) || type == 0 || type > MOLT_T_MAX || !molt_get_num(m, &flags) ||
        (flags & ~(uint64_t)MOLT_EF_INODE) || !molt_get_num(m, &mode) || mode > 07777 ||
        !molt_get_num(m, &uid) || uid > UINT32_MAX || !molt_get_num(m, &gid) || gid > UINT32_MAX ||
        !molt_get_num(m, &r->e.size) || r->e.size > INT64_MAX || !molt_get_num(m, &r->e.rdev) ||
        !molt_get_snum(m, &r->e.mtime_ns))
        return false;
    r->e.type = (uint8_t)type;
    r->e.flags = (uint8_t)flags;
    r->e.mode = (uint32_t)mode;
    r->e.uid = (uint32_t)uid;
    r->e.gid = (uint32_t)gid;
    if (type == MOLT_T_LNK &&
        (!molt_get_bytes(m, MOLT_PATH_LIMIT, &p, &len) || len == 0 || !(r->e.target = take_string(p, len))))
        return false;
    if (!molt_get_num(m, &n) || n > XATTRS_MAX)
        return false;
    r->xattrs = molt_xcalloc(n, sizeof(*r->xattrs));
    for (; r->n_xattrs < n; r->n_xattrs++) {
        struct molt_xattr *x = &r->xattrs[r->n_xattrs];
        if (!molt_get_bytes(m, XATTR_NAME_MAX, &p, &len) || len == 0 || !(x->name = take_string(p, len)))
            return false;
        if (!molt_get_bytes(m, XATTR_SIZE_MAX, &x->value, &x->len)) {
            free((char *)x->name);
            return false;
        }
    }
    return m->off == m->len;
}

static void record_free(struct molt_record *r)
{
    for (size_t i = 0; i < r->n_xattrs; i++)
        free((char *)r->xattrs[i].name);
    free(r->xattrs);
    free((char *)r->e.target);
    free(r->buf);
}

static int get_head(const struct molt_source *src, const struct molt_pack_path *want, struct molt_record *r,
                    struct molt_error **err)
{
    size_t len, plen;
    uint64_t magic, flags;
    const unsigned char *p;
    int rc = molt_block_read(src, HEAD_MAX, &r->buf, &len, err);
    if (rc < 0)
        return rc;
    struct molt_mem m = {(unsigned char *)r->buf, len, 0};
    if (!molt_get_num(&m, &magic) || magic != MAGIC_HEAD || !molt_get_num(&m, &flags) ||
        !molt_get_bytes(&m, MOLT_PATH_LIMIT, &p, &plen))
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed record");
    if (plen != strlen(want->path) || memcmp(p, want->path, plen) != 0)
        return molt_error_set(err, MOLT_E_PROTOCOL, "a record for another path than was asked for");
    r->e.path = want->path;
    r->vanished = flags == FLAG_VANISHED;
    r->meta_only = flags == FLAG_META_ONLY;
    r->differences = flags == FLAG_DIFFERENCES;
    unsigned expected = want->meta_only ? FLAG_META_ONLY : want->n_have ? FLAG_DIFFERENCES : 0;
    if (!r->vanished && (flags != expected || !get_rest(&m, r)))
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed record");
    return 0;
}

/* 1: the end came, *ret_size is set; 0: data was handed over. */
static int get_chunk(const struct molt_source *src, const struct molt_pack_handler *h, uint64_t *next,
                     uint64_t *bytes, uint64_t *ret_size, struct molt_error **err)
{
    CLEANUP_FREE char *buf = NULL;
    size_t len;
    uint64_t kind, off;
    int rc = molt_block_read(src, MOLT_PACK_CHUNK + 32, &buf, &len, err);
    if (rc < 0)
        return rc;
    struct molt_mem m = {(unsigned char *)buf, len, 0};
    if (!molt_get_num(&m, &kind) || kind > 1 || !molt_get_num(&m, &off) || off < *next || off > INT64_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed chunk");
    size_t n = len - m.off;
    if (kind == 0) {
        *ret_size = off;
        return n ? molt_error_set(err, MOLT_E_PROTOCOL, "malformed end of a file") : 1;
    }
    if (n == 0 || n > MOLT_PACK_CHUNK || off > (uint64_t)INT64_MAX - n)
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed chunk");
    *next = off + n;
    *bytes += n;
    return h->data(h->ctx, off, m.p + m.off, n, err);
}

static int recv_one(const struct molt_source *src, const struct molt_pack_path *want, size_t index,
                    const struct molt_pack_handler *h, uint64_t *bytes, struct molt_error **err)
{
    struct molt_record r = {.n_xattrs = 0};
    int rc = get_head(src, want, &r, err);
    if (rc == 0)
        rc = h->begin(h->ctx, index, &r, err);
    uint64_t next = 0, size = 0;
    if (!r.vanished && !r.meta_only && r.e.type == MOLT_T_REG) {
        while (rc == 0)
            rc = get_chunk(src, h, &next, bytes, &size, err);
        rc = rc == 1 ? 0 : rc;
    }
    if (rc == 0)
        rc = h->end(h->ctx, size, err);
    record_free(&r);
    return rc;
}

int molt_pack_recv(const struct molt_source *src, const struct molt_pack_path *v, size_t n,
                   const struct molt_pack_handler *h, uint64_t *bytes, struct molt_error **err)
{
    uint64_t ignored = 0;
    for (size_t i = 0; i < n; i++) {
        int rc = recv_one(src, &v[i], i, h, bytes ? bytes : &ignored, err);
        if (rc < 0) {
            CLEANUP_FREE char *text = molt_path_text(v[i].path);
            return molt_error_prefix(err, "receive %s", text);
        }
    }
    return 0;
}
