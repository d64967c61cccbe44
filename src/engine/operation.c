/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An operation in memory: what its journal says, applied record by record, and the setter of its state. */
#include "engine/internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"

static const char *const state_texts[] = {
#define MOLT_X(name, text) text,
    MOLT_OP_STATES(MOLT_X)
#undef MOLT_X
};
#define N_STATES (sizeof(state_texts) / sizeof(state_texts[0]))

/* Legal changes, [from][to]. */
static const bool state_matrix[N_STATES][N_STATES] = {
    [MOLT_OP_NEW] = {[MOLT_OP_RUNNING] = true, [MOLT_OP_FAILED] = true, [MOLT_OP_ABORTED] = true},
    [MOLT_OP_RUNNING] = {[MOLT_OP_WAITING] = true, [MOLT_OP_PIVOTING] = true, [MOLT_OP_UNDOING] = true},
    [MOLT_OP_WAITING] = {[MOLT_OP_RUNNING] = true, [MOLT_OP_UNDOING] = true},
    [MOLT_OP_PIVOTING] = {[MOLT_OP_FORWARD] = true, [MOLT_OP_UNDOING] = true, [MOLT_OP_STUCK] = true},
    [MOLT_OP_FORWARD] = {[MOLT_OP_DONE] = true, [MOLT_OP_STUCK] = true},
    [MOLT_OP_UNDOING] = {[MOLT_OP_FAILED] = true, [MOLT_OP_ABORTED] = true, [MOLT_OP_STUCK] = true},
    [MOLT_OP_DONE] = {[MOLT_OP_COMMITTED] = true, [MOLT_OP_ROLLED_BACK] = true},
    /* recovery goes back to where it got stuck */
    [MOLT_OP_STUCK] = {[MOLT_OP_PIVOTING] = true, [MOLT_OP_FORWARD] = true, [MOLT_OP_UNDOING] = true},
};

const char *molt_op_state_text(enum molt_op_state s) { return (unsigned)s < N_STATES ? state_texts[s] : "?"; }

bool molt__op_state_from_text(const char *text, enum molt_op_state *ret)
{
    for (unsigned i = 0; i < N_STATES; i++) {
        if (molt_streq(text, state_texts[i])) {
            *ret = (enum molt_op_state)i;
            return true;
        }
    }
    return false;
}

bool molt_op_state_ended(enum molt_op_state s)
{
    return s == MOLT_OP_FAILED || s == MOLT_OP_ABORTED || s == MOLT_OP_DONE || s == MOLT_OP_COMMITTED || s == MOLT_OP_ROLLED_BACK;
}

/* ---- records ---- */

struct molt_json *molt__op_rec(const char *type, const char *step)
{
    struct molt_json *rec = molt_json_object();

    molt_json_set_string(rec, "type", type);
    if (step)
        molt_json_set_string(rec, "step", step);
    return rec;
}

static void set_mark(struct molt_op *op, const char *step, enum molt_mark_status status)
{
    for (size_t i = 0; i < op->n_marks; i++) {
        if (!strcmp(op->marks[i].step, step)) {
            op->marks[i].status = status;
            return;
        }
    }
    MOLT_GROW(op->marks, op->n_marks, op->cap_marks);
    op->marks[op->n_marks++] = (struct molt_mark){molt_xstrdup(step), status};
}

enum molt_mark_status molt__op_mark(const struct molt_op *op, const char *step)
{
    for (size_t i = 0; i < op->n_marks; i++) {
        if (!strcmp(op->marks[i].step, step))
            return op->marks[i].status;
    }
    return MOLT_MARK_NONE;
}

static void set_step(struct molt_op *op, const char *step)
{
    free(op->step);
    op->step = step ? molt_xstrdup(step) : NULL;
}

static void set_stamp(struct molt_json *obj, const char *key, int64_t at)
{
    char buf[MOLT_STAMP_MAX];

    molt_json_set_string(obj, key, molt_stamp(at, buf));
}

static void phase_begin(struct molt_op *op, const char *step, int64_t at)
{
    struct molt_json *p = molt_json_object();

    molt_json_set_string(p, "name", step);
    set_stamp(p, "started", at);
    molt_json_set(p, "ended", molt_json_null());
    molt_json_append(op->phases, p);
}

