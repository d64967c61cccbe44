/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guest-upgrade from the pivot on: nothing here is undone by a failure, recovery runs it again to its end. */
#include <libxl_utils.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "disk.h"
#include "upgrade.h"

#define GO_LIVE_MS 900000
#define MOMENT_MS  300 /* the workload makes up for its pause: nothing that can wait takes processors from it, here or there */

/* The point of no return: one xenstore transaction (xenstore/identity.c). */
int step_pivot(struct molt_op *op, struct molt_error **err)
{
    struct up_identity id;
    up_identity_of(op, &id);
    int r = molt_identity_pivot(&up_of(op)->x->store, &id.id, &up_of(op)->pivot, err);
    up_identity_clear(&id);
    up_note_us(op, "t_pivot");
    return r;
}

int probe_pivot(struct molt_op *op, enum molt_probe *ret, struct molt_error **err)
{
    int owner = molt_identity_owner(&up_of(op)->x->store, molt_op_id(op), err);
    if (owner < 0)
        return owner;
    *ret = owner ? MOLT_PROBE_DONE : MOLT_PROBE_NOT_DONE;
    return 0;
}

/* It serves already: a lost announcement only costs the neighbours a moment. */
void up_announce(struct molt_op *op, struct molt_chan *clone)
{
    CLEANUP_ERROR struct molt_error *e = NULL;
    if (molt_call(clone, "net-announce", NULL, NULL, NULL, &e) < 0)
        molt_warn(molt_op_log(op), "the gratuitous ARP could not be sent: %s", molt_error_text(e));
}

/* The old domain is paused, and its vifs leave their bridges. The workload stands still there and the vifs are mute: nothing waits for that, and behind the thaw the
 * workload would wait for the processor that it takes in dom0. */
static int lay_down_active(struct molt_op *op, struct molt_error **err)
{
    struct xenmolt *x = up_of(op)->x;
    struct molt_domain d;
    CLEANUP_VIFS struct up_vifs vifs = {0};
    uint32_t active = (uint32_t)up_param_int(op, "domid");
    if (molt_domain_info(x, active, &d, NULL) < 0 || !molt_streq(d.uuid, up_param(op, "uuid")))
        return 0; /* it is gone */
    int r = d.paused ? 0 : molt_domain_pause(x, active, err);
    if (r == 0)
        r = up_vifs_of(op, active, &vifs, err);
    for (int i = 0; i < vifs.n && r == 0; i++)
        r = molt_vif_to_bridge(vifs.v[i].vif, NULL, err);
    return r;
}

/* Beside the thaw the vifs may speak: what the workload sends before waits in the clone's ring, and what was held for it comes into its sockets as it
 * would from any network. */
static int beside_thaw(struct molt_op *op, void *vifs, struct molt_error **err)
{
    int r = up_release(op, vifs, err);
    up_note_us(op, "t_released");
    return r;
}

int step_switch(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *clone;
    const struct up_vifs *vifs;
    CLEANUP_JSON struct molt_json *thaw = NULL;
    int r = up_clone_vifs(op, &vifs, err);
    if (r == 0)
        r = up_clone(op, &clone, err);
    if (r == 0)
        r = up_call_beside(op, clone, "restore-thaw", NULL, beside_thaw, (void *)vifs, &thaw, err);
    if (r < 0)
        return r;
    up_note_us(op, "t_thawed");
    molt_op_note(op, "thaw", MOLT_STEAL_PTR(thaw));
    up_hurry(op, false);
    return 0;
}

/* libxl's configuration may still have a disk that was detached. */
static void drop_bases(struct molt_op *op, libxl_domain_config *cfg)
{
    int n = 0;
    for (int i = 0; i < cfg->num_disks; i++)
        if (up_disks_is_base(op, cfg->disks[i].vdev))
            libxl_device_disk_dispose(&cfg->disks[i]);
        else
            cfg->disks[n++] = cfg->disks[i];
    cfg->num_disks = n;
}

