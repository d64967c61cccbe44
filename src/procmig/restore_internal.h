/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal: what restore.c and restore_exec.c share. */
#ifndef MOLT_PROCMIG_RESTORE_INTERNAL_H
#define MOLT_PROCMIG_RESTORE_INTERNAL_H

#include "procmig/restore.h"

#define MOLT__PAGING "paging" /* there is a pager */
#define MOLT__PAGED  "paged"  /* its result (pager.h) */
#define MOLT__RESIDUE "residue" /* what it made in the file system (residue.h) */

/* /run/xenmolt/restore/UNIT[/FILE]: spec.json, go (fifo), ready, result, pid, paging, paged, residue. malloc'd. */
char *molt__restore_path(const char *unit, const char *file);
int molt__restore_spec_load(const char *path, struct molt_restore_spec *s, struct molt_error **err);

#endif
