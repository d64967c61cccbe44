/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The report of guest-upgrade: xenmolt-report(7), schema 1. Built from the journal alone. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "upgrade.h"

#define SCHEMA 1

static double ms_between(const struct molt_json *notes, const char *from, const char *to)
{
    int64_t a = molt_json_get_int(notes, from, 0), b = molt_json_get_int(notes, to, 0);
    return a && b ? (double)(b - a) / 1000 : -1;
}

static void set_ms(struct molt_json *v, const char *key, double ms)
{
    if (ms >= 0)
        molt_json_set_double(v, key, ms);
}

/* Disks were handed over before it, where there are such. */
static double final_pass_ms(const struct molt_json *notes)
{
    return ms_between(notes, molt_json_get(notes, "t_handed") ? "t_handed" : "t_still", "t_merged");
}

/* The statistics of that unit. done: a note, {"units": [{"unit", "stats"}]}. */
static const struct molt_json *stats_of(const struct molt_json *done, const char *unit)
{
    const struct molt_json *list = molt_json_get(done, "units");
    for (size_t i = 0; i < molt_json_size(list); i++)
        if (molt_streq(molt_json_get_string(molt_json_at(list, i), "unit"), unit))
            return molt_json_get(molt_json_at(list, i), "stats");
    return NULL;
}

/* Of several the one that took longest by that number; NULL: there are none. */
static const struct molt_json *longest(const struct molt_json *done, const char *key)
{
    const struct molt_json *list = molt_json_get(done, "units"), *found = NULL;
    for (size_t i = 0; i < molt_json_size(list); i++) {
        const struct molt_json *st = molt_json_get(molt_json_at(list, i), "stats");
        if (st && (!found || molt_json_get_int(st, key, 0) > molt_json_get_int(found, key, 0)))
            found = st;
    }
    return found;
}

static void set_time(struct molt_json *v, const char *key, int64_t us)
{
    char stamp[MOLT_STAMP_MAX];
    if (us > 0)
        molt_json_set_string(v, key, molt_stamp(us, stamp));
}

static struct molt_json *datagrams(const struct molt_json *said)
{
    struct molt_json *v = molt_json_object();
    molt_json_set_int(v, "moved", molt_json_get_int(said, "moved", 0));
    molt_json_set_int(v, "lost", molt_json_get_int(said, "lost", 0));
    return v;
}

static struct molt_json *split(const struct molt_json *notes)
{
    struct molt_json *v = molt_json_object();
    const struct molt_json *restore = molt_json_get(notes, "restore");
    set_time(v, "started", molt_json_get_int(notes, "t_freeze", 0));
    set_time(v, "ended", molt_json_get_int(notes, "t_thawed", 0));
    set_ms(v, "freeze_ms", ms_between(notes, "t_freeze", "t_still"));
    set_ms(v, "hold_ms", ms_between(notes, "t_freeze", "t_held"));
    set_ms(v, "seize_ms", ms_between(notes, "t_freeze", "t_seized"));
    set_ms(v, "hand_over_ms", ms_between(notes, "t_still", "t_handed"));
    set_ms(v, "final_pass_ms", final_pass_ms(notes));
    set_ms(v, "dump_ms", ms_between(notes, "t_merged", "t_dumped"));
    set_ms(v, "transport_ms", ms_between(notes, "t_dumped", "t_images"));
    set_ms(v, "restore_ms", molt_json_get_double(restore, "restore_ms", -1));
    set_ms(v, "pivot_ms", ms_between(notes, "t_restored", "t_pivot"));
    set_ms(v, "switch_ms", ms_between(notes, "t_pivot", "t_thawed"));
    set_ms(v, "release_ms", ms_between(notes, "t_pivot", "t_released"));
    set_ms(v, "thaw_ms", molt_json_get_double(molt_json_get(notes, "thaw"), "ms", -1));
    if (molt_json_get(restore, "datagrams"))
        molt_json_set(v, "datagrams", datagrams(molt_json_get(restore, "datagrams")));
    if (molt_json_get(notes, "settle"))
        molt_json_set(v, "settle", molt_json_copy(molt_json_get(notes, "settle")));
    const struct molt_json *d = longest(molt_json_get(notes, "dump"), "frozen_us"), *rs = longest(restore, "restore_us");
    if (d)
        molt_json_set(v, "criu_dump", molt_json_copy(d));
    const struct molt_json *b = molt_json_get(molt_json_get(notes, "dump"), "bystanders");
    if (b)
        molt_json_set(v, "bystanders", molt_json_copy(b));
    if (molt_json_get(notes, "final_pass"))
        molt_json_set(v, "final_pass", molt_json_copy(molt_json_get(notes, "final_pass")));
    if (molt_json_get(notes, "held"))
        molt_json_set(v, "held", molt_json_copy(molt_json_get(notes, "held")));
    if (rs)
        molt_json_set(v, "criu_restore", molt_json_copy(rs));
    return v;
}

