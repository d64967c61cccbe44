/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Moving the process: dump on the active, pins and restore in the clone, life after the switch. */
#include <errno.h>
#include <mntent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/peer.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "procmig/bystanders.h"
#include "procmig/dump.h"
#include "procmig/overlay.h"
#include "procmig/predump.h"
#include "procmig/restore.h"

#define ADOPT_MS      60000
#define BYSTANDERS_MS 1000
#define RESTORE_MS    120000
#define BYSTANDERS    MOLT_AGENT_RUN "/frozen"

static int need_unit(struct molt_request *rq, const char **ret, struct molt_error **err)
{
    CLEANUP_FREE char *full = NULL;
    *ret = molt_json_get_string(rq->args, "unit");
    return *ret ? molt_unit_name(*ret, &full, err) : molt_error_set(err, MOLT_E_PROTOCOL, "no unit is named");
}

void move_forget_images(void)
{
    umount2(MOLT_AGENT_DUMP, MNT_DETACH);
}

/* An empty tmpfs for images: they never touch a disk. */
static int fresh_dump_dir(struct molt_error **err)
{
    move_forget_images();
    return molt_images_mount(MOLT_AGENT_DUMP, err);
}

/* {"unit"} -> {"workload"}: all that a dump needs and that is slow, while the workload still serves. */
int h_dump_prepare(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *unit;
    int r = need_unit(rq, &unit, err);
    move_disarm(s);
    molt_workload_free(s->workload);
    s->workload = NULL;
    if (r == 0)
        r = fresh_dump_dir(err);
    if (r == 0)
        r = molt_workload_scan(unit, &s->workload, err);
    if (r == 0)
        r = molt_criu_check(NULL, err); /* its program, libraries and feature cache are in memory then */
    if (r == 0)
        molt_json_set(reply, "workload", molt_workload_json(s->workload));
    return r;
}

/* Everything else in the guest: what it wrote after the last merge pass would be lost. Where it cannot be done the operation goes on, and says so. */
static void stop_bystanders(struct session *s, const struct molt_workload *w, struct molt_json *reply)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *own = NULL, *late = NULL;
    size_t n = 0;
    int64_t t0 = molt_mono_us();
    int r = molt_cgroup_own(&own, &err);
    const char *keep[] = {"/init.scope", w->cgroup, own, NULL};
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
    molt_json_set(reply, "bystanders", o);
}

void move_thaw_bystanders(struct molt_log *log)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    const struct molt_bystanders b = {.list = BYSTANDERS};
    if (molt_bystanders_thaw(&b, &err) < 0)
        molt_err(log, "processes that were stopped stay so: %s", molt_error_text(err));
}

/* The request is for the unit that was prepared. */
static int move_check_unit(struct molt_request *rq, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *unit;
    int r = need_unit(rq, &unit, err);
    if (r == 0 && !s->workload)
        r = molt_error_set(err, MOLT_E_STATE, "dump-prepare comes first");
    if (r == 0 && strcmp(s->workload->unit, unit) != 0)
        r = molt_error_set(err, MOLT_E_STATE, "dump-prepare was for %s, not for %s", s->workload->unit, unit);
    return r;
}

int move_workload(struct molt_request *rq, struct molt_error **err)
{
    struct session *s = rq->ctx;
    int r = move_check_unit(rq, err);
    return r < 0 ? r : molt_workload_refresh(s->workload, err);
}

void move_disarm(struct session *s)
{
    molt_dump_disarm(s->dump);
    s->dump = NULL;
}

static int dump_request(struct molt_request *rq, struct molt_dump_opts *ret, struct molt_error **err)
{
    struct session *s = rq->ctx;
    *ret = (struct molt_dump_opts){.dir = MOLT_AGENT_DUMP, .log = s->log};
    int r = predump_number(rq, "rounds", &ret->rounds, err);
    return r < 0 ? r : move_check_unit(rq, err);
}

/* {"unit", "rounds": how many of memory came before}: CRIU is started and waits for "dump" with the same arguments. The workload runs on.
 * Undone by resume, by dump-prepare, or by the end of the session. */
