/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the receiving side knows when both sides' changes are recorded: base, upgrade and active, not of all paths but of
 * those that either side touched, and of those that the plan has to see beside them. Everything else is the same on all
 * three. A pass is planned on a cut: what changed since the pass before, closed under everything that one path's outcome
 * can have to do with another's. So a pass costs what changed since the last one, and the merge what changed in all.
 */
#ifndef MOLT_MERGE_SPARSE_H
#define MOLT_MERGE_SPARSE_H

#include "merge/manifest.h"
#include "merge/pathset.h"
#include "merge/plan.h"
#include "merge/record.h"

struct molt_sparse_opts {
    int basefd, rootfd;         /* borrowed; as in molt_merge_opts */
    const char *const *exclude; /* borrowed */
    int64_t racy_from_ns;       /* of the base, as in molt_scan_opts */
};

/* Four manifests, as molt_plan_pass takes them; prev is the active as the last pass that was carried out saw it. */
struct molt_trees {
    struct molt_manifest *base, *prev, *active, *upgrade;
};

struct molt_sparse;
struct molt_sparse *molt_sparse_new(const struct molt_sparse_opts *o);
void molt_sparse_free(struct molt_sparse *s);

/* Why what is known does not suffice: names of a file with several, or of a changed inode, are not among the paths that
 * were recorded. NULL: it does. Then: molt_sparse_complete. */
const char *molt_sparse_lacks(const struct molt_sparse *s);

/* What the upgrade changed. A path that is missing here is looked at as soon as the active changes it, so that nothing is
 * decided wrongly; it is only not counted. */
int molt_sparse_add_upgrade(struct molt_sparse *s, const struct molt_look *v, size_t n, struct molt_error **err);
/* The active's recorded answer (molt_manifest_recorded_write): what changed there since the last one, or from the base on. */
int molt_sparse_take(struct molt_sparse *s, bool from_base, const struct molt_source *src, struct molt_error **err);

/* What the next pass has to look at. The manifests borrow their strings from s, until the next call of add, take or
 * complete. */
struct molt_cut {
    struct molt_trees trees;
    struct molt_pathset paths; /* in tree order */
};
int molt_sparse_cut(struct molt_sparse *s, struct molt_cut *ret, struct molt_error **err);
void molt_cut_clear(struct molt_cut *c);
#define CLEANUP_CUT __attribute__((cleanup(molt_cut_clear)))
/* Content hashes that were learned in the cut are kept. */
void molt_sparse_keep_hashes(struct molt_sparse *s, const struct molt_cut *c);
/* Counts and conflicts of the cut's plan take the place of what was known of its paths; the totals are in *ret. */
struct molt_counts {
    size_t active_only, upgrade_only, both_same;
};
void molt_sparse_count(struct molt_sparse *s, const struct molt_cut *c, const struct molt_plan *p, struct molt_counts *ret);
/* The pass was carried out. */
void molt_sparse_applied(struct molt_sparse *s, const struct molt_cut *c);

/* The whole trees, by a scan of base and upgrade (*ret: new manifests, the caller's; prev and active are distinct). s is of
 * no use afterwards. */
int molt_sparse_complete(struct molt_sparse *s, struct molt_trees *ret, struct molt_error **err);

/* The next cut has all paths in it: they may be decided in another way. */
void molt_sparse_reconsider(struct molt_sparse *s);
/* What is known, borrowed until the next call; a path that is in none of the trees did not change. */
void molt_sparse_trees(const struct molt_sparse *s, struct molt_trees *ret);
#endif
