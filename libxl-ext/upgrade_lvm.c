/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks that are volumes of LVM. The active goes on writing to its volume; LVM's snapshot of it, taken while the guest's file
 * systems are frozen, is the base ("NAME.OP.base"):
 *
 *     thin:     base <- clone, a snapshot of the snapshot ("NAME.OP.clone"), served as the guest's volume is
 *     classic:  base <- an overlay file of QEMU's below the state directory, since LVM takes no snapshot of such a snapshot
 *
 * One that is handed over is taken from the clone before the freeze; in it, with the active's file systems there frozen, the clone gets
 * a snapshot of the volume as it is by then ("NAME.OP.hand"; with an overlay where it is a classic one).
 *
 * An undo removes what is not the guest's volume. op-commit makes the clone's the guest's volume: a thin one by its name alone; of
 * a classic one QEMU copies all, while the guest runs, to a new volume ("NAME.OP.new"), which then takes the name. What it
 * does next is told by which volumes are there and by two facts of the operation ("copied_", "taking_"), so that it can be tried again
 * from any point.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "disk.h"
#include "upgrade.h"

static bool is_thin(const struct up_disk *d)
{
    return molt_streq(d->lvm, "thin");
}

static void set_volume(struct molt_json *f, const char *key, const struct up_disk *d, const char *id, const char *what)
{
    CLEANUP_FREE char *name = molt_xasprintf("%s.%s.%s", d->lv, id, what);
    molt_json_set_string(f, key, name);
}

static void set_path(struct molt_json *f, const char *key, const struct up_disk *d, const char *volume)
{
    CLEANUP_FREE char *path = molt_lv_path(d->vg, volume);
    molt_json_set_string(f, key, path);
}

static void set_file(struct molt_op *op, struct molt_json *f, const char *key, const struct up_disk *d, const char *what)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/disks/%s.%s.%s.qcow2", up_of(op)->x->state_dir, molt_op_id(op), d->vdev, what);
    molt_json_set_string(f, key, path);
}

int up_lvm_plan(struct molt_op *op, const struct up_disk *d, struct molt_json *f, struct molt_error **err)
{
    const char *id = molt_op_id(op);
    CLEANUP_FREE char *dir = molt_xasprintf("%s/disks", up_of(op)->x->state_dir);
    if (strlen(d->lv) + strlen(id) + sizeof("..clone") > MOLT_LV_NAME)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "the name of volume %s/%s is too long for that of a snapshot beside it; rename it (lvrename)", d->vg, d->lv);
    set_volume(f, "snap", d, id, "base");
    if (d->dirs)
        set_volume(f, "hand", d, id, "hand");
    if (is_thin(d)) {
        set_volume(f, "clone", d, id, "clone");
        set_volume(f, "next", d, id, d->dirs ? "hand" : "clone");
        set_path(f, "delta_b", d, molt_json_get_string(f, "clone"));
        set_path(f, "base_view", d, molt_json_get_string(f, "snap"));
        if (d->dirs)
            set_path(f, "hand_b", d, molt_json_get_string(f, "hand"));
        return 0;
    }
    set_volume(f, "next", d, id, "new");
    set_file(op, f, "delta_b", d, "clone");
    set_file(op, f, "base_view", d, "base");
    if (d->dirs)
        set_file(op, f, "hand_b", d, "clone2");
    return molt_mkdir_p(dir, 0700, err);
}

int up_lvm_snapshot(const struct up_disk *d, struct molt_error **err)
{
    return molt_lv_snapshot(d->vg, d->lv, d->snap, is_thin(d) ? 0 : d->room, err);
}

int up_lvm_make_clone(const struct up_disk *d, struct molt_error **err)
{
    int r = molt_lv_wait(d->vg, d->snap, err);
    if (r < 0)
        return r;
    if (is_thin(d)) {
        r = molt_lv_snapshot(d->vg, d->snap, d->clone, 0, err);
        return r < 0 ? r : molt_lv_wait(d->vg, d->clone, err);
    }
    CLEANUP_FREE char *base = molt_lv_path(d->vg, d->snap);
    r = molt_disk_overlay_create(d->delta_b, base, "raw", err);
    return r < 0 ? r : molt_disk_overlay_create(d->base_view, base, "raw", err);
}

