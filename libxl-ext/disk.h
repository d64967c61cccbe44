/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The frozen base and its two overlays: qemu-img for files at rest, QMP for the running device model. */
#ifndef MOLT_LIBXL_DISK_H
#define MOLT_LIBXL_DISK_H

#include "context.h"
#include "qmp.h"

struct molt_os_disk {
    char *path;          /* the image that the domain writes now */
    const char *format;  /* "qcow2" or "raw" */
    char vdev[16];
    uint64_t virtual_size, free_bytes; /* of the disk; of the file system that holds the image */
};
void molt_os_disk_clear(struct molt_os_disk *d);
/* The one disk of a configuration; MOLT_E_UNSUPPORTED with the reason for anything else. */
int molt_os_disk_of(const libxl_domain_config *cfg, struct molt_os_disk *ret, struct molt_error **err);

/* A new qcow2 overlay; an earlier file of that name is replaced. */
int molt_disk_overlay_create(const char *path, const char *base, const char *base_format, struct molt_error **err);
/* Node name of the writable image `file` in the device model. */
int molt_disk_find_node(struct molt_qmp *q, const char *file, char **ret_node, struct molt_error **err);
/* Live snapshot: new writes go to overlay from now on. */
int molt_disk_snapshot(struct molt_qmp *q, const char *node, const char *overlay, const char *overlay_node, struct molt_error **err);
/* Which of these images does a disk of the domain stand on now (its topmost one)? MOLT_E_UNSUPPORTED: on none of them. Its
 * index, and its node's name (malloc'd). */
int molt_disk_attached(struct molt_qmp *q, const char *const *files, size_t n, size_t *ret_which, char **ret_node, struct molt_error **err);
/* The reverse, live: overlay is committed into base_node and dropped from the chain. */
int molt_disk_commit_live(struct molt_qmp *q, const char *overlay_node, const char *base_node, struct molt_error **err);
/* After that: the device model closes the overlay's file. */
void molt_disk_forget(struct molt_qmp *q, const char *file);
/* Before a domain is made again from cfg: a disk whose running device model stands on the image below the one in cfg (a
 * commit whose command was killed before it had stored the configuration) gets that one. */
int molt_disk_follow(uint32_t domid, libxl_domain_config *cfg, struct molt_error **err);
/* The same for an image that no device model uses. */
int molt_disk_commit_offline(const char *overlay, struct molt_error **err);
/* Bytes that a file takes on disk; 0 when missing. */
uint64_t molt_disk_allocated(const char *path);
/* The path of the disk `vdev` in the stored configuration of a running domain. */
int molt_disk_set_config_path(struct xenmolt *x, uint32_t domid, const char *vdev, const char *path, const char *format, struct molt_error **err);
/* The same in xenstore ("params" of the backend, and of libxl's own copy of it), where libxl and scripts read it. */
int molt_disk_set_params(struct xenmolt *x, uint32_t domid, const char *vdev, const char *path, const char *format, struct molt_error **err);

#endif
