/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Freezing the file systems of the OS disk for the moment of the snapshot (FIFREEZE, ioctl_fs.h). A watchdog process
 * thaws when the host never says so; nothing here writes to disk between freeze and thaw.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <mntent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"

#define WATCHDOG_MS 10000

/* Mount points whose source is a block device, each device once; root first. */
static size_t block_mounts(char **dirs, size_t max)
{
    FILE *f = setmntent("/proc/self/mounts", "r");
    dev_t seen[64];
    size_t n = 0;
    struct mntent *m;
    while (f && (m = getmntent(f)) && n < max && n < 64) {
        struct stat st;
        if (m->mnt_fsname[0] != '/' || hasmntopt(m, "ro") || stat(m->mnt_dir, &st) < 0 || major(st.st_dev) == 0)
            continue;
        size_t i = 0;
        while (i < n && seen[i] != st.st_dev)
            i++;
        if (i < n)
            continue;
        seen[n] = st.st_dev;
        dirs[n++] = molt_xstrdup(m->mnt_dir);
    }
    if (f)
        endmntent(f);
    return n;
}

static int each_mount(unsigned long request, const char *what, bool reverse, struct molt_error **err)
{
    char *dirs[64];
    size_t n = block_mounts(dirs, 64);
    int r = 0;
    for (size_t i = 0; i < n; i++) {
        const char *dir = dirs[reverse ? n - 1 - i : i];
        CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && ioctl(fd, request, 0) < 0 && errno != EBUSY && errno != EINVAL && errno != EOPNOTSUPP && r == 0)
            r = molt_error_errno(err, "%s %s", what, dir);
    }
    for (size_t i = 0; i < n; i++)
        free(dirs[i]);
    return r;
}

void fs_thaw_all(struct session *s)
{
    if (s->thawer <= 0)
        return;
    each_mount(FITHAW, "thaw", false, NULL);
    kill(s->thawer, SIGKILL);
    waitpid(s->thawer, NULL, 0);
    s->thawer = 0;
}

int h_fs_freeze(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    if (s->thawer > 0)
        return molt_error_set(err, MOLT_E_STATE, "the file systems are frozen already");
    sync(); /* before the freeze, so that the freeze itself is short */
    s->thawer = fork();
    if (s->thawer < 0)
        return molt_error_errno(err, "fork");
    if (s->thawer == 0) {
        molt_sleep_ms(WATCHDOG_MS);
        each_mount(FITHAW, "thaw", false, NULL);
        _exit(0);
    }
    int64_t t0 = molt_mono_us();
    /* Deeper mounts first: a freeze of the root must not stop a flush of what is mounted below it. */
    int r = each_mount(FIFREEZE, "freeze", true, err);
    if (r < 0)
        fs_thaw_all(s);
    molt_json_set_double(reply, "ms", (double)(molt_mono_us() - t0) / 1000);
    molt_json_set_int(reply, "realtime_ns", molt_now_us() * 1000);
    return r;
}

int h_fs_thaw(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    (void)reply;
    if (s->thawer <= 0)
        return molt_error_set(err, MOLT_E_STATE, "the file systems are not frozen");
    bool expired = waitpid(s->thawer, NULL, WNOHANG) == s->thawer;
    if (expired)
        s->thawer = 0;
    fs_thaw_all(s);
    return expired ? molt_error_set(err, MOLT_E_TIMEOUT, "the freeze lasted over %d ms and was ended by its watchdog", WATCHDOG_MS) : 0;
}
