/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Manifests in memory: arena, look-up, hard-link signatures, content hashes. */
#include "merge/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/cleanup.h"
#include "base/strbuf.h"

#define ARENA_CHUNK 65536u

struct molt_arena {
    struct arena_chunk {
        struct arena_chunk *next;
        char data[];
    } * chunks;
    size_t used, cap;
};

static char *arena_add(struct molt_arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    if (!a->chunks || a->cap - a->used < n) {
        a->cap = n > ARENA_CHUNK ? n : ARENA_CHUNK;
        struct arena_chunk *c = molt_xmalloc(sizeof(*c) + a->cap);
        c->next = a->chunks;
        a->chunks = c;
        a->used = 0;
    }
    char *p = a->chunks->data + a->used;
    memcpy(p, s, n);
    a->used += n;
    return p;
}

struct molt_manifest *molt_manifest_new(void)
{
    struct molt_manifest *m = molt_xcalloc(1, sizeof(*m));
    m->arena = molt_xcalloc(1, sizeof(*m->arena));
    return m;
}

void molt_manifest_free(struct molt_manifest *m)
{
    if (!m)
        return;
    for (struct arena_chunk *c = m->arena->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(m->arena);
    free(m->v);
    free(m);
}

struct molt_entry *molt_manifest_add(struct molt_manifest *m, const struct molt_entry *e)
{
    MOLT_GROW(m->v, m->n, m->cap);
    struct molt_entry *d = &m->v[m->n++];
    *d = *e;
    d->path = arena_add(m->arena, e->path);
    d->target = e->target ? arena_add(m->arena, e->target) : NULL;
    return d;
}

size_t molt_manifest_lower(const struct molt_manifest *m, const char *path)
{
    size_t lo = 0, hi = m->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (molt_path_cmp(m->v[mid].path, path) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct molt_entry *molt_manifest_find(const struct molt_manifest *m, const char *path)
{
    size_t i = molt_manifest_lower(m, path);
    return i < m->n && strcmp(m->v[i].path, path) == 0 ? &m->v[i] : NULL;
}

bool molt_entry_same_inode(const struct molt_entry *a, const struct molt_entry *b)
{
    if (a == b || !a || !b)
        return a == b;
    if (a->flags & b->flags & MOLT_EF_AS_BASE)
        return true;
    return a->ino == b->ino && a->ctime_ns == b->ctime_ns && a->type == b->type &&
           !((a->flags | b->flags) & MOLT_EF_RACY);
}

static int by_path(const void *a, const void *b)
{
    return molt_path_cmp(((const struct molt_entry *)a)->path, ((const struct molt_entry *)b)->path);
}

void molt_manifest_sort(struct molt_manifest *m)
{
    size_t out = 0;
    if (m->n)
        qsort(m->v, m->n, sizeof(*m->v), by_path);
    for (size_t i = 0; i < m->n; i++)
        if (!out || strcmp(m->v[out - 1].path, m->v[i].path) != 0)
            m->v[out++] = m->v[i];
    m->n = out;
}

static int by_inode(const void *x, const void *y)
{
    const struct molt_entry *a = *(struct molt_entry *const *)x, *b = *(struct molt_entry *const *)y;
    if (a->ino != b->ino)
        return a->ino < b->ino ? -1 : 1;
    return a < b ? -1 : a > b; /* entries lie in tree order */
}

void molt_manifest_relink(struct molt_manifest *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++) {
        m->v[i].link_sig = 0;
        n += m->v[i].nlink > 1 && m->v[i].type != MOLT_T_DIR;
    }
    CLEANUP_FREE struct molt_entry **v = molt_xmalloc((n + 1) * sizeof(*v));
    n = 0;
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i].nlink > 1 && m->v[i].type != MOLT_T_DIR)
            v[n++] = &m->v[i];
    qsort(v, n, sizeof(*v), by_inode);
    for (size_t i = 0, j; i < n; i = j) {
        uint64_t sig = 0;
        for (j = i; j < n && v[j]->ino == v[i]->ino; j++)
            sig = XXH3_64bits_withSeed(v[j]->path, strlen(v[j]->path), sig + 1);
        for (size_t k = i; k < j && j - i > 1; k++)
            v[k]->link_sig = sig ? sig : 1;
    }
}

int molt_manifest_finish(struct molt_manifest *m, struct molt_error **err)
{
    for (size_t i = 1; i < m->n; i++)
        if (molt_path_cmp(m->v[i - 1].path, m->v[i].path) >= 0)
            return molt_error_set(err, MOLT_E_PROTOCOL, "manifest is out of order at entry %zu", i);
    molt_manifest_relink(m);
    return 0;
}

static void replace_entry(struct molt_manifest *m, struct molt_entry *d, const struct molt_entry *e)
{
    const char *path = d->path;
    *d = *e;
    d->path = path;
    d->target = e->target ? arena_add(m->arena, e->target) : NULL;
}

