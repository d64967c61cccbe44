/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Recording in the clone. Each of its boots begins it before the real init runs, with the journal in /run; what the first
 * boot told is saved at the very end of its shutdown (systemd-shutdown(8), system-shutdown/) and read by the last one.
 */
#ifndef MOLT_AGENT_CLONERECORD_H
#define MOLT_AGENT_CLONERECORD_H

#include "base/log.h"
#include "merge/merge.h"

struct agent_trees;

/* In PID 1, /run mounted. title: its argv[0]. A failure is told, and makes the merge scan. */
void clonerecord_begin(char *title, bool first_boot, struct molt_log *log);
/* xenmolt-agent record-save: to be run when nothing else runs any more. */
int clonerecord_save(struct molt_log *log);

/* What changed on the clone's file systems since it was cloned: the root's from the first moment on, the others' from their mount. */
struct clone_changes {
    struct molt_dirty_set *sets[2]; /* of the first boot and of this one */
    char why_not[200];              /* not empty: not known */
};
/* Ends the recording. */
void clonerecord_take(struct clone_changes *ret);
/* What changed below dir, one of the trees, as molt_merge_opts takes it: malloc'd, its strings the changes' own. False: not known. */
bool clonerecord_of(const struct clone_changes *c, const struct agent_trees *t, const char *dir, struct molt_look **ret, size_t *ret_n);
void clonerecord_clear(struct clone_changes *c);
#define CLEANUP_CHANGES __attribute__((cleanup(clonerecord_clear)))

#endif
