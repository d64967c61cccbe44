/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/lazy.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/image.h"
#include "procmig/memory.h"
#include "procmig/pb.h"

/* ---- marking ---- */

/* What may come later. */
struct choice {
    bool own;      /* what the last images have themselves */
    int at_once;   /* of what came before, the ranks up to here do not; -1: all of it may */
    uint64_t size; /* nor do those of the last rank whose mappings are no larger, in bytes */
};

/* What a mapping has of the last rank, in pages. */
struct cold {
    uint64_t size, pages; /* size: the mapping's, in bytes */
};

/* What is decided by, and what came of it. */
struct counted {
    uint64_t own, before[MOLT__RANKS]; /* pages */
    struct cold *cold;
    size_t colds, cap;
    struct stat mm, pagemap;           /* as they were read; the latter as it was written */
    struct choice as;
    struct molt_lazy_count count;
};

/* A process whose memory is marked. */
struct process {
    pid_t pid;
    struct molt__memory memory;
    struct counted counted;
};

static void process_clear(struct process *p)
{
    molt__memory_free(&p->memory);
    free(p->counted.cold);
    *p = (struct process){.pid = p->pid};
}

static void put_entry(struct molt_strbuf *b, const struct molt__entry *e)
{
    CLEANUP_STRBUF struct molt_strbuf one = MOLT_STRBUF_INIT;

    molt__pb_int(&one, MOLT__PE_VADDR, e->addr);
    molt__pb_int(&one, MOLT__PE_COMPAT_PAGES, (uint32_t)e->pages);
    if (e->in_parent)
        molt__pb_int(&one, MOLT__PE_IN_PARENT, 1);
    molt__pb_int(&one, MOLT__PE_FLAGS, e->flags);
    molt__pb_int(&one, MOLT__PE_PAGES, e->pages);
    molt__image_put(b, one.s, one.len);
}

static uint64_t size_of(const struct molt__range *v)
{
    return v->end - v->start;
}

static void count_before(struct counted *c, enum molt__rank rank, const struct molt__range *v, uint64_t pages)
{
    c->before[rank] += pages;
    if (rank != MOLT__COLD)
        return;
    if (c->colds > 0 && c->cold[c->colds - 1].size == size_of(v)) { /* one mapping has many parts */
        c->cold[c->colds - 1].pages += pages;
        return;
    }
    MOLT_GROW(c->cold, c->colds, c->cap);
    c->cold[c->colds++] = (struct cold){.size = size_of(v), .pages = pages};
}

static bool waits(struct choice later, enum molt__rank rank, const struct molt__range *v)
{
    return (int)rank > later.at_once && (rank != MOLT__COLD || size_of(v) > later.size);
}

/* An image's entries as they become: neighbours within one that have the same flags are one. */
struct marked {
    struct molt_strbuf *b;   /* NULL: only counted */
    struct molt__entry last; /* not put yet; of 0 pages: none */
};

static void put_last(struct marked *m)
{
    if (m->last.pages > 0 && m->b)
        put_entry(m->b, &m->last);
    m->last = (struct molt__entry){0};
}

static void add_part(struct marked *m, const struct molt__entry *part)
{
    if (m->last.pages > 0 && m->last.flags == part->flags && m->last.addr + m->last.pages * MOLT_PAGE == part->addr) {
        m->last.pages += part->pages;
        return;
    }
    put_last(m);
    m->last = *part;
}

/* One entry of the last images. before: what came before is counted there; may be NULL. */
static void mark_entry(const struct molt__memory *mem, const struct molt__entry *e, size_t *from, struct choice later, struct marked *m, struct molt_lazy_count *count, struct counted *before)
{
    const uint64_t end = e->addr + e->pages * MOLT_PAGE;
    const bool parent = e->flags & MOLT__PAGE_PARENT;

    for (uint64_t at = e->addr, next; at < end; at = next) {
        enum molt__rank rank = MOLT__HOT;
        unsigned level = 0;
        bool within;

        next = molt__memory_piece(mem, from, at, end, &within);
        const struct molt__range *map = within ? &mem->maps.v[*from] : NULL;
        uint64_t pages = (next - at) / MOLT_PAGE;

        if (within && parent) {
            (void)molt__memory_locate(mem, at, &pages, &level);
            rank = molt__memory_rank(mem, map, level, at, &pages);
        }
        next = at + pages * MOLT_PAGE;
        const bool leave = within && ((parent && waits(later, rank, map)) || (later.own && (e->flags & MOLT__PAGE_LAZY)));
        const struct molt__entry part = {.addr = at, .pages = pages, .in_parent = e->in_parent, .flags = leave ? e->flags | MOLT__PAGE_LAZY : e->flags & ~MOLT__PAGE_LAZY};

        if (within && leave)
            count->lazy += pages;
        else if (within)
            count->eager += pages;
        if (within && parent && before)
            count_before(before, rank, map, pages);
        add_part(m, &part);
    }
    put_last(m);
}

