/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A merged tree beside what the model says. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/wire.h"
#include "model.h"

enum { SHOWN = 8, HOLES_SLACK = 65536, MAX_PATH_SHOWN = 160 };

struct pair {
    const void *group;
    uint64_t ino;
    char *path;
};

struct comparison {
    FILE *to;
    bool inodes;
    int wrong;
    struct pair *v;
    size_t n, cap;
};

static void differs(struct comparison *c, const char *path, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void differs(struct comparison *c, const char *path, const char *fmt, ...)
{
    va_list ap;
    if (c->wrong++ >= SHOWN || !c->to)
        return;
    CLEANUP_FREE char *text = molt_path_text(*path ? path + 1 : path);
    size_t n = strlen(text);
    fprintf(c->to, "  %s%s: ", n > MAX_PATH_SHOWN ? "..." : "", n > MAX_PATH_SHOWN ? text + n - MAX_PATH_SHOWN : text);
    va_start(ap, fmt);
    vfprintf(c->to, fmt, ap);
    va_end(ap);
    fputc('\n', c->to);
}

static const char *no_newlines(char *s)
{
    for (char *p = s; p && *p; p++)
        if (*p == '\n')
            *p = '|';
    return s ? s : "(not kept)";
}

static void compare_content(struct comparison *c, const char *path, const struct node *g, const struct node *w)
{
    bool by_text = w->text && (w->hash == 0 || w->type == 'l') && g->text;
    if (g->rdev != w->rdev)
        differs(c, path, "device %llx, not %llx", (unsigned long long)g->rdev, (unsigned long long)w->rdev);
    if (w->any_content)
        return;
    if (g->size == w->size && (by_text ? memcmp(g->text, w->text, g->size) == 0 : g->hash == w->hash)) {
        if (g->allocated > w->allocated + HOLES_SLACK && w->hash)
            differs(c, path, "%llu bytes on disk, not %llu: holes were filled", (unsigned long long)g->allocated,
                    (unsigned long long)w->allocated);
        return;
    }
    CLEANUP_FREE char *x = g->text ? molt_xstrdup(g->text) : NULL, *y = w->text ? molt_xstrdup(w->text) : NULL;
    differs(c, path, "content is '%.80s' (%llu bytes), not '%.80s' (%llu bytes)", no_newlines(x), (unsigned long long)g->size,
            no_newlines(y), (unsigned long long)w->size);
}

static void compare_one(struct comparison *c, const char *path, const struct node *g, const struct node *w)
{
    if (g->type != w->type) {
        differs(c, path, "type %c, not %c", g->type, w->type);
        return;
    }
    compare_content(c, path, g, w);
    if (g->type != 'l' && g->mode != w->mode && !w->any_mode)
        differs(c, path, "mode %o, not %o", g->mode, w->mode);
    if (g->uid != w->uid || g->gid != w->gid)
        differs(c, path, "owner %u:%u, not %u:%u", g->uid, g->gid, w->uid, w->gid);
    if (g->iflags != w->iflags)
        differs(c, path, "inode flags %x, not %x", g->iflags, w->iflags);
    if (strcmp(g->xattrs, w->xattrs) != 0 && !w->any_mode) {
        CLEANUP_FREE char *x = molt_xstrdup(g->xattrs), *y = molt_xstrdup(w->xattrs);
        differs(c, path, "extended attributes '%.200s', not '%.200s'", no_newlines(x), no_newlines(y));
    }
    if (g->mtime != w->mtime && !w->any_time)
        differs(c, path, "time %lld, not %lld", (long long)g->mtime, (long long)w->mtime);
    if (c->inodes && w->keep_ino && g->ino != w->keep_ino)
        differs(c, path, "inode %llu, not %llu", (unsigned long long)g->ino, (unsigned long long)w->keep_ino);
    if (g->type != 'd' && !w->any_group) {
        MOLT_GROW(c->v, c->n, c->cap);
        c->v[c->n++] = (struct pair){w->group, g->ino, molt_xstrdup(path)};
    }
}

static void compare_below(struct comparison *c, const char *dir, const struct node *g, const struct node *w)
{
    for (size_t i = 0; i < w->n_kids; i++) {
        CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, w->kid[i]->name);
        const struct node *k = tree_kid(g, w->kid[i]->name);
        if (!k && w->kid[i]->type != '?')
            differs(c, path, "is missing");
        if (!k || w->kid[i]->type == '?')
            continue;
        compare_one(c, path, k, w->kid[i]);
        compare_below(c, path, k, w->kid[i]);
    }
    for (size_t i = 0; i < g->n_kids; i++) {
        CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, g->kid[i]->name);
        if (!tree_kid(w, g->kid[i]->name))
            differs(c, path, "should not be there");
    }
}

/* Paths of one group have one inode, and paths of different groups have different ones. */
static void compare_links(struct comparison *c)
{
    for (size_t i = 0; i < c->n; i++) {
        for (size_t k = 0; k < i; k++) {
            bool want = c->v[i].group && c->v[i].group == c->v[k].group, got = c->v[i].ino == c->v[k].ino;
            if (want == got)
                continue;
            CLEANUP_FREE char *other = molt_path_text(c->v[k].path + 1);
            differs(c, c->v[i].path, want ? "is not linked to %s any more" : "is linked to %s", other);
            break;
        }
    }
    for (size_t i = 0; i < c->n; i++)
        free(c->v[i].path);
    free(c->v);
}

int compare_trees(FILE *to, const struct node *got, const struct node *want, bool inodes)
{
    struct comparison c = {.to = to, .inodes = inodes};
    compare_one(&c, "", got, want);
    compare_below(&c, "", got, want);
    compare_links(&c);
    if (to && c.wrong > SHOWN)
        fprintf(to, "  and %d differences more\n", c.wrong - SHOWN);
    return c.wrong;
}
