/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The trees that a merge is about: in the clone each file system of the merged disks with its base mounted beside it. */
#ifndef MOLT_AGENT_TREES_H
#define MOLT_AGENT_TREES_H

#include "agent/mounts.h"
#include "base/log.h"
#include "merge/merge.h"

struct agent_tree {
    char *dir, *prefix; /* "/var/log", "var/log"; the root: "/", "" */
    char *base_dir, *stash, *dm_name;
    const char **exclude; /* NULL-terminated; the strings are static or within own */
    int rootfd, basefd;
};
struct agent_trees {
    struct agent_tree v[MOUNTS_MAX];
    size_t n;
};
/* disks: array of {"vdev", "base"}; file systems on other disks are left alone. The root's is the first tree. */
int trees_open(const struct molt_json *disks, struct agent_trees *ret, struct molt_error **err);
/* Unmounts the bases, removes the stashes. */
void trees_close(struct agent_trees *t);
/* Paths of the tree that no side tells of. */
extern const char *const peer_exclude[];
/* peer_exclude for the tree mounted at prefix: malloc'd array of static strings. */
const char **trees_exclude(const char *prefix);

#endif
