/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Everything that can be known before anything is changed. Reads only. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "checks.h"
#include "disk.h"
#include "diskplan.h"
#include "proto/resolve.h"
#include "upgrade.h"

#define MIB (1024.0 * 1024)
#define MAX_UNIT_NAMES 1000 /* bytes: they go on the clone's kernel command line, of 2048 */
#define DEFAULT_SPACE_MB 1500
#define MEMORY_RESERVE_KIB (32 * 1024)
/* Blackout estimate: fixed part and image throughput measured on nested Xen (docs/PERFORMANCE.md); a pessimist's. */
#define BLACKOUT_FIXED_MS 1500
#define BLACKOUT_MS_PER_MIB 12

struct preflight {
    struct xenmolt *x;
    const xenmolt_upgrade_params *p;
    const char *merge_disks; /* p's, where the caller knows of it */
    struct molt_json *checks, *params, *estimate;
    struct molt_domain dom;
    libxl_domain_config cfg;
    bool have_cfg;
    struct molt_chan *agent;
    struct molt_json *hello, *guest;
    int64_t rss;
};

static int check_domain(struct preflight *f, struct molt_error **err)
{
    int r = molt_domain_find(f->x, f->p->domain, &f->dom, err);
    if (r < 0)
        return r;
    molt_json_set_string(f->params, "domain", f->dom.name);
    molt_json_set_int(f->params, "domid", f->dom.domid);
    molt_json_set_string(f->params, "uuid", f->dom.uuid);
    if (f->dom.domid == 0)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "%s is dom0; only domUs can be upgraded", f->p->domain);
    static const char *const ours[] = {"--clone", "--replaced"};
    for (size_t i = 0; i < 2; i++) {
        const char *at = strstr(f->dom.name, ours[i]);
        if (at && !at[strlen(ours[i])])
            return molt_error_set(err, MOLT_E_BUSY, "%s belongs to another operation (`xenmolt op-list`); name the guest itself", f->dom.name);
        struct molt_domain other;
        CLEANUP_FREE char *name = molt_xasprintf("%s%s", f->dom.name, ours[i]);
        if (molt_domain_by_name(f->x, name, &other))
            return molt_error_set(err, MOLT_E_BUSY, "a domain named %s exists: an earlier operation on %s is not ended; see `xenmolt op-list`, then op-commit, op-rollback or op-recover it", name, f->dom.name);
    }
    if (!f->dom.pv)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "%s is not a PV guest; only PV guests are supported yet", f->dom.name);
    if (f->dom.paused || f->dom.shutdown)
        return molt_error_set(err, MOLT_E_STATE, "%s does not run (%s); unpause or start it", f->dom.name, f->dom.paused ? "paused" : "shut down");
    return 0;
}

static int check_operation(struct preflight *f, struct molt_error **err)
{
    return molt_checks_idle(f->x, f->dom.name, err);
}

static int check_config(struct preflight *f, struct molt_error **err)
{
    int r = molt_domain_config(f->x, f->dom.domid, &f->cfg, err);
    if (r < 0)
        return r;
    f->have_cfg = true;
    if (f->cfg.num_pcidevs || f->cfg.num_usbdevs || f->cfg.num_vtpms || f->cfg.num_p9s)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "the domain has passed-through or special devices (PCI, USB, vTPM, 9p), which cannot be given to a clone");
    if (f->cfg.num_nics < 1)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "the domain has no vif");
    for (int i = 0; i < f->cfg.num_nics; i++)
        if (!f->cfg.nics[i].bridge)
            return molt_error_set(err, MOLT_E_UNSUPPORTED, "vif %d is not on a bridge", f->cfg.nics[i].devid);
    return 0;
}

/* The snapshot is QEMU's; libxl gives a raw file to blkback when it is not told otherwise. */
static int check_qdisk(struct molt_qmp *q, const struct molt_guest_disk *d, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *why = NULL;
    CLEANUP_FREE char *node = NULL;
    if (q && molt_disk_find_node(q, d->path, &node, &why) == 0)
        return 0;
    return molt_error_set(err, MOLT_E_UNSUPPORTED, "disk %s is not served by QEMU, whose snapshots are used (%s); give it backendtype=qdisk in the domain's configuration and start the domain anew",
                          d->vdev, why ? molt_error_text(why) : "the domain has no device model");
}

static bool is_classic(const struct molt_guest_disk *d)
{
    return d->is_lv && !d->lv.thin;
}

/* Bytes that may change below a classic snapshot. */
static int64_t snapshot_room(const struct molt_guest_disk *d, int64_t space)
{
    return space < (int64_t)d->virtual_size ? space : (int64_t)d->virtual_size;
}

