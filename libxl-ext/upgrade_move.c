/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guest-upgrade, second half up to the pivot: merge passes, freeze, dump, restore. Every step here can be undone. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "apps.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "guard.h"
#include "proto/resolve.h"
#include "upgrade.h"

#define MAX_FINAL 3
#define MAX_CUTS 2 /* rings that are cut in one pass */

/* ---- premerge ---- */

/* Directories that go along where no file systems are merged (app-migrate): [path]; NULL: file systems are. */
static const struct molt_json *folders(struct molt_op *op)
{
    return molt_json_get(molt_op_params(op), "folder_paths");
}

int up_introduce(struct molt_op *op, struct molt_chan *active, struct molt_chan *clone, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *a = molt_json_object(), *c = molt_json_object();
    /* Short: libxenvchan builds the paths of its keys in 64 bytes (tools/libs/vchan/init.c). */
    const char *tail = strrchr(molt_op_id(op), '-');
    CLEANUP_FREE char *rel = molt_xasprintf("data/xenmolt/p-%s", tail ? tail + 1 : "0");
    CLEANUP_FREE char *abs = molt_xasprintf("/local/domain/%lld/%s", (long long)up_param_int(op, "domid"), rel);
    molt_json_set_int(a, "domid", up_fact_int(op, "clone_domid", 0));
    molt_json_set_string(a, "path", rel);
    if (folders(op))
        molt_json_set(a, "folders", molt_json_copy(folders(op)));
    molt_json_set_int(c, "domid", up_param_int(op, "domid"));
    molt_json_set_string(c, "path", abs);
    int r = molt_call(active, "peer-listen", a, NULL, NULL, err);
    return r < 0 ? r : molt_call(clone, "peer-connect", c, NULL, NULL, err);
}

static bool has_string(const struct molt_json *list, const char *s)
{
    for (size_t i = 0; i < molt_json_size(list); i++)
        if (molt_streq(molt_json_str(molt_json_at(list, i)), s))
            return true;
    return false;
}

/* The clone's agent tells which file systems it merges ("file_systems": ["/", "/home"]; one that tells nothing knows the
 * root only). What the guest writes to any other would be lost. */
static int check_covered(struct molt_op *op, const struct molt_json *reply, struct molt_error **err)
{
    const struct molt_json *want = molt_json_get(molt_op_params(op), "file_systems"), *have = molt_json_get(reply, "file_systems");
    for (size_t i = 0; i < molt_json_size(want); i++) {
        const char *dir = molt_json_str(molt_json_at(want, i));
        if (has_string(have, dir) || (!have && molt_streq(dir, "/")))
            continue;
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "the clone does not merge the file system at %s: it is not mounted there, or its agent cannot; name it in the guest's /etc/fstab, or unmount it for the time of the upgrade", dir);
    }
    return 0;
}

/* The frozen bases come now: while the clone booted, they would have been in the way (upgrade_disks.c). */
static int plug_bases(struct molt_op *op, struct molt_chan *clone, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *a = molt_json_object();
    molt_json_set(a, "disks", up_disks_pairs(op));
    int r = up_disks_plug_bases(op, err);
    return r < 0 ? r : molt_call(clone, "disks-wait", a, NULL, NULL, err);
}

static int merge_begin(struct molt_op *op, struct molt_chan *clone, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *a = molt_json_object(), *v = NULL;
    CLEANUP_FREE char *path = molt_xasprintf("%s/" UP_RESOLVE, molt_op_dir(op)), *resolve = NULL;
    if (molt_exists(path)) {
        int r = molt_resolve_load(path, &resolve, NULL, err);
        if (r < 0)
            return r;
        molt_json_set_string(a, "resolve", resolve);
    }
    molt_json_set(a, "disks", up_disks_pairs(op));
    molt_json_set_string(a, "on_conflict", up_param(op, "on_conflict"));
    molt_json_set_int(a, "snapshot_ns", up_fact_int(op, "snapshot_ns", 0));
    int r = up_long_call(clone, "merge-begin", a, &v, err);
    return r < 0 ? r : check_covered(op, v, err);
}

