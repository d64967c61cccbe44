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

#define MOLT_PAGE 4096u
/* The last images' own pages are restored at once up to here, in bytes: what was just written will be used again. */
#define MOLT_LAZY_EAGER_MAX (64u << 20)

struct molt_lazy_count {
    uint64_t eager, lazy; /* pages; of memory that CRIU could leave out at all */
};

/* Rewrites the pagemaps of a dump's images in `dir`. The images of the rounds before, which they name by their links, stay as they are. */
int molt_lazy_mark(const char *dir, uint64_t eager_max, struct molt_lazy_count *ret, struct molt_error **err);

/* Pages at consecutive addresses and consecutive places of one file of images. */
struct molt__run {
    uint64_t addr, pages, off;
    unsigned file;
};
struct molt__runs {
    struct molt__run *v; /* by address */
    size_t n, cap;
};
struct molt__page_file {
    int fd;
    unsigned char *map; /* NULL: empty */
    uint64_t len;
};
struct molt__page_files {
    struct molt__page_file *v;
    size_t n, cap;
};

/* The lazy pages of a process, in the images in `dir` and those before; files are added to what is there. MOLT_E_PROTOCOL. */
int molt__lazy_runs(const char *dir, pid_t pid, struct molt__page_files *files, struct molt__runs *ret, struct molt_error **err);
void molt__page_files_close(struct molt__page_files *files);

#endif
