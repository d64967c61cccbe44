/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Freezing, dumping and resuming the original. */
#ifndef MOLT_PROCMIG_DUMP_H
#define MOLT_PROCMIG_DUMP_H

#include "base/log.h"
#include "procmig/criu.h"
#include "procmig/workload.h"

/* Files of ours in the image directory, beside CRIU's; they travel with the images. */
#define MOLT_DUMP_META "molt-dump.json" /* {schema, main_pid, ids [], sockets [{ino, stderr}], carry [], neighbours []}; behind the files that it names */
/* These do not travel. */
#define MOLT_DUMP_WHOLE ".molt-dump.whole"   /* the last to appear: all the rest is there */
#define MOLT_DUMP_FAILED ".molt-dump.failed" /* instead of it */

struct molt_dump_stats { /* from CRIU's stats images; microseconds */
    uint64_t freezing_us, frozen_us, memdump_us, memwrite_us, pages_scanned, pages_written;
    uint64_t forking_us, restore_us, pages_restored;
    uint64_t wall_us; /* from when it may begin until its end was seen */
    uint64_t before_us, asked_us; /* of a restore's: until CRIU was asked, and from there to its answer */
    bool armed;       /* it had been started before the standstill */
    uint64_t image_bytes;
};

#define MOLT_DUMP_PATIENCE_MS 5000 /* where the guest's services leave next to nothing of the processor */

struct molt_dump_opts {
    const char *toolbox; /* NULL: MOLT_TOOLBOX_DIR */
    const char *dir;     /* image directory, on a tmpfs; made when missing, empty but for such rounds */
    int timeout_ms;      /* 0: 120 s */
    unsigned rounds;     /* of memory that was copied before (predump.h); the dump takes what was written since */
    bool trial;          /* the workload goes on behind it (rehearse.h); its images are round `rounds` + 1, in whose directory they lie */
    int patience_ms;     /* so long the criu that is armed stands back behind whoever wants the processor, molt_worker_start */
    struct molt_log *log;
};

/* SIGSTOP for the whole tree until no thread runs and no new one appears (bounded at 5 s: MOLT_E_TIMEOUT,
 * thawed). */
int molt_freeze(const struct molt_workload *w, struct molt_error **err);
/* A dump in parts. The first starts criu (worker.h), which then waits: its start, some hundredths of a second to a second, does not
 * count as standstill, it holds nothing of the workload, and the workload goes on. */
struct molt_dump;
int molt_dump_arm(const struct molt_workload *w, const struct molt_dump_opts *opts, struct molt_dump **ret, struct molt_error **err);
/* False: it was told of something else than what is to be dumped now, or has ended. */
bool molt_dump_fits(const struct molt_dump *d, const struct molt_workload *w, const struct molt_dump_opts *opts);
/* Returns when the tree stands still, with our priority; criu waits for what is found there. The network must be isolated by the caller. On failure, from here
 * to the end, the tree is as CRIU left it: molt_dump_disarm, then molt_dump_resume. */
int molt_dump_begin(struct molt_dump *d, struct molt_error **err);
/* w: what stands still (molt_workload_refresh). CRIU is to know of the journal's streams, when nothing can open or close one any more. Done by
 * molt_dump_go_on where it was not. */
int molt_dump_look(struct molt_dump *d, const struct molt_workload *w, struct molt_error **err);
/* criu goes on by itself, to its end, at a nice value of 0. */
int molt_dump_go_on(struct molt_dump *d, const struct molt_workload *w, struct molt_error **err);
/* Waits for the images, and no longer: they can be taken elsewhere while criu leaves the processes that they are of. On failure MOLT_DUMP_FAILED appears. */
int molt_dump_written(struct molt_dump *d, const struct molt_workload *w, struct molt_error **err);
/* Waits for criu's end, where need be for the images first. But for a trial the tree is left stopped; TCP connections of the original stay silent (in repair mode) until molt_dump_resume.
 * d is used up in any case. */
int molt_dump_end(struct molt_dump *d, const struct molt_workload *w, struct molt_dump_stats *ret_stats, struct molt_error **err);
/* Instead of the end. A criu that has begun is waited for: it has parts of itself in the workload's processes. NULL is fine. */
void molt_dump_disarm(struct molt_dump *d);
/* Undo of freeze and dump, also when criu was killed in the middle, also a second time: kills a criu that
 * still traces the tree, takes TCP sockets out of repair mode, SIGCONT for every process of the unit's
 * cgroup. */
int molt_dump_resume(const char *unit, struct molt_error **err);
/* The end of a unit that goes on elsewhere: its processes are killed while their connections are silent, and systemd neither restarts it nor starts
 * it at the next boot. A unit that is not there any more is no error; also a second time. */
int molt_dump_depart(const char *unit, struct molt_error **err);
/* A tmpfs at dir for the images (made when missing; a second call is no error), and its removal with all in
 * it. */
int molt_images_mount(const char *dir, struct molt_error **err);
int molt_images_umount(const char *dir, struct molt_error **err);
struct molt_json *molt_dump_stats_json(const struct molt_dump_stats *s);
/* Reads DIR/stats-{dump,restore} when it is there. */
int molt__stats_read(const char *dir, const char *which, struct molt_dump_stats *s, struct molt_error **err);
/* DIR's MOLT_DUMP_META; MOLT_E_PROTOCOL when it is none, or has too much. */
int molt__dump_meta_load(const char *dir, struct molt_json **ret, struct molt_error **err);
/* Repair mode of every connected TCP socket of a process: off makes it speak again, on makes it silent. */
void molt__tcp_repair(pid_t pid, bool on);
/* stats-dump or stats-restore image; fields of the other kind are left alone. MOLT_E_PROTOCOL. */
int molt__stats_parse(const void *data, size_t len, struct molt_dump_stats *s, struct molt_error **err);

#endif