void up_note_merge(struct molt_op *op, struct molt_chan *clone)
{
    struct molt_json *v = NULL;
    if (up_guest_json(clone, "merge-report", &v, NULL) == 0)
        molt_op_note(op, "merge", v);
}

/* The ring between the agents was cut: a new one, and the next pass does the rest of the one that it was cut in. */
static int reconnect(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *active, *clone;
    int r = up_active(op, &active, err);
    if (r == 0)
        r = up_clone(op, &clone, err);
    return r < 0 ? r : up_introduce(op, active, clone, err);
}

int up_merge_pass(struct molt_op *op, struct molt_chan *clone, struct molt_json **ret, struct molt_error **err)
{
    if (folders(op) && molt_json_size(folders(op)) == 0)
        return 0; /* nothing goes along */
    int r = up_long_call(clone, "merge-pass", NULL, ret, err);
    for (int tries = 0; r == MOLT_E_PROTOCOL && !clone->broken && tries < MAX_CUTS; tries++) {
        molt_warn(molt_op_log(op), "a merge pass was cut short, once more: %s", molt_error_text(*err));
        molt_error_clear(err);
        molt_json_free(*ret);
        *ret = NULL;
        r = reconnect(op, err);
        if (r == 0)
            r = up_long_call(clone, "merge-pass", NULL, ret, err);
    }
    return r == MOLT_E_CONFLICT ? up_conflict(op, clone, err) : r;
}

int up_converge(struct molt_op *op, struct molt_chan *clone, struct molt_error **err)
{
    int r = 0;
    for (int i = 0; r == 0 && i < MOLT_MAX_PREMERGE; i++) {
        CLEANUP_JSON struct molt_json *st = NULL;
        r = up_merge_pass(op, clone, &st, err);
        int64_t actions = molt_json_get_int(st, "actions", 0);
        if (r == 0)
            molt_op_progress(op, -1, "merge pass %d: %lld paths, %lld bytes, %lld ms", i + 1, (long long)actions,
                             (long long)molt_json_get_int(st, "bytes", 0), (long long)molt_json_get_int(st, "ms", 0));
        if (molt_op_aborting(op))
            return molt_error_set(err, MOLT_E_ABORTED, "aborted");
        if (r == 0 && actions <= MOLT_PREMERGE_ENOUGH)
            break;
    }
    return r;
}

static bool waits(struct molt_op *op)
{
    return up_param_int(op, "wait_hours") > 0;
}

/* The passes; in between, where that is wanted, an admin's look and word. */
static int merge_and_wait(struct molt_op *op, struct molt_chan *active, struct molt_chan *clone, struct molt_error **err)
{
    int r = up_converge(op, clone, err);
    /* Told to go on it does, unless there are new conflicts by then. */
    for (int i = 0; waits(op) && ((r == 0 && i == 0) || (r == MOLT_E_CONFLICT && i < UP_MAX_WAITS)); i++) {
        if (r == 0)
            up_note_merge(op, clone);
        molt_error_clear(err); /* who waits is shown them */
        r = up_wait(op, active, clone, err);
        if (r == 0)
            r = up_converge(op, clone, err);
    }
    /* Cheap by now; and the last moment at which it costs no freeze. */
    if (r == 0)
        r = up_long_call(clone, "merge-check", NULL, NULL, err);
    if (r == 0) {
        up_note_merge(op, clone);
        up_warn_unused(op);
    }
    return r;
}

/* Into ctx, an object: those of the unit. */
static int fetch_pins(struct molt_op *op, const char *unit, void *ctx, struct molt_error **err)
{
    struct molt_chan *clone;
    CLEANUP_JSON struct molt_json *args = molt_json_object(), *pins = NULL;
    molt_json_set_string(args, "unit", unit);
    molt_json_set_string(args, "operation", molt_op_id(op));
    int r = up_clone(op, &clone, err);
    if (r == 0)
        r = up_long_call(clone, "pins-fetch", args, &pins, err);
    if (r == 0)
        molt_json_set(ctx, unit, molt_json_copy(molt_json_get(pins, "pins")));
    return r;
}

