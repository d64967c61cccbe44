/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The public functions on operations. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "context.h"
#include "engine/control.h"
#include "migrate.h"
#include "proto/resolve.h"
#include "upgrade.h"

/* A pass over a large guest takes its time, and another asker may be before us. */
#define UP_ASK_MS (60 * 60 * 1000)

/* A unique prefix of an id (or the end of one, which is the random part) stands for it. */
static int resolve(struct xenmolt *x, const char *id, char **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *list = NULL;
    const char *found = NULL;
    int r = molt_op_list(x->engine, &list, err);
    for (size_t i = 0; r == 0 && i < molt_json_size(list); i++) {
        const char *have = molt_json_get_string(molt_json_at(list, i), "id");
        if (!have || strncmp(have, id, strlen(id)) != 0)
            continue;
        if (!strcmp(have, id)) {
            found = have;
            break;
        }
        if (found)
            return molt_error_set(err, MOLT_E_USAGE, "%s is the beginning of several operations (%s, %s)", id, found, have);
        found = have;
    }
    if (r == 0 && (!found || !*id))
        return molt_error_set(err, MOLT_E_NO_OPERATION, "no operation %s; `xenmolt op-list` shows all", id);
    if (r == 0)
        *ret = molt_xstrdup(found);
    return r;
}

int xenmolt_op_list(xenmolt *x, char **ret_json, xenmolt_error **err)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = molt_op_list(x->engine, &v, err);
    if (r == 0)
        *ret_json = molt_json_print(v, true);
    return r;
}

static int print_of(struct xenmolt *x, const char *id, int (*fn)(struct molt_engine *, const char *, struct molt_json **, struct molt_error **),
                    char **ret_json, struct molt_error **err)
{
    CLEANUP_FREE char *full = NULL;
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = resolve(x, id, &full, err);
    if (r == 0)
        r = fn(x->engine, full, &v, err);
    if (r == 0)
        *ret_json = molt_json_print(v, true);
    return r;
}

int xenmolt_op_show(xenmolt *x, const char *id, char **ret_json, xenmolt_error **err)
{
    return print_of(x, id, molt_op_show, ret_json, err);
}

int xenmolt_op_log(xenmolt *x, const char *id, char **ret_json, xenmolt_error **err)
{
    return print_of(x, id, molt_op_journal, ret_json, err);
}

int xenmolt_op_abort(xenmolt *x, const char *id, int wait_s, xenmolt_error **err)
{
    CLEANUP_FREE char *full = NULL;
    int r = resolve(x, id, &full, err);
    return r < 0 ? r : molt_op_abort(x->engine, full, wait_s * 1000, err);
}

int xenmolt_op_recover(xenmolt *x, const char *id, xenmolt_error **err)
{
    CLEANUP_FREE char *full = NULL;
    int r = resolve(x, id, &full, err);
    return r < 0 ? r : molt_op_recover(x->engine, full, err);
}

static bool is_upgrade(struct molt_op *op)
{
    return molt_streq(molt_op_kind(op), molt_guest_upgrade_table.kind);
}

/* A service that moved leaves nothing behind that could be kept. */
static int commit(struct molt_op *op, struct molt_error **err)
{
    return is_upgrade(op) ? up_commit(op, err) : 0;
}

static int roll_back(struct molt_op *op, struct molt_error **err)
{
    if (is_upgrade(op))
        return up_rollback(op, err);
    return molt_error_set(err, MOLT_E_UNSUPPORTED, "an %s is not rolled back: move the service back, with app-migrate from %s to %s", molt_op_kind(op), up_param(op, "to"), molt_op_subject(op));
}

int xenmolt_op_commit(xenmolt *x, const char *id, xenmolt_error **err)
{
    CLEANUP_FREE char *full = NULL;
    int r = resolve(x, id, &full, err);
    return r < 0 ? r : molt_op_settle(x->engine, full, MOLT_OP_COMMITTED, commit, err);
}

