/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guest-upgrade, first half: snapshot, clone, upgrade, reboot. The active guest serves on throughout. */
#include <errno.h>
#include <fcntl.h>
#include <libxl_utils.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "cpupolicy.h"
#include "disk.h"
#include "upgrade.h"

#define BOOT_LIMIT_MS (10 * 60 * 1000)
#define SHUTDOWN_LIMIT_MS (10 * 60 * 1000)
#define MAX_RECIPE_LOG (64u << 20)
#define PID_GAP 4000 /* processes of the clone start this far above the workload's highest thread id */

/* ---- snapshot ---- */

static int put_string(struct molt_op *op, const char *key, const char *value, struct molt_error **err)
{
    return molt_op_put(op, key, molt_json_string(value), err);
}

static void note_os(struct molt_op *op, struct molt_chan *agent)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    if (molt_call(agent, "os", NULL, NULL, &v, NULL) == 0)
        molt_op_note(op, "os_before", molt_json_copy(molt_json_get(v, "os")));
}

/* The one moment in which the active guest waits. */
static int frozen_snapshot(struct molt_op *op, struct molt_chan *agent, struct molt_qmp *q, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *frozen = NULL;
    CLEANUP_ERROR struct molt_error *thaw_error = NULL;
    int r = molt_call(agent, "fs-freeze", NULL, NULL, &frozen, err);
    int64_t t0 = molt_mono_us();
    if (r < 0)
        return r;
    double freeze_ms = molt_json_get_double(frozen, "ms", 0);
    if (molt_fault("snapshot"))
        r = molt_error_set(err, MOLT_E_INTERNAL, "fault point snapshot");
    else
        r = up_disks_snapshot(op, q, err);
    int t = molt_call(agent, "fs-thaw", NULL, NULL, NULL, &thaw_error);
    molt_op_note(op, "snapshot_pause_ms", molt_json_double(freeze_ms + (double)(molt_mono_us() - t0) / 1000));
    if (r < 0)
        return r;
    if (t < 0) {
        molt_error_move(err, MOLT_STEAL_PTR(thaw_error));
        return t;
    }
    return molt_op_put(op, "snapshot_ns", molt_json_int(molt_json_get_int(frozen, "realtime_ns", 0)), err);
}

/* Before the base is taken, so that the merge's passes cost what changed since. Without it they scan. */
static void start_recording(struct molt_op *op, struct molt_chan *agent)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    CLEANUP_ERROR struct molt_error *e = NULL;
    CLEANUP_JSON struct molt_json *args = molt_json_object(), *pairs = up_disks_pairs(op);
    struct molt_json *disks = molt_json_array();
    for (size_t i = 0; i < molt_json_size(pairs); i++)
        molt_json_append(disks, molt_json_copy(molt_json_get(molt_json_at(pairs, i), "vdev")));
    molt_json_set(args, "disks", disks);
    int r = molt_call(agent, "record-start", args, NULL, &v, &e);
    if (r == 0)
        molt_op_note(op, "recording", molt_json_copy(v));
    else
        molt_op_note(op, "recording", molt_json_bool(false));
    if (r < 0 || !molt_json_get_bool(v, "recording", false)) {
        const char *why = r < 0 ? molt_error_text(e) : molt_json_get_string(v, "reason");
        molt_warn(molt_op_log(op), "changes are not recorded, they will be scanned for: %s", why ? why : "no reason given");
    }
}

int step_snapshot(struct molt_op *op, struct molt_error **err)
{
    struct upgrade *u = up_of(op);
    struct molt_chan *agent;
    CLEANUP_QMP struct molt_qmp *q = NULL;
    uint32_t domid = (uint32_t)up_param_int(op, "domid");
    struct up_identity id;
    int r = up_active(op, &agent, err);
    if (r == 0 && up_disks_have_image(op))
        r = molt_qmp_open(domid, &q, err);
    if (r < 0)
        return r;
    note_os(op, agent);
    up_identity_of(op, &id);
    r = molt_identity_begin(&u->x->store, &id.id, err);
    up_identity_clear(&id);
    if (r == 0)
        r = up_disks_plan(op, q, err);
    if (r == 0)
        r = up_disks_make_overlays(op, err);
    if (r == 0)
        start_recording(op, agent);
    if (r == 0)
        r = frozen_snapshot(op, agent, q, err);
    if (r == 0)
        r = up_disks_make_clones(op, err);
    /* If the guest reboots meanwhile, xl must start it from the overlay that it writes now. */
    if (r == 0)
        r = up_disks_store_active(op, err);
    return r;
}

