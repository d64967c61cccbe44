/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guest-upgrade: what its steps share. Everything that must outlive a crash is a fact of the operation. */
#ifndef MOLT_LIBXL_UPGRADE_H
#define MOLT_LIBXL_UPGRADE_H

#include "context.h"
#include "disk.h"
#include "domain.h"
#include "engine/engine.h"
#include "guest.h"
#include "hold.h"
#include "net.h"
#include "xenstore/identity.h"

#define MOLT_MAX_PREMERGE 4     /* passes before the freeze */
#define MOLT_PREMERGE_ENOUGH 32 /* a pass with at most this many actions is the last before the freeze */

/* The vifs that either domain (active or clone) has, with the bridges and addresses of the active's configuration. */
struct up_vifs {
    struct molt_hold_vif *v;
    int n;
};

/* Connections, and what can be looked up; made anew by whoever needs them. */
struct upgrade {
    struct xenmolt *x;
    struct molt_upnet net;
    struct molt_chan *active, *clone;
    struct up_vifs clone_vifs; /* NULL: not looked up yet */
    int guard; /* see guard.h; -1: none */
    bool hurries;
    int nice; /* before it did */
    bool dump_ends;         /* the active was asked for "dump-end", */
    uint32_t dump_end;      /* in this message */
    xs_transaction_t pivot; /* prepared (xenstore/identity.h); XBT_NULL: not */
};

/* Facts and parameters by their keys. */
const char *up_param(struct molt_op *op, const char *key);
int64_t up_param_int(struct molt_op *op, const char *key);
const char *up_fact(struct molt_op *op, const char *key);
int64_t up_fact_int(struct molt_op *op, const char *key, int64_t dflt);
static inline struct upgrade *up_of(struct molt_op *op) { return molt_op_priv(op); }
char *up_clone_name(struct molt_op *op);    /* "web1--clone" */
char *up_replaced_name(struct molt_op *op); /* "web1--replaced" */
char *up_domain_dir(struct molt_op *op);    /* kernel and initrd of the new domain */
/* Identity for xenstore; strings are valid while op lives or until up_identity_clear. */
struct up_identity {
    struct molt_identity id;
    char *clone_name, *replaced_name;
};
void up_identity_of(struct molt_op *op, struct up_identity *ret);
void up_identity_clear(struct up_identity *i);

/* From the freeze to the thaw nobody in dom0 has more reason to run than we (a nice value of -15, where that is allowed): guests' devices wait for their guests then. */
void up_hurry(struct molt_op *op, bool on);

/* The connection to either agent, made when there is none. */
int up_active(struct molt_op *op, struct molt_chan **ret, struct molt_error **err);
int up_clone(struct molt_op *op, struct molt_chan **ret, struct molt_error **err);
void up_drop(struct molt_chan **c);
/* {"units": [{"unit", "main_pid" (before), "rounds" (of its memory that went to the clone)}]}: the services that move. Owned by the caller. */
struct molt_json *up_units_args(struct molt_op *op);
/* A call with them as its argument. */
int up_call_units(struct molt_op *op, struct molt_chan *c, const char *what, struct molt_json **ret, struct molt_error **err);
/* The same, or with `args` in place of them; until the agent has answered dom0 does `beside`, whose failure is told where the call has none. args, ret: may be NULL. */
int up_call_beside(struct molt_op *op, struct molt_chan *c, const char *what, const struct molt_json *args,
                   int (*beside)(struct molt_op *op, void *ctx, struct molt_error **err), void *ctx, struct molt_json **ret, struct molt_error **err);
