/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory copied while the workload runs (criu-pre-dump: "iterative migration"): round 1 takes all pages, each next one those written
 * since, by the kernel's soft-dirty bits; the dump in the freeze then takes only the last. Each round has a directory of its own below
 * that of the images, and names the one before it by a link "parent", on both sides alike.
 */
#ifndef MOLT_PROCMIG_PREDUMP_H
#define MOLT_PROCMIG_PREDUMP_H

#include "procmig/dump.h"

#define MOLT_PREDUMP_PARENT "parent" /* CRIU's name for the link to the round before */
/* Stop rules: molt_predump_stop. */
#define MOLT_PREDUMP_MAX   5   /* rounds */
#define MOLT_ROUNDS_MAX    (MOLT_PREDUMP_MAX + 2) /* with the dumps of trials (rehearse.h), which count as such */
#define MOLT_PREDUMP_FEW   1024 /* pages: a dump's fixed part, in which the workload stands still, takes longer than these */
#define MOLT_PREDUMP_SOME  8192 /* pages; no more than that, and memory ... */
#define MOLT_PREDUMP_SHARE 25   /* ... less than so many per cent of the standstill: another round would be one more standstill for nothing */
#define MOLT_PREDUMP_GAIN  75  /* per cent of the round before: more than that, and another round gains nothing */

/* Whether kernel and CRIU track memory. MOLT_E_UNSUPPORTED: they do not, with the reason. */
int molt_predump_possible(const char *toolbox, struct molt_error **err);
/* The directory of a round (1 and up) below the images' directory; malloc'd. */
char *molt_predump_dir(const char *images, unsigned round);
/* Where a round's images come from elsewhere: its directory, with the link to the one before (none for the first). MOLT_E_PROTOCOL: no
 * such round. */
int molt_predump_place(const char *images, unsigned round, struct molt_error **err);
/* The link of the last dump's images to the last of `rounds` rounds; 0: none. */
int molt_predump_link(const char *images, unsigned rounds, struct molt_error **err);
/* One round; the tree stands still for a moment, and runs again when this returns, also on failure. opts->dir: the images' directory. */
int molt_predump(const struct molt_workload *w, const struct molt_dump_opts *opts, unsigned round, struct molt_dump_stats *ret_stats, struct molt_error **err);
/* Frees the memory of a round's pages that have been sent: the rounds after it need only the list of them. */
void molt_predump_forget_pages(const char *images, unsigned round);
struct molt_round {
    uint64_t pages;                /* what it wrote */
    uint64_t frozen_us, memory_us; /* how long the workload stood still for it, and how much of that went into memory */
};
/* Which rule says that no further round is worth it (NULL: none): "few-pages" (MOLT_PREDUMP_FEW), "small-share" (MOLT_PREDUMP_SOME, MOLT_PREDUMP_SHARE), "no-gain"
 * (MOLT_PREDUMP_GAIN), "rounds" (MOLT_PREDUMP_MAX). v[i] is round i + 1, n > 0. */
const char *molt_predump_stop(const struct molt_round *v, unsigned n);

#endif