static void phase_end(struct molt_op *op, const char *step, int64_t at)
{
    for (size_t i = molt_json_size(op->phases); i-- > 0;) {
        /* The array is ours; at() hands out const only because most arrays are not. */
        struct molt_json *p = (struct molt_json *)molt_json_at(op->phases, i);

        if (molt_streq(molt_json_get_string(p, "name"), step)) {
            if (!molt_json_get_string(p, "ended"))
                set_stamp(p, "ended", at);
            return;
        }
    }
}

static void apply_create(struct molt_op *op, const struct molt_json *rec, int64_t at)
{
    const char *s;

    free(op->kind);
    free(op->subject);
    free(op->subject_key);
    op->kind = molt_xstrdup((s = molt_json_get_string(rec, "kind")) ? s : "?");
    op->subject = molt_xstrdup((s = molt_json_get_string(rec, "subject")) ? s : "?");
    op->subject_key = molt_xstrdup((s = molt_json_get_string(rec, "subject_key")) ? s : "?");
    molt_json_free(op->params);
    op->params =
        molt_json_get(rec, "params") ? molt_json_copy(molt_json_get(rec, "params")) : molt_json_object();
    op->created_us = at;
    for (const struct molt_op_table *const *t = op->engine->cfg.tables; t && *t; t++) {
        if (!strcmp((*t)->kind, op->kind))
            op->table = *t;
    }
}

static void apply_state(struct molt_op *op, const struct molt_json *rec)
{
    enum molt_op_state to;

    if (!molt__op_state_from_text(molt_json_get_string(rec, "state"), &to))
        return;
    if (to == MOLT_OP_STUCK)
        op->stuck_from = op->state;
    op->state = to;
    if (molt_op_state_ended(to))
        set_step(op, NULL);
    if (to == MOLT_OP_DONE) { /* whatever held it up is over */
        molt_json_free(op->failure);
        op->failure = NULL;
    }
}

static void apply_fail(struct molt_op *op, const struct molt_json *rec, const char *step, int64_t at)
{
    struct molt_json *f = molt_json_object();

    if (step)
        phase_end(op, step, at);
    molt_json_set_string(f, "step", step);
    molt_json_set_string(f, "code", molt_json_get_string(rec, "code"));
    molt_json_set_string(f, "text", molt_json_get_string(rec, "text"));
    /* The first cause stays; what went wrong on the way back stands below it. */
    if (op->failure)
        molt_json_set(op->failure, "then", f);
    else
        op->failure = f;
}

static void apply_value(struct molt_json *to, const struct molt_json *rec)
{
    const char *key = molt_json_get_string(rec, "key");

    if (key)
        molt_json_set(to, key, molt_json_copy(molt_json_get(rec, "value")));
}

void molt__op_apply(struct molt_op *op, const struct molt_json *rec)
{
    const char *type = molt_json_get_string(rec, "type"), *step = molt_json_get_string(rec, "step");
    int64_t at = molt_json_get_int(rec, "at", 0);

    op->updated_us = at;
    if (molt_streq(type, "create")) {
        apply_create(op, rec, at);
    } else if (molt_streq(type, "state")) {
        apply_state(op, rec);
    } else if (molt_streq(type, "fact")) {
        apply_value(op->facts, rec);
    } else if (molt_streq(type, "note")) {
        apply_value(op->notes, rec);
    } else if (molt_streq(type, "fail")) {
        apply_fail(op, rec, step, at);
    } else if (step && molt_streq(type, "intent")) {
        set_mark(op, step, MOLT_MARK_INTENT);
        set_step(op, step);
        phase_begin(op, step, at);
    } else if (step && molt_streq(type, "done")) {
        set_mark(op, step, MOLT_MARK_DONE);
        phase_end(op, step, at);
    } else if (step && molt_streq(type, "undo")) {
        set_mark(op, step, MOLT_MARK_UNDOING);
        set_step(op, step);
        phase_end(op, step, at);
    } else if (step && molt_streq(type, "undone")) {
        set_mark(op, step, MOLT_MARK_UNDONE);
    }
    /* Records of a type added later ("recover" is one that only informs) change nothing here. */
}

