/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A trial of the restore while the guest serves: each workload is dumped (it stands still for that long, and goes on), restored in the clone
 * where nobody hears it, looked at, killed. What cannot move ends the operation here, with the reason, and not in the freeze.
 */
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "upgrade.h"

#define TRIES 2 /* a file that came after the last merge pass is missing in the clone: once more, behind another pass */

struct trial {
    struct molt_chan *active, *clone;
    int64_t rounds;             /* of memory that came before */
    struct molt_json *list;     /* for the report */
    struct molt_json *units;    /* rounds of each unit: the fact as it is to be */
};

/* What a guest says goes into the report as numbers, and no more of it. */
static void note_threads(struct molt_op *op, const struct molt_json *threads, const char *unit, struct molt_json *o)
{
    static const char *const names[] = {"reached", "busy", "left"};
    struct molt_json *copy = molt_json_object();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        molt_json_set_int(copy, names[i], molt_json_get_int(threads, names[i], 0));
    molt_info(molt_op_log(op), "trial of %s: %" PRId64 " threads came to their next system call, %" PRId64 " were at work, %" PRId64 " were not let run (their process has a file mapped that is to stay as it is, or is not there yet)",
              unit, molt_json_get_int(copy, "reached", 0), molt_json_get_int(copy, "busy", 0), molt_json_get_int(copy, "left", 0));
    molt_json_set(o, "threads", copy);
}

static void note_trial(struct molt_op *op, struct trial *t, const char *unit, const struct molt_json *dump, const struct molt_json *done)
{
    struct molt_json *o = molt_json_object();
    double frozen_ms = (double)molt_json_get_int(molt_json_get(dump, "stats"), "frozen_us", 0) / 1000;
    double restore_ms = (double)molt_json_get_int(molt_json_get(done, "stats"), "restore_us", 0) / 1000;
    molt_json_set_string(o, "unit", unit);
    molt_json_set_double(o, "frozen_ms", frozen_ms);
    molt_json_set_double(o, "restore_ms", restore_ms);
    molt_json_set_double(o, "transport_ms", molt_json_get_double(done, "transport_ms", 0));
    molt_json_set_int(o, "bytes", molt_json_get_int(done, "bytes", 0));
    note_threads(op, molt_json_get(done, "threads"), unit, o);
    molt_json_append(t->list, o);
    molt_op_progress(op, -1, "trial of %s: stood still for %.0f ms, restored in %.0f ms", unit, frozen_ms, restore_ms);
}

static int try_once(struct molt_op *op, struct trial *t, const char *unit, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object(), *pass = NULL, *dump = NULL, *done = NULL;
    int r = up_merge_pass(op, t->clone, &pass, err);
    molt_json_set_string(args, "unit", unit);
    molt_json_set_int(args, "rounds", t->rounds);
    if (r == 0)
        r = up_long_call(t->active, "rehearsal-dump", args, &dump, err);
    if (r < 0)
        return r;
    r = up_long_call(t->clone, "rehearse", args, &done, err);
    if (t->rounds > 0)
        t->rounds++; /* the bits that tell which pages were written are counted from this dump on, however the trial ended */
    if (r == 0)
        note_trial(op, t, unit, dump, done);
    return r;
}

/* A database's journal, say, that was open just then: in the freeze a last pass brings it. The kernel's own files (CRIU names paths without their first slash) no pass brings. */
static bool is_inconclusive(const struct molt_error *e)
{
    const char *text = molt_error_text(e);
    return strstr(text, "No such file or directory") && !strstr(text, " proc/") && !strstr(text, " /proc/") && !strstr(text, " sys/") && !strstr(text, " /sys/");
}

static int rehearse_unit(struct molt_op *op, const char *unit, void *ctx, struct molt_error **err)
{
    struct trial *t = ctx;
    int r = MOLT_E_CANNOT_MOVE;
    t->rounds = molt_json_get_int(molt_json_get(molt_op_facts(op), "unit_rounds"), unit, 0);
    for (int i = 0; i < TRIES && r == MOLT_E_CANNOT_MOVE; i++) {
        if (i > 0) {
            molt_warn(molt_op_log(op), "once more: %s", molt_error_text(*err));
            molt_error_clear(err);
        }
        r = try_once(op, t, unit, err);
        if (molt_op_aborting(op))
            return molt_error_set(err, MOLT_E_ABORTED, "aborted");
    }
    if (r == MOLT_E_CANNOT_MOVE && is_inconclusive(*err)) {
        molt_warn(molt_op_log(op), "the trial says nothing, a file that came after the last merge pass is not in the clone yet: %s", molt_error_text(*err));
        molt_error_clear(err);
        r = 0;
    }
    if (r == 0)
        molt_json_set_int(t->units, unit, t->rounds);
    return r;
}

int step_rehearse(struct molt_op *op, struct molt_error **err)
{
    struct trial t = {.list = molt_json_array(), .units = molt_json_object()};
    CLEANUP_JSON struct molt_json *last = NULL;
    int r = molt_json_get_bool(molt_op_params(op), "no_rehearsal", false) ? 1 : up_active(op, &t.active, err);
    if (r == 0)
        r = up_clone(op, &t.clone, err);
    if (r == 0)
        r = up_each_unit(op, rehearse_unit, &t, err);
    molt_op_note(op, "rehearsal", t.list);
    if (r != 0) {
        molt_json_free(t.units);
        return r < 0 ? r : 0;
    }
    r = molt_op_put(op, "unit_rounds", t.units, err);
    return r < 0 ? r : up_merge_pass(op, t.clone, &last, err); /* what was written meanwhile */
}
