/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* xenmolt-agent: what its parts share. */
#ifndef MOLT_AGENT_H
#define MOLT_AGENT_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "procmig/predump.h"
#include "proto/msg.h"

#define MOLT_AGENT_RUN "/run/xenmolt"
#define MOLT_AGENT_LIB "/var/lib/xenmolt"
#define MOLT_AGENT_ETC "/etc/xenmolt"
#define MOLT_AGENT_DUMP MOLT_AGENT_RUN "/dump"
#define MOLT_AGENT_MODE MOLT_AGENT_RUN "/mode" /* in a clone, until it goes live */
#define MOLT_AGENT_PROGRAM "/usr/sbin/xenmolt-agent"
#define MOLT_AGENT_RECIPE MOLT_AGENT_LIB "/recipe"
#define MOLT_CONTROL_RING (256u << 10)
#define MOLT_PEER_RING (1u << 20)
#define MOLT_MAX_RECIPE (1024u << 20)

struct merge_state; /* mergeside.c */
struct unit_moves; /* units.h */
struct molt_workload;
struct molt_recorder;

/* One connection of the host: everything that it began and that must be taken back when the host goes away. */
struct session {
    struct molt_chan *host;
    struct molt_log *log;
    pid_t thawer;          /* watchdog of a frozen file system, 0: none */
    pid_t peer_server;     /* child that serves the other agent, 0: none */
    char *peer_path;       /* where its ring stands in xenstore */
    struct molt_chan *peer; /* our connection to the other agent, NULL: none */
    struct unit_moves *units; /* the services that move (units.h) */
    struct merge_state *merge;
    struct molt_recorder *recorder; /* NULL: none */
    char *recorded[64];    /* where its roots are mounted ("/" first), NULL behind the last */
    char *no_recorder;     /* why there is none although the host asked for it */
    struct molt_json *volumes; /* directories of the volumes that we froze for the hand-over, NULL: none */
    pid_t volumes_guard;   /* child that thaws them when we are gone, 0: none */
    int volumes_pipe;      /* its other end closes with us */
    struct molt_json *folders; /* directories that the other agent may ask about, [path]; NULL: whole file systems */
    struct molt_json *pins; /* what the active side told of its pins */
    struct molt_listeners *listeners; /* of the services that move, as dump-settle found them; NULL: it did not */
    struct molt_json *bystanders; /* what dump-settle stopped and dump will tell of, NULL: nothing yet */
};

/* supervisor.c: announces, serves one host connection after another; returns only on a fatal error. */
int agent_supervise(struct molt_log *log);
/* session.c: serves one connection to its end and takes back what was left open. */
void agent_session(struct molt_chan *host, struct molt_log *log);
/* init.c: we are PID 1 of a clone: prepares the upgrade target, then becomes the real init. */
int agent_init_main(char *const argv[], struct molt_log *log);
/* announce.c: xenstore. */
int agent_announce(struct molt_error **err);
/* Whether dom0 has told (by the pivot's transaction) that this domain was replaced. */
bool agent_was_replaced(void);
/* Likewise: that this domain took over. */
bool agent_took_over(void);
/* Removes a key of ours and all below it (relative to this domain). */
void agent_forget(const char *path);

/* osinfo.c: {id, version, pretty, kernel, libc, jdk, packages}. Owned by the caller. */
struct molt_json *agent_os_info(void);

