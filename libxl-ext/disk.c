/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk.h"

#include <libxl_utils.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "domain.h"

#define LOCK_TRIES 20
#define LOCK_WAIT_MS 500
#define COMMIT_LIMIT_MS (30 * 60 * 1000)
#define MAX_CHAIN 16
#define JOB_ID "xenmolt-commit"

/* qemu-img of the Xen packages or of the distribution. */
static const char *qemu_img(void)
{
    static const char *const where[] = {"/usr/bin/qemu-img", "/usr/lib/xen/bin/qemu-img"};
    return access(where[0], X_OK) == 0 || access(where[1], X_OK) != 0 ? where[0] : where[1];
}

void molt_guest_disks_clear(struct molt_guest_disks *d)
{
    for (size_t i = 0; i < d->n; i++)
        free(d->v[i].path);
    d->n = 0;
}

/* What qemu-img says of an image, which may be in use. */
static int image_info(const char *path, struct molt_json **ret, struct molt_error **err)
{
    char *argv[] = {(char *)qemu_img(), "info", "-U", "--output=json", (char *)path, NULL};
    CLEANUP_FREE char *out = NULL;
    int r = molt_run_ok(argv, NULL, &out, err);
    return r < 0 ? r : molt_json_parse(out, strlen(out), ret, err);
}

static libxl_disk_format format_of(const char *format)
{
    return !strcmp(format, "raw") ? LIBXL_DISK_FORMAT_RAW : LIBXL_DISK_FORMAT_QCOW2;
}

static int image_size(struct molt_guest_disk *d, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = image_info(d->path, &v, err);
    if (r < 0)
        return r;
    if (!molt_streq(molt_json_get_string(v, "format"), d->format))
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "%s is configured as %s but is %s", d->path, d->format, molt_json_get_string(v, "format"));
    d->virtual_size = (uint64_t)molt_json_get_int(v, "virtual-size", 0);
    return 0;
}

/* An image file: its size, and the room beside it. */
static int look_at_image(struct molt_guest_disk *d, struct molt_error **err)
{
    struct statvfs vfs;
    int r = image_size(d, err);
    if (r == 0 && statvfs(d->path, &vfs) < 0)
        r = molt_error_errno(err, "%s", d->path);
    if (r == 0)
        d->free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return r;
}

static int look_at_volume(struct molt_guest_disk *d, struct molt_error **err)
{
    int r = strcmp(d->format, "raw") ? molt_error_set(err, MOLT_E_UNSUPPORTED, "disk %s: %s on a block device is not supported; give it format=raw", d->vdev, d->format)
                                     : molt_lv_of(d->path, &d->lv, err);
    d->is_lv = true;
    d->virtual_size = d->lv.size;
    d->free_bytes = d->lv.free_bytes;
    return r < 0 ? molt_error_prefix(err, "disk %s", d->vdev) : 0;
}

static int guest_disk_of(const libxl_device_disk *disk, struct molt_guest_disk *ret, struct molt_error **err)
{
    struct stat st;
    char name[16];
    if (!disk->vdev || strlen(disk->vdev) >= sizeof(ret->vdev) || !molt_vdev_guest_name(disk->vdev, name, sizeof(name)))
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "disk %s: its name in the guest is not known; give it a vdev like xvda in the domain's configuration", disk->vdev ? disk->vdev : "?");
    if (disk->format != LIBXL_DISK_FORMAT_QCOW2 && disk->format != LIBXL_DISK_FORMAT_RAW)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "disk %s: format %s is not supported; convert it to qcow2 or raw", disk->vdev, libxl_disk_format_to_string(disk->format));
    if (disk->script || disk->backend_domid != 0 || !disk->pdev_path || stat(disk->pdev_path, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)))
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "disk %s (%s) is neither an image file nor a block device of dom0; scripts and driver domains are not supported", disk->vdev, disk->pdev_path ? disk->pdev_path : "no path");
    if (!disk->readwrite)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "disk %s is read-only; detach it (xl block-detach) for the time of the upgrade", disk->vdev);
    struct molt_guest_disk d = {.path = molt_xstrdup(disk->pdev_path), .format = disk->format == LIBXL_DISK_FORMAT_QCOW2 ? "qcow2" : "raw",
                                .backend = disk->backend == LIBXL_DISK_BACKEND_QDISK ? "qdisk" : "phy"};
    snprintf(d.vdev, sizeof(d.vdev), "%s", disk->vdev);
    int r = S_ISBLK(st.st_mode) ? look_at_volume(&d, err) : look_at_image(&d, err);
    if (r < 0) {
        free(d.path);
        return r;
    }
    *ret = d;
    return 0;
}

