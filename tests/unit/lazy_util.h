/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Images of a process's memory, as CRIU writes them, for the tests of what is restored later. */
#ifndef TESTS_LAZY_UTIL_H
#define TESTS_LAZY_UTIL_H

#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/image.h"
#include "procmig/lazy.h"
#include "procmig/pb.h"

#define PARENT  1
#define LAZY    2
#define PRESENT 4

struct pe {
    uint64_t addr;
    unsigned pages, flags;
};

struct vma {
    uint64_t start, end;
    unsigned flags, prot; /* prot 0: to read and write */
};

static inline void put(const char *dir, const char *name, int number, const struct molt_strbuf *b)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s-%d.img", dir, name, number);

    assert_int_equal(molt_write_file(path, b->s, b->len, 0600, NULL), 0);
}

static inline void put_pagemap(const char *dir, int pid, const struct pe *v, size_t n)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT, head = MOLT_STRBUF_INIT;

    molt__image_begin(&b, MOLT_IMAGE_PAGEMAP);
    molt__pb_int(&head, 1, 1);
    molt__image_put(&b, head.s, head.len);
    for (size_t i = 0; i < n; i++) {
        CLEANUP_STRBUF struct molt_strbuf e = MOLT_STRBUF_INIT;

        molt__pb_int(&e, 1, v[i].addr);
        molt__pb_int(&e, 2, v[i].pages);
        molt__pb_int(&e, 4, v[i].flags);
        molt__pb_int(&e, 5, v[i].pages);
        molt__image_put(&b, e.s, e.len);
    }
    put(dir, "pagemap", pid, &b);
}

static inline void put_mm(const char *dir, int pid, const struct vma *v, size_t n)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT, mm = MOLT_STRBUF_INIT;

    molt__pb_int(&mm, 1, 0x400000);
    for (size_t i = 0; i < n; i++) {
        CLEANUP_STRBUF struct molt_strbuf e = MOLT_STRBUF_INIT;

        molt__pb_int(&e, 1, v[i].start);
        molt__pb_int(&e, 2, v[i].end);
        molt__pb_int(&e, 5, v[i].prot ? v[i].prot : PROT_READ | PROT_WRITE);
        molt__pb_int(&e, 6, v[i].flags);
        molt__pb_int(&e, 7, 1);
        molt__pb_bytes(&mm, 14, e.s, e.len);
    }
    molt__image_begin(&b, MOLT_IMAGE_MM);
    molt__image_put(&b, mm.s, mm.len);
    put(dir, "mm", pid, &b);
}

/* A file of pages; they begin with first, first + step, ... */
static inline void put_pages_every(const char *dir, uint64_t first, unsigned step, unsigned pages)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;

    for (unsigned i = 0; i < pages; i++) {
        uint64_t page[MOLT_PAGE / sizeof(uint64_t)] = {first + i * step};

        page[MOLT_PAGE / sizeof(uint64_t) - 1] = first + i * step;
        molt_strbuf_add(&b, page, sizeof(page));
    }
    put(dir, "pages", 1, &b);
}

static inline void put_pages(const char *dir, uint64_t first, unsigned pages)
{
    put_pages_every(dir, first, 1, pages);
}

#endif