int undo_snapshot(struct molt_op *op, struct molt_error **err)
{
    struct up_identity id;
    int r = up_fold(op, UP_ACTIVE, up_param(op, "uuid"), molt_json_get(molt_op_facts(op), "snapshot_ns"), err);
    if (r < 0)
        return molt_error_prefix(err, "take back the snapshot");
    if ((r = up_fold_discard(op, UP_CLONE, err)) < 0)
        return molt_error_prefix(err, "take back the snapshot");
    up_identity_of(op, &id);
    r = molt_identity_end(&up_of(op)->x->store, &id.id, err);
    up_identity_clear(&id);
    return r;
}

/* ---- network ---- */

int step_network(struct molt_op *op, struct molt_error **err)
{
    return molt_upnet_create(&up_of(op)->net, err);
}

int undo_network(struct molt_op *op, struct molt_error **err)
{
    return molt_upnet_remove(&up_of(op)->net, err);
}

/* ---- clone ---- */

static int64_t highest_tid(struct molt_op *op)
{
    const struct molt_json *list = molt_json_get(molt_op_params(op), "workloads_before");
    int64_t max = 0;
    for (size_t k = 0; k < molt_json_size(list); k++) {
        const struct molt_json *tids = molt_json_get(molt_json_at(list, k), "tids");
        for (size_t i = 0; i < molt_json_size(tids); i++) {
            int64_t t = molt_json_intval(molt_json_at(tids, i), 0);
            max = t > max ? t : max;
        }
    }
    return max;
}

static void drop_nic(libxl_device_nic *nic)
{
    libxl_device_nic_dispose(nic);
}

/* One vif of the clone's own on the upgrade network; MAC in Xen's prefix, from the operation's random tail. */
static void nics_for_upgrade(struct molt_op *op, libxl_domain_config *cfg)
{
    const char *tail = strrchr(molt_op_id(op), '-');
    unsigned key = (unsigned)strtoul(tail ? tail + 1 : "1", NULL, 16);
    for (int i = 1; i < cfg->num_nics; i++)
        drop_nic(&cfg->nics[i]);
    cfg->num_nics = 1;
    libxl_device_nic *n = &cfg->nics[0];
    const unsigned char mac[6] = {0x00, 0x16, 0x3e, (unsigned char)(0x80 | (key >> 16)), (unsigned char)(key >> 8), (unsigned char)key};
    memcpy(n->mac, mac, 6);
    molt_set_string(&n->bridge, up_of(op)->net.egress);
    molt_set_string(&n->ifname, NULL);
    molt_set_string(&n->ip, NULL);
}

/* The vifs that will take over: same MAC, on a bridge that leads nowhere until the switch. */
static void nics_isolated(struct molt_op *op, libxl_domain_config *cfg)
{
    for (int i = 0; i < cfg->num_nics; i++) {
        molt_set_string(&cfg->nics[i].bridge, up_of(op)->net.isolated);
        molt_set_string(&cfg->nics[i].ifname, NULL);
    }
}

/* rdinit: the initrd is one of up_boot_initrd's. */
static void set_cmdline(struct molt_op *op, libxl_domain_config *cfg, const char *mode, bool rdinit)
{
    CLEANUP_FREE char *bases = up_disks_base_names(op);
    CLEANUP_FREE char *text = molt_xasprintf("%s init=/usr/sbin/xenmolt-agent systemd.unit=xenmolt.target xenmolt.mode=%s xenmolt.unit=%s xenmolt.pidbase=%lld xenmolt.base=%s%s",
                                             cfg->b_info.cmdline ? cfg->b_info.cmdline : "", mode, up_param(op, "workload"), (long long)(highest_tid(op) + PID_GAP), bases,
                                             rdinit ? " rdinit=/xenmolt-rdinit" : "");
    molt_set_string(&cfg->b_info.cmdline, text);
}