/* Tells the hooks in a guest of an event (src/agent/hooks.h), and notes what became of them. MOLT_E_HOOK with the reason. */
int up_hooks(struct molt_op *op, struct molt_chan *c, const char *event, struct molt_error **err);
/* fn for each of them; stops at the first error. */
int up_each_unit(struct molt_op *op, int (*fn)(struct molt_op *op, const char *unit, void *ctx, struct molt_error **err), void *ctx, struct molt_error **err);
/* A call that scans or copies. */
#define UP_LONG_CALL_MS (20 * 60 * 1000)
static inline int up_long_call(struct molt_chan *c, const char *what, const struct molt_json *args, struct molt_json **ret, struct molt_error **err)
{
    struct molt_call call = {.timeout_ms = UP_LONG_CALL_MS};
    return molt_call(c, what, args, &call, ret, err);
}
/* Clone domain by name and UUID; false when it is not there. */
bool up_find_clone(struct molt_op *op, struct molt_domain *ret);
bool up_aborting(void *op);
void up_note_us(struct molt_op *op, const char *key);

/* Steps: upgrade_clone.c */
int step_snapshot(struct molt_op *op, struct molt_error **err);
int undo_snapshot(struct molt_op *op, struct molt_error **err);
int step_network(struct molt_op *op, struct molt_error **err);
int undo_network(struct molt_op *op, struct molt_error **err);
int step_clone(struct molt_op *op, struct molt_error **err);
int undo_clone(struct molt_op *op, struct molt_error **err);
int step_upgrade(struct molt_op *op, struct molt_error **err);
int undo_upgrade(struct molt_op *op, struct molt_error **err);
int step_reboot(struct molt_op *op, struct molt_error **err);
/* upgrade_disks.c */
/* One disk of the guest, from the journal. Strings are the journal's: valid until the fact "disks" is put anew. */
struct up_disk {
    const char *vdev, *path, *format;          /* as the guest had it before the operation */
    const char *delta_a, *delta_b, *base_view; /* overlays on path: of the active, of the clone, and what the clone sees of the base; NULL: not planned yet */
    const char *node, *base_node;              /* QEMU's names of delta_a and of path when the snapshot was planned */
    const char *base_vdev;                     /* of base_view in the clone */
    /* A disk that is handed over, not merged: overlays on delta_a from the freeze on, and QEMU's names of hand_b and of
     * delta_a below it. NULL: it is merged. */
    const char *hand_a, *hand_b, *hand_a_node, *hand_b_node, *hand_base_node;
    const struct molt_json *dirs;              /* where the guest has its file systems mounted */
    /* A volume of LVM (upgrade_lvm.c): "thin" or "classic", NULL: an image. Then there is no delta_a. */
    const char *lvm, *vg, *lv, *backend;       /* backend: "phy" or "qdisk" */
    const char *snap, *clone, *hand, *next;    /* volumes in vg: the base; the clone's (thin); what was handed over; the one that op-commit gives the disk's name */
    uint64_t size, room;                       /* bytes: of the volume, and how many may change below a classic snapshot */
    bool old;                                  /* from a journal that knew one disk only */
};
struct up_disks {
    struct up_disk v[MOLT_MAX_DISKS];
    size_t n;
};
enum up_side { UP_ACTIVE, UP_CLONE };
void up_disks_of(struct molt_op *op, struct up_disks *ret);
/* Is any of them QEMU's to serve (an image)? Else the guest may have no QEMU. */
bool up_disks_have_image(struct molt_op *op);
/* The names of all that the snapshot makes, durable before it is made; then its files; then the snapshot itself; then, with the
 * guest writing on, what could wait. q: the guest's QEMU, NULL where no disk is an image. */