static struct molt_json *merge_part(const struct molt_json *notes)
{
    const struct molt_json *m = molt_json_get(notes, "merge");
    struct molt_json *v = m ? molt_json_copy(m) : molt_json_object();
    if (!molt_json_get(v, "conflicts"))
        molt_json_set(v, "conflicts", molt_json_array());
    set_ms(v, "final_pass_ms", final_pass_ms(notes));
    return v;
}

static const struct molt_json *of_unit(const struct molt_json *workloads, const char *unit)
{
    for (size_t i = 0; i < molt_json_size(workloads); i++)
        if (molt_streq(molt_json_get_string(molt_json_at(workloads, i), "unit"), unit))
            return molt_json_at(workloads, i);
    return NULL;
}

static int add_process(struct molt_op *op, const char *unit, void *ctx, struct molt_error **err)
{
    const struct molt_json *notes = molt_op_notes(op), *dump = molt_json_get(notes, "dump"), *restore = molt_json_get(notes, "restore");
    const struct molt_json *w = of_unit(molt_json_get(dump, "workloads"), unit);
    const struct molt_json *after = of_unit(molt_json_get(molt_json_get(notes, "verify"), "workloads"), unit);
    const struct molt_json *pins = molt_json_get(molt_json_get(notes, "unit_pins"), unit);
    struct molt_json *v = molt_json_object();
    (void)err;
    if (!w)
        w = of_unit(molt_json_get(molt_op_params(op), "workloads_before"), unit);
    molt_json_set_string(v, "unit", unit);
    molt_json_set_int(v, "pid", molt_json_get_int(w, "main_pid", 0));
    molt_json_set_int(v, "pid_after", molt_json_get_int(after, "main_pid", 0));
    molt_json_set_int(v, "processes", (int64_t)molt_json_size(molt_json_get(w, "pids")));
    molt_json_set_int(v, "threads", (int64_t)molt_json_size(molt_json_get(w, "tids")));
    molt_json_set_int(v, "memory_bytes", molt_json_get_int(w, "rss_bytes", 0));
    molt_json_set_int(v, "connections", molt_json_get_int(w, "connections", 0));
    molt_json_set_int(v, "connections_after", molt_json_get_int(after, "connections", 0));
    const struct molt_json *judged = of_unit(molt_json_get(notes, "verdicts"), unit);
    if (pins)
        molt_json_set_string(v, "verdict", molt_json_size(pins) ? "move-overlay" : "move");
    else if (judged) { /* it ended there */
        molt_json_set(v, "verdict", molt_json_copy(molt_json_get(judged, "verdict")));
        molt_json_set(v, "reasons", molt_json_copy(molt_json_get(judged, "reasons")));
    }
    molt_json_set(v, "pins", pins ? molt_json_copy(pins) : molt_json_array());
    if (stats_of(dump, unit))
        molt_json_set(v, "criu_dump", molt_json_copy(stats_of(dump, unit)));
    if (stats_of(restore, unit))
        molt_json_set(v, "criu_restore", molt_json_copy(stats_of(restore, unit)));
    if (stats_of(molt_json_get(notes, "paged"), unit))
        molt_json_set(v, "paged_later", molt_json_copy(stats_of(molt_json_get(notes, "paged"), unit)));
    molt_json_append(ctx, v);
    return 0;
}

