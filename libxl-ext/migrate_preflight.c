/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What app-migrate can know before anything is changed. Reads only. */
#include <stdlib.h>
#include <string.h>

#include "apps.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "checks.h"
#include "cpupolicy.h"
#include "migrate.h"

#define MIB (1024.0 * 1024)
#define MAX_FOLDERS 16

struct preflight {
    struct xenmolt *x;
    const xenmolt_migrate_params *p;
    struct molt_json *checks, *params;
    struct molt_domain from, to;
    struct molt_chan *a, *b; /* their agents */
    struct molt_json *hello, *guest, *compare;
    int64_t rss;
};

static int find(struct preflight *f, const char *name, struct molt_domain *ret, struct molt_error **err)
{
    int r = molt_domain_find(f->x, name, ret, err);
    if (r < 0)
        return r;
    if (ret->domid == 0)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "%s is dom0; services move between domUs", name);
    if (ret->paused || ret->shutdown)
        return molt_error_set(err, MOLT_E_STATE, "%s does not run (%s); unpause or start it", ret->name, ret->paused ? "paused" : "shut down");
    return 0;
}

static int check_domains(struct preflight *f, struct molt_error **err)
{
    int r = find(f, f->p->from, &f->from, err);
    if (r == 0)
        r = find(f, f->p->to, &f->to, err);
    if (r == 0 && f->from.domid == f->to.domid)
        r = molt_error_set(err, MOLT_E_USAGE, "%s and %s are the same domain", f->p->from, f->p->to);
    if (r < 0)
        return r;
    molt_json_set_string(f->params, "domain", f->from.name);
    molt_json_set_int(f->params, "domid", f->from.domid);
    molt_json_set_string(f->params, "uuid", f->from.uuid);
    molt_json_set_string(f->params, "to", f->to.name);
    molt_json_set_int(f->params, "to_domid", f->to.domid);
    molt_json_set_string(f->params, "to_uuid", f->to.uuid);
    return 0;
}

static int check_processors(struct preflight *f, struct molt_error **err)
{
    return molt_cpu_policy_same((struct molt_cpu_of){f->from.domid, f->from.name}, (struct molt_cpu_of){f->to.domid, f->to.name},
                                "give both the same cpuid= in their configurations, and start them anew on this host", err);
}

/* The engine's lock is on the first one only. */
static int check_operations(struct preflight *f, struct molt_error **err)
{
    int r = molt_checks_idle(f->x, f->from.name, err);
    return r < 0 ? r : molt_checks_idle(f->x, f->to.name, err);
}

static int check_agents(struct preflight *f, struct molt_error **err)
{
    int r = molt_guest_connect(f->x, f->from.domid, &f->a, NULL, err);
    if (r < 0)
        return molt_error_prefix(err, "%s", f->from.name);
    r = molt_guest_connect(f->x, f->to.domid, &f->b, &f->hello, err);
    return r < 0 ? molt_error_prefix(err, "%s", f->to.name) : 0;
}

static int check_workload(struct preflight *f, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    CLEANUP_FREE char *plain = f->p->address ? molt_xstrndup(f->p->address, strcspn(f->p->address, "/")) : NULL;
    if (!f->p->workload || strchr(f->p->workload, ','))
        return molt_error_set(err, MOLT_E_USAGE, "one service moves at a time: name its unit");
    molt_json_set_string(args, "workload", f->p->workload);
    molt_json_set_bool(args, "alone", true);
    if (plain)
        molt_json_set_string(args, "address", plain);
    int r = molt_call(f->a, "preflight", args, NULL, &f->guest, err);
    if (r < 0)
        return r;
    const struct molt_json *list = molt_json_get(f->guest, "workloads"), *reasons = molt_json_get(f->guest, "reasons"), *first = molt_json_at(reasons, 0);
    const char *unit = molt_json_get_string(molt_json_at(list, 0), "unit");
    if (!unit)
        return molt_error_set(err, MOLT_E_PROTOCOL, "the agent tells of no workload");
    f->rss = molt_json_get_int(molt_json_at(list, 0), "rss_bytes", 0);
    molt_json_set_string(f->params, "workload", unit);
    molt_json_set(f->params, "workloads_before", molt_json_copy(list));
    molt_json_set(f->params, "enabled", molt_json_copy(molt_json_get(f->guest, "enabled")));
    if (molt_json_size(reasons) == 0)
        return 0;
    const char *detail = molt_json_get_string(first, "detail"), *remedy = molt_json_get_string(first, "remedy");
    return molt_error_set(err, MOLT_E_CANNOT_MOVE, "%s cannot be moved: %.300s; %.300s", unit, detail ? detail : "?", remedy ? remedy : "");
}

/* The other system's libraries, and whether it has the unit. */
static int check_systems(struct preflight *f, struct molt_error **err)
{
    int r = molt_app_compare(f->a, f->b, molt_json_get_string(f->params, "workload"), MOLT_APP_FILES, &f->compare, err);
    if (r < 0)
        return r;
    const struct molt_json *u = molt_json_at(molt_json_get(f->compare, "units"), 0);
    const char *verdict = molt_json_get_string(u, "verdict");
    if (molt_streq(verdict, "move") || molt_streq(verdict, "move-overlay"))
        return 0;
    const struct molt_json *why = molt_json_at(molt_json_get(u, "reasons"), 0);
    const char *detail = molt_json_get_string(why, "detail"), *remedy = molt_json_get_string(why, "remedy");
    return molt_error_set(err, MOLT_E_CANNOT_MOVE, "%s cannot move to %s as it runs (%s): %.300s; %.300s", molt_json_get_string(f->params, "workload"), f->to.name,
                          verdict ? verdict : "?", detail ? detail : "no reason told", remedy ? remedy : "");
}

