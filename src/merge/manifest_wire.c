/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Manifests and deltas as bytes. What is read comes from a peer: order, paths and lengths are checked. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/manifest.h"

#define MAGIC_MANIFEST 0x314d4d58u /* XMM1 */
#define MAGIC_DELTA    0x31444d58u /* XMD1 */
#define MAGIC_RECORDED 0x31524d58u /* XMR1 */
#define MAX_ENTRIES    (1u << 26)

static void put_path(struct molt_strbuf *b, const char *last, const char *path)
{
    size_t shared = 0;
    while (path[shared] && path[shared] == last[shared])
        shared++;
    molt_put_num(b, shared);
    molt_put_bytes(b, path + shared, strlen(path + shared));
}

static void put_entry(struct molt_strbuf *b, const char *last, const struct molt_entry *e)
{
    put_path(b, last, e->path);
    molt_put_num(b, e->type);
    molt_put_num(b, e->flags);
    molt_put_num(b, e->mode);
    molt_put_num(b, e->uid);
    molt_put_num(b, e->gid);
    molt_put_num(b, e->nlink);
    molt_put_num(b, e->ino);
    molt_put_num(b, e->size);
    molt_put_num(b, e->rdev);
    molt_put_num(b, e->xattr_hash);
    molt_put_num(b, e->content_hash);
    molt_put_snum(b, e->mtime_ns);
    molt_put_snum(b, e->ctime_ns - e->mtime_ns);
    if (e->type == MOLT_T_LNK)
        molt_put_bytes(b, e->target ? e->target : "", e->target ? strlen(e->target) : 0);
}

/* The path under construction while front-coded paths are read. */
struct reader {
    struct molt_mem m;
    struct molt_strbuf path, target;
};

static bool get_path(struct reader *r)
{
    uint64_t shared;
    const unsigned char *p;
    size_t n;
    if (!molt_get_num(&r->m, &shared) || shared > r->path.len ||
        !molt_get_bytes(&r->m, MOLT_PATH_LIMIT, &p, &n))
        return false;
    r->path.len = shared;
    molt_strbuf_add(&r->path, p, n);
    return molt_path_valid(r->path.s, r->path.len, true);
}

static bool get_u32(struct molt_mem *m, uint32_t max, uint32_t *ret)
{
    uint64_t v;
    if (!molt_get_num(m, &v) || v > max)
        return false;
    *ret = (uint32_t)v;
    return true;
}

static bool get_entry(struct reader *r, struct molt_entry *e)
{
    uint32_t type, flags;
    int64_t dc;
    memset(e, 0, sizeof(*e));
    if (!get_path(r) || !get_u32(&r->m, MOLT_T_MAX, &type) || type == 0 ||
        !get_u32(&r->m, MOLT_EF_ALL, &flags) || !get_u32(&r->m, 07777, &e->mode) ||
        !get_u32(&r->m, UINT32_MAX, &e->uid) || !get_u32(&r->m, UINT32_MAX, &e->gid) ||
        !get_u32(&r->m, UINT32_MAX, &e->nlink) || !molt_get_num(&r->m, &e->ino) ||
        !molt_get_num(&r->m, &e->size) || !molt_get_num(&r->m, &e->rdev) ||
        !molt_get_num(&r->m, &e->xattr_hash) || !molt_get_num(&r->m, &e->content_hash) ||
        !molt_get_snum(&r->m, &e->mtime_ns) || !molt_get_snum(&r->m, &dc))
        return false;
    e->type = (uint8_t)type;
    e->flags = (uint8_t)flags;
    e->ctime_ns = (int64_t)((uint64_t)e->mtime_ns + (uint64_t)dc);
    e->path = molt_strbuf_str(&r->path);
    if (type == MOLT_T_LNK) {
        const unsigned char *p;
        size_t n;
        if (!molt_get_bytes(&r->m, MOLT_PATH_LIMIT, &p, &n) || n == 0 || memchr(p, '\0', n))
            return false;
        r->target.len = 0;
        molt_strbuf_add(&r->target, p, n);
        e->target = r->target.s;
    }
    return r->path.len > 0 || type == MOLT_T_DIR;
}

