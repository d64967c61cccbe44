/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Brings a restored workload the pages that CRIU left out (lazy.h), from the images in memory. It speaks what CRIU's own `lazy-pages` speaks
 * (criu/uffd.c: for each process its number and its userfaultfd, over DIR/lazy-pages.socket, at last a word), which cannot serve what lies in
 * the images of earlier rounds.
 *
 * Two processes: one serves, the other holds the userfaultfds too and watches it. Were they closed with pages missing, the kernel would show
 * zeroes in their place: when the server dies, what it served is killed.
 */
#ifndef MOLT_PROCMIG_PAGER_H
#define MOLT_PROCMIG_PAGER_H

#include <sys/types.h>

#include "base/json.h"
#include "procmig/lazy.h"

struct molt_pager {
    pid_t pid;   /* of the one that watches; 0: none */
    int control;
};

#define MOLT_PAGER_NONE {.control = -1}

#define MOLT_PAGER_AT_ONCE (32u << 20)
#define MOLT_PAGER_RT      1 /* its real-time priority while pages are asked for, sched(7) */

struct molt_pager_opts {
    const char *dir;    /* the images; they may come later, but before CRIU is asked */
    const char *result; /* a file to appear when all is over: {"ok", "pages", "zero_pages", "faults", "ms", "error"}; NULL: none */
    const char *cgroup; /* of the workload, to be killed whole; NULL: only the processes that CRIU named */
    bool keep;          /* the images are needed afterwards */
    uint64_t at_once;   /* bytes that go without waiting for calm behind the first page asked for, of those that are likely (lazy.h: not MOLT__COLD); their
                           place in the images is not freed */
};

/* The caller's own real-time priority (SCHED_FIFO, not its children's; 0: none), where it may have one, else false: who works for those who wait for pages may
 * not have to wait for its turns among them. */
bool molt_pager_realtime(int priority);
int molt_pager_possible(struct molt_error **err);
/* Starts it, listening: CRIU may connect from now on. It ignores SIGTERM, and ends by itself. */
int molt_pager_start(const struct molt_pager_opts *opts, struct molt_pager *ret, struct molt_error **err);
/* From now on not only what is asked for: until the first page is (for 3 s at most), when nobody else wants the processor. It goes on after the caller. */
int molt_pager_push(struct molt_pager *p, struct molt_error **err);
/* Before molt_pager_push, and waits for it: it kills what it served, and ends. So does the end of a caller that never said push. NONE is fine. */
void molt_pager_end(struct molt_pager *p);

#endif
