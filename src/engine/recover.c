/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bringing an operation to an end whose runner is gone; the request to abort; the commit. */
#include "engine/internal.h"

#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"

static int back(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf undone = MOLT_STRBUF_INIT;
    int r;

    if (!op->failure) {
        CLEANUP_ERROR struct molt_error *why = NULL;

        if (molt__op_abort_requested(op))
            molt_error_set(&why, MOLT_E_ABORTED, "aborted on request");
        else
            molt_error_set(&why, MOLT_E_INTERNAL, "its runner ended in the middle");
        molt__run_note_failure(op, why);
    }
    r = molt__run_back(op, &undone, err);
    if (r == 0)
        molt_info(&op->log, "recovered: undone: %s", undone.len ? undone.s : "nothing");
    return r;
}

static int forward(struct molt_op *op, struct molt_error **err)
{
    int r = 0;

    if (op->state != MOLT_OP_FORWARD)
        r = molt__op_set_state(op, MOLT_OP_FORWARD, err);
    if (r == 0)
        r = molt__run_forward(op, err);
    if (r == 0)
        molt_info(&op->log, "recovered: finished");
    return r;
}

static int settle(struct molt_op *op, struct molt_error **err)
{
    bool go_forward = false;
    int r = 0;

    if (op->state != MOLT_OP_PIVOTING)
        r = molt__op_set_state(op, MOLT_OP_PIVOTING, err);
    if (r == 0)
        r = molt__run_settle_pivot(op, &go_forward, err);
    if (r < 0)
        return r;
    return go_forward ? forward(op, err) : back(op, err);
}

/* The runner may have died between the last state and the report. */
static int ended(struct molt_op *op)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *path = molt__op_path(op, "report.json");

    if (molt_exists(path) || !op->table || !op->table->report)
        return 0;
    if (molt__run_open(op, &err) == 0)
        molt__run_write_report(op);
    else
        molt_warn(&op->log, "no report: %s", molt_error_text(err));
    return 0;
}

int molt__recover_locked(struct molt_op *op, struct molt_error **err)
{
    /* STUCK goes on where it got stuck; its own line below is for a journal that cannot be. */
    enum molt_op_state phase = op->state == MOLT_OP_STUCK ? op->stuck_from : op->state;
    int r;

    if (molt_op_state_ended(op->state))
        return ended(op);
    r = molt__run_open(op, err);
    if (r == 0)
        r = molt__op_record(op, molt__op_rec("recover", NULL), MOLT__NOW, err);
    if (r < 0)
        return r;
    switch (phase) {
    case MOLT_OP_NEW: /* no step begun: nothing is there to undo */
        return molt__op_set_state(op, molt__op_abort_requested(op) ? MOLT_OP_ABORTED : MOLT_OP_FAILED, err);
    case MOLT_OP_WAITING: /* who waited is gone, and with it what had been brought so far */
    case MOLT_OP_RUNNING: /* the guest runs as before; an upgrade cut in half is not taken up again */
        return back(op, err);
    case MOLT_OP_PIVOTING: /* the world knows which side owns the guest */ return settle(op, err);
    case MOLT_OP_FORWARD: /* the clone is the guest now: there is only one way */ return forward(op, err);
    case MOLT_OP_UNDOING: return back(op, err);
    case MOLT_OP_STUCK:
        return molt_error_set(err, MOLT_E_PROTOCOL,
                              "operation %s: stuck, and the journal does not say in what", op->id);
    case MOLT_OP_FAILED:
    case MOLT_OP_ABORTED:
    case MOLT_OP_DONE:
    case MOLT_OP_COMMITTED:
    case MOLT_OP_ROLLED_BACK: return 0;
    }
    return molt_error_set(err, MOLT_E_INTERNAL, "operation %s: unknown state %d", op->id, (int)phase);
}

int molt_op_recover(struct molt_engine *e, const char *id, struct molt_error **err)
{
    struct molt_op *op = NULL;
    int r = molt__op_load_locked(e, id, &op, err);

    if (r < 0)
        return r;
    r = molt__recover_locked(op, err);
    molt_op_close(op);
    return r;
}

/* ---- abort ---- */