static void mark(const struct molt__memory *mem, struct choice later, struct molt_strbuf *b, struct molt_lazy_count *count, struct counted *before)
{
    const struct molt__pagemap *pm = &mem->level[0].pm;
    struct marked m = {.b = b};
    size_t from = 0;

    for (size_t i = 0; i < pm->n; i++)
        mark_entry(mem, &pm->v[i], &from, later, &m, count, before);
}

/* The two that tell of a process's memory. */
enum which { IN_MM, IN_PAGEMAP, IMAGES };
static const char *const IMAGE[] = {"mm", "pagemap"};

/* Images that are whole, as they were then; st_ino 0: not yet. */
struct seen {
    pid_t pid;
    struct stat image[IMAGES];
};

struct molt_marking {
    char *dir;
    uint64_t eager_max, before_max; /* pages */
    struct process *v;
    size_t n, cap;
    struct seen *seen;
    size_t n_seen, cap_seen;
};

struct molt_marking *molt_marking_new(const char *dir, uint64_t eager_max, uint64_t before_max)
{
    struct molt_marking *m = molt_xcalloc(1, sizeof(*m));

    *m = (struct molt_marking){.dir = molt_xstrdup(dir), .eager_max = eager_max / MOLT_PAGE, .before_max = before_max / MOLT_PAGE};
    return m;
}

void molt_marking_free(struct molt_marking *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n; i++)
        process_clear(&m->v[i]);
    free(m->v);
    free(m->seen);
    free(m->dir);
    free(m);
}

/* False: it is not there. */
static bool look_at(const char *dir, enum which image, pid_t pid, struct stat *ret)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s-%d.img", dir, IMAGE[image], (int)pid);

    return stat(path, ret) == 0;
}

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Not where that is what is written: a second time somebody who looks for what arrives would be told of it. */
static int write_marked(const char *dir, struct process *p, struct choice later, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pagemap-%d.img", dir, (int)p->pid);
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT, head = MOLT_STRBUF_INIT;
    struct counted *c = &p->counted;

    if (c->as.own == later.own && c->as.at_once == later.at_once && c->as.size == later.size)
        return 0;
    molt__pb_int(&head, MOLT__HEAD_PAGES_ID, p->memory.level[0].pm.pages_id);
    molt__image_begin(&b, MOLT_IMAGE_PAGEMAP);
    molt__image_put(&b, head.s, head.len);
    c->count = (struct molt_lazy_count){0, 0};
    mark(&p->memory, later, &b, &c->count, NULL);
    int r = molt_write_file(path, b.s, b.len, 0600, err);

    if (r == 0 && stat(path, &c->pagemap) < 0)
        r = molt_error_errno(err, "look at %s", path);
    if (r == 0)
        c->as = later;
    return r;
}

static int by_size(const void *a, const void *b)
{
    const struct cold *x = a, *y = b;

    return x->size < y->size ? -1 : x->size > y->size;
}

/* The size of mappings up to which all that they have of the last rank is no more than so many pages. */
static uint64_t sizes_within(const struct molt_marking *m, uint64_t pages)
{
    struct cold *all = NULL;
    size_t n = 0, cap = 0;
    uint64_t size = 0, sum = 0;

    for (size_t i = 0; i < m->n; i++)
        for (size_t k = 0; k < m->v[i].counted.colds; k++) {
            MOLT_GROW(all, n, cap);
            all[n++] = m->v[i].counted.cold[k];
        }
    if (n > 0)
        qsort(all, n, sizeof(*all), by_size);
    for (size_t i = 0; i < n && (sum += all[i].pages) <= pages; i++)
        if (i + 1 == n || all[i + 1].size > all[i].size)
            size = all[i].size;
    free(all);
    return size;
}