int molt_guest_disks_of(const libxl_domain_config *cfg, struct molt_guest_disks *ret, struct molt_error **err)
{
    int r = 0;
    ret->n = 0;
    for (int i = 0; r == 0 && i < cfg->num_disks; i++) {
        if (cfg->disks[i].is_cdrom)
            continue;
        if (ret->n == MOLT_MAX_DISKS)
            r = molt_error_set(err, MOLT_E_UNSUPPORTED, "the domain has more than %d disks", MOLT_MAX_DISKS);
        else if ((r = guest_disk_of(&cfg->disks[i], &ret->v[ret->n], err)) == 0)
            ret->n++;
    }
    if (r == 0 && ret->n == 0)
        r = molt_error_set(err, MOLT_E_UNSUPPORTED, "the domain has no disk");
    if (r < 0)
        molt_guest_disks_clear(ret);
    return r;
}

int molt_disk_overlay_create(const char *path, const char *base, const char *base_format, struct molt_error **err)
{
    char *argv[] = {(char *)qemu_img(), "create", "-q", "-f", "qcow2", "-u", "-b", (char *)base, "-F", (char *)base_format, (char *)path, NULL, NULL};
    /* -u leaves the base unopened (the guest's QEMU holds its lock), so the size must be given. */
    CLEANUP_FREE char *size = NULL;
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = image_info(base, &v, err);
    if (r < 0)
        return r;
    size = molt_xasprintf("%lld", (long long)molt_json_get_int(v, "virtual-size", 0));
    argv[11] = size;
    return molt_run_ok(argv, NULL, NULL, err);
}

/* All nodes of the device model, without what lies below each. */
static int query_nodes(struct molt_qmp *q, struct molt_json **ret, struct molt_error **err)
{
    struct molt_json *args = molt_json_object();
    molt_json_set_bool(args, "flat", true);
    return molt_qmp_call(q, "query-named-block-nodes", args, ret, err);
}

int molt_disk_find_node(struct molt_qmp *q, const char *file, char **ret_node, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *nodes = NULL;
    int r = query_nodes(q, &nodes, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < molt_json_size(nodes); i++) {
        const struct molt_json *n = molt_json_at(nodes, i);
        const char *drv = molt_json_get_string(n, "drv");
        if (!molt_streq(molt_json_get_string(n, "file"), file) || molt_streq(drv, "file") || molt_streq(drv, "host_device"))
            continue;
        *ret_node = molt_xstrdup(molt_json_get_string(n, "node-name"));
        return 0;
    }
    return molt_error_set(err, MOLT_E_UNSUPPORTED, "the device model has no node for %s", file);
}

int molt_disk_attached(struct molt_qmp *q, const char *const *files, size_t n, size_t *ret_which, char **ret_node, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *devices = NULL;
    int r = molt_qmp_call(q, "query-block", NULL, &devices, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < molt_json_size(devices); i++) {
        const struct molt_json *in = molt_json_get(molt_json_at(devices, i), "inserted");
        const char *file = molt_json_get_string(in, "file"), *node = molt_json_get_string(in, "node-name");
        for (size_t k = 0; file && node && k < n; k++)
            if (!strcmp(file, files[k])) {
                *ret_which = k;
                *ret_node = molt_xstrdup(node);
                return 0;
            }
    }
    return molt_error_set(err, MOLT_E_UNSUPPORTED, "no disk of the domain stands on %s", files[0]);
}

