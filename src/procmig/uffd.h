/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory of one restored process that is still missing pages (userfaultfd(2), ioctl_userfaultfd(2)): what it faults on is put there at once,
 * the rest piece by piece. What the process does with its mappings meanwhile (unmaps, moves, discards, forks) is followed.
 */
#ifndef MOLT_PROCMIG_UFFD_H
#define MOLT_PROCMIG_UFFD_H

#include <stdbool.h>

#include "procmig/lazy.h"

struct molt__mm {
    int fd;                  /* the userfaultfd, not blocking */
    struct molt__runs runs;  /* what is missing, at its address of now */
    bool gone;               /* the process has ended */
    uint64_t *pending;       /* faults that could not be answered yet */
    size_t n_pending, cap_pending;
    size_t hand;             /* run to go on with */
    enum molt__rank rank;    /* of what goes on */
};

struct molt__mm_count {
    uint64_t pages, zero, faults;
};

/* Whether the kernel has what is needed; MOLT_E_UNSUPPORTED. */
int molt__uffd_possible(struct molt_error **err);

/* Reads one event and answers it: 1 done, 0 there was none. A fork: *ret_child is the child's memory, to be freed by molt__mm_free. */
int molt__mm_event(struct molt__mm *mm, struct molt__page_files *files, struct molt__mm_count *count, struct molt__mm **ret_child, struct molt_error **err);
/* Once more what could not be answered. */
int molt__mm_retry(struct molt__mm *mm, struct molt__page_files *files, struct molt__mm_count *count, struct molt_error **err);
/* The rank of what a push would bring; MOLT__RANKS: nothing is missing. */
enum molt__rank molt__mm_rank(struct molt__mm *mm);
/* Puts the next pages there, at most `pages` (and MOLT__PIECE): 1, 0: not now (an event waits, or memory is short). discard: frees them in the images. */
int molt__mm_push(struct molt__mm *mm, struct molt__page_files *files, uint64_t pages, bool discard, struct molt__mm_count *count, struct molt_error **err);
bool molt__mm_whole(const struct molt__mm *mm);
void molt__mm_free(struct molt__mm *mm);

/* Takes [start, end) out; moves [from, from + len) to `to`. */
void molt__runs_cut(struct molt__runs *rs, uint64_t start, uint64_t end);
void molt__runs_move(struct molt__runs *rs, uint64_t from, uint64_t to, uint64_t len);
/* The index of the run that has addr, or of the next one behind it; rs->n: none. */
size_t molt__runs_at(const struct molt__runs *rs, uint64_t addr);

#endif
