/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations: a const table of steps, run in order, journaled so that a crash at any record can be recovered.
 *
 * The journal (STATE_DIR/ops/<id>/journal) is append-only, one JSON object a line with "seq" and "crc"; it is fsynced
 * before each outside effect (INTENT) and after it (DONE). Facts that an undo needs (domids, file names) are journaled
 * by the step *before* it makes the effect. Undo and enter are idempotent: recovery may run them again.
 */
#ifndef MOLT_ENGINE_H
#define MOLT_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"

struct molt_op;

enum molt_step_class {
    MOLT_STEP_REVERSIBLE, /* before the pivot; undo takes it back */
    MOLT_STEP_PIVOT,      /* the point of no return; exactly one per table; probe tells which side owns the guest */
    MOLT_STEP_FORWARD,    /* after the pivot; never undone, recovery runs enter again */
};

enum molt_probe {
    MOLT_PROBE_NOT_DONE, /* the world shows no effect of the step */
    MOLT_PROBE_DONE,     /* the effect is there and complete */
    MOLT_PROBE_PARTIAL,  /* something is there: undo or enter again */
};

/* States of an operation. The one setter (operation.c) checks each change against a const matrix. */
#define MOLT_OP_STATES(X)                                                            \
    X(NEW, "new")                 /* created, no step begun */                       \
    X(RUNNING, "running")         /* reversible steps */                             \
    X(WAITING, "waiting")         /* a reversible step waits to be told to go on */  \
    X(PIVOTING, "pivoting")       /* INTENT of the pivot written */                  \
    X(FORWARD, "forward")         /* pivot DONE, finishing */                        \
    X(UNDOING, "undoing")         /* going back */                                   \
    X(FAILED, "failed")           /* undone completely; nothing of ours is left */   \
    X(ABORTED, "aborted")         /* as failed, on request */                        \
    X(DONE, "done")               /* finished; the old side is retained */           \
    X(COMMITTED, "committed")     /* retained things deleted */                      \
    X(ROLLED_BACK, "rolled-back") /* the old side brought back, the new one deleted */ \
    X(STUCK, "stuck")             /* an undo or forward step failed: op-recover */
enum molt_op_state {
#define MOLT_X(name, text) MOLT_OP_##name,
    MOLT_OP_STATES(MOLT_X)
#undef MOLT_X
};
const char *molt_op_state_text(enum molt_op_state s);
bool molt_op_state_ended(enum molt_op_state s); /* failed, aborted, done, committed, rolled-back */

struct molt_step {
    const char *name;  /* "snapshot"; stands in the journal */
    enum molt_step_class cls;
    int timeout_s;     /* limit for enter; molt_op_deadline_ms() tells the step, the runner checks after */
    int (*enter)(struct molt_op *op, struct molt_error **err);
    int (*undo)(struct molt_op *op, struct molt_error **err);                        /* REVERSIBLE only; may be NULL: no effect */
    int (*probe)(struct molt_op *op, enum molt_probe *ret, struct molt_error **err); /* may be NULL: PARTIAL when INTENT without DONE */
};

struct molt_op_table {
    const char *kind; /* "guest-upgrade" */
    const struct molt_step *steps;
    unsigned n_steps;
    /* Opens / closes what the steps share (connections); op's facts and params are readable. May be NULL. */
    int (*open)(struct molt_op *op, void **ret_priv, struct molt_error **err);
    void (*close)(struct molt_op *op, void *priv);
    /* Builds the report object when the operation ended; called with priv. May be NULL. Returns an owned value. */
    struct molt_json *(*report)(struct molt_op *op);
};

/* Progress for whoever watches. kind: "state", "step" (begun), "step-done", "undo", "progress", "log". */
struct molt_op_event {
    const char *op_id, *kind, *name, *text;
    int64_t at_us;
    int percent; /* -1: unknown */
};

struct molt_engine_config {
    const char *state_dir; /* "/var/lib/xenmolt" */
    struct molt_log *log;
    void (*event)(void *ctx, const struct molt_op_event *ev); /* may be NULL */
    void *event_ctx;
    const struct molt_op_table *const *tables; /* NULL-terminated: recovery finds the table by kind */
    void *user;                                /* handed to steps by molt_op_user() */
};
struct molt_engine;
/* Creates the state directory when missing. The config is copied (not what it points to). */
int molt_engine_open(const struct molt_engine_config *cfg, struct molt_engine **ret, struct molt_error **err);
void molt_engine_close(struct molt_engine *e);

