/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The clone's side of a move: pins and overlay, restore, life after the switch. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/overlays.h"
#include "agent/peer.h"
#include "agent/units.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/load.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "procmig/datagrams.h"
#include "procmig/gate.h"
#include "procmig/lazy.h"
#include "procmig/overlay.h"
#include "procmig/pager.h"
#include "procmig/predump.h"
#include "procmig/procfs.h"
#include "procmig/restore.h"
#include "procmig/tcpwarm.h"
#include "procmig/touched.h"
#include "procmig/turns.h"

#define AT_ONCE    MOLT_AGENT_ETC "/restore-at-once"
#define TURNS      MOLT_AGENT_RUN "/turns" /* the scheduler's settings, as they were */
#define CALM_MS    100  /* so long nobody else wants to run: the workload has made up for its pause */
#define HEAVY_MS   1000 /* or it never is calm */
#define LOOK_MS    20
#define ADOPT_MS   60000
#define HASHES_MS  600000
#define PAGED_MS   600000 /* as long as it takes: a heap of 64 GB, at a tenth of what memory does */
#define READY_MS   180000 /* several start at once, each with a CRIU of its own */
#define RESTORE_MS 120000

static int fetch_pins(struct session *s, struct molt_pins *pins, const char *dir, uint64_t *bytes, struct molt_error **err)
{
    int r = molt_pins_make_dirs(pins, dir, err);
    for (size_t i = 0; r == 0 && i < pins->n; i++) {
        if (pins->v[i].need == MOLT_PIN_SAME)
            continue;
        CLEANUP_JSON struct molt_json *args = molt_json_object();
        CLEANUP_FREE char *path = molt_xasprintf("%s%s", dir, pins->v[i].path);
        molt_json_set_int(args, "index", (int64_t)i);
        r = peer_fetch_file(s->peer, "pin", args, path, bytes, err);
    }
    if (r == 0)
        r = molt_pins_check_fetched(pins, dir, err);
    return r;
}

/* Of those that look different, and have to be looked at. */
static int ask_hashes(struct session *s, struct molt_pins *pins, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object(), *answer = NULL;
    CLEANUP_PINS struct molt_pins *some = NULL;
    const struct molt_call call = {.timeout_ms = HASHES_MS};
    struct molt_json *list = molt_json_array();
    molt_json_set(args, "indexes", list);
    for (size_t i = 0; i < pins->n; i++)
        if (pins->v[i].need != MOLT_PIN_SAME)
            molt_json_append(list, molt_json_int((int64_t)i));
    if (molt_json_size(list) == 0)
        return 0;
    int r = molt_call(s->peer, "pin-hashes", args, &call, &answer, err);
    if (r == 0)
        r = molt_pins_parse(molt_json_get(answer, "pins"), &some, err);
    if (r == 0 && some->n != molt_json_size(list))
        r = molt_error_set(err, MOLT_E_PROTOCOL, "not the hashes that were asked for");
    for (size_t k = 0; k < molt_json_size(list) && r == 0; k++) {
        struct molt_pin *pin = &pins->v[molt_json_intval(molt_json_at(list, k), 0)];
        if (strcmp(pin->path, some->v[k].path) != 0 || !some->v[k].hashed)
            return molt_error_set(err, MOLT_E_PROTOCOL, "not the hash of %s", pin->path);
        pin->hash = some->v[k].hash;
        pin->size = some->v[k].size;
        pin->hashed = true;
    }
    return r;
}

