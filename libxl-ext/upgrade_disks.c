/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disks of a guest-upgrade: which there are, the names of what the snapshot makes, and the frozen bases in the
 * clone. The bases come only after the clone's last boot: a guest that looks for its file systems by UUID= or LABEL=, or
 * for its volume group, must not find them twice while it boots.
 */
#include <libxl_utils.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "disk.h"
#include "upgrade.h"

#define FIRST_BASE_VDEV "xvdy" /* of journals that knew one disk only */

/* Those journals have one disk's names as parameters and facts of their own. */
static void old_disk(struct molt_op *op, struct up_disk *ret)
{
    *ret = (struct up_disk){
        .vdev = up_param(op, "disk_vdev"), .path = up_param(op, "disk"), .format = up_param(op, "disk_format"),
        .delta_a = up_fact(op, "delta_a"), .delta_b = up_fact(op, "delta_b"), .base_view = up_fact(op, "base_view"),
        .node = up_fact(op, "node"), .base_node = up_fact(op, "base_node"), .base_vdev = FIRST_BASE_VDEV, .old = true,
    };
}

void up_disks_of(struct molt_op *op, struct up_disks *ret)
{
    const struct molt_json *disks = molt_json_get(molt_op_params(op), "disks"), *facts = molt_json_get(molt_op_facts(op), "disks");
    ret->n = 0;
    if (!disks) {
        old_disk(op, &ret->v[ret->n++]);
        return;
    }
    for (size_t i = 0; i < molt_json_size(disks) && ret->n < MOLT_MAX_DISKS; i++) {
        const struct molt_json *p = molt_json_at(disks, i), *f = molt_json_at(facts, i);
        ret->v[ret->n++] = (struct up_disk){
            .vdev = molt_json_get_string(p, "vdev"), .path = molt_json_get_string(p, "path"), .format = molt_json_get_string(p, "format"),
            .delta_a = molt_json_get_string(f, "delta_a"), .delta_b = molt_json_get_string(f, "delta_b"), .base_view = molt_json_get_string(f, "base_view"),
            .node = molt_json_get_string(f, "node"), .base_node = molt_json_get_string(f, "base_node"), .base_vdev = molt_json_get_string(f, "base_vdev"),
            .hand_a = molt_json_get_string(f, "hand_a"), .hand_b = molt_json_get_string(f, "hand_b"), .hand_a_node = molt_json_get_string(f, "hand_a_node"),
            .hand_b_node = molt_json_get_string(f, "hand_b_node"), .hand_base_node = molt_json_get_string(f, "hand_base_node"),
            .dirs = molt_json_get(p, "dirs"),
            .lvm = molt_json_get_string(p, "lvm"), .vg = molt_json_get_string(p, "vg"), .lv = molt_json_get_string(p, "lv"), .backend = molt_json_get_string(p, "backend"),
            .snap = molt_json_get_string(f, "snap"), .clone = molt_json_get_string(f, "clone"), .hand = molt_json_get_string(f, "hand"), .next = molt_json_get_string(f, "next"),
            .size = (uint64_t)molt_json_get_int(p, "size", 0), .room = (uint64_t)molt_json_get_int(p, "room", 0),
        };
    }
}

/* ---- snapshot ---- */

size_t up_disk_images(const struct up_disk *d, enum up_side side, const char *ret[2])
{
    size_t n = 0;
    if (side == UP_CLONE && !d->hand_b && d->delta_b)
        ret[n++] = d->delta_b;
    if (d->hand_a)
        ret[n++] = side == UP_CLONE ? d->hand_b : d->hand_a;
    if ((side == UP_ACTIVE || d->hand_a) && d->delta_a)
        ret[n++] = d->delta_a;
    return n;
}

/* A file beside the disk: "web1.qcow2.gu-....active.qcow2". */
static void set_file(struct molt_json *f, const char *key, const char *path, const char *id, const char *what)
{
    CLEANUP_FREE char *s = molt_xasprintf("%s.%s.%s.qcow2", path, id, what);
    molt_json_set_string(f, key, s);
}

/* A name in QEMU, which takes 31 bytes: "xenmolt-7f3a-xvda". */
static void set_node(struct molt_json *f, const char *key, const char *id, const char *vdev, const char *what)
{
    const char *tail = strrchr(id, '-');
    CLEANUP_FREE char *s = molt_xasprintf("xenmolt-%s-%s%s", tail ? tail + 1 : id, vdev, what);
    molt_json_set_string(f, key, s);
}

