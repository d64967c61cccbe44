/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/pointed.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/lazy.h"
#include "procmig/procfs.h"

#define MAGIC_LEN  8u
#define STACK_TOP  (16u << 10) /* bytes of a stack that are looked through: some dozen frames */
#define RED_ZONE   128u        /* bytes below the stack pointer that are used, too (System V ABI, AMD64) */
#define FIELDS     128u        /* bytes of what a stack points to, in which further pointers are looked for */
#define OBJECT     512u        /* bytes behind a pointer that belong to what it points to */
#define OBJECTS    64u         /* read by one call */
#define ROOM       STACK_TOP
#define NOTED_MAX  65536       /* pages, also one that was noted before; objects */
#define STACK_IOVS (STACK_TOP / MOLT_PAGE + 2)
_Static_assert(FIELDS * OBJECTS <= ROOM, "they are read into one place");

/* Private memory of no file, to be written, larger than what comes early by itself: a heap. */
struct heap {
    uint64_t start, end;
};

struct look {
    pid_t pid;
    struct heap *heap; /* ascending */
    size_t heaps, heap_cap;
    uint64_t *page;
    size_t pages, page_cap;
    uint64_t *object; /* what stacks point to */
    size_t objects, object_cap;
    unsigned char *room; /* ROOM */
};

/* ---- finding ---- */

static void note_heap(struct look *l, const char *line)
{
    struct heap h;
    char perm[5];
    uint64_t off, ino;
    unsigned major, minor;

    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &h.start, &h.end, perm, &off, &major, &minor, &ino) != 7 || ino != 0 || perm[1] != 'w' ||
        perm[3] != 'p' || h.end - h.start <= MOLT__SMALL_MAX)
        return;
    MOLT_GROW(l->heap, l->heaps, l->heap_cap);
    l->heap[l->heaps++] = h;
}

static int find_heaps(struct look *l)
{
    CLEANUP_FREE char *text = NULL;
    char *save = NULL;

    if (molt__proc_text(l->pid, "maps", &text, NULL) < 0)
        return -1;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        note_heap(l, line);
    return l->heaps > 0 ? 0 : -1;
}

static bool in_heap(const struct look *l, uint64_t addr)
{
    for (size_t i = 0; i < l->heaps; i++)
        if (addr >= l->heap[i].start && addr < l->heap[i].end)
            return true;
    return false;
}