/* {"unit", "operation"}: which old files the workload needs here, fetched, and the overlay made ready. */
int h_pins_fetch(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *unit, *op = molt_json_get_string(rq->args, "operation");
    CLEANUP_JSON struct molt_json *answer = NULL, *args = molt_json_object();
    CLEANUP_PINS struct molt_pins *pins = NULL;
    CLEANUP_OVERLAY struct molt_overlay *overlay = NULL;
    size_t needed = 0;
    uint64_t bytes = 0, fetched = 0;
    int r = units_name(rq, &unit, err);
    if (r == 0 && (!op || strchr(op, '/') || !s->peer))
        r = molt_error_set(err, MOLT_E_PROTOCOL, "pins-fetch: bad arguments");
    molt_json_set_string(args, "unit", unit);
    if (r == 0)
        r = molt_call(s->peer, "pins", args, NULL, &answer, err);
    if (r == 0)
        r = molt_pins_parse(molt_json_get(answer, "pins"), &pins, err);
    if (r == 0)
        r = molt_pins_compare(pins, "", &needed, &bytes, err);
    if (r == 0)
        r = ask_hashes(s, pins, err);
    if (r == 0)
        r = molt_pins_compare(pins, "", &needed, &bytes, err);
    for (size_t i = 0; r == 0 && i < pins->n; i++)
        if (volumes_cover(pins->v[i].path)) /* they come with their file system */
            pins->v[i].need = MOLT_PIN_SAME;
    CLEANUP_FREE char *dir = molt_xasprintf(MOLT_PINS_DIR "/%s/%s", op ? op : "", unit ? unit : ""); /* of its own: it goes when that unit is restarted */
    if (r == 0)
        r = molt_overlay_remove(unit, err); /* of an earlier move: nobody runs in it here, and what it still needs of that comes anew */
    if (r == 0)
        r = fetch_pins(s, pins, dir, &fetched, err);
    if (r < 0)
        return r;
    overlay = molt_overlay_new(unit, dir, pins);
    if ((r = molt_overlay_save(overlay, err)) == 0 && (r = molt_overlay_placeholders(overlay, err)) == 0)
        r = molt_overlay_save(overlay, err);
    struct molt_json *list = molt_json_array();
    for (size_t i = 0; i < pins->n; i++)
        if (pins->v[i].need != MOLT_PIN_SAME)
            molt_json_append(list, molt_json_string(pins->v[i].path));
    molt_json_set(reply, "pins", list);
    molt_json_set_int(reply, "bytes", (int64_t)fetched);
    return r;
}

/* Takes back the masks that init.c put on the units. A unit that nothing refers to is not in memory, and systemd sees by itself that its files
 * changed; a reload, which takes seconds under emulation, is for the others. */
static int unmask_all(const struct molt_json *units, struct molt_error **err)
{
    struct molt_run_opts o = {.timeout_ms = 120000};
    bool stale = false;
    for (size_t i = 0; i < molt_json_size(units); i++) {
        const char *unit = molt_json_get_string(molt_json_at(units, i), "unit");
        char *state[] = {"systemctl", "show", "-P", "LoadState", "--", (char *)unit, NULL};
        CLEANUP_FREE char *mask = molt_xasprintf(MOLT_SYSTEMD_CONTROL "/%s", unit), *said = NULL;
        if (unlink(mask) < 0 && errno != ENOENT)
            return molt_error_errno(err, "unmask %s", unit);
        int r = molt_run_ok(state, &o, &said, err);
        if (r < 0)
            return r;
        stale = stale || strncmp(said, "loaded", 6) != 0;
    }
    return stale ? molt_restore_reload(err) : 0;
}

/* What the admin says of restore-at-once; MOLT_LAZY_BEFORE_MB where nothing, or nothing that can be understood. */
static int64_t before_mb(struct session *s)
{
    CLEANUP_FREE char *text = NULL;
    char *end;
    if (molt_read_file(AT_ONCE, 64, &text, NULL, NULL) < 0)
        return MOLT_LAZY_BEFORE_MB;
    long n = strtol(text, &end, 10);
    if (end == text || end[strspn(end, " \n")] || n < 0 || n > 1 << 20) {
        molt_warn(s->log, AT_ONCE ": not a number of MiB: %.20s", text);
        return MOLT_LAZY_BEFORE_MB;
    }
    return n;
}

