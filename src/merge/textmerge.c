/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Three-way merges of texts: by diff3 (diffutils is Essential on Debian), and by key for account files. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "merge/apply.h"

#define DIFF3_TIMEOUT_MS 30000

int molt__memory_file(const char *p, size_t len, char path[64])
{
    CLEANUP_CLOSE int fd = memfd_create("xenmolt-text", MFD_CLOEXEC);
    if (fd < 0 || molt_write_all(fd, p, len) < 0)
        return -1;
    snprintf(path, 64, "/proc/%ld/fd/%d", (long)getpid(), fd);
    return MOLT_STEAL_FD(fd);
}

int molt_merge_text(const char *base, size_t base_len, const char *active, size_t active_len,
                    const char *upgrade, size_t upgrade_len, char **ret, size_t *ret_len,
                    struct molt_error **err)
{
    if (memchr(base, '\0', base_len) || memchr(active, '\0', active_len) ||
        memchr(upgrade, '\0', upgrade_len))
        return 0;
    char pb[64], pa[64], pu[64];
    CLEANUP_CLOSE int fb = molt__memory_file(base, base_len, pb);
    CLEANUP_CLOSE int fa = molt__memory_file(active, active_len, pa);
    CLEANUP_CLOSE int fu = molt__memory_file(upgrade, upgrade_len, pu);
    if (fb < 0 || fa < 0 || fu < 0)
        return molt_error_errno(err, "memory for a text merge");
    /* -E: the same change on both sides is no overlap. */
    char *const argv[] = {(char *)"diff3", (char *)"-m", (char *)"-E", pa, pb, pu, NULL};
    struct molt_run_opts opts = {.timeout_ms = DIFF3_TIMEOUT_MS,
                                 .max_output = base_len + active_len + upgrade_len + 65536};
    CLEANUP_FREE char *out = NULL;
    CLEANUP_ERROR struct molt_error *missing = NULL;
    int status;
    /* A tool that is not there is no reason to fail: the caller keeps both versions. */
    if (molt_run(argv, &opts, &status, &out, &missing) < 0 || status != 0)
        return 0;
    *ret_len = strlen(out);
    *ret = MOLT_STEAL_PTR(out);
    return 1;
}

bool molt_merge_is_keyed(const char *path, bool *ret_ids)
{
    static const struct {
        const char *path;
        bool ids;
    } files[] = {{"etc/passwd", true},   {"etc/group", true},   {"etc/shadow", false},
                 {"etc/gshadow", false}, {"etc/subuid", false}, {"etc/subgid", false}};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (strcmp(files[i].path, path) == 0) {
            *ret_ids = files[i].ids;
            return true;
        }
    }
    return false;
}

struct line {
    const char *s;
    size_t len, key;
};

struct lines {
    struct line *v;
    size_t n, cap;
};

static const struct line *find_key(const struct lines *l, const struct line *k)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->v[i].key == k->key && memcmp(l->v[i].s, k->s, k->key) == 0)
            return &l->v[i];
    return NULL;
}

/* False: a line without a key, or a key twice. */
static bool split(const char *text, struct lines *l)
{
    while (*text) {
        struct line k = {.s = text, .len = strcspn(text, "\n")};
        k.key = strcspn(text, ":\n");
        if (k.key == 0 || k.key >= k.len || find_key(l, &k))
            return false;
        MOLT_GROW(l->v, l->n, l->cap);
        l->v[l->n++] = k;
        text += k.len + (text[k.len] == '\n');
    }
    return true;
}

static bool same_line(const struct line *a, const struct line *b)
{
    return a && b ? a->len == b->len && memcmp(a->s, b->s, a->len) == 0 : a == b;
}

static bool same_id(const struct line *a, const struct line *b)
{
    const char *ids[2];
    size_t lens[2];
    const struct line *l[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        const char *p = memchr(l[i]->s + l[i]->key + 1, ':', l[i]->len - l[i]->key - 1);
        if (!p)
            return false;
        ids[i] = p + 1;
        lens[i] = strcspn(p + 1, ":\n");
    }
    return lens[0] == lens[1] && memcmp(ids[0], ids[1], lens[0]) == 0;
}

static bool merge_keys(const struct lines *b, const struct lines *a, const struct lines *u, bool ids,
                       struct molt_strbuf *out)
{
    for (size_t i = 0; i < u->n; i++) {
        const struct line *lb = find_key(b, &u->v[i]), *la = find_key(a, &u->v[i]), *lu = &u->v[i];
        if (!same_line(la, lu) && !same_line(la, lb) && !same_line(lu, lb))
            return false;
        const struct line *w = same_line(lu, lb) ? la : lu;
        if (w)
            molt_strbuf_addf(out, "%.*s\n", (int)w->len, w->s);
    }
    for (size_t i = 0; i < a->n; i++) {
        const struct line *la = &a->v[i], *lb = find_key(b, la);
        if (find_key(u, la) || same_line(la, lb))
            continue;
        if (lb)
            return false; /* the upgrade deleted what the active changed */
        for (size_t k = 0; ids && k < u->n; k++)
            if (!find_key(b, &u->v[k]) && same_id(la, &u->v[k]))
                return false;
        molt_strbuf_addf(out, "%.*s\n", (int)la->len, la->s);
    }
    return true;
}

bool molt_merge_keyed(const char *base, const char *active, const char *upgrade, bool ids, char **ret)
{
    struct lines b = {0}, a = {0}, u = {0};
    CLEANUP_STRBUF struct molt_strbuf out = MOLT_STRBUF_INIT;
    bool ok = split(base, &b) && split(active, &a) && split(upgrade, &u) && merge_keys(&b, &a, &u, ids, &out);
    free(b.v);
    free(a.v);
    free(u.v);
    if (ok)
        *ret = molt_strbuf_steal(&out);
    return ok;
}

int molt_merge_as(const char *path, const char *base, size_t base_len, const char *active, size_t active_len,
                  const char *upgrade, size_t upgrade_len, char **ret, size_t *ret_len, struct molt_error **err)
{
    bool ids;
    if (molt_merge_is_keyed(path, &ids) && molt_merge_keyed(base, active, upgrade, ids, ret)) {
        *ret_len = strlen(*ret);
        return 1;
    }
    return molt_merge_text(base, base_len, active, active_len, upgrade, upgrade_len, ret, ret_len, err);
}
