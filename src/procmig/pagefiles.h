/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The files of pages in CRIU's images (pages-ID.img), read for whoever puts the pages where they belong. */
#ifndef MOLT_PROCMIG_PAGEFILES_H
#define MOLT_PROCMIG_PAGEFILES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MOLT_PAGE 4096u
#define MOLT__PIECE 64u /* pages that are brought at a time, at most */

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

/* Adds the one that a pagemap in `dir` names; *ret: its number here. */
int molt__page_files_open(struct molt__page_files *files, const char *dir, uint64_t id, unsigned *ret, struct molt_error **err);
/* Before any of them is read. */
void molt__page_files_room(struct molt__page_files *files);
/* Copies pages of a file from offset off on: 0, or -1 and errno. What is read must not change any more. */
int molt__page_files_read(struct molt__page_files *files, unsigned file, uint64_t off, uint64_t pages, unsigned char *to);
void molt__page_files_close(struct molt__page_files *files);

#endif