static int lay(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    int r = units_fresh_images(m, err);
    if (r < 0)
        return r;
    CLEANUP_JSON struct molt_json *v = molt_json_copy(args);
    const char *cwd = molt_json_get_string(v, "cwd");
    if (cwd && volumes_cover(cwd)) /* it comes with its file system */
        molt_json_set_string(v, "cwd", NULL);
    molt_json_set_int(v, "schema", 1);
    molt_json_set_int(v, "before_mb", before_mb(rq->ctx));
    molt_json_set_string(v, "images", m->images);
    molt_json_set_string(v, "agent", MOLT_AGENT_PROGRAM);
    struct molt_restore_spec spec = {0};
    r = molt_restore_spec_parse(v, &spec, err);
    m->prepared = true;
    if (r == 0)
        r = molt_restore_lay(&spec, err);
    molt_restore_spec_clear(&spec);
    return r;
}

static int start(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    (void)args;
    return molt_restore_start(m->unit, err);
}

static int ready(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    (void)args;
    return molt_restore_ready(m->unit, READY_MS, err);
}

static int nothing(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    (void)m;
    (void)args;
    (void)err;
    return 0;
}

/* What it has used of its files is read here, so that the thawed workload does not wait for the disk. Without it (an older agent) it does. */
static int warm(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    struct session *s = rq->ctx;
    CLEANUP_JSON struct molt_json *ask = molt_json_object(), *answer = NULL;
    CLEANUP_ERROR struct molt_error *e = NULL;
    (void)args;
    (void)err;
    molt_json_set_string(ask, "unit", m->unit);
    if (s->peer && molt_call(s->peer, "touched", ask, NULL, &answer, &e) == 0)
        molt_info(s->log, "%s: %" PRIu64 " bytes of its files are read", m->unit, molt_touched_read(molt_json_get(answer, "touched")));
    else if (s->peer)
        molt_info(s->log, "%s: its files are not read before: %s", m->unit, molt_error_text(e));
    return 0;
}

/* A guest that runs other services already is left as it is. */
static void lengthen_turns(struct session *s)
{
    CLEANUP_ERROR struct molt_error *e = NULL;
    int n = molt_exists(MOLT_AGENT_MODE) ? molt_turns_begin(TURNS, &e) : 0;
    if (n < 0)
        molt_info(s->log, "the turns of the processor stay as they are: %s", molt_error_text(e));
    else if (n > 0)
        molt_info(s->log, "turns of the processor are longer until the workload has made up for its pause (%d settings)", n);
}

void arrival_usual_turns(void)
{
    molt_turns_end(TURNS);
}

/* {"units": [{"unit", "main_pid", "ids", "cwd", "overlay"}]}: what can be done in the clone before the freeze. */
int h_restore_prepare(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    int64_t t0 = molt_mono_ms();
    (void)reply;
    int r = units_each(rq, nothing, err); /* their names are names, then */
    if (r == 0)
        r = unmask_all(molt_json_get(rq->args, "units"), err);
    if (r == 0)
        r = units_each(rq, lay, err);
    if (r == 0)
        r = molt_restore_reload(err); /* seconds under emulation: once for all */
    if (r == 0)
        r = units_each(rq, start, err);
    if (r == 0)
        r = units_each(rq, ready, err);
    if (r == 0)
        r = units_each(rq, warm, err);
    if (r < 0) {
        arrival_give_up(s);
    } else {
        (void)molt_tcp_warm();
        lengthen_turns(s);
        molt_info(s->log, "ready to restore after %lld ms", (long long)(molt_mono_ms() - t0));
    }
    sync(); /* what passes and pins wrote: the syncfs of the final pass would have to, in the freeze */
    return r;
}

static int fetch_images(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    struct session *s = rq->ctx;
    unsigned rounds = 0;
    int r = predump_number(args, "rounds", &rounds, err);
    if (r == 0) /* first: who waits for the restore reads them as they come */
        r = molt_predump_link(m->images, rounds, err);
    return r < 0 ? r : images_fetch(s->peer, m->unit, m->images, 0, true, &m->image_bytes, err);
}

