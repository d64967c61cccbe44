/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The active's side of a move: the workloads stand still, are dumped, and, where nothing comes of it, go on. */
#include <mntent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "agent/address.h"
#include "agent/agent.h"
#include "agent/overlays.h"
#include "agent/units.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "procmig/bystanders.h"
#include "procmig/dump.h"
#include "procmig/settle.h"

#define HURRY         (-15) /* a nice value */
#define BYSTANDERS_MS 1000
#define BYSTANDERS    MOLT_AGENT_RUN "/frozen"

void departure_forget_images(void)
{
    umount2(MOLT_AGENT_DUMP, MNT_DETACH);
}

static void disarm(struct unit_move *m)
{
    molt_dump_disarm(m->dump);
    m->dump = NULL;
}

/* From where CRIU waits for the freeze on, until the workload stands still: against a busy workload. CRIU inherits it, and loses it when it goes on: the
 * last pass of the merge and what is recorded for it go beside it then, and are waited for as well. */
static void hurry(bool on)
{
    (void)setpriority(PRIO_PROCESS, 0, on ? HURRY : 0);
}

void departure_disarm(struct session *s)
{
    hurry(false);
    for (size_t i = 0; i < s->units->n; i++)
        disarm(s->units->v[i]);
}

bool departure_begun(const struct session *s)
{
    for (size_t i = 0; i < s->units->n; i++)
        if (s->units->v[i]->workload)
            return true;
    return false;
}

/* {"unit"} -> {"workload"}: all that a dump needs and that is slow, while the workload still serves. */
int h_dump_prepare(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct unit_move *m;
    int r = units_of_request(rq, &m, err);
    if (r < 0)
        return r;
    disarm(m);
    molt_workload_free(m->workload);
    m->workload = NULL;
    if ((r = units_fresh_images(m, err)) == 0)
        r = molt_workload_scan(m->unit, &m->workload, err);
    if (r == 0)
        r = molt_criu_warm(NULL, err); /* its program, libraries and feature cache are in memory then */
    if (r == 0)
        molt_json_set(reply, "workload", molt_workload_json(m->workload));
    return r;
}

/* What a frozen process would have to answer for: CRIU looks at files of the workload that lie there. */
static bool has_user_file_system(void)
{
    FILE *f = setmntent("/proc/self/mounts", "r");
    struct mntent *m;
    bool found = !f;
    while (f && !found && (m = getmntent(f)))
        found = !strcmp(m->mnt_type, "fuse") || !strcmp(m->mnt_type, "fuseblk") || !strncmp(m->mnt_type, "fuse.", 5);
    if (f)
        endmntent(f);
    return found;
}

/* Everything else in the guest: what it wrote after the last merge pass would be lost. Where it cannot be done the operation goes on, and says so. */
static void stop_bystanders(struct session *s)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *own = NULL, *late = NULL;
    const char *keep[MOLT_MAX_UNITS + 3] = {"/init.scope"};
    size_t n = 0, kept = 1;
    int64_t t0 = molt_mono_us();
    int r = molt_cgroup_own(&own, &err);
    for (size_t i = 0; i < s->units->n; i++)
        if (s->units->v[i]->workload)
            keep[kept++] = s->units->v[i]->workload->cgroup;
    keep[kept] = own;
    const struct molt_bystanders b = {.list = BYSTANDERS, .keep = keep, .timeout_ms = BYSTANDERS_MS};
    if (r == 0)
        r = molt_bystanders_freeze(&b, &n, &late, &err);
    struct molt_json *o = molt_json_object();
    molt_json_set_int(o, "cgroups", (int64_t)n);
    molt_json_set_double(o, "ms", (double)(molt_mono_us() - t0) / 1000);
    if (late)
        molt_json_set_string(o, "late", late);
    if (r < 0) {
        molt_json_set_string(o, "error", molt_error_text(err));
        molt_warn(s->log, "%s", molt_error_text(err));
    }
    molt_json_free(s->bystanders);
    s->bystanders = o;
}