int xenmolt_op_rollback(xenmolt *x, const char *id, int discard_new_writes, xenmolt_error **err)
{
    CLEANUP_FREE char *full = NULL;
    int r = resolve(x, id, &full, err);
    if (r < 0)
        return r;
    if (!discard_new_writes)
        return molt_error_set(err, MOLT_E_USAGE, "a rollback loses what the guest wrote since the switch-over; confirm it with --discard-new-writes");
    return molt_op_settle(x->engine, full, MOLT_OP_ROLLED_BACK, roll_back, err);
}

/* A caller that was built with an older header has fewer members. */
static xenmolt_upgrade_params known(const xenmolt_upgrade_params *p)
{
    xenmolt_upgrade_params k = {0};
    memcpy(&k, p, p->size < sizeof(k) ? p->size : sizeof(k));
    return k;
}

int xenmolt_guest_upgrade_preflight(xenmolt *x, const xenmolt_upgrade_params *p, char **ret_json, xenmolt_error **err)
{
    CLEANUP_JSON struct molt_json *result = NULL, *params = NULL;
    const xenmolt_upgrade_params k = known(p);
    int r = molt_context_need_xen(x, err);
    if (r < 0)
        return r;
    r = molt_upgrade_preflight(x, &k, &result, &params, err);
    *ret_json = molt_json_print(result, true);
    return r;
}

/* What was checked is what is used: the operation keeps the text. */
static int keep_decisions(struct molt_op *op, const char *text, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/" UP_RESOLVE, molt_op_dir(op));
    return text ? molt_write_file_atomic(path, text, strlen(text), 0600, err) : 0;
}

/* Of an operation just made: its report, and its end. */
static int run_to_end(struct molt_op *op, char **ret_json, struct molt_error **err)
{
    int r = molt_op_run(op, err);
    CLEANUP_FREE char *path = molt_xasprintf("%s/report.json", molt_op_dir(op));
    if (molt_read_file(path, 64u << 20, ret_json, NULL, NULL) < 0)
        *ret_json = NULL;
    molt_op_close(op);
    return r;
}

int xenmolt_guest_upgrade(xenmolt *x, const xenmolt_upgrade_params *p, char **ret_json, xenmolt_error **err)
{
    CLEANUP_JSON struct molt_json *result = NULL, *params = NULL;
    CLEANUP_FREE char *decisions = NULL;
    struct molt_op *op = NULL;
    const xenmolt_upgrade_params k = known(p);
    int r = k.resolve_file ? molt_resolve_load(k.resolve_file, &decisions, NULL, err) : 0;
    if (r == 0)
        r = molt_context_need_xen(x, err);
    if (r == 0)
        r = molt_upgrade_preflight(x, &k, &result, &params, err);
    if (r < 0)
        return r;
    molt_json_set(params, "memory_bytes", molt_json_copy(molt_json_get(molt_json_get(result, "estimate"), "memory_bytes")));
    r = molt_op_create(x->engine, "guest-upgrade", molt_json_get_string(params, "domain"), molt_json_get_string(params, "uuid"), params, &op, err);
    if (r < 0)
        return r;
    if ((r = keep_decisions(op, decisions, err)) == 0)
        return run_to_end(op, ret_json, err);
    molt_op_close(op);
    return r;
}

static xenmolt_migrate_params known_migrate(const xenmolt_migrate_params *p)
{
    xenmolt_migrate_params k = {0};
    memcpy(&k, p, p->size < sizeof(k) ? p->size : sizeof(k));
    return k;
}

int xenmolt_app_migrate_preflight(xenmolt *x, const xenmolt_migrate_params *p, char **ret_json, xenmolt_error **err)
{
    CLEANUP_JSON struct molt_json *result = NULL, *params = NULL;
    const xenmolt_migrate_params k = known_migrate(p);
    int r = molt_context_need_xen(x, err);
    if (r < 0)
        return r;
    r = molt_migrate_preflight(x, &k, &result, &params, err);
    *ret_json = molt_json_print(result, true);
    return r;
}