static int plan_disk(struct molt_op *op, struct molt_qmp *q, const struct up_disk *d, const char *base_vdev, struct molt_json *list, struct molt_error **err)
{
    const char *id = molt_op_id(op);
    CLEANUP_FREE char *base_node = NULL;
    CLEANUP_JSON struct molt_json *f = molt_json_object();
    int r = d->lvm ? up_lvm_plan(op, d, f, err) : molt_disk_find_node(q, d->path, &base_node, err);
    if (r < 0)
        return r;
    molt_json_set_string(f, "vdev", d->vdev);
    molt_json_set_string(f, "base_vdev", base_vdev);
    if (d->lvm) {
        molt_json_append(list, MOLT_STEAL_PTR(f));
        return 0;
    }
    set_file(f, "delta_a", d->path, id, "active");
    set_file(f, "delta_b", d->path, id, "clone");
    set_file(f, "base_view", d->path, id, "base");
    set_node(f, "node", id, d->vdev, "");
    molt_json_set_string(f, "base_node", base_node);
    if (d->dirs) {
        set_file(f, "hand_a", d->path, id, "active2");
        set_file(f, "hand_b", d->path, id, "clone2");
        set_node(f, "hand_a_node", id, d->vdev, "-2");
        set_node(f, "hand_b_node", id, d->vdev, "-2");
        set_node(f, "hand_base_node", id, d->vdev, "-1");
    }
    molt_json_append(list, MOLT_STEAL_PTR(f));
    return 0;
}

bool up_disks_have_image(struct molt_op *op)
{
    struct up_disks disks;
    up_disks_of(op, &disks);
    for (size_t i = 0; i < disks.n; i++)
        if (!disks.v[i].lvm)
            return true;
    return false;
}

int up_disks_plan(struct molt_op *op, struct molt_qmp *q, struct molt_error **err)
{
    struct up_disks disks;
    libxl_domain_config cfg;
    char base[MOLT_MAX_DISKS][16] = {{0}};
    CLEANUP_JSON struct molt_json *list = molt_json_array();
    up_disks_of(op, &disks);
    int r = molt_domain_config(up_of(op)->x, (uint32_t)up_param_int(op, "domid"), &cfg, err);
    if (r < 0)
        return r;
    for (size_t i = 0; r == 0 && i < disks.n; i++) {
        if (!molt_vdev_free(&cfg, base, i, disks.v[i].vdev, base[i]))
            r = molt_error_set(err, MOLT_E_UNSUPPORTED, "no name is free under which the clone could see the base of disk %s", disks.v[i].vdev);
        else
            r = plan_disk(op, q, &disks.v[i], base[i], list, err);
    }
    libxl_domain_config_dispose(&cfg);
    return r < 0 ? r : molt_op_put(op, "disks", MOLT_STEAL_PTR(list), err);
}

int up_disks_make_overlays(struct molt_op *op, struct molt_error **err)
{
    struct up_disks disks;
    int r = 0;
    up_disks_of(op, &disks);
    for (size_t i = 0; r == 0 && i < disks.n; i++) {
        const struct up_disk *d = &disks.v[i];
        const char *const files[] = {d->delta_a, d->delta_b, d->base_view};
        for (size_t k = 0; r == 0 && !d->lvm && k < (d->dirs ? 2 : 3); k++)
            r = molt_disk_overlay_create(files[k], d->path, d->format, err);
    }
    return r;
}

int up_disks_snapshot(struct molt_op *op, struct molt_qmp *q, struct molt_error **err)
{
    struct up_disks disks;
    struct molt_disk_snapshot v[MOLT_MAX_DISKS];
    size_t n = 0;
    up_disks_of(op, &disks);
    for (size_t i = 0; i < disks.n; i++)
        if (!disks.v[i].lvm)
            v[n++] = (struct molt_disk_snapshot){disks.v[i].base_node, disks.v[i].delta_a, disks.v[i].node};
    int r = n ? molt_disk_snapshot(q, v, n, err) : 0;
    for (size_t i = 0; r == 0 && i < disks.n; i++)
        if (disks.v[i].lvm)
            r = up_lvm_snapshot(&disks.v[i], err);
    return r;
}

int up_disks_make_clones(struct molt_op *op, struct molt_error **err)
{
    struct up_disks disks;
    int r = 0;
    up_disks_of(op, &disks);
    for (size_t i = 0; r == 0 && i < disks.n; i++)
        if (disks.v[i].lvm)
            r = up_lvm_make_clone(&disks.v[i], err);
    return r;
}

int up_disks_store_active(struct molt_op *op, struct molt_error **err)
{
    struct up_disks disks;
    int r = 0;
    up_disks_of(op, &disks);
    for (size_t i = 0; r == 0 && i < disks.n; i++)
        if (!disks.v[i].lvm)
            r = molt_disk_set_config_path(up_of(op)->x, (uint32_t)up_param_int(op, "domid"), disks.v[i].vdev, disks.v[i].delta_a, "qcow2", NULL, err);
    return r;
}

/* ---- the clone ---- */

