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
#define MOLT__PIECE 64u /* pages that are brought at a time, at most */
/* The last images' own pages are restored at once up to here, in bytes: what was just written will be used again. */
#define MOLT_LAZY_EAGER_MAX (64u << 20)
/* So is what came before, where it is no more than this. None: restored in the pause, it costs clients more than when it is asked for (PERFORMANCE.md). MiB. */
#define MOLT_LAZY_BEFORE_MB 0

struct molt_lazy_count {
    uint64_t eager, lazy; /* pages; of memory that CRIU could leave out at all */
};

/* Rewrites the pagemaps of a dump's images in `dir`. The images of the rounds before, which they name by their links, stay as they are. before_max: how many
 * bytes of what came before are restored at once, too: all of it, or else what is of programs and small mappings, or programs alone. */
int molt_lazy_mark(const char *dir, uint64_t eager_max, uint64_t before_max, struct molt_lazy_count *ret, struct molt_error **err);

/* How soon pages that nobody asked for are brought: those of programs (a JVM's compiled code is read, never written again), and those that more than one
 * round had (they were written while the rounds went on); those of small mappings; all others. */
enum molt__rank { MOLT__HOT, MOLT__WARM, MOLT__COLD, MOLT__RANKS };

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
struct molt__page_file {
    int fd;
    uint64_t len;
};
/* Pages of a file that were read last: those that are wanted next lie close behind, as a rule. */
#define MOLT__WINDOWS      8u
#define MOLT__WINDOW_PAGES 32u
struct molt__window {
    unsigned file;
    uint64_t off, pages; /* pages 0: nothing */
    uint64_t used;       /* when, in reads; the one that was used least lately gives way */
    unsigned char *v;
};
struct molt__page_files {
    struct molt__page_file *v;
    size_t n, cap;
    unsigned char *room; /* molt__page_files_room: MOLT__PIECE pages, and behind them those of the windows */
    struct molt__window windows[MOLT__WINDOWS];
    uint64_t reads;
};

/* The lazy pages of a process, in the images in `dir` and those before; files are added to what is there. MOLT_E_PROTOCOL. */
int molt__lazy_runs(const char *dir, pid_t pid, struct molt__page_files *files, struct molt__runs *ret, struct molt_error **err);
/* Before any of them is read. */
void molt__page_files_room(struct molt__page_files *files);
/* Copies pages of a file from offset off on: 0, or -1 and errno. What is read must not change any more. */
int molt__page_files_read(struct molt__page_files *files, unsigned file, uint64_t off, uint64_t pages, unsigned char *to);
void molt__page_files_close(struct molt__page_files *files);

#endif
