/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the host asks before and around an upgrade: who are you, can it be done, are you well. Changes nothing. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/units.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "procmig/check.h"
#include "procmig/dump.h"
#include "procmig/procfs.h"

#define WORKLOAD_FILE MOLT_AGENT_ETC "/workload"
#define MAX_WORKLOAD_FILE 4096

static void put_file_line(struct molt_json *v, const char *key, const char *path)
{
    CLEANUP_FREE char *t = NULL;
    if (molt_read_file(path, 4096, &t, NULL, NULL) < 0)
        return;
    t[strcspn(t, "\n")] = 0;
    molt_json_set_string(v, key, t);
}

static int64_t meminfo_kib(const char *key)
{
    CLEANUP_FREE char *t = NULL;
    if (molt_read_file("/proc/meminfo", 65536, &t, NULL, NULL) < 0)
        return -1;
    const char *p = strstr(t, key);
    return p ? atoll(p + strlen(key)) : -1;
}

int h_hello(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)rq;
    (void)err;
    struct statvfs vfs;
    molt_json_set_string(reply, "version", PACKAGE_VERSION);
    molt_json_set_int(reply, "proto", MOLT_PROTO_VERSION);
    put_file_line(reply, "boot_id", "/proc/sys/kernel/random/boot_id");
    put_file_line(reply, "mode", MOLT_AGENT_MODE);
    struct molt_json *addr = NULL;
    if (net_addresses(&addr, NULL) == 0)
        molt_json_set(reply, "addresses", addr);
    molt_json_set_int(reply, "mem_total", meminfo_kib("MemTotal:") * 1024);
    molt_json_set_int(reply, "mem_available", meminfo_kib("MemAvailable:") * 1024);
    if (statvfs("/", &vfs) == 0) {
        molt_json_set_int(reply, "root_size", (int64_t)vfs.f_blocks * (int64_t)vfs.f_frsize);
        molt_json_set_int(reply, "root_free", (int64_t)vfs.f_bavail * (int64_t)vfs.f_frsize);
        molt_json_set_int(reply, "root_files", (int64_t)(vfs.f_files - vfs.f_ffree));
    }
    return 0;
}

int h_os(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)rq;
    (void)err;
    molt_json_set(reply, "os", agent_os_info());
    return 0;
}

struct names {
    char *v[MOLT_MAX_UNITS]; /* "counter.service" */
    size_t n;
};

static void names_free(struct names *n)
{
    for (size_t i = 0; i < n->n; i++)
        free(n->v[i]);
}

static int add_name(struct names *n, const char *word, struct molt_error **err)
{
    CLEANUP_FREE char *unit = NULL;
    int r = molt_unit_name(word, &unit, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n->n; i++)
        if (!strcmp(n->v[i], unit))
            return 0;
    if (n->n == MOLT_MAX_UNITS)
        return molt_error_set(err, MOLT_E_USAGE, "more than %d units are named", MOLT_MAX_UNITS);
    n->v[n->n++] = MOLT_STEAL_PTR(unit);
    return 0;
}

/* Those named in /etc/xenmolt/workload (comments by '#'). */
static int default_workloads(struct names *n, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    if (molt_read_file(WORKLOAD_FILE, MAX_WORKLOAD_FILE, &text, NULL, NULL) < 0)
        return molt_error_set(err, MOLT_E_NO_WORKLOAD, "no workload is named: the guest has no " WORKLOAD_FILE
                                                       "; name the unit there, or give --workload UNIT");
    char *save = NULL, *inner = NULL;
    int r = 0;
    for (char *l = strtok_r(text, "\n", &save); l && r == 0; l = strtok_r(NULL, "\n", &save)) {
        l[strcspn(l, "#")] = 0;
        for (char *word = strtok_r(l, " \t\r", &inner); word && r == 0; word = strtok_r(NULL, " \t\r", &inner))
            r = add_name(n, word, err);
    }
    if (r == 0 && n->n == 0)
        return molt_error_set(err, MOLT_E_NO_WORKLOAD, WORKLOAD_FILE " in the guest names no unit; give --workload UNIT");
    return r;
}

/* "a,b" as --workload has it. */
static int asked_workloads(struct names *n, const char *list, struct molt_error **err)
{
    CLEANUP_FREE char *text = molt_xstrdup(list);
    char *save = NULL;
    int r = *list ? 0 : molt_error_set(err, MOLT_E_USAGE, "not a service unit name: ''");
    for (char *word = strtok_r(text, ",", &save); word && r == 0; word = strtok_r(NULL, ",", &save))
        r = add_name(n, word, err);
    return r;
}