/* The running domain's configuration, with the clone's name, UUID and disks. */
static int clone_config(struct molt_op *op, libxl_domain_config *cfg, struct molt_error **err)
{
    int r = molt_domain_config(up_of(op)->x, (uint32_t)up_param_int(op, "domid"), cfg, err);
    if (r < 0)
        return r;
    CLEANUP_FREE char *name = up_clone_name(op);
    molt_set_string(&cfg->c_info.name, name);
    libxl_uuid_from_string(&cfg->c_info.uuid, up_fact(op, "clone_uuid"));
    cfg->c_info.domid = 0;
    if ((r = up_disks_of_clone(op, cfg, err)) < 0)
        libxl_domain_config_dispose(cfg);
    return r;
}

static int create(struct molt_op *op, libxl_domain_config *cfg, struct molt_error **err)
{
    uint32_t domid = 0;
    int r = molt_domain_create(up_of(op)->x, cfg, true, &domid, err);
    if (r == 0)
        r = molt_op_put(op, "clone_domid", molt_json_int(domid), err);
    if (r == 0) { /* its configuration is the guest's; but that one may have come from another host */
        CLEANUP_FREE char *name = up_clone_name(op);
        r = molt_cpu_policy_same((struct molt_cpu_of){(uint32_t)up_param_int(op, "domid"), molt_op_subject(op)}, (struct molt_cpu_of){domid, name},
                                 "the guest seems to have come from another host: reboot it first, so that it starts with this one's", err);
    }
    if (r == 0)
        r = molt_guest_wait(up_of(op)->x, domid, BOOT_LIMIT_MS, up_aborting, op, err);
    return r;
}

int step_clone(struct molt_op *op, struct molt_error **err)
{
    libxl_uuid uuid;
    char text[MOLT_UUID_TEXT];
    libxl_domain_config cfg;
    libxl_uuid_generate(&uuid);
    snprintf(text, sizeof(text), LIBXL_UUID_FMT, LIBXL_UUID_BYTES(uuid));
    int r = put_string(op, "clone_uuid", text, err); /* before the domain: undo finds it by this */
    if (r == 0)
        r = clone_config(op, &cfg, err);
    if (r < 0)
        return r;
    nics_for_upgrade(op, &cfg);
    set_cmdline(op, &cfg, "upgrade", false);
    r = create(op, &cfg, err);
    libxl_domain_config_dispose(&cfg);
    return r;
}

int undo_clone(struct molt_op *op, struct molt_error **err)
{
    struct molt_domain d;
    up_drop(&up_of(op)->clone);
    if (!up_fact(op, "clone_uuid") || !up_find_clone(op, &d))
        return 0;
    return molt_domain_destroy(up_of(op)->x, d.domid, err);
}

/* ---- upgrade ---- */

struct recipe_run {
    struct molt_op *op;
    int script, log;
    size_t left; /* bytes that the log may still take: the guest decides how much it says */
};

static long read_script(void *ctx, void *buf, size_t len, struct molt_error **err)
{
    ssize_t n;
    while ((n = read(((struct recipe_run *)ctx)->script, buf, len)) < 0 && errno == EINTR)
        ;
    return n < 0 ? molt_error_errno(err, "read the recipe") : n;
}

static void recipe_line(void *ctx, const struct molt_json *ev)
{
    struct recipe_run *run = ctx;
    const char *line = molt_json_get_string(ev, "line");
    if (!line)
        return;
    size_t n = strlen(line) + 1;
    if (n <= run->left) {
        dprintf(run->log, "%s\n", line);
        run->left -= n;
    }
    CLEANUP_FREE char *shown = molt_xstrndup(line, strnlen(line, 200));
    for (char *p = shown; *p; p++) /* it reaches root's terminal */
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
    molt_op_progress(run->op, -1, "%s", shown);
}