int h_dump_arm(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    struct molt_dump_opts o;
    (void)reply;
    int r = dump_request(rq, &o, err);
    if (r < 0)
        return r;
    move_disarm(s);
    return molt_dump_arm(s->workload, &o, &s->dump, err);
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

/* Arms where that is not done; *ret_armed tells whether it was. Then the workload stands still. */
static int begin_dump(struct session *s, const struct molt_dump_opts *o, bool *ret_armed, struct molt_error **err)
{
    int r = 0;
    if (s->dump && !molt_dump_fits(s->dump, s->workload, o))
        move_disarm(s);
    *ret_armed = s->dump != NULL;
    if (!s->dump)
        r = molt_dump_arm(s->workload, o, &s->dump, err);
    if (r == 0)
        r = molt_dump_begin(s->dump, err);
    if (r == 0)
        r = molt_workload_refresh(s->workload, err);
    return r < 0 ? r : molt_dump_go_on(s->dump, s->workload, err);
}

static int end_dump(struct session *s, struct molt_json *reply, struct molt_error **err)
{
    struct molt_dump_stats stats = {0};
    int r = molt_dump_end(MOLT_STEAL_PTR(s->dump), s->workload, &stats, err);
    stats.armed = s->armed;
    if (r == 0)
        molt_json_set(reply, "stats", molt_dump_stats_json(&stats));
    return r;
}

/* {"unit", "rounds", "early"}. The workload stands still from here on, and soon after everything else. Undone by resume, or by the end of
 * the session. dump-prepare came before, and perhaps dump-arm. early: the reply comes while CRIU still reads, with "dumping": dump-end is
 * to follow; where something in the guest may have to answer CRIU it comes at the end all the same. */
int h_dump(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    struct molt_dump_opts o;
    int r = dump_request(rq, &o, err);
    if (r < 0)
        return r;
    bool early = molt_json_get_bool(rq->args, "early", false) && !has_user_file_system();
    free(s->frozen_unit);
    s->frozen_unit = molt_xstrdup(s->workload->unit);
    r = begin_dump(s, &o, &s->armed, err);
    if (r == 0 && !early)
        r = end_dump(s, reply, err);
    if (r < 0) {
        move_resume(s);
        return r;
    }
    molt_json_set(reply, "workload", molt_workload_json(s->workload));
    if (early)
        molt_json_set_bool(reply, "dumping", true);
    stop_bystanders(s, s->workload, reply);
    return 0;
}

/* -> {"stats"}: behind a "dump" that said "dumping". */
int h_dump_end(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    if (!s->dump || !s->frozen_unit)
        return molt_error_set(err, MOLT_E_STATE, "no dump has begun");
    int r = end_dump(s, reply, err);
    if (r < 0)
        move_resume(s);
    return r;
}

void move_resume(struct session *s)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    if (!s->frozen_unit)
        return;
    move_disarm(s);
    move_thaw_bystanders(s->log);
    if (molt_dump_resume(s->frozen_unit, &err) < 0)
        molt_err(s->log, "%s", molt_error_text(err));
    move_forget_images();
    free(s->frozen_unit);
    s->frozen_unit = NULL;
}

/* Idempotent, and works in a later session too. */
int h_resume(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *unit;
    (void)reply;
    int r = need_unit(rq, &unit, err);
    if (r < 0)
        return r;
    move_disarm(s);
    move_thaw_bystanders(s->log);
    free(s->frozen_unit);
    s->frozen_unit = NULL;
    move_forget_images();
    return molt_dump_resume(unit, err);
}

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
    int r = need_unit(rq, &unit, err);
    if (r == 0 && (!op || strchr(op, '/') || !s->peer))
        r = molt_error_set(err, MOLT_E_PROTOCOL, "pins-fetch: bad arguments");
    molt_json_set_string(args, "unit", unit);
    if (r == 0)
        r = molt_call(s->peer, "pins", args, NULL, &answer, err);
    if (r == 0)
        r = molt_pins_parse(molt_json_get(answer, "pins"), &pins, err);
    if (r == 0)
        r = molt_pins_compare(pins, "", &needed, &bytes, err);
    for (size_t i = 0; r == 0 && i < pins->n; i++)
        if (volumes_cover(pins->v[i].path)) /* they come with their file system */
            pins->v[i].need = MOLT_PIN_SAME;
    CLEANUP_FREE char *dir = molt_xasprintf(MOLT_PINS_DIR "/%s", op ? op : "");
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

/* Takes back the mask that init.c put on the unit. */
static int unmask(const char *unit, struct molt_error **err)
{
    char *reload[] = {"systemctl", "daemon-reload", NULL};
    struct molt_run_opts o = {.timeout_ms = 120000};
    CLEANUP_FREE char *mask = molt_xasprintf("/run/systemd/system.control/%s", unit);
    if (unlink(mask) < 0)
        return errno == ENOENT ? 0 : molt_error_errno(err, "unmask %s", unit);
    return molt_run_ok(reload, &o, NULL, err);
}