int xenmolt_app_migrate(xenmolt *x, const xenmolt_migrate_params *p, char **ret_json, xenmolt_error **err)
{
    CLEANUP_JSON struct molt_json *result = NULL, *params = NULL;
    const xenmolt_migrate_params k = known_migrate(p);
    struct molt_op *op = NULL;
    int r = molt_context_need_xen(x, err);
    if (r == 0)
        r = molt_migrate_preflight(x, &k, &result, &params, err);
    if (r == 0)
        r = molt_op_create(x->engine, "app-migrate", molt_json_get_string(params, "domain"), molt_json_get_string(params, "uuid"), params, &op, err);
    return r < 0 ? r : run_to_end(op, ret_json, err);
}

int xenmolt_resolve_check(const char *file, xenmolt_error **err)
{
    return molt_resolve_load(file, NULL, NULL, err);
}

/* ---- operations that wait ---- */

static bool is_it(const struct molt_json *op, const char *name)
{
    const char *id = molt_json_get_string(op, "id");
    return *name && ((id && strncmp(id, name, strlen(name)) == 0) || molt_streq(molt_json_get_string(op, "subject"), name));
}

/* Of the operations that name means the one that waits, and its directory. */
static int find_waiting(struct xenmolt *x, const char *name, char **ret_dir, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *list = NULL, *v = NULL;
    const struct molt_json *last = NULL, *found = NULL;
    int r = molt_op_list(x->engine, &list, err);
    for (size_t i = 0; r == 0 && i < molt_json_size(list); i++) {
        const struct molt_json *op = molt_json_at(list, i);
        if (!is_it(op, name))
            continue;
        last = op;
        if (!molt_streq(molt_json_get_string(op, "state"), molt_op_state_text(MOLT_OP_WAITING)))
            continue;
        if (found)
            return molt_error_set(err, MOLT_E_USAGE, "%s means several operations that wait (%s, %s)", name,
                                  molt_json_get_string(found, "id"), molt_json_get_string(op, "id"));
        found = op;
    }
    if (r < 0)
        return r;
    if (!last)
        return molt_error_set(err, MOLT_E_NO_OPERATION, "no operation %s, and none on a domain of that name; `xenmolt op-list` shows all", name);
    if (!found)
        return molt_error_set(err, MOLT_E_STATE, "operation %s is %s; only one that waits (guest-upgrade --wait) can be asked", molt_json_get_string(last, "id"),
                              molt_json_get_string(last, "state"));
    const char *id = molt_json_get_string(found, "id");
    if (!molt_json_get_int(found, "runner", 0))
        return molt_error_set(err, MOLT_E_NEEDS_RECOVERY, "the command that ran operation %s is gone; undo it with: xenmolt op-recover %s", id, id);
    if ((r = molt_op_show(x->engine, id, &v, err)) == 0)
        *ret_dir = molt_xstrdup(molt_json_get_string(v, "dir"));
    return r;
}

static int ask_waiting(struct xenmolt *x, const char *name, const char *method, const struct molt_json *params, char **ret_json, struct molt_error **err)
{
    CLEANUP_FREE char *dir = NULL;
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = find_waiting(x, name, &dir, err);
    if (r == 0)
        r = molt_control_call(dir, method, params, UP_ASK_MS, &v, err);
    if (r == 0 && ret_json)
        *ret_json = molt_json_print(v, true);
    return r;
}

int xenmolt_op_continue(xenmolt *x, const char *id, xenmolt_error **err)
{
    return ask_waiting(x, id, "continue", NULL, NULL, err);
}

int xenmolt_delta_merge(xenmolt *x, const char *id, int dry_run, const char *resolve_file, char **ret_json, xenmolt_error **err)
{
    CLEANUP_JSON struct molt_json *params = molt_json_object();
    CLEANUP_FREE char *text = NULL;
    if (resolve_file) {
        int r = molt_resolve_load(resolve_file, &text, NULL, err);
        if (r < 0)
            return r;
        molt_json_set_string(params, "resolve", text);
        molt_json_set_string(params, "file", resolve_file);
    }
    return ask_waiting(x, id, resolve_file ? "resolve" : dry_run ? "plan" : "pass", params, ret_json, err);
}