static int run_recipe(struct molt_op *op, struct molt_chan *c, struct molt_error **err)
{
    CLEANUP_FREE char *log = molt_xasprintf("%s/recipe.log", molt_op_dir(op));
    CLEANUP_CLOSE int script = open(up_param(op, "recipe"), O_RDONLY | O_CLOEXEC);
    CLEANUP_CLOSE int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (script < 0 || out < 0)
        return molt_error_errno(err, "open %s", script < 0 ? up_param(op, "recipe") : log);
    struct recipe_run run = {op, script, out, MAX_RECIPE_LOG};
    int64_t limit = molt_json_get_int(molt_op_params(op), "recipe_timeout_s", 3600);
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    molt_json_set_int(args, "timeout_s", limit);
    if (up_param(op, "recipe_arg"))
        molt_json_set_string(args, "arg", up_param(op, "recipe_arg"));
    struct molt_call call = {.event = recipe_line, .upload = read_script, .ctx = &run, .timeout_ms = (int)(limit + 600) * 1000};
    c->cancelled = up_aborting;
    c->cancel_ctx = op;
    int r = molt_call(c, "recipe", args, &call, NULL, err);
    c->cancelled = NULL;
    if (r < 0 && r != MOLT_E_ABORTED)
        return molt_error_set(err, r, "%s; its log is kept: %s", molt_error_text(*err), log);
    return r;
}

static int setup_net(struct molt_op *op, struct molt_chan *c, struct molt_error **err)
{
    const struct molt_upnet *n = &up_of(op)->net;
    CLEANUP_FREE char *dns = molt_host_dns();
    CLEANUP_JSON struct molt_json *a = molt_json_object();
    molt_json_set_string(a, "dev", "eth0");
    molt_json_set_string(a, "address", n->guest_ip);
    molt_json_set_string(a, "netmask", n->netmask);
    molt_json_set_string(a, "gateway", n->host_ip);
    molt_json_set_string(a, "dns", dns);
    return molt_call(c, "net-setup", a, NULL, NULL, err);
}

int step_upgrade(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *c;
    CLEANUP_FREE char *dir = up_domain_dir(op);
    CLEANUP_FREE char *kernel = molt_xasprintf("%s/kernel", dir), *initrd = molt_xasprintf("%s/initrd", dir), *version = NULL;
    bool have_initrd = false;
    int r = up_clone(op, &c, err);
    if (r == 0)
        r = setup_net(op, c, err);
    if (r == 0)
        r = run_recipe(op, c, err);
    if (r < 0)
        return r;
    molt_op_progress(op, -1, "receiving the kernel");
    r = molt_mkdir_p(dir, 0700, err);
    if (r == 0)
        r = molt_guest_fetch_boot(c, kernel, initrd, &have_initrd, &version, err);
    if (r == 0)
        r = put_string(op, "kernel_version", version, err);
    return r < 0 ? r : molt_op_put(op, "have_initrd", molt_json_bool(have_initrd), err);
}

int undo_upgrade(struct molt_op *op, struct molt_error **err)
{
    if (!up_fact(op, "clone_uuid"))
        return 0;
    CLEANUP_FREE char *dir = up_domain_dir(op);
    return molt_remove_tree(dir, err);
}

/* ---- reboot into the new kernel, on the isolated bridge ---- */

static int stop_clone(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *c;
    struct molt_domain d;
    if (!up_find_clone(op, &d))
        return molt_error_set(err, MOLT_E_HEALTH, "the clone is gone");
    int r = up_clone(op, &c, err);
    if (r == 0)
        r = molt_call(c, "poweroff", NULL, NULL, NULL, err);
    /* The guest may have ended its agent before the answer was out: what counts is that it shuts down. */
    if (r == MOLT_E_PROTOCOL) {
        molt_error_clear(err);
        r = 0;
    }
    up_drop(&up_of(op)->clone);
    if (r == 0)
        r = molt_domain_wait_shutdown(up_of(op)->x, d.domid, SHUTDOWN_LIMIT_MS, up_aborting, op, err);
    if (r == 0)
        r = molt_domain_destroy(up_of(op)->x, d.domid, err);
    return r;
}

