/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The end of a service where it was, when it goes on elsewhere. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/dump.h"
#include "procmig/overlay.h"
#include "procmig/procfs.h"

#define END_MS 20000

/* As masked, a unit is started by nobody, and its own Restart= is not known. */
static int mask(const char *unit, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf(MOLT_SYSTEMD_CONTROL "/%s", unit);
    int r = molt_mkdir_p(MOLT_SYSTEMD_CONTROL, 0755, err);

    if (r < 0)
        return r;
    if (symlink("/dev/null", path) < 0 && errno != EEXIST)
        return molt_error_errno(err, "mask %s", unit);
    return molt__systemctl("daemon-reload", NULL, NULL, err);
}

static int unmask(const char *unit, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf(MOLT_SYSTEMD_CONTROL "/%s", unit);

    if (unlink(path) < 0 && errno != ENOENT)
        return molt_error_errno(err, "unmask %s", unit);
    (void)rmdir(MOLT_SYSTEMD_CONTROL);
    return molt__systemctl("daemon-reload", NULL, NULL, err);
}

static int kill_all(const char *cgroup, struct molt_error **err)
{
    int64_t end = molt_mono_ms() + END_MS;

    for (;;) {
        CLEANUP_FREE pid_t *pid = NULL;
        size_t n = 0;
        int r = molt__cgroup_pids(cgroup, &pid, &n, NULL);

        if (r < 0 || n == 0)
            return 0; /* systemd removes the group of a service that has ended */
        for (size_t i = 0; i < n; i++)
            molt__tcp_repair(pid[i], true);
        for (size_t i = 0; i < n; i++)
            kill(pid[i], SIGKILL);
        if (molt_mono_ms() > end)
            return molt_error_set(err, MOLT_E_TIMEOUT, "process %d does not end", (int)pid[0]);
        molt_sleep_ms(20);
    }
}

int molt_dump_depart(const char *unit, struct molt_error **err)
{
    CLEANUP_FREE char *out = NULL, *cgroup = NULL, *state = NULL, *load = NULL, *name = NULL;
    int r = molt_unit_name(unit, &name, err);

    if (r == 0)
        r = molt__systemctl_show(name, "LoadState,UnitFileState,ControlGroup", &out, err);
    if (r < 0)
        return r;
    cgroup = molt__show_get(out, "ControlGroup");
    state = molt__show_get(out, "UnitFileState");
    load = molt__show_get(out, "LoadState");
    if (molt_streq(load, "not-found"))
        return 0;
    if (molt_streq(state, "enabled"))
        r = molt__systemctl("disable", NULL, name, err);
    if (r == 0)
        r = mask(name, err);
    if (r == 0 && cgroup && strlen(cgroup) > 1)
        r = kill_all(cgroup, err);
    if (r == 0)
        r = unmask(name, err);
    (void)molt__systemctl("reset-failed", NULL, name, NULL);
    return r < 0 ? r : molt_overlay_remove(name, err); /* of an earlier move here */
}