/* A volume's snapshot is in its group or pool; a classic one has its overlay in the state directory, too, and op-commit
 * makes a volume of the same size. */
static int check_volume_room(const struct molt_guest_disk *d, int64_t space, struct molt_error **err)
{
    int64_t need = d->lv.thin ? space : snapshot_room(d, space) + (int64_t)d->virtual_size;
    if ((int64_t)d->free_bytes >= need)
        return 0;
    return molt_error_set(err, MOLT_E_NO_SPACE, "the snapshot of disk %s%s needs %.0f MiB in the %s of volume %s/%s, %.0f MiB are free; make room there (vgextend, lvextend)", d->vdev,
                          d->lv.thin ? "" : ", and the volume that op-commit makes of it,", (double)need / MIB, d->lv.thin ? "pool" : "group", d->lv.vg, d->lv.name, (double)d->free_bytes / MIB);
}

static int check_state_room(struct preflight *f, int64_t space, struct molt_error **err)
{
    struct statvfs vfs;
    if (statvfs(f->x->state_dir, &vfs) < 0)
        return molt_error_errno(err, "%s", f->x->state_dir);
    int64_t have = (int64_t)vfs.f_bavail * (int64_t)vfs.f_frsize;
    return have >= space ? 0 : molt_error_set(err, MOLT_E_NO_SPACE, "the overlay on a classic snapshot needs about %.0f MiB in %s, %.0f MiB are free; make room there, or use a thin pool",
                                              (double)space / MIB, f->x->state_dir, (double)have / MIB);
}

/* Overlays lie beside their disks: each file system that holds a disk needs the room. */
static int check_room(struct preflight *f, const struct molt_guest_disks *disks, int64_t space, struct molt_error **err)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < disks->n; i++) {
        if (disks->v[i].is_lv)
            r = check_volume_room(&disks->v[i], space, err);
        if (r == 0 && is_classic(&disks->v[i]))
            r = check_state_room(f, space, err);
    }
    for (size_t i = 0; r == 0 && i < disks->n; i++)
        if (!disks->v[i].is_lv && (int64_t)disks->v[i].free_bytes < space)
            return molt_error_set(err, MOLT_E_NO_SPACE, "the overlays need about %.0f MiB beside %s, %.0f MiB are free; make room there",
                                  (double)space / MIB, disks->v[i].path, (double)disks->v[i].free_bytes / MIB);
    return r;
}

/* What the operation has to know of a volume. */
static void add_volume(struct molt_json *v, const struct molt_guest_disk *d, int64_t space)
{
    molt_json_set_string(v, "lvm", d->lv.thin ? "thin" : "classic");
    molt_json_set_string(v, "vg", d->lv.vg);
    molt_json_set_string(v, "lv", d->lv.name);
    molt_json_set_string(v, "backend", d->backend);
    molt_json_set_int(v, "size", (int64_t)d->virtual_size);
    molt_json_set_int(v, "room", snapshot_room(d, space));
}

static int check_disks(struct preflight *f, struct molt_error **err)
{
    CLEANUP_GUEST_DISKS struct molt_guest_disks disks = {.n = 0};
    CLEANUP_QMP struct molt_qmp *q = NULL;
    int r = molt_guest_disks_of(&f->cfg, &disks, err);
    if (r < 0)
        return r;
    int64_t space = molt_json_get_int(f->params, "recipe_space_mb", DEFAULT_SPACE_MB) * 1024 * 1024;
    struct molt_json *list = molt_json_array();
    uint64_t least = disks.v[0].free_bytes;
    if (molt_qmp_open(f->dom.domid, &q, NULL) < 0)
        q = NULL;
    for (size_t i = 0; i < disks.n; i++) {
        struct molt_json *v = molt_json_object();
        molt_json_set_string(v, "vdev", disks.v[i].vdev);
        molt_json_set_string(v, "path", disks.v[i].path);
        molt_json_set_string(v, "format", disks.v[i].format);
        if (disks.v[i].is_lv)
            add_volume(v, &disks.v[i], space);
        molt_json_append(list, v);
        least = disks.v[i].free_bytes < least ? disks.v[i].free_bytes : least;
        if (r == 0 && !disks.v[i].is_lv)
            r = check_qdisk(q, &disks.v[i], err);
    }
    molt_json_set(f->params, "disks", list);
    molt_json_set_int(f->estimate, "disk_bytes", space);
    molt_json_set_int(f->estimate, "disk_free_bytes", (int64_t)least);
    return r < 0 ? r : check_room(f, &disks, space, err);
}