static int look_at(struct molt_chan *c, const char *address, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    molt_json_set_string(args, "address", address);
    return molt_call(c, "address-look", args, NULL, ret, err);
}

static int check_address(struct preflight *f, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *here = NULL, *there = NULL;
    const char *address = f->p->address;
    if (!address)
        return 0;
    int r = look_at(f->a, address, &here, err);
    if (r == 0)
        r = look_at(f->b, address, &there, err);
    if (r < 0)
        return r;
    const char *dev = molt_json_get_string(here, "dev"), *near = molt_json_get_string(there, "near");
    if (!dev)
        return molt_error_set(err, MOLT_E_USAGE, "%s has no address %s", f->from.name, address);
    if (molt_json_get_string(there, "dev"))
        return molt_error_set(err, MOLT_E_USAGE, "%s is an address of %s as well; take it off there", address, f->to.name);
    if (!molt_json_get_string(here, "near"))
        return molt_error_set(err, MOLT_E_USAGE, "%s is the only address that %s has in its network; the service needs one of its own beside it", address, f->from.name);
    if (!near)
        return molt_error_set(err, MOLT_E_USAGE, "%s has no address in the network of %s, so nobody would find the service there", f->to.name, address);
    molt_json_set_string(f->params, "address", address);
    molt_json_set_string(f->params, "to_dev", near);
    /* An older agent does not tell: then the packets are not held (migrate_hold.c). */
    if (molt_json_get_string(here, "dev_mac") && molt_json_get_string(there, "near_mac")) {
        molt_json_set_string(f->params, "mac", molt_json_get_string(here, "dev_mac"));
        molt_json_set_string(f->params, "to_mac", molt_json_get_string(there, "near_mac"));
    }
    return 0;
}

/* As they are where the service is, and "exists": on the other side. */
static int check_folders(struct preflight *f, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object(), *here = NULL, *there = NULL;
    struct molt_json *paths = molt_json_array(), *list = molt_json_array();
    molt_json_set(f->params, "folder_paths", paths);
    molt_json_set(f->params, "folders", list);
    if (f->p->n_folders > MAX_FOLDERS)
        return molt_error_set(err, MOLT_E_USAGE, "more than %d directories are named", MAX_FOLDERS);
    for (unsigned i = 0; i < f->p->n_folders; i++)
        molt_json_append(paths, molt_json_string(f->p->folders[i]));
    molt_json_set(args, "folders", molt_json_copy(paths));
    int r = molt_call(f->a, "folders", args, NULL, &here, err);
    if (r == 0)
        r = molt_call(f->b, "folders", args, NULL, &there, err);
    for (unsigned i = 0; i < f->p->n_folders && r == 0; i++) {
        const struct molt_json *h = molt_json_at(molt_json_get(here, "folders"), i), *t = molt_json_at(molt_json_get(there, "folders"), i);
        struct molt_json *o = molt_json_copy(h);
        if (!molt_json_get_bool(h, "exists", false))
            r = molt_error_set(err, MOLT_E_USAGE, "%s has no directory %s", f->from.name, f->p->folders[i]);
        else if (!molt_json_get_bool(t, "empty", false))
            r = molt_error_set(err, MOLT_E_CANNOT_MOVE, "%s is not empty in %s, and would be mixed with what comes; move its content away", f->p->folders[i], f->to.name);
        molt_json_set_bool(o, "exists", molt_json_get_bool(t, "exists", false));
        molt_json_append(list, o);
    }
    return r;
}

static int check_memory(struct preflight *f, struct molt_error **err)
{
    int64_t avail = molt_json_get_int(f->hello, "mem_available", 0);
    molt_json_set_int(f->params, "memory_bytes", f->rss);
    if (avail >= 2 * f->rss)
        return 0;
    return molt_error_set(err, MOLT_E_NO_SPACE, "the service takes %.0f MiB in %s, and its image as much while it moves; %.0f MiB are available there", (double)f->rss / MIB, f->to.name, (double)avail / MIB);
}

static const struct check {
    const char *name;
    int (*fn)(struct preflight *f, struct molt_error **err);
} checks[] = {
    {"domains", check_domains}, {"processors", check_processors}, {"operation", check_operations}, {"agents", check_agents}, {"address", check_address}, {"workload", check_workload},
    {"systems", check_systems}, {"directories", check_folders}, {"memory", check_memory},
};

int molt_migrate_preflight(struct xenmolt *x, const xenmolt_migrate_params *p, struct molt_json **ret_result, struct molt_json **ret_params, struct molt_error **err)
{
    struct preflight f = {.x = x, .p = p, .checks = molt_json_array(), .params = molt_json_object()};
    struct molt_json *result = molt_json_object();
    int r = 0;
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]) && r == 0; i++) { /* behind the first failure the rest would only repeat it */
        CLEANUP_ERROR struct molt_error *e = NULL;
        r = checks[i].fn(&f, &e);
        molt_checks_add(f.checks, checks[i].name, r, e);
        molt_error_move(err, MOLT_STEAL_PTR(e));
    }
    if (p->no_rehearsal)
        molt_json_set_bool(f.params, "no_rehearsal", true);
    molt_json_set_string(result, "from", p->from);
    molt_json_set_string(result, "to", p->to);
    molt_json_set_bool(result, "ok", r == 0);
    molt_json_set(result, "checks", f.checks);
    if (f.compare)
        molt_json_set(result, "compare", f.compare);
    molt_chan_close(f.a);
    molt_chan_close(f.b);
    molt_json_free(f.hello);
    molt_json_free(f.guest);
    *ret_result = result;
    *ret_params = f.params;
    return r;
}
