/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Three trees on scratch file systems, merged in passes. */
#ifndef MODEL_WORLD_H
#define MODEL_WORLD_H

#include "model.h"

/* dirs: three directories, where no inode is that of another tree. ext4, xfs: a disk and two copies of it. */
enum fs { FS_DIRS, FS_EXT4, FS_XFS };

struct setting {
    enum fs fs;
    bool recorded; /* changes of the active by fanotify, else by scans */
    bool settle;   /* wait between edits and passes, so that times of change prove something */
    bool dry;      /* a dry pass before the second one */
    bool inodes;   /* a file that only the active wrote, in place, keeps its inode; not so where it had other names, or was away, in an earlier pass */
    enum wrong wrong;
};

/* In a mount namespace of our own from here on. NULL, or why these file systems cannot be had here. */
const char *world_start(enum fs fs, bool recorded);
void world_end(void);

/* Merges all cases at once, each in a directory of its own; `conflicts go to` must be the same for all. fails[i]: case i
 * is not as the model says. what, may be NULL: gets the differences of case i under its seed. *ret_error, malloc'd or
 * NULL: the merge failed as a whole. ret_bytes, may be NULL: what was transferred. Returns how many operations did something. */
size_t world_run(const struct setting *s, const struct ops *v, size_t n, bool *fails, FILE *what, char **ret_error,
                 uint64_t *ret_bytes);

/* The fewest operations found that still fail, within `tries` runs; 0 operations: it does not fail alone. */
struct ops shrink(const struct setting *s, const struct ops *o, unsigned tries);

#endif
