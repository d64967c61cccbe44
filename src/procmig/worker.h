/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A criu that waits ready and does one thing when it is asked: `criu swrk FD`, as libcriu starts it, whose program and libraries are in
 * memory before the workload stands still. The messages are those of images/rpc.proto in CRIU's source, one a datagram of a socket pair; it
 * tells where it is ("pre-dump", "query-ext-files", ...: "notify" there) and goes on when it is answered. Nobody else can ask it, and when we
 * die it finds the socket closed, fails, and lets the workload go.
 */
#ifndef MOLT_PROCMIG_WORKER_H
#define MOLT_PROCMIG_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/strbuf.h"

/* criu_req_type */
#define MOLT_CRIU_DUMP    1
#define MOLT_CRIU_RESTORE 2

/* Fields of criu_opts */
#define MOLT_CRIU_IMAGES_DIR_FD     1
#define MOLT_CRIU_PID               2
#define MOLT_CRIU_LEAVE_RUNNING     3
#define MOLT_CRIU_EXT_UNIX_SK       4
#define MOLT_CRIU_TCP_ESTABLISHED   5
#define MOLT_CRIU_FILE_LOCKS        8
#define MOLT_CRIU_LOG_LEVEL         9
#define MOLT_CRIU_LOG_FILE          10
#define MOLT_CRIU_NOTIFY_SCRIPTS    12
#define MOLT_CRIU_PARENT_IMG        14
#define MOLT_CRIU_TRACK_MEM         15
#define MOLT_CRIU_INHERIT_FD        27 /* {1: key, 2: descriptor} */
#define MOLT_CRIU_MANAGE_CGROUPS    34 /* 0: ignore */
#define MOLT_CRIU_GHOST_LIMIT       35
#define MOLT_CRIU_EXTERNAL          37
#define MOLT_CRIU_TIMEOUT           45 /* seconds */
#define MOLT_CRIU_TCP_SKIP_IN_FLIGHT 46
#define MOLT_CRIU_LAZY_PAGES        48
#define MOLT_CRIU_NETWORK_LOCK      64 /* 3: skip */
#define MOLT_CRIU_LEAVE_STOPPED     69

struct molt_worker {
    pid_t pid; /* 0: none */
    int sk;
    char *why; /* what it said of a failure, or NULL */
    bool well; /* it said that it has done what it was asked for; its end may come later */
    int64_t patient; /* milliseconds of the monotonic clock until which it stands back; 0: it does not */
};

#define MOLT_WORKER_NONE {.sk = -1}

/* Starts one in the mount and time namespaces of process `like` (0: ours), and waits until it answers. It inherits the descriptors that have
 * no FD_CLOEXEC. MOLT_E_TIMEOUT, MOLT_E_STATE when it ends instead. On failure nothing is left. patience_ms: so long, while it is waited for, it leaves the
 * processor to others who want it (a nice value of 10); 0: it has our priority from the beginning, else from molt_worker_hurry on, or when that time is over. */
int molt_worker_start(const char *toolbox, pid_t like, int timeout_ms, int patience_ms, struct molt_worker *ret, struct molt_error **err);
/* Our nice value is its own now; also where it had been waited for so long that it has an earlier one of ours. */
void molt_worker_hurry(struct molt_worker *w);
/* What it still does nobody waits for: it gets what others leave of the processor (SCHED_IDLE, sched(7)), until molt_worker_end. */
void molt_worker_linger(const struct molt_worker *w);
/* request: one of MOLT_CRIU_DUMP, MOLT_CRIU_RESTORE; opts: criu_opts, encoded. Its directory descriptor is ours and stays open until the
 * first molt_worker_next has returned. */
int molt_worker_ask(const struct molt_worker *w, unsigned request, const struct molt_strbuf *opts, struct molt_error **err);
/* Waits until it tells where it is (*ret_step: malloc'd), or is done with the request, well or not, or gone (*ret_step: NULL). */
int molt_worker_next(struct molt_worker *w, int timeout_ms, char **ret_step, struct molt_error **err);
/* The answer to such a step, which may come before the step. opts: what it is to know from now on, or NULL. */
int molt_worker_go_on(const struct molt_worker *w, const struct molt_strbuf *opts, struct molt_error **err);
/* Lets it go on with whatever comes, until its end; and its outcome, as molt__criu_wait gives it. The worker is gone then. */
int molt_worker_end(struct molt_worker *w, const char *what, int timeout_ms, const char *log_path, struct molt_error **err);
/* It is answered no more: what it asks from now on, or asks already, fails, and it gives up what it does. molt_worker_end follows. */
void molt_worker_abandon(const struct molt_worker *w);
/* Ends one that has nothing of a workload in its hands; NONE is fine. */
void molt_worker_kill(struct molt_worker *w);

#endif
