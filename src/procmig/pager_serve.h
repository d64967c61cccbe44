/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal to the pager: the process that serves, and what it tells the one that watches. */
#ifndef MOLT_PROCMIG_PAGER_SERVE_H
#define MOLT_PROCMIG_PAGER_SERVE_H

#include "procmig/pager.h"
#include "procmig/uffd.h"

/* So long whoever pushes lets others go first: while it stands back from CRIU's answer on, and behind the first page that was asked for. */
#define MOLT__PAGER_PATIENCE_MS 3000

enum molt__pager_says {
    MOLT__PAGER_SERVES,      /* a process, its userfaultfd as ancillary data */
    MOLT__PAGER_STANDS_BACK, /* it pushes while nobody else has anything to do: who watches has to raise it when a page is asked for */
    MOLT__PAGER_ENDS,
};

/* One datagram. */
struct molt__pager_report {
    enum molt__pager_says what;
    pid_t pid; /* SERVES; a fork's child, whose number is not known: -1 */
    struct molt__mm_count count;
    uint64_t us; /* from the first process on */
    bool restored; /* the end: it came behind the restore, whose processes may have children since */
    char error[256]; /* "": all is there */
};

enum molt__pager_urgency {
    MOLT__PAGER_IDLE,   /* what nobody else wants of the processor */
    MOLT__PAGER_NORMAL,
    MOLT__PAGER_FIRST, /* the lowest of the real-time priorities, sched(7); a nice value where there is none to have */
};

/* pid: 0: the caller. Its children begin with a normal one. */
void molt__pager_urgency(pid_t pid, enum molt__pager_urgency u);
/* Until all is there: the exit status. control: "push", or closed by a restore that failed. */
int molt__pager_serve(const struct molt_pager_opts *o, int listener, int control, int watcher);

#endif
