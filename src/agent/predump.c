/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rounds of memory while the workload runs: on the active side, and in the clone. */
#include "agent/agent.h"
#include "agent/peer.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "procmig/predump.h"

int predump_number(struct molt_request *rq, const char *key, unsigned *ret, struct molt_error **err)
{
    int64_t n = molt_json_get_int(rq->args, key, 0);
    if (n < 0 || n > MOLT_PREDUMP_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "no such round of memory");
    *ret = (unsigned)n;
    return 0;
}

static int round_of(struct molt_request *rq, unsigned *ret, struct molt_error **err)
{
    int r = predump_number(rq, "round", ret, err);
    return r == 0 && *ret == 0 ? molt_error_set(err, MOLT_E_PROTOCOL, "no such round of memory") : r;
}

/* {"unit", "round"} -> {"stats", "enough": no further round is worth it}, or {"unsupported": why}. dump-prepare came before, then the rounds in order. */
int h_predump(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    CLEANUP_ERROR struct molt_error *why = NULL;
    struct molt_dump_opts o = {.dir = MOLT_AGENT_DUMP, .log = s->log};
    struct molt_dump_stats stats = {0};
    unsigned round = 0;
    int r = round_of(rq, &round, err);
    if (r == 0)
        r = move_workload(rq, err);
    if (r < 0)
        return r;
    if (round == 1 && molt_predump_possible(NULL, &why) < 0) {
        molt_json_set_string(reply, "unsupported", molt_error_text(why));
        return 0;
    }
    r = molt_predump(s->workload, &o, round, &stats, err);
    if (r < 0)
        return r;
    s->round_pages[round - 1] = stats.pages_written;
    molt_json_set(reply, "stats", molt_dump_stats_json(&stats));
    molt_json_set_bool(reply, "enough", molt_predump_enough(s->round_pages, round));
    return 0;
}

/* {"round"}: the clone takes that round's pages. */
int h_predump_fetch(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    unsigned round = 0;
    uint64_t bytes = 0;
    int64_t t0 = molt_mono_us();
    int r = round_of(rq, &round, err);
    if (r == 0 && !s->peer)
        r = molt_error_set(err, MOLT_E_STATE, "no connection to the other agent");
    if (r == 0)
        r = molt_predump_place(MOLT_AGENT_DUMP, round, err);
    if (r == 0)
        r = images_fetch(s->peer, MOLT_AGENT_DUMP, round, false, &bytes, err);
    molt_json_set_double(reply, "ms", (double)(molt_mono_us() - t0) / 1000);
    molt_json_set_int(reply, "bytes", (int64_t)bytes);
    return r;
}