static int not_abortable(const struct molt_op *op, struct molt_error **err)
{
    return molt_error_set(err, MOLT_E_STATE, "operation %s is %s%s: it cannot be aborted%s", op->id,
                          molt_op_state_text(op->state),
                          op->state == MOLT_OP_FORWARD ? ", past the point of no return" : "",
                          op->state == MOLT_OP_DONE ? "; see op-rollback" : "");
}

static bool abortable(const struct molt_op *op)
{
    if (op->state == MOLT_OP_STUCK)
        return op->stuck_from == MOLT_OP_UNDOING;
    return op->state == MOLT_OP_NEW || op->state == MOLT_OP_RUNNING || op->state == MOLT_OP_WAITING ||
           op->state == MOLT_OP_UNDOING;
}

static int wait_for_end(struct molt_engine *e, const char *id, int wait_ms, struct molt_error **err)
{
    int64_t until = molt_mono_ms() + wait_ms;
    int r = 0;

    for (;;) {
        struct molt_op *op = NULL;
        enum molt_op_state state;

        r = molt__op_load(e, id, false, &op, err);
        if (r < 0)
            return r;
        state = op->state;
        if (state == MOLT_OP_FORWARD ||
            (molt_op_state_ended(state) && state != MOLT_OP_FAILED && state != MOLT_OP_ABORTED))
            r = not_abortable(op, err);
        else if (state == MOLT_OP_STUCK)
            r = molt_error_set(err, MOLT_E_NEEDS_RECOVERY, "operation %s: its undo is incomplete", op->id);
        molt_op_close(op);
        if (r < 0 || molt_op_state_ended(state))
            return r;
        if (molt_mono_ms() >= until)
            return molt_error_set(err, MOLT_E_TIMEOUT,
                                  "operation %s: abort asked for, but it has not ended yet", id);
        molt_sleep_ms(100);
    }
}

static int abort_dead(struct molt_engine *e, const char *id, struct molt_error **err)
{
    struct molt_op *op = NULL;
    int r = molt__op_load_locked(e, id, &op, err);

    if (r < 0)
        return r;
    /* It may have moved on before we had the lock. */
    if (op->state == MOLT_OP_FAILED || op->state == MOLT_OP_ABORTED)
        r = 0;
    else
        r = abortable(op) ? molt__recover_locked(op, err) : not_abortable(op, err);
    molt_op_close(op);
    return r;
}

int molt_op_abort(struct molt_engine *e, const char *id, int wait_ms, struct molt_error **err)
{
    CLEANUP_FREE char *full = NULL, *flag = NULL;
    struct molt_op *op = NULL;
    bool alive;
    int r = molt__op_load(e, id, false, &op, err);

    if (r < 0)
        return r;
    full = molt_xstrdup(op->id);
    flag = molt__op_path(op, "abort");
    alive = molt__lock_holder(e->state_dir, op->subject_key, op->id) > 0;
    r = abortable(op) ? 0 : not_abortable(op, err);
    molt_op_close(op);
    if (r == 0)
        r = molt_write_file_atomic(flag, "", 0, 0600, err);
    if (r < 0)
        return r;
    if (!alive) {
        r = abort_dead(e, full, err);
        if (r != MOLT_E_BUSY)
            return r;
        molt_error_clear(err); /* somebody took it up just now: wait for that one */
    }
    return wait_ms > 0 ? wait_for_end(e, full, wait_ms, err) : 0;
}

int molt_op_settle(struct molt_engine *e, const char *id, enum molt_op_state to,
                   int (*fn)(struct molt_op *op, struct molt_error **err), struct molt_error **err)
{
    struct molt_op *op = NULL;
    int r = molt__op_load_locked(e, id, &op, err);

    if (r < 0)
        return r;
    if (op->state != MOLT_OP_DONE)
        r = molt_error_set(err, MOLT_E_STATE, "operation %s is %s; only a done one can be %s", op->id,
                           molt_op_state_text(op->state), to == MOLT_OP_COMMITTED ? "committed" : "rolled back");
    if (r == 0 && fn)
        r = molt__run_open(op, err); /* fn finds molt_op_priv() as the steps do */
    if (r == 0 && fn)
        r = fn(op, err);
    if (r == 0)
        r = molt__op_set_state(op, to, err);
    molt_op_close(op);
    return r;
}
