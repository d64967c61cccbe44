/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The trial of the restore (procmig/rehearse.h): its dump on the active, and the trial itself in the clone. */
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/peer.h"
#include "agent/units.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "procmig/predump.h"
#include "procmig/rehearse.h"

#define REHEARSE_MS 180000

/* Whole: the workload stands still for it, as it will in the freeze, and goes on. */
static int trial_dump(struct unit_move *m, const struct molt_dump_opts *o, struct molt_dump_stats *stats, struct molt_error **err)
{
    struct molt_dump *d = NULL;
    int r = molt_dump_arm(m->workload, o, &d, err);
    if (r < 0)
        return r;
    r = molt_dump_begin(d, err);
    if (r == 0)
        r = molt_workload_refresh(m->workload, err);
    if (r == 0)
        r = molt_dump_go_on(d, m->workload, err);
    if (r == 0)
        return molt_dump_end(d, m->workload, stats, err);
    molt_dump_disarm(d);
    return r;
}

/* {"unit", "rounds": how many of memory came before} -> {"stats"}. dump-prepare came before. Its images are round `rounds` + 1; where memory is
 * not tracked (no rounds) the dump that follows does not build on them. */
int h_rehearsal_dump(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    struct molt_dump_stats stats = {0};
    struct unit_move *m;
    unsigned rounds = 0;
    int r = units_of_request(rq, &m, err);
    if (r == 0)
        r = predump_number(rq->args, "rounds", &rounds, err);
    if (r == 0 && (!m->workload || m->dump || rounds >= MOLT_ROUNDS_MAX))
        r = molt_error_set(err, MOLT_E_STATE, "a trial comes behind dump-prepare and before the dump");
    if (r < 0)
        return r;
    CLEANUP_FREE char *dir = molt_predump_dir(m->images, rounds + 1);
    const struct molt_dump_opts o = {.dir = dir, .rounds = rounds, .trial = true, .patience_ms = MOLT_DUMP_PATIENCE_MS, .log = s->log};
    r = molt_remove_tree(dir, err);
    if (r == 0)
        r = trial_dump(m, &o, &stats, err);
    if (r < 0) { /* however CRIU left it */
        CLEANUP_ERROR struct molt_error *e = NULL;
        if (molt_dump_resume(m->unit, &e) < 0)
            molt_err(s->log, "%s", molt_error_text(e));
        return r;
    }
    molt_json_set(reply, "stats", molt_dump_stats_json(&stats));
    return 0;
}

static void reply_trial(const struct molt_trial *t, struct molt_json *reply)
{
    struct molt_json *threads = molt_json_object();
    molt_json_set_int(threads, "reached", (int64_t)t->step.reached);
    molt_json_set_int(threads, "busy", (int64_t)t->step.busy);
    molt_json_set_int(threads, "left", (int64_t)t->step.left);
    molt_json_set(reply, "threads", threads);
    molt_json_set(reply, "stats", molt_dump_stats_json(&t->stats));
}

/* {"unit", "rounds": as above} -> {"stats", "threads": {"reached", "busy", "left"}, "bytes", "transport_ms"}: its images come, and it is tried. */
int h_rehearse(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    struct molt_trial trial;
    struct unit_move *m;
    unsigned rounds = 0;
    uint64_t bytes = 0;
    int64_t t0 = molt_mono_us();
    int r = units_of_request(rq, &m, err);
    if (r == 0)
        r = predump_number(rq->args, "rounds", &rounds, err);
    if (r == 0 && (!s->peer || !m->prepared || rounds >= MOLT_ROUNDS_MAX))
        r = molt_error_set(err, MOLT_E_STATE, "a trial comes behind restore-prepare");
    if (r < 0)
        return r;
    CLEANUP_FREE char *dir = molt_predump_dir(m->images, rounds + 1);
    if ((r = molt_remove_tree(dir, err)) == 0 && (r = molt_predump_place(m->images, rounds + 1, err)) == 0)
        r = images_fetch(s->peer, m->unit, m->images, rounds + 1, false, &bytes, err);
    molt_json_set_double(reply, "transport_ms", (double)(molt_mono_us() - t0) / 1000);
    molt_json_set_int(reply, "bytes", (int64_t)bytes);
    char **absent = volumes_dirs();
    if (r == 0)
        r = molt_rehearse(m->unit, dir, NULL, (const char *const *)absent, REHEARSE_MS, &trial, err);
    for (size_t i = 0; absent[i]; i++)
        free(absent[i]);
    free(absent);
    if (rounds == 0)
        (void)molt_remove_tree(dir, NULL); /* nothing is built on it */
    if (r == 0)
        reply_trial(&trial, reply);
    return r;
}
