/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PID 1 of a clone (the host boots it with init=<this program>): writes into /run, which no reboot survives,
 *   - the upgrade target, which starts nothing that acts on the world,
 *   - masks of the workloads' units,
 *   - a udev rule by which the frozen bases stay unseen,
 *   - volatile journal storage, so that the merge meets no journal of the clone's own,
 * begins to record what changes,
 * moves the PID counter past the PIDs that the workload will need, and becomes the real init.
 * Kernel command line: xenmolt.mode=upgrade|final xenmolt.unit=UNIT,... xenmolt.pidbase=N
 * xenmolt.base=DISK,... systemd.unit=xenmolt.target
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/clonerecord.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/procfs.h"

#define SYSTEM_DIR "/run/systemd/system"

static char *cmdline_value(const char *cmdline, const char *key)
{
    size_t n = strlen(key);
    for (const char *p = cmdline; (p = strstr(p, key)); p += n)
        if ((p == cmdline || p[-1] == ' ') && p[n] == '=')
            return molt_xstrndup(p + n + 1, strcspn(p + n + 1, " \n"));
    return NULL;
}

/* The network services that the guest's own default target would start. */
static void add_network_wants(struct molt_strbuf *b)
{
    static const char *const units[] = {"systemd-networkd.service", "networking.service", "NetworkManager.service", "systemd-resolved.service"};
    static const char *const dirs[] = {"multi-user.target.wants", "network-online.target.wants", "sysinit.target.wants"};
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        for (size_t j = 0; j < sizeof(dirs) / sizeof(dirs[0]); j++) {
            CLEANUP_FREE char *path = molt_xasprintf("/etc/systemd/system/%s/%s", dirs[j], units[i]);
            if (molt_exists(path)) {
                molt_strbuf_addf(b, "Wants=%s\n", units[i]);
                break;
            }
        }
}

static void write_target(bool final)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    molt_strbuf_addf(&b, "[Unit]\nDescription=xenmolt upgrade target\nRequires=sysinit.target\nAfter=sysinit.target\n"
                         "Wants=xenmolt-agent.service dbus.socket\n");
    if (final)
        add_network_wants(&b);
    static const char journald[] = "[Journal]\nStorage=volatile\n";
    molt_mkdir_p(SYSTEM_DIR, 0755, NULL);
    molt_mkdir_p("/run/systemd/journald.conf.d", 0755, NULL);
    molt_mkdir_p(MOLT_AGENT_RUN, 0755, NULL);
    molt_write_file(SYSTEM_DIR "/xenmolt.target", b.s, b.len, 0644, NULL);
    molt_write_file("/run/systemd/journald.conf.d/zzzz-xenmolt.conf", journald, sizeof(journald) - 1, 0644, NULL);
    molt_write_file(MOLT_AGENT_MODE, final ? "final\n" : "upgrade\n", final ? 6 : 8, 0644, NULL);
}

static void mask(char *units)
{
    char *save = NULL;
    molt_mkdir_p(MOLT_SYSTEMD_CONTROL, 0755, NULL);
    for (char *unit = units ? strtok_r(units, ",", &save) : NULL; unit; unit = strtok_r(NULL, ",", &save)) {
        CLEANUP_FREE char *path = molt_xasprintf(MOLT_SYSTEMD_CONTROL "/%s", unit);
        if (strchr(unit, '/') || symlink("/dev/null", path) < 0)
            perror("xenmolt-agent: mask the workload");
    }
}

int agent_init_main(char *const argv[], struct molt_log *log)
{
    struct stat root, run;
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
    if (stat("/", &root) == 0 && stat("/run", &run) == 0 && root.st_dev == run.st_dev)
        mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=20%");
    CLEANUP_FREE char *cmdline = NULL;
    if (molt_read_file("/proc/cmdline", 65536, &cmdline, NULL, NULL) == 0) {
        CLEANUP_FREE char *mode = cmdline_value(cmdline, "xenmolt.mode");
        CLEANUP_FREE char *unit = cmdline_value(cmdline, "xenmolt.unit");
        CLEANUP_FREE char *base = cmdline_value(cmdline, "xenmolt.base");
        CLEANUP_FREE char *pidbase = cmdline_value(cmdline, "xenmolt.pidbase");
        write_target(molt_streq(mode, "final"));
        mask(unit);
        if (base)
            disks_hide_bases(base);
        clonerecord_begin(argv[0], !molt_streq(mode, "final"), log);
        if (pidbase) {
            /* pid_max may still be 32768 here; systemd raises it later from sysctl.d. */
            molt_write_file("/proc/sys/kernel/pid_max", "4194304", 7, 0644, NULL);
            molt_write_file("/proc/sys/kernel/ns_last_pid", pidbase, strlen(pidbase), 0644, NULL);
        }
    }
    execv("/sbin/init", argv);
    execv("/lib/systemd/systemd", argv);
    perror("xenmolt-agent: exec of init");
    return 1;
}