void departure_thaw_bystanders(struct molt_log *log)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    const struct molt_bystanders b = {.list = BYSTANDERS};
    if (molt_bystanders_thaw(&b, &err) < 0)
        molt_err(log, "processes that were stopped stay so: %s", molt_error_text(err));
}

static void let_bystanders_go(struct session *s)
{
    departure_thaw_bystanders(s->log);
    molt_json_free(s->bystanders);
    s->bystanders = NULL;
}

static int dump_opts(struct molt_request *rq, const struct unit_move *m, const struct molt_json *args, struct molt_dump_opts *ret, struct molt_error **err)
{
    const struct session *s = rq->ctx;
    *ret = (struct molt_dump_opts){.dir = m->images, .log = s->log};
    if (!m->workload)
        return molt_error_set(err, MOLT_E_STATE, "dump-prepare comes first, for %s", m->unit);
    return predump_number(args, "rounds", &ret->rounds, err);
}

static int arm(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    struct molt_dump_opts o;
    int r = dump_opts(rq, m, args, &o, err);
    if (r < 0)
        return r;
    disarm(m);
    o.patience_ms = MOLT_DUMP_PATIENCE_MS;
    return molt_dump_arm(m->workload, &o, &m->dump, err);
}

/* {"units": [{"unit", "rounds": how many of memory came before}]}: for each a CRIU is started, which waits for "dump" with the same arguments. The workloads run on.
 * Undone by resume, by the end of the session, or by dump-prepare. */
int h_dump_arm(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)reply;
    int r = units_each(rq, arm, err); /* clients wait for what this takes of the processor, and nobody for its end */
    if (r == 0)
        hurry(true);
    return r;
}

static struct molt_json *unsettled_json(const struct molt_unsettled *u)
{
    struct molt_json *o = molt_json_object();
    molt_json_set_int(o, "waiting", u->waiting);
    molt_json_set_int(o, "half_open", u->half_open);
    molt_json_set_int(o, "closing", u->closing);
    molt_json_set_int(o, "silent", u->silent);
    return o;
}

static int settle(struct session *s, const char *address, struct molt_unsettled *ret, struct molt_error **err)
{
    struct molt_workload *w[MOLT_MAX_UNITS];
    size_t n = 0;
    for (size_t i = 0; i < s->units->n; i++)
        if (s->units->v[i]->workload)
            w[n++] = s->units->v[i]->workload;
    molt_listeners_free(s->listeners);
    s->listeners = NULL;
    int r = molt_listeners_find(w, n, address, &s->listeners, err);
    return r < 0 ? r : molt_settle(s->listeners, ret, err);
}

/* {"bystanders", "address": whose closed connections count (settle.h)} -> {"unsettled": {"waiting", "half_open", "closing", "silent"}, "ms"} (settle.h): the workloads of the session run on, and this waits a moment until they have accepted
 * all connections, and what has been closed is acknowledged; dom0 lets no new ones come meanwhile. Nothing that they may need for that stands still yet: with bystanders all
 * else in the guest does behind it, which "dump" would have to wait for. Undone by resume, or by the end of the session. dump-prepare came before. */
int h_dump_settle(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    struct molt_unsettled left = {0};
    const int64_t t0 = molt_mono_us();
    hurry(false); /* the processor is theirs */
    int r = settle(s, molt_json_get_string(rq->args, "address"), &left, err);
    if (r < 0)
        return r;
    molt_json_set(reply, "unsettled", unsettled_json(&left));
    molt_json_set_double(reply, "ms", (double)(molt_mono_us() - t0) / 1000);
    if (left.waiting)
        return 0; /* dom0 ends it */
    hurry(true);
    if (molt_json_get_bool(rq->args, "bystanders", false) && !has_user_file_system())
        stop_bystanders(s);
    return 0;
}

/* What came after dump-settle's look all the same, now that all stand still. It keeps nobody from going on. */
static void tell_unsettled(struct session *s, struct molt_json *reply)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_unsettled left = {0};
    if (!s->listeners)
        return;
    if (molt_unsettled_look(s->listeners, &left, &err) < 0)
        molt_warn(s->log, "%s", molt_error_text(err));
    else if (!molt_is_settled(&left))
        molt_json_set(reply, "unsettled", unsettled_json(&left));
}