/* {"units": [{"unit", "rounds"}]} -> {"image_bytes"}: the dumps' images, which may still be written: it returns when all are here. */
int h_images_fetch(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    uint64_t bytes = 0;
    int r = s->peer ? units_each(rq, fetch_images, err) : molt_error_set(err, MOLT_E_STATE, "no connection to the other agent");
    for (size_t i = 0; i < s->units->n; i++)
        bytes += s->units->v[i]->image_bytes;
    molt_json_set_int(reply, "image_bytes", (int64_t)bytes);
    return r;
}

static int begin_restore(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    (void)args;
    return molt_restore_begin(m->unit, &m->restoring, err);
}

/* All of them are waited for, also behind one that failed: what goes on here would be in the way of an undo. */
static int end_restores(struct session *s, struct molt_json *list, struct molt_error **err)
{
    int result = 0;
    for (size_t i = 0; i < s->units->n; i++) {
        struct unit_move *m = s->units->v[i];
        struct molt_dump_stats stats = {0};
        struct molt_error *e = NULL;
        if (!m->restoring)
            continue;
        int r = molt_restore_end(MOLT_STEAL_PTR(m->restoring), RESTORE_MS, &stats, &e);
        struct molt_json *o = molt_json_object();
        molt_json_set_string(o, "unit", m->unit);
        molt_json_set(o, "stats", molt_dump_stats_json(&stats));
        molt_json_append(list, o);
        if (r < 0 && result == 0) {
            result = r;
            molt_error_prefix(&e, "%s", m->unit);
            molt_error_move(err, MOLT_STEAL_PTR(e));
        }
        molt_error_free(e);
    }
    return result;
}

/* Before anything newer comes in: what nobody had read yet. */
static void place_datagrams(const struct session *s, struct molt_json *reply)
{
    struct molt_json *o = molt_json_object();
    struct molt_datagrams sum = {0, 0};
    for (size_t i = 0; i < s->units->n; i++) {
        CLEANUP_ERROR struct molt_error *err = NULL;
        struct molt_datagrams d;
        if (molt_datagrams_place(s->units->v[i]->images, &d, &err) < 0)
            molt_warn(s->log, "datagrams that were not read yet are lost: %s", molt_error_text(err));
        sum.moved += d.moved;
        sum.lost += d.lost;
    }
    molt_json_set_int(o, "moved", (int64_t)sum.moved);
    molt_json_set_int(o, "lost", (int64_t)sum.lost);
    molt_json_set(reply, "datagrams", o);
}

/* {"units": [{"unit"}]} -> {"restore_ms", "units": [{"unit", "stats"}], "datagrams": {"moved", "lost"}}: the images are here; the trees stand restored and stopped when this
 * returns. With several, what one sends another over the loopback device waits until both are there: sent into a socket that does not exist
 * yet it would end the connection. */
int h_restore_go(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    struct molt_json *list = molt_json_array();
    CLEANUP_ERROR struct molt_error *e = NULL, *gate = NULL;
    bool several = molt_json_size(molt_json_get(rq->args, "units")) > 1;
    int64_t t0 = molt_mono_us();
    arrival_hurry(true); /* the outcome is told as soon as it is there */
    int r = several ? molt_loopback_gate(true, err) : 0;
    if (r == 0)
        r = units_each(rq, begin_restore, err);
    int ended = end_restores(s, list, &e), opened = several ? molt_loopback_gate(false, &gate) : 0;
    molt_json_set_double(reply, "restore_ms", (double)(molt_mono_us() - t0) / 1000);
    molt_json_set(reply, "units", list);
    if (r == 0 && (r = ended) < 0)
        molt_error_move(err, MOLT_STEAL_PTR(e));
    if (r == 0 && (r = opened) < 0)
        molt_error_move(err, MOLT_STEAL_PTR(gate));
    if (r == 0)
        place_datagrams(s, reply);
    return r;
}

