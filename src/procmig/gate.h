/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A CRIU that waits. `criu dump` calls its action script with "pre-dump" when its program, libraries and caches are in memory and
 * before it touches anything (criu(8), --action-script; cr_dump_tasks in criu/cr-dump.c). Our script does not come back
 * until the workload is to stand still. It is a link to the agent's program, which knows its name, in a directory with two FIFOs.
 */
#ifndef MOLT_PROCMIG_GATE_H
#define MOLT_PROCMIG_GATE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

#define MOLT_GATE_NAME "xenmolt-gate"
#define MOLT_GATE_MS   120000 /* so long a closed gate stands; then it fails, and so does criu */

struct molt_gate {
    char *dir, *script; /* script: for --action-script */
    int ready, go;      /* FIFOs, ours */
};

/* Makes DIR anew, with the gate; program: what MOLT_GATE_NAME links to. To be closed in any case. */
int molt_gate_make(const char *dir, const char *program, struct molt_gate *ret, struct molt_error **err);
/* Until criu (pid) stands at the gate. MOLT_E_TIMEOUT; MOLT_E_STATE: it has ended. */
int molt_gate_wait(const struct molt_gate *g, pid_t pid, int timeout_ms, struct molt_error **err);
/* Lets it pass. */
int molt_gate_open(const struct molt_gate *g, struct molt_error **err);
/* And with it the directory; who still stands there fails. */
void molt_gate_close(struct molt_gate *g);
/* The script: its exit status. path: how it was called. */
int molt_gate_main(const char *path);
bool molt_gate_is(const char *path);

#endif