static void note_levels(struct molt_op *op, const struct molt_json *told)
{
    static const char *const numbers[] = {"equal", "newer", "older", "gone", "added"};
    const char *level = molt_json_get_string(told, "level");
    struct molt_json *levels = molt_json_object(); /* app-compare names the packages */
    if (level)
        molt_json_set_string(levels, "level", level);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        molt_json_set_int(levels, numbers[i], molt_json_get_int(told, numbers[i], 0));
    molt_op_note(op, "levels", levels);
}

/* The first reason that counts. A user whom the clone does not know may be one of a directory service, which it cannot ask; one with another number is another. */
static const struct molt_json *first_reason(struct molt_op *op, const struct molt_json *u)
{
    const struct molt_json *list = molt_json_get(u, "reasons");
    for (size_t i = 0; i < molt_json_size(list); i++) {
        const struct molt_json *why = molt_json_at(list, i);
        const char *detail = molt_json_get_string(why, "detail");
        if (!molt_streq(molt_json_get_string(why, "what"), "no such owner here"))
            return why;
        molt_warn(molt_op_log(op), "the upgraded system: %.300s", detail ? detail : "a user is missing");
    }
    return NULL;
}

/* One that the new system has no unit for, or whose user is another one's there; "restart" or "refuse", of app-compare's words. */
static int check_verdicts(struct molt_op *op, const struct molt_json *units, struct molt_error **err)
{
    for (size_t i = 0; i < molt_json_size(units); i++) {
        const struct molt_json *u = molt_json_at(units, i), *why = first_reason(op, u);
        const char *unit = molt_json_get_string(u, "unit"), *verdict = molt_json_get_string(u, "verdict");
        const char *detail = molt_json_get_string(why, "detail"), *remedy = molt_json_get_string(why, "remedy");
        if (!why)
            continue;
        molt_op_note(op, "verdicts", molt_json_copy(units));
        return molt_error_set(err, MOLT_E_CANNOT_MOVE, "%.128s cannot move to the upgraded system as it runs (%.16s): %.300s; %.300s", unit ? unit : "a service", verdict ? verdict : "?",
                              detail ? detail : "no reason told", remedy ? remedy : "");
    }
    return 0;
}

int up_compare(struct molt_op *op, struct molt_chan *active, struct molt_chan *clone, bool units, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    CLEANUP_ERROR struct molt_error *e = NULL;
    if (molt_app_compare(active, clone, units ? up_param(op, "workload") : NULL, units ? MOLT_APP_USERS : MOLT_APP_PACKAGES, &v, &e) < 0) {
        molt_warn(molt_op_log(op), "the two systems are not compared: %s", molt_error_text(e));
        return 0;
    }
    note_levels(op, molt_json_get(v, "packages"));
    return units ? check_verdicts(op, molt_json_get(v, "units"), err) : 0;
}

int up_fetch_pins(struct molt_op *op, struct molt_error **err)
{
    molt_op_progress(op, -1, "copying the files that the process still needs in their old form");
    struct molt_json *pins = molt_json_object();
    int r = up_each_unit(op, fetch_pins, pins, err);
    molt_op_note(op, "unit_pins", pins);
    return r;
}

int step_premerge(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *active, *clone;
    int r = up_active(op, &active, err);
    if (r == 0)
        r = up_clone(op, &clone, err);
    if (r == 0)
        r = up_introduce(op, active, clone, err);
    if (r == 0)
        r = plug_bases(op, clone, err);
    molt_op_progress(op, -1, "scanning base and upgraded tree");
    if (r == 0)
        r = merge_begin(op, clone, err);
    if (r == 0)
        r = merge_and_wait(op, active, clone, err);
    if (r < 0)
        return r;
    r = up_compare(op, active, clone, true, err);
    if (r == 0)
        r = up_volumes_release(op, clone, err);
    return r < 0 ? r : up_fetch_pins(op, err);
}