/* Arms where that was not done, or is of no use any more. */
static int make_armed(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    struct molt_dump_opts o;
    int r = dump_opts(rq, m, args, &o, err);
    if (r < 0 || m->frozen)
        return r;
    if (m->dump && !molt_dump_fits(m->dump, m->workload, &o))
        disarm(m);
    m->armed = m->dump != NULL;
    return m->dump ? 0 : molt_dump_arm(m->workload, &o, &m->dump, err);
}

static int begin(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    (void)args;
    if (m->frozen)
        return 0;
    m->frozen = true;
    int r = molt_dump_begin(m->dump, err);
    if (r == 0)
        r = molt_workload_refresh(m->workload, err);
    return r < 0 ? r : molt_dump_look(m->dump, m->workload, err);
}

static int stand_still(struct molt_request *rq, struct molt_error **err)
{
    int r = units_each(rq, make_armed, err);
    return r < 0 ? r : units_each(rq, begin, err);
}

/* {"units": [{"unit", "rounds"}]}: the workloads stand still from here on, and nothing of them is read before "dump", with the same arguments: what
 * arrives for them meanwhile is taken into their sockets by the kernel. Undone as "dump" is. */
int h_dump_freeze(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)reply;
    int r = stand_still(rq, err);
    if (r < 0)
        departure_resume(rq->ctx);
    return r;
}

static int go_on(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    (void)args;
    return molt_dump_go_on(m->dump, m->workload, err);
}

/* All stand still before the first one is read: what one sent another is then either in a socket of either, or nowhere. */
static int begin_all(struct molt_request *rq, struct molt_error **err)
{
    int r = stand_still(rq, err);
    /* What arrives from here on is heard by nobody: not acknowledged, so sent again. */
    if (r == 0 && molt_json_get_string(rq->args, "address"))
        r = address_give(molt_json_get_string(rq->args, "address"), err);
    return r < 0 ? r : units_each(rq, go_on, err);
}

static int written_all(struct session *s, struct molt_error **err)
{
    int r = 0;
    for (size_t i = 0; i < s->units->n && r == 0; i++) {
        struct unit_move *m = s->units->v[i];
        if (m->dump && (r = molt_dump_written(m->dump, m->workload, err)) < 0)
            molt_error_prefix(err, "%s", m->unit);
    }
    return r;
}

/* "units": [{"unit", "stats"}] into reply. */
static int end_all(struct session *s, struct molt_json *reply, struct molt_error **err)
{
    struct molt_json *list = molt_json_array();
    int r = 0;
    molt_json_set(reply, "units", list);
    for (size_t i = 0; i < s->units->n && r == 0; i++) {
        struct unit_move *m = s->units->v[i];
        struct molt_dump_stats stats = {0};
        if (!m->dump)
            continue;
        r = molt_dump_end(MOLT_STEAL_PTR(m->dump), m->workload, &stats, err);
        stats.armed = m->armed;
        struct molt_json *o = molt_json_object();
        molt_json_set_string(o, "unit", m->unit);
        molt_json_set(o, "stats", molt_dump_stats_json(&stats));
        molt_json_append(list, o);
        if (r < 0)
            molt_error_prefix(err, "%s", m->unit);
    }
    return r;
}

/* {"units": [{"unit", "rounds"}], "early", "alone": everything else in the guest goes on, "address": the service's own, which it loses here} -> {"workloads", "bystanders", and "unsettled" as dump-settle where there is any}. The workloads stand still from here on, and soon after everything
 * else that did not since dump-settle. Undone by resume, or by the end of the session. dump-prepare came before, and perhaps dump-arm. early: the reply comes while CRIU
 * still reads, with "dumping": dump-end is to follow; where something in the guest may have to answer CRIU it comes at the end all the
 * same, with "units" as dump-end has them. */