int info_workloads(const char *asked, struct molt_workload **ret_w, size_t *ret_n, struct molt_error **err)
{
    struct names names = {.n = 0};
    int r = asked ? asked_workloads(&names, asked, err) : default_workloads(&names, err);
    *ret_n = 0;
    for (size_t i = 0; i < names.n && r == 0; i++)
        if ((r = molt_workload_scan(names.v[i], &ret_w[i], err)) == 0)
            ++*ret_n;
    names_free(&names);
    return r;
}

/* Those that start at the next boot. */
static int list_enabled(struct molt_workload *const *w, size_t n, struct molt_json *list, struct molt_error **err)
{
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        CLEANUP_FREE char *out = NULL, *state = NULL;
        r = molt__systemctl_show(w[i]->unit, "UnitFileState", &out, err);
        state = out ? molt__show_get(out, "UnitFileState") : NULL;
        if (molt_streq(state, "enabled"))
            molt_json_append(list, molt_json_string(w[i]->unit));
    }
    return r;
}

/* {"workload": "a,b" or nothing, "alone": into a guest that runs, "address": with it, "10.0.0.5"} -> {"workloads", "reasons", ... of disks_report;
 * alone: "enabled": [unit]} */
int h_preflight(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct molt_workload *w[MOLT_MAX_UNITS] = {NULL};
    CLEANUP_REASONS struct molt_reasons reasons = MOLT_REASONS_INIT;
    struct molt_json *list = molt_json_array();
    size_t n = 0;
    molt_json_set(reply, "workloads", list);
    int r = disks_report(reply, err);
    if (r == 0)
        r = info_workloads(molt_json_get_string(rq->args, "workload"), w, &n, err);
    for (size_t i = 0; i < n; i++)
        molt_json_append(list, molt_workload_json(w[i]));
    if (r == 0)
        r = molt_check(w, n, NULL, true, &reasons, err);
    if (r == 0 && molt_json_get_bool(rq->args, "alone", false)) {
        struct molt_json *enabled = molt_json_array();
        molt_json_set(reply, "enabled", enabled);
        r = list_enabled(w, n, enabled, err);
        if (r == 0)
            r = molt_check_address(w, n, molt_json_get_string(rq->args, "address"), &reasons, err);
    }
    if (r == 0)
        molt_json_set(reply, "reasons", molt_reasons_json(&reasons));
    for (size_t i = 0; i < n; i++)
        molt_workload_free(w[i]);
    return r;
}

/* Programs that must answer before a clone may take over. */
int h_health(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)rq;
    struct molt_run_opts o = {.timeout_ms = 120000};
    CLEANUP_FREE char *state = NULL, *audit = NULL, *criu = NULL;
    char *running[] = {"systemctl", "is-system-running", NULL};
    char *dpkg[] = {"dpkg", "--audit", NULL};
    int status = 0, r = molt_run(running, &o, &status, &state, err);
    if (r < 0)
        return molt_error_prefix(err, "systemd does not answer");
    state[strcspn(state, "\n")] = 0;
    molt_json_set_string(reply, "systemd", state);
    if (molt_exists("/var/lib/dpkg/status")) {
        r = molt_run(dpkg, &o, &status, &audit, err);
        if (r < 0 || status != 0 || audit[0])
            return molt_error_set(err, MOLT_E_HEALTH, "the package system is not consistent (dpkg --audit): %.200s", audit ? audit : "");
    }
    if (molt_criu_version(NULL, &criu, err) < 0 || molt_criu_check(NULL, err) < 0)
        return molt_error_set(err, MOLT_E_HEALTH, "CRIU does not work on the new kernel: %s", err ? molt_error_text(*err) : "");
    molt_json_set_string(reply, "criu", criu);
    molt_json_set(reply, "os", agent_os_info());
    struct molt_json *addr = NULL;
    if (net_addresses(&addr, NULL) == 0)
        molt_json_set(reply, "addresses", addr);
    return 0;
}

int h_poweroff(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)rq;
    (void)reply;
    char *argv[] = {"systemctl", "--no-block", "poweroff", NULL};
    struct molt_run_opts o = {.timeout_ms = 60000};
    sync();
    return molt_run_ok(argv, &o, NULL, err);
}