int molt_manifest_write(const struct molt_manifest *m, const struct molt_sink *sink, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    molt_put_num(&b, MAGIC_MANIFEST);
    molt_put_num(&b, m->n);
    for (size_t i = 0; i < m->n; i++)
        put_entry(&b, i ? m->v[i - 1].path : "", &m->v[i]);
    return molt_block_write(sink, b.s, b.len, err);
}

static int malformed(struct molt_error **err, const char *what)
{
    return molt_error_set(err, MOLT_E_PROTOCOL, "malformed %s", what);
}

static int read_head(const struct molt_source *src, uint64_t magic, char **ret_buf, struct reader *r,
                     uint64_t *ret_n, struct molt_error **err)
{
    size_t len;
    int rc = molt_block_read(src, MOLT_MANIFEST_MAX_BYTES, ret_buf, &len, err);
    if (rc < 0)
        return rc;
    r->m = (struct molt_mem){(unsigned char *)*ret_buf, len, 0};
    molt_strbuf_add(&r->path, "", 0);
    uint64_t got;
    if (!molt_get_num(&r->m, &got) || got != magic)
        return molt_error_set(err, MOLT_E_PROTOCOL, "not a manifest of this version");
    /* An entry has at least 15 bytes, a path 2. */
    if (!molt_get_num(&r->m, ret_n) || *ret_n > MAX_ENTRIES || *ret_n > r->m.len / 15)
        return malformed(err, "manifest: number of entries");
    return 0;
}

int molt_manifest_read(const struct molt_source *src, struct molt_manifest **ret, struct molt_error **err)
{
    CLEANUP_FREE char *buf = NULL;
    CLEANUP_MANIFEST struct molt_manifest *m = molt_manifest_new();
    struct reader r = {.path = MOLT_STRBUF_INIT, .target = MOLT_STRBUF_INIT};
    uint64_t n;
    int rc = read_head(src, MAGIC_MANIFEST, &buf, &r, &n, err);
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        struct molt_entry e;
        if (get_entry(&r, &e))
            molt_manifest_add(m, &e);
        else
            rc = malformed(err, "manifest entry");
    }
    if (rc == 0 && r.m.off != r.m.len)
        rc = malformed(err, "manifest: bytes behind the end");
    if (rc == 0)
        rc = molt_manifest_finish(m, err);
    molt_strbuf_free(&r.path);
    molt_strbuf_free(&r.target);
    if (rc == 0)
        *ret = MOLT_STEAL_PTR(m);
    return rc;
}

int molt_manifest_delta_write(const struct molt_manifest *older, const struct molt_manifest *newer,
                              const struct molt_sink *sink, struct molt_error **err)
{
    static const struct molt_manifest nothing;
    if (!older)
        older = &nothing;
    CLEANUP_STRBUF struct molt_strbuf set = MOLT_STRBUF_INIT, gone = MOLT_STRBUF_INIT, b = MOLT_STRBUF_INIT;
    const char *last_set = "", *last_gone = "";
    size_t n_set = 0, n_gone = 0;
    for (size_t i = 0, j = 0; i < older->n || j < newer->n;) {
        int c = i == older->n ? 1 : j == newer->n ? -1 : molt_path_cmp(older->v[i].path, newer->v[j].path);
        if (c < 0) {
            put_path(&gone, last_gone, older->v[i].path);
            last_gone = older->v[i].path;
            n_gone++;
        } else if (c > 0 || !molt_entry_same_inode(&older->v[i], &newer->v[j])) {
            put_entry(&set, last_set, &newer->v[j]);
            last_set = newer->v[j].path;
            n_set++;
        }
        i += c <= 0;
        j += c >= 0;
    }
    molt_put_num(&b, MAGIC_DELTA);
    molt_put_num(&b, n_set);
    molt_put_num(&b, n_gone);
    molt_strbuf_add(&b, set.s, set.len);
    molt_strbuf_add(&b, gone.s, gone.len);
    return molt_block_write(sink, b.s, b.len, err);
}