int h_dump(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    bool early = molt_json_get_bool(rq->args, "early", false) && !has_user_file_system();
    int r = begin_all(rq, err);
    hurry(false);
    if (r == 0 && !early)
        r = end_all(s, reply, err);
    if (r < 0) {
        departure_resume(s);
        return r;
    }
    struct molt_json *list = molt_json_array();
    for (size_t i = 0; i < s->units->n; i++)
        if (s->units->v[i]->frozen)
            molt_json_append(list, molt_workload_json(s->units->v[i]->workload));
    molt_json_set(reply, "workloads", list);
    tell_unsettled(s, reply);
    if (early)
        molt_json_set_bool(reply, "dumping", true);
    if (molt_json_get_bool(rq->args, "alone", false))
        return 0;
    if (!s->bystanders)
        stop_bystanders(s);
    molt_json_set(reply, "bystanders", MOLT_STEAL_PTR(s->bystanders));
    return 0;
}

static int none_begun(struct molt_error **err)
{
    return molt_error_set(err, MOLT_E_STATE, "no dump has begun");
}

/* Behind a "dump" that said "dumping": all images are written, and can be fetched to their end. "dump-end" is to follow. */
int h_dump_written(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    (void)reply;
    if (!units_frozen(s))
        return none_begun(err);
    int r = written_all(s, err);
    if (r < 0)
        departure_resume(s);
    return r;
}

/* -> {"units": [{"unit", "stats"}]}: behind a "dump" that said "dumping"; CRIU has left the workloads. */
int h_dump_end(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    if (!units_frozen(s))
        return none_begun(err);
    int r = end_all(s, reply, err);
    if (r < 0)
        departure_resume(s);
    return r;
}

static void get_address(struct molt_log *log)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    if (address_return(&err) < 0)
        molt_err(log, "the service's address is missing: %s", molt_error_text(err));
}

void departure_resume(struct session *s)
{
    if (!units_frozen(s))
        return;
    departure_disarm(s);
    let_bystanders_go(s);
    get_address(s->log);
    for (size_t i = 0; i < s->units->n; i++) {
        CLEANUP_ERROR struct molt_error *err = NULL;
        struct unit_move *m = s->units->v[i];
        if (m->frozen && molt_dump_resume(m->unit, &err) < 0)
            molt_err(s->log, "%s", molt_error_text(err));
        m->frozen = false;
    }
    departure_forget_images();
}

/* {"units"}: idempotent, and works in a later session too. One that cannot go on keeps no other from it; its failure is the answer (of
 * those, one that does not run any more says least). */
int h_resume(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const struct molt_json *list = molt_json_get(rq->args, "units");
    int result = 0;
    (void)reply;
    departure_disarm(s);
    let_bystanders_go(s);
    departure_forget_images();
    get_address(s->log);
    for (size_t i = 0; i < molt_json_size(list) && i < MOLT_MAX_UNITS; i++) {
        const char *unit = molt_json_get_string(molt_json_at(list, i), "unit");
        struct unit_move *m = unit ? units_find(s, unit) : NULL;
        struct molt_error *e = NULL;
        if (m)
            m->frozen = false;
        int r = molt_dump_resume(unit ? unit : "", &e);
        if (r < 0 && (result == 0 || result == MOLT_E_NO_WORKLOAD)) {
            molt_error_clear(err);
            result = r;
            molt_error_move(err, MOLT_STEAL_PTR(e));
        }
        molt_error_free(e);
    }
    return result;
}

/* {"units"}: each runs on another guest now. Its processes end here, without a word to their peers; systemd does not start it again, not at the next
 * boot either. Also a second time. */
int h_depart(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const struct session *s = rq->ctx;
    const struct molt_json *list = molt_json_get(rq->args, "units");
    int r = 0;
    (void)reply;
    for (size_t i = 0; i < molt_json_size(list) && i < MOLT_MAX_UNITS && r == 0; i++) {
        const char *unit = molt_json_get_string(molt_json_at(list, i), "unit");
        struct unit_move *m = unit ? units_find(s, unit) : NULL;
        if (unit && !strchr(unit, '/'))
            overlays_unwatch(unit); /* of an earlier move here, which ends with it */
        r = molt_dump_depart(unit ? unit : "", err);
        if (m)
            m->frozen = false;
    }
    departure_forget_images();
    if (r == 0)
        address_forget();
    return r;
}
