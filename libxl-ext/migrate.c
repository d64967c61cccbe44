/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The step table of app-migrate. */
#include "migrate.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/strbuf.h"

/* ---- what both sides are told ---- */

static struct molt_identity identity_of(struct molt_op *op)
{
    return (struct molt_identity){.op = molt_op_id(op), .name = molt_op_subject(op), .clone_name = up_param(op, "to"),
                                  .active = (uint32_t)up_param_int(op, "domid"), .clone = (uint32_t)up_param_int(op, "to_domid")};
}

/* false: that domain is gone, and with it all that was in it. */
static bool still_there(struct molt_op *op, const char *domid, const char *uuid)
{
    struct molt_domain d;
    return molt_domain_info(up_of(op)->x, (uint32_t)up_param_int(op, domid), &d, NULL) == 0 && molt_streq(d.uuid, up_param(op, uuid));
}

static int show_address(struct molt_op *op, struct molt_chan *to, bool drop, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    if (!up_param(op, "address"))
        return 0;
    molt_json_set_string(args, "address", up_param(op, "address"));
    molt_json_set_string(args, "dev", up_param(op, "to_dev"));
    molt_json_set_bool(args, "drop", drop);
    return molt_call(to, "address-show", args, NULL, NULL, err);
}

/* ---- connect: files and libraries, while the service serves ---- */

static int merge_folders(struct molt_op *op, struct molt_chan *to, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    const struct molt_json *folders = molt_json_get(molt_op_params(op), "folders");
    if (molt_json_size(folders) == 0)
        return 0;
    molt_json_set(args, "folders", molt_json_copy(folders));
    int r = molt_op_put(op, "folders_begun", molt_json_bool(true), err);
    if (r == 0)
        r = up_long_call(to, "merge-begin", args, NULL, err);
    return r < 0 ? r : up_converge(op, to, err);
}

static int step_connect(struct molt_op *op, struct molt_error **err)
{
    const struct molt_identity id = identity_of(op);
    struct molt_chan *from, *to;
    int r = molt_op_put(op, "clone_domid", molt_json_int(up_param_int(op, "to_domid")), err);
    if (r == 0)
        r = molt_identity_begin(&up_of(op)->x->store, &id, err);
    if (r == 0)
        r = up_active(op, &from, err);
    if (r == 0)
        r = up_clone(op, &to, err);
    if (r == 0)
        r = up_introduce(op, from, to, err);
    if (r == 0)
        r = merge_folders(op, to, err);
    if (r == 0)
        r = up_compare(op, from, to, false, err); /* the preflight has looked at the service */
    return r < 0 ? r : up_fetch_pins(op, err);
}

/* What was restored in the other guest, overlay, images; and its address there. */
static int take_down(struct molt_op *op, struct molt_chan **ret_to, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *units = up_units_args(op);
    up_drop(&up_of(op)->clone); /* its last call may have been cut */
    int r = up_clone(op, ret_to, err);
    molt_json_set_bool(units, "overlays", true);
    if (r == 0)
        r = up_long_call(*ret_to, "restore-undo", units, NULL, err);
    return r < 0 ? r : show_address(op, *ret_to, true, err);
}

/* That, and the directories. */
static int clear_up(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *folders = molt_json_object();
    struct molt_chan *to;
    int r = take_down(op, &to, err);
    if (r < 0 || !molt_json_get_bool(molt_op_facts(op), "folders_begun", false))
        return r;
    molt_json_set(folders, "folders", molt_json_copy(molt_json_get(molt_op_params(op), "folders")));
    return up_long_call(to, "folders-drop", folders, NULL, err);
}

static int undo_connect(struct molt_op *op, struct molt_error **err)
{
    const struct molt_identity id = identity_of(op);
    int r = still_there(op, "to_domid", "to_uuid") ? clear_up(op, err) : 0;
    up_drop(&up_of(op)->active);
    return r < 0 ? r : molt_identity_end(&up_of(op)->x->store, &id, err);
}

