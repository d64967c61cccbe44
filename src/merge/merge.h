/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The merge as a whole: the receiving side (in the clone) makes passes, the serving side (in the active)
 * answers three questions. The caller brings the channel between them: one call with request bytes and a
 * streamed reply.
 */
#ifndef MOLT_MERGE_MERGE_H
#define MOLT_MERGE_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/log.h"
#include "merge/apply.h"
#include "merge/plan.h"
#include "merge/policy.h"
#include "merge/record.h"
#include "merge/sparse.h"

enum molt_merge_question {
    /* What changed. Request: one byte of enum molt_merge_since, or empty for LAST. Reply: a block of the same that says
     * against what the answer is, with a reason where a recording was not used; then a delta, or for RECORDED what
     * molt_manifest_recorded_read reads. */
    MOLT_MERGE_Q_DELTA = 1,
    MOLT_MERGE_Q_HASHES, /* request: path list. Reply: a block of 8 bytes (little-endian) for each */
    MOLT_MERGE_Q_PACK,   /* request: path list. Reply: pack */
};
enum molt_merge_since {
    MOLT_SINCE_LAST,    /* the last answer */
    MOLT_SINCE_NOTHING, /* all there is */
    MOLT_SINCE_BASE,    /* asked only: the base disk, where that is recorded, else from nothing */
    MOLT_SINCE_RECORDED /* answered only: the last answer, or the base when that was asked for */
};
#define MOLT_MERGE_REQUEST_MAX (256u << 20)

/* call sends the request and gives a source from which the reply can be read; every reply ends by itself, and
 * is read to its end before the next call unless an error ends the merge. */
struct molt_merge_peer {
    int (*call)(void *ctx, enum molt_merge_question q, const void *req, size_t len, struct molt_source *ret,
                struct molt_error **err);
    void *ctx;
    /* Which of several trees the questions from here on are about (its prefix); may be NULL where there is one. */
    void (*select)(void *ctx, const char *prefix);
};

struct molt_merge_opts {
    const char *prefix; /* where the tree is mounted, without slashes at its ends: "" or NULL for the root, "var/log" */
    int rootfd,
        basefd; /* the clone's tree and the base's (molt_tree_open); borrowed, must outlive the merge */
    /* Directory below rootfd (a leading slash is ignored), made when missing (the parent must be there) and
     * emptied; never merged. It holds hard links to the upgrade's versions of what passes replace; remove it
     * when the merge is settled. */
    const char *stash;
    const struct molt_policy *policy; /* borrowed */
    enum molt_on_conflict on_conflict;
    const char *const *exclude; /* NULL-terminated, as in the scan; borrowed; give the same to the server */
    int64_t snapshot_ns; /* moment of the snapshot by the guest's clock, 0: not known; see racy_from_ns */
    /* What changed on the upgrade's side since the snapshot, in tree order (molt_sparse_add_upgrade). Then only what either
     * side changed is looked at. NULL: it is found by a scan. */
    const struct molt_look *changed;
    size_t n_changed;
    /* Told before (true) and after a scan of base and upgrade; may be NULL. */
    void (*scanning)(void *ctx, bool begin);
    void *ctx;
    struct molt_log *log;
};

struct molt_merge;
/* Looks at base and upgrade: to be called before any pass, when the clone is quiet. */
int molt_merge_new(const struct molt_merge_opts *opts, struct molt_merge **ret, struct molt_error **err);
void molt_merge_free(struct molt_merge *m);

struct molt_pass_stats {
    unsigned number; /* 1 for the first */
    size_t actions, vanished, conflicts_open;
    size_t looked_at; /* paths that the plan was made of */
    uint64_t bytes;
    int64_t ms, scan_ms; /* the whole pass; until the delta had arrived */
    bool recorded;       /* what changed came from a recording */
    bool whole;          /* planned on the whole trees, because one side's recording did not suffice */
    char reason[160];    /* why not; "" when there is none */
};
#define MOLT_PASS_DRY     1u /* plan and report only; the next pass sees the same differences again */
#define MOLT_PASS_NO_SYNC 2u /* without the syncfs at the end: the caller makes the tree durable later */
/* One pass. Open conflicts: MOLT_E_CONFLICT before anything is changed (the report lists them). After any other error (a
 * channel that was cut, a full disk) the next pass does the rest of it, whatever was done. */
int molt_merge_pass(struct molt_merge *m, const struct molt_merge_peer *peer, unsigned flags,
                    struct molt_pass_stats *ret, struct molt_error **err);
/* Another policy from the next pass on (borrowed, as the one before, until the merge is freed): what an admin decided
 * meanwhile. What the passes before carried out by the old one is put right. */
void molt_merge_set_policy(struct molt_merge *m, const struct molt_policy *policy);
/* Early refusal: MOLT_E_CONFLICT, with the names in the text, when the active's package set is not the
 * base's. After a pass it costs a question only where the databases' files changed at all. */
int molt_merge_check_packages(struct molt_merge *m, const struct molt_merge_peer *peer,
                              struct molt_error **err);
/* {active_only, upgrade_only, both_same, bytes, passes [..], conflicts [{path, class, decision, kind,
 * reason, open, package, conffile, base, active, upgrade}], settled [..]}; conflicts are those that a human should see,
 * settled those that a policy rule is made for, without the sides' attributes. See report.h. */
struct molt_json *molt_merge_report(const struct molt_merge *m);
/* A dry pass, and the plan that it made: as the report, and actions {kind: number}, bytes_to_move, and in each conflict of
 * two texts a unified "diff", else in "no_diff" why there is none. Open conflicts are no error here. */
int molt_merge_plan(struct molt_merge *m, const struct molt_merge_peer *peer, struct molt_pass_stats *ret_stats,
                    struct molt_json **ret, struct molt_error **err);

struct molt_merge_server;
/* rootfd and exclude borrowed. */
struct molt_merge_server *molt_merge_server_new(int rootfd, const char *const *exclude);
void molt_merge_server_free(struct molt_merge_server *s);
/* Answers from a recording of the tree, which must have begun before the base was taken; index of the tree among its
 * roots. Borrowed. r NULL: why says why there is none (copied). */
void molt_merge_server_record(struct molt_merge_server *s, struct molt_recorder *r, unsigned index, const char *why);
/* Answers one question into sink. */
int molt_merge_serve(struct molt_merge_server *s, enum molt_merge_question q, const void *req, size_t len,
                     const struct molt_sink *sink, struct molt_error **err);

#endif
