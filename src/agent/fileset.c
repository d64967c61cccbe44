/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* app-compare: what this system has, and what a workload of another one would find here. Reading only. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "agent/overlays.h"
#include "agent/units.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/fileset.h"
#include "procmig/buildid.h"
#include "procmig/check.h"
#include "procmig/execs.h"
#include "procmig/owners.h"
#include "procmig/procfs.h"

#define STATUS      "/var/lib/dpkg/status"
#define STATUS_MAX  (64u << 20)
#define FILESET_MAX (16u << 20)
#define SCHEMA      1

static struct molt_json *own_packages(void)
{
    CLEANUP_FREE char *text = NULL;
    return molt_read_file(STATUS, STATUS_MAX, &text, NULL, NULL) == 0 ? molt_fileset_packages(text) : molt_json_object();
}

static int send_json(struct molt_request *rq, const struct molt_json *v, struct molt_error **err)
{
    CLEANUP_FREE char *text = molt_json_print(v, false);
    return molt_request_data(rq, text, strlen(text), err);
}

/* ---- on the system that it runs on ---- */

/* The unit and its users alone: what keeps it from moving at all was looked for by who asks, over all that move together. */
static int describe_users(const struct molt_workload *w, struct molt_json *list, struct molt_error **err)
{
    CLEANUP_PINS struct molt_pins *none = molt_xcalloc(1, sizeof(*none));
    struct molt_json *o = molt_json_object(), *owners = NULL;
    molt_json_append(list, o);
    molt_json_set_string(o, "unit", w->unit);
    molt_json_set_int(o, "main_pid", w->main_pid);
    molt_json_set(o, "reasons", molt_json_array());
    molt_json_set(o, "files", molt_pins_json(none));
    int r = molt_owners_list(w, &owners, err);
    if (r == 0)
        molt_json_set(o, "owners", owners);
    return r;
}

/* {"unit", "main_pid", "reasons", "owners", "files": pins with hash and owner, "build_ids": {path: text}} */
static int describe(struct molt_workload *w, struct molt_json *list, struct molt_error **err)
{
    CLEANUP_REASONS struct molt_reasons reasons = MOLT_REASONS_INIT;
    CLEANUP_PINS struct molt_pins *pins = NULL;
    struct molt_json *o = molt_json_object(), *ids = molt_json_object(), *owners = NULL;
    molt_json_append(list, o);
    molt_json_set_string(o, "unit", w->unit);
    molt_json_set_int(o, "main_pid", w->main_pid);
    molt_json_set(o, "build_ids", ids);
    int r = molt_check(&w, 1, NULL, false, &reasons, err);
    if (r == 0)
        r = molt_owners_list(w, &owners, err);
    if (r == 0)
        molt_json_set(o, "owners", owners);
    if (r == 0)
        r = molt_pins_collect(w, &pins, err);
    if (r == 0)
        r = molt_pins_add_execs(pins, w, MOLT_AGENT_ETC "/exec", err);
    for (size_t i = 0; r == 0 && i < pins->n; i++) {
        char id[MOLT_BUILD_ID_MAX + 1];
        if ((r = molt_pin_hash(&pins->v[i], err)) < 0)
            break;
        molt_build_id(pins->v[i].source, id);
        CLEANUP_FREE char *path = molt__path_encode(pins->v[i].path);
        if (id[0])
            molt_json_set_string(ids, path, id);
        pins->v[i].ctime_ns = 0; /* inodes of another disk say nothing there */
    }
    if (r < 0)
        return r;
    overlays_own(pins, w->unit);
    molt_json_set(o, "reasons", molt_reasons_json(&reasons));
    molt_json_set(o, "files", molt_pins_json(pins));
    return 0;
}

/* {"workload": "a,b" or nothing, "no_units": packages alone, "no_files": units without their files} -> data: {"schema", "os", "packages", "units"} */
int h_fileset(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = molt_json_object();
    struct molt_json *list = molt_json_array();
    struct molt_workload *w[MOLT_MAX_UNITS] = {NULL};
    size_t n = 0;
    (void)reply;
    molt_json_set_int(v, "schema", SCHEMA);
    molt_json_set(v, "os", agent_os_info());
    molt_json_set(v, "packages", own_packages());
    molt_json_set(v, "units", list);
    int r = molt_json_get_bool(rq->args, "no_units", false) ? 0 : info_workloads(molt_json_get_string(rq->args, "workload"), w, &n, err);
    const bool files = !molt_json_get_bool(rq->args, "no_files", false);
    for (size_t i = 0; i < n && r == 0; i++)
        r = files ? describe(w[i], list, err) : describe_users(w[i], list, err);
    for (size_t i = 0; i < n; i++)
        molt_workload_free(w[i]);
    return r < 0 ? r : send_json(rq, v, err);
}

/* ---- on the one that it might move to ---- */

struct here {
    size_t same, differ, missing;
    struct molt_json *files;
};