static int by_address(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* In order, each once; how many that are. */
static size_t unique(uint64_t *v, size_t len)
{
    size_t n = 0;

    if (len > 0)
        qsort(v, len, sizeof(*v), by_address);
    for (size_t i = 0; i < len; i++)
        if (n == 0 || v[i] != v[n - 1])
            v[n++] = v[i];
    return n;
}

static void note_page(struct look *l, uint64_t page)
{
    for (size_t i = l->pages > 8 ? l->pages - 8 : 0; i < l->pages; i++) /* the same object is named by many frames */
        if (l->page[i] == page)
            return;
    if (l->pages >= NOTED_MAX)
        return;
    MOLT_GROW(l->page, l->pages, l->page_cap);
    l->page[l->pages++] = page;
}

/* Whether the word is an address of a heap; then the pages of what lies there are noted. */
static bool note_word(struct look *l, uint64_t word)
{
    /* Most words are none: the first comparison says so. */
    const uint64_t low = l->heap[0].start, high = l->heap[l->heaps - 1].end;

    if (word < low || word >= high || !in_heap(l, word))
        return false;
    const uint64_t first = word & ~(uint64_t)(MOLT_PAGE - 1), last = (word + OBJECT - 1) & ~(uint64_t)(MOLT_PAGE - 1);

    note_page(l, first);
    if (last != first)
        note_page(l, last);
    return true;
}

static void look_through_stack(struct look *l, size_t len)
{
    for (size_t at = 0; at + sizeof(uint64_t) <= len; at += sizeof(uint64_t)) {
        uint64_t word;

        memcpy(&word, l->room + at, sizeof(word));
        if (!note_word(l, word) || l->objects >= NOTED_MAX)
            continue;
        MOLT_GROW(l->object, l->objects, l->object_cap);
        l->object[l->objects++] = word & ~(uint64_t)(sizeof(uint64_t) - 1);
    }
}

/* Pointers, and a JVM's references of 32 bits: an address, or the eighth part of one. */
static void look_through_fields(struct look *l, size_t len)
{
    for (size_t at = 0; at + sizeof(uint32_t) <= len; at += sizeof(uint32_t)) {
        uint32_t half;
        uint64_t word = 0;

        memcpy(&half, l->room + at, sizeof(half));
        if (at % sizeof(word) == 0 && at + sizeof(word) <= len)
            memcpy(&word, l->room + at, sizeof(word));
        if (half != 0 && !note_word(l, word) && !note_word(l, half))
            (void)note_word(l, (uint64_t)half << 3);
    }
}

/* One step further than the stacks: a buffer's reader is named there, the buffer only in the reader. */
static void look_at_objects(struct look *l)
{
    struct iovec local = {l->room, FIELDS * OBJECTS}, remote[OBJECTS];

    l->objects = unique(l->object, l->objects);
    for (size_t i = 0; i < l->objects;) {
        size_t n = 0;

        while (n < OBJECTS && i < l->objects)
            remote[n++] = (struct iovec){(void *)(uintptr_t)l->object[i++], FIELDS};
        const ssize_t got = process_vm_readv(l->pid, &local, 1, remote, n, 0);

        if (got > 0)
            look_through_fields(l, (size_t)got);
    }
}

bool molt__stack_pointer(const char *text, uint64_t *ret)
{
    /* "running", or "NUMBER [6 ARGUMENTS] SP PC". */
    const size_t len = strcspn(text, "\n");
    const char *end = memrchr(text, ' ', len), *sp = end ? memrchr(text, ' ', (size_t)(end - text)) : NULL;
    int n = 0;

    return sp && sscanf(sp, " 0x%" SCNx64 "%n", ret, &n) == 1 && sp + n == end && *ret > RED_ZONE;
}

/* What there is of it: a stack's last page ends the mapping. */
static size_t read_stack(const struct look *l, uint64_t sp)
{
    struct iovec local = {l->room, STACK_TOP}, remote[STACK_IOVS];
    const uint64_t from = sp - RED_ZONE, end = from + STACK_TOP;
    size_t n = 0;

    for (uint64_t at = from; at < end; n++) {
        const uint64_t edge = (at / MOLT_PAGE + 1) * MOLT_PAGE, upto = edge < end ? edge : end;

        remote[n] = (struct iovec){(void *)(uintptr_t)at, upto - at};
        at = upto;
    }
    ssize_t got = process_vm_readv(l->pid, &local, 1, remote, n, 0);

    return got > 0 ? (size_t)got : 0;
}

static int write_pages(const struct look *l, const char *dir, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pointed-%d.img", dir, (int)l->pid);
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;

    molt_strbuf_add(&b, MOLT__POINTED_MAGIC, MAGIC_LEN);
    for (size_t i = 0; i < l->pages && i < MOLT_POINTED_MAX; i++) {
        const uint64_t v = htole64(l->page[i]);

        molt_strbuf_add(&b, &v, sizeof(v));
    }
    return molt_write_file(path, b.s, b.len, 0600, err);
}

static int look_at_process(const struct molt_workload *w, const struct molt_proc *p, const char *dir, unsigned char *room, struct molt_error **err)
{
    struct look l = {.pid = p->pid, .room = room};
    int r = 0;

    if (find_heaps(&l) == 0) {
        for (size_t i = 0; i < p->tids; i++) {
            CLEANUP_FREE char *name = molt_xasprintf("task/%d/syscall", (int)w->tid[p->first_tid + i]), *text = NULL;
            uint64_t sp;

            if (molt__proc_text(p->pid, name, &text, NULL) == 0 && molt__stack_pointer(text, &sp))
                look_through_stack(&l, read_stack(&l, sp));
        }
        look_at_objects(&l);
        l.pages = unique(l.page, l.pages);
        r = l.pages > 0 ? write_pages(&l, dir, err) : 0;
    }
    free(l.heap);
    free(l.object);
    free(l.page);
    return r;
}

int molt_pointed_write(const struct molt_workload *w, const char *dir, struct molt_error **err)
{
    CLEANUP_FREE unsigned char *room = molt_xmalloc(ROOM);
    int r = 0;

    for (size_t i = 0; i < w->procs && r == 0; i++)
        r = look_at_process(w, &w->proc[i], dir, room, err);
    return r;
}

/* ---- in the clone ---- */

int molt__pointed_load(const char *dir, pid_t pid, struct molt__pointed *ret, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pointed-%d.img", dir, (int)pid), *data = NULL;
    size_t len;

    if (!molt_exists(path))
        return 0;
    int r = molt_read_file(path, MAGIC_LEN + MOLT_POINTED_MAX * sizeof(uint64_t), &data, &len, err);

    if (r < 0)
        return r;
    if (len < MAGIC_LEN || memcmp(data, MOLT__POINTED_MAGIC, MAGIC_LEN) || (len - MAGIC_LEN) % sizeof(uint64_t))
        return molt_error_set(err, MOLT_E_PROTOCOL, "%s: not a list of pages", path);
    const size_t n = (len - MAGIC_LEN) / sizeof(uint64_t);
    CLEANUP_FREE uint64_t *v = n ? molt_xcalloc(n, sizeof(*v)) : NULL;

    for (size_t i = 0; i < n; i++) {
        memcpy(&v[i], data + MAGIC_LEN + i * sizeof(*v), sizeof(*v));
        v[i] = le64toh(v[i]);
        if (v[i] % MOLT_PAGE || (i > 0 && v[i] <= v[i - 1]))
            return molt_error_set(err, MOLT_E_PROTOCOL, "%s: not pages in order", path);
    }
    *ret = (struct molt__pointed){MOLT_STEAL_PTR(v), n};
    return 0;
}

void molt__pointed_free(struct molt__pointed *p)
{
    free(p->v);
    *p = (struct molt__pointed){NULL, 0};
}

bool molt__pointed_has(const struct molt__pointed *p, uint64_t addr, uint64_t *pages)
{
    size_t low = 0, high = p->n;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;

        if (p->v[mid] < addr)
            low = mid + 1;
        else
            high = mid;
    }
    const bool has = low < p->n && p->v[low] == addr;
    uint64_t n = 1;

    if (has) {
        while (n < *pages && low + n < p->n && p->v[low + n] == addr + n * MOLT_PAGE)
            n++;
    } else {
        n = low < p->n && (p->v[low] - addr) / MOLT_PAGE < *pages ? (p->v[low] - addr) / MOLT_PAGE : *pages;
    }
    *pages = n;
    return has;
}
