/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The serving side: what the active answers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/merge.h"

#define REASON_MAX 160

struct molt_merge_server {
    int rootfd;
    const char *const *exclude;
    struct molt_manifest *last; /* of the last scan */
    bool told_last;             /* and the other side knows it, and nothing newer */
    bool told;                  /* the other side knows something that is whole up to `position` */
    struct molt_recorder *recorder;
    unsigned index;    /* of our tree among its roots */
    uint64_t position; /* up to where the other side was told */
    char reason[REASON_MAX];
};

struct molt_merge_server *molt_merge_server_new(int rootfd, const char *const *exclude)
{
    struct molt_merge_server *s = molt_xcalloc(1, sizeof(*s));
    s->rootfd = rootfd;
    s->exclude = exclude;
    return s;
}

void molt_merge_server_record(struct molt_merge_server *s, struct molt_recorder *r, unsigned index, const char *why)
{
    s->recorder = r;
    s->index = index;
    snprintf(s->reason, sizeof(s->reason), "%s", why ? why : "");
}

void molt_merge_server_free(struct molt_merge_server *s)
{
    if (!s)
        return;
    molt_manifest_free(s->last);
    free(s);
}

static int write_head(enum molt_merge_since against, const char *reason, const struct molt_sink *sink,
                      struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    molt_put_num(&b, against);
    molt_put_bytes(&b, reason, strlen(reason));
    return molt_block_write(sink, b.s, b.len, err);
}

/* Inodes whose name is not known, under names made of their numbers. */
static int look_at_inodes(const struct molt_merge_server *s, const struct molt_dirty_set *d, struct molt_manifest *ret,
                          struct molt_error **err)
{
    for (size_t i = 0; i < d->n_inodes; i++) {
        char name[32];
        struct molt_entry e;
        if (d->inodes[i].root != s->index)
            continue;
        CLEANUP_CLOSE int fd = molt_recorder_open_inode(s->recorder, &d->inodes[i]);
        if (fd < 0 && errno != ESTALE && errno != ENOENT)
            return molt_error_errno(err, "open a changed file");
        if (fd < 0 || molt_entry_of_fd(fd, &e) < 0)
            continue;
        CLEANUP_FREE char *target = (char *)e.target;
        snprintf(name, sizeof(name), "%016llx", (unsigned long long)e.ino);
        e.path = name;
        e.flags &= MOLT_EF_ALL & ~MOLT_EF_MOUNT;
        if (e.type != MOLT_T_DIR && e.nlink)
            molt_manifest_add(ret, &e);
    }
    molt_manifest_sort(ret);
    return molt_manifest_finish(ret, err);
}

static int serve_recorded(struct molt_merge_server *s, const struct molt_dirty_set *d, const struct molt_sink *sink,
                          struct molt_error **err)
{
    CLEANUP_MANIFEST struct molt_manifest *set = molt_manifest_new(), *drop = molt_manifest_new();
    CLEANUP_MANIFEST struct molt_manifest *inodes = molt_manifest_new();
    CLEANUP_FREE struct molt_look *v = molt_xmalloc((d->n + 1) * sizeof(*v));
    const struct molt_scan_opts o = {.exclude = s->exclude};
    size_t n = molt_dirty_looks(d, s->index, v);
    int rc = molt_manifest_look(s->rootfd, &o, v, n, set, drop, err);
    if (rc == 0)
        rc = look_at_inodes(s, d, inodes, err);
    if (rc == 0)
        rc = write_head(MOLT_SINCE_RECORDED, "", sink, err);
    if (rc == 0)
        rc = molt_manifest_recorded_write(set, drop, inodes, sink, err);
    s->told_last = false;
    return rc;
}

static int serve_scanned(struct molt_merge_server *s, enum molt_merge_since since, const char *reason,
                         const struct molt_sink *sink, struct molt_error **err)
{
    CLEANUP_MANIFEST struct molt_manifest *now = NULL;
    const struct molt_scan_opts o = {.exclude = s->exclude, .ref = s->last};
    bool from_last = since == MOLT_SINCE_LAST && s->told_last;
    int rc = molt_manifest_scan(s->rootfd, &o, &now, err);
    if (rc == 0)
        rc = write_head(from_last ? MOLT_SINCE_LAST : MOLT_SINCE_NOTHING, reason, sink, err);
    if (rc == 0)
        rc = molt_manifest_delta_write(from_last ? s->last : NULL, now, sink, err);
    if (rc == 0) {
        molt_manifest_free(s->last);
        s->last = MOLT_STEAL_PTR(now);
        s->told_last = true;
    }
    return rc;
}

static int serve_delta(struct molt_merge_server *s, const unsigned char *req, size_t len,
                       const struct molt_sink *sink, struct molt_error **err)
{
    enum molt_merge_since since = len ? (enum molt_merge_since)req[0] : MOLT_SINCE_LAST;
    if (len > 1 || since > MOLT_SINCE_BASE)
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed request for changes");
    if (!s->recorder)
        return serve_scanned(s, since, s->reason, sink, err);
    if (since != MOLT_SINCE_LAST)
        s->position = 0;
    /* Before a scan, too: what changes while it runs belongs to the next answer. */
    CLEANUP_DIRTY_SET struct molt_dirty_set *d = molt_recorder_sync(s->recorder, &s->position);
    bool usable = !d->lost && since != MOLT_SINCE_NOTHING && (since == MOLT_SINCE_BASE || s->told);
    int rc = usable ? serve_recorded(s, d, sink, err) : serve_scanned(s, since, d->lost ? d->lost : "", sink, err);
    s->told = rc == 0;
    return rc;
}

static int serve_hashes(struct molt_merge_server *s, const struct molt_pack_path *v, size_t n,
                        const struct molt_sink *sink, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    for (size_t i = 0; i < n; i++) {
        uint64_t h;
        int rc = molt_hash_path(s->rootfd, v[i].path, &h, err);
        if (rc < 0)
            return rc;
        unsigned char le[8];
        molt_put_le64(le, h);
        molt_strbuf_add(&b, le, 8);
    }
    return molt_block_write(sink, b.s, b.len, err);
}

int molt_merge_serve(struct molt_merge_server *s, enum molt_merge_question q, const void *req, size_t len,
                     const struct molt_sink *sink, struct molt_error **err)
{
    if (q == MOLT_MERGE_Q_DELTA)
        return serve_delta(s, req, len, sink, err);
    if (q != MOLT_MERGE_Q_HASHES && q != MOLT_MERGE_Q_PACK)
        return molt_error_set(err, MOLT_E_PROTOCOL, "unknown question %d", (int)q);
    CLEANUP_FREE struct molt_pack_path *v = NULL;
    size_t n;
    int rc = molt_pack_paths_decode(req, len, &v, &n, err);
    if (rc < 0)
        return rc;
    return q == MOLT_MERGE_Q_HASHES ? serve_hashes(s, v, n, sink, err)
                                    : molt_pack_send(s->rootfd, v, n, sink, err);
}
