/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_MERGE_SPARSE_INTERNAL_H
#define MOLT_MERGE_SPARSE_INTERNAL_H

#include "merge/sparse.h"

#define SPARSE_DEEP 1u /* in `flags` of a known path: so is all that lies below it */

struct molt_sparse {
    struct molt_sparse_opts o;
    struct molt_manifest *known; /* paths; `mode` is their molt_count_kind in the last plan, `flags` see above, `ino` the answer
                                    since which the active's entry may be racy */
    struct molt_trees t;         /* of the known paths; a path that is in none of them is nowhere */
    struct molt_manifest *linked; /* of the last answer: files with several names, and those without one that was told */
    struct molt_pathset pending; /* changed, or got known, since the last pass that was carried out */
    uint64_t answers; /* taken, and the one that is being taken */
    uint64_t proven;  /* what was racy in this answer, or before it, was fetched since, and not told again */
    struct molt_counts counts;
    const char *lacks;
    bool has_links;
    bool settled; /* what is pending is only to be reconsidered: the active's side of it was carried out */
};

/* Clears the racy flag of an entry of the active that is proven not to have changed since. Not when it was told: that
 * would take time for each path that ever changed, in every pass. */
void molt__sparse_settle(const struct molt_sparse *s, struct molt_entry *e);

#endif
