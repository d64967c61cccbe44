/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which pages of a restored process need not be there when it goes on, and where in the images they lie (criu.org, "Lazy migration"). CRIU
 * leaves those out that its pagemap calls lazy; its own dump says that of pages in the last images only, the working set, and never of those
 * that came before it. Here it is the other way round.
 */
#ifndef MOLT_PROCMIG_LAZY_H
#define MOLT_PROCMIG_LAZY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "procmig/pagefiles.h"

/* The last images' own pages are restored at once up to here, in bytes: what was just written will be used again. */
#define MOLT_LAZY_EAGER_MAX (64u << 20)
/* So is of what came before as much as this, MiB: the likeliest. It costs clients less than when it is asked for, since CRIU reads many pages at once, and a small
 * service needs no pager at all; a large heap does not fit and comes later (PERFORMANCE.md). */
#define MOLT_LAZY_BEFORE_MB 32

struct molt_lazy_count {
    uint64_t eager, lazy; /* pages; of memory that CRIU could leave out at all */
};

/* Rewrites the pagemaps of a dump's images in `dir`. The images of the rounds before, which they name by their links, stay as they are. before_max: how many
 * bytes of what came before are restored at once, too: the likeliest of the ranks below, as many as are no more than that together, and of the first that is
 * too much, where it is the last, what the smaller mappings have. */
int molt_lazy_mark(const char *dir, uint64_t eager_max, uint64_t before_max, struct molt_lazy_count *ret, struct molt_error **err);

/* The same in parts, while the images arrive; the outcome does not depend on the order. Those before are there, and the link to them. */
struct molt_marking;
struct molt_marking *molt_marking_new(const char *dir, uint64_t eager_max, uint64_t before_max);
/* The image `name` is whole. Where it is one of the two that tell of a process's memory (mm, pagemap), and this was said of the other one, too, both are read, and
 * the pagemap is written; nobody else may write it any more. */
int molt_marking_take(struct molt_marking *m, const char *name, struct molt_error **err);
/* All are there. What changed since it was taken is read again. */
int molt_marking_end(struct molt_marking *m, struct molt_lazy_count *ret, struct molt_error **err);
void molt_marking_free(struct molt_marking *m); /* NULL is fine */

#define MOLT__SMALL_MAX (1u << 20) /* bytes of a small mapping */

/* How soon pages that nobody asked for are brought: those of programs (a JVM's compiled code is read, never written again), and those that more than one
 * round had (they were written while the rounds went on); those that threads point to (pointed.h); those of small mappings; all others. */
enum molt__rank { MOLT__HOT, MOLT__POINTED, MOLT__WARM, MOLT__COLD, MOLT__RANKS };

/* Pages at consecutive addresses and consecutive places of one file of images. */
struct molt__run {
    uint64_t addr, pages, off;
    unsigned file;
    enum molt__rank rank;
};
struct molt__runs {
    struct molt__run *v; /* by address */
    size_t n, cap;
};

/* The lazy pages of a process, in the images in `dir` and those before; files are added to what is there. MOLT_E_PROTOCOL. */
int molt__lazy_runs(const char *dir, pid_t pid, struct molt__page_files *files, struct molt__runs *ret, struct molt_error **err);

#endif
