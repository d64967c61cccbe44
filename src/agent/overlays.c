/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/overlays.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/packages.h"
#include "procmig/workload.h"

#define STATUS     "/var/lib/dpkg/status"
#define STATUS_MAX (64u << 20)
#define DROP_IN    "/run/systemd/system/%s.d/60-xenmolt-overlay.conf"

/* ---- which package ---- */

/* dpkg's text of what is installed; "" where there is no dpkg. malloc'd. */
static char *read_status(void)
{
    char *text = NULL;
    return molt_read_file(STATUS, STATUS_MAX, &text, NULL, NULL) == 0 ? text : molt_xstrdup("");
}

static void free_all(char **v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(v[i]);
    free(v);
}

void overlays_own(struct molt_pins *p, const char *unit)
{
    CLEANUP_OVERLAY struct molt_overlay *old = NULL;
    CLEANUP_CLOSE int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_FREE const char **paths = molt_xcalloc(p->n + 1, sizeof(*paths));
    char **packages = molt_xcalloc(p->n + 1, sizeof(*packages)), **versions = molt_xcalloc(p->n + 1, sizeof(*versions));
    CLEANUP_FREE char *status = read_status();
    (void)molt_overlay_load(unit, &old, NULL);
    for (size_t i = 0; i < p->n; i++) {
        paths[i] = p->v[i].path + 1; /* beneath the root */
        for (size_t k = 0; old && k < old->n && !p->v[i].owner; k++)
            if (old->v[k].owner && !strcmp(old->v[k].path, p->v[i].path))
                p->v[i].owner = molt_xstrdup(old->v[k].owner);
    }
    if (root >= 0)
        molt_dpkg_owners(root, paths, p->n, packages);
    for (size_t i = 0; i < p->n; i++) /* names to ask for must be there */
        if (!packages[i])
            packages[i] = molt_xstrdup("-");
    molt_dpkg_versions(status, (const char *const *)packages, p->n, versions);
    for (size_t i = 0; i < p->n; i++) {
        CLEANUP_FREE char *owner = versions[i] && !p->v[i].owner ? molt_xasprintf("%s %s", packages[i], versions[i]) : NULL;
        if (owner && molt_pin_owner_ok(owner))
            p->v[i].owner = MOLT_STEAL_PTR(owner);
    }
    free_all(packages, p->n);
    free_all(versions, p->n);
}

/* ---- app-overlays ---- */

/* When what is there now took the place of what runs, in seconds since the epoch; -1: not known. The list of a package is as old as its version is; a file
 * that was replaced without its package (REBUILT, at PATH) is as old as the last change of its inode, as its own date is that of its build. */
static time_t replaced_at(const char *package, bool rebuilt, const char *path)
{
    CLEANUP_FREE char *list = molt_xasprintf("/var/lib/dpkg/info/%s.list", package);
    CLEANUP_FREE char *of_arch = molt_xasprintf("/var/lib/dpkg/info/%s:amd64.list", package); /* where there may be several */
    struct stat st;
    if (rebuilt && stat(path, &st) == 0)
        return st.st_ctim.tv_sec;
    return stat(list, &st) == 0 || stat(of_arch, &st) == 0 ? st.st_mtim.tv_sec : -1;
}

/* A package of which an old file, PIN, is in use: {"package", "runs", "installed" (missing: none), "replaced_s": since when}. */
static void add_package(struct molt_json *list, const struct molt_overlay_entry *pin, const char *status)
{
    size_t len = strcspn(pin->owner, " ");
    CLEANUP_FREE char *name = molt_xstrndup(pin->owner, len);
    const char *const names[] = {name}, *runs = pin->owner + len + 1;
    char *now[1];
    for (size_t i = 0; i < molt_json_size(list); i++)
        if (molt_streq(molt_json_get_string(molt_json_at(list, i), "package"), name))
            return;
    struct molt_json *o = molt_json_object();
    molt_json_set_string(o, "package", name);
    molt_json_set_string(o, "runs", runs);
    molt_dpkg_versions(status, names, 1, now);
    if (now[0])
        molt_json_set_string(o, "installed", now[0]);
    time_t at = replaced_at(name, molt_streq(now[0], runs), pin->path);
    if (at >= 0)
        molt_json_set_int(o, "replaced_s", molt_now_us() / 1000000 - at);
    free(now[0]);
    molt_json_append(list, o);
}

static struct molt_json *describe(const struct molt_overlay *o, const struct molt_workload *w, const char *status)
{
    struct molt_json *v = molt_json_object(), *packages = molt_json_array(), *files = molt_json_array();
    for (size_t i = 0; i < o->n; i++) {
        molt_json_append(files, molt_json_string(o->v[i].path));
        if (o->v[i].owner)
            add_package(packages, &o->v[i], status);
    }
    molt_json_set_string(v, "unit", o->unit);
    molt_json_set_int(v, "main_pid", w->main_pid);
    molt_json_set_int(v, "since", o->made_s);
    molt_json_set(v, "files", files);
    molt_json_set(v, "packages", packages);
    return v;
}

/* -> {"overlays": [{"unit", "main_pid", "since", "files", "packages"}]} */
int h_overlays(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct molt_json *list = molt_json_array();
    char **units = NULL;
    size_t n = 0;
    CLEANUP_FREE char *status = read_status();
    (void)rq;
    molt_json_set(reply, "overlays", list);
    int r = molt_overlay_units(&units, &n, err);
    for (size_t i = 0; r == 0 && i < n; i++) {
        CLEANUP_OVERLAY struct molt_overlay *o = NULL;
        CLEANUP_WORKLOAD struct molt_workload *w = NULL;
        if (molt_overlay_in_use(units[i]) && molt_overlay_load(units[i], &o, NULL) == 0 && o->n > 0 && molt_workload_scan(units[i], &w, NULL) == 0)
            molt_json_append(list, describe(o, w, status));
    }
    free_all(units, n);
    return r;
}

/* ---- their end ---- */

int overlays_watch(const char *unit, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf(DROP_IN, unit), *dir = molt_xstrdup(path);
    CLEANUP_FREE char *text = molt_xasprintf("# Made by xenmolt: when the service ends, the old files that it still used go. Until the next boot.\n"
                                             "[Service]\nExecStopPost=-+" MOLT_AGENT_PROGRAM " overlay-drop %s\n", unit);
    *strrchr(dir, '/') = '\0';
    int r = molt_mkdir_p(dir, 0755, err);
    return r < 0 ? r : molt_write_file_atomic(path, text, strlen(text), 0644, err);
}

int overlays_drop(const char *unit, struct molt_log *log)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *name = NULL;
    int r = molt_unit_name(unit, &name, &err);
    if (r == 0)
        r = molt_overlay_remove(name, &err);
    if (r < 0)
        molt_err(log, "%s", molt_error_text(err));
    return r < 0 ? 1 : 0;
}

void overlays_tidy(struct molt_log *log)
{
    char **units = NULL;
    size_t n = 0;
    if (molt_exists(MOLT_AGENT_MODE) || molt_overlay_units(&units, &n, NULL) < 0)
        return; /* in a clone one may be on its way */
    for (size_t i = 0; i < n; i++)
        if (!molt_overlay_in_use(units[i]))
            (void)overlays_drop(units[i], log);
    free_all(units, n);
}

void overlays_unwatch(const char *unit)
{
    CLEANUP_FREE char *path = molt_xasprintf(DROP_IN, unit);
    unlink(path);
    *strrchr(path, '/') = '\0';
    rmdir(path);
}
