/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory goes to the clone while the workload runs, round by round, so that the dump in the freeze has only the last written pages to
 * take. What fails here costs time and nothing else: the dump takes all then.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "upgrade.h"

#define MAX_RULE 32 /* bytes of a stop rule's name */
#define MAX_ROUNDS 16 /* the agent's own rules end them long before */

struct rounds {
    struct molt_chan *active, *clone;
    const char *unit;
    unsigned n; /* of this unit */
    bool enough;
    struct molt_json *list;  /* for the report */
    struct molt_json *units; /* how many each unit has: a fact */
};

/* A guest's word for its rule, in reports and messages. */
static bool is_rule(const char *s)
{
    return s && *s && strlen(s) <= MAX_RULE && strspn(s, "abcdefghijklmnopqrstuvwxyz-") == strlen(s);
}

static void note_round(struct molt_op *op, struct rounds *p, const struct molt_json *dump, const struct molt_json *fetched)
{
    const struct molt_json *st = molt_json_get(dump, "stats");
    struct molt_json *o = molt_json_object();
    double frozen_ms = (double)molt_json_get_int(st, "frozen_us", 0) / 1000, ms = (double)molt_json_get_int(st, "wall_us", 0) / 1000;
    int64_t pages = molt_json_get_int(st, "pages_written", 0);
    p->n++;
    p->enough = molt_json_get_bool(dump, "enough", true);
    molt_json_set_int(o, "pages", pages);
    molt_json_set_string(o, "unit", p->unit);
    molt_json_set_double(o, "ms", ms);
    molt_json_set_double(o, "frozen_ms", frozen_ms);
    molt_json_set_double(o, "transport_ms", molt_json_get_double(fetched, "ms", 0));
    molt_json_set_int(o, "bytes", molt_json_get_int(fetched, "bytes", 0));
    const char *stop = molt_json_get_string(dump, "stop");
    if (p->enough && is_rule(stop))
        molt_json_set_string(o, "stop", stop);
    molt_json_append(p->list, o);
    molt_op_progress(op, -1, "memory of %s, round %u: %lld pages, %.0f ms, of them %.0f ms standing still%s%s", p->unit, p->n, (long long)pages, ms, frozen_ms,
                     molt_json_get_string(o, "stop") ? "; the last, by the rule " : "", molt_json_get_string(o, "stop") ? stop : "");
}

static int one_round(struct molt_op *op, struct rounds *p, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object(), *dump = NULL, *fetched = NULL;
    molt_json_set_string(args, "unit", p->unit);
    molt_json_set_int(args, "round", p->n + 1);
    int r = up_long_call(p->active, "predump", args, &dump, err);
    if (r < 0)
        return r;
    const char *why = molt_json_get_string(dump, "unsupported");
    if (why) {
        molt_warn(molt_op_log(op), "memory is not copied before the freeze: %s", why);
        p->enough = true;
        return 0;
    }
    r = up_long_call(p->clone, "predump-fetch", args, &fetched, err);
    if (r == 0)
        note_round(op, p, dump, fetched);
    return r;
}

static int all_rounds(struct molt_op *op, const char *unit, void *ctx, struct molt_error **err)
{
    struct rounds *p = ctx;
    int r = 0;
    p->unit = unit;
    p->n = 0;
    p->enough = false;
    while (r == 0 && !p->enough && p->n < MAX_ROUNDS) {
        r = one_round(op, p, err);
        if (r == 0 && molt_op_aborting(op))
            return molt_error_set(err, MOLT_E_ABORTED, "aborted");
    }
    if (r == 0)
        molt_json_set_int(p->units, unit, p->n);
    return r;
}

int step_predump(struct molt_op *op, struct molt_error **err)
{
    struct rounds rounds = {.list = molt_json_array(), .units = molt_json_object()};
    CLEANUP_JSON struct molt_json *last = NULL;
    int r = up_active(op, &rounds.active, err);
    if (r == 0)
        r = up_clone(op, &rounds.clone, err);
    if (r == 0)
        r = up_each_unit(op, all_rounds, &rounds, err);
    /* A unit that had all its rounds keeps them. */
    if (r < 0 && r != MOLT_E_ABORTED && rounds.clone && !rounds.active->broken && !rounds.clone->broken) {
        molt_warn(molt_op_log(op), "memory is not copied before the freeze: %s", *err ? molt_error_text(*err) : "");
        molt_error_clear(err);
        r = 0;
    }
    molt_op_note(op, "predump", rounds.list);
    if (r == 0)
        r = molt_op_put(op, "unit_rounds", rounds.units, err);
    else
        molt_json_free(rounds.units);
    return r < 0 ? r : up_merge_pass(op, rounds.clone, &last, err); /* what was written meanwhile */
}
