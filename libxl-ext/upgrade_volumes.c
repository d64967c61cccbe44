/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks that are handed over. Up to the freeze the clone has an overlay of its own on the base, as on every disk, and boots
 * with it; what it writes there is thrown away. Before the freeze it unmounts the file systems there, and its QEMU puts a new
 * overlay on top (hand_b). In the freeze the active's file systems there are frozen, its QEMU puts a new overlay on its own
 * (hand_a, on delta_a, which nobody writes any more), and the clone's QEMU puts delta_a under hand_b:
 *
 *     before:  active: base <- delta_a              clone: base <- delta_b <- hand_b
 *     after:   active: base <- delta_a <- hand_a    clone: base <- delta_a <- hand_b
 *
 * (Volumes of LVM: upgrade_lvm.c.) So no image has two writers, an undo leaves the active all that it wrote, and after the pivot each side goes on alone:
 * op-commit folds hand_b and delta_a into the disk, op-rollback hand_a and delta_a.
 */
#include <libxl_utils.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/strbuf.h"
#include "upgrade.h"

/* Those of the operation's disks that are handed over. */
static size_t volumes_of(struct molt_op *op, struct up_disks *ret)
{
    struct up_disks all;
    up_disks_of(op, &all);
    ret->n = 0;
    for (size_t i = 0; i < all.n; i++)
        if (all.v[i].dirs && (all.v[i].hand_a || all.v[i].hand))
            ret->v[ret->n++] = all.v[i];
    return ret->n;
}

bool up_volumes_any(struct molt_op *op)
{
    struct up_disks volumes;
    return volumes_of(op, &volumes) > 0;
}

static bool is_in(const struct molt_json *list, const char *s)
{
    for (size_t i = 0; i < molt_json_size(list); i++)
        if (molt_streq(molt_json_str(molt_json_at(list, i)), s))
            return true;
    return false;
}

/* Those of them that are image files. */
static struct up_disks images_of(const struct up_disks *volumes)
{
    struct up_disks v = {.n = 0};
    for (size_t i = 0; i < volumes->n; i++)
        if (!volumes->v[i].lvm)
            v.v[v.n++] = volumes->v[i];
    return v;
}

/* What the guest has mounted from these disks, the clone has mounted as well: it will be mounted there again. */
static int check_dirs(const struct up_disks *volumes, const struct molt_json *reply, struct molt_error **err)
{
    const struct molt_json *have = molt_json_get(reply, "dirs");
    for (size_t i = 0; i < volumes->n; i++)
        for (size_t k = 0; k < molt_json_size(volumes->v[i].dirs); k++) {
            const char *dir = molt_json_str(molt_json_at(volumes->v[i].dirs, k));
            if (!is_in(have, dir))
                return molt_error_set(err, MOLT_E_UNSUPPORTED, "disk %s cannot be handed over: the clone has nothing mounted from it at %s; name it in the guest's /etc/fstab", volumes->v[i].vdev, dir);
        }
    return 0;
}

/* {"disks": [..]} by the names that the guest sees. Owned by the caller. */
static struct molt_json *names_of(const struct up_disks *volumes)
{
    struct molt_json *args = molt_json_object(), *disks = molt_json_array();
    for (size_t i = 0; i < volumes->n; i++) {
        char name[16];
        molt_json_append(disks, molt_json_string(molt_vdev_guest_name(volumes->v[i].vdev, name, sizeof(name)) ? name : volumes->v[i].vdev));
    }
    molt_json_set(args, "disks", disks);
    return args;
}

static int release(const struct up_disks *volumes, struct molt_chan *clone, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = names_of(volumes), *reply = NULL;
    int r = molt_call(clone, "volumes-release", args, NULL, &reply, err);
    return r < 0 ? r : check_dirs(volumes, reply, err);
}

/* An overlay on the clone's own image, and one for the active's. */
static int release_images(struct molt_op *op, const struct up_disks *images, struct molt_error **err)
{
    struct molt_disk_snapshot v[MOLT_MAX_DISKS];
    char *tops[MOLT_MAX_DISKS] = {NULL};
    CLEANUP_QMP struct molt_qmp *q = NULL;
    int r = 0;
    for (size_t i = 0; r == 0 && i < images->n; i++) {
        r = molt_disk_overlay_create(images->v[i].hand_b, images->v[i].delta_b, "qcow2", err);
        if (r == 0)
            r = molt_disk_overlay_create(images->v[i].hand_a, images->v[i].delta_a, "qcow2", err);
    }
    if (r == 0)
        r = molt_qmp_open((uint32_t)up_fact_int(op, "clone_domid", 0), &q, err);
    for (size_t i = 0; r == 0 && i < images->n; i++) {
        r = molt_disk_find_node(q, images->v[i].delta_b, &tops[i], err);
        v[i] = (struct molt_disk_snapshot){tops[i], images->v[i].hand_b, images->v[i].hand_b_node};
    }
    if (r == 0)
        r = molt_disk_snapshot(q, v, images->n, err);
    for (size_t i = 0; i < images->n; i++)
        free(tops[i]);
    return r;
}

