/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guest-upgrade: conflicts as an admin sees them, and the wait for his word between two rounds of the merge. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "engine/control.h"
#include "proto/resolve.h"
#include "upgrade.h"

#define TICK_MS      500   /* how soon an abort, or an agent that is gone, is noticed */
#define TEMPLATES    100   /* files of conflicts, at most */
#define UNUSED_SHOWN 20    /* warnings about decisions that met no conflict */

static int gather(void *ctx, const void *buf, size_t len, struct molt_error **err)
{
    struct molt_strbuf *b = ctx;
    if (b->len + len > UP_REPORT_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "the guest's report is too long");
    molt_strbuf_add(b, buf, len);
    return 0;
}

int up_guest_json(struct molt_chan *c, const char *what, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    CLEANUP_JSON struct molt_json *v = NULL;
    struct molt_call call = {.data = gather, .ctx = &b, .timeout_ms = UP_LONG_CALL_MS};
    int r = molt_call(c, what, NULL, &call, NULL, err);
    if (r == 0)
        r = molt_json_parse(molt_strbuf_str(&b), b.len, &v, err);
    if (r == 0 && molt_json_type(v) != MOLT_JSON_OBJECT)
        r = molt_error_set(err, MOLT_E_PROTOCOL, "%s: the guest's report is no object", what);
    if (r == 0)
        *ret = molt_json_clean(v, "diff");
    return r;
}

/* ---- conflicts ---- */

/* In no file that an admin has begun to edit: conflicts.resolve, conflicts-2.resolve, ... */
static char *template_path(struct molt_op *op)
{
    char *path = molt_xasprintf("%s/" UP_CONFLICTS ".resolve", molt_op_dir(op));
    for (int i = 2; i <= TEMPLATES && molt_exists(path); i++) {
        size_t n = 1;
        if (molt_resolve_load(path, NULL, &n, NULL) == 0 && n == 0)
            break; /* comments only, as we left it */
        free(path);
        path = molt_xasprintf("%s/" UP_CONFLICTS "-%d.resolve", molt_op_dir(op), i);
    }
    return path;
}

static int write_template(struct molt_op *op, const struct molt_json *merge, char **ret_path, struct molt_error **err)
{
    CLEANUP_FREE char *path = template_path(op);
    CLEANUP_FREE char *text = molt_resolve_template(molt_op_id(op), molt_op_subject(op), molt_json_get(merge, "conflicts"));
    int r = molt_write_file_atomic(path, text, strlen(text), 0600, err);
    if (r == 0)
        *ret_path = MOLT_STEAL_PTR(path);
    return r;
}

int up_conflict(struct molt_op *op, struct molt_chan *clone, struct molt_error **err)
{
    struct molt_json *merge = NULL;
    CLEANUP_FREE char *path = NULL;
    CLEANUP_ERROR struct molt_error *local = NULL;
    if (up_guest_json(clone, "merge-report", &merge, &local) < 0)
        return MOLT_E_CONFLICT; /* said without the list, then */
    if (molt_json_get_int(merge, "conflicts_open", 0) > 0 && write_template(op, merge, &path, &local) == 0) {
        molt_json_set_string(merge, "resolve_template", path);
        molt_error_set(err, MOLT_E_CONFLICT, "%s; decide in %s, which lists them, and give it by --resolve", err ? molt_error_text(*err) : "", path);
    }
    if (local)
        molt_warn(molt_op_log(op), "no file of the conflicts: %s", molt_error_text(local));
    /* Who waits asks again and again; the journal has what it began with. */
    if (molt_op_state(op) == MOLT_OP_WAITING)
        molt_json_free(merge);
    else
        molt_op_note(op, "merge", merge);
    return MOLT_E_CONFLICT;
}

void up_warn_unused(struct molt_op *op)
{
    const struct molt_json *list = molt_json_get(molt_json_get(molt_op_notes(op), "merge"), "unused_decisions");
    size_t n = molt_json_size(list);
    for (size_t i = 0; i < n && i < UNUSED_SHOWN; i++) {
        const struct molt_json *u = molt_json_at(list, i);
        const char *path = molt_json_get_string(u, "path");
        molt_warn(molt_op_log(op), "resolve file, line %" PRId64 ": %.300s is no conflict, the decision is not used", molt_json_get_int(u, "line", 0),
                  path ? path : "?");
    }
    if (n > UNUSED_SHOWN)
        molt_warn(molt_op_log(op), "%zu more decisions of the resolve file are not used", n - UNUSED_SHOWN);
}

/* ---- the wait ---- */

struct wait {
    struct molt_op *op;
    struct molt_chan *active, *clone;
    char until[MOLT_STAMP_MAX];
    bool go;
};

static void set_head(struct wait *w, struct molt_json *v)
{
    molt_json_set_string(v, "operation", molt_op_id(w->op));
    molt_json_set_string(v, "domain", molt_op_subject(w->op));
    molt_json_set_string(v, "state", molt_op_state_text(molt_op_state(w->op)));
    molt_json_set_string(v, "waits_until", w->until);
}

