/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/image.h"
#include "procmig/pb.h"

#define IMAGE_MAX (256u << 20)
/* Fields of mm_entry and vma_entry (images/mm.proto, vma.proto). */
#define MM_VMAS         14
#define VMA_START       1
#define VMA_END         2
#define VMA_PROT        5
#define VMA_FLAGS       6
#define VMA_STATUS      7

/* vma_entry.status, criu/include/image.h */
#define STATUS_VSYSCALL (1u << 2)
#define STATUS_VDSO     (1u << 3)
#define STATUS_VVAR     (1u << 12)

/* ---- reading ---- */

int molt__memory_malformed(const char *what, struct molt_error **err)
{
    return molt_error_set(err, MOLT_E_PROTOCOL, "malformed %s in the images", what);
}

static int parse_entry(const unsigned char *data, size_t len, struct molt__entry *ret, struct molt_error **err)
{
    struct molt__pb m = molt__pb_over(data, len);
    struct molt__pb_field f;
    bool has_flags = false, has_pages = false;
    struct molt__entry e = {0};
    int r;

    while ((r = molt__pb_next(&m, &f)) > 0) {
        if (f.is_bytes)
            return molt__memory_malformed("pagemap", err);
        if (f.number == MOLT__PE_VADDR)
            e.addr = f.value;
        else if (f.number == MOLT__PE_PAGES || (f.number == MOLT__PE_COMPAT_PAGES && !has_pages))
            e.pages = f.value;
        else if (f.number == MOLT__PE_IN_PARENT)
            e.in_parent = f.value != 0;
        else if (f.number == MOLT__PE_FLAGS)
            e.flags = (unsigned)f.value;
        has_flags = has_flags || f.number == MOLT__PE_FLAGS;
        has_pages = has_pages || f.number == MOLT__PE_PAGES;
    }
    if (e.in_parent)
        e.flags |= MOLT__PAGE_PARENT;
    else if (!has_flags)
        e.flags = MOLT__PAGE_PRESENT;
    if (r < 0 || e.addr % MOLT_PAGE || e.pages == 0 || e.pages > (UINT64_MAX - e.addr) / MOLT_PAGE)
        return molt__memory_malformed("pagemap", err);
    *ret = e;
    return 0;
}

static int parse_head(const unsigned char *data, size_t len, uint64_t *ret_id, struct molt_error **err)
{
    struct molt__pb m = molt__pb_over(data, len);
    struct molt__pb_field f;

    while (molt__pb_next(&m, &f) > 0)
        if (f.number == MOLT__HEAD_PAGES_ID && !f.is_bytes && f.value <= UINT32_MAX) {
            *ret_id = f.value;
            return 0;
        }
    return molt__memory_malformed("pagemap", err);
}

static int parse_pagemap(const void *data, size_t len, struct molt__pagemap *pm, struct molt_error **err)
{
    const unsigned char *record;
    struct molt__image m;
    uint64_t off = 0, next = 0;
    size_t size;
    int r = molt__image_over(data, len, MOLT_IMAGE_PAGEMAP, &m, err);

    for (bool head = true; r == 0 && (r = molt__image_next(&m, &record, &size, err)) > 0; head = false) {
        struct molt__entry e = {0};

        if (head) {
            r = parse_head(record, size, &pm->pages_id, err);
            continue;
        }
        if ((r = parse_entry(record, size, &e, err)) < 0)
            break;
        if (e.addr < next)
            return molt__memory_malformed("pagemap", err);
        next = e.addr + e.pages * MOLT_PAGE;
        e.off = off;
        if (e.flags & MOLT__PAGE_PRESENT)
            off += e.pages * MOLT_PAGE;
        MOLT_GROW(pm->v, pm->n, pm->cap);
        pm->v[pm->n++] = e;
    }
    return r;
}

/* An image that is not there (the process is younger than that round) has nothing in it. */
static int load_pagemap(const char *dir, pid_t pid, struct molt__pagemap *pm, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pagemap-%d.img", dir, (int)pid), *data = NULL;
    size_t len;

    if (!molt_exists(path))
        return 0;
    int r = molt_read_file(path, IMAGE_MAX, &data, &len, err);

    if (r == 0)
        r = parse_pagemap(data, len, pm, err);
    return r < 0 ? molt_error_prefix(err, "%s", path) : 0;
}

/* What userfaultfd takes, and CRIU (vma_entry_can_be_lazy): private, of no file, not locked, no huge pages. */
static int parse_vma(const unsigned char *data, size_t len, struct molt__ranges *lazy, struct molt_error **err)
{
    struct molt__pb m = molt__pb_over(data, len);
    struct molt__pb_field f;
    uint64_t flags = 0, status = 0;
    struct molt__range v = {0, 0, false};
    int r;

    while ((r = molt__pb_next(&m, &f)) > 0) {
        if (f.number == VMA_START)
            v.start = f.value;
        else if (f.number == VMA_END)
            v.end = f.value;
        else if (f.number == VMA_PROT)
            v.exec = f.value & PROT_EXEC;
        else if (f.number == VMA_FLAGS)
            flags = f.value;
        else if (f.number == VMA_STATUS)
            status = f.value;
    }
    if (r < 0 || v.start % MOLT_PAGE || v.end % MOLT_PAGE || v.end <= v.start || (lazy->n > 0 && v.start < lazy->v[lazy->n - 1].end))
        return molt__memory_malformed("list of mappings", err);
    if (!(flags & MAP_ANONYMOUS) || !(flags & MAP_PRIVATE) || (flags & (MAP_LOCKED | MAP_HUGETLB)) ||
        (status & (STATUS_VDSO | STATUS_VVAR | STATUS_VSYSCALL)))
        return 0;
    MOLT_GROW(lazy->v, lazy->n, lazy->cap);
    lazy->v[lazy->n++] = v;
    return 0;
}

