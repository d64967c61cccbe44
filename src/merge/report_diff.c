/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Unified diffs of conflicting texts, made in the clone: the active's versions come over the ring, the upgrade's are here. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "merge/report.h"

#define DIFF_TIMEOUT_MS 30000

struct text {
    struct molt_strbuf b;
    size_t conflict; /* which of the list */
    bool gone, too_long;
};

struct texts {
    struct text *v;
    size_t n, at;
};

char *molt__printable(const char *s, size_t len)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    CLEANUP_FREE char *copy = molt_xstrndup(s, len);
    for (char *p = copy; *p;) {
        size_t n = strcspn(p, "\n\t\\");
        char stop = p[n];
        p[n] = '\0';
        CLEANUP_FREE char *clean = molt_path_text(p);
        molt_strbuf_add(&b, clean + 1, strlen(clean + 1));
        if (stop)
            molt_strbuf_add(&b, &stop, 1);
        p += n + (stop != '\0');
    }
    return molt_strbuf_steal(&b);
}

static int on_begin(void *ctx, size_t index, const struct molt_record *r, struct molt_error **err)
{
    struct texts *t = ctx;
    (void)err;
    t->at = index;
    t->v[index].gone = r->vanished || r->e.type != MOLT_T_REG;
    return 0;
}

static int on_data(void *ctx, uint64_t off, const void *p, size_t len, struct molt_error **err)
{
    struct texts *t = ctx;
    struct text *x = &t->v[t->at];
    (void)err;
    /* A hole is a run of zeros, which makes it no text. */
    x->too_long |= off + len > MOLT_DIFF_FILE_MAX;
    if (off > x->b.len && !x->too_long)
        molt_strbuf_add(&x->b, "\0", 1);
    if (!x->too_long)
        molt_strbuf_add(&x->b, p, len);
    return 0;
}

static int on_end(void *ctx, uint64_t size, struct molt_error **err)
{
    struct texts *t = ctx;
    (void)err;
    t->v[t->at].too_long |= size > MOLT_DIFF_FILE_MAX;
    return 0;
}

/* The last whole line within the bound. */
static size_t cut(const char *s, size_t len, size_t max)
{
    if (len <= max)
        return len;
    while (max && s[max - 1] != '\n')
        max--;
    return max;
}

/* NULL: why not in *ret_why. */
static char *diff_of(const struct molt_strbuf *a, const char *u, size_t lu, const char **ret_why)
{
    char pa[64], pu[64];
    if ((a->len && memchr(a->s, '\0', a->len)) || memchr(u, '\0', lu)) {
        *ret_why = "binary";
        return NULL;
    }
    CLEANUP_CLOSE int fa = molt__memory_file(molt_strbuf_str(a), a->len, pa);
    CLEANUP_CLOSE int fu = molt__memory_file(u, lu, pu);
    char *const argv[] = {(char *)"diff", (char *)"-u", (char *)"--label", (char *)"active", (char *)"--label", (char *)"upgrade",
                          pa, pu, NULL};
    struct molt_run_opts o = {.timeout_ms = DIFF_TIMEOUT_MS, .max_output = 3 * (a->len + lu) + 65536};
    CLEANUP_FREE char *out = NULL;
    int status = 0;
    if (fa < 0 || fu < 0 || molt_run(argv, &o, &status, &out, NULL) < 0 || status > 1) {
        *ret_why = "the guest's diff does not work";
        return NULL;
    }
    size_t n = strlen(out), keep = cut(out, n, MOLT_DIFF_MAX);
    CLEANUP_FREE char *text = molt__printable(out, keep);
    return keep < n ? molt_xasprintf("%s(... %zu bytes more)\n", text, n - keep) : MOLT_STEAL_PTR(text);
}

static char *upgrade_text(const struct molt__view *w, const char *path, size_t *ret_len, const char **ret_why)
{
    const struct molt_apply a = {.rootfd = w->rootfd, .basefd = w->basefd, .stashfd = w->stashfd};
    CLEANUP_CLOSE int fd = molt_apply_open_upgrade(&a, path);
    CLEANUP_FREE char *buf = molt_xmalloc(MOLT_DIFF_FILE_MAX + 1);
    ssize_t n = fd < 0 ? -1 : molt_pread_all(fd, buf, MOLT_DIFF_FILE_MAX + 1, 0);
    if (n < 0 || n > (ssize_t)MOLT_DIFF_FILE_MAX) {
        *ret_why = n < 0 ? "the upgrade's version cannot be read" : "too large";
        return NULL;
    }
    *ret_len = (size_t)n;
    return MOLT_STEAL_PTR(buf);
}

static char *diff_one(const struct molt__view *w, const char *path, const struct text *x, const char **ret_why)
{
    size_t lu = 0;
    if (x->gone || x->too_long) {
        *ret_why = x->gone ? "gone meanwhile" : "too large";
        return NULL;
    }
    CLEANUP_FREE char *u = upgrade_text(w, path, &lu, ret_why);
    return u ? diff_of(&x->b, u, lu, ret_why) : NULL;
}

static bool is_file(const struct molt_manifest *m, const char *path, bool *ret_large)
{
    const struct molt_entry *e = m ? molt_manifest_find(m, path) : NULL;
    *ret_large |= e && e->size > MOLT_DIFF_FILE_MAX;
    return e && e->type == MOLT_T_REG;
}

