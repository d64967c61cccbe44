/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations as JSON, read without their locks. */
#include "engine/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"

#define REPORT_MAX (16u << 20)

static void set_time(struct molt_json *obj, const char *key, int64_t us)
{
    char buf[MOLT_STAMP_MAX];

    if (us)
        molt_json_set_string(obj, key, molt_stamp(us, buf));
    else
        molt_json_set(obj, key, molt_json_null());
}

static void set_error(struct molt_json *v, const struct molt_op *op)
{
    const char *text = molt_json_get_string(op->failure, "text");
    const char *then = molt_json_get_string(molt_json_get(op->failure, "then"), "text");
    CLEANUP_FREE char *both = text && then ? molt_xasprintf("%s; then %s", text, then) : NULL;

    molt_json_set_string(v, "error", op->damaged ? op->damage : both ? both : text);
}

static struct molt_json *summary(struct molt_op *op)
{
    pid_t pid = molt__lock_holder(op->engine->state_dir, op->subject_key, op->id);
    struct molt_json *v = molt_json_object();

    molt_json_set_string(v, "id", op->id);
    molt_json_set_string(v, "kind", op->kind);
    molt_json_set_string(v, "subject", op->subject);
    molt_json_set_string(v, "state", op->damaged ? "damaged" : molt_op_state_text(op->state));
    molt_json_set_string(v, "step", op->step);
    molt_json_set(v, "runner", pid > 0 ? molt_json_int(pid) : molt_json_null());
    set_time(v, "created", op->created_us);
    set_time(v, "updated", op->updated_us);
    set_error(v, op);
    return v;
}

struct list {
    struct molt_engine *e;
    struct molt_op **ops;
    size_t n, cap;
};

static int list_one(void *ctx, const char *id, struct molt_error **err)
{
    struct list *l = ctx;

    MOLT_GROW(l->ops, l->n, l->cap);
    int r = molt__op_load(l->e, id, true, &l->ops[l->n], err);
    if (r == MOLT_E_NO_OPERATION) {
        molt_error_clear(err); /* went away meanwhile */
        return 0;
    }
    l->n += r == 0;
    return r;
}

static int by_creation(const void *a, const void *b)
{
    const struct molt_op *x = *(struct molt_op *const *)a, *y = *(struct molt_op *const *)b;

    if (x->created_us != y->created_us)
        return x->created_us < y->created_us ? -1 : 1;
    return strcmp(x->id, y->id);
}

int molt_op_list(struct molt_engine *e, struct molt_json **ret, struct molt_error **err)
{
    struct list l = {.e = e};
    int r = molt__ops_each(e, list_one, &l, err);
    struct molt_json *out = molt_json_array();

    if (l.n)
        qsort(l.ops, l.n, sizeof(*l.ops), by_creation);
    for (size_t i = 0; i < l.n; i++) {
        molt_json_append(out, summary(l.ops[i]));
        molt_op_close(l.ops[i]);
    }
    free(l.ops);
    if (r < 0) {
        molt_json_free(out);
        return r;
    }
    *ret = out;
    return 0;
}

static struct molt_json *read_report(const struct molt_op *op)
{
    CLEANUP_FREE char *path = molt__op_path(op, "report.json"), *text = NULL;
    struct molt_json *v = NULL;
    size_t len = 0;

    if (!molt_exists(path) || molt_read_file(path, REPORT_MAX, &text, &len, NULL) < 0 ||
        molt_json_parse(text, len, &v, NULL) < 0)
        return molt_json_null();
    return v;
}

int molt_op_show(struct molt_engine *e, const char *id, struct molt_json **ret, struct molt_error **err)
{
    struct molt_op *op = NULL;
    struct molt_json *v;
    int r = molt__op_load(e, id, true, &op, err);

    if (r < 0)
        return r;
    v = summary(op);
    molt_json_set(v, "params", molt_json_copy(op->params));
    molt_json_set(v, "facts", molt_json_copy(op->facts));
    molt_json_set(v, "notes", molt_json_copy(op->notes));
    molt_json_set(v, "phases", molt_op_phases(op));
    molt_json_set(v, "failure", op->failure ? molt_json_copy(op->failure) : molt_json_null());
    molt_json_set(v, "dir", molt_json_string(op->dir));
    molt_json_set(v, "report", molt_op_state_ended(op->state) ? read_report(op) : molt_json_null());
    molt_op_close(op);
    *ret = v;
    return 0;
}

static void journal_one(void *ctx, const struct molt_json *rec)
{
    molt_json_append(ctx, molt_json_copy(rec));
}

int molt_op_journal(struct molt_engine *e, const char *id, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *out = molt_json_array();
    CLEANUP_FREE char *full = NULL, *path = NULL;
    int r = molt__op_resolve(e, id, &full, err);

    if (r < 0)
        return r;
    path = molt_xasprintf("%s/%s/journal", e->ops_dir, full);
    r = molt__journal_read(path, journal_one, out, NULL, NULL, err);
    if (r < 0)
        return r;
    *ret = MOLT_STEAL_PTR(out);
    return 0;
}