int up_disks_plan(struct molt_op *op, struct molt_qmp *q, struct molt_error **err);
int up_disks_make_overlays(struct molt_op *op, struct molt_error **err);
int up_disks_snapshot(struct molt_op *op, struct molt_qmp *q, struct molt_error **err);
int up_disks_make_clones(struct molt_op *op, struct molt_error **err);
/* The active's stored configuration names what it writes now. */
int up_disks_store_active(struct molt_op *op, struct molt_error **err);
/* In the active's configuration: the clone's disks. */
int up_disks_of_clone(struct molt_op *op, libxl_domain_config *cfg, struct molt_error **err);
/* "xvdy,xvdx": the bases as the clone will see them (malloc'd). */
char *up_disks_base_names(struct molt_op *op);
int up_disks_plug_bases(struct molt_op *op, struct molt_error **err);
/* [{"vdev", "base"}] of those that are merged, by the names that the guest sees. Owned by the caller. */
struct molt_json *up_disks_pairs(struct molt_op *op);
/* And their files are deleted. Can be tried again. */
void up_disks_unplug_bases(struct molt_op *op);
bool up_disks_is_base(struct molt_op *op, const char *vdev);
/* Which images one side stands on above the disk, topmost first; how many. */
size_t up_disk_images(const struct up_disk *d, enum up_side side, const char *ret[2]);
/* Bytes that the overlays take. */
uint64_t up_disks_allocated(struct molt_op *op);
/* upgrade_lvm.c: the same for one disk that is a volume of LVM. f: its facts, which get the names. */
int up_lvm_plan(struct molt_op *op, const struct up_disk *d, struct molt_json *f, struct molt_error **err);
int up_lvm_snapshot(const struct up_disk *d, struct molt_error **err);
int up_lvm_make_clone(const struct up_disk *d, struct molt_error **err);
void up_lvm_of_clone(const struct up_disk *d, libxl_device_disk *disk);
int up_lvm_plug_base(struct molt_op *op, const struct up_disk *d, uint32_t domid, struct molt_error **err);
int up_lvm_drop_base(const struct up_disk *d, struct molt_error **err);
/* A disk that is handed over: the clone lets go of its own; then it gets the active's, as it is now. */
int up_lvm_release(struct molt_op *op, const struct up_disk *d, struct molt_error **err);
int up_lvm_hand_over(struct molt_op *op, const struct up_disk *d, struct molt_error **err);
/* All that is not the guest's volume goes; can be tried again. */
int up_lvm_discard(const struct up_disk *d, struct molt_error **err);
/* The clone's becomes the guest's volume, under its name; the old one is removed. Can be tried again. */
int up_lvm_commit(struct molt_op *op, const struct up_disk *d, struct molt_error **err);
/* upgrade_volumes.c: disks that are handed over; each of these does nothing when there is none. */
bool up_volumes_any(struct molt_op *op);
/* While the active serves: the clone lets go of them; the images of the hand-over are made. */
int up_volumes_release(struct molt_op *op, struct molt_chan *clone, struct molt_error **err);
/* With the workload stopped: the clone has them, as the active left them. */
int up_volumes_hand_over(struct molt_op *op, struct molt_chan *active, struct molt_chan *clone, struct molt_error **err);
/* An undo: the active may write again. */
int up_volumes_thaw(struct molt_op *op, struct molt_chan *active, struct molt_error **err);
/* Past the pivot: the configurations of both domains, and xenstore, name what they stand on. */
int up_volumes_settle(struct molt_op *op, libxl_domain_config *now, libxl_domain_config *old, struct molt_error **err);
/* upgrade_fold.c */
/* The overlays of one side go down into the operation's disks, also in the configuration of the domain with that UUID,
 * which is looked for; the files are removed. in_use: that domain, where it runs, must be on them. Can be tried again. */
int up_fold(struct molt_op *op, enum up_side side, const char *uuid, bool in_use, struct molt_error **err);
int up_fold_new(struct molt_op *op, struct molt_error **err);
/* Deletes the images that only this side stands on. */
int up_fold_discard(struct molt_op *op, enum up_side side, struct molt_error **err);
/* upgrade_wait.c */
#define UP_RESOLVE   "resolve"           /* in the operation's directory: the decisions it was given */
#define UP_CONFLICTS "conflicts"         /* likewise, with ".resolve": what conflicts it met, as a file to be edited */
#define UP_MAX_WAITS 3 /* that new conflicts, met after op-continue, make it wait again */
#define UP_REPORT_MAX (8u << 20)         /* bytes of an agent's report or plan */
/* A bounded JSON text that the agent sends as the data of an answer, its strings made harmless. */
int up_guest_json(struct molt_chan *c, const char *what, struct molt_json **ret, struct molt_error **err);
/* The answer to a pass that met open conflicts: they become a note and a file UP_CONFLICTS, which the text of *err
 * names. Returns the error's code. */
