/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal: reading /proc, unix socket diagnosis, file descriptors of other processes. */
#ifndef MOLT_PROCMIG_PROCFS_H
#define MOLT_PROCMIG_PROCFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/error.h"

/* Text of /proc/PID/NAME; malloc'd. */
int molt__proc_text(pid_t pid, const char *name, char **ret_text, struct molt_error **err);

struct molt__stat { /* of /proc/PID/stat */
    pid_t ppid, pgrp, session;
    char state;
    uint64_t start_ticks;
};
/* Parses the text of /proc/PID/stat; the command may hold spaces and parentheses. */
bool molt__stat_parse(const char *text, struct molt__stat *s);
/* A number behind "Key:" in the text of /proc/PID/status; dflt when missing. */
int64_t molt__status_num(const char *text, const char *key, int64_t dflt);
/* The cgroup v2 path ("0::" line) in the text of /proc/PID/cgroup; malloc'd or NULL. */
char *molt__cgroup_parse(const char *text);
bool molt__cgroup_within(const char *path, const char *top);

/* Ids of the numeric entries of a directory (/proc, /proc/PID/task, /proc/PID/fd). */
int molt__numbers(const char *dir, int **ret_v, size_t *ret_n, struct molt_error **err);

/* Every process of a cgroup and those below it. */
int molt__cgroup_pids(const char *cgroup, pid_t **ret_v, size_t *ret_n, struct molt_error **err);

struct molt__fd {
    int fd;
    char target[4096]; /* link text */
    struct stat st;    /* of what is open */
    unsigned flags;    /* open flags from fdinfo (0 unless asked for) */
};
/* Calls fn for each open file; a process that ends meanwhile is no error. fn returns 0 or an error to stop.
 */
int molt__each_fd(pid_t pid, bool want_flags,
                  int (*fn)(void *ctx, const struct molt__fd *f, struct molt_error **err), void *ctx,
                  struct molt_error **err);

struct molt__inodes {
    uint64_t *v;
    size_t n, cap;
};
/* Appends those of the sockets that a process has open; the caller frees to->v. */
int molt__socket_inodes(pid_t pid, struct molt__inodes *to, struct molt_error **err);

/* A duplicate of another process's descriptor; -1 with errno. */
int molt__steal_fd(pid_t pid, int fd);

struct molt__unix_sk {
    uint32_t ino, peer;
    uint8_t type, state;
    char name[110]; /* "" without a name; abstract names begin with '@' */
};
struct molt__unix_table {
    struct molt__unix_sk *v;
    size_t n, cap;
};
int molt__unix_table_read(struct molt__unix_table *t, struct molt_error **err);
const struct molt__unix_sk *molt__unix_find(const struct molt__unix_table *t, uint32_t ino);

/* Units' files that count before those in /etc/systemd/system. */
#define MOLT_SYSTEMD_CONTROL "/run/systemd/system.control"
#define MOLT__SYSTEMCTL_MS   90000
/* systemctl VERB [OPTION] [UNIT]; option and unit may be NULL. */
int molt__systemctl(const char *verb, const char *option, const char *unit, struct molt_error **err);
/* systemctl show -p PROPS -- UNIT; malloc'd output. */
int molt__systemctl_show(const char *unit, const char *props, char **ret_out, struct molt_error **err);

/* Paths in JSON: bytes that are not printable ASCII, and '%', as %XX. malloc'd. */
char *molt__path_encode(const char *path);
/* NULL when malformed, not absolute, too long, or with ".", ".." or empty components. malloc'd. */
char *molt__path_decode(const char *text);

static inline void molt__unix_table_free(struct molt__unix_table *t)
{
    free(t->v);
    t->v = NULL;
    t->n = t->cap = 0;
}

#endif