/* What the domain starts from next time: the guest's own command line, its bridges, its own disks. */
static int settle_config(struct molt_op *op, struct molt_error **err)
{
    struct xenmolt *x = up_of(op)->x;
    libxl_domain_config now, old;
    uint32_t domid = (uint32_t)up_fact_int(op, "clone_domid", 0);
    CLEANUP_FREE char *dir = up_domain_dir(op);
    CLEANUP_FREE char *initrd = molt_xasprintf("%s/initrd", dir), *boot_initrd = molt_xasprintf("%s/" UP_BOOT_INITRD, dir);
    int r = molt_domain_config(x, (uint32_t)up_param_int(op, "domid"), &old, err);
    if (r < 0)
        return r;
    if ((r = molt_domain_config(x, domid, &now, err)) < 0) {
        libxl_domain_config_dispose(&old);
        return r;
    }
    molt_set_string(&now.c_info.name, molt_op_subject(op));
    molt_set_string(&now.b_info.cmdline, old.b_info.cmdline);
    if (now.b_info.ramdisk && !now.b_info.bootloader) /* else it is a path in the guest */
        molt_set_string(&now.b_info.ramdisk, initrd);
    drop_bases(op, &now);
    r = up_volumes_settle(op, &now, &old, err);
    for (int i = 0; i < now.num_nics && i < old.num_nics; i++) {
        CLEANUP_FREE char *key = molt_xasprintf("/local/domain/0/backend/vif/%u/%d/bridge", domid, now.nics[i].devid);
        molt_set_string(&now.nics[i].bridge, old.nics[i].bridge);
        if (r == 0)
            r = molt_store_write(&x->store, key, old.nics[i].bridge, err);
    }
    if (r == 0)
        r = molt_domain_store_config(x, domid, &now, err);
    if (r == 0)
        r = molt_xlcfg_write(x, molt_op_subject(op), molt_op_id(op), &now, err);
    CLEANUP_FREE char *name = up_replaced_name(op);
    molt_set_string(&old.c_info.name, name);
    if (r == 0)
        r = molt_domain_store_config(x, (uint32_t)up_param_int(op, "domid"), &old, err);
    libxl_domain_config_dispose(&now);
    libxl_domain_config_dispose(&old);
    if (r == 0)
        unlink(boot_initrd); /* for one boot only, and libxl has read it */
    return r;
}

/* It serves, and lacks nothing that a hook's programs would take from it: one that fails changes nothing of that. */
static void after_thaw(struct molt_op *op, struct molt_chan *clone)
{
    CLEANUP_ERROR struct molt_error *e = NULL;
    if (up_hooks(op, clone, "after-thaw", &e) < 0)
        molt_warn(molt_op_log(op), "%s", molt_error_text(e));
}

/* What is to be done in the clone from here on can wait until the workload has what it needs. A failure of that is told by "go-live", which waits for the same.
 * `meanwhile` may be NULL. */
static int wait_for_memory(struct molt_op *op, struct molt_chan *clone, const struct molt_json *units, int (*meanwhile)(struct molt_op *op, struct molt_error **err),
                           struct molt_error **err)
{
    const struct molt_call call = {.timeout_ms = GO_LIVE_MS};
    CLEANUP_ERROR struct molt_error *e = NULL;
    uint32_t seq;
    molt_sleep_ms(MOMENT_MS);
    int r = molt_call_begin(clone, "memory-wait", units, &seq, &e), other = meanwhile ? meanwhile(op, err) : 0;
    if (r == 0)
        r = molt_call_end(clone, "memory-wait", seq, &call, NULL, &e);
    if (r < 0 && !up_older_agent(clone, r, &e))
        molt_warn(molt_op_log(op), "%s", molt_error_text(e));
    return other;
}

int up_go_live(struct molt_op *op, struct molt_json *args, int (*meanwhile)(struct molt_op *op, struct molt_error **err), struct molt_error **err)
{
    struct molt_chan *clone;
    CLEANUP_JSON struct molt_json *live = NULL, *v = NULL;
    struct molt_call go_live = {.timeout_ms = GO_LIVE_MS}, call = {.timeout_ms = 300000};
    int r = up_clone(op, &clone, err);
    if (r < 0)
        return r;
    if ((r = wait_for_memory(op, clone, args, meanwhile, err)) < 0)
        return r;
    after_thaw(op, clone);
    up_note_merge(op, clone);
    r = molt_call(clone, "go-live", args, &go_live, &live, err);
    if (r == 0 && molt_json_size(molt_json_get(live, "units")) > 0)
        molt_op_note(op, "paged", molt_json_copy(live)); /* at a second try there is nothing to tell */
    if (r == 0)
        r = molt_call(clone, "verify", args, &call, &v, err);
    /* Nothing can be taken back here, and op-rollback needs the operation to end: the report has both PIDs. */
    if (r == 0 && !molt_json_get_bool(v, "same_pid", false))
        molt_warn(molt_op_log(op), "%s: runs, but not as the process that was moved", up_param(op, "workload"));
    if (r == 0)
        molt_op_note(op, "verify", molt_json_copy(v));
    return r;
}

int step_verify(struct molt_op *op, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = up_units_args(op);
    const struct up_vifs *vifs;
    struct molt_chan *clone;
    int r = up_go_live(op, args, lay_down_active, err);
    if (r == 0)
        r = up_clone(op, &clone, err);
    /* The same addresses behind the same bridge as before: nobody waits for word of it, and the workload would have waited for what it costs. */
    if (r == 0)
        up_announce(op, clone);
    if (r == 0)
        r = up_clone_vifs(op, &vifs, err);
    /* Until here packets take the way on which they were held: to see them off it, and to delete devices, is work for much of dom0, which the workload
     * behind its pause would have waited for. Without the vifs they stay on it. */
    return r < 0 ? r : molt_hold_remove(molt_op_id(op), vifs->v, vifs->n, err);
}

