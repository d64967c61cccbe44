/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A restored workload that stands still is let run a first step: each thread its own code, up to its first system call, which is not made. So a trial sees
 * whether it comes to life with its registers, its memory, and the code and the processor that are here, and nothing of what it would do comes to pass
 * a second time: without a system call a thread can write to memory only.
 */
#ifndef MOLT_PROCMIG_FIRSTSTEP_H
#define MOLT_PROCMIG_FIRSTSTEP_H

#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

#define MOLT_FIRST_STEP_MS 10000

struct molt_first_step {
    size_t reached; /* threads that came to a system call */
    size_t busy;    /* threads that were still at work in their own code at the end, or wait for a file that is not whole yet */
    size_t left;    /* threads not let run: their process shares a file by a mapping (but for those that a trial takes away, carry.h, and what is installed), or has one mapped that is absent */
};

/* id: n threads that stand still (state T, all of a process); the calling thread may trace them and kills them afterwards, all of them (their ids are free when it
 * has waited for each or ended), and they die with it. absent: directories whose files are not there yet, NULL-terminated, or NULL. One that is not at its system call after half a second is busy if it runs, or is given the memory that it asks for. MOLT_E_CANNOT_MOVE: one ended, met an instruction that this processor does not
 * have, was hit by a signal of its own doing (SIGSEGV, SIGFPE, SIGTRAP) that it does not catch, or waited for its memory for timeout_ms. Linux 5.3 (PTRACE_GET_SYSCALL_INFO). */
int molt_first_step(const pid_t *id, size_t n, const char *const *absent, int timeout_ms, struct molt_first_step *ret, struct molt_error **err);

#endif