static void note_file(struct here *h, const struct molt_pin *pin, const struct molt_json *ids)
{
    struct molt_json *o;
    char id[MOLT_BUILD_ID_MAX + 1];
    CLEANUP_FREE char *coded = molt__path_encode(pin->path);
    const char *there = molt_json_get_string(ids, coded);
    h->same += pin->need == MOLT_PIN_SAME;
    h->differ += pin->need == MOLT_PIN_DIFFERENT;
    h->missing += pin->need == MOLT_PIN_MISSING;
    if (pin->need == MOLT_PIN_SAME)
        return;
    o = molt_json_object();
    molt_json_set_string(o, "path", coded);
    molt_json_set_string(o, "here", pin->need == MOLT_PIN_MISSING ? "missing" : "different");
    molt_json_set_int(o, "size", (int64_t)pin->size);
    if (there)
        molt_json_set_string(o, "build_id", there);
    if (pin->owner)
        molt_json_set_string(o, "package", pin->owner);
    molt_build_id(pin->path, id);
    if (pin->need == MOLT_PIN_DIFFERENT && id[0])
        molt_json_set_string(o, "build_id_here", id);
    molt_json_append(h->files, o);
}

/* An empty file, or a link to a device, is a mask. */
static bool has_file(const char *dir, const char *name)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, name);
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
}

/* A clone's PID 1 has masked the workloads' units, in /run (init.c): whether there is one behind that, of its own or of a template (systemd.unit(5)). */
static bool unit_behind_mask(const char *unit)
{
    static const char *const dirs[] = {"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
                                       "/run/systemd/generator", "/run/systemd/generator.early", "/run/systemd/generator.late"};
    const char *at = strchr(unit, '@'), *dot = strrchr(unit, '.');
    CLEANUP_FREE char *template = at && dot > at ? molt_xasprintf("%.*s%s", (int)(at + 1 - unit), unit, dot) : NULL;
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
        if (has_file(dirs[i], unit) || (template && has_file(dirs[i], template)))
            return true;
    return false;
}

static bool unit_exists(const char *unit)
{
    CLEANUP_FREE char *out = NULL, *load = NULL;
    if (molt__systemctl_show(unit, "LoadState", &out, NULL) < 0)
        return false;
    load = molt__show_get(out, "LoadState");
    return molt_streq(load, "loaded") || (molt_streq(load, "masked") && unit_behind_mask(unit));
}

/* One of "move", "move-overlay", "restart", "refuse", and why. */
static int judge(const struct molt_json *u, struct molt_json *out, struct molt_error **err)
{
    CLEANUP_REASONS struct molt_reasons reasons = MOLT_REASONS_INIT;
    CLEANUP_PINS struct molt_pins *pins = NULL;
    CLEANUP_FREE char *full = NULL;
    const char *unit = molt_json_get_string(u, "unit");
    struct here h = {.files = molt_json_array()};
    molt_json_set(out, "files", h.files);
    int r = unit ? molt_unit_name(unit, &full, err) : molt_error_set(err, MOLT_E_PROTOCOL, "a unit without a name");
    if (r == 0)
        r = molt_reasons_parse(molt_json_get(u, "reasons"), &reasons, err);
    if (r == 0)
        r = molt_owners_check(molt_json_get(u, "owners"), &reasons, err);
    if (r == 0)
        r = molt_pins_parse(molt_json_get(u, "files"), &pins, err);
    if (r == 0)
        r = molt_pins_compare(pins, "", NULL, NULL, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < pins->n; i++)
        note_file(&h, &pins->v[i], molt_json_get(u, "build_ids"));
    bool unit_here = unit_exists(full);
    if (!unit_here)
        molt_reasons_add(&reasons, "no such unit here", "install the service there as well", "the other system has no unit %s", full);
    molt_json_set_string(out, "unit", full);
    molt_json_set_string(out, "verdict", reasons.n == 0 ? (h.differ + h.missing ? "move-overlay" : "move") : unit_here ? "restart" : "refuse");
    molt_json_set(out, "reasons", molt_reasons_json(&reasons));
    molt_json_set_int(out, "same", (int64_t)h.same);
    molt_json_set_int(out, "different", (int64_t)h.differ);
    molt_json_set_int(out, "missing", (int64_t)h.missing);
    return 0;
}

static int gather(void *ctx, const void *buf, size_t len, struct molt_error **err)
{
    (void)err;
    molt_strbuf_add(ctx, buf, len);
    return 0;
}

/* The other system's fileset as upload -> data: {"os", "packages" as molt_fileset_compare has them, from there to here, "units"} */
int h_fileset_compare(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    CLEANUP_JSON struct molt_json *from = NULL, *v = molt_json_object(), *own = own_packages();
    struct molt_json *list = molt_json_array();
    (void)reply;
    molt_json_set(v, "units", list);
    int r = molt_request_upload(rq, FILESET_MAX, gather, &b, err);
    if (r == 0)
        r = molt_json_parse(molt_strbuf_str(&b), b.len, &from, err);
    if (r == 0 && (molt_json_get_int(from, "schema", 0) != SCHEMA || molt_json_size(molt_json_get(from, "units")) > MOLT_MAX_UNITS))
        r = molt_error_set(err, MOLT_E_PROTOCOL, "not a fileset of schema %d", SCHEMA);
    const struct molt_json *units = molt_json_get(from, "units");
    for (size_t i = 0; i < molt_json_size(units) && r == 0; i++) {
        struct molt_json *o = molt_json_object();
        molt_json_append(list, o);
        r = judge(molt_json_at(units, i), o, err);
    }
    if (r < 0)
        return r;
    molt_json_set(v, "os", agent_os_info());
    molt_json_set(v, "packages", molt_fileset_compare(molt_json_get(from, "packages"), own));
    return send_json(rq, v, err);
}