/* ---- prepare ---- */

int up_vifs_of(struct molt_op *op, uint32_t domid, struct up_vifs *ret, struct molt_error **err)
{
    libxl_domain_config cfg;
    uint32_t active = (uint32_t)up_param_int(op, "domid");
    int r = molt_domain_config(up_of(op)->x, active, &cfg, err);
    *ret = (struct up_vifs){0};
    if (r < 0)
        return r;
    ret->v = molt_xcalloc((size_t)cfg.num_nics, sizeof(*ret->v));
    for (ret->n = 0; ret->n < cfg.num_nics; ret->n++) {
        struct libxl_device_nic *n = &cfg.nics[ret->n];
        struct molt_hold_vif *v = &ret->v[ret->n];
        if (domid != active)
            molt_set_string(&n->ifname, NULL);
        *v = (struct molt_hold_vif){.vif = molt_vif_name(n, domid), .bridge = molt_xstrdup(n->bridge)};
        memcpy(v->mac, n->mac, sizeof(v->mac));
    }
    libxl_domain_config_dispose(&cfg);
    return 0;
}

void up_vifs_clear(struct up_vifs *v)
{
    for (int i = 0; i < v->n; i++) {
        free(v->v[i].vif);
        free(v->v[i].bridge);
    }
    free(v->v);
}

int up_clone_vifs(struct molt_op *op, const struct up_vifs **ret, struct molt_error **err)
{
    struct up_vifs *v = &up_of(op)->clone_vifs;
    *ret = v;
    return v->v ? 0 : up_vifs_of(op, (uint32_t)up_fact_int(op, "clone_domid", 0), v, err);
}

int up_release(struct molt_op *op, const struct up_vifs *v, struct molt_error **err)
{
    struct molt_hold_stats st;
    int r = molt_hold_release(molt_op_id(op), v->v, v->n, &st, err);
    if (r == 0)
        up_note_held(op, &st);
    return r;
}

void up_note_held(struct molt_op *op, const struct molt_hold_stats *st)
{
    struct molt_json *held = molt_json_object();
    molt_json_set_int(held, "packets", (int64_t)st->packets);
    molt_json_set_int(held, "bytes", (int64_t)st->bytes);
    molt_json_set_int(held, "dropped", (int64_t)st->dropped);
    molt_op_note(op, "held", held);
}

/* Made before the workload stands still: the kernel may have modules to load. Without it the upgrade goes on as well. */
static int prepare_hold(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_VIFS struct up_vifs vifs = {0};
    CLEANUP_ERROR struct molt_error *e = NULL;
    int r = up_vifs_of(op, (uint32_t)up_param_int(op, "domid"), &vifs, err);
    if (r == 0 && molt_hold_prepare(molt_op_id(op), vifs.v, vifs.n, &e) < 0)
        molt_warn(molt_op_log(op), "packets that arrive in the freeze are not held, clients have to send them again: %s", molt_error_text(e));
    return r;
}

int undo_prepare(struct molt_op *op, struct molt_error **err)
{
    return molt_hold_remove(molt_op_id(op), NULL, 0, err);
}

/* Into ctx, an array: what the clone needs to know of the unit. */
static int prepare_unit(struct molt_op *op, const char *unit, void *ctx, struct molt_error **err)
{
    struct molt_chan *active;
    CLEANUP_JSON struct molt_json *ask = molt_json_object(), *now = NULL;
    molt_json_set_string(ask, "unit", unit);
    int r = up_active(op, &active, err);
    if (r == 0)
        r = molt_call(active, "dump-prepare", ask, NULL, &now, err); /* threads may have come since the preflight */
    if (r < 0)
        return r;
    const struct molt_json *w = molt_json_get(now, "workload");
    struct molt_json *args = molt_json_object();
    molt_json_append(ctx, args);
    molt_json_set_string(args, "unit", unit);
    molt_json_set_int(args, "main_pid", molt_json_get_int(w, "main_pid", 0));
    molt_json_set(args, "ids", molt_json_copy(molt_json_get(w, "tids")));
    molt_json_set_bool(args, "overlay", true);
    if (molt_json_get_string(w, "cwd"))
        molt_json_set_string(args, "cwd", molt_json_get_string(w, "cwd"));
    return 0;
}

