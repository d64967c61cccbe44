/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Running an operation: forth through its steps, and back. */
#include "engine/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"

int molt__table_check(const struct molt_op_table *t, struct molt_error **err)
{
    enum molt_step_class cls = MOLT_STEP_REVERSIBLE;
    unsigned pivots = 0;

    for (unsigned i = 0; i < t->n_steps; i++) {
        const struct molt_step *s = &t->steps[i];

        pivots += s->cls == MOLT_STEP_PIVOT;
        if (!s->name || !s->enter || s->cls < cls || (s->undo && s->cls != MOLT_STEP_REVERSIBLE) ||
            (s->cls == MOLT_STEP_PIVOT && !s->probe))
            return molt_error_set(err, MOLT_E_INTERNAL, "step table of %s: step %u is malformed", t->kind, i);
        cls = s->cls;
    }
    if (pivots != 1)
        return molt_error_set(err, MOLT_E_INTERNAL, "step table of %s: %u pivots", t->kind, pivots);
    return 0;
}

int molt__run_open(struct molt_op *op, struct molt_error **err)
{
    int r;

    if (!op->table)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "operation %s: this program does not know the kind %s",
                              op->id, op->kind);
    r = molt__table_check(op->table, err);
    if (r < 0 || op->opened)
        return r;
    if (op->table->open) {
        r = op->table->open(op, &op->priv, err);
        if (r < 0)
            return molt_error_prefix(err, "prepare %s", op->kind);
    }
    op->opened = true;
    return 0;
}

void molt__run_close(struct molt_op *op)
{
    if (op->opened && op->table->close)
        op->table->close(op, op->priv);
    op->opened = false;
    op->priv = NULL;
}

static int record_step(struct molt_op *op, const char *type, const struct molt_step *s,
                       struct molt_error **err)
{
    return molt__op_record(op, molt__op_rec(type, s->name), MOLT__NOW, err);
}

/* What is next is another record: the INTENT of the next step, or a state. */
static int record_done(struct molt_op *op, const struct molt_step *s, struct molt_error **err)
{
    return molt__op_record(op, molt__op_rec("done", s->name), MOLT__SOON, err);
}

void molt__run_note_failure(struct molt_op *op, const struct molt_error *why)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_json *rec = molt__op_rec("fail", op->step);

    molt_json_set_string(rec, "code", molt_code_name(molt_error_code(why)));
    molt_json_set_string(rec, "text", molt_error_text(why));
    if (molt__op_record(op, rec, MOLT__NOW, &err) < 0)
        molt_warn(&op->log, "the failure (%s) is not journaled: %s", molt_error_text(why),
                  molt_error_text(err));
}

void molt__run_write_report(struct molt_op *op)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_JSON struct molt_json *report = NULL;
    CLEANUP_FREE char *path = molt__op_path(op, "report.json");
    CLEANUP_STRBUF struct molt_strbuf text = MOLT_STRBUF_INIT;
    CLEANUP_FREE char *json = NULL;

    if (!op->table || !op->table->report)
        return;
    report = op->table->report(op);
    if (!report)
        return;
    json = molt_json_print(report, true);
    molt_strbuf_addf(&text, "%s\n", json);
    if (molt_write_file_atomic(path, text.s, text.len, 0600, &err) < 0)
        molt_warn(&op->log, "the report is not stored: %s", molt_error_text(err));
}

/* ---- forth ---- */

static int check_abort(struct molt_op *op, struct molt_error **err)
{
    if (!molt_op_aborting(op))
        return 0;
    return molt_error_set(err, MOLT_E_ABORTED, "aborted on request");
}

static int after_effect(const char *what, const struct molt_step *s, struct molt_error **err)
{
    char point[160];

    snprintf(point, sizeof(point), "%s:%s", what, s->name);
    return molt__crash_point(point, err);
}

/* err is never NULL in here. A step that fails without a word still fails. */
static int step_failed(const struct molt_step *s, int r, struct molt_error **err)
{
    if (!*err)
        molt_error_set(err, r, "%s", molt_code_text(r));
    return molt_error_prefix(err, "%s", s->name);
}

static enum molt_probe ask_probe(struct molt_op *op, const struct molt_step *s)
{
    CLEANUP_ERROR struct molt_error *ignored = NULL;
    enum molt_probe probe = MOLT_PROBE_PARTIAL;

    /* A probe that fails says nothing; undo and enter bear being run again. */
    if (s->probe && s->probe(op, &probe, &ignored) < 0)
        probe = MOLT_PROBE_PARTIAL;
    return probe;
}

