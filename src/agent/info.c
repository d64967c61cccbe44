/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the host asks before and around an upgrade: who are you, can it be done, are you well. Changes nothing. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "procmig/check.h"
#include "procmig/dump.h"

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
    put_file_line(reply, "mode", MOLT_AGENT_RUN "/mode");
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

/* The one unit named in /etc/xenmolt/workload (comments by '#'). */
static int default_workload(char **ret, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    if (molt_read_file(WORKLOAD_FILE, MAX_WORKLOAD_FILE, &text, NULL, NULL) < 0)
        return molt_error_set(err, MOLT_E_NO_WORKLOAD, "no workload is named: the guest has no " WORKLOAD_FILE
                                                       "; name the unit there, or give --workload UNIT");
    char *found = NULL, *save = NULL;
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        l += strspn(l, " \t");
        l[strcspn(l, " \t#")] = 0;
        if (!*l)
            continue;
        if (found)
            return molt_error_set(err, MOLT_E_NO_WORKLOAD, WORKLOAD_FILE " in the guest names more than one unit (%s, %s); give --workload UNIT", found, l);
        found = l;
    }
    if (!found)
        return molt_error_set(err, MOLT_E_NO_WORKLOAD, WORKLOAD_FILE " in the guest names no unit; give --workload UNIT");
    *ret = molt_xstrdup(found);
    return 0;
}

int h_preflight(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    CLEANUP_FREE char *name = NULL, *unit = NULL;
    CLEANUP_WORKLOAD struct molt_workload *w = NULL;
    CLEANUP_REASONS struct molt_reasons reasons = MOLT_REASONS_INIT;
    const char *asked = molt_json_get_string(rq->args, "workload");
    int r = disks_report(reply, err);
    if (r == 0)
        r = asked ? (name = molt_xstrdup(asked), 0) : default_workload(&name, err);
    if (r == 0)
        r = molt_unit_name(name, &unit, err);
    if (r == 0)
        r = molt_workload_scan(unit, &w, err);
    if (r == 0)
        r = molt_check(w, NULL, true, &reasons, err);
    if (r < 0)
        return r;
    molt_json_set(reply, "workload", molt_workload_json(w));
    molt_json_set(reply, "reasons", molt_reasons_json(&reasons));
    return 0;
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