void molt_manifest_update(struct molt_manifest *m, const struct molt_manifest *set, const char *const *paths, size_t n)
{
    struct molt_entry *old = m->v;
    size_t n_old = m->n, from = 0, j = 0, changes = 0;
    /* Most paths of a pass are known: those are replaced where they are. */
    for (size_t i = 0; i < n; i++) {
        size_t at = molt_manifest_lower(m, paths[i]);
        bool here = at < m->n && strcmp(m->v[at].path, paths[i]) == 0;
        const struct molt_entry *e = molt_manifest_find(set, paths[i]);
        if (here && e)
            replace_entry(m, &m->v[at], e);
        else
            changes += here != (e != NULL);
    }
    if (changes == 0)
        return;
    m->v = NULL;
    m->n = m->cap = 0;
    m->cap = n_old + changes;
    m->v = molt_xmalloc(m->cap * sizeof(*m->v));
    const struct molt_manifest was = {.v = old, .n = n_old};
    for (size_t i = 0; i < n; i++) {
        size_t at = molt_manifest_lower(&was, paths[i]);
        bool here = at < n_old && strcmp(old[at].path, paths[i]) == 0;
        while (j < set->n && molt_path_cmp(set->v[j].path, paths[i]) < 0)
            j++;
        bool there = j < set->n && strcmp(set->v[j].path, paths[i]) == 0;
        if (here == there)
            continue;
        memcpy(m->v + m->n, old + from, (at - from) * sizeof(*old));
        m->n += at - from;
        from = at + here;
        if (there)
            molt_manifest_add(m, &set->v[j]);
    }
    memcpy(m->v + m->n, old + from, (n_old - from) * sizeof(*old));
    m->n += n_old - from;
    free(old);
}

static int by_number(const void *x, const void *y)
{
    const struct molt_entry *a = *(const struct molt_entry *const *)x, *b = *(const struct molt_entry *const *)y;
    return a->ino < b->ino ? -1 : a->ino > b->ino;
}

void molt_inodes_add(struct molt_inodes *l, const struct molt_manifest *m, bool only_linked)
{
    for (size_t i = 0; i < m->n; i++) {
        const struct molt_entry *e = &m->v[i];
        if (e->type == MOLT_T_DIR || (e->flags & MOLT_EF_MOUNT) || (only_linked && e->nlink < 2))
            continue;
        MOLT_GROW(l->v, l->n, l->cap);
        l->v[l->n++] = e;
    }
    if (l->n)
        qsort(l->v, l->n, sizeof(*l->v), by_number);
}

bool molt_inodes_follow(const struct molt_inodes *l, struct molt_entry *e)
{
    const struct molt_entry *key = e;
    if (l->n == 0 || e->type == MOLT_T_DIR || (e->flags & MOLT_EF_MOUNT))
        return false;
    const struct molt_entry *const *found = bsearch(&key, l->v, l->n, sizeof(*l->v), by_number);
    if (!found || (*found)->type != e->type)
        return false;
    struct molt_entry now = **found;
    now.path = e->path;
    now.target = e->target;
    now.content_hash = 0;
    now.flags |= MOLT_EF_RACY;
    *e = now;
    return true;
}

void molt_inodes_clear(struct molt_inodes *l)
{
    free(l->v);
    *l = (struct molt_inodes){0};
}

int molt_hash_fd(int fd, uint64_t *ret_hash, struct molt_error **err)
{
    enum { STEP = 256 * 1024 };
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        *ret_hash = 0;
        return 0;
    }
    CLEANUP_FREE char *buf = molt_xmalloc(STEP);
    XXH3_state_t *state = XXH3_createState();
    XXH3_64bits_reset(state);
    ssize_t r;
    off_t off = 0;
    while ((r = pread(fd, buf, STEP, off)) > 0 || (r < 0 && errno == EINTR)) {
        if (r > 0) {
            XXH3_64bits_update(state, buf, (size_t)r);
            off += r;
        }
    }
    uint64_t h = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    if (r < 0)
        return molt_error_errno(err, "read");
    *ret_hash = h ? h : 1;
    return 0;
}

int molt_hash_path(int rootfd, const char *path, uint64_t *ret_hash, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = molt_open_beneath(rootfd, path, O_RDONLY | O_NONBLOCK | O_NOATIME);
    if (fd < 0 && errno == EPERM)
        fd = molt_open_beneath(rootfd, path, O_RDONLY | O_NONBLOCK);
    *ret_hash = 0;
    if (fd < 0)
        return 0;
    int rc = molt_hash_fd(fd, ret_hash, err);
    if (rc < 0) {
        CLEANUP_FREE char *text = molt_path_text(path);
        return molt_error_prefix(err, "%s", text);
    }
    return 0;
}

int molt_manifest_hash_paths(int rootfd, struct molt_manifest *m, const char *const *paths, size_t n,
                             struct molt_error **err)
{
    for (size_t i = 0; i < n; i++) {
        struct molt_entry *e = molt_manifest_find(m, paths[i]);
        if (!e)
            continue;
        int r = molt_hash_path(rootfd, paths[i], &e->content_hash, err);
        if (r < 0)
            return r;
    }
    return 0;
}
