/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An overlay folded back into the disk that it lies on: the snapshot's when an upgrade is undone, the new guest's when
 * it is committed, so that no chain grows from one upgrade to the next. QEMU's block-commit while the guest runs: the
 * overlay stays valid until QEMU has switched to the disk below, and a second try goes on from there. A crash of ours
 * between that switch and the stored configuration leaves one that names the stale overlay: our domain monitor looks
 * at what QEMU stands on before it makes a domain again (molt_disk_follow); xl's does not.
 */
#include <libxl_utils.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "disk.h"
#include "upgrade.h"

/* Facts of a disk's fold: "delta_b_committing_xvda". */
static char *flag_key(enum up_side side, const struct up_disk *d, const char *what)
{
    const char *name = side == UP_ACTIVE ? "delta_a" : "delta_b";
    return d->old ? molt_xasprintf("%s_%s", name, what) : molt_xasprintf("%s_%s_%s", name, what, d->vdev);
}

static bool flag(struct molt_op *op, enum up_side side, const struct up_disk *d, const char *what)
{
    CLEANUP_FREE char *key = flag_key(side, d, what);
    return molt_json_get_bool(molt_op_facts(op), key, false);
}

static int set_flag(struct molt_op *op, enum up_side side, const struct up_disk *d, const char *what, struct molt_error **err)
{
    CLEANUP_FREE char *key = flag_key(side, d, what);
    return molt_op_put(op, key, molt_json_bool(true), err);
}

struct fold_progress {
    struct molt_op *op;
    const struct up_disk *disk;
};

static void tell(void *ctx, int percent)
{
    const struct fold_progress *p = ctx;
    molt_op_progress(p->op, percent, "disk %s: %d %% of the overlay is in %s", p->disk->vdev, percent, p->disk->path);
}

/* Live where the guest runs; the guest may have been rebooted meanwhile, so it is looked for by its UUID. A commit
 * takes all images between the topmost and the disk with it. */
static int fold_live(struct molt_op *op, enum up_side side, const struct up_disk *disk, const struct molt_domain *d, bool in_use, struct molt_error **err)
{
    const char *files[3];
    size_t n = up_disk_images(disk, side, files);
    files[n] = disk->path;
    struct fold_progress progress = {op, disk};
    CLEANUP_QMP struct molt_qmp *q = NULL;
    CLEANUP_FREE char *node = NULL, *base_node = NULL;
    CLEANUP_ERROR struct molt_error *e = NULL;
    size_t which = n;
    int r = molt_qmp_open(d->domid, &q, err);
    if (r < 0)
        return r;
    int found = molt_disk_attached(q, files, n + 1, &which, &node, &e);
    if (found < 0 && found != MOLT_E_UNSUPPORTED) { /* no answer is not "none of them" */
        molt_error_move(err, MOLT_STEAL_PTR(e));
        return found;
    }
    if (found == 0 && which < n) {
        r = set_flag(op, side, disk, "committing", err);
        /* The clone's image from before a hand-over is open still: a second node of the disk, which is not the one that is meant. */
        if (r == 0 && side == UP_CLONE && disk->dirs)
            molt_disk_forget(q, disk->delta_b);
        if (r == 0)
            r = molt_disk_find_node(q, disk->path, &base_node, err); /* another QEMU names it anew */
        if (r == 0)
            r = molt_disk_commit_live(q, node, base_node, tell, &progress, err);
    } else if (in_use && !flag(op, side, disk, "committing"))
        r = molt_error_set(err, MOLT_E_STATE, "%s runs, but not on %s, which holds what it wrote since the snapshot; nothing is deleted", molt_op_subject(op), files[0]);
    for (size_t i = 0; r == 0 && i < n; i++)
        molt_disk_forget(q, files[i]);
    return r;
}

static int fold_one(struct molt_op *op, enum up_side side, const struct up_disk *disk, const char *uuid, bool in_use, struct molt_error **err)
{
    struct xenmolt *x = up_of(op)->x;
    const char *files[2], *top = NULL;
    struct molt_domain d;
    for (size_t i = up_disk_images(disk, side, files); i-- > 0;)
        if (molt_exists(files[i]))
            top = files[i];
    if (!top)
        return 0;
    if (!molt_domain_by_uuid(x, uuid, &d)) {
        if (flag(op, side, disk, "committed"))
            return 0;
        int r = molt_disk_commit_offline(top, disk->path, err);
        return r < 0 ? r : set_flag(op, side, disk, "committed", err);
    }
    int r = fold_live(op, side, disk, &d, in_use, err);
    if (r == 0 && molt_fault("folded"))
        r = molt_error_set(err, MOLT_E_INTERNAL, "fault point folded");
    if (r == 0)
        r = set_flag(op, side, disk, "committed", err);
    return r < 0 ? r : molt_disk_set_config_path(x, d.domid, disk->vdev, disk->path, disk->format, NULL, err);
}

/* The disk is the old one's file again, in every place that names it. */
static int rename_new(struct molt_op *op, const struct up_disk *disk, struct molt_error **err)
{
    struct xenmolt *x = up_of(op)->x;
    struct molt_domain d;
    int r = 0;
    if (molt_domain_by_uuid(x, up_fact(op, "clone_uuid"), &d))
        r = molt_disk_set_params(x, d.domid, disk->vdev, disk->path, disk->format, err);
    return r < 0 ? r : molt_xlcfg_move_disk(x, molt_op_subject(op), disk->hand_b ? disk->hand_b : disk->delta_b, disk->path, disk->format, true, err);
}

int up_fold(struct molt_op *op, enum up_side side, const char *uuid, bool in_use, struct molt_error **err)
{
    struct up_disks disks;
    int r = 0;
    up_disks_of(op, &disks);
    for (size_t i = 0; r == 0 && i < disks.n; i++) {
        const struct up_disk *d = &disks.v[i];
        const char *files[2];
        if (d->lvm) { /* on the active's side nothing lies above its volume */
            if (side == UP_CLONE && (r = up_lvm_commit(op, d, err)) < 0)
                return r;
            continue;
        }
        size_t n = up_disk_images(d, side, files);
        if (n == 0)
            continue;
        r = fold_one(op, side, d, uuid, in_use, err);
        if (r == 0 && side == UP_CLONE)
            r = rename_new(op, d, err);
        if (r < 0)
            return molt_error_prefix(err, "fold %s into %s", files[0], d->path);
        /* The topmost goes last: by it a second try finds the others. */
        while (n-- > 0)
            unlink(files[n]);
    }
    return r;
}

int up_fold_discard(struct molt_op *op, enum up_side side, struct molt_error **err)
{
    struct up_disks disks;
    int r = 0;
    up_disks_of(op, &disks);
    for (size_t i = 0; r == 0 && i < disks.n; i++) {
        const struct up_disk *d = &disks.v[i];
        if (d->lvm) {
            r = side == UP_CLONE ? up_lvm_discard(d, err) : 0;
            continue;
        }
        const char *const own[] = {side == UP_ACTIVE ? d->hand_a : d->hand_b, side == UP_ACTIVE ? NULL : d->delta_b, side == UP_ACTIVE ? NULL : d->base_view,
                                   side == UP_ACTIVE && !d->dirs ? d->delta_a : NULL};
        for (size_t k = 0; k < sizeof(own) / sizeof(own[0]); k++)
            if (own[k])
                unlink(own[k]);
    }
    return r;
}

int up_fold_new(struct molt_op *op, struct molt_error **err)
{
    return up_fold(op, UP_CLONE, up_fact(op, "clone_uuid"), true, err);
}
