/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Carries out a plan on the clone's tree, while the active's records arrive. */
#ifndef MOLT_MERGE_APPLY_H
#define MOLT_MERGE_APPLY_H

#include "base/log.h"
#include "merge/pack.h"
#include "merge/plan.h"

#define MOLT_TMP_PREFIX     ".xenmolt-tmp-"
#define MOLT_BESIDE_UPGRADE ".xenmolt-upgrade"
#define MOLT_BESIDE_ACTIVE  ".xenmolt-active"

struct molt_apply {
    int rootfd;  /* the clone's tree */
    int basefd;  /* the base's tree, read-only */
    int stashfd; /* a directory opened beneath rootfd (links are made across), outside of what is merged */
    struct molt_log *log;
    bool no_sync; /* leave out the syncfs at the end */
    /* Told of every text merge, and whether it overlapped; may be NULL. */
    void (*merged)(void *ctx, const struct molt_action *a, bool overlap);
    void *ctx;
    /* results, added to */
    uint64_t bytes;   /* content received */
    size_t done;      /* actions carried out */
    size_t vanished;  /* gone from the active before they could be read; the next pass sees them */
    size_t not_empty; /* directories that could not be removed */
};

/* The records to ask for, in the order in which molt_apply_plan wants them. */
struct molt_wants {
    struct molt_pack_path *v;
    size_t n;
    size_t *action;         /* the plan's action of each */
    struct molt_entry *had; /* the tree's own version that was hashed for it, where it was */
};
/* Large files of which the tree has a version already are hashed, so that only the differences come. */
int molt_apply_want(const struct molt_apply *a, const struct molt_plan *plan, struct molt_wants *ret,
                    struct molt_error **err);
void molt_wants_clear(struct molt_wants *w);
#define CLEANUP_WANTS __attribute__((cleanup(molt_wants_clear)))
/* src yields the pack for `want`; NULL when there are none wanted. Ends with one syncfs. */
int molt_apply_plan(struct molt_apply *a, const struct molt_plan *plan, const struct molt_wants *want,
                    const struct molt_source *src, struct molt_error **err);

/* Three-way merge of texts. 1: merged into *ret (malloc'd); 0: they overlap (or the tool is missing, or a
 * text is binary); negative: error. */
int molt_merge_text(const char *base, size_t base_len, const char *active, size_t active_len,
                    const char *upgrade, size_t upgrade_len, char **ret, size_t *ret_len,
                    struct molt_error **err);
/* Lines "key:..." merged by key (passwd, group, shadow, ...): two sides that add accounts at the same place
 * do not overlap. ids: the third field is a number that two keys must not share. False: they overlap. */
bool molt_merge_keyed(const char *base, const char *active, const char *upgrade, bool ids, char **ret);
bool molt_merge_is_keyed(const char *path, bool *ret_ids);

/* Removes one entry of a stash, which may be immutable; what else bears its inode stays so. -1 with errno. */
int molt_apply_stash_drop(int stashfd, const char *name);
/* A text in memory that a child can open by path: the descriptor, or -1 with errno. */
int molt__memory_file(const char *p, size_t len, char path[64]);
/* As the action merge does it for this path: by key where that is known and goes, else by lines. As molt_merge_text; all
 * three are NUL-terminated. */
int molt_merge_as(const char *path, const char *base, size_t base_len, const char *active, size_t active_len,
                  const char *upgrade, size_t upgrade_len, char **ret, size_t *ret_len, struct molt_error **err);

/* The upgrade's own version of path, which a pass may have replaced meanwhile: from the stash, else from the
 * tree. Descriptor (O_RDONLY, regular files only), or -1 with errno. */
int molt_apply_open_upgrade(const struct molt_apply *a, const char *path);

#endif
