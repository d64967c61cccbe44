/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Restoring in the clone, owned by systemd. Order of calls there:
 *
 * - before the freeze molt_restore_lay for each unit, molt_restore_reload once, molt_restore_start for each, molt_restore_ready for each: the
 * restore-exec program stands in the unit's cgroup, inside the overlay, and waits.
 * - The images arrive in spec.images.
 * - molt_restore_begin lets criu restore; when molt_restore_end returns the tree is restored and stopped.
 * - molt_restore_thaw, after the pivot: SIGCONT.
 * - molt_restore_paged: memory that the thaw did not wait for is all there.
 * - molt_restore_adopted: systemd hears of the process now, and not in the pause, and takes it.
 * - molt_restore_settle for each unit: drop-in removed; molt_restore_reload, once; molt_restore_finish for each: the unit is active with
 * the same MainPID and its own Type.
 *
 * Or molt_restore_undo at any point before the thaw (also from a later process: all state is on disk).
 */
#ifndef MOLT_PROCMIG_RESTORE_H
#define MOLT_PROCMIG_RESTORE_H

#include "base/log.h"
#include "procmig/dump.h"
#include "procmig/overlay.h"

#define MOLT_RUN_DIR "/run/xenmolt"

struct molt_restore_spec {
    char *unit;    /* "counter.service" */
    char *images;  /* directory of the images (tmpfs) */
    char *toolbox; /* NULL: default */
    char *agent;   /* absolute path of the program that runs molt_restore_exec: `AGENT restore-exec SPEC` */
    pid_t main_pid;
    pid_t *id; /* every process and thread id that must be free */
    size_t ids;
    char *cwd;    /* working directory that must exist, or NULL */
    bool overlay; /* enter the saved overlay of the unit */
    uint64_t before_mb; /* MiB of memory from before the last dump that are restored in the pause (lazy.h) */
};

void molt_restore_spec_clear(struct molt_restore_spec *s);
struct molt_json *molt_restore_spec_json(const struct molt_restore_spec *s);
int molt_restore_spec_parse(const struct molt_json *v, struct molt_restore_spec *s, struct molt_error **err);

/* The drop-in and all the program needs. MOLT_E_CANNOT_MOVE when a needed pid is taken, the cwd is missing, or the unit is unknown or runs. */
int molt_restore_lay(const struct molt_restore_spec *s, struct molt_error **err);
/* systemd has reloaded (molt_restore_reload): its start; and the wait until the program stands ready. */
int molt_restore_start(const char *unit, struct molt_error **err);
int molt_restore_ready(const char *unit, int timeout_ms, struct molt_error **err);
/* One that goes on. */
struct molt_restoring;
/* Gives the waiting program the word. MOLT_E_STATE: none waits. */
int molt_restore_begin(const char *unit, struct molt_restoring **ret, struct molt_error **err);
/* Waits for its outcome; x is used up in any case. */
int molt_restore_end(struct molt_restoring *x, int timeout_ms, struct molt_dump_stats *ret_stats, struct molt_error **err);
/* Lets systemd hear of the process, and waits until it has taken it. */
int molt_restore_adopted(const char *unit, int timeout_ms, struct molt_error **err);
int molt_restore_thaw(const char *unit, struct molt_error **err);
/* After the thaw: waits until all of the memory is there (pager.h; *ret is its result, malloc'd, NULL: nothing was left for later). */
int molt_restore_paged(const char *unit, int timeout_ms, struct molt_json **ret, struct molt_error **err);
int molt_restore_settle(const char *unit, struct molt_error **err);
int molt_restore_reload(struct molt_error **err);
int molt_restore_finish(const char *unit, struct molt_error **err);
/* Only kills what was restored, at once and silent to its peers; molt_restore_undo does the rest. Errors: nothing of it is there, or MOLT_E_STATE as below. */
int molt_restore_kill(const char *unit, struct molt_error **err);
/* Kills what was restored, stops the unit, removes drop-in, spec, fifo and pid file. MOLT_E_STATE
 * after a thaw: the process serves, it can only be finished. The overlay is removed by molt_overlay_remove.
 */
int molt_restore_undo(const char *unit, struct molt_error **err);
/* The program that systemd starts (from the agent's main): exit status. */
int molt_restore_exec(const char *spec_path);

/* The drop-in's text for a spec file path; ident may be NULL. malloc'd. */
char *molt__dropin_text(const struct molt_restore_spec *s, const char *spec_path, const char *ident);
/* The journal identifier that the drop-in must set, from `systemctl show -p SyslogIdentifier,ExecStart`. */
char *molt__ident_of(const char *show);
char *molt__dropin_after(const char *show);

#endif