/* A transaction of QMP's: when one overlay cannot be put on, none is. */
int molt_disk_snapshot(struct molt_qmp *q, const struct molt_disk_snapshot *v, size_t n, struct molt_error **err)
{
    struct molt_json *actions = molt_json_array(), *args = molt_json_object();
    for (size_t i = 0; i < n; i++) {
        struct molt_json *action = molt_json_object(), *a = molt_json_object();
        molt_json_set_string(a, "node-name", v[i].node);
        molt_json_set_string(a, "snapshot-file", v[i].overlay);
        molt_json_set_string(a, "snapshot-node-name", v[i].overlay_node);
        molt_json_set_string(a, "format", "qcow2");
        molt_json_set_string(a, "mode", "existing");
        molt_json_set_string(action, "type", "blockdev-snapshot-sync");
        molt_json_set(action, "data", a);
        molt_json_append(actions, action);
    }
    molt_json_set(args, "actions", actions);
    return molt_qmp_call(q, "transaction", args, NULL, err);
}

/* Status of our job, NULL when it is gone; malloc'd. ret_percent may be NULL. */
static char *job_status(struct molt_qmp *q, char **ret_error, int *ret_percent, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *jobs = NULL;
    if (molt_qmp_call(q, "query-jobs", NULL, &jobs, err) < 0)
        return NULL;
    for (size_t i = 0; i < molt_json_size(jobs); i++) {
        const struct molt_json *j = molt_json_at(jobs, i);
        if (!molt_streq(molt_json_get_string(j, "id"), JOB_ID))
            continue;
        const char *e = molt_json_get_string(j, "error");
        *ret_error = e ? molt_xstrdup(e) : NULL;
        int64_t total = molt_json_get_int(j, "total-progress", 0), now = molt_json_get_int(j, "current-progress", 0);
        if (ret_percent)
            *ret_percent = total > 0 && now >= 0 && now <= total ? (int)((double)now / (double)total * 100) : 0;
        return molt_xstrdup(molt_json_get_string(j, "status"));
    }
    return NULL;
}

static int job_command(struct molt_qmp *q, const char *command, struct molt_error **err)
{
    struct molt_json *a = molt_json_object();
    molt_json_set_string(a, "id", JOB_ID);
    return molt_qmp_call(q, command, a, NULL, err);
}

/* The last user of an image may be about to end: a guest's QEMU that xl told to. */
static bool another_try(int *tries, struct molt_error **err)
{
    if (!*err || !strstr(molt_error_text(*err), "lock") || (*tries)++ == LOCK_TRIES)
        return false;
    molt_error_clear(err);
    molt_sleep_ms(LOCK_WAIT_MS);
    return true;
}

/* Starts a job, or takes over the one that a killed command left running. What it is to replace is still in use, so a
 * concluded job was not its success. args: without "job-id"; freed. */
static int begin_job(struct molt_qmp *q, const char *command, struct molt_json *args, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *own = args;
    CLEANUP_FREE char *old_error = NULL;
    struct molt_error *e = NULL;
    CLEANUP_FREE char *old = job_status(q, &old_error, NULL, &e);
    if (e) {
        int r = molt_error_code(e);
        molt_error_move(err, e);
        return r;
    }
    if (old && strcmp(old, "concluded") != 0)
        return 0;
    if (old) {
        int r = job_command(q, "job-dismiss", err);
        if (r < 0)
            return r;
    }
    molt_json_set_string(own, "job-id", JOB_ID);
    molt_json_set_bool(own, "auto-dismiss", false);
    int r, tries = 0;
    do
        r = molt_qmp_call(q, command, molt_json_copy(own), NULL, err);
    while (r < 0 && another_try(&tries, err));
    return r;
}

/* To its end: what it copies to takes the place of what it copies from. */
static int finish_job(struct molt_qmp *q, const char *command, molt_disk_progress *progress, void *ctx, struct molt_error **err)
{
    int64_t end = molt_mono_ms() + COMMIT_LIMIT_MS;
    bool completing = false;
    int told = -1, r;
    for (;;) {
        CLEANUP_FREE char *why = NULL;
        struct molt_error *e = NULL;
        int percent = told;
        CLEANUP_FREE char *status = job_status(q, &why, &percent, &e);
        if (progress && percent > told)
            progress(ctx, told = percent);
        if (e) {
            r = molt_error_code(e);
            molt_error_move(err, e);
            return r;
        }
        if (!status)
            return 0;
        if (!strcmp(status, "concluded")) {
            job_command(q, "job-dismiss", NULL);
            return why ? molt_error_set(err, MOLT_E_INTERNAL, "%s: %s", command, why) : 0;
        }
        if (!strcmp(status, "ready") && !completing) {
            if ((r = job_command(q, "job-complete", err)) < 0)
                return r;
            completing = true;
        }
        if (molt_mono_ms() > end)
            return molt_error_set(err, MOLT_E_TIMEOUT, "%s did not end", command);
        molt_sleep_ms(50);
    }
}