static int begin_dump(struct molt_op *op, struct molt_chan *from, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = up_units_args(op);
    molt_json_set_bool(args, "early", true);
    molt_json_set_bool(args, "alone", true);
    if (up_param(op, "address"))
        molt_json_set_string(args, "address", up_param(op, "address"));
    int r = up_long_call(from, "dump", args, ret, err);
    up_note_us(op, "t_still");
    if (r == 0)
        up_warn_unsettled(op, *ret);
    return r == 0 && molt_fault("freeze") ? molt_error_set(err, MOLT_E_INTERNAL, "fault point freeze") : r;
}

/* ---- prepare ---- */

static int step_ready(struct molt_op *op, struct molt_error **err)
{
    int r = up_prepare(op, err);
    return r < 0 ? r : mig_hold_prepare(op, err);
}

/* ---- freeze ---- */

/* The address goes away where the service was when it stands still, and is the other guest's own, unheard, before it is restored there: its peers
 * hear nothing meanwhile, and what they send waits in dom0. */
static int step_halt(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *from, *to;
    CLEANUP_JSON struct molt_json *dump = NULL;
    int r = up_active(op, &from, err);
    if (r == 0)
        r = up_clone(op, &to, err);
    if (r == 0)
        r = up_before_freeze(op, from, err);
    if (r == 0)
        r = molt_op_put(op, "freezing", molt_json_bool(true), err);
    if (r == 0)
        r = mig_hold_guard(op, err);
    if (r == 0)
        r = up_arm_dump(op, from, err);
    if (r == 0)
        r = mig_hold_requests(op, err);
    if (r == 0)
        r = up_settle(op, from, false, err);
    if (r < 0)
        return r;
    up_hurry(op, true);
    up_note_us(op, "t_freeze");
    r = mig_hold_engage(op, err);
    if (r == 0)
        r = begin_dump(op, from, &dump, err);
    if (r == 0)
        r = up_final_passes(op, to, err);
    if (r < 0)
        return r;
    up_note_us(op, "t_merged");
    return up_take_images(op, from, to, dump, err);
}

static int undo_halt(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *from;
    if (!still_there(op, "domid", "uuid"))
        return mig_hold_return(op, err);
    int r = 0;
    if (molt_json_get_bool(molt_op_facts(op), "freezing", false)) {
        up_drop(&up_of(op)->active);
        r = up_active(op, &from, err);
        if (r == 0)
            r = up_call_units(op, from, "resume", NULL, err);
        if (r == MOLT_E_NO_WORKLOAD) {
            molt_warn(molt_op_log(op), "%s does not run any more: nothing to resume", up_param(op, "workload"));
            molt_error_clear(err);
            r = 0;
        }
    }
    int held = mig_hold_return(op, r < 0 ? NULL : err);
    up_hurry(op, false);
    if (r == 0 && molt_json_get_bool(molt_op_facts(op), "hooked", false))
        up_tell_error(op); /* its peers have waited long enough */
    return r < 0 ? r : held;
}

/* ---- restore ---- */

/* What fails here is done, and told, by the step itself. */
static void prepare_give(struct molt_op *op)
{
    const struct molt_identity id = identity_of(op);
    (void)molt_identity_prepare_move(&up_of(op)->x->store, &id, &up_of(op)->pivot, NULL);
}

static int step_bring_up(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    struct molt_chan *to;
    int r = up_clone(op, &to, err);
    if (r == 0 && up_param(op, "address")) {
        molt_json_set_string(args, "address", up_param(op, "address"));
        molt_json_set_string(args, "dev", up_param(op, "to_dev"));
        r = molt_call(to, "address-hide", args, NULL, NULL, err);
    }
    return r < 0 ? r : up_restore(op, prepare_give, err);
}

static int silence(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *to;
    int r = up_clone(op, &to, err);
    if (r == 0)
        r = up_call_units(op, to, "restore-kill", NULL, err);
    return r < 0 ? r : show_address(op, to, true, err);
}

