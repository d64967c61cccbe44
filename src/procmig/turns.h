/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Longer turns of the processor. Behind a thaw all threads of the workload want to run at once: in the scheduler's usual turns (some milliseconds, less where one that
 * wakes may interrupt another) a thread that holds a lock leaves the processor before it gives the lock away, and those that wait for it take their turns in vain. For the
 * time of a move, in a guest that runs nothing else yet, turns are MOLT_TURN_NS long, also where one that wakes waits for them.
 *
 * Linux tells the scheduler's settings in debugfs (sched/, from 5.13 on; base_slice_ns from 6.6 on) or, before, in /proc/sys/kernel (sched(7), Documentation/scheduler).
 */
#ifndef MOLT_PROCMIG_TURNS_H
#define MOLT_PROCMIG_TURNS_H

#include "base/error.h"

#define MOLT_TURN_NS 8000000 /* more than a thread runs for its first answer, under emulation, too; what wakes (a commit of the file system) may have to wait as long */

/* Sets what this kernel has of it. What was set before stands in the file `record` first, so that another process can give it back. Returns how many settings are longer
 * now (0: none can be set, as in a kernel that is locked down; nothing is left then), or an error: the record could not be written, and nothing is changed. */
int molt_turns_begin(const char *record, struct molt_error **err);
/* Gives back what the record has, but for what somebody else has set meanwhile, and removes it. Also without a record, and a second time. */
void molt_turns_end(const char *record);

/* Internal, for tests: in these directories in place of debugfs and /proc/sys/kernel; each may be NULL. */
int molt__turns_begin(const char *debugfs, const char *sysctl, const char *record, struct molt_error **err);
void molt__turns_end(const char *debugfs, const char *sysctl, const char *record);

#endif
