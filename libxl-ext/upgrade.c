/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The step table of guest-upgrade and what its steps share. The order is DESIGN's; see ARCHITECTURE.md. */
#include "upgrade.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "engine/control.h"
#include "guard.h"
#include "proto/resolve.h"

#define HURRY (-15) /* a nice value */
#define HOOKS_MS 180000 /* the agent's own limit is shorter */

static const struct molt_step steps[] = {
    {"snapshot", MOLT_STEP_REVERSIBLE, 120, step_snapshot, undo_snapshot, NULL},
    {"network", MOLT_STEP_REVERSIBLE, 60, step_network, undo_network, NULL},
    {"clone", MOLT_STEP_REVERSIBLE, 900, step_clone, undo_clone, NULL},
    {"upgrade", MOLT_STEP_REVERSIBLE, 4 * 3600, step_upgrade, undo_upgrade, NULL},
    {"reboot", MOLT_STEP_REVERSIBLE, 1800, step_reboot, undo_clone, NULL},
    {"premerge", MOLT_STEP_REVERSIBLE, 3600, step_premerge, NULL, NULL},
    {"prepare", MOLT_STEP_REVERSIBLE, 600, step_prepare, undo_prepare, NULL},
    {"predump", MOLT_STEP_REVERSIBLE, 900, step_predump, NULL, NULL},
    {"rehearse", MOLT_STEP_REVERSIBLE, 1800, step_rehearse, NULL, NULL},
    {"freeze", MOLT_STEP_REVERSIBLE, 600, step_freeze, undo_freeze, NULL},
    {"restore", MOLT_STEP_REVERSIBLE, 300, step_restore, undo_restore, NULL},
    {"pivot", MOLT_STEP_PIVOT, 60, step_pivot, NULL, probe_pivot},
    {"switch", MOLT_STEP_FORWARD, 120, step_switch, NULL, NULL},
    {"verify", MOLT_STEP_FORWARD, 1500, step_verify, NULL, NULL},
    {"retire", MOLT_STEP_FORWARD, 120, step_retire, NULL, NULL},
};

int up_open(struct molt_op *op, void **ret_priv, struct molt_error **err)
{
    struct xenmolt *x = molt_op_user(op);
    int r = molt_context_need_xen(x, err);
    if (r < 0)
        return r;
    struct upgrade *u = molt_xcalloc(1, sizeof(*u));
    u->x = x;
    u->guard = -1;
    molt_upnet_names(molt_op_id(op), &u->net);
    *ret_priv = u;
    return 0;
}

/* Of the calling thread alone (setpriority(2), "C library/kernel differences"): the operation's. */
static void set_hurry(struct upgrade *u, bool on)
{
    if (on == u->hurries)
        return;
    if (on)
        u->nice = getpriority(PRIO_PROCESS, 0);
    (void)setpriority(PRIO_PROCESS, 0, on ? HURRY : u->nice);
    u->hurries = on;
}

void up_hurry(struct molt_op *op, bool on)
{
    set_hurry(up_of(op), on);
}

void up_close(struct molt_op *op, void *priv)
{
    struct upgrade *u = priv;
    if (!u)
        return;
    molt_guard_stop(u->guard);
    set_hurry(u, false);
    molt_control_end(molt_op_dir(op), -1); /* what a runner left that was killed while it waited */
    molt_chan_close(u->active);
    molt_chan_close(u->clone);
    (void)molt_store_end(&u->x->store, &u->pivot, false);
    up_vifs_clear(&u->clone_vifs);
    free(u);
}

const struct molt_op_table molt_guest_upgrade_table = {
    .kind = "guest-upgrade",
    .steps = steps,
    .n_steps = sizeof(steps) / sizeof(steps[0]),
    .open = up_open,
    .close = up_close,
    .report = up_report,
};

const char *up_param(struct molt_op *op, const char *key)
{
    return molt_json_get_string(molt_op_params(op), key);
}

int64_t up_param_int(struct molt_op *op, const char *key)
{
    return molt_json_get_int(molt_op_params(op), key, 0);
}

const char *up_fact(struct molt_op *op, const char *key)
{
    return molt_json_get_string(molt_op_facts(op), key);
}

int64_t up_fact_int(struct molt_op *op, const char *key, int64_t dflt)
{
    return molt_json_get_int(molt_op_facts(op), key, dflt);
}

char *up_clone_name(struct molt_op *op)
{
    return molt_xasprintf("%s--clone", molt_op_subject(op));
}

char *up_replaced_name(struct molt_op *op)
{
    return molt_xasprintf("%s--replaced", molt_op_subject(op));
}

char *up_domain_dir(struct molt_op *op)
{
    return molt_xasprintf("%s/domains/%s", up_of(op)->x->state_dir, up_fact(op, "clone_uuid"));
}

void up_identity_of(struct molt_op *op, struct up_identity *i)
{
    i->clone_name = up_clone_name(op);
    i->replaced_name = up_replaced_name(op);
    i->id = (struct molt_identity){
        .op = molt_op_id(op), .name = molt_op_subject(op), .clone_name = i->clone_name, .replaced_name = i->replaced_name,
        .active = (uint32_t)up_param_int(op, "domid"), .clone = (uint32_t)up_fact_int(op, "clone_domid", 0),
        .active_uuid = up_param(op, "uuid"), .clone_uuid = up_fact(op, "clone_uuid"),
    };
}

void up_identity_clear(struct up_identity *i)
{
    free(i->clone_name);
    free(i->replaced_name);
}

void up_drop(struct molt_chan **c)
{
    molt_chan_close(*c);
    *c = NULL;
}

