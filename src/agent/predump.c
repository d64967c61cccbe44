/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rounds of memory while the workload runs: on the active side, and in the clone. */
#include "agent/agent.h"
#include "agent/peer.h"
#include "agent/units.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "procmig/pointed.h"
#include "procmig/predump.h"

int predump_number(const struct molt_json *args, const char *key, unsigned *ret, struct molt_error **err)
{
    int64_t n = molt_json_get_int(args, key, 0);
    if (n < 0 || n > MOLT_ROUNDS_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "no such round of memory");
    *ret = (unsigned)n;
    return 0;
}

static int round_of(struct molt_request *rq, struct unit_move **ret_m, unsigned *ret, struct molt_error **err)
{
    int r = units_of_request(rq, ret_m, err);
    if (r == 0)
        r = predump_number(rq->args, "round", ret, err);
    return r == 0 && (*ret == 0 || *ret > MOLT_PREDUMP_MAX) ? molt_error_set(err, MOLT_E_PROTOCOL, "no such round of memory") : r;
}

/* With the last round: which pages the clone had better have when the workload goes on. */
static int note_pointed(struct session *s, const struct unit_move *m, unsigned round, struct molt_error **err)
{
    CLEANUP_FREE char *dir = molt_predump_dir(m->images, round);
    int64_t t0 = molt_mono_us();
    int r = molt_pointed_write(m->workload, dir, err);
    molt_debug(s->log, "%s: looked through the stacks of %zu threads in %.1f ms", m->unit, m->workload->tids, (double)(molt_mono_us() - t0) / 1000);
    return r;
}

/* {"unit", "round"} -> {"stats", "enough": no further round is worth it, and then "stop": the rule that says so (predump.h)}, or {"unsupported": why}. dump-prepare came before, then the rounds in order. */
int h_predump(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    struct unit_move *m;
    CLEANUP_ERROR struct molt_error *why = NULL;
    struct molt_dump_stats stats = {0};
    unsigned round = 0;
    int r = round_of(rq, &m, &round, err);
    if (r == 0)
        r = m->workload ? molt_workload_refresh(m->workload, err) : molt_error_set(err, MOLT_E_STATE, "dump-prepare comes first");
    if (r < 0)
        return r;
    if (round == 1 && molt_predump_possible(NULL, &why) < 0) {
        molt_json_set_string(reply, "unsupported", molt_error_text(why));
        return 0;
    }
    struct molt_dump_opts o = {.dir = m->images, .log = s->log};
    r = molt_predump(m->workload, &o, round, &stats, err);
    if (r < 0)
        return r;
    m->round[round - 1] = (struct molt_round){stats.pages_written, stats.frozen_us, stats.memdump_us};
    molt_json_set(reply, "stats", molt_dump_stats_json(&stats));
    const char *stop = molt_predump_stop(m->round, round);
    molt_json_set_bool(reply, "enough", stop != NULL);
    if (!stop)
        return 0;
    molt_json_set_string(reply, "stop", stop);
    return note_pointed(s, m, round, err);
}

/* {"unit", "round"}: the clone takes that round's pages. */
int h_predump_fetch(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    struct unit_move *m;
    unsigned round = 0;
    uint64_t bytes = 0;
    int64_t t0 = molt_mono_us();
    int r = round_of(rq, &m, &round, err);
    if (r == 0 && !s->peer)
        r = molt_error_set(err, MOLT_E_STATE, "no connection to the other agent");
    if (r == 0)
        r = molt_predump_place(m->images, round, err);
    if (r == 0)
        r = images_fetch(s->peer, m->unit, m->images, round, false, &bytes, err);
    molt_json_set_double(reply, "ms", (double)(molt_mono_us() - t0) / 1000);
    molt_json_set_int(reply, "bytes", (int64_t)bytes);
    return r;
}
