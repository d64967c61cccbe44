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

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "disk.h"
#include "upgrade.h"

static bool flag(struct molt_op *op, const char *fact, const char *what)
{
    CLEANUP_FREE char *key = molt_xasprintf("%s_%s", fact, what);
    return molt_json_get_bool(molt_op_facts(op), key, false);
}

static int set_flag(struct molt_op *op, const char *fact, const char *what, struct molt_error **err)
{
    CLEANUP_FREE char *key = molt_xasprintf("%s_%s", fact, what);
    return molt_op_put(op, key, molt_json_bool(true), err);
}

/* Live where the guest runs; the guest may have been rebooted meanwhile, so it is looked for by its UUID. */
static int fold_live(struct molt_op *op, const char *fact, const struct molt_domain *d, bool in_use, struct molt_error **err)
{
    const char *const files[] = {up_fact(op, fact), up_param(op, "disk")};
    CLEANUP_QMP struct molt_qmp *q = NULL;
    CLEANUP_FREE char *node = NULL, *base_node = NULL;
    CLEANUP_ERROR struct molt_error *e = NULL;
    size_t which = 0;
    int r = molt_qmp_open(d->domid, &q, err);
    if (r < 0)
        return r;
    int found = molt_disk_attached(q, files, 2, &which, &node, &e);
    if (found < 0 && found != MOLT_E_UNSUPPORTED) { /* no answer is not "none of them" */
        molt_error_move(err, MOLT_STEAL_PTR(e));
        return found;
    }
    if (found == 0 && which == 0) {
        r = set_flag(op, fact, "committing", err);
        if (r == 0)
            r = molt_disk_find_node(q, files[1], &base_node, err); /* another QEMU names it anew */
        if (r == 0)
            r = molt_disk_commit_live(q, node, base_node, err);
    } else if (in_use && !flag(op, fact, "committing"))
        r = molt_error_set(err, MOLT_E_STATE, "%s runs, but not on %s, which holds what it wrote since the snapshot; nothing is deleted", molt_op_subject(op), files[0]);
    if (r == 0)
        molt_disk_forget(q, files[0]);
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
        if (flag(op, fact, "committed"))
            return 0;
        int r = molt_disk_commit_offline(overlay, err);
        return r < 0 ? r : set_flag(op, fact, "committed", err);
    }
    int r = fold_live(op, fact, &d, in_use, err);
    if (r == 0 && molt_fault("folded"))
        r = molt_error_set(err, MOLT_E_INTERNAL, "fault point folded");
    if (r == 0)
        r = set_flag(op, fact, "committed", err);
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