bool up_aborting(void *op)
{
    return molt_op_aborting(op);
}

static int connect_to(struct molt_op *op, uint32_t domid, struct molt_chan **slot, struct molt_chan **ret, struct molt_error **err)
{
    int r = 0;
    char none;
    /* Out of step, or the agent was restarted meanwhile. */
    if (*slot && ((*slot)->broken || (*slot)->ops->read(*slot, &none, 0) < 0))
        up_drop(slot);
    if (!*slot)
        r = molt_guest_connect(up_of(op)->x, domid, slot, NULL, err);
    *ret = *slot;
    return r;
}

int up_active(struct molt_op *op, struct molt_chan **ret, struct molt_error **err)
{
    int r = connect_to(op, (uint32_t)up_param_int(op, "domid"), &up_of(op)->active, ret, err);
    return r < 0 ? molt_error_prefix(err, "active") : 0;
}

int up_clone(struct molt_op *op, struct molt_chan **ret, struct molt_error **err)
{
    int r = connect_to(op, (uint32_t)up_fact_int(op, "clone_domid", 0), &up_of(op)->clone, ret, err);
    return r < 0 ? molt_error_prefix(err, "clone") : 0;
}

/* What the preflight found of a unit. */
static const struct molt_json *unit_before(struct molt_op *op, const char *unit)
{
    const struct molt_json *list = molt_json_get(molt_op_params(op), "workloads_before");
    for (size_t i = 0; i < molt_json_size(list); i++)
        if (molt_streq(molt_json_get_string(molt_json_at(list, i), "unit"), unit))
            return molt_json_at(list, i);
    return NULL;
}

static int add_unit(struct molt_op *op, const char *unit, void *ctx, struct molt_error **err)
{
    struct molt_json *o = molt_json_object();
    (void)err;
    molt_json_set_string(o, "unit", unit);
    molt_json_set_int(o, "main_pid", molt_json_get_int(unit_before(op, unit), "main_pid", 0));
    molt_json_set_int(o, "rounds", molt_json_get_int(molt_json_get(molt_op_facts(op), "unit_rounds"), unit, 0));
    molt_json_append(ctx, o);
    return 0;
}

struct molt_json *up_units_args(struct molt_op *op)
{
    struct molt_json *args = molt_json_object(), *list = molt_json_array();
    (void)up_each_unit(op, add_unit, list, NULL);
    molt_json_set(args, "units", list);
    return args;
}

int up_call_units(struct molt_op *op, struct molt_chan *c, const char *what, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = up_units_args(op);
    return molt_call(c, what, args, NULL, ret, err);
}

int up_call_beside(struct molt_op *op, struct molt_chan *c, const char *what, const struct molt_json *args,
                   int (*beside)(struct molt_op *op, void *ctx, struct molt_error **err), void *ctx, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *units = args ? NULL : up_units_args(op);
    CLEANUP_ERROR struct molt_error *e = NULL;
    const struct molt_call call = {.timeout_ms = UP_LONG_CALL_MS};
    uint32_t seq;
    int r = molt_call_begin(c, what, args ? args : units, &seq, err);
    if (r < 0)
        return r;
    int other = beside(op, ctx, &e);
    r = molt_call_end(c, what, seq, &call, ret, err);
    if (r == 0 && (r = other) < 0)
        molt_error_move(err, MOLT_STEAL_PTR(e));
    return r;
}

int up_hooks(struct molt_op *op, struct molt_chan *c, const char *event, struct molt_error **err)
{
    const struct molt_call call = {.timeout_ms = HOOKS_MS};
    const struct molt_json *before = molt_json_get(molt_op_notes(op), "hooks");
    CLEANUP_JSON struct molt_json *args = up_units_args(op), *done = NULL;
    molt_json_set_string(args, "event", event);
    molt_json_set_string(args, "operation", molt_op_id(op));
    molt_json_set_string(args, "domain", molt_op_subject(op));
    int r = molt_call(c, "hooks", args, &call, &done, err);
    if (r < 0)
        return r;
    const struct molt_json *list = molt_json_get(done, "hooks");
    struct molt_json *all = before ? molt_json_copy(before) : molt_json_array();
    for (size_t i = 0; i < molt_json_size(list); i++) {
        struct molt_json *o = molt_json_clean(molt_json_at(list, i), NULL);
        molt_json_set_string(o, "event", event);
        molt_json_append(all, o);
    }
    molt_op_note(op, "hooks", all);
    const char *why = molt_json_get_string(done, "failed");
    return why ? molt_error_set(err, MOLT_E_HOOK, "%.600s", why) : 0;
}

int up_each_unit(struct molt_op *op, int (*fn)(struct molt_op *op, const char *unit, void *ctx, struct molt_error **err), void *ctx, struct molt_error **err)
{
    CLEANUP_FREE char *text = molt_xstrdup(up_param(op, "workload") ? up_param(op, "workload") : ""); /* "a.service,b.service" */
    char *save = NULL;
    int r = 0;
    for (char *unit = strtok_r(text, ",", &save); unit && r == 0; unit = strtok_r(NULL, ",", &save))
        r = fn(op, unit, ctx, err);
    return r;
}

bool up_find_clone(struct molt_op *op, struct molt_domain *ret)
{
    /* Never one that bears the guest's own name: that one took over. */
    return molt_domain_by_uuid(up_of(op)->x, up_fact(op, "clone_uuid"), ret) && !molt_streq(ret->name, molt_op_subject(op));
}

void up_note_us(struct molt_op *op, const char *key)
{
    molt_op_note(op, key, molt_json_int(molt_now_us()));
}