int up_prepare(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *clone;
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    struct molt_json *list = molt_json_array();
    molt_json_set(args, "units", list);
    int r = up_each_unit(op, prepare_unit, list, err);
    if (r == 0)
        r = up_clone(op, &clone, err);
    if (r == 0)
        r = up_long_call(clone, "restore-prepare", args, NULL, err);
    return r;
}

/* The clone's vifs, too: in their bridges, where they neither hear nor speak. What fails here is done, and told, by the switch. */
static int place_clone(struct molt_op *op, struct molt_error **err)
{
    const struct up_vifs *seen;
    int r = up_clone_vifs(op, &seen, err);
    if (r == 0)
        (void)molt_hold_place(molt_op_id(op), up_of(op)->clone_vifs.v, seen->n, NULL);
    return r;
}

int step_prepare(struct molt_op *op, struct molt_error **err)
{
    int r = up_prepare(op, err);
    if (r == 0)
        r = prepare_hold(op, err);
    return r < 0 ? r : place_clone(op, err);
}

/* ---- freeze ---- */

int up_final_passes(struct molt_op *op, struct molt_chan *clone, struct molt_error **err)
{
    for (int i = 0; i < MAX_FINAL; i++) {
        CLEANUP_JSON struct molt_json *last = NULL;
        int r = up_merge_pass(op, clone, &last, err);
        if (r < 0)
            return r;
        if (last)
            molt_op_note(op, "final_pass", molt_json_copy(last));
        if (molt_json_get_int(last, "vanished", 0) == 0)
            return 0;
    }
    return molt_error_set(err, MOLT_E_CONFLICT, "files of the guest keep vanishing while they are copied; is something besides the workload busy there?");
}

/* What the guest's other processes go on writing would be lost: the agent stops them with the workload. */
static void warn_bystanders(struct molt_op *op, const struct molt_json *dump)
{
    const struct molt_json *b = molt_json_get(dump, "bystanders");
    const char *error = molt_json_get_string(b, "error"), *late = molt_json_get_string(b, "late");
    if (error || !b)
        molt_warn(molt_op_log(op), "what other processes of %s write from here on is lost: %s", molt_op_subject(op), error ? error : "its agent cannot stop them");
    else if (late)
        molt_warn(molt_op_log(op), "%s of %s does not stand still; what it writes from here on may be lost", late, molt_op_subject(op));
}

int up_arm_dump(struct molt_op *op, struct molt_chan *active, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *e = NULL;
    CLEANUP_JSON struct molt_json *args = up_units_args(op);
    int r = molt_call(active, "dump-arm", args, NULL, NULL, &e);
    if (r < 0 && active->broken) {
        molt_error_move(err, MOLT_STEAL_PTR(e));
        return r;
    }
    if (r < 0)
        molt_warn(molt_op_log(op), "CRIU is started in the freeze: %s", molt_error_text(e));
    return 0;
}

bool up_older_agent(const struct molt_chan *c, int r, struct molt_error **err)
{
    if (r != MOLT_E_PROTOCOL || c->broken)
        return false;
    molt_error_clear(err);
    return true;
}

/* The workload stands still, and from then on dom0 holds what comes for it; that takes its time beside CRIU's. Before the first socket is read both
 * are true: what came in between is in the sockets' queues, and moves with them. What it sends until it stands goes out. */