static int final_config(struct molt_op *op, libxl_domain_config *cfg, struct molt_error **err)
{
    int r = clone_config(op, cfg, err);
    if (r < 0)
        return r;
    nics_isolated(op, cfg);
    bool rdinit = false;
    /* A guest with its own loader picks its kernel itself. */
    if (cfg->b_info.kernel && !cfg->b_info.bootloader) {
        CLEANUP_FREE char *dir = up_domain_dir(op);
        CLEANUP_FREE char *kernel = molt_xasprintf("%s/kernel", dir), *initrd = molt_xasprintf("%s/initrd", dir);
        CLEANUP_FREE char *boot_initrd = molt_xasprintf("%s/" UP_BOOT_INITRD, dir);
        bool have_initrd = molt_json_get_bool(molt_op_facts(op), "have_initrd", false);
        if (have_initrd && (r = up_boot_initrd(initrd, boot_initrd, err)) < 0) {
            libxl_domain_config_dispose(cfg);
            return r;
        }
        rdinit = r == 1;
        if (have_initrd && !rdinit)
            molt_warn(molt_op_log(op), "rdinit.cpio is not installed: a kernel thread of the clone may take a process id of the workload");
        molt_set_string(&cfg->b_info.kernel, kernel);
        molt_set_string(&cfg->b_info.ramdisk, rdinit ? boot_initrd : have_initrd ? initrd : NULL);
    }
    set_cmdline(op, cfg, "final", rdinit);
    return 0;
}

/* The active's addresses must be on the clone, or CRIU cannot restore its sockets. */
static int check_addresses(struct molt_op *op, const struct molt_json *clone_addr, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *hello = NULL;
    struct molt_chan *a;
    int r = up_active(op, &a, err);
    if (r == 0)
        r = molt_call(a, "hello", NULL, NULL, &hello, err);
    const struct molt_json *want = molt_json_get(hello, "addresses");
    for (size_t i = 0; r == 0 && i < molt_json_size(want); i++) {
        const char *addr = molt_json_get_string(molt_json_at(want, i), "address");
        size_t j = 0;
        while (j < molt_json_size(clone_addr) && !molt_streq(addr, molt_json_get_string(molt_json_at(clone_addr, j), "address")))
            j++;
        if (j == molt_json_size(clone_addr))
            r = molt_error_set(err, MOLT_E_HEALTH, "the upgraded guest did not configure the address %s; is it given by DHCP, or bound to an interface name that changed?", addr);
    }
    return r;
}

static int health(struct molt_op *op, struct molt_error **err)
{
    struct molt_chan *c;
    CLEANUP_JSON struct molt_json *h = NULL;
    struct molt_call call = {.timeout_ms = 300000};
    int r = up_clone(op, &c, err);
    if (r == 0)
        r = molt_call(c, "health", NULL, &call, &h, err);
    if (r < 0)
        return r;
    molt_op_note(op, "os_after", molt_json_copy(molt_json_get(h, "os")));
    const char *want = up_fact(op, "kernel_version"), *have = molt_json_get_string(molt_json_get(h, "os"), "kernel");
    if (want && !molt_streq(want, have))
        return molt_error_set(err, MOLT_E_HEALTH, "the clone runs kernel %s, not the new %s", have ? have : "?", want);
    return check_addresses(op, molt_json_get(h, "addresses"), err);
}

int step_reboot(struct molt_op *op, struct molt_error **err)
{
    libxl_domain_config cfg;
    int r = stop_clone(op, err);
    if (r == 0)
        r = final_config(op, &cfg, err);
    if (r < 0)
        return r;
    r = create(op, &cfg, err);
    libxl_domain_config_dispose(&cfg);
    /* Network services may need a moment behind the agent. */
    for (int i = 0; r == 0 && i < 20; i++) {
        molt_error_clear(err);
        if (health(op, err) == 0)
            return 0;
        if (molt_op_aborting(op))
            return molt_error_set(err, MOLT_E_ABORTED, "aborted");
        molt_sleep_ms(3000);
    }
    return r < 0 ? r : molt_error_code(*err);
}