static struct molt_json *retained_part(struct molt_op *op)
{
    struct molt_json *v = molt_json_array();
    if (molt_op_state(op) != MOLT_OP_DONE && molt_op_state(op) != MOLT_OP_FORWARD)
        return v;
    if (!molt_streq(molt_op_kind(op), molt_guest_upgrade_table.kind))
        return v; /* nothing is */
    CLEANUP_FREE char *name = up_replaced_name(op);
    CLEANUP_FREE char *dom = molt_xasprintf("domain %s (paused)", name);
    struct up_disks disks;
    CLEANUP_FREE char *cfg = molt_xlcfg_path(up_of(op)->x, molt_op_subject(op));
    CLEANUP_FREE char *start = molt_xasprintf("configuration for the next xl create: %s", cfg);
    molt_json_append(v, molt_json_string(start));
    molt_json_append(v, molt_json_string(dom));
    up_disks_of(op, &disks);
    for (size_t i = 0; i < disks.n; i++) {
        /* What the old domain stands on: its volume, or its overlays. */
        const char *const on[] = {disks.v[i].lvm ? disks.v[i].path : disks.v[i].delta_a, disks.v[i].hand_a};
        for (size_t k = 0; k < 2; k++)
            if (on[k]) {
                CLEANUP_FREE char *disk = molt_xasprintf("disk %s", on[k]);
                molt_json_append(v, molt_json_string(disk));
            }
    }
    return v;
}

struct molt_json *up_report(struct molt_op *op)
{
    const struct molt_json *notes = molt_op_notes(op);
    struct molt_json *v = molt_json_object();
    enum molt_op_state st = molt_op_state(op);
    molt_json_set_int(v, "schema", SCHEMA);
    molt_json_set_string(v, "operation", molt_op_id(op));
    molt_json_set_string(v, "kind", molt_op_kind(op));
    molt_json_set_string(v, "domain", molt_op_subject(op));
    molt_json_set_string(v, "result", st == MOLT_OP_DONE || st == MOLT_OP_FORWARD ? "success" : molt_op_state_text(st));
    molt_json_set_string(v, "recipe", up_param(op, "recipe_name"));
    molt_json_set(v, "os_before", molt_json_copy(molt_json_get(notes, "os_before")));
    const struct molt_json *after = molt_json_get(molt_json_get(notes, "verify"), "os");
    molt_json_set(v, "os_after", molt_json_copy(after ? after : molt_json_get(notes, "os_after")));
    if (molt_json_get(notes, "levels"))
        molt_json_set(v, "packages", molt_json_copy(molt_json_get(notes, "levels")));
    molt_json_set(v, "phases", molt_op_phases(op));
    set_ms(v, "snapshot_pause_ms", molt_json_get_double(notes, "snapshot_pause_ms", -1));
    set_ms(v, "blackout_ms", ms_between(notes, "t_freeze", "t_thawed"));
    molt_json_set(v, "blackout", split(notes));
    const struct molt_json *rounds = molt_json_get(notes, "predump");
    molt_json_set(v, "predump", rounds ? molt_json_copy(rounds) : molt_json_array());
    const struct molt_json *trials = molt_json_get(notes, "rehearsal");
    molt_json_set(v, "rehearsal", trials ? molt_json_copy(trials) : molt_json_array());
    molt_json_set(v, "merge", merge_part(notes));
    struct molt_json *processes = molt_json_array();
    (void)up_each_unit(op, add_process, processes, NULL);
    molt_json_set(v, "process", molt_json_copy(molt_json_at(processes, 0)));
    molt_json_set(v, "processes", processes);
    const struct molt_json *hooks = molt_json_get(notes, "hooks");
    molt_json_set(v, "hooks", hooks ? molt_json_copy(hooks) : molt_json_array());
    const struct molt_json *w = molt_json_get(molt_op_params(op), "memory_bytes");
    molt_json_set_int(v, "peak_extra_memory_bytes", molt_json_intval(w, 0));
    molt_json_set_int(v, "peak_extra_disk_bytes", (int64_t)up_disks_allocated(op));
    molt_json_set(v, "retained", retained_part(op));
    return v;
}