/* By all that is known: what the last images have themselves waits where it is too much, and of what came before all but the likeliest. Of the last rank
 * that is what small mappings have: a large one is a heap. */
static struct choice decide(const struct molt_marking *m)
{
    struct choice later = {.own = false, .at_once = -1, .size = 0};
    uint64_t own = 0, left = m->before_max;

    for (size_t i = 0; i < m->n; i++)
        own += m->v[i].counted.own;
    later.own = own > m->eager_max;
    for (int rank = 0; rank < MOLT__RANKS; rank++) {
        uint64_t pages = 0;

        for (size_t i = 0; i < m->n; i++)
            pages += m->v[i].counted.before[rank];
        if (pages > left) {
            later.size = rank == MOLT__COLD ? sizes_within(m, left) : 0;
            break;
        }
        left -= pages;
        later.at_once = rank;
    }
    return later;
}

static struct process *find_process(const struct molt_marking *m, pid_t pid)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i].pid == pid)
            return &m->v[i];
    return NULL;
}

/* Reads it, where that was not done, and counts. */
static int take(struct molt_marking *m, pid_t pid, struct process **ret, struct molt_error **err)
{
    const struct choice none = {.own = false, .at_once = -1, .size = 0};
    struct process *p = find_process(m, pid);
    struct molt_lazy_count count = {0, 0};
    struct stat mm = {0}, pagemap = {0};

    *ret = p;
    (void)look_at(m->dir, IN_MM, pid, &mm);
    (void)look_at(m->dir, IN_PAGEMAP, pid, &pagemap);
    if (p && same(&p->counted.mm, &mm) && same(&p->counted.pagemap, &pagemap))
        return 0;
    if (p) {
        process_clear(p);
    } else {
        MOLT_GROW(m->v, m->n, m->cap);
        p = &m->v[m->n++];
        *p = (struct process){.pid = pid};
    }
    *ret = p;
    int r = molt__memory_load(m->dir, pid, NULL, &p->memory, err);

    if (r < 0)
        return r;
    mark(&p->memory, none, NULL, &count, &p->counted);
    p->counted.own = count.eager;
    p->counted.mm = mm;
    p->counted.pagemap = pagemap;
    p->counted.as = (struct choice){.own = false, .at_once = MOLT__RANKS, .size = 0}; /* nobody's choice: not written yet */
    return 0;
}

/* Which image of which process; IMAGES: of another kind. */
static enum which parse_name(const char *name, pid_t *ret)
{
    int pid = 0, end = 0;

    for (enum which k = IN_MM; k < IMAGES; k++) {
        size_t n = strlen(IMAGE[k]);

        if (!strncmp(name, IMAGE[k], n) && sscanf(name + n, "-%9d.img%n", &pid, &end) == 1 && end > 0 && !name[n + (size_t)end] && pid > 0) {
            *ret = pid;
            return k;
        }
    }
    return IMAGES;
}

static struct seen *seen_of(struct molt_marking *m, pid_t pid)
{
    for (size_t i = 0; i < m->n_seen; i++)
        if (m->seen[i].pid == pid)
            return &m->seen[i];
    MOLT_GROW(m->seen, m->n_seen, m->cap_seen);
    m->seen[m->n_seen] = (struct seen){.pid = pid};
    return &m->seen[m->n_seen++];
}

/* Whole, and nothing else has come in their place, which might not be. */
static bool both_whole(const struct molt_marking *m, const struct seen *s)
{
    struct stat st;

    for (enum which k = IN_MM; k < IMAGES; k++)
        if (s->image[k].st_ino == 0 || !look_at(m->dir, k, s->pid, &st) || !same(&st, &s->image[k]))
            return false;
    return true;
}

int molt_marking_take(struct molt_marking *m, const char *name, struct molt_error **err)
{
    struct process *p;
    pid_t pid;
    const enum which k = parse_name(name, &pid);

    if (k == IMAGES)
        return 0;
    struct seen *s = seen_of(m, pid);

    if (!look_at(m->dir, k, pid, &s->image[k]) || !both_whole(m, s))
        return 0;
    int r = take(m, pid, &p, err);

    if (r == 0)
        r = write_marked(m->dir, p, decide(m), err);
    if (r == 0)
        s->image[IN_PAGEMAP] = p->counted.pagemap;
    return r;
}

