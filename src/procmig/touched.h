/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which parts of the files that it maps a workload has used: those are in its page tables (/proc/PID/pagemap, bit 63; Documentation/admin-guide/mm/pagemap.rst).
 * In the clone nobody may have read them since its boot, and the thawed workload would wait for the disk, piece by piece.
 */
#ifndef MOLT_PROCMIG_TOUCHED_H
#define MOLT_PROCMIG_TOUCHED_H

#include "procmig/workload.h"

/* On the active side: [{"path", "ranges": [offset, length, offset, length, ...]}], in bytes; as much as can be told and fits into a message: at most MOLT_TOUCHED_MAX
 * ranges in all. The caller's. */
#define MOLT_TOUCHED_MAX 2048
struct molt_json *molt_touched_collect(const struct molt_workload *w);
/* On the clone: reads them, and returns when they are there; no more than this part of the memory. What is malformed, or is no plain file here, is passed over.
 * The bytes. */
#define MOLT_TOUCHED_SHARE 4
uint64_t molt_touched_read(const struct molt_json *v);

#endif
