/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing the clone's tree: write beside, attributes, rename into place; nothing follows a symlink. */
#ifndef MOLT_MERGE_APPLY_FS_H
#define MOLT_MERGE_APPLY_FS_H

#include "merge/apply.h"

/* Where a path's directory is open; paths come in tree order, so the last one is kept. */
struct molt__place {
    int rootfd, dirfd;
    char *dir;
    bool unlocked;   /* molt__place_unlock was called for it */
    unsigned serial; /* for names of temporary files */
    struct molt_log *log;
};

void molt__place_done(struct molt__place *p);
/* Opens the directory of path; *ret_name is the last component ("." for the root). 1, with err set: not
 * there. */
int molt__place_at(struct molt__place *p, const char *path, const char **ret_name, struct molt_error **err);
/* Takes immutable and append-only off the directory itself, whose entries are to change; its own action comes last and
 * puts them back. */
void molt__place_unlock(struct molt__place *p);
/* After directories were removed or replaced. */
void molt__place_forget(struct molt__place *p);
void molt__tmp_name(struct molt__place *p, char name[64]);

/* Makes the non-directory that e describes under the name tmp. For a regular file *ret_fd is open for
 * writing. */
int molt__make_node(struct molt__place *p, const char *tmp, const struct molt_entry *e, int *ret_fd,
                    struct molt_error **err);
/* Owner, mode, xattrs (r NULL: as they are; else exactly r's), times; without the inode flags. */
int molt__set_attrs(struct molt__place *p, const char *name, const struct molt_entry *want,
                    const struct molt_record *r, struct molt_error **err);
/* The extended attributes that name in dirfd has, for molt__set_attrs. */
struct molt_record *molt__xattrs_of(int dirfd, const char *name);
void molt__xattrs_free(struct molt_record *r);
void molt__set_inode_flags(struct molt__place *p, const char *name, const struct molt_entry *want);
/* Takes immutable and append-only off name, so that it can be changed or replaced. */
void molt__clear_inode_flags(int dirfd, const char *name);
/* Renames tmp over name, whatever name is (an empty directory is removed first). */
int molt__replace(struct molt__place *p, const char *tmp, const char *name, struct molt_error **err);
/* The hard link dst in dirfd to src in srcfd, replacing dst. 1: src is not there. */
int molt__link_over(struct molt__place *p, int srcfd, const char *src, const char *name,
                    struct molt_error **err);

void molt__stash_name(const char *path, char name[40]);
/* What is laid beside NAME: NAME.xenmolt-active; for "system.journal" "system@xenmolt-active.journal", which journalctl reads. */
#define MOLT_BESIDE_LIMIT (MOLT_NAME_LIMIT + 64)
void molt__beside_name(const char *name, char out[MOLT_BESIDE_LIMIT]);
int molt__stash_save(struct molt__place *p, int stashfd, const char *path, const char *name,
                     struct molt_error **err);

#endif