static int stand_still(struct molt_op *op, struct molt_chan *active, const struct up_vifs *vifs, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = up_units_args(op);
    CLEANUP_ERROR struct molt_error *e = NULL;
    const struct molt_call call = {.timeout_ms = UP_LONG_CALL_MS};
    uint32_t seq;
    int r = molt_call_begin(active, "dump-freeze", args, &seq, err);
    if (r < 0)
        return r;
    int held = molt_hold_engage(molt_op_id(op), vifs->v, vifs->n, &e);
    up_note_us(op, "t_held");
    r = molt_call_end(active, "dump-freeze", seq, &call, NULL, err);
    up_note_us(op, "t_seized");
    if (up_older_agent(active, r, err)) /* "dump" does it */
        r = 0;
    if (r == 0 && (r = held) < 0)
        molt_error_move(err, MOLT_STEAL_PTR(e));
    return r;
}

static int mute_beside(struct molt_op *op, void *ctx, struct molt_error **err)
{
    const struct up_vifs *vifs = ctx;
    return molt_hold_mute(molt_op_id(op), vifs->v, vifs->n, err);
}

/* The workload stands still when this returns, and CRIU reads it, beside what comes next. The vifs are muted meanwhile. */
static int begin_dump(struct molt_op *op, struct molt_chan *active, const struct up_vifs *vifs, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = up_units_args(op);
    molt_json_set_bool(args, "early", true);
    int r = up_call_beside(op, active, "dump", args, mute_beside, (void *)vifs, ret, err);
    up_note_us(op, "t_still");
    if (r < 0)
        return r;
    warn_bystanders(op, *ret);
    up_warn_unsettled(op, *ret);
    return molt_fault("freeze") ? molt_error_set(err, MOLT_E_INTERNAL, "fault point freeze") : 0;
}

/* CRIU's end in the active, where it was asked for. */
static int hear_dump_end(struct molt_op *op, struct molt_error **err)
{
    struct upgrade *u = up_of(op);
    CLEANUP_JSON struct molt_json *done = NULL;
    const struct molt_call call = {.timeout_ms = UP_LONG_CALL_MS};
    if (!u->dump_ends)
        return 0;
    u->dump_ends = false;
    int r = u->active ? molt_call_end(u->active, "dump-end", u->dump_end, &call, &done, err) : molt_error_set(err, MOLT_E_STATE, "active: the connection is gone");
    if (r < 0)
        return r;
    struct molt_json *dump = molt_json_copy(molt_json_get(molt_op_notes(op), "dump"));
    molt_json_set(dump, "units", molt_json_copy(molt_json_get(done, "units")));
    molt_op_note(op, "dump", dump);
    return 0;
}

/* All that the dump writes is there. While CRIU leaves the processes, the images go on. */
static int end_dump(struct molt_op *op, struct molt_chan *active, struct molt_error **err)
{
    struct upgrade *u = up_of(op);
    int r = up_long_call(active, "dump-written", NULL, NULL, err);
    bool older = up_older_agent(active, r, err); /* it has "dump-end" alone */
    if (r == 0 || older)
        r = molt_call_begin(active, "dump-end", NULL, &u->dump_end, err);
    u->dump_ends = r == 0;
    return r == 0 && older ? hear_dump_end(op, err) : r;
}

int up_take_images(struct molt_op *op, struct molt_chan *active, struct molt_chan *clone, struct molt_json *dump, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = up_units_args(op), *taken = NULL;
    const struct molt_call call = {.timeout_ms = UP_LONG_CALL_MS};
    uint32_t seq;
    int r = molt_call_begin(clone, "images-fetch", args, &seq, err);
    if (r < 0)
        return r;
    molt_op_note(op, "dump", molt_json_copy(dump));
    r = molt_json_get_bool(dump, "dumping", false) ? end_dump(op, active, err) : 0;
    up_note_us(op, "t_dumped");
    if (r < 0) {
        up_drop(&up_of(op)->clone); /* it goes with what it waits for */
        return r;
    }
    r = molt_call_end(clone, "images-fetch", seq, &call, &taken, err);
    up_note_us(op, "t_images");
    if (r == 0)
        molt_op_note(op, "images", molt_json_copy(taken));
    return r;
}

int up_before_freeze(struct molt_op *op, struct molt_chan *active, struct molt_error **err)
{
    int r = molt_op_put(op, "hooked", molt_json_bool(true), err);
    return r < 0 ? r : up_hooks(op, active, "before-freeze", err);
}