int molt_disk_commit_live(struct molt_qmp *q, const char *overlay_node, const char *base_node, molt_disk_progress *progress, void *ctx, struct molt_error **err)
{
    struct molt_json *a = molt_json_object();
    molt_json_set_string(a, "device", overlay_node);
    molt_json_set_string(a, "base-node", base_node);
    int r = begin_job(q, "block-commit", a, err);
    return r < 0 ? r : finish_job(q, "block-commit", progress, ctx, err);
}

/* A block device of dom0, unless an earlier try has it open. */
static int add_device(struct molt_qmp *q, const char *device, const char *node, struct molt_error **err)
{
    CLEANUP_FREE char *have = NULL;
    if (molt_disk_find_node(q, device, &have, NULL) == 0)
        return 0;
    struct molt_json *a = molt_json_object(), *f = molt_json_object();
    molt_json_set_string(f, "driver", "host_device");
    molt_json_set_string(f, "filename", device);
    molt_json_set_string(a, "driver", "raw");
    molt_json_set_string(a, "node-name", node);
    molt_json_set_string(a, "discard", "unmap");
    molt_json_set(a, "file", f);
    return molt_qmp_call(q, "blockdev-add", a, NULL, err);
}

int molt_disk_mirror_live(struct molt_qmp *q, const char *node, const char *device, const char *device_node, molt_disk_progress *progress, void *ctx, struct molt_error **err)
{
    int r = add_device(q, device, device_node, err);
    if (r < 0)
        return r;
    struct molt_json *a = molt_json_object();
    molt_json_set_string(a, "device", node);
    molt_json_set_string(a, "target", device_node);
    molt_json_set_string(a, "sync", "full");
    r = begin_job(q, "blockdev-mirror", a, err);
    return r < 0 ? r : finish_job(q, "blockdev-mirror", progress, ctx, err);
}

/* Name of the node that opens `file` itself (below the format's). */
static int protocol_node(struct molt_qmp *q, const char *file, char **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *nodes = NULL;
    int r = query_nodes(q, &nodes, err);
    for (size_t i = 0; r == 0 && i < molt_json_size(nodes); i++) {
        const struct molt_json *n = molt_json_at(nodes, i);
        if (molt_streq(molt_json_get_string(n, "file"), file) && molt_streq(molt_json_get_string(n, "drv"), "file")) {
            *ret = molt_xstrdup(molt_json_get_string(n, "node-name"));
            return 0;
        }
    }
    return r < 0 ? r : molt_error_set(err, MOLT_E_STATE, "the device model does not have %s open", file);
}

static int add_backing(struct molt_qmp *q, const char *backing, const char *backing_node, struct molt_error **err)
{
    struct molt_json *a = molt_json_object(), *f = molt_json_object();
    molt_json_set_string(f, "driver", "file");
    molt_json_set_string(f, "filename", backing);
    molt_json_set_string(a, "driver", "qcow2");
    molt_json_set_string(a, "node-name", backing_node);
    molt_json_set_bool(a, "read-only", true);
    molt_json_set(a, "file", f);
    return molt_qmp_call(q, "blockdev-add", a, NULL, err);
}