static int read_entries(struct reader *r, uint64_t n, struct molt_manifest *m, struct molt_error **err)
{
    r->path.len = 0;
    for (uint64_t i = 0; i < n; i++) {
        struct molt_entry e;
        if (!get_entry(r, &e))
            return malformed(err, "delta entry");
        molt_manifest_add(m, &e);
    }
    return molt_manifest_finish(m, err);
}

/* Reads the entries that are set, then the paths that are gone (as entries of type 0); inodes may be NULL: none follow.
 */
static int read_delta(struct reader *r, uint64_t n_set, struct molt_manifest *set, struct molt_manifest *gone,
                      struct molt_manifest *inodes, struct molt_error **err)
{
    uint64_t n_gone, n_inodes = 0;
    if (!molt_get_num(&r->m, &n_gone) || n_gone > r->m.len / 2)
        return malformed(err, "delta: number of paths");
    int rc = read_entries(r, n_set, set, err);
    if (rc < 0)
        return rc;
    r->path.len = 0;
    for (uint64_t i = 0; i < n_gone; i++) {
        if (!get_path(r))
            return malformed(err, "deleted path");
        molt_manifest_add(gone, &(struct molt_entry){.path = molt_strbuf_str(&r->path)});
    }
    if (inodes && (!molt_get_num(&r->m, &n_inodes) || n_inodes > r->m.len / 15))
        return malformed(err, "delta: number of inodes");
    rc = inodes ? read_entries(r, n_inodes, inodes, err) : 0;
    if (rc < 0)
        return rc;
    if (r->m.off != r->m.len)
        return malformed(err, "delta: bytes behind the end");
    return molt_manifest_finish(gone, err);
}

int molt_manifest_delta_read(const struct molt_manifest *older, const struct molt_source *src,
                             struct molt_manifest **ret, struct molt_error **err)
{
    static const struct molt_manifest nothing;
    if (!older)
        older = &nothing;
    CLEANUP_FREE char *buf = NULL;
    CLEANUP_MANIFEST struct molt_manifest *set = molt_manifest_new(), *gone = molt_manifest_new();
    CLEANUP_MANIFEST struct molt_manifest *m = molt_manifest_new();
    struct reader r = {.path = MOLT_STRBUF_INIT, .target = MOLT_STRBUF_INIT};
    uint64_t n_set;
    int rc = read_head(src, MAGIC_DELTA, &buf, &r, &n_set, err);
    if (rc == 0)
        rc = read_delta(&r, n_set, set, gone, NULL, err);
    molt_strbuf_free(&r.path);
    molt_strbuf_free(&r.target);
    if (rc < 0)
        return rc;
    size_t g = 0;
    for (size_t i = 0, j = 0; i < older->n || j < set->n;) {
        int c = i == older->n ? 1 : j == set->n ? -1 : molt_path_cmp(older->v[i].path, set->v[j].path);
        const struct molt_entry *e = c < 0 ? &older->v[i] : &set->v[j];
        bool drop = g < gone->n && molt_path_cmp(gone->v[g].path, e->path) == 0;
        if (drop && c >= 0)
            return malformed(err, "delta: a path is set and deleted");
        g += drop;
        if (!drop)
            molt_manifest_add(m, e);
        i += c <= 0;
        j += c >= 0;
    }
    if (g != gone->n)
        return malformed(err, "delta: deletes what is not there");
    rc = molt_manifest_finish(m, err);
    if (rc == 0)
        *ret = MOLT_STEAL_PTR(m);
    return rc;
}

int molt_manifest_recorded_write(const struct molt_manifest *set, const struct molt_manifest *drop,
                                 const struct molt_manifest *inodes, const struct molt_sink *sink,
                                 struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    molt_put_num(&b, MAGIC_RECORDED);
    molt_put_num(&b, set->n);
    molt_put_num(&b, drop->n);
    for (size_t i = 0; i < set->n; i++)
        put_entry(&b, i ? set->v[i - 1].path : "", &set->v[i]);
    for (size_t i = 0; i < drop->n; i++)
        put_path(&b, i ? drop->v[i - 1].path : "", drop->v[i].path);
    molt_put_num(&b, inodes->n);
    for (size_t i = 0; i < inodes->n; i++)
        put_entry(&b, i ? inodes->v[i - 1].path : "", &inodes->v[i]);
    return molt_block_write(sink, b.s, b.len, err);
}

