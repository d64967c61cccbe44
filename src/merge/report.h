/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What of a merge is told to people: conflicts with both sides' attributes, packages, differences. Nothing outside
 * src/merge includes this. */
#ifndef MOLT_MERGE_REPORT_H
#define MOLT_MERGE_REPORT_H

#include "merge/merge.h"

/* Bounds of a report: dom0 takes 8 MiB. What is beyond is counted in conflicts_omitted and settled_omitted. */
#define MOLT_REPORT_CONFLICTS 2000
#define MOLT_REPORT_SETTLED   5000
#define MOLT_REPORT_UNUSED    1000
#define MOLT_REPORT_BYTES     (2u << 20)   /* of each of these lists, about */
#define MOLT_DIFF_FILE_MAX    (256u << 10) /* longer texts are not compared */
#define MOLT_DIFF_MAX         (32u << 10)  /* bytes of one file's differences */
#define MOLT_DIFF_TOTAL       (1u << 20)   /* of all */
#define MOLT_DIFF_FILES       200u         /* files that are compared */

struct molt__view_conflict {
    struct molt_conflict c;
    bool overlap; /* texts that did not merge */
};
/* A look into a merge; its pointers are the merge's and last until the next pass. */
struct molt__view {
    int rootfd, basefd, stashfd;
    const struct molt_manifest *base, *latest, *upgrade; /* latest NULL: the active has told nothing yet */
    const struct molt_policy *policy;
    struct molt_plan_counts counts;
    struct molt__view_conflict *v; /* malloc'd */
    size_t n;
};
void molt__merge_view(const struct molt_merge *m, struct molt__view *ret);

/* Sets conflicts, settled and unused_decisions in o. */
void molt__report_conflicts(const struct molt_merge *m, struct molt_json *o);
/* Adds "diff" or "no_diff" to the elements of conflicts, which molt__report_conflicts made. */
int molt__report_diffs(const struct molt__view *w, const struct molt_merge_peer *peer, struct molt_json *conflicts,
                       struct molt_error **err);
/* Texts that the rule merge is to merge, and that no pass has merged yet: finds out which will overlap, and notes them as
 * such (a pass that merges them after all corrects it). The first MOLT_DIFF_FILES of up to MOLT_DIFF_FILE_MAX bytes. */
int molt__predict_overlaps(struct molt_merge *m, const struct molt__view *w, const struct molt_merge_peer *peer,
                           struct molt_error **err);
void molt__merge_note_overlap(struct molt_merge *m, const char *path, bool overlap);
/* The conflicts that a report lists, in its order; at most MOLT_REPORT_CONFLICTS. */
static inline bool molt__view_listed(const struct molt__view_conflict *c)
{
    return c->c.listed || c->overlap;
}
/* Any bytes as text in UTF-8 without control characters but newline and tab: others as \xNN. malloc'd */
char *molt__printable(const char *s, size_t len);

#endif