/* The names of the bases are the guest's to use again. */
static void forget_bases(struct molt_op *op)
{
    struct molt_chan *clone;
    CLEANUP_ERROR struct molt_error *e = NULL;
    CLEANUP_FREE char *names = up_disks_base_names(op);
    if (up_clone(op, &clone, &e) < 0 || molt_call(clone, "disks-forget", NULL, NULL, NULL, &e) < 0)
        molt_warn(molt_op_log(op), "before its next boot, udev in %s will not see disks that it is given as %s: %s", molt_op_subject(op), names, molt_error_text(e));
}

int step_retire(struct molt_op *op, struct molt_error **err)
{
    struct xenmolt *x = up_of(op)->x;
    uint32_t domid = (uint32_t)up_fact_int(op, "clone_domid", 0);
    forget_bases(op);
    up_drop(&up_of(op)->clone);
    up_drop(&up_of(op)->active);
    up_disks_unplug_bases(op);
    int r = settle_config(op, err);
    if (r == 0)
        r = molt_upnet_remove(&up_of(op)->net, err);
    return r < 0 ? r : molt_monitor_spawn(x, domid, err);
}

/* ---- afterwards ---- */

static int replaced_domain(struct molt_op *op, struct molt_domain *ret)
{
    CLEANUP_FREE char *name = up_replaced_name(op);
    return molt_domain_by_name(up_of(op)->x, name, ret) && molt_streq(ret->uuid, up_param(op, "uuid"));
}

int up_commit(struct molt_op *op, struct molt_error **err)
{
    struct molt_domain d;
    struct up_identity id;
    int r = 0;
    if (replaced_domain(op, &d))
        r = molt_domain_destroy(up_of(op)->x, d.domid, err);
    if (r == 0)
        r = up_fold_discard(op, UP_ACTIVE, err);
    /* Nothing else stands on the disk from before the upgrade any more. */
    if (r == 0)
        r = up_fold_new(op, err);
    up_identity_of(op, &id);
    if (r == 0)
        r = molt_identity_end(&up_of(op)->x->store, &id.id, err);
    up_identity_clear(&id);
    return r;
}

/* The old domain takes over again; what the new one wrote since the pivot is lost, as the caller confirmed. */
int up_rollback(struct molt_op *op, struct molt_error **err)
{
    struct xenmolt *x = up_of(op)->x;
    struct molt_domain old, now;
    struct molt_chan *agent;
    struct up_identity id;
    CLEANUP_VIFS struct up_vifs vifs = {0};
    uint32_t active = (uint32_t)up_param_int(op, "domid"), clone = (uint32_t)up_fact_int(op, "clone_domid", 0);
    if (molt_domain_info(x, active, &old, NULL) < 0 || !molt_streq(old.uuid, up_param(op, "uuid")))
        return molt_error_set(err, MOLT_E_STATE, "the old domain is gone; nothing can be brought back");
    int r = 0;
    bool have = molt_domain_by_uuid(x, up_fact(op, "clone_uuid"), &now); /* a reboot gave it another id */
    if (have && now.domid != clone) {
        clone = now.domid;
        r = molt_op_put(op, "clone_domid", molt_json_int(clone), err);
    }
    if (r == 0 && have && !now.paused)
        r = molt_domain_pause(x, clone, err);
    up_identity_of(op, &id);
    if (r == 0 && molt_identity_owner(&x->store, molt_op_id(op), NULL) == 1)
        r = molt_identity_return(&x->store, &id.id, err);
    up_identity_clear(&id);
    if (r == 0 && have)
        r = molt_domain_destroy(x, clone, err);
    if (r == 0 && molt_domain_info(x, active, &old, err) == 0 && old.paused)
        r = molt_domain_unpause(x, active, err);
    if (r == 0)
        r = up_active(op, &agent, err);
    if (r == 0)
        r = up_call_units(op, agent, "resume", NULL, err);
    if (r == 0)
        r = up_vifs_of(op, active, &vifs, err);
    for (int i = 0; r == 0 && i < vifs.n; i++)
        r = molt_vif_to_bridge(vifs.v[i].vif, vifs.v[i].bridge, err);
    if (r == 0)
        r = molt_call(agent, "net-announce", NULL, NULL, NULL, err);
    if (r == 0)
        r = undo_upgrade(op, err);
    CLEANUP_FREE char *cfg = molt_xlcfg_path(x, molt_op_subject(op));
    if (r == 0)
        unlink(cfg);
    return r < 0 ? r : undo_snapshot(op, err);
}
