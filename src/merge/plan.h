/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The three-way plan: a pure function of manifests and a policy. Each path gets an outcome from (base, active
 * now, upgrade); a pass acts on the paths whose active entry or whose outcome changed since the pass before.
 */
#ifndef MOLT_MERGE_PLAN_H
#define MOLT_MERGE_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "merge/manifest.h"
#include "merge/pathset.h"
#include "merge/policy.h"

enum molt_on_conflict { MOLT_ON_CONFLICT_REFUSE, MOLT_ON_CONFLICT_ACTIVE, MOLT_ON_CONFLICT_UPGRADE };

/* X(NAME, "text") */
#define MOLT_ACTS(X)                                                                                         \
    X(PUT, "put")           /* active's version, whole (file, symlink, node; a hard-link group's first) */   \
    X(PUT_DIR, "put-dir")   /* make the directory if need be, owner and mode; its times come last */         \
    X(KEEP, "keep")         /* first: a name in the stash for what a move takes from this path */            \
    X(MOVE, "move")         /* what `link` kept: the active renamed it, its content is the base's */         \
    X(HARDLINK, "hardlink") /* to `link`, which was put before or is there */                                \
    X(SET_META, "set-meta") /* content is right already */                                                   \
    X(APPEND, "append")     /* active's content, then what the upgrade appended to the base's */             \
    X(MERGE_TEXT, "merge-text")   /* three-way; on overlap active's, the upgrade's laid beside */            \
    X(BESIDE, "beside")           /* active's laid beside the upgrade's */                                   \
    X(UNBESIDE, "unbeside")       /* first: take away what an earlier pass laid beside */                    \
    X(KEEP_BESIDE, "keep-beside") /* active's version (or absence), the upgrade's laid beside */             \
    X(RESTORE, "restore")         /* the upgrade's version back, from the stash, if a pass replaced it */    \
    X(DELETE, "delete")           /* file or directory; a directory that is not empty stays */               \
    X(DIR_META, "dir-meta")       /* last: owner, mode, times of a directory */

#define MOLT_X(name, text) MOLT_ACT_##name,
enum molt_act { MOLT_ACTS(MOLT_X) };
#undef MOLT_X
#define MOLT_X(name, text) +1
enum { MOLT_N_ACTS = 0 MOLT_ACTS(MOLT_X) };
#undef MOLT_X
const char *molt_act_name(enum molt_act a);

/* What a record of the active is needed for. */
enum molt_fetch { MOLT_FETCH_NONE, MOLT_FETCH_META, MOLT_FETCH_FULL };

struct molt_action {
    enum molt_act act;
    enum molt_fetch fetch;
    const char *path;
    const char *link;                /* HARDLINK: existing path; MOVE: the path of KEEP */
    const struct molt_entry *active; /* NULL: not there; likewise the next two */
    const struct molt_entry *upgrade, *base;
    struct molt_entry want;       /* type, mode, owner, mtime, inode flags that the result has */
    bool stash;                   /* save the upgrade's version first (once); of a directory the xattrs */
    bool unshare;                 /* SET_META: of a copy, not of the upgrade's own inode */
    const struct molt_rule *rule; /* the policy's, where it decided; else NULL */
    const char *why;              /* name of the plan rule: "active-only", "deleted-vs-changed", ... */
};

struct molt_conflict {
    const char *path;
    const struct molt_rule *rule;
    const char *kind;     /* "changed-both", "deleted-vs-changed", "file-vs-directory", "attributes" */
    const char *decision; /* "active", "upgrade", "append", "merge", "beside", "drop", "refuse" */
    bool open;            /* nothing settles it: refuse */
    bool listed;          /* a conflict in the report; false: settled by a policy rule that is made for it */
};

/* By whom a path was changed, as the report counts it. */
enum molt_count_kind { MOLT_COUNT_NONE, MOLT_COUNT_ACTIVE, MOLT_COUNT_UPGRADE, MOLT_COUNT_SAME };
struct molt_counted {
    const char *path;
    uint8_t kind; /* enum molt_count_kind, not NONE */
};

struct molt_plan {
    struct molt_action *v;
    size_t n, cap;
    struct molt_conflict *conflicts; /* of the whole comparison, not of this pass only */
    size_t n_conflicts, cap_conflicts, n_open;
    size_t active_only, upgrade_only, both_same; /* paths, of the whole comparison */
    struct molt_counted *counted;                /* the same, one by one, in tree order */
    size_t n_counted, cap_counted;
};

/* Where a pass that was cut short may have acted (sorted): what lies there is not known any more, so that it is put whole,
 * restored, or deleted. beside: those where it may have laid a version beside. */
struct molt_torn {
    struct molt_pathset paths, beside;
};

/* All pointers in the result point into the four manifests and the policy, which must outlive it. prev is the
 * base in the first pass. Fails only for manifests out of order (MOLT_E_INTERNAL). */
int molt_plan_pass(const struct molt_manifest *base, const struct molt_manifest *prev,
                   const struct molt_manifest *active, const struct molt_manifest *upgrade,
                   const struct molt_policy *policy, enum molt_on_conflict on_conflict,
                   struct molt_plan **ret, struct molt_error **err);
/* The same after the policy changed: prev_policy decided in the pass before, which prev stands for. */
int molt_plan_pass_anew(const struct molt_manifest *base, const struct molt_manifest *prev,
                        const struct molt_manifest *active, const struct molt_manifest *upgrade,
                        const struct molt_policy *prev_policy, const struct molt_policy *policy,
                        enum molt_on_conflict on_conflict, const struct molt_torn *torn, struct molt_plan **ret, struct molt_error **err);
/* What the plan would do: actions by kind, and how much content of the active it wants at most (of large files only the
 * differences will come). */
struct molt_plan_counts {
    size_t by_act[MOLT_N_ACTS];
    uint64_t bytes;
};
void molt_plan_count(const struct molt_plan *p, struct molt_plan_counts *ret);
void molt_plan_free(struct molt_plan *p);
static inline void molt__cleanup_plan(struct molt_plan **p)
{
    molt_plan_free(*p);
}
#define CLEANUP_PLAN __attribute__((cleanup(molt__cleanup_plan)))

/* Paths whose content hash the plan wants, by side; those already known are not listed. */
struct molt_need_hash {
    const char **base, **active, **upgrade;
    size_t n_base, n_active, n_upgrade;
};
void molt_plan_need_hash(const struct molt_manifest *base, const struct molt_manifest *active,
                         const struct molt_manifest *upgrade, const struct molt_policy *policy,
                         struct molt_need_hash *ret);
void molt_need_hash_free(struct molt_need_hash *h);

#endif