int molt__op_record(struct molt_op *op, struct molt_json *rec, enum molt__durable durable, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *owned = rec;
    int64_t before = op->journal.seq;
    int r = molt__journal_append(&op->journal, owned, durable, err);

    if (op->journal.seq != before)
        molt__op_apply(op, owned);
    return r;
}

static int set_state(struct molt_op *op, enum molt_op_state to, enum molt__durable durable, struct molt_error **err)
{
    struct molt_json *rec;
    int r;

    if ((unsigned)to >= N_STATES || !state_matrix[op->state][to])
        return molt_error_set(err, MOLT_E_STATE, "operation %s: cannot go from %s to %s", op->id,
                              molt_op_state_text(op->state), molt_op_state_text(to));
    rec = molt__op_rec("state", NULL);
    molt_json_set_string(rec, "state", molt_op_state_text(to));
    molt_json_set_string(rec, "from", molt_op_state_text(op->state));
    r = molt__op_record(op, rec, durable, err);
    if (r == 0)
        molt__op_event(op, "state", molt_op_state_text(to), NULL, -1);
    return r;
}

int molt__op_set_state(struct molt_op *op, enum molt_op_state to, struct molt_error **err)
{
    return set_state(op, to, MOLT__NOW, err);
}

int molt__op_set_state_soon(struct molt_op *op, enum molt_op_state to, struct molt_error **err)
{
    return set_state(op, to, MOLT__SOON, err);
}

/* ---- life ---- */

static void op_log_write(void *ctx, enum molt_log_level level, const char *line)
{
    struct molt_op *op = ctx;
    struct molt_log *to = op->engine->cfg.log;

    if (to)
        molt_log(to, level, "[%s %s%s%s] %s", op->id, molt_op_state_text(op->state), op->step ? " " : "",
                 op->step ? op->step : "", line);
    if (level <= MOLT_LOG_INFO)
        molt__op_event(op, "log", molt_log_level_name(level), line, -1);
}

struct molt_op *molt__op_new(struct molt_engine *e, const char *id)
{
    struct molt_op *op = molt_xcalloc(1, sizeof(*op));
    enum molt_log_level max = e->cfg.log ? e->cfg.log->max : MOLT_LOG_ERROR;

    op->engine = e;
    op->id = molt_xstrdup(id);
    op->dir = molt_xasprintf("%s/%s", e->ops_dir, id);
    op->kind = molt_xstrdup("?");
    op->subject = molt_xstrdup("?");
    op->subject_key = molt_xstrdup("?");
    op->params = molt_json_object();
    op->facts = molt_json_object();
    op->notes = molt_json_object();
    op->phases = molt_json_array();
    op->state = MOLT_OP_NEW;
    op->lock_fd = -1;
    op->journal = (struct molt_journal)MOLT_JOURNAL_CLOSED;
    op->deadline_ms = INT64_MAX;
    op->log =
        (struct molt_log){.max = max > MOLT_LOG_INFO ? max : MOLT_LOG_INFO, .write = op_log_write, .ctx = op};
    return op;
}

void molt_op_close(struct molt_op *op)
{
    if (!op)
        return;
    molt__run_close(op);
    /* Created and never run: nothing was begun, so nothing may hold the domain. */
    if (op->state == MOLT_OP_NEW && op->journal.fd >= 0)
        molt__op_set_state(op, MOLT_OP_ABORTED, NULL);
    molt__journal_close(&op->journal);
    if (op->lock_fd >= 0)
        close(op->lock_fd);
    for (size_t i = 0; i < op->n_marks; i++)
        free(op->marks[i].step);
    free(op->marks);
    free(op->step);
    free(op->damage);
    molt_json_free(op->params);
    molt_json_free(op->facts);
    molt_json_free(op->notes);
    molt_json_free(op->phases);
    molt_json_free(op->failure);
    free(op->id);
    free(op->dir);
    free(op->kind);
    free(op->subject);
    free(op->subject_key);
    free(op);
}