void arrival_hurry(bool on)
{
    (void)molt_pager_realtime(on ? MOLT_PAGER_RT + 1 : 0);
}

static int thaw(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    (void)args;
    int r = molt_restore_thaw(m->unit, err);
    if (r == 0)
        m->prepared = false;
    return r;
}

/* {"units"}: they go on here. Until memory-wait: that they do, and what neighbours are told, is said before any of them runs, and before its missing pages come. */
int h_restore_thaw(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const int64_t t0 = molt_mono_us();
    arrival_hurry(true);
    int r = units_each(rq, thaw, err);
    molt_json_set_double(reply, "ms", (double)(molt_mono_us() - t0) / 1000);
    return r;
}

static int kill_restored(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    (void)args;
    return molt_restore_kill(m->unit, err);
}

/* {"units"}: what was restored is silent and dies, at once, so that it can go on where it was; what else there is of it, restore-undo takes away. */
int h_restore_kill(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)reply;
    return units_each(rq, kill_restored, err);
}

/* "overlays": of a guest that lives on. */
static int undo(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)args;
    m->prepared = false;
    int r = molt_restore_undo(m->unit, err);
    return r == 0 && molt_json_get_bool(rq->args, "overlays", false) ? molt_overlay_remove(m->unit, err) : r;
}

int h_restore_undo(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)reply;
    int r = units_each(rq, undo, err);
    if (molt_json_get_bool(rq->args, "overlays", false))
        departure_forget_images();
    return r;
}

void arrival_give_up(struct session *s)
{
    for (size_t i = 0; i < s->units->n; i++) {
        CLEANUP_ERROR struct molt_error *err = NULL;
        struct unit_move *m = s->units->v[i];
        if (!m->prepared)
            continue;
        molt_warn(s->log, "the restore of %s is given up", m->unit);
        if (molt_restore_undo(m->unit, &err) < 0)
            molt_err(s->log, "%s", molt_error_text(err));
        m->prepared = false;
    }
}

/* An earlier call finished already (recovery asks again). */
static bool is_finished(const struct unit_move *m)
{
    CLEANUP_FREE char *spec = molt_xasprintf(MOLT_AGENT_RUN "/restore/%s/spec.json", m->unit);
    return !molt_exists(spec);
}

static int paged(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    (void)args;
    if (is_finished(m))
        return 0;
    molt_json_free(MOLT_STEAL_PTR(m->paged));
    return molt_restore_paged(m->unit, PAGED_MS, &m->paged, err);
}

/* Where no memory was left for later nobody has waited yet for the workload to make up for its pause. */
static void wait_for_calm(void)
{
    CLEANUP_CLOSE int load = molt_load_open();
    const int processors = get_nprocs();
    const int64_t begun = molt_mono_ms();
    molt_sleep_ms(CALM_MS); /* that much it takes, and each look takes its time from the workload */
    for (int64_t now = molt_mono_ms(), busy = now; now - busy < CALM_MS && now - begun < HEAVY_MS; now = molt_mono_ms()) {
        molt_sleep_ms(LOOK_MS);
        if (!molt_load_idle(load, processors))
            busy = molt_mono_ms();
    }
}

/* {"units"}: after the thaw; returns when the memory that was left for later is all there, and the workload has had the processor for a moment. What else is
 * to be done here can wait until then: the workload has a pause to make up for. */
int h_memory_wait(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)reply;
    arrival_hurry(false);
    int r = units_each(rq, paged, err);
    if (r == 0)
        wait_for_calm();
    arrival_usual_turns();
    return r;
}

static void tell_paged(const struct session *s, struct molt_json *reply)
{
    struct molt_json *list = molt_json_array();
    for (size_t i = 0; i < s->units->n; i++) {
        const struct unit_move *m = s->units->v[i];
        if (!m->paged)
            continue;
        struct molt_json *o = molt_json_object();
        molt_json_set_string(o, "unit", m->unit);
        molt_json_set(o, "stats", molt_json_copy(m->paged));
        molt_json_append(list, o);
    }
    molt_json_set(reply, "units", list);
}