/* Handlers, by file. */
int h_hello(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_preflight(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_os(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_health(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_poweroff(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_boot_files(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);

/* disks.c: "mounts" (file systems on block devices: {dir, type, below, device, disks, system}) and "swaps" ({device, disks}) into reply. */
int disks_report(struct molt_json *reply, struct molt_error **err);
/* Paths as mountinfo shows them (\\ooo for blanks and backslashes), in our messages also for what is not ASCII; malloc'd. */
char *disks_escape(const char *s);
char *disks_unescape(const char *s); /* NULL: "" */
/* A kernel's name of a disk or partition, as far as that can be told from the name. */
bool disks_is_name(const char *s);
/* As PID 1 of a clone: udev leaves disks of these names ("xvdy,xvdx") alone, which bear the UUIDs of the clone's own. */
void disks_hide_bases(const char *names);
int h_disks_wait(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_disks_forget(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);

/* volumes.c: disks that are handed over. */
int h_volumes_release(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_volumes_check(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_volumes_mount(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_volumes_freeze(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_volumes_thaw(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
void volumes_thaw(struct session *s);
/* Where file systems of disks were mounted that are handed over, in the order in which they were: until volumes-mount nothing of them is there. Each and
 * the array, which ends with NULL, are the caller's. */
char **volumes_dirs(void);
/* Whether path lies on a volume that this clone has released and will get. */
bool volumes_cover(const char *path);

int h_fs_freeze(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_fs_thaw(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
void fs_thaw_all(struct session *s);

int h_record_start(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
void record_end(struct session *s);

int h_net_setup(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_address_look(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_address_hide(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_address_show(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_folders(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_folders_drop(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_net_announce(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int net_addresses(struct molt_json **ret, struct molt_error **err);

int h_recipe(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);

int h_peer_listen(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_peer_connect(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
/* Serves the other agent on chan until it closes. */
void peer_serve(struct molt_chan *chan, const struct session *session);
/* Ends the child that serves, and removes its ring's keys. */
void peer_stop(struct session *s);

/* departure.c: the active's side of a move. */
int h_dump_prepare(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_dump_arm(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_dump_settle(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_dump(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_dump_freeze(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_dump_written(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_dump_end(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_depart(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_resume(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
/* Every criu that waits for a dump, or is at it. */
void departure_disarm(struct session *s);
/* What this session stopped goes on. */
void departure_resume(struct session *s);
/* Whether anything was prepared for a dump. */
bool departure_begun(const struct session *s);
/* All images of the workloads, dumps and rounds, with their memory. */
void departure_forget_images(void);
/* Processes that a dump stopped beside the workload go on; also after the death of who stopped them. */
void departure_thaw_bystanders(struct molt_log *log);

/* info.c: the services that are asked for ("a,b"; NULL: those in /etc/xenmolt/workload), as they are now; room for MOLT_MAX_UNITS. The caller frees
 * *ret_n of them, also after a failure. */
int info_workloads(const char *asked, struct molt_workload **ret_w, size_t *ret_n, struct molt_error **err);

/* fileset.c */
int h_fileset(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_fileset_compare(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);

/* overlays.c */
int h_overlays(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);

/* hookcall.c */
int h_hooks(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);

/* predump.c: one round of memory on the active, and its way into the clone. */
/* A number of a round, or of rounds, in a request: 0 (also where it is missing) to MOLT_ROUNDS_MAX, else MOLT_E_PROTOCOL. */
int predump_number(const struct molt_json *args, const char *key, unsigned *ret, struct molt_error **err);
int h_predump(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_predump_fetch(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);

/* rehearsal.c: a trial of the restore. */
int h_rehearsal_dump(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_rehearse(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);

/* arrival.c: the clone's side of a move. */
int h_pins_fetch(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_restore_prepare(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_images_fetch(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_restore_go(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_restore_thaw(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_restore_kill(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_restore_undo(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_memory_wait(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_go_live(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_verify(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
/* Whether it runs before the workload's own threads and its pager (pager.h). */
void arrival_hurry(bool on);
/* The scheduler's turns (turns.h) are as they were before a restore; also where they always were. */
void arrival_usual_turns(void);
/* Gives up what was prepared and not thawed. */
void arrival_give_up(struct session *s);

int h_merge_begin(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_merge_pass(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_merge_plan(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_merge_resolve(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_merge_check(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
int h_merge_report(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
void merge_free(struct session *s);

#endif