static int check_memory(struct preflight *f, struct molt_error **err)
{
    uint64_t free_kib = 0, need_kib = 0;
    int r = molt_domain_free_memory(f->x, &free_kib, err);
    if (r == 0)
        r = molt_domain_need_memory(f->x, f->dom.domid, &need_kib, err);
    if (r < 0)
        return r;
    molt_json_set_int(f->estimate, "memory_bytes", (int64_t)need_kib * 1024);
    molt_json_set_int(f->estimate, "memory_free_bytes", (int64_t)free_kib * 1024);
    if (free_kib < need_kib + MEMORY_RESERVE_KIB)
        return molt_error_set(err, MOLT_E_NO_SPACE, "the clone needs %.0f MiB of memory, Xen has %.0f MiB free; shut down or balloon down other domains, or dom0 (xl mem-set)", (double)need_kib / 1024, (double)free_kib / 1024);
    return 0;
}

static int check_agent(struct preflight *f, struct molt_error **err)
{
    int r = molt_guest_connect(f->x, f->dom.domid, &f->agent, &f->hello, err);
    return r;
}

/* As a kernel's command line and a list can have it. */
static bool unit_is_plain(const char *unit)
{
    return *unit && strspn(unit, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:@\\") == strlen(unit);
}

static int check_workload(struct preflight *f, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    if (f->p->workload)
        molt_json_set_string(args, "workload", f->p->workload);
    int r = molt_call(f->agent, "preflight", args, NULL, &f->guest, err);
    if (r < 0)
        return r;
    const struct molt_json *list = molt_json_get(f->guest, "workloads");
    CLEANUP_STRBUF struct molt_strbuf names = MOLT_STRBUF_INIT;
    for (size_t i = 0; i < molt_json_size(list); i++) {
        const char *unit = molt_json_get_string(molt_json_at(list, i), "unit");
        if (!unit || !unit_is_plain(unit))
            return molt_error_set(err, MOLT_E_PROTOCOL, "the agent tells of a workload without a name");
        molt_strbuf_addf(&names, "%s%s", i ? "," : "", unit);
        f->rss += molt_json_get_int(molt_json_at(list, i), "rss_bytes", 0);
    }
    if (names.len == 0 || names.len > MAX_UNIT_NAMES)
        return molt_error_set(err, MOLT_E_PROTOCOL, names.len ? "the names of the services that are to move take more than %d bytes together" : "the agent tells of no workload", MAX_UNIT_NAMES);
    molt_json_set_string(f->params, "workload", names.s);
    molt_json_set(f->params, "workloads_before", molt_json_copy(list));
    return 0;
}

/* Which file systems there are decides what becomes of each disk (diskplan.h). */
static int check_filesystems(struct preflight *f, struct molt_error **err)
{
    struct molt_json *disks = NULL, *merged = NULL;
    int r = molt_diskplan(molt_json_get(f->params, "disks"), f->guest, f->merge_disks, &disks, &merged, err);
    if (r < 0)
        return r;
    molt_json_set(f->params, "disks", disks);
    molt_json_set(f->params, "file_systems", merged);
    return 0;
}

static int check_movable(struct preflight *f, struct molt_error **err)
{
    const struct molt_json *list = molt_json_get(f->guest, "reasons");
    if (molt_json_size(list) == 0)
        return 0;
    const struct molt_json *first = molt_json_at(list, 0);
    const char *detail = molt_json_get_string(first, "detail"), *remedy = molt_json_get_string(first, "remedy");
    return molt_error_set(err, MOLT_E_CANNOT_MOVE, "%s cannot be moved: %.300s; %.300s%s", molt_json_get_string(f->params, "workload"), detail ? detail : "?",
                          remedy ? remedy : "", molt_json_size(list) > 1 ? " (and more: guest-upgrade -n --json lists all)" : "");
}

static int check_guest_memory(struct preflight *f, struct molt_error **err)
{
    int64_t avail = molt_json_get_int(f->hello, "mem_available", 0);
    molt_json_set_int(f->estimate, "guest_memory_bytes", f->rss);
    if (avail < f->rss)
        return molt_error_set(err, MOLT_E_NO_SPACE, "the workload's image needs up to %.0f MiB of memory in the guest while it moves, %.0f MiB are available; give the guest more memory", (double)f->rss / MIB, (double)avail / MIB);
    return 0;
}

static int check_recipe(struct preflight *f, struct molt_error **err)
{
    if (f->p->recipe_arg)
        molt_json_set_string(f->params, "recipe_arg", f->p->recipe_arg);
    return molt_recipe_find(f->p->recipe ? f->p->recipe : "debian-security", f->params, err);
}

static int check_decisions(struct preflight *f, struct molt_error **err)
{
    size_t n = 0;
    int r = f->p->resolve_file ? molt_resolve_load(f->p->resolve_file, NULL, &n, err) : 0;
    if (r == 0 && (f->p->wait_hours < 0 || f->p->wait_hours > XENMOLT_WAIT_HOURS_MAX))
        r = molt_error_set(err, MOLT_E_USAGE, "an operation waits 1 to %d hours, not %d", XENMOLT_WAIT_HOURS_MAX, f->p->wait_hours);
    if (f->p->resolve_file)
        molt_json_set_int(f->params, "decisions", (int64_t)n);
    if (f->p->wait_hours)
        molt_json_set_int(f->params, "wait_hours", f->p->wait_hours);
    return r;
}

struct check {
    const char *name;
    int (*fn)(struct preflight *f, struct molt_error **err);
    bool needs_agent; /* stop here when an earlier check failed */
};
static const struct check checks[] = {
    {"recipe", check_recipe, false},
    {"decisions", check_decisions, false},
    {"domain", check_domain, false},
    {"operation", check_operation, true},
    {"configuration", check_config, true},
    {"disks", check_disks, true},
    {"memory", check_memory, true},
    {"agent", check_agent, true},
    {"workload", check_workload, true},
    {"file systems", check_filesystems, true},
    {"movable", check_movable, true},
    {"guest memory", check_guest_memory, true},
};

/* As far as it can be known before the new system is there: whether with an overlay, or not onto that system, tells the operation before the freeze (up_compare). */
static struct molt_json *verdicts(const struct preflight *f)
{
    struct molt_json *list = molt_json_array();
    const struct molt_json *w = molt_json_get(f->guest, "workloads");
    const bool refused = molt_json_size(molt_json_get(f->guest, "reasons")) > 0;
    for (size_t i = 0; i < molt_json_size(w); i++) {
        struct molt_json *o = molt_json_object();
        molt_json_set(o, "unit", molt_json_copy(molt_json_get(molt_json_at(w, i), "unit")));
        molt_json_set_string(o, "verdict", refused ? "refuse" : "move");
        molt_json_append(list, o);
    }
    return list;
}

static void estimate_blackout(struct preflight *f)
{
    molt_json_set_int(f->estimate, "blackout_ms", BLACKOUT_FIXED_MS + (int64_t)((double)f->rss / MIB * BLACKOUT_MS_PER_MIB));
}

int molt_upgrade_preflight(struct xenmolt *x, const xenmolt_upgrade_params *p, struct molt_json **ret_result,
                           struct molt_json **ret_params, struct molt_error **err)
{
    struct preflight f = {.x = x, .p = p, .checks = molt_json_array(), .params = molt_json_object(), .estimate = molt_json_object()};
    int first = 0;
    if (p->size >= offsetof(xenmolt_upgrade_params, merge_disks) + sizeof(p->merge_disks))
        f.merge_disks = p->merge_disks;
    if (p->size >= offsetof(xenmolt_upgrade_params, no_rehearsal) + sizeof(p->no_rehearsal) && p->no_rehearsal)
        molt_json_set_bool(f.params, "no_rehearsal", true);
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        CLEANUP_ERROR struct molt_error *e = NULL;
        if (first < 0 && checks[i].needs_agent)
            break; /* the rest would only repeat the cause */
        int r = checks[i].fn(&f, &e);
        molt_checks_add(f.checks, checks[i].name, r, e);
        if (r < 0 && first == 0) {
            first = r;
            molt_error_move(err, MOLT_STEAL_PTR(e));
        }
    }
    if (first == 0)
        estimate_blackout(&f);
    molt_json_set_string(f.params, "on_conflict", p->on_conflict ? p->on_conflict : "refuse");
    molt_json_set_bool(f.params, "keep_active", p->keep_active != 0);
    struct molt_json *result = molt_json_object();
    molt_json_set_string(result, "domain", p->domain);
    molt_json_set_bool(result, "ok", first == 0);
    molt_json_set(result, "checks", f.checks);
    molt_json_set(result, "estimate", f.estimate);
    if (molt_json_get(f.params, "file_systems")) /* then it is known what becomes of the disks */
        molt_json_set(result, "disks", molt_json_copy(molt_json_get(f.params, "disks")));
    if (f.guest) {
        molt_json_set(result, "reasons", molt_json_copy(molt_json_get(f.guest, "reasons")));
        molt_json_set(result, "workloads", verdicts(&f));
    }
    if (f.have_cfg)
        libxl_domain_config_dispose(&f.cfg);
    molt_chan_close(f.agent);
    molt_json_free(f.hello);
    molt_json_free(f.guest);
    *ret_result = result;
    *ret_params = f.params;
    return first;
}