int molt_disk_set_backing(struct molt_qmp *q, const char *node, const char *image, const char *backing, const char *backing_node, struct molt_error **err)
{
    CLEANUP_FREE char *file = NULL;
    int r = protocol_node(q, image, &file, err);
    if (r == 0)
        r = add_backing(q, backing, backing_node, err);
    if (r < 0)
        return r;
    /* What is not said gets its default: "discard" is what libxl's disks have. */
    struct molt_json *o = molt_json_object(), *list = molt_json_array(), *a = molt_json_object();
    molt_json_set_string(o, "driver", "qcow2");
    molt_json_set_string(o, "node-name", node);
    molt_json_set_string(o, "file", file);
    molt_json_set_string(o, "backing", backing_node);
    molt_json_set_string(o, "discard", "unmap");
    molt_json_append(list, o);
    molt_json_set(a, "options", list);
    if ((r = molt_qmp_call(q, "blockdev-reopen", a, NULL, err)) < 0)
        return r;
    a = molt_json_object();
    molt_json_set_string(a, "device", node);
    molt_json_set_string(a, "image-node-name", node);
    molt_json_set_string(a, "backing-file", backing);
    return molt_qmp_call(q, "change-backing-file", a, NULL, err);
}

void molt_disk_forget(struct molt_qmp *q, const char *file)
{
    CLEANUP_JSON struct molt_json *nodes = NULL;
    if (query_nodes(q, &nodes, NULL) < 0)
        return;
    /* The format's node stands on the protocol's, and is the first to go. */
    for (int protocol = 0; protocol < 2; protocol++)
        for (size_t i = 0; i < molt_json_size(nodes); i++) {
            const struct molt_json *n = molt_json_at(nodes, i);
            if (!molt_streq(molt_json_get_string(n, "file"), file) || molt_streq(molt_json_get_string(n, "drv"), "file") != protocol)
                continue;
            struct molt_json *a = molt_json_object();
            molt_json_set_string(a, "node-name", molt_json_get_string(n, "node-name"));
            molt_qmp_call(q, "blockdev-del", a, NULL, NULL); /* one that was never added by name goes by itself */
        }
}

int molt_disk_commit_offline(const char *overlay, const char *base, struct molt_error **err)
{
    char *argv[] = {(char *)qemu_img(), "commit", "-q", "-d", "-b", (char *)base, (char *)overlay, NULL};
    int r, tries = 0;
    do
        r = molt_run_ok(argv, NULL, NULL, err);
    while (r < 0 && another_try(&tries, err));
    return r;
}

int molt_disk_copy_offline(const char *image, const char *device, struct molt_error **err)
{
    char *argv[] = {(char *)qemu_img(), "convert", "-q", "-n", "-f", "qcow2", "-O", "raw", (char *)image, (char *)device, NULL};
    return molt_run_ok(argv, NULL, NULL, err);
}

/* What lies below an image: path and format as the image says, NULL for nothing. */
static void backing_of(const char *path, char **ret_file, char **ret_format)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    if (image_info(path, &v, NULL) < 0)
        return;
    const char *file = molt_json_get_string(v, "full-backing-filename"), *format = molt_json_get_string(v, "backing-filename-format");
    if (!file || !format)
        return;
    *ret_file = molt_xstrdup(file);
    *ret_format = molt_xstrdup(format);
}

/* All images that a disk of the configuration stands on, topmost first; the caller frees them. */
struct chain {
    char *file[MAX_CHAIN], *format[MAX_CHAIN];
    size_t n;
};

static void chain_of(const char *path, struct chain *c)
{
    c->file[0] = molt_xstrdup(path);
    c->format[0] = molt_xstrdup("qcow2");
    for (c->n = 1; c->n < MAX_CHAIN; c->n++) {
        c->file[c->n] = c->format[c->n] = NULL;
        backing_of(c->file[c->n - 1], &c->file[c->n], &c->format[c->n]);
        if (!c->file[c->n])
            break;
    }
}

static void chain_clear(struct chain *c)
{
    for (size_t i = 0; i < c->n; i++) {
        free(c->file[i]);
        free(c->format[i]);
    }
}

/* op-commit of a volume (upgrade_lvm.c), killed before the configuration was stored: after its last act the volume has the
 * guest's name, */
static void follow_name(libxl_device_disk *d)
{
    struct stat st;
    CLEANUP_FREE char *named = molt_lv_sibling(d->pdev_path, NULL);
    if (named && stat(d->pdev_path, &st) < 0 && stat(named, &st) == 0)
        molt_set_string(&d->pdev_path, named);
}