/* Before the service goes on where it was, so that the address is never in both. Its peers wait: of what was restored only the processes end now, where
 * they can be told (not where the restore failed, or is still under way, or the agent is older); the rest is connect's to undo. */
static int undo_bring_up(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *why = NULL;
    struct molt_chan *to;
    if (!still_there(op, "to_domid", "to_uuid") || silence(op, &why) == 0)
        return 0;
    molt_info(molt_op_log(op), "what was restored is taken down as a whole: %s", molt_error_text(why));
    return take_down(op, &to, err);
}

/* ---- from the pivot on ---- */

static int step_give(struct molt_op *op, struct molt_error **err)
{
    const struct molt_identity id = identity_of(op);
    int r = molt_identity_move(&up_of(op)->x->store, &id, &up_of(op)->pivot, err);
    up_note_us(op, "t_pivot");
    return r;
}

/* Its sockets are there: what was held can come beside the thaw. */
static int beside_thaw(struct molt_op *op, void *ctx, struct molt_error **err)
{
    (void)ctx;
    return mig_hold_release(op, err);
}

static int step_go_on(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *to;
    CLEANUP_JSON struct molt_json *thaw = NULL;
    int r = up_clone(op, &to, err);
    if (r == 0)
        r = up_call_beside(op, to, "restore-thaw", NULL, beside_thaw, NULL, &thaw, err);
    if (r < 0)
        return r;
    up_note_us(op, "t_thawed");
    molt_op_note(op, "thaw", MOLT_STEAL_PTR(thaw));
    /* What is diverted reaches the address on the loopback device, too; on the other one, neighbours find it. */
    if ((r = show_address(op, to, false, err)) == 0)
        up_announce(op, to);
    up_hurry(op, false);
    return r;
}

static int step_settle(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = up_units_args(op);
    const struct molt_json *enabled = molt_json_get(molt_op_params(op), "enabled");
    molt_json_set_bool(args, "alone", true);
    if (enabled)
        molt_json_set(args, "enable", molt_json_copy(enabled));
    return up_go_live(op, args, NULL, err);
}

/* It ends where it was. */
static int step_depart(struct molt_op *op, struct molt_error **err)
{
    const struct molt_identity id = identity_of(op);
    struct molt_chan *from;
    int r = mig_hold_remove(op, err);
    if (r == 0 && still_there(op, "domid", "uuid") && (r = up_active(op, &from, err)) == 0) {
        CLEANUP_JSON struct molt_json *args = up_units_args(op);
        r = up_long_call(from, "depart", args, NULL, err);
    }
    return r < 0 ? r : molt_identity_moved(&up_of(op)->x->store, &id, err);
}

static const struct molt_step steps[] = {
    {"connect", MOLT_STEP_REVERSIBLE, 3600, step_connect, undo_connect, NULL},
    {"prepare", MOLT_STEP_REVERSIBLE, 600, step_ready, mig_hold_return, NULL},
    {"predump", MOLT_STEP_REVERSIBLE, 900, step_predump, NULL, NULL},
    {"rehearse", MOLT_STEP_REVERSIBLE, 1800, step_rehearse, NULL, NULL},
    {"freeze", MOLT_STEP_REVERSIBLE, 600, step_halt, undo_halt, NULL},
    {"restore", MOLT_STEP_REVERSIBLE, 300, step_bring_up, undo_bring_up, NULL},
    {"pivot", MOLT_STEP_PIVOT, 60, step_give, NULL, probe_pivot},
    {"switch", MOLT_STEP_FORWARD, 120, step_go_on, NULL, NULL},
    {"verify", MOLT_STEP_FORWARD, 1500, step_settle, NULL, NULL},
    {"depart", MOLT_STEP_FORWARD, 300, step_depart, NULL, NULL},
};

const struct molt_op_table molt_app_migrate_table = {
    .kind = "app-migrate",
    .steps = steps,
    .n_steps = sizeof(steps) / sizeof(steps[0]),
    .open = up_open,
    .close = up_close,
    .report = up_report,
};
