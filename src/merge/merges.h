/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The merges of all file systems of a guest as one: each is a tree of its own, the passes and the report are common. */
#ifndef MOLT_MERGE_MERGES_H
#define MOLT_MERGE_MERGES_H

#include "merge/merge.h"

struct molt_merges;
/* One for each of v, which have distinct prefixes; the one with the root's comes first. */
int molt_merges_new(const struct molt_merge_opts *v, size_t n, struct molt_merges **ret, struct molt_error **err);
void molt_merges_free(struct molt_merges *s);

/* As the functions of merge.h of the same names, over all trees; peer->select is called before each. Numbers are sums. */
int molt_merges_pass(struct molt_merges *s, const struct molt_merge_peer *peer, unsigned flags, struct molt_pass_stats *ret,
                     struct molt_error **err);
int molt_merges_plan(struct molt_merges *s, const struct molt_merge_peer *peer, struct molt_pass_stats *ret_stats,
                     struct molt_json **ret, struct molt_error **err);
int molt_merges_check_packages(struct molt_merges *s, const struct molt_merge_peer *peer, struct molt_error **err);
void molt_merges_set_policy(struct molt_merges *s, const struct molt_policy *policy);
/* Also "trees": the prefixes as paths. */
struct molt_json *molt_merges_report(const struct molt_merges *s);

#endif