/* and before that QEMU had copied the overlay on a classic base to a volume beside it. */
static void follow_copy(struct molt_qmp *q, const char *base, libxl_device_disk *d)
{
    CLEANUP_FREE char *copy = molt_lv_sibling(base, "new"), *node = NULL;
    const char *files[] = {copy};
    size_t which = 0;
    if (!copy || molt_disk_attached(q, files, 1, &which, &node, NULL) < 0)
        return;
    molt_set_string(&d->pdev_path, copy);
    d->format = LIBXL_DISK_FORMAT_RAW;
    follow_name(d);
}

int molt_disk_follow(uint32_t domid, libxl_domain_config *cfg, struct molt_error **err)
{
    CLEANUP_QMP struct molt_qmp *q = NULL;
    int r = 0;
    for (int i = 0; r == 0 && i < cfg->num_disks; i++) {
        libxl_device_disk *d = &cfg->disks[i];
        CLEANUP_FREE char *node = NULL;
        CLEANUP_ERROR struct molt_error *e = NULL;
        struct chain c;
        size_t which = 0;
        if (d->pdev_path && d->format == LIBXL_DISK_FORMAT_RAW)
            follow_name(d);
        if (d->format != LIBXL_DISK_FORMAT_QCOW2 || !d->pdev_path)
            continue;
        chain_of(d->pdev_path, &c);
        if (c.n > 1 && !q)
            r = molt_qmp_open(domid, &q, err);
        if (r == 0 && c.n > 1 && molt_disk_attached(q, (const char *const *)c.file, c.n, &which, &node, &e) == 0 && which > 0) {
            molt_set_string(&d->pdev_path, c.file[which]);
            d->format = format_of(c.format[which]);
        } else if (r == 0 && c.n > 1 && !node)
            follow_copy(q, c.file[c.n - 1], d);
        chain_clear(&c);
    }
    return r;
}

uint64_t molt_disk_allocated(const char *path)
{
    struct stat st;
    return path && stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

int molt_disk_set_config_path(struct xenmolt *x, uint32_t domid, const char *vdev, const char *path, const char *format, const char *backend, struct molt_error **err)
{
    libxl_domain_config cfg;
    int r = molt_domain_config(x, domid, &cfg, err);
    if (r < 0)
        return r;
    for (int i = 0; i < cfg.num_disks; i++)
        if (molt_streq(cfg.disks[i].vdev, vdev)) {
            molt_set_string(&cfg.disks[i].pdev_path, path);
            cfg.disks[i].format = format_of(format);
            if (backend)
                cfg.disks[i].backend = !strcmp(backend, "phy") ? LIBXL_DISK_BACKEND_PHY : LIBXL_DISK_BACKEND_QDISK;
        }
    r = molt_domain_store_config(x, domid, &cfg, err);
    libxl_domain_config_dispose(&cfg);
    return r;
}

int molt_disk_set_params(struct xenmolt *x, uint32_t domid, const char *vdev, const char *path, const char *format, struct molt_error **err)
{
    libxl_device_disk disk;
    libxl_diskinfo info;
    libxl_device_disk_init(&disk);
    libxl_diskinfo_init(&info);
    int r = 0;
    if (libxl_vdev_to_device_disk(x->xl, domid, vdev, &disk) || libxl_device_disk_getinfo(x->xl, domid, &disk, &info))
        r = molt_error_set(err, MOLT_E_STATE, "domain %u has no disk %s", domid, vdev);
    if (r == 0) {
        /* xl-disk-configuration(5) says "raw"; libxl writes "aio" for it. */
        CLEANUP_FREE char *key = molt_xasprintf("%s/params", info.backend);
        CLEANUP_FREE char *own = molt_xasprintf("/libxl/%u/device/vbd/%d/params", domid, info.devid);
        bool by_qemu = disk.backend == LIBXL_DISK_BACKEND_QDISK;
        CLEANUP_FREE char *value = by_qemu ? molt_xasprintf("%s:%s", !strcmp(format, "raw") ? "aio" : format, path) : molt_xstrdup(path);
        r = molt_store_write(&x->store, key, value, err);
        if (r == 0)
            r = molt_store_write(&x->store, own, value, err); /* libxl reads its own copy */
    }
    libxl_diskinfo_dispose(&info);
    libxl_device_disk_dispose(&disk);
    return r;
}
