/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal: what CRIU's images have of a process's memory, those of the last dump and of the rounds before. */
#ifndef MOLT_PROCMIG_MEMORY_H
#define MOLT_PROCMIG_MEMORY_H

#include "procmig/lazy.h"
#include "procmig/pointed.h"
#include "procmig/predump.h"

/* pagemap_entry.flags */
#define MOLT__PAGE_PARENT  1u
#define MOLT__PAGE_LAZY    2u
#define MOLT__PAGE_PRESENT 4u

/* Fields of pagemap_head, pagemap_entry (images/pagemap.proto). */
#define MOLT__HEAD_PAGES_ID   1
#define MOLT__PE_VADDR        1
#define MOLT__PE_COMPAT_PAGES 2
#define MOLT__PE_IN_PARENT    3
#define MOLT__PE_FLAGS        4
#define MOLT__PE_PAGES        5

struct molt__entry {
    uint64_t addr, pages, off; /* off: of a present one, in the file of pages */
    unsigned flags;
    bool in_parent; /* the older way to say MOLT__PAGE_PARENT, which goes along */
};

struct molt__pagemap {
    uint64_t pages_id;
    struct molt__entry *v;
    size_t n, cap;
};

struct molt__range {
    uint64_t start, end;
    bool exec;
};
struct molt__ranges {
    struct molt__range *v;
    size_t n, cap;
};

struct molt__level {
    struct molt__pagemap pm;
    unsigned file; /* of the pages */
};

/* The last images and those before, where the pages that are in them may wait, and which of those threads point to. */
struct molt__memory {
    struct molt__level level[MOLT_ROUNDS_MAX + 1];
    unsigned levels;
    struct molt__ranges maps;
    struct molt__pointed pointed;
};

/* files: opened, too. NULL: not; and the first round, which has all that no other has, is not read, since its list is the longest by far. To be freed also on failure. */
int molt__memory_load(const char *dir, pid_t pid, struct molt__page_files *files, struct molt__memory *ret, struct molt_error **err);
void molt__memory_free(struct molt__memory *p);
/* The level that has the page at addr, or should, and its entry; *pages: how many behind it are with it, no more than before. NULL: it has none for it. */
const struct molt__entry *molt__memory_locate(const struct molt__memory *p, uint64_t addr, uint64_t *pages, unsigned *ret_level);
/* The end of what begins at addr and is within, or without, one of the mappings; *from: the first that ends behind addr. */
uint64_t molt__memory_piece(const struct molt__memory *p, size_t *from, uint64_t addr, uint64_t end, bool *ret_within);
/* How likely the page at addr is, which `level` has; v: its mapping, NULL: none of those. *pages: how many behind it are as likely, no more than before. */
enum molt__rank molt__memory_rank(const struct molt__memory *p, const struct molt__range *v, unsigned level, uint64_t addr, uint64_t *pages);

int molt__memory_malformed(const char *what, struct molt_error **err);

#endif
