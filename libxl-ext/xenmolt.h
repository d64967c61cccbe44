/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxenmolt: changes the operating system under a running Xen guest.
 *
 * Opaque, free of libxl types, compiles alone as C99 and C++. Functions return 0 or a negative code
 * (molt_strerror(), molt_exit_status()) and, when err is not NULL, an error to be freed with molt_err_free().
 * Structured results are JSON texts (malloc'd; free()), described in xenmolt-report(7).
 */
#ifndef XENMOLT_H
#define XENMOLT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

#define XENMOLT_API_VERSION 1

typedef struct xenmolt xenmolt;
typedef struct molt_error xenmolt_error;

enum xenmolt_level { XENMOLT_ERROR, XENMOLT_WARN, XENMOLT_INFO, XENMOLT_DEBUG };

/* One thing that happened in an operation. Strings are valid during the call only; any may be NULL. */
typedef struct xenmolt_event {
    const char *operation; /* id */
    const char *kind;      /* "state", "step", "step-done", "undo", "progress", "log", "check" */
    const char *name;      /* step, state or check */
    const char *text;
    int64_t at_us;         /* CLOCK_REALTIME, microseconds */
    int percent;           /* -1: unknown */
} xenmolt_event;

typedef struct xenmolt_config {
    unsigned size;         /* sizeof(xenmolt_config): lets later versions append members */
    const char *state_dir; /* NULL: /var/lib/xenmolt */
    void (*log)(void *ctx, enum xenmolt_level level, const char *line);
    void (*event)(void *ctx, const xenmolt_event *event);
    void *ctx;             /* for both callbacks */
    enum xenmolt_level log_level;
} xenmolt_config;

/* Opens the library (no domain is touched). */
int xenmolt_open(const xenmolt_config *config, xenmolt **ret, xenmolt_error **err);
void xenmolt_close(xenmolt *x);

typedef struct xenmolt_upgrade_params {
    unsigned size;           /* sizeof(xenmolt_upgrade_params) */
    const char *domain;      /* name or domid */
    const char *workload;    /* systemd units, by commas, at most 16; NULL: those in the guest's /etc/xenmolt/workload */
    const char *recipe;      /* shipped name or path, NULL: debian-security */
    const char *recipe_arg;  /* argument for the recipe (debian-release: suite), NULL: none */
    const char *on_conflict; /* "refuse" (NULL), "active" or "upgrade" */
    int keep_active;         /* nonzero: a retention time (op-commit --older-than) leaves the old domain alone */
    const char *resolve_file; /* decisions about single conflicts (xenmolt-policy(5)), NULL: none */
    int wait_hours;          /* behind the first merge wait so long for xenmolt_op_continue(); 0: do not wait */
    const char *merge_disks; /* "xvdb,xvdc": data disks that are merged, not handed over; NULL: none */
    int no_rehearsal;        /* nonzero: the restore is not tried before the freeze */
} xenmolt_upgrade_params;

#define XENMOLT_WAIT_HOURS 24      /* what `guest-upgrade --wait` without a number means */
#define XENMOLT_WAIT_HOURS_MAX 168 /* a week: the clone's memory and the overlays are held all the time */

/* Preflight only; nothing is changed. *ret_json: {domain, ok, checks [{name, ok, code, detail, remedy}], disks [{vdev, path,
 * format, dirs (where mounted, of one that is handed over)}], estimate {..}, reasons [{what, detail, remedy}], workloads [{unit, verdict ("move", "refuse")}]}.
 * Returns the code of the first failed check (with *ret_json set all the same), or 0. */
int xenmolt_guest_upgrade_preflight(xenmolt *x, const xenmolt_upgrade_params *p, char **ret_json, xenmolt_error **err);
/* The whole guest upgrade; blocks until it ended. *ret_json: the report (also after a failure that came behind the
 * preflight); may stay NULL. */
int xenmolt_guest_upgrade(xenmolt *x, const xenmolt_upgrade_params *p, char **ret_json, xenmolt_error **err);

/* Moves one service from one running domain to another, without upgrading either. */
typedef struct xenmolt_migrate_params {
    unsigned size;              /* sizeof(xenmolt_migrate_params) */
    const char *from, *to;      /* domains, by name or domid */
    const char *workload;       /* systemd unit */
    const char *address;        /* the service's own, "10.0.0.5/24", which goes along; NULL: it has none, and no connections */
    const char *const *folders; /* n_folders directories that go along, absolute; on the other side missing or empty */
    unsigned n_folders;
    int no_rehearsal;           /* nonzero: the restore is not tried before the freeze */
} xenmolt_migrate_params;

/* Preflight only; nothing is changed. *ret_json: {from, to, ok, checks [{name, ok, code, detail, remedy}], compare (as xenmolt_app_compare)}. */
int xenmolt_app_migrate_preflight(xenmolt *x, const xenmolt_migrate_params *p, char **ret_json, xenmolt_error **err);
/* The whole move; blocks until it ended. *ret_json: the report, as of xenmolt_guest_upgrade. */
int xenmolt_app_migrate(xenmolt *x, const xenmolt_migrate_params *p, char **ret_json, xenmolt_error **err);

/* Operations. ID may be a unique prefix. */
int xenmolt_op_list(xenmolt *x, char **ret_json, xenmolt_error **err);
int xenmolt_op_show(xenmolt *x, const char *id, char **ret_json, xenmolt_error **err);
int xenmolt_op_log(xenmolt *x, const char *id, char **ret_json, xenmolt_error **err);
int xenmolt_op_abort(xenmolt *x, const char *id, int wait_s, xenmolt_error **err);
int xenmolt_op_recover(xenmolt *x, const char *id, xenmolt_error **err);
/* Deletes the retained old domain and its disks of a finished guest-upgrade. */
int xenmolt_op_commit(xenmolt *x, const char *id, xenmolt_error **err);
/* Brings the retained old domain back as the domain of that name; what clients wrote since the pivot is lost, and
 * therefore must be confirmed by discard_new_writes. */
int xenmolt_op_rollback(xenmolt *x, const char *id, int discard_new_writes, xenmolt_error **err);

/* An upgrade that waits (wait_hours), named by its id, the unique beginning of one, or its domain. */
/* Lets it go on, after one more pass of the merge. MOLT_E_CONFLICT, and it waits on, while conflicts are open. */
int xenmolt_op_continue(xenmolt *x, const char *id, xenmolt_error **err);
/* Its merge as of now. resolve_file (NULL: none) gives it decisions first. dry_run, or a resolve_file: *ret_json is the
 * plan; otherwise a pass is made, and *ret_json tells of it (xenmolt-report(7)). */
int xenmolt_delta_merge(xenmolt *x, const char *id, int dry_run, const char *resolve_file, char **ret_json, xenmolt_error **err);
/* Whether a resolve file can be used: MOLT_E_USAGE with file, line and reason when it cannot. */
int xenmolt_resolve_check(const char *file, xenmolt_error **err);

/* Which services of a running domain still run old code of an upgrade: {domain, overlays [{unit, main_pid, since, files [], packages [{package,
 * runs, installed, replaced_s}]}]} (xenmolt-app(8)). domain: name or domid. */
int xenmolt_app_overlays(xenmolt *x, const char *domain, char **ret_json, xenmolt_error **err);

/* What services of the running domain `from` would find on the system of the running domain `to`: {from, to, os_from, os_to, packages {level, ...},
 * units [{unit, verdict, reasons [], same, different, missing, files []}]} (xenmolt-app(8)). workload: as in xenmolt_upgrade_params. */
int xenmolt_app_compare(xenmolt *x, const char *from, const char *to, const char *workload, char **ret_json, xenmolt_error **err);

/* Watches one domain that this library created and acts on its shutdown as its configuration says (on_reboot, ...).
 * Returns when the domain is gone for good. */
int xenmolt_monitor(xenmolt *x, uint32_t domid, xenmolt_error **err);

const char *xenmolt_version(void);
const char *xenmolt_strerror(int code);
int xenmolt_exit_status(int code);
const char *xenmolt_error_text(const xenmolt_error *err);
void xenmolt_error_free(xenmolt_error *err);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
