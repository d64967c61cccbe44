/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that a workload's threads point to. What a thread will use when it goes on, its stack says: the objects it works on are named there, whether it wrote them a
 * moment ago or only ever reads them; and which pages are read no kernel tells without idle page tracking. So words at the top of each waiting thread's stack
 * that lie within a large mapping are taken for pointers (as a conservative garbage collector does: Boehm, Weiser, "Garbage Collection in an Uncooperative
 * Environment", 1988), and so are those at the beginning of what they point to. One that is none costs a page that is restored for nothing.
 * They travel beside the images of a round, as pointed-PID.img: eight bytes, MOLT__POINTED_MAGIC, then the pages' addresses, 64 bits little-endian each, ascending.
 */
#ifndef MOLT_PROCMIG_POINTED_H
#define MOLT_PROCMIG_POINTED_H

#include "procmig/workload.h"

#define MOLT__POINTED_MAGIC "MOLTPTR1"
#define MOLT_POINTED_MAX    16384 /* pages of a process */

/* On the active side, while the workload runs: a file for each process that has such pages, in the directory of a round's images. A process or thread that ends
 * meanwhile, or that runs just now, is passed over. */
int molt_pointed_write(const struct molt_workload *w, const char *dir, struct molt_error **err);

struct molt__pointed {
    uint64_t *v; /* ascending */
    size_t n;
};
/* What `dir` has of a process; a file that is not there is none. MOLT_E_PROTOCOL. */
int molt__pointed_load(const char *dir, pid_t pid, struct molt__pointed *ret, struct molt_error **err);
void molt__pointed_free(struct molt__pointed *p);
/* Whether the page at addr is one of them; *pages: how many behind it are like it, no more than before. */
bool molt__pointed_has(const struct molt__pointed *p, uint64_t addr, uint64_t *pages);

/* The stack pointer in the text of /proc/PID/task/TID/syscall (proc(5)); false: the thread runs, or it is no such text. */
bool molt__stack_pointer(const char *text, uint64_t *ret);

#endif