int up_volumes_release(struct molt_op *op, struct molt_chan *clone, struct molt_error **err)
{
    struct up_disks volumes;
    if (volumes_of(op, &volumes) == 0)
        return 0;
    const struct up_disks images = images_of(&volumes);
    int r = release(&volumes, clone, err);
    if (r == 0 && images.n)
        r = release_images(op, &images, err);
    for (size_t i = 0; r == 0 && i < volumes.n; i++)
        if (volumes.v[i].lvm)
            r = up_lvm_release(op, &volumes.v[i], err);
    return r;
}

static int freeze(const struct up_disks *volumes, struct molt_chan *active, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    struct molt_json *dirs = molt_json_array();
    for (size_t i = 0; i < volumes->n; i++)
        for (size_t k = 0; k < molt_json_size(volumes->v[i].dirs); k++)
            molt_json_append(dirs, molt_json_copy(molt_json_at(volumes->v[i].dirs, k)));
    molt_json_set(args, "dirs", dirs);
    return molt_call(active, "volumes-freeze", args, NULL, NULL, err);
}

/* The active goes on on new overlays; what it wrote until now comes under the clone's. */
static int hand_over_images(struct molt_op *op, const struct up_disks *images, struct molt_error **err)
{
    struct molt_disk_snapshot v[MOLT_MAX_DISKS];
    CLEANUP_QMP struct molt_qmp *qa = NULL, *qc = NULL;
    for (size_t i = 0; i < images->n; i++)
        v[i] = (struct molt_disk_snapshot){images->v[i].node, images->v[i].hand_a, images->v[i].hand_a_node};
    int r = molt_qmp_open((uint32_t)up_param_int(op, "domid"), &qa, err);
    if (r == 0)
        r = molt_disk_snapshot(qa, v, images->n, err);
    if (r == 0 && molt_fault("hand-over"))
        r = molt_error_set(err, MOLT_E_INTERNAL, "fault point hand-over");
    if (r == 0)
        r = molt_qmp_open((uint32_t)up_fact_int(op, "clone_domid", 0), &qc, err);
    for (size_t i = 0; r == 0 && i < images->n; i++)
        r = molt_disk_set_backing(qc, images->v[i].hand_b_node, images->v[i].hand_b, images->v[i].delta_a, images->v[i].hand_base_node, err);
    return r;
}

int up_volumes_hand_over(struct molt_op *op, struct molt_chan *active, struct molt_chan *clone, struct molt_error **err)
{
    struct up_disks volumes;
    if (volumes_of(op, &volumes) == 0)
        return 0;
    const struct up_disks images = images_of(&volumes);
    CLEANUP_JSON struct molt_json *names = names_of(&images);
    int r = molt_call(clone, "volumes-check", names, NULL, NULL, err);
    if (r == 0)
        r = freeze(&volumes, active, err);
    if (r == 0 && images.n)
        r = hand_over_images(op, &images, err);
    for (size_t i = 0; r == 0 && i < volumes.n; i++)
        if (volumes.v[i].lvm)
            r = up_lvm_hand_over(op, &volumes.v[i], err);
    if (r == 0)
        r = molt_call(clone, "volumes-mount", NULL, NULL, NULL, err);
    if (r == 0)
        up_note_us(op, "t_handed");
    return r < 0 ? molt_error_prefix(err, "hand over") : 0;
}

int up_volumes_thaw(struct molt_op *op, struct molt_chan *active, struct molt_error **err)
{
    struct up_disks volumes;
    return volumes_of(op, &volumes) == 0 ? 0 : molt_call(active, "volumes-thaw", NULL, NULL, NULL, err);
}

static void name_image(libxl_domain_config *cfg, const char *vdev, const char *path)
{
    for (int i = 0; i < cfg->num_disks; i++)
        if (molt_streq(cfg->disks[i].vdev, vdev)) {
            molt_set_string(&cfg->disks[i].pdev_path, path);
            cfg->disks[i].format = LIBXL_DISK_FORMAT_QCOW2;
        }
}

int up_volumes_settle(struct molt_op *op, libxl_domain_config *now, libxl_domain_config *old, struct molt_error **err)
{
    struct up_disks volumes;
    int r = 0;
    volumes_of(op, &volumes);
    for (size_t i = 0; r == 0 && i < volumes.n; i++) {
        const struct up_disk *d = &volumes.v[i];
        if (d->lvm) /* its disk was given to the clone under its name, and the old domain's is what it was */
            continue;
        name_image(now, d->vdev, d->hand_b);
        name_image(old, d->vdev, d->hand_a);
        r = molt_disk_set_params(up_of(op)->x, (uint32_t)up_fact_int(op, "clone_domid", 0), d->vdev, d->hand_b, "qcow2", err);
        if (r == 0)
            unlink(d->delta_b); /* nobody stands on it any more */
    }
    return r;
}