void up_lvm_of_clone(const struct up_disk *d, libxl_device_disk *disk)
{
    molt_set_string(&disk->pdev_path, d->delta_b);
    if (is_thin(d))
        return; /* like the volume that it is a copy of */
    disk->format = LIBXL_DISK_FORMAT_QCOW2;
    disk->backend = LIBXL_DISK_BACKEND_QDISK;
}

int up_lvm_plug_base(struct molt_op *op, const struct up_disk *d, uint32_t domid, struct molt_error **err)
{
    return molt_domain_attach_disk(up_of(op)->x, domid, d->base_vdev, d->base_view, is_thin(d) ? d->backend : NULL, err);
}

/* The clone's overlay stands on a classic base until op-commit. */
int up_lvm_drop_base(const struct up_disk *d, struct molt_error **err)
{
    if (is_thin(d))
        return molt_lv_remove(d->vg, d->snap, err);
    unlink(d->base_view);
    return 0;
}

int up_lvm_release(struct molt_op *op, const struct up_disk *d, struct molt_error **err)
{
    return molt_domain_detach_disk(up_of(op)->x, (uint32_t)up_fact_int(op, "clone_domid", 0), d->vdev, err);
}

int up_lvm_hand_over(struct molt_op *op, const struct up_disk *d, struct molt_error **err)
{
    int r = molt_lv_snapshot(d->vg, d->lv, d->hand, is_thin(d) ? 0 : d->room, err);
    if (r == 0)
        r = molt_lv_wait(d->vg, d->hand, err);
    if (r == 0 && !is_thin(d)) {
        CLEANUP_FREE char *below = molt_lv_path(d->vg, d->hand);
        r = molt_disk_overlay_create(d->hand_b, below, "raw", err);
    }
    return r < 0 ? r : molt_domain_attach_disk(up_of(op)->x, (uint32_t)up_fact_int(op, "clone_domid", 0), d->vdev, d->hand_b, is_thin(d) ? d->backend : NULL, err);
}

/* Files of QEMU's on a classic snapshot. */
static void drop_files(const struct up_disk *d)
{
    if (is_thin(d))
        return;
    unlink(d->base_view);
    unlink(d->delta_b);
    if (d->hand_b)
        unlink(d->hand_b);
}

/* All but `next`, which is one of them for a thin volume. */
static int drop_snapshots(const struct up_disk *d, struct molt_error **err)
{
    const char *const v[] = {d->clone, d->hand, d->snap};
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof(v) / sizeof(v[0]); i++)
        if (v[i] && !molt_streq(v[i], d->next))
            r = molt_lv_remove(d->vg, v[i], err);
    return r;
}

int up_lvm_discard(const struct up_disk *d, struct molt_error **err)
{
    if (!d->snap) /* not planned yet */
        return 0;
    drop_files(d);
    int r = molt_lv_remove(d->vg, d->next, err);
    return r < 0 ? r : drop_snapshots(d, err);
}

/* ---- commit ---- */

/* What the new guest's disk is until then. */
static const char *top_of(const struct up_disk *d)
{
    return d->hand_b ? d->hand_b : d->delta_b;
}

struct copying {
    struct molt_op *op;
    const struct up_disk *disk;
};

static void tell(void *ctx, int percent)
{
    const struct copying *c = ctx;
    molt_op_progress(c->op, percent, "disk %s: %d %% of it is in its new volume", c->disk->vdev, percent);
}

static int copy_live(struct molt_op *op, const struct up_disk *d, const struct molt_domain *dom, const char *target, struct molt_error **err)
{
    const char *const files[] = {top_of(d), target};
    const char *tail = strrchr(molt_op_id(op), '-');
    CLEANUP_FREE char *node = NULL, *name = molt_xasprintf("xenmolt-%s-%s", tail ? tail + 1 : "0", d->vdev);
    CLEANUP_QMP struct molt_qmp *q = NULL;
    struct copying c = {op, d};
    size_t which = 0;
    int r = molt_qmp_open(dom->domid, &q, err);
    if (r == 0)
        r = molt_disk_attached(q, files, 2, &which, &node, err);
    if (r == 0 && which == 0)
        r = molt_disk_mirror_live(q, node, target, name, tell, &c, err);
    if (r == 0)
        molt_disk_forget(q, top_of(d)); /* and what it stands on: the base is to go */
    return r;
}