int up_conflict(struct molt_op *op, struct molt_chan *clone, struct molt_error **err);
/* Says which decisions met no conflict. */
void up_warn_unused(struct molt_op *op);
/* Where the operation was asked to: waits until it is told to go on (0), or ends: abort, time, an agent that is gone. */
int up_wait(struct molt_op *op, struct molt_chan *active, struct molt_chan *clone, struct molt_error **err);
/* upgrade_move.c */
/* One pass of the merge, as the agent answers it; *ret may be NULL. */
int up_merge_pass(struct molt_op *op, struct molt_chan *clone, struct molt_json **ret, struct molt_error **err);
/* The two agents get a ring of their own. */
int up_introduce(struct molt_op *op, struct molt_chan *active, struct molt_chan *clone, struct molt_error **err);
/* Passes until little is left. */
int up_converge(struct molt_op *op, struct molt_chan *clone, struct molt_error **err);
/* What the workloads still need in its old form comes to the clone. */
int up_fetch_pins(struct molt_op *op, struct molt_error **err);
/* Which of the two systems is the newer one: a note. That it cannot be told is no failure. units: and whether the other one has the units and the users of the
 * workloads; MOLT_E_CANNOT_MOVE, with the reason: it has not. */
int up_compare(struct molt_op *op, struct molt_chan *active, struct molt_chan *clone, bool units, struct molt_error **err);
/* Both sides get ready: what moves is looked at once more, in the clone a program waits for the restore of each. */
int up_prepare(struct molt_op *op, struct molt_error **err);
/* The guest's hooks are told that a freeze comes; and, from an undo, that it came to nothing. */
int up_before_freeze(struct molt_op *op, struct molt_chan *active, struct molt_error **err);
void up_tell_error(struct molt_op *op);
/* An answer of an agent from before this request? Then that is no error (err is cleared): the next request does the same. */
bool up_older_agent(const struct molt_chan *c, int r, struct molt_error **err);
/* CRIU waits for the dump with its program and caches in memory. Without it the standstill is the time of its start longer. */
int up_arm_dump(struct molt_op *op, struct molt_chan *active, struct molt_error **err);
/* upgrade_settle.c: behind up_arm_dump, where dom0 lets no new connections come: the workload accepts those that are complete. MOLT_E_CANNOT_MOVE: it does not. What else
 * cannot be moved is a warning, as (up_warn_unsettled) what "dump" tells of it. bystanders: everything else in the guest stands still from its end on. */
int up_settle(struct molt_op *op, struct molt_chan *active, bool bystanders, struct molt_error **err);
void up_warn_unsettled(struct molt_op *op, const struct molt_json *reply);
/* With the workload stopped one pass is enough, unless something else in the guest removed a file under our hands. */
int up_final_passes(struct molt_op *op, struct molt_chan *clone, struct molt_error **err);
/* All images are written, and in the clone, where they came one by one meanwhile. CRIU may still be at it in the active: up_restore hears of its end.
 * dump: what the dump's beginning answered. */