/* Directories above the entry that comes next, as indices. */
struct above {
    size_t *v, n, cap;
};

/* What lies in no directory is about to be told anew; until then it is left out. */
static bool has_parent(struct above *a, const struct molt_manifest *m, const char *path)
{
    const char *cut = strrchr(path, '/');
    while (a->n && !molt_path_below(path, m->v[a->v[a->n - 1]].path))
        a->n--;
    return *path == '\0' || (a->n && strlen(m->v[a->v[a->n - 1]].path) == (cut ? (size_t)(cut - path) : 0));
}

/* older, less what is dropped, with set in its place. */
static void join_recorded(struct molt_manifest *older, bool proven, const struct molt_manifest *set,
                         const struct molt_manifest *drop, const struct molt_inodes *inodes, struct molt_manifest *m)
{
    struct above above = {0};
    size_t g = 0;
    for (size_t i = 0, j = 0; i < older->n || j < set->n;) {
        int c = i == older->n ? 1 : j == set->n ? -1 : molt_path_cmp(older->v[i].path, set->v[j].path);
        struct molt_entry *e = c < 0 ? &older->v[i] : &set->v[j];
        while (g < drop->n && molt_path_cmp(drop->v[g].path, e->path) < 0 && !molt_path_below(e->path, drop->v[g].path))
            g++;
        bool keep = c >= 0 || g == drop->n || !molt_path_below(e->path, drop->v[g].path);
        i += c <= 0;
        j += c >= 0;
        if (!keep || !has_parent(&above, m, e->path))
            continue;
        if (c < 0 && proven)
            e->flags &= (uint8_t)~MOLT_EF_RACY;
        struct molt_entry *kept = molt_manifest_add(m, e);
        if (c < 0)
            molt_inodes_follow(inodes, kept);
        if (kept->type == MOLT_T_DIR && !(kept->flags & MOLT_EF_MOUNT)) {
            MOLT_GROW(above.v, above.n, above.cap);
            above.v[above.n++] = m->n - 1;
        }
    }
    free(above.v);
}

int molt_manifest_recorded_parts(const struct molt_source *src, struct molt_manifest **ret_set,
                                 struct molt_manifest **ret_drop, struct molt_manifest **ret_inodes,
                                 struct molt_error **err)
{
    CLEANUP_FREE char *buf = NULL;
    CLEANUP_MANIFEST struct molt_manifest *set = molt_manifest_new(), *drop = molt_manifest_new();
    CLEANUP_MANIFEST struct molt_manifest *inodes = molt_manifest_new();
    struct reader r = {.path = MOLT_STRBUF_INIT, .target = MOLT_STRBUF_INIT};
    uint64_t n_set;
    int rc = read_head(src, MAGIC_RECORDED, &buf, &r, &n_set, err);
    if (rc == 0)
        rc = read_delta(&r, n_set, set, drop, inodes, err);
    molt_strbuf_free(&r.path);
    molt_strbuf_free(&r.target);
    if (rc < 0)
        return rc;
    *ret_set = MOLT_STEAL_PTR(set);
    *ret_drop = MOLT_STEAL_PTR(drop);
    *ret_inodes = MOLT_STEAL_PTR(inodes);
    return 0;
}

int molt_manifest_recorded_read(struct molt_manifest *older, bool proven, const struct molt_source *src,
                                struct molt_manifest **ret, struct molt_error **err)
{
    CLEANUP_MANIFEST struct molt_manifest *set = NULL, *drop = NULL, *inodes = NULL, *m = molt_manifest_new();
    CLEANUP_INODES struct molt_inodes by_ino = {0};
    int rc = molt_manifest_recorded_parts(src, &set, &drop, &inodes, err);
    if (rc < 0)
        return rc;
    molt_inodes_add(&by_ino, set, true);
    molt_inodes_add(&by_ino, inodes, false);
    join_recorded(older, proven, set, drop, &by_ino, m);
    rc = molt_manifest_finish(m, err);
    if (rc == 0)
        *ret = MOLT_STEAL_PTR(m);
    return rc;
}