static int take_all(struct molt_marking *m, struct molt_error **err)
{
    CLEANUP_CLOSEDIR DIR *d = opendir(m->dir);
    struct process *p;
    struct dirent *e;
    pid_t pid;
    int r = 0;

    if (!d)
        return molt_error_errno(err, "open %s", m->dir);
    while (r == 0 && (e = readdir(d)))
        if (parse_name(e->d_name, &pid) == IN_PAGEMAP)
            r = take(m, pid, &p, err);
    return r;
}

int molt_marking_end(struct molt_marking *m, struct molt_lazy_count *ret, struct molt_error **err)
{
    int r = take_all(m, err);
    const struct choice later = decide(m);

    *ret = (struct molt_lazy_count){0, 0};
    for (size_t i = 0; r == 0 && i < m->n; i++) {
        struct process *p = &m->v[i];

        r = write_marked(m->dir, p, later, err);
        ret->eager += p->counted.count.eager;
        ret->lazy += p->counted.count.lazy;
    }
    return r;
}

int molt_lazy_mark(const char *dir, uint64_t eager_max, uint64_t before_max, struct molt_lazy_count *ret, struct molt_error **err)
{
    struct molt_marking *m = molt_marking_new(dir, eager_max, before_max);
    int r = molt_marking_end(m, ret, err);

    molt_marking_free(m);
    return r;
}

/* ---- where they are ---- */

static int add_run(const struct molt__page_files *files, const struct molt__run *run, struct molt__runs *to, struct molt_error **err)
{
    struct molt__run *last = to->n ? &to->v[to->n - 1] : NULL;

    if (run->off > files->v[run->file].len || run->pages > (files->v[run->file].len - run->off) / MOLT_PAGE)
        return molt__memory_malformed("pagemap (pages that are not there)", err);
    if (last && last->file == run->file && last->rank == run->rank && last->addr + last->pages * MOLT_PAGE == run->addr && last->off + last->pages * MOLT_PAGE == run->off) {
        last->pages += run->pages;
        return 0;
    }
    MOLT_GROW(to->v, to->n, to->cap);
    to->v[to->n++] = *run;
    return 0;
}

/* map: theirs, or NULL. */
static int find(const struct molt__memory *p, uint64_t addr, uint64_t pages, const struct molt__range *map, const struct molt__page_files *files, struct molt__runs *to,
                struct molt_error **err)
{
    while (pages > 0) {
        uint64_t n = pages;
        unsigned level = 0;
        const struct molt__entry *e = molt__memory_locate(p, addr, &n, &level);

        if (!e)
            return molt__memory_malformed("pagemap (a page that no round has)", err);
        const enum molt__rank rank = molt__memory_rank(p, map, level, addr, &n);
        const struct molt__run run = {.addr = addr, .pages = n, .off = e->off + (addr - e->addr), .file = p->level[level].file, .rank = rank};
        int r = add_run(files, &run, to, err);

        if (r < 0)
            return r;
        addr += n * MOLT_PAGE;
        pages -= n;
    }
    return 0;
}

/* An entry of the pagemap may go over more than one mapping. */
static int find_all(const struct molt__memory *p, const struct molt__entry *e, size_t *from, const struct molt__page_files *files, struct molt__runs *to, struct molt_error **err)
{
    const uint64_t end = e->addr + e->pages * MOLT_PAGE;
    int r = 0;

    for (uint64_t at = e->addr, next; r == 0 && at < end; at = next) {
        bool within;

        next = molt__memory_piece(p, from, at, end, &within);
        r = find(p, at, (next - at) / MOLT_PAGE, within ? &p->maps.v[*from] : NULL, files, to, err);
    }
    return r;
}

int molt__lazy_runs(const char *dir, pid_t pid, struct molt__page_files *files, struct molt__runs *ret, struct molt_error **err)
{
    struct molt__memory p;
    int r = molt__memory_load(dir, pid, files, &p, err);
    const struct molt__pagemap *pm = &p.level[0].pm;

    for (size_t i = 0, from = 0; r == 0 && i < pm->n; i++)
        if (pm->v[i].flags & MOLT__PAGE_LAZY)
            r = find_all(&p, &pm->v[i], &from, files, ret, err);
    molt__memory_free(&p);
    return r;
}
