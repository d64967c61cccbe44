/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A workload: the process tree of one systemd service, as it stands now. Reading only; nothing is changed. */
#ifndef MOLT_PROCMIG_WORKLOAD_H
#define MOLT_PROCMIG_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/json.h"

#define MOLT_UNIT_MAX  128
#define MOLT_TASKS_MAX 65536

struct molt_proc {
    pid_t pid, ppid;
    char *comm;
    size_t first_tid, tids; /* slice of molt_workload.tid */
};

struct molt_workload {
    char *unit;   /* "counter.service" */
    char *type;   /* the unit's Type= */
    char *cgroup; /* "/system.slice/counter.service" */
    char *fragment;
    char *cwd; /* working directory of the main process */
    pid_t main_pid;
    struct molt_proc *proc; /* main process first, parents before children where the tree allows */
    size_t procs, procs_cap;
    pid_t *tid; /* every thread of every process */
    size_t tids, tids_cap;
    uint64_t rss_bytes;
    size_t tcp_connections;  /* established TCP connections, IPv4 and IPv6 */
    int64_t uptime_s;        /* of the main process */
    bool tree_covers_cgroup; /* every process of the cgroup descends from the main process */
};

/* "counter" -> "counter.service"; refuses what is not a plain service unit name (MOLT_E_USAGE). malloc'd. */
int molt_unit_name(const char *name, char **ret_unit, struct molt_error **err);
/* MOLT_E_NO_WORKLOAD: no such unit, not running, or without a main process. */
int molt_workload_scan(const char *unit, struct molt_workload **ret_w, struct molt_error **err);
/* The same tree looked at again, in the freeze and so without a word to systemd: processes and threads are as of now, connections and uptime stay as of
 * the scan. The unit's control group and main process must be those of the scan. */
int molt_workload_refresh(struct molt_workload *w, struct molt_error **err);
void molt_workload_free(struct molt_workload *w);
static inline void molt__cleanup_workload(struct molt_workload **w)
{
    molt_workload_free(*w);
}
#define CLEANUP_WORKLOAD __attribute__((cleanup(molt__cleanup_workload)))
/* {unit, type, cgroup, main_pid, pids [], tids [], rss_bytes, connections, uptime_s, cwd (encoded)} */
struct molt_json *molt_workload_json(const struct molt_workload *w);
/* Those of a list of process and thread ids that exist here now (a restore would find them taken). */
int molt_pids_taken(const pid_t *id, size_t n, pid_t **ret_taken, size_t *ret_n, struct molt_error **err);

/* One property of `systemctl show -p ...` output: malloc'd value or NULL. */
char *molt__show_get(const char *output, const char *key);
/* Established sockets of the text of /proc/PID/net/tcp or tcp6 whose inode is in ino[0..n). */
size_t molt__count_established(const char *text, const uint64_t *ino, size_t n);

#endif
