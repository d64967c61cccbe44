/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Logical volumes of dom0 as disks: by LVM's own commands (lvs(8), lvcreate(8), lvremove(8), lvrename(8), lvmthin(7)). */
#ifndef MOLT_LIBXL_LVM_H
#define MOLT_LIBXL_LVM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define MOLT_LV_NAME 128 /* of a volume and of a group: 127 characters (lvm(8)) */

struct molt_lv {
    char vg[MOLT_LV_NAME], name[MOLT_LV_NAME];
    bool thin;           /* in a pool; else its snapshots are of the classic kind, which copy on write */
    uint64_t size;       /* bytes */
    uint64_t free_bytes; /* of the pool, or of the volume group */
};

/* The volume behind a block device. MOLT_E_UNSUPPORTED with the reason: not one of LVM's, or of a kind of which no snapshot
 * can be taken. */
int molt_lv_of(const char *path, struct molt_lv *ret, struct molt_error **err);
/* "/dev/VG/NAME" (malloc'd). */
char *molt_lv_path(const char *vg, const char *name);

/* Its device is there: molt_lv_snapshot does not wait for that. */
int molt_lv_wait(const char *vg, const char *name, struct molt_error **err);
/* A writable, active snapshot of volume vg/origin as it is now. room: for a classic one how many bytes may change (no more than the
 * volume has are taken); 0: origin is thin. */
int molt_lv_snapshot(const char *vg, const char *origin, const char *name, uint64_t room, struct molt_error **err);
/* A new plain volume. */
int molt_lv_create(const char *vg, const char *name, uint64_t size, struct molt_error **err);
/* The names of the snapshots of a volume, with blanks between ("" for none; malloc'd). */
int molt_lv_snapshots(const char *vg, const char *origin, char **ret, struct molt_error **err);
/* A volume that is not there is removed already. One that somebody has open still is waited for. */
int molt_lv_remove(const char *vg, const char *name, struct molt_error **err);
/* Also while it is in use. */
int molt_lv_rename(const char *vg, const char *from, const char *to, struct molt_error **err);
/* Of the path of a volume that an operation made beside another ("/dev/VG/NAME.ID.new", upgrade_lvm.c): the other's path with
 * .ID.WHAT behind it, or without anything (what: NULL). NULL when its name is not of that form; malloc'd. */
char *molt_lv_sibling(const char *path, const char *what);
/* 1: it is there, 0: not. */
int molt_lv_exists(const char *vg, const char *name, struct molt_error **err);

#endif
