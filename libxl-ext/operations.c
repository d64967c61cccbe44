/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The public functions on operations. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "context.h"
#include "upgrade.h"

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

int xenmolt_op_commit(xenmolt *x, const char *id, xenmolt_error **err)
{
    CLEANUP_FREE char *full = NULL;
    int r = resolve(x, id, &full, err);
    return r < 0 ? r : molt_op_settle(x->engine, full, MOLT_OP_COMMITTED, up_commit, err);
}

int xenmolt_op_rollback(xenmolt *x, const char *id, int discard_new_writes, xenmolt_error **err)
{
    CLEANUP_FREE char *full = NULL;
    int r = resolve(x, id, &full, err);
    if (r < 0)
        return r;
    if (!discard_new_writes)
        return molt_error_set(err, MOLT_E_USAGE, "a rollback loses what the guest wrote since the switch-over; confirm it with --discard-new-writes");
    return molt_op_settle(x->engine, full, MOLT_OP_ROLLED_BACK, up_rollback, err);
}

int xenmolt_guest_upgrade_preflight(xenmolt *x, const xenmolt_upgrade_params *p, char **ret_json, xenmolt_error **err)
{
    CLEANUP_JSON struct molt_json *result = NULL, *params = NULL;
    int r = molt_context_need_xen(x, err);
    if (r < 0)
        return r;
    r = molt_upgrade_preflight(x, p, &result, &params, err);
    *ret_json = molt_json_print(result, true);
    return r;
}

int xenmolt_guest_upgrade(xenmolt *x, const xenmolt_upgrade_params *p, char **ret_json, xenmolt_error **err)
{
    CLEANUP_JSON struct molt_json *result = NULL, *params = NULL;
    struct molt_op *op = NULL;
    int r = molt_context_need_xen(x, err);
    if (r == 0)
        r = molt_upgrade_preflight(x, p, &result, &params, err);
    if (r < 0)
        return r;
    molt_json_set(params, "memory_bytes", molt_json_copy(molt_json_get(molt_json_get(result, "estimate"), "memory_bytes")));
    r = molt_op_create(x->engine, "guest-upgrade", molt_json_get_string(params, "domain"), molt_json_get_string(params, "uuid"), params, &op, err);
    if (r < 0)
        return r;
    r = molt_op_run(op, err);
    CLEANUP_FREE char *path = molt_xasprintf("%s/report.json", molt_op_dir(op));
    if (molt_read_file(path, 64u << 20, ret_json, NULL, NULL) < 0)
        *ret_json = NULL;
    molt_op_close(op);
    return r;
}