static int settle(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    (void)args;
    if (is_finished(m))
        return 0;
    int r = overlays_watch(m->unit, err);
    if (r == 0)
        r = molt_restore_adopted(m->unit, ADOPT_MS, err);
    return r < 0 ? r : molt_restore_settle(m->unit, err);
}

/* systemd has the process under its own unit file again. */
static int finish(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err)
{
    (void)rq;
    (void)args;
    return is_finished(m) ? 0 : molt_restore_finish(m->unit, err);
}

/* Nothing else of this guest had waited: "enable", the units that are to start at its boots, too. */
static int only_these(const struct molt_json *enable, struct molt_error **err)
{
    struct molt_run_opts o = {.timeout_ms = 120000};
    int r = 0;
    for (size_t i = 0; i < molt_json_size(enable) && i < MOLT_MAX_UNITS && r == 0; i++) {
        CLEANUP_FREE char *unit = NULL;
        r = molt_unit_name(molt_json_str(molt_json_at(enable, i)), &unit, err);
        char *argv[] = {"systemctl", "enable", "--", unit, NULL};
        if (r == 0)
            r = molt_run_ok(argv, &o, NULL, err);
    }
    return r;
}

/* {"units", "alone", "enable"} -> {"units": [{"unit", "stats": of the memory that came after the thaw}]}: after the thaw; when all of the memory is there
 * everything that the upgrade target kept from starting starts. */
int h_go_live(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    struct molt_run_opts o = {.timeout_ms = 120000};
    char *journald[] = {"systemctl", "restart", "systemd-journald.service", NULL};
    char *start[] = {"systemctl", "start", "--no-block", "default.target", NULL};
    arrival_usual_turns();
    merge_free(s);
    molt_chan_close(s->peer);
    s->peer = NULL;
    departure_forget_images();
    bool alone = molt_json_get_bool(rq->args, "alone", false); /* into a guest that runs anyway */
    if (!alone) {
        unlink("/run/systemd/journald.conf.d/zzzz-xenmolt.conf");
        unlink(MOLT_AGENT_MODE);
    }
    int r = units_each(rq, paged, err);
    tell_paged(s, reply);
    if (r == 0)
        r = units_each(rq, settle, err);
    if (r == 0)
        r = molt_restore_reload(err); /* seconds under emulation: once for all */
    if (r == 0)
        r = units_each(rq, finish, err);
    if (r < 0 || alone)
        return r < 0 ? r : only_these(molt_json_get(rq->args, "enable"), err);
    if (molt_run_ok(journald, &o, NULL, err) < 0) {
        molt_warn(s->log, "journald: %s", err ? molt_error_text(*err) : "");
        molt_error_clear(err);
    }
    return molt_run_ok(start, &o, NULL, err);
}

/* {"units": [{"unit", "main_pid"}]} -> {"same_pid": of all, "workloads", "os"} */
int h_verify(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const struct molt_json *units = molt_json_get(rq->args, "units");
    struct molt_json *list = molt_json_array();
    bool same = true;
    int r = 0;
    for (size_t i = 0; i < molt_json_size(units) && i < MOLT_MAX_UNITS && r == 0; i++) {
        const struct molt_json *o = molt_json_at(units, i);
        const char *unit = molt_json_get_string(o, "unit");
        CLEANUP_WORKLOAD struct molt_workload *w = NULL;
        if ((r = molt_workload_scan(unit ? unit : "", &w, err)) < 0)
            break;
        same = same && w->main_pid == molt_json_get_int(o, "main_pid", -1);
        molt_json_append(list, molt_workload_json(w));
    }
    molt_json_set(reply, "workloads", list);
    molt_json_set_bool(reply, "same_pid", same);
    molt_json_set(reply, "os", agent_os_info());
    return r;
}