void up_tell_error(struct molt_op *op)
{
    CLEANUP_ERROR struct molt_error *e = NULL;
    struct molt_chan *active;
    int r = up_active(op, &active, &e);
    if (r == 0)
        r = up_hooks(op, active, "on-error", &e);
    if (r < 0)
        molt_warn(molt_op_log(op), "%s", molt_error_text(e));
}

/* The guard's. Without what op-recover may have removed already this still puts the vifs back. */
static void give_back(const char *op_id, const void *ctx)
{
    const struct up_vifs *v = ctx;
    if (molt_hold_release(op_id, v->v, v->n, NULL, NULL) == 0)
        molt_hold_remove(op_id, v->v, v->n, NULL);
}

#define FACT_REQUESTS "requests" /* [bool]: molt_hold_vif's, in its order */

static int put_requests(struct molt_op *op, const struct up_vifs *v, struct molt_error **err)
{
    struct molt_json *list = molt_json_array();
    for (int i = 0; i < v->n; i++)
        molt_json_append(list, molt_json_bool(v->v[i].requests));
    return molt_op_put(op, FACT_REQUESTS, list, err);
}

static void get_requests(struct molt_op *op, struct up_vifs *v)
{
    const struct molt_json *list = molt_json_get(molt_op_facts(op), FACT_REQUESTS);
    for (int i = 0; i < v->n; i++)
        v->v[i].requests = molt_json_boolval(molt_json_at(list, (size_t)i), false);
}

/* From here the workload stands still: packets for it are held in dom0 (hold.h), it is dumped, and beside that what it wrote last is merged. */
int step_freeze(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *active, *clone;
    CLEANUP_JSON struct molt_json *dump = NULL;
    CLEANUP_VIFS struct up_vifs vifs = {0};
    const struct up_vifs *later;
    int r = up_active(op, &active, err);
    if (r == 0)
        r = up_clone(op, &clone, err);
    if (r == 0)
        r = up_clone_vifs(op, &later, err);
    if (r == 0)
        r = up_vifs_of(op, (uint32_t)up_param_int(op, "domid"), &vifs, err);
    if (r == 0)
        r = up_before_freeze(op, active, err);
    if (r == 0)
        r = molt_op_put(op, "freezing", molt_json_bool(true), err);
    if (molt_hold_can_requests(molt_op_id(op), vifs.v, vifs.n) > 0)
        molt_warn(molt_op_log(op), "a vif of %s has filters already, so new connections are not held before the freeze: one that comes right then may be reset", molt_op_subject(op));
    if (r == 0)
        r = put_requests(op, &vifs, err);
    if (r == 0)
        r = molt_guard_start(molt_op_id(op), give_back, &vifs, &up_of(op)->guard, err);
    if (r == 0)
        r = up_arm_dump(op, active, err);
    if (r == 0)
        r = molt_hold_requests(molt_op_id(op), vifs.v, vifs.n, err);
    if (r == 0)
        r = up_settle(op, active, true, err);
    if (r < 0)
        return r;
    (void)molt_hold_look(molt_op_id(op), vifs.v, vifs.n, NULL); /* else the hold looks itself, and tells what it does not find */
    up_hurry(op, true);
    up_note_us(op, "t_freeze");
    r = stand_still(op, active, &vifs, err);
    if (r == 0)
        r = begin_dump(op, active, &vifs, &dump, err);
    if (r == 0)
        r = up_volumes_hand_over(op, active, clone, err);
    if (r == 0)
        r = up_final_passes(op, clone, err);
    if (r < 0)
        return r;
    up_note_us(op, "t_merged");
    return up_take_images(op, active, clone, dump, err);
}

/* Past this nothing of ours stands between the guest and its bridge. */
static int thaw_vifs(struct molt_op *op, uint32_t domid, struct molt_error **err)
{
    CLEANUP_VIFS struct up_vifs vifs = {0};
    int r = up_vifs_of(op, domid, &vifs, err);
    get_requests(op, &vifs);
    if (r == 0)
        r = up_release(op, &vifs, err);
    return r < 0 ? r : molt_hold_remove(molt_op_id(op), vifs.v, vifs.n, err);
}

