/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The frozen base and its two overlays: qemu-img for files at rest, QMP for the running device model. */
#ifndef MOLT_LIBXL_DISK_H
#define MOLT_LIBXL_DISK_H

#include "context.h"
#include "lvm.h"
#include "qmp.h"

#define MOLT_MAX_DISKS 16
/* One disk of a guest's configuration: an image file that QEMU can serve, or a volume of LVM. */
struct molt_guest_disk {
    char *path;          /* the image or volume that the domain writes now */
    const char *format;  /* "qcow2" or "raw" */
    const char *backend; /* "qdisk" or "phy" */
    char vdev[16];       /* as configured: "xvda" */
    uint64_t virtual_size, free_bytes; /* of the disk; of the file system that holds the image, of the volume's group or pool */
    bool is_lv;
    struct molt_lv lv;
};
struct molt_guest_disks {
    struct molt_guest_disk v[MOLT_MAX_DISKS];
    size_t n;
};
void molt_guest_disks_clear(struct molt_guest_disks *d);
static inline void molt__cleanup_guest_disks(struct molt_guest_disks *d) { molt_guest_disks_clear(d); }
#define CLEANUP_GUEST_DISKS __attribute__((cleanup(molt__cleanup_guest_disks)))
/* The disks of a configuration (CD-ROMs are none); MOLT_E_UNSUPPORTED with disk and reason for what is neither an image
 * file nor a volume of LVM. */
int molt_guest_disks_of(const libxl_domain_config *cfg, struct molt_guest_disks *ret, struct molt_error **err);
/* The name under which Linux' xen-blkfront shows a vdev ("hda1" is xvda1, "sda" is xvde); false: not known. */
bool molt_vdev_guest_name(const char *vdev, char *ret, size_t size);
/* A name for one more disk: from xvdy downwards, none that the configuration has or that is in taken (n of them, may be
 * empty strings). like: the vdev that it shows a copy of; a partition's number stays ("xvda1" -> "xvdy1"). False: all taken. */
bool molt_vdev_free(const libxl_domain_config *cfg, const char (*taken)[16], size_t n, const char *like, char ret[16]);

/* A new qcow2 overlay; an earlier file of that name is replaced. */
int molt_disk_overlay_create(const char *path, const char *base, const char *base_format, struct molt_error **err);
/* Node name of the writable image `file` in the device model. */
int molt_disk_find_node(struct molt_qmp *q, const char *file, char **ret_node, struct molt_error **err);
/* Live snapshot of several disks in one moment (all or none): new writes to `node` go to the overlay from now on. */
struct molt_disk_snapshot {
    const char *node, *overlay, *overlay_node;
};
int molt_disk_snapshot(struct molt_qmp *q, const struct molt_disk_snapshot *v, size_t n, struct molt_error **err);
/* Which of these images does a disk of the domain stand on now (its topmost one)? MOLT_E_UNSUPPORTED: on none of them. Its
 * index, and its node's name (malloc'd). */
int molt_disk_attached(struct molt_qmp *q, const char *const *files, size_t n, size_t *ret_which, char **ret_node, struct molt_error **err);
/* Told while a commit runs: percent of what is known to be copied. */
typedef void molt_disk_progress(void *ctx, int percent);
/* The reverse, live: overlay is committed into base_node and dropped from the chain. progress may be NULL. */
int molt_disk_commit_live(struct molt_qmp *q, const char *overlay_node, const char *base_node, molt_disk_progress *progress, void *ctx, struct molt_error **err);
/* All that a disk holds goes to a block device of dom0, which takes its place; live. device_node: its name in QEMU. */
int molt_disk_mirror_live(struct molt_qmp *q, const char *node, const char *device, const char *device_node, molt_disk_progress *progress, void *ctx, struct molt_error **err);
/* The image of `node` (top of a disk, in file `image`) stands on the image `backing` from now on, also as its header says.
 * backing is opened under the name backing_node. The guest must not use the disk meanwhile. */
int molt_disk_set_backing(struct molt_qmp *q, const char *node, const char *image, const char *backing, const char *backing_node, struct molt_error **err);
/* After a commit: the device model closes the overlay's file. */
void molt_disk_forget(struct molt_qmp *q, const char *file);
/* Before a domain is made again from cfg: a disk whose running device model stands on an image below the one in cfg (a
 * commit whose command was killed before it had stored the configuration) gets that one. */
int molt_disk_follow(uint32_t domid, libxl_domain_config *cfg, struct molt_error **err);
/* The same with images that no device model uses. */
int molt_disk_copy_offline(const char *image, const char *device, struct molt_error **err);
/* overlay and all below it down to base, for images that no device model uses. */
int molt_disk_commit_offline(const char *overlay, const char *base, struct molt_error **err);
/* Bytes that a file takes on disk; 0 when missing. */
uint64_t molt_disk_allocated(const char *path);
/* The path of the disk `vdev` in the stored configuration of a running domain. backend: "phy" or "qdisk", NULL: as it is. */
int molt_disk_set_config_path(struct xenmolt *x, uint32_t domid, const char *vdev, const char *path, const char *format, const char *backend, struct molt_error **err);
/* The same in xenstore ("params" of the backend, and of libxl's own copy of it), where libxl and scripts read it. */
int molt_disk_set_params(struct xenmolt *x, uint32_t domid, const char *vdev, const char *path, const char *format, struct molt_error **err);

#endif
