/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An overlay folded back into the disk that it lies on: the snapshot's when an upgrade is undone, the new guest's when
 * it is committed, so that no chain grows from one upgrade to the next. QEMU's block-commit while the guest runs: it
 * copies until both images are alike and get each write ("ready"), then we store the configuration that names the disk
 * below, then QEMU lets the overlay go. So a guest that reboots never starts from a stale overlay, whenever we are
 * killed, and a second try goes on from there.
 */
#include <libxl_utils.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "disk.h"
#include "upgrade.h"

static bool flag(struct molt_op *op, const char *fact, const char *what)
{
    CLEANUP_FREE char *key = molt_xasprintf("%s_%s", fact, what);
    return molt_json_get_bool(molt_op_facts(op), key, false);
}

static int set_flag(struct molt_op *op, const char *fact, const char *what, bool value, struct molt_error **err)
{
    CLEANUP_FREE char *key = molt_xasprintf("%s_%s", fact, what);
    return molt_op_put(op, key, molt_json_bool(value), err);
}

struct fold {
    struct molt_op *op;
    const char *fact;
    uint32_t domid;
};

static int on_switch(void *ctx, bool base, struct molt_error **err)
{
    struct fold *f = ctx;
    struct molt_op *op = f->op;
    int r = set_flag(op, f->fact, "switching", base, err);
    if (r < 0)
        return r;
    return molt_disk_set_config_path(up_of(op)->x, f->domid, up_param(op, "disk_vdev"), base ? up_param(op, "disk") : up_fact(op, f->fact),
                                     base ? up_param(op, "disk_format") : "qcow2", err);
}

/* Live where the guest runs; the guest may have been rebooted meanwhile, so it is looked for by its UUID. */
static int fold_live(struct molt_op *op, const char *fact, const struct molt_domain *d, bool in_use, struct molt_error **err)
{
    const char *overlay = up_fact(op, fact);
    CLEANUP_QMP struct molt_qmp *q = NULL;
    CLEANUP_FREE char *node = NULL, *base_node = NULL;
    CLEANUP_ERROR struct molt_error *e = NULL;
    int r = molt_qmp_open(d->domid, &q, err);
    if (r < 0)
        return r;
    int found = molt_disk_find_node(q, overlay, &node, &e);
    if (found < 0 && found != MOLT_E_UNSUPPORTED) { /* no answer is not "no node" */
        molt_error_move(err, MOLT_STEAL_PTR(e));
        return found;
    }
    if (found == 0) {
        struct fold f = {op, fact, d->domid};
        r = set_flag(op, fact, "committing", true, err);
        if (r == 0)
            r = molt_disk_find_node(q, up_param(op, "disk"), &base_node, err); /* another QEMU names it anew */
        if (r == 0)
            r = molt_disk_commit_live(q, node, base_node, on_switch, &f, err);
    } else if (in_use && !flag(op, fact, "committing"))
        r = molt_error_set(err, MOLT_E_STATE, "%s runs, but not on %s, which holds what it wrote since the snapshot; nothing is deleted", molt_op_subject(op), overlay);
    return r;
}

int up_fold(struct molt_op *op, const char *fact, const char *uuid, bool in_use, struct molt_error **err)
{
    struct xenmolt *x = up_of(op)->x;
    const char *overlay = up_fact(op, fact);
    struct molt_domain d;
    if (!molt_exists(overlay))
        return 0;
    if (!molt_domain_by_uuid(x, uuid, &d)) {
        /* Switching: the guest may have run on the disk below since, and the overlay is stale. */
        if (flag(op, fact, "committed") || flag(op, fact, "switching"))
            return 0;
        int r = molt_disk_commit_offline(overlay, err);
        return r < 0 ? r : set_flag(op, fact, "committed", true, err);
    }
    int r = fold_live(op, fact, &d, in_use, err);
    if (r == 0)
        r = set_flag(op, fact, "committed", true, err);
    if (r == 0)
        r = molt_disk_set_config_path(x, d.domid, up_param(op, "disk_vdev"), up_param(op, "disk"), up_param(op, "disk_format"), err);
    return r;
}

/* The new guest's disk is the old one's file again, in every place that names it. */
int up_fold_new(struct molt_op *op, struct molt_error **err)
{
    struct xenmolt *x = up_of(op)->x;
    struct molt_domain d;
    if (!up_fact(op, "delta_b"))
        return 0;
    int r = up_fold(op, "delta_b", up_fact(op, "clone_uuid"), true, err);
    if (r < 0)
        return molt_error_prefix(err, "fold %s into %s", up_fact(op, "delta_b"), up_param(op, "disk"));
    if (molt_domain_by_uuid(x, up_fact(op, "clone_uuid"), &d))
        r = molt_disk_set_params(x, d.domid, up_param(op, "disk_vdev"), up_param(op, "disk"), up_param(op, "disk_format"), err);
    return r < 0 ? r : molt_xlcfg_move_disk(x, molt_op_subject(op), up_fact(op, "delta_b"), up_param(op, "disk"), up_param(op, "disk_format"), err);
}