/*
 * Creates an operation on `subject` (the domain's name; subject_key: what is locked, its UUID) and takes the lock that
 * keeps a second operation away (MOLT_E_BUSY, naming the other one and its state; an unfinished operation without a
 * living runner also counts, and the text says op-recover). params is copied into the journal's first record.
 * Ids are short, unique and sortable: "gu-20261122-014954-7f3a".
 */
int molt_op_create(struct molt_engine *e, const char *kind, const char *subject, const char *subject_key,
                   const struct molt_json *params, struct molt_op **ret, struct molt_error **err);
/* Runs all steps. 0: DONE. On failure everything reversible is undone; returns the failing step's code (text says what
 * was undone), MOLT_E_ABORTED after an abort, MOLT_E_NEEDS_RECOVERY when an undo or a forward step failed. */
int molt_op_run(struct molt_op *op, struct molt_error **err);
/* Opens an unfinished operation whose runner is gone (lock free; else MOLT_E_BUSY) and brings it to an end: one
 * exhaustive switch over the state; INTENT without DONE is settled by the step's probe. Ended operations: success, no-op. */
int molt_op_recover(struct molt_engine *e, const char *id, struct molt_error **err);
/* Asks a running operation to stop before the pivot (its runner sees it within a second); with no living runner it is
 * recovered backwards here. Past the pivot: MOLT_E_STATE. wait_ms: how long to wait for the end (0: do not wait). */
int molt_op_abort(struct molt_engine *e, const char *id, int wait_ms, struct molt_error **err);
/* What becomes of a DONE operation: runs fn (which must be repeatable: a failure leaves it DONE), then changes the state
 * to `to`, COMMITTED or ROLLED_BACK. MOLT_E_STATE when it is not DONE. fn may be NULL. */
int molt_op_settle(struct molt_engine *e, const char *id, enum molt_op_state to,
                   int (*fn)(struct molt_op *op, struct molt_error **err), struct molt_error **err);
void molt_op_close(struct molt_op *op); /* frees; releases the lock */

/* For steps. */
const char *molt_op_id(const struct molt_op *op);
const char *molt_op_kind(const struct molt_op *op);
const char *molt_op_subject(const struct molt_op *op);
const char *molt_op_dir(const struct molt_op *op); /* STATE_DIR/ops/<id>, exists */
enum molt_op_state molt_op_state(const struct molt_op *op);
const struct molt_json *molt_op_params(const struct molt_op *op);
void *molt_op_priv(const struct molt_op *op); /* from table->open */
void *molt_op_user(const struct molt_op *op);
struct molt_log *molt_op_log(const struct molt_op *op);
/* Facts: a JSON object rebuilt from the journal. put is durable when it returns (v is owned by the callee). */
int molt_op_put(struct molt_op *op, const char *key, struct molt_json *v, struct molt_error **err);
const struct molt_json *molt_op_facts(const struct molt_op *op);
/* Notes a moment or a measured value in the journal without fsync (phases, pauses); shows up in molt_op_notes(). */
void molt_op_note(struct molt_op *op, const char *key, struct molt_json *v);
const struct molt_json *molt_op_notes(const struct molt_op *op); /* object key -> last value */
/* Begin/end times of steps: array of {name, started, ended} (RFC 3339), from the journal. Owned by the caller. */
struct molt_json *molt_op_phases(const struct molt_op *op);
/* Why the operation failed: {step, code (name as in MOLT_CODES), text, then (the same, of a failed undo)}, or NULL. */
const struct molt_json *molt_op_failure(const struct molt_op *op);
void molt_op_progress(struct molt_op *op, int percent, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The step in work begins or ends to wait for an admin: state WAITING, back to RUNNING; the time does not count against
 * the step's limit. Only from RUNNING and WAITING. */
int molt_op_wait_begin(struct molt_op *op, struct molt_error **err);
int molt_op_wait_end(struct molt_op *op, struct molt_error **err);
bool molt_op_aborting(struct molt_op *op); /* an abort was asked for; cheap enough to poll */
int64_t molt_op_deadline_ms(const struct molt_op *op); /* CLOCK_MONOTONIC ms by which enter should be over */

/* Looking at operations (also running ones of other processes; the journal is read without the lock). */
/* Array of {id, kind, subject, state, step, runner (pid or null), created, updated, error}. */
int molt_op_list(struct molt_engine *e, struct molt_json **ret, struct molt_error **err);
/* As one element of the list and params, facts, notes, phases, report (when ended). MOLT_E_NO_OPERATION. */
int molt_op_show(struct molt_engine *e, const char *id, struct molt_json **ret, struct molt_error **err);
/* The journal as an array of its records, checked. */
int molt_op_journal(struct molt_engine *e, const char *id, struct molt_json **ret, struct molt_error **err);

#endif
