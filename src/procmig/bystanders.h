/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything in a guest that is neither the workload nor ours: stopped while the workload changes sides, so that nobody writes
 * to a file system that was merged already. By the freezer of cgroup v2 (kernel documentation, admin-guide/cgroup-v2, "Core
 * Interface Files": cgroup.freeze, cgroup.events), which also stops what ignores signals and lets nothing notice.
 */
#ifndef MOLT_PROCMIG_BYSTANDERS_H
#define MOLT_PROCMIG_BYSTANDERS_H

#include <stddef.h>

#include "base/error.h"

#define MOLT_CGROUP_ROOT "/sys/fs/cgroup"

/* The cgroup of the calling process, as "/system.slice/x.service"; malloc'd. MOLT_E_UNSUPPORTED: it has none of its own. */
int molt_cgroup_own(char **ret, struct molt_error **err);

struct molt_bystanders {
    const char *root;        /* of cgroup v2; NULL: MOLT_CGROUP_ROOT */
    const char *list;        /* file that names what was frozen, for a thaw by anybody: written before anything is */
    const char *const *keep; /* cgroups that go on with all below them ("/init.scope"), NULL-terminated; borrowed */
    int timeout_ms;          /* to wait until they stand still */
};

/* Freezes every other cgroup at the highest level possible, but none that somebody froze before. *ret_frozen: how many;
 * *ret_late: NULL, or one that does not stand still after the timeout (malloc'd; it stops as soon as it can). An error leaves nothing frozen:
 * MOLT_E_UNSUPPORTED where there is no such freezer. */
int molt_bystanders_freeze(const struct molt_bystanders *b, size_t *ret_frozen, char **ret_late, struct molt_error **err);
/* Thaws what the list names, and removes it. No list: nothing to do. */
int molt_bystanders_thaw(const struct molt_bystanders *b, struct molt_error **err);

#endif