/* What is to be compared: their paths into req, their places in the list into t; the others are told why not. */
static void choose(const struct molt__view *w, struct molt_json *list, const char **paths, struct molt_pack_path *req, struct texts *t)
{
    size_t at = 0;
    for (size_t i = 0; i < w->n && at < molt_json_size(list); i++) {
        bool large = false;
        const char *path = w->v[i].c.path;
        if (!molt__view_listed(&w->v[i]))
            continue;
        struct molt_json *o = (struct molt_json *)molt_json_at(list, at);
        bool files = is_file(w->latest, path, &large);
        files = is_file(w->upgrade, path, &large) && files;
        if (files && !large && t->n < MOLT_DIFF_FILES) {
            paths[t->n] = path;
            req[t->n] = (struct molt_pack_path){.path = path};
            t->v[t->n++].conflict = at;
        } else {
            molt_json_set_string(o, "no_diff", !files ? "not two files" : large ? "too large" : "too many conflicts");
        }
        at++;
    }
}

static int fetch(const struct molt_merge_peer *peer, const struct molt_pack_path *req, struct texts *t, struct molt_error **err)
{
    const struct molt_pack_handler h = {on_begin, on_data, on_end, t};
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    struct molt_source src;
    if (t->n == 0)
        return 0;
    molt_pack_paths_encode(req, t->n, &b);
    int rc = peer->call(peer->ctx, MOLT_MERGE_Q_PACK, b.s, b.len, &src, err);
    return rc < 0 ? rc : molt_pack_recv(&src, req, t->n, &h, NULL, err);
}

/* 1: they merge, 0: they overlap. */
static int merges(const struct molt__view *w, const char *path, const struct text *x, struct molt_error **err)
{
    const char *why;
    size_t lu = 0, len = 0, lb = 0;
    CLEANUP_FREE char *u = upgrade_text(w, path, &lu, &why), *out = NULL, *b = molt_xmalloc(MOLT_DIFF_FILE_MAX + 1);
    CLEANUP_CLOSE int fd = molt_open_beneath(w->basefd, path, O_RDONLY | O_NONBLOCK);
    ssize_t n = fd < 0 ? 0 : molt_pread_all(fd, b, MOLT_DIFF_FILE_MAX, 0);
    if (!u || n < 0)
        return 1; /* the pass will tell */
    lb = (size_t)n;
    b[lb] = u[lu] = '\0';
    return molt_merge_as(path, b, lb, molt_strbuf_str(&x->b), x->b.len, u, lu, &out, &len, err);
}

int molt__predict_overlaps(struct molt_merge *m, const struct molt__view *w, const struct molt_merge_peer *peer,
                           struct molt_error **err)
{
    struct molt_pack_path req[MOLT_DIFF_FILES];
    struct texts t = {.v = molt_xcalloc(MOLT_DIFF_FILES, sizeof(*t.v))};
    for (size_t i = 0; i < w->n && t.n < MOLT_DIFF_FILES; i++) {
        const struct molt_conflict *c = &w->v[i].c;
        bool large = false;
        if (w->v[i].overlap || strcmp(c->decision, "merge") != 0 || !is_file(w->latest, c->path, &large) ||
            !is_file(w->upgrade, c->path, &large) || large)
            continue;
        const struct molt_entry *b = molt_manifest_find(w->base, c->path);
        if (!b || (b->type == MOLT_T_REG && b->size <= MOLT_DIFF_FILE_MAX))
            req[t.n++] = (struct molt_pack_path){.path = c->path};
    }
    int rc = fetch(peer, req, &t, err);
    for (size_t i = 0; i < t.n; i++) {
        int r = rc == 0 && !t.v[i].gone && !t.v[i].too_long ? merges(w, req[i].path, &t.v[i], err) : 1;
        if (r == 0)
            molt__merge_note_overlap(m, req[i].path, true);
        rc = rc < 0 || r > 0 ? rc : r;
        molt_strbuf_free(&t.v[i].b);
    }
    free(t.v);
    return rc;
}

int molt__report_diffs(const struct molt__view *w, const struct molt_merge_peer *peer, struct molt_json *conflicts,
                       struct molt_error **err)
{
    size_t n = molt_json_size(conflicts), total = 0;
    CLEANUP_FREE struct molt_pack_path *req = molt_xcalloc(n + 1, sizeof(*req));
    CLEANUP_FREE const char **paths = molt_xcalloc(n + 1, sizeof(*paths));
    struct texts t = {.v = molt_xcalloc(n + 1, sizeof(*t.v))};
    choose(w, conflicts, paths, req, &t);
    int rc = fetch(peer, req, &t, err);
    for (size_t i = 0; i < t.n; i++) {
        struct molt_json *o = (struct molt_json *)molt_json_at(conflicts, t.v[i].conflict);
        const char *why = "the plan's differences are too long already";
        CLEANUP_FREE char *d = rc == 0 && total < MOLT_DIFF_TOTAL ? diff_one(w, paths[i], &t.v[i], &why) : NULL;
        molt_json_set_string(o, d ? "diff" : "no_diff", d ? d : why);
        total += d ? strlen(d) : 0;
        molt_strbuf_free(&t.v[i].b);
    }
    free(t.v);
    return rc;
}