char *molt__op_path(const struct molt_op *op, const char *name)
{
    return molt_xasprintf("%s/%s", op->dir, name);
}

void molt__op_event(struct molt_op *op, const char *kind, const char *name, const char *text, int percent)
{
    const struct molt_engine_config *cfg = &op->engine->cfg;
    struct molt_op_event ev = {
        .op_id = op->id,
        .kind = kind,
        .name = name,
        .text = text,
        .at_us = molt_now_us(),
        .percent = percent,
    };

    if (cfg->event)
        cfg->event(cfg->event_ctx, &ev);
}

/* ---- for steps ---- */

const char *molt_op_id(const struct molt_op *op) { return op->id; }
const char *molt_op_kind(const struct molt_op *op) { return op->kind; }
const char *molt_op_subject(const struct molt_op *op) { return op->subject; }
const char *molt_op_dir(const struct molt_op *op) { return op->dir; }
enum molt_op_state molt_op_state(const struct molt_op *op) { return op->state; }
const struct molt_json *molt_op_params(const struct molt_op *op) { return op->params; }
void *molt_op_priv(const struct molt_op *op) { return op->priv; }
void *molt_op_user(const struct molt_op *op) { return op->engine->cfg.user; }
struct molt_log *molt_op_log(const struct molt_op *op) { return (struct molt_log *)&op->log; }
const struct molt_json *molt_op_facts(const struct molt_op *op) { return op->facts; }
const struct molt_json *molt_op_notes(const struct molt_op *op) { return op->notes; }
struct molt_json *molt_op_phases(const struct molt_op *op) { return molt_json_copy(op->phases); }
const struct molt_json *molt_op_failure(const struct molt_op *op) { return op->failure; }
int64_t molt_op_deadline_ms(const struct molt_op *op) { return op->deadline_ms; }

static struct molt_json *value_rec(struct molt_op *op, const char *type, const char *key, struct molt_json *v)
{
    struct molt_json *rec = molt__op_rec(type, op->step ? op->step : "-");

    molt_json_set_string(rec, "key", key);
    molt_json_set(rec, "value", v ? v : molt_json_null());
    return rec;
}

int molt_op_put(struct molt_op *op, const char *key, struct molt_json *v, struct molt_error **err)
{
    int r = molt__op_record(op, value_rec(op, "fact", key, v), MOLT__NOW, err);

    if (r < 0)
        molt_error_prefix(err, "note %s", key);
    return r;
}

void molt_op_note(struct molt_op *op, const char *key, struct molt_json *v)
{
    CLEANUP_ERROR struct molt_error *err = NULL;

    if (molt__op_record(op, value_rec(op, "note", key, v), MOLT__NOTE, &err) < 0)
        molt_warn(&op->log, "%s is not noted: %s", key, molt_error_text(err));
}

int molt_op_wait_begin(struct molt_op *op, struct molt_error **err)
{
    op->wait_ms = molt_mono_ms();
    return molt__op_set_state(op, MOLT_OP_WAITING, err);
}

int molt_op_wait_end(struct molt_op *op, struct molt_error **err)
{
    int r = molt__op_set_state(op, MOLT_OP_RUNNING, err);

    if (op->deadline_ms != INT64_MAX)
        op->deadline_ms += molt_mono_ms() - op->wait_ms;
    return r;
}

void molt_op_progress(struct molt_op *op, int percent, const char *fmt, ...)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    va_list ap;

    va_start(ap, fmt);
    molt_strbuf_vaddf(&b, fmt, ap);
    va_end(ap);
    molt__op_event(op, "progress", op->step, molt_strbuf_str(&b), percent);
}

bool molt__op_abort_requested(const struct molt_op *op)
{
    CLEANUP_FREE char *path = molt__op_path(op, "abort");

    return access(path, F_OK) == 0;
}

bool molt_op_aborting(struct molt_op *op)
{
    /* Past the pivot there is no way back, and on the way back there is nothing left to abort. */
    return (op->state == MOLT_OP_NEW || op->state == MOLT_OP_RUNNING || op->state == MOLT_OP_WAITING) &&
           molt__op_abort_requested(op);
}
