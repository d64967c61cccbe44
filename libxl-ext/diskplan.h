/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What becomes of each disk in an upgrade: merged or handed over. A pure function of what the guest's agent tells, which is
 * not trusted. */
#ifndef MOLT_LIBXL_DISKPLAN_H
#define MOLT_LIBXL_DISKPLAN_H

#include "base/json.h"

/*
 * disks: [{"vdev", ...}] of the domain. guest: the agent's "mounts" [{dir, type, below, device, disks, system}] and "swaps"
 * [{device, disks}]. merge_disks: "xvdb,xvdc", vdevs that are merged in any case, or NULL.
 * A disk with swap, with a file system that holds something of the system ("system"), or with one that does not lie plainly on it
 * (a mapped device) is merged; any other gets a member "dirs", where its file systems are mounted (may be empty), and is handed
 * over. *ret_merged: the directories of the file systems that are merged. Both are owned by the caller.
 * MOLT_E_UNSUPPORTED with the reason and a way out; MOLT_E_PROTOCOL; MOLT_E_USAGE for a merge_disks that the domain does not have.
 */
int molt_diskplan(const struct molt_json *disks, const struct molt_json *guest, const char *merge_disks, struct molt_json **ret_disks,
                  struct molt_json **ret_merged, struct molt_error **err);

#endif