/* INTENT, enter, DONE. `late`: a success after the limit is a failure too. */
static int enter_step(struct molt_op *op, const struct molt_step *s, bool late, struct molt_error **err)
{
    int64_t now;
    int r = record_step(op, "intent", s, err);

    if (r < 0)
        return r;
    molt__op_event(op, "step", s->name, NULL, -1);
    op->deadline_ms = s->timeout_s > 0 ? molt_mono_ms() + (int64_t)s->timeout_s * 1000 : INT64_MAX;
    r = s->enter(op, err);
    if (r == 0)
        r = after_effect("entered", s, err);
    now = molt_mono_ms();
    if (r == 0 && now > op->deadline_ms) {
        if (late)
            r = molt_error_set(err, MOLT_E_TIMEOUT, "took longer than its limit of %d s", s->timeout_s);
        else
            molt_warn(&op->log, "took longer than its limit of %d s", s->timeout_s);
    }
    op->deadline_ms = INT64_MAX;
    if (r < 0)
        return step_failed(s, r, err);
    r = record_done(op, s, err);
    if (r == 0)
        molt__op_event(op, "step-done", s->name, NULL, -1);
    return r;
}

static int run_reversible(struct molt_op *op, struct molt_error **err)
{
    int r = 0;

    for (unsigned i = 0; i < op->table->n_steps && r == 0; i++) {
        if (op->table->steps[i].cls != MOLT_STEP_REVERSIBLE)
            break;
        r = check_abort(op, err);
        if (r == 0)
            r = enter_step(op, &op->table->steps[i], true, err);
    }
    return r < 0 ? r : check_abort(op, err);
}

static const struct molt_step *pivot_step(const struct molt_op *op)
{
    for (unsigned i = 0; i < op->table->n_steps; i++) {
        if (op->table->steps[i].cls == MOLT_STEP_PIVOT)
            return &op->table->steps[i];
    }
    return NULL; /* molt__table_check() saw one */
}

static int stuck(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *local = NULL;

    molt__run_note_failure(op, *err);
    if (op->state != MOLT_OP_STUCK && molt__op_set_state(op, MOLT_OP_STUCK, &local) < 0)
        molt_err(&op->log, "state not journaled: %s", molt_error_text(local));
    return molt_error_set(err, MOLT_E_NEEDS_RECOVERY, "%s; when the cause is gone: xenmolt op-recover %s",
                          molt_error_text(*err), op->id);
}

int molt__run_settle_pivot(struct molt_op *op, bool *ret_forward, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *local = NULL;
    const struct molt_step *s = pivot_step(op);
    enum molt_probe probe = MOLT_PROBE_PARTIAL;
    int r = 0;

    if (molt__op_mark(op, s->name) == MOLT_MARK_DONE)
        probe = MOLT_PROBE_DONE;
    else
        r = s->probe(op, &probe, &local);
    if (r < 0 && !local)
        molt_error_set(&local, r, "its probe failed");
    if (r == 0 && probe == MOLT_PROBE_PARTIAL)
        r = molt_error_set(&local, MOLT_E_NEEDS_RECOVERY, "cannot tell which side owns the guest");
    if (r == 0 && probe == MOLT_PROBE_DONE && molt__op_mark(op, s->name) != MOLT_MARK_DONE)
        r = record_step(op, "done", s, &local);
    if (r == 0) {
        *ret_forward = probe == MOLT_PROBE_DONE;
        return 0;
    }
    molt_error_prefix(&local, "%s", s->name);
    r = stuck(op, &local);
    molt_error_move(err, MOLT_STEAL_PTR(local));
    return r;
}

int molt__run_forward(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *local = NULL;
    int r = 0;

    for (unsigned i = 0; i < op->table->n_steps && r == 0; i++) {
        const struct molt_step *s = &op->table->steps[i];
        enum molt_mark_status mark = molt__op_mark(op, s->name);

        if (s->cls != MOLT_STEP_FORWARD || mark == MOLT_MARK_DONE)
            continue;
        if (mark == MOLT_MARK_INTENT && ask_probe(op, s) == MOLT_PROBE_DONE)
            r = record_step(op, "done", s, &local);
        else
            r = enter_step(op, s, false, &local);
    }
    if (r == 0)
        r = molt__op_set_state(op, MOLT_OP_DONE, &local);
    if (r < 0) {
        r = stuck(op, &local);
        molt_error_move(err, MOLT_STEAL_PTR(local));
        return r;
    }
    molt__run_write_report(op);
    return 0;
}

/* ---- back ---- */

static int undo_step(struct molt_op *op, const struct molt_step *s, struct molt_strbuf *undone,
                     struct molt_error **err)
{
    enum molt_mark_status mark = molt__op_mark(op, s->name);
    enum molt_probe probe = MOLT_PROBE_PARTIAL;
    int r;

