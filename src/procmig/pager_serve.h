/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal to the pager: the process that serves, and what it tells the one that watches. */
#ifndef MOLT_PROCMIG_PAGER_SERVE_H
#define MOLT_PROCMIG_PAGER_SERVE_H

#include "procmig/pager.h"
#include "procmig/uffd.h"

/* One datagram. A process with its userfaultfd as ancillary data (a fork's child, whose number is not
 * known: -1); pid 0: the end. */
struct molt__pager_report {
    pid_t pid;
    struct molt__mm_count count;
    uint64_t us; /* from the first process on */
    bool restored; /* the end: it came behind the restore, whose processes may have children since */
    char error[256]; /* "": all is there */
};

/* Until all is there: the exit status. control: "push", or closed by a restore that failed. */
int molt__pager_serve(const struct molt_pager_opts *o, int listener, int control, int watcher);

#endif
