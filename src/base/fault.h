/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Named fault points. MOLT_FAULT="NAME[:N][=ACTION]" makes the N-th (default first) passage of point NAME act:
 * fail (default: the point returns true), kill (SIGKILL to self), stop (SIGSTOP), sleep (10 s).
 * Read from the environment at each passage, so a test can set it for one process only.
 * The idea: criu/include/fault-injection.h.
 */
#ifndef MOLT_BASE_FAULT_H
#define MOLT_BASE_FAULT_H

#include <stdbool.h>

bool molt_fault(const char *name);

#endif