static int show_plan(struct wait *w, struct molt_json **ret, struct molt_error **err)
{
    struct molt_json *plan = NULL;
    int r = up_guest_json(w->clone, "merge-plan", &plan, err);
    if (r < 0)
        return r;
    struct molt_json *v = molt_json_object();
    CLEANUP_FREE char *path = NULL;
    set_head(w, v);
    if (molt_json_get_int(plan, "conflicts_open", 0) > 0 && write_template(w->op, plan, &path, NULL) == 0)
        molt_json_set_string(v, "resolve_template", path);
    molt_json_set(v, "plan", plan);
    *ret = v;
    return 0;
}

static int make_pass(struct wait *w, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *st = NULL;
    int r = up_merge_pass(w->op, w->clone, &st, err);
    if (r < 0)
        return r;
    struct molt_json *v = molt_json_object();
    set_head(w, v);
    molt_json_set(v, "pass", molt_json_clean(st, NULL));
    *ret = v;
    return 0;
}

/* Behind the decisions that are there: the file of the operation shows all that it was told. */
static int keep_text(struct wait *w, const char *text, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/" UP_RESOLVE ".%" PRId64, molt_op_dir(w->op), molt_now_us());
    return molt_write_file_atomic(path, text, strlen(text), 0600, err);
}

static int take_decisions(struct wait *w, const struct molt_json *params, struct molt_json **ret, struct molt_error **err)
{
    const char *text = molt_json_get_string(params, "resolve"), *file = molt_json_get_string(params, "file");
    CLEANUP_RESOLVE struct molt_resolve *v = NULL;
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    if (!text)
        return molt_error_set(err, MOLT_E_USAGE, "resolve: the decisions are missing");
    int r = molt_resolve_parse(text, strlen(text), file ? file : "resolve", &v, err);
    if (r == 0)
        r = keep_text(w, text, err);
    if (r < 0)
        return r;
    molt_json_set_string(args, "resolve", text);
    r = up_long_call(w->clone, "merge-resolve", args, NULL, err);
    if (r < 0)
        return r;
    molt_op_note(w->op, "decided", molt_json_int((int64_t)v->n));
    return show_plan(w, ret, err);
}

static int go_on(struct wait *w, struct molt_json **ret, struct molt_error **err)
{
    int r = make_pass(w, ret, err);
    if (r == 0)
        r = up_long_call(w->clone, "merge-check", NULL, NULL, err);
    if (r < 0)
        return molt_error_prefix(err, "the operation waits on");
    w->go = true;
    return 0;
}

static int answer(void *ctx, const char *method, const struct molt_json *params, struct molt_json **ret, struct molt_error **err)
{
    struct wait *w = ctx;
    if (!strcmp(method, "plan"))
        return show_plan(w, ret, err);
    if (!strcmp(method, "pass"))
        return make_pass(w, ret, err);
    if (!strcmp(method, "resolve"))
        return take_decisions(w, params, ret, err);
    if (!strcmp(method, "continue"))
        return go_on(w, ret, err);
    return molt_error_set(err, MOLT_E_USAGE, "no method %.40s", method);
}

/* Its agent, or the whole guest, went away: what it was asked to remember is gone with it. */
static bool is_gone(struct molt_chan *c)
{
    char none;
    return c->broken || c->ops->read(c, &none, 0) < 0;
}

static int wait_for_word(struct wait *w, int fd, int64_t until_us, struct molt_error **err)
{
    int64_t hours = up_param_int(w->op, "wait_hours");
    while (!w->go) {
        if (molt_op_aborting(w->op))
            return molt_error_set(err, MOLT_E_ABORTED, "aborted while it waited");
        if (is_gone(w->active) || is_gone(w->clone))
            return molt_error_set(err, MOLT_E_NO_AGENT, "the agent of %s went away while the operation waited", is_gone(w->clone) ? "the clone" : molt_op_subject(w->op));
        if (molt_now_us() > until_us)
            return molt_error_set(err, MOLT_E_TIMEOUT, "nobody said op-continue within %" PRId64 " h", hours);
        molt_control_serve(fd, TICK_MS, answer, w);
    }
    return 0;
}

int up_wait(struct molt_op *op, struct molt_chan *active, struct molt_chan *clone, struct molt_error **err)
{
    struct wait w = {.op = op, .active = active, .clone = clone};
    int64_t until = molt_now_us() + up_param_int(op, "wait_hours") * INT64_C(3600000000);
    int fd = -1;
    molt_stamp(until, w.until);
    int r = molt_control_listen(molt_op_dir(op), &fd, err);
    if (r == 0)
        r = molt_op_wait_begin(op, err);
    if (r == 0) {
        int64_t open = molt_json_get_int(molt_json_get(molt_op_notes(op), "merge"), "conflicts_open", 0);
        molt_op_note(op, "waits_until", molt_json_string(w.until));
        molt_op_progress(op, -1, "waiting until %s, %lld conflicts open; see: xenmolt delta-merge -n %s; then: xenmolt op-continue %s, or op-abort", w.until,
                         (long long)open, molt_op_subject(op), molt_op_id(op));
        r = wait_for_word(&w, fd, until, err);
    }
    molt_control_end(molt_op_dir(op), fd);
    if (r == 0)
        r = molt_op_wait_end(op, err);
    return r;
}