/* {"unit", "main_pid", "ids", "cwd", "overlay"} */
int h_restore_prepare(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *unit;
    (void)reply;
    int r = need_unit(rq, &unit, err);
    if (r < 0)
        return r;
    if ((r = unmask(unit, err)) < 0 || (r = fresh_dump_dir(err)) < 0)
        return r;
    CLEANUP_JSON struct molt_json *v = molt_json_copy(rq->args);
    const char *cwd = molt_json_get_string(v, "cwd");
    if (cwd && volumes_cover(cwd)) /* it comes with its file system */
        molt_json_set_string(v, "cwd", NULL);
    molt_json_set_int(v, "schema", 1);
    molt_json_set_string(v, "images", MOLT_AGENT_DUMP);
    molt_json_set_string(v, "agent", MOLT_AGENT_PROGRAM);
    struct molt_restore_spec spec = {0};
    r = molt_restore_spec_parse(v, &spec, err);
    free(s->prepared_unit);
    s->prepared_unit = molt_xstrdup(unit);
    if (r == 0)
        r = molt_restore_prepare(&spec, 60000, s->log, err);
    molt_restore_spec_clear(&spec);
    sync(); /* what passes and pins wrote: the syncfs of the final pass would have to, in the freeze */
    return r;
}

/* {"rounds"} -> {"image_bytes"}: the dump's images, which may still be written: it returns when all are here. */
int h_images_fetch(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    uint64_t bytes = 0;
    unsigned rounds = 0;
    int r = predump_number(rq, "rounds", &rounds, err);
    if (r == 0 && !s->peer)
        r = molt_error_set(err, MOLT_E_STATE, "no connection to the other agent");
    if (r == 0)
        r = images_fetch(s->peer, MOLT_AGENT_DUMP, 0, true, &bytes, err);
    if (r == 0)
        r = molt_predump_link(MOLT_AGENT_DUMP, rounds, err);
    molt_json_set_int(reply, "image_bytes", (int64_t)bytes);
    return r;
}

/* {"unit"}: the images are here; the tree stands restored and stopped when this returns. */
int h_restore_go(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const char *unit;
    struct molt_dump_stats stats = {0};
    int64_t t0 = molt_mono_us();
    int r = need_unit(rq, &unit, err);
    if (r == 0)
        r = molt_restore_go(unit, RESTORE_MS, &stats, err);
    molt_json_set_double(reply, "restore_ms", (double)(molt_mono_us() - t0) / 1000);
    molt_json_set(reply, "stats", molt_dump_stats_json(&stats));
    return r;
}

int h_restore_thaw(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *unit;
    (void)reply;
    int r = need_unit(rq, &unit, err);
    if (r == 0)
        r = molt_restore_thaw(unit, err);
    if (r == 0) {
        free(s->prepared_unit);
        s->prepared_unit = NULL;
    }
    return r;
}

int h_restore_undo(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *unit;
    (void)reply;
    int r = need_unit(rq, &unit, err);
    free(s->prepared_unit);
    s->prepared_unit = NULL;
    return r == 0 ? molt_restore_undo(unit, err) : r;
}

/* After the thaw: systemd has the process under its own unit file again, then everything that the upgrade target
 * kept from starting starts. */
int h_go_live(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *unit;
    struct molt_run_opts o = {.timeout_ms = 120000};
    char *journald[] = {"systemctl", "restart", "systemd-journald.service", NULL};
    char *start[] = {"systemctl", "start", "--no-block", "default.target", NULL};
    (void)reply;
    int r = need_unit(rq, &unit, err);
    if (r < 0)
        return r;
    merge_free(s);
    molt_chan_close(s->peer);
    s->peer = NULL;
    move_forget_images();
    unlink("/run/systemd/journald.conf.d/50-xenmolt.conf");
    unlink(MOLT_AGENT_RUN "/mode");
    CLEANUP_FREE char *spec = molt_xasprintf(MOLT_AGENT_RUN "/restore/%s/spec.json", unit);
    /* Gone: an earlier call finished already (recovery asks again). */
    if (molt_exists(spec) && ((r = molt_restore_adopted(unit, ADOPT_MS, err)) < 0 || (r = molt_restore_finish(unit, err)) < 0))
        return r;
    if (molt_run_ok(journald, &o, NULL, err) < 0) {
        molt_warn(s->log, "journald: %s", err ? molt_error_text(*err) : "");
        molt_error_clear(err);
    }
    return molt_run_ok(start, &o, NULL, err);
}

/* {"unit", "main_pid"} -> {active_state, main_pid, same_pid, workload} */
int h_verify(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const char *unit;
    CLEANUP_WORKLOAD struct molt_workload *w = NULL;
    int r = need_unit(rq, &unit, err);
    if (r == 0)
        r = molt_workload_scan(unit, &w, err);
    if (r < 0)
        return r;
    molt_json_set(reply, "workload", molt_workload_json(w));
    molt_json_set_bool(reply, "same_pid", w->main_pid == molt_json_get_int(rq->args, "main_pid", -1));
    molt_json_set(reply, "os", agent_os_info());
    return 0;
}
