/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The serving side: what the active answers. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/merge.h"

struct molt_merge_server {
    int rootfd;
    const char *const *exclude;
    struct molt_manifest *last; /* what the other side was told last */
};

struct molt_merge_server *molt_merge_server_new(int rootfd, const char *const *exclude)
{
    struct molt_merge_server *s = molt_xcalloc(1, sizeof(*s));
    s->rootfd = rootfd;
    s->exclude = exclude;
    return s;
}

void molt_merge_server_free(struct molt_merge_server *s)
{
    if (!s)
        return;
    molt_manifest_free(s->last);
    free(s);
}

static int serve_delta(struct molt_merge_server *s, const unsigned char *req, size_t len,
                       const struct molt_sink *sink, struct molt_error **err)
{
    if (len > 1 || (len == 1 && req[0] != 1))
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed request for changes");
    CLEANUP_MANIFEST struct molt_manifest *now = NULL;
    const struct molt_scan_opts o = {.exclude = s->exclude, .ref = s->last};
    int rc = molt_manifest_scan(s->rootfd, &o, &now, err);
    if (rc == 0)
        rc = molt_manifest_delta_write(len ? NULL : s->last, now, sink, err);
    if (rc == 0) {
        molt_manifest_free(s->last);
        s->last = MOLT_STEAL_PTR(now);
    }
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
        for (int k = 0; k < 8; k++)
            le[k] = (unsigned char)(h >> (8 * k));
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