static int undo_standstill(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *active;
    struct molt_domain d;
    if (molt_domain_info(up_of(op)->x, (uint32_t)up_param_int(op, "domid"), &d, NULL) < 0 || !molt_streq(d.uuid, up_param(op, "uuid")))
        return 0; /* the guest itself is gone: nothing to thaw */
    up_drop(&up_of(op)->active); /* its last call may have been cut */
    int r = up_active(op, &active, err);
    if (r == 0)
        r = up_volumes_thaw(op, active, err);
    if (r == 0)
        r = up_call_units(op, active, "resume", NULL, err);
    if (r == MOLT_E_NO_WORKLOAD) {
        molt_warn(molt_op_log(op), "%s does not run any more: nothing to resume", up_param(op, "workload"));
        molt_error_clear(err);
        r = 0;
    }
    int v = thaw_vifs(op, d.domid, r < 0 ? NULL : err);
    up_hurry(op, false);
    molt_guard_stop(up_of(op)->guard);
    up_of(op)->guard = -1;
    return r < 0 ? r : v;
}

int undo_freeze(struct molt_op *op, struct molt_error **err)
{
    int r = molt_json_get_bool(molt_op_facts(op), "freezing", false) ? undo_standstill(op, err) : 0;
    struct molt_domain d;
    /* Nothing waits for it any more; a guest that is gone is told nothing. */
    if (r == 0 && molt_json_get_bool(molt_op_facts(op), "hooked", false) &&
        molt_domain_info(up_of(op)->x, (uint32_t)up_param_int(op, "domid"), &d, NULL) == 0 && molt_streq(d.uuid, up_param(op, "uuid")))
        up_tell_error(op);
    return r;
}

/* ---- restore ---- */

static void warn_datagrams(struct molt_op *op, int64_t lost)
{
    if (lost > 0)
        molt_warn(molt_op_log(op), "%" PRId64 " datagram%s that %s had not read yet %s lost", lost, lost == 1 ? "" : "s", up_param(op, "workload"), lost == 1 ? "is" : "are");
}

int up_restore(struct molt_op *op, void (*meanwhile)(struct molt_op *op), struct molt_error **err)
{
    struct molt_chan *clone;
    CLEANUP_JSON struct molt_json *args = up_units_args(op), *done = NULL;
    const struct molt_call call = {.timeout_ms = UP_LONG_CALL_MS};
    uint32_t seq;
    int r = up_clone(op, &clone, err);
    if (r == 0)
        r = molt_call_begin(clone, "restore-go", args, &seq, err);
    if (r < 0)
        return r;
    meanwhile(op);
    r = molt_call_end(clone, "restore-go", seq, &call, &done, err);
    if (r == 0)
        r = hear_dump_end(op, err);
    up_note_us(op, "t_restored");
    if (r < 0)
        return r;
    molt_op_note(op, "restore", molt_json_copy(done));
    warn_datagrams(op, molt_json_get_int(molt_json_get(done, "datagrams"), "lost", 0));
    return molt_fault("restore") ? molt_error_set(err, MOLT_E_INTERNAL, "fault point restore") : 0;
}

/* What can be ready for the steps behind the restore, which do, and tell, what fails here. */
static void prepare_pivot(struct molt_op *op)
{
    struct up_identity id;
    up_identity_of(op, &id);
    (void)molt_identity_prepare_pivot(&up_of(op)->x->store, &id.id, &up_of(op)->pivot, NULL);
    up_identity_clear(&id);
}

int step_restore(struct molt_op *op, struct molt_error **err)
{
    return up_restore(op, prepare_pivot, err);
}

/* What stands restored and stopped in the clone dies with it. */
int undo_restore(struct molt_op *op, struct molt_error **err)
{
    return undo_clone(op, err);
}
