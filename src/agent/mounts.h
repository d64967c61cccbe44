/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest's own file systems: which there are, and on which disks they lie. */
#ifndef MOLT_AGENT_MOUNTS_H
#define MOLT_AGENT_MOUNTS_H

#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/json.h"

#define MOUNTS_MAX 64

struct agent_mount {
    char *dir;      /* "/", "/var/log" */
    char *fstype;
    dev_t dev;
};
struct agent_mounts {
    struct agent_mount v[MOUNTS_MAX];
    size_t n;
};
/* Writable file systems on block devices, each once, by where it was mounted first; the root's first. */
int mounts_read(struct agent_mounts *ret, struct molt_error **err);
/* The same, also while the root is read-only: then it is not among them. */
int mounts_list(struct agent_mounts *ret, struct molt_error **err);
void mounts_clear(struct agent_mounts *m);
#define CLEANUP_MOUNTS __attribute__((cleanup(mounts_clear)))

/* "xvda2" for its number; "" when there is none. */
void mounts_device_name(dev_t dev, char name[64]);
/* The names of the disks ("xvda") that a block device lies on, through partitions and device-mapper; at most max, malloc'd.
 * Returns how many, 0 when that cannot be found out. */
size_t mounts_disks(dev_t dev, char **ret, size_t max);

/* The device that shows the base's copy of `dev`: each disk's name replaced as `disks`, an array of {"vdev", "base"}, says.
 * For a logical volume one is made, read-only, under the name dm_name (*ret_made). Waits until it is there. */
int mounts_base_device(dev_t dev, const struct molt_json *disks, const char *dm_name, char **ret, bool *ret_made,
                       struct molt_error **err);
void mounts_remove_device(const char *dm_name);

#endif