static int load_lazy_ranges(const char *dir, pid_t pid, struct molt__ranges *lazy, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/mm-%d.img", dir, (int)pid), *data = NULL;
    const unsigned char *record;
    struct molt__image m;
    struct molt__pb_field f;
    size_t len, size;
    int r = molt_read_file(path, IMAGE_MAX, &data, &len, err);

    if (r == 0)
        r = molt__image_over(data, len, MOLT_IMAGE_MM, &m, err);
    if (r == 0 && (r = molt__image_next(&m, &record, &size, err)) == 0)
        r = molt__memory_malformed("list of mappings", err);
    if (r > 0) {
        struct molt__pb mm = molt__pb_over(record, size);

        while ((r = molt__pb_next(&mm, &f)) > 0)
            if (f.number == MM_VMAS && f.is_bytes && (r = parse_vma(f.data, f.len, lazy, err)) < 0)
                break;
        if (r < 0 && !(err && *err))
            r = molt__memory_malformed("list of mappings", err);
    }
    return r < 0 ? molt_error_prefix(err, "%s", path) : 0;
}

/* ---- what the rounds before have ---- */

static bool is_first_round(const char *dir)
{
    CLEANUP_FREE char *before = molt_xasprintf("%s/" MOLT_PREDUMP_PARENT, dir);

    return !molt_exists(before);
}

void molt__memory_free(struct molt__memory *p)
{
    for (unsigned k = 0; k < p->levels; k++)
        free(p->level[k].pm.v);
    free(p->maps.v);
    molt__pointed_free(&p->pointed);
    *p = (struct molt__memory){.levels = 0};
}

int molt__memory_load(const char *dir, pid_t pid, struct molt__page_files *files, struct molt__memory *ret, struct molt_error **err)
{
    CLEANUP_FREE char *at = molt_xstrdup(dir);
    int r = 0;

    *ret = (struct molt__memory){.levels = 0};
    while (r == 0 && ret->levels <= MOLT_ROUNDS_MAX && molt_exists(at)) {
        struct molt__level *l = &ret->level[ret->levels++];

        if (files || ret->levels == 1 || !is_first_round(at))
            r = load_pagemap(at, pid, &l->pm, err);
        if (r == 0 && l->pm.n > 0 && files)
            r = molt__page_files_open(files, at, l->pm.pages_id, &l->file, err);
        if (r == 0 && ret->pointed.n == 0) /* the last round that knew */
            r = molt__pointed_load(at, pid, &ret->pointed, err);
        char *up = molt_xasprintf("%s/" MOLT_PREDUMP_PARENT, at);

        free(at);
        at = up;
    }
    return r < 0 ? r : load_lazy_ranges(dir, pid, &ret->maps, err);
}

/* The entry that has an address, or NULL. */
static const struct molt__entry *entry_at(const struct molt__pagemap *pm, uint64_t addr)
{
    size_t low = 0, high = pm->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (pm->v[mid].addr + pm->v[mid].pages * MOLT_PAGE <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    return low < pm->n && pm->v[low].addr <= addr ? &pm->v[low] : NULL;
}

const struct molt__entry *molt__memory_locate(const struct molt__memory *p, uint64_t addr, uint64_t *pages, unsigned *ret_level)
{
    for (unsigned k = 0; k < p->levels; k++) {
        const struct molt__entry *e = entry_at(&p->level[k].pm, addr);

        *ret_level = k;
        if (!e)
            return NULL;
        const uint64_t left = e->pages - (addr - e->addr) / MOLT_PAGE;

        *pages = left < *pages ? left : *pages;
        if (!(e->flags & MOLT__PAGE_PARENT))
            return e->flags & MOLT__PAGE_PRESENT ? e : NULL;
    }
    return NULL;
}

/* More than one round had it: it was written while they went on. */
static bool written_again(const struct molt__memory *p, unsigned level)
{
    return level + 1 < p->levels;
}

uint64_t molt__memory_piece(const struct molt__memory *p, size_t *from, uint64_t addr, uint64_t end, bool *ret_within)
{
    const struct molt__ranges *rs = &p->maps;

    while (*from < rs->n && rs->v[*from].end <= addr)
        (*from)++;
    *ret_within = *from < rs->n && rs->v[*from].start <= addr;
    if (*from == rs->n)
        return end;
    const uint64_t edge = *ret_within ? rs->v[*from].end : rs->v[*from].start;

    return edge < end ? edge : end;
}

enum molt__rank molt__memory_rank(const struct molt__memory *p, const struct molt__range *v, unsigned level, uint64_t addr, uint64_t *pages)
{
    if (written_again(p, level) || (v && v->exec))
        return MOLT__HOT;
    if (v && v->end - v->start <= MOLT__SMALL_MAX)
        return MOLT__WARM;
    return molt__pointed_has(&p->pointed, addr, pages) ? MOLT__POINTED : MOLT__COLD;
}
