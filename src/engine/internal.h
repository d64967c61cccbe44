/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the engine's files share; nothing outside src/engine/ and its tests includes this. */
#ifndef MOLT_ENGINE_INTERNAL_H
#define MOLT_ENGINE_INTERNAL_H

#include <stddef.h>
#include <sys/types.h>

#include "base/strbuf.h"
#include "engine/engine.h"

/* ---- journal.c ---- */
struct molt_journal {
    int fd;      /* -1: not open for appending */
    int64_t seq; /* of the last record */
    off_t size;  /* end of the last good record */
    bool broken; /* a write could neither be completed nor taken back: nothing more is appended */
};
#define MOLT_JOURNAL_CLOSED                                                                                  \
    {                                                                                                        \
        .fd = -1                                                                                             \
    }

int molt__journal_create(const char *path, struct molt_journal *j, struct molt_error **err);
/* When a record reaches the disk. NOTE: some time. SOON: with the next one that is durable, before which nothing happens outside
 * (in the blackout each fsync counts). NOW: before the call returns. After the latter two comes the fault point
 * "journal:<type>:<name>". */
enum molt__durable { MOLT__NOTE, MOLT__SOON, MOLT__NOW };
/* Adds "seq", "at" and "crc" to rec and appends it. rec stays the caller's. */
int molt__journal_append(struct molt_journal *j, struct molt_json *rec, enum molt__durable durable,
                         struct molt_error **err);
/* Hands every record to fn in order. A last line without its newline is left out; any other damage is an
 * error, of which fn has seen the records before it. *ret_end (may be NULL): end of the good records;
 * *ret_seq their last seq. */
int molt__journal_read(const char *path, void (*fn)(void *ctx, const struct molt_json *rec), void *ctx,
                       off_t *ret_end, int64_t *ret_seq, struct molt_error **err);
/* Opens for appending behind `end`, cutting off a torn tail. Only for the holder of the operation's lock. */
int molt__journal_open(const char *path, off_t end, int64_t seq, struct molt_journal *j,
                       struct molt_error **err);
void molt__journal_close(struct molt_journal *j);
/* A place where a crash is worth trying: the fault points NAME and "point" (so that a sweep can go through
 * all). After each record but notes, after each enter ("entered:STEP") and each undo ("undid:STEP"). */
int molt__crash_point(const char *name, struct molt_error **err);

/* ---- lock.c: one file per subject under STATE_DIR/locks ---- */
/* 0 and *ret_fd, or MOLT_E_BUSY when another process (or another open of it in this one) holds it. */
int molt__lock_take(const char *state_dir, const char *key, const char *op_id, int *ret_fd,
                    struct molt_error **err);
/* The process that holds the lock for this operation, 0 when there is none. Does not take the lock. */
pid_t molt__lock_holder(const char *state_dir, const char *key, const char *op_id);

/* ---- operation.c ---- */
enum molt_mark_status {
    MOLT_MARK_NONE,
    MOLT_MARK_INTENT,
    MOLT_MARK_DONE,
    MOLT_MARK_UNDOING,
    MOLT_MARK_UNDONE
};
struct molt_mark {
    char *step;
    enum molt_mark_status status;
};

struct molt_engine {
    char *state_dir, *ops_dir;
    struct molt_engine_config cfg;
};

struct molt_op {
    /* constant after load */
    struct molt_engine *engine;
    const struct molt_op_table *table; /* NULL when this program does not know the kind */
    char *id, *dir, *kind, *subject, *subject_key;
    struct molt_json *params;
    int64_t created_us;
    /* what the journal says: changed by molt__op_apply() only */
    enum molt_op_state state;
    enum molt_op_state stuck_from; /* the state before STUCK */
    struct molt_mark *marks;
    size_t n_marks, cap_marks;
    char *step; /* in work now, or NULL */
    struct molt_json *facts, *notes, *phases, *failure;
    int64_t updated_us;
    bool damaged; /* the journal could be read in part only */
    char *damage;
    /* of the one who runs it */
    int lock_fd;
    struct molt_journal journal;
    struct molt_log log;
    int64_t deadline_ms;
    int64_t wait_ms; /* since when the step waits */
    void *priv;
    bool opened;
};

struct molt_op *molt__op_new(struct molt_engine *e, const char *id);
/* Finds the operation whose id is, or begins uniquely with, `id`. *ret_id malloc'd. */
int molt__op_resolve(struct molt_engine *e, const char *id, char **ret_id, struct molt_error **err);
/* Reads an operation for looking at it. lenient: a damaged journal gives an op with `damaged` set instead of
 * an error. */
int molt__op_load(struct molt_engine *e, const char *id, bool lenient, struct molt_op **ret,
                  struct molt_error **err);
/* Takes the lock first, then reads the journal and opens it for appending. */
int molt__op_load_locked(struct molt_engine *e, const char *id, struct molt_op **ret,
                         struct molt_error **err);
char *molt__op_path(const struct molt_op *op, const char *name);
/* The one way in which an operation changes: append to the journal, then apply to memory. Owns rec. */
int molt__op_record(struct molt_op *op, struct molt_json *rec, enum molt__durable durable, struct molt_error **err);
struct molt_json *molt__op_rec(const char *type, const char *step);
void molt__op_apply(struct molt_op *op, const struct molt_json *rec);
/* The one state setter. A change that the matrix does not allow is refused with MOLT_E_STATE. */
int molt__op_set_state(struct molt_op *op, enum molt_op_state to, struct molt_error **err);
/* The same, durable with the record that follows at once. */
int molt__op_set_state_soon(struct molt_op *op, enum molt_op_state to, struct molt_error **err);
bool molt__op_state_from_text(const char *text, enum molt_op_state *ret);
enum molt_mark_status molt__op_mark(const struct molt_op *op, const char *step);
void molt__op_event(struct molt_op *op, const char *kind, const char *name, const char *text, int percent);
bool molt__op_abort_requested(const struct molt_op *op);
/* Calls fn for every operation's id in order until it returns nonzero, and returns that. */
int molt__ops_each(struct molt_engine *e, int (*fn)(void *ctx, const char *id, struct molt_error **err),
                   void *ctx, struct molt_error **err);

/* ---- runner.c: the pieces of a run that recovery uses too ---- */
int molt__run_open(struct molt_op *op, struct molt_error **err);
void molt__run_close(struct molt_op *op);
/* Journals the failure `why` of the current step; NULL-safe. */
void molt__run_note_failure(struct molt_op *op, const struct molt_error *why);
/* UNDOING, all undos newest first, then FAILED or ABORTED and the report; STUCK when one fails. `undone`
 * names steps. */
int molt__run_back(struct molt_op *op, struct molt_strbuf *undone, struct molt_error **err);
/* State FORWARD: every forward step that is not done, then DONE and the report; STUCK when one fails. */
int molt__run_forward(struct molt_op *op, struct molt_error **err);
/* State PIVOTING: asks the pivot's probe which side owns the guest and sets *ret_forward; STUCK when it
 * cannot tell. */
int molt__run_settle_pivot(struct molt_op *op, bool *ret_forward, struct molt_error **err);
void molt__run_write_report(struct molt_op *op);
int molt__table_check(const struct molt_op_table *t, struct molt_error **err);

/* ---- recover.c ---- */
int molt__recover_locked(struct molt_op *op, struct molt_error **err);

#endif