    if (mark == MOLT_MARK_NONE || mark == MOLT_MARK_UNDONE)
        return 0;
    if (mark != MOLT_MARK_DONE)
        probe = ask_probe(op, s);
    r = record_step(op, "undo", s, err);
    if (r == 0 && s->undo && probe != MOLT_PROBE_NOT_DONE) {
        molt__op_event(op, "undo", s->name, NULL, -1);
        r = s->undo(op, err);
        if (r == 0)
            r = after_effect("undid", s, err);
        if (r < 0 && !*err)
            molt_error_set(err, r, "%s", molt_code_text(r));
        if (r == 0)
            molt_strbuf_addf(undone, "%s%s", undone->len ? ", " : "", s->name);
    }
    if (r == 0)
        r = record_step(op, "undone", s, err);
    return r < 0 ? molt_error_prefix(err, "undo of %s", s->name) : 0;
}

int molt__run_back(struct molt_op *op, struct molt_strbuf *undone, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *local = NULL;
    bool aborted =
        molt__op_abort_requested(op) || molt_streq(molt_json_get_string(op->failure, "code"), "ABORTED");
    int r = 0;

    if (op->state != MOLT_OP_UNDOING)
        r = molt__op_set_state(op, MOLT_OP_UNDOING, &local);
    for (unsigned i = op->table->n_steps; i-- > 0 && r == 0;) {
        /* The way back needs its order: nothing below a failed undo is touched. */
        if (op->table->steps[i].cls == MOLT_STEP_REVERSIBLE)
            r = undo_step(op, &op->table->steps[i], undone, &local);
    }
    if (r == 0)
        r = molt__op_set_state(op, aborted ? MOLT_OP_ABORTED : MOLT_OP_FAILED, &local);
    if (r < 0) {
        r = stuck(op, &local);
        molt_error_move(err, MOLT_STEAL_PTR(local));
        return r;
    }
    molt__run_write_report(op);
    return 0;
}

/* After a failure before the pivot: back, and the cause with what became of it as the error. */
static int fail_back(struct molt_op *op, struct molt_error *why, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf undone = MOLT_STRBUF_INIT;
    CLEANUP_ERROR struct molt_error *local = NULL, *cause = why;
    int code = molt__op_abort_requested(op) ? MOLT_E_ABORTED : molt_error_code(cause);
    int r;

    molt__run_note_failure(op, cause);
    r = molt__run_back(op, &undone, &local);
    if (r < 0)
        return molt_error_set(err, r, "%s; then %s", molt_error_text(cause), molt_error_text(local));
    return molt_error_set(err, code, "%s; undone: %s; the guest runs as before", molt_error_text(cause),
                          undone.len ? undone.s : "nothing was to be undone");
}

/* The whole of an operation's run, with the step table open. */
static int run_pivot(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *why = NULL;
    const struct molt_step *s = pivot_step(op);
    bool forward = true;
    int r = molt__op_set_state_soon(op, MOLT_OP_PIVOTING, &why);

    if (r < 0 && op->state == MOLT_OP_RUNNING)
        return fail_back(op, MOLT_STEAL_PTR(why), err);
    if (r == 0)
        r = enter_step(op, s, false, &why);
    if (r < 0) {
        /* Whatever enter says, the world decides. */
        r = molt__run_settle_pivot(op, &forward, err);
        if (r < 0)
            return molt_error_prefix(err, "%s", molt_error_text(why));
        if (!forward)
            return fail_back(op, MOLT_STEAL_PTR(why), err);
        molt_warn(&op->log, "the pivot took place in spite of: %s", molt_error_text(why));
    }
    r = molt__op_set_state_soon(op, MOLT_OP_FORWARD, err);
    if (r < 0 && op->state != MOLT_OP_FORWARD)
        return stuck(op, err);
    molt_error_clear(err);
    return molt__run_forward(op, err);
}

int molt_op_run(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *why = NULL, *result = NULL;
    int r;

    if (op->lock_fd < 0 || op->state != MOLT_OP_NEW)
        return molt_error_set(err, MOLT_E_STATE, "operation %s is %s, not new", op->id,
                              molt_op_state_text(op->state));
    r = molt__op_set_state(op, MOLT_OP_RUNNING, &why);
    if (op->state != MOLT_OP_RUNNING) {
        molt_error_move(err, MOLT_STEAL_PTR(why));
        return r;
    }
    if (r == 0)
        r = molt__run_open(op, &why);
    if (r == 0)
        r = run_reversible(op, &why);
    if (r == 0)
        r = run_pivot(op, &result);
    else
        r = fail_back(op, MOLT_STEAL_PTR(why), &result);
    molt_error_move(err, MOLT_STEAL_PTR(result));
    return r;
}