int up_disks_of_clone(struct molt_op *op, libxl_domain_config *cfg, struct molt_error **err)
{
    struct up_disks disks;
    up_disks_of(op, &disks);
    for (size_t i = 0; i < disks.n; i++) {
        libxl_device_disk *d = NULL;
        for (int k = 0; k < cfg->num_disks; k++)
            if (molt_streq(cfg->disks[k].vdev, disks.v[i].vdev))
                d = &cfg->disks[k];
        if (!d)
            return molt_error_set(err, MOLT_E_STATE, "disk %s is gone from the domain", disks.v[i].vdev);
        if (disks.v[i].lvm) {
            up_lvm_of_clone(&disks.v[i], d);
            continue;
        }
        molt_set_string(&d->pdev_path, disks.v[i].delta_b);
        d->format = LIBXL_DISK_FORMAT_QCOW2;
        d->backend = LIBXL_DISK_BACKEND_QDISK;
    }
    for (int k = 0; k < cfg->num_disks; k++) {
        size_t i = 0;
        while (i < disks.n && !molt_streq(cfg->disks[k].vdev, disks.v[i].vdev))
            i++;
        if (i == disks.n && !cfg->disks[k].is_cdrom)
            return molt_error_set(err, MOLT_E_STATE, "disk %s was attached after the operation had begun; detach it, or begin anew", cfg->disks[k].vdev);
    }
    return 0;
}

char *up_disks_base_names(struct molt_op *op)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    struct up_disks disks;
    up_disks_of(op, &disks);
    for (size_t i = 0; i < disks.n; i++)
        molt_strbuf_addf(&b, "%s%s", i ? "," : "", disks.v[i].base_vdev);
    return molt_strbuf_steal(&b);
}

int up_disks_plug_bases(struct molt_op *op, struct molt_error **err)
{
    struct up_disks disks;
    uint32_t domid = (uint32_t)up_fact_int(op, "clone_domid", 0);
    int r = 0;
    up_disks_of(op, &disks);
    /* Overlays to be thrown away, instead of read-only vbds: QEMU 7.2's xen-block refuses mode "r" ("Block node is
     * read-only"), and the base is protected all the same. */
    for (size_t i = 0; r == 0 && i < disks.n; i++)
        if (disks.v[i].dirs)
            continue;
        else if (disks.v[i].lvm)
            r = up_lvm_plug_base(op, &disks.v[i], domid, err);
        else
            r = molt_domain_attach_disk(up_of(op)->x, domid, disks.v[i].base_vdev, disks.v[i].base_view, NULL, err);
    return r;
}

struct molt_json *up_disks_pairs(struct molt_op *op)
{
    struct up_disks disks;
    struct molt_json *list = molt_json_array();
    up_disks_of(op, &disks);
    for (size_t i = 0; i < disks.n; i++) {
        if (disks.v[i].dirs)
            continue;
        char name[16];
        struct molt_json *v = molt_json_object();
        molt_json_set_string(v, "vdev", molt_vdev_guest_name(disks.v[i].vdev, name, sizeof(name)) ? name : disks.v[i].vdev);
        molt_json_set_string(v, "base", disks.v[i].base_vdev);
        molt_json_append(list, v);
    }
    return list;
}

void up_disks_unplug_bases(struct molt_op *op)
{
    struct up_disks disks;
    up_disks_of(op, &disks);
    for (size_t i = 0; i < disks.n; i++) {
        CLEANUP_ERROR struct molt_error *e = NULL;
        if (!disks.v[i].base_view || disks.v[i].dirs)
            continue;
        if (molt_domain_detach_disk(up_of(op)->x, (uint32_t)up_fact_int(op, "clone_domid", 0), disks.v[i].base_vdev, &e) < 0)
            molt_info(molt_op_log(op), "%s", molt_error_text(e)); /* gone already when this is a second try */
        if (!disks.v[i].lvm)
            unlink(disks.v[i].base_view);
        else if (up_lvm_drop_base(&disks.v[i], &e) < 0)
            molt_warn(molt_op_log(op), "%s; op-commit removes it", molt_error_text(e));
    }
}

bool up_disks_is_base(struct molt_op *op, const char *vdev)
{
    struct up_disks disks;
    up_disks_of(op, &disks);
    for (size_t i = 0; i < disks.n; i++)
        if (molt_streq(disks.v[i].base_vdev, vdev))
            return true;
    return false;
}

uint64_t up_disks_allocated(struct molt_op *op)
{
    struct up_disks disks;
    uint64_t n = 0;
    up_disks_of(op, &disks);
    for (size_t i = 0; i < disks.n; i++)
        n += molt_disk_allocated(disks.v[i].delta_a) + molt_disk_allocated(disks.v[i].delta_b) + molt_disk_allocated(disks.v[i].hand_a) + molt_disk_allocated(disks.v[i].hand_b);
    return n;
}