/* All of the clone's disk into a volume of its own. */
static int copy_classic(struct molt_op *op, const struct up_disk *d, struct molt_error **err)
{
    struct molt_domain dom;
    CLEANUP_FREE char *target = molt_lv_path(d->vg, d->next), *done = molt_xasprintf("copied_%s", d->vdev);
    if (molt_json_get_bool(molt_op_facts(op), done, false))
        return 0;
    int r = molt_lv_exists(d->vg, d->next, err);
    if (r == 0)
        r = molt_lv_create(d->vg, d->next, d->size, err);
    if (r < 0)
        return r;
    if (molt_domain_by_uuid(up_of(op)->x, up_fact(op, "clone_uuid"), &dom))
        r = copy_live(op, d, &dom, target, err);
    else
        r = molt_disk_copy_offline(top_of(d), target, err);
    if (r >= 0 && molt_fault("folded"))
        r = molt_error_set(err, MOLT_E_INTERNAL, "fault point folded");
    return r < 0 ? r : molt_op_put(op, done, molt_json_bool(true), err);
}

/* LVM removes the classic snapshots of a volume with it, also those that somebody else took. */
static int check_alone(const struct up_disk *d, struct molt_error **err)
{
    CLEANUP_FREE char *names = NULL;
    int r = is_thin(d) ? 0 : molt_lv_snapshots(d->vg, d->lv, &names, err);
    if (r == 0 && names && *names)
        r = molt_error_set(err, MOLT_E_STATE, "it has snapshots that are not this operation's, and that would go with it: %.300s; remove them (lvremove), then say op-commit again", names);
    return r;
}

/* The volume `next` becomes the guest's. That it is not there under its own name any more is right only where an earlier try had begun to
 * give it the other one: else the next start would take the old volume. */
static int take_name(struct molt_op *op, const struct up_disk *d, struct molt_error **err)
{
    CLEANUP_FREE char *begun = molt_xasprintf("taking_%s", d->vdev);
    int r = molt_lv_exists(d->vg, d->next, err), there = 0;
    if (r == 0 && molt_json_get_bool(molt_op_facts(op), begun, false))
        there = molt_lv_exists(d->vg, d->lv, err);
    if (r == 0 && there == 0)
        return molt_error_set(err, MOLT_E_STATE, "volume %s, which is to take its place, is not there", d->next);
    if (r == 0)
        return there < 0 ? there : drop_snapshots(d, err);
    if (r < 0 || (r = molt_op_put(op, begun, molt_json_bool(true), err)) < 0)
        return r;
    if ((r = drop_snapshots(d, err)) == 0 && (r = check_alone(d, err)) == 0)
        r = molt_lv_remove(d->vg, d->lv, err);
    return r < 0 ? r : molt_lv_rename(d->vg, d->next, d->lv, err);
}

int up_lvm_commit(struct molt_op *op, const struct up_disk *d, struct molt_error **err)
{
    struct xenmolt *x = up_of(op)->x;
    struct molt_domain dom;
    int r = is_thin(d) ? 0 : copy_classic(op, d, err);
    if (r == 0)
        r = take_name(op, d, err);
    if (r < 0)
        return molt_error_prefix(err, "volume %s/%s", d->vg, d->lv);
    if (molt_domain_by_uuid(x, up_fact(op, "clone_uuid"), &dom)) {
        r = molt_disk_set_config_path(x, dom.domid, d->vdev, d->path, d->format, d->backend, err);
        if (r == 0)
            r = molt_disk_set_params(x, dom.domid, d->vdev, d->path, d->format, err);
    }
    if (r == 0)
        r = molt_xlcfg_move_disk(x, molt_op_subject(op), top_of(d), d->path, d->format, molt_streq(d->backend, "qdisk"), err);
    if (r == 0)
        drop_files(d);
    return r;
}