int up_take_images(struct molt_op *op, struct molt_chan *active, struct molt_chan *clone, struct molt_json *dump, struct molt_error **err);
/* The merge report as a note; a failure to get it is no failure of the operation. */
void up_note_merge(struct molt_op *op, struct molt_chan *clone);
int step_premerge(struct molt_op *op, struct molt_error **err);
int step_prepare(struct molt_op *op, struct molt_error **err);
int undo_prepare(struct molt_op *op, struct molt_error **err);
int step_predump(struct molt_op *op, struct molt_error **err);
/* upgrade_rehearse.c */
int step_rehearse(struct molt_op *op, struct molt_error **err);
int step_freeze(struct molt_op *op, struct molt_error **err);
int undo_freeze(struct molt_op *op, struct molt_error **err);
/* With something of dom0's own beside it. */
int up_restore(struct molt_op *op, void (*meanwhile)(struct molt_op *op), struct molt_error **err);
int step_restore(struct molt_op *op, struct molt_error **err);
int undo_restore(struct molt_op *op, struct molt_error **err);
/* upgrade_switch.c */
int step_pivot(struct molt_op *op, struct molt_error **err);
int probe_pivot(struct molt_op *op, enum molt_probe *ret, struct molt_error **err);
int step_switch(struct molt_op *op, struct molt_error **err);
int step_verify(struct molt_op *op, struct molt_error **err);
/* What goes on in the clone behind the thaw, until it is an ordinary service there; args: what "go-live" is told. meanwhile: a moment later, done here while
 * the clone's memory is waited for; NULL: nothing. */
int up_go_live(struct molt_op *op, struct molt_json *args, int (*meanwhile)(struct molt_op *op, struct molt_error **err), struct molt_error **err);
void up_announce(struct molt_op *op, struct molt_chan *clone);
int step_retire(struct molt_op *op, struct molt_error **err);
/* upgrade.c */
int up_open(struct molt_op *op, void **ret_priv, struct molt_error **err);
void up_close(struct molt_op *op, void *priv);
struct molt_json *up_report(struct molt_op *op);
int up_commit(struct molt_op *op, struct molt_error **err);
int up_rollback(struct molt_op *op, struct molt_error **err);
int up_vifs_of(struct molt_op *op, uint32_t domid, struct up_vifs *ret, struct molt_error **err);
/* up_vifs_of for the clone, asked of libxl once (some hundredths of a second): first before the freeze. Ours, until the operation ends. */
int up_clone_vifs(struct molt_op *op, const struct up_vifs **ret, struct molt_error **err);
void up_vifs_clear(struct up_vifs *v);
#define CLEANUP_VIFS __attribute__((cleanup(up_vifs_clear)))
/* hold.h: the vifs into their bridges, with what was held for them. */
int up_release(struct molt_op *op, const struct up_vifs *v, struct molt_error **err);
void up_note_held(struct molt_op *op, const struct molt_hold_stats *st); /* for the report */

/* report.c */
/* monitor.c: starts `xenmolt domain-monitor` for a domain. */
int molt_monitor_spawn(struct xenmolt *x, uint32_t domid, struct molt_error **err);

/* preflight.c: *ret_params gets what the operation will run with (also after a failed check, as far as known). */
int molt_upgrade_preflight(struct xenmolt *x, const xenmolt_upgrade_params *p, struct molt_json **ret_result,
                           struct molt_json **ret_params, struct molt_error **err);
/* xlcfg.c: STATE_DIR/domains/NAME.cfg (malloc'd path), and the file written from a configuration. */
char *molt_xlcfg_path(const struct xenmolt *x, const char *domain);
int molt_xlcfg_write(const struct xenmolt *x, const char *domain, const char *op_id, const libxl_domain_config *cfg, struct molt_error **err);
/* In that file, where there is one: the disk `from` is `to` (format "qcow2" or "raw") now. by_qemu: a raw one is not for blkback. */
int molt_xlcfg_move_disk(const struct xenmolt *x, const char *domain, const char *from, const char *to, const char *format, bool by_qemu, struct molt_error **err);
#define UP_BOOT_INITRD "initrd.boot" /* in up_domain_dir; deleted when the operation has succeeded */
/* upgrade_boot.c: path becomes the initrd for the clone's last boot: like initrd, but runs our rdinit first. 1: made; 0: our
 * rdinit is not installed (--disable-agent). */
int up_boot_initrd(const char *initrd, const char *path, struct molt_error **err);
/* recipe.c: name or file -> path, its limits from the header; checks that it can be run. */
int molt_recipe_find(const char *name, struct molt_json *params, struct molt_error **err);

#endif
