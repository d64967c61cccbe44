/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks that are handed over to the clone instead of merged. The clone lets go of its copy ("volumes-release"); while the
 * workload stands still the active freezes its file systems there ("volumes-freeze"), the host puts a snapshot of them under
 * the clone's disk, and the clone mounts them again ("volumes-mount"). The two never write to one image.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"

#define RELEASED MOLT_AGENT_RUN "/volumes.json" /* outlives a lost connection */
#define MAX_RELEASED (1u << 20)
#define MAX_VOLUMES 64
#define RELEASE_MS 15000
#define DEVICE_MS 5000
#define CHECK_MS 500 /* in the blackout; udev may just look at it */

/* ---- in the clone ---- */

struct volume_mount {
    char source[64], dir[4096], type[64], flags[512], options[1024];
};

static bool of_disk(const char *source, const char *disk)
{
    size_t n = strlen(disk);
    return !strncmp(source, "/dev/", 5) && !strncmp(source + 5, disk, n) && strspn(source + 5 + n, "0123456789") == strlen(source + 5 + n);
}

/* The mounts of one disk, in the order in which they were made. */
static int mounts_of(const char *disk, struct volume_mount *v, size_t max, size_t *ret_n, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    char *save = NULL;
    size_t n = 0;
    int r = molt_read_file("/proc/self/mountinfo", 1 << 20, &text, NULL, err);
    if (r < 0)
        return r;
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        char *dash = strstr(l, " - ");
        struct volume_mount m;
        unsigned maj, min;
        if (!dash || sscanf(l, "%*s %*s %u:%u %*s %4095s %511s", &maj, &min, m.dir, m.flags) != 4 || sscanf(dash, " - %63s %63s %1023s", m.type, m.source, m.options) != 3)
            continue;
        char link[512];
        CLEANUP_FREE char *sys = molt_xasprintf("/sys/dev/block/%u:%u", maj, min);
        ssize_t len = readlink(sys, link, sizeof(link) - 1);
        link[len < 0 ? 0 : len] = 0;
        char *name = strrchr(link, '/'); /* the source may be a name like /dev/disk/by-uuid/... */
        if (!name || strlen(name) > 32)
            continue;
        snprintf(m.source, sizeof(m.source), "/dev/%.32s", name + 1);
        if (!of_disk(m.source, disk))
            continue;
        if (n == max)
            return molt_error_set(err, MOLT_E_UNSUPPORTED, "disk %s has more than %zu file systems mounted", disk, max);
        v[n++] = m;
    }
    *ret_n = n;
    return 0;
}

static const struct {
    const char *word;
    unsigned long flag;
} mount_flags[] = {
    {"ro", MS_RDONLY}, {"nosuid", MS_NOSUID}, {"nodev", MS_NODEV}, {"noexec", MS_NOEXEC}, {"noatime", MS_NOATIME}, {"nodiratime", MS_NODIRATIME},
    {"relatime", MS_RELATIME}, {"sync", MS_SYNCHRONOUS}, {"lazytime", MS_LAZYTIME}, {"dirsync", MS_DIRSYNC},
};

static unsigned long flags_of(char *text)
{
    unsigned long flags = 0;
    char *save = NULL;
    for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save))
        for (size_t i = 0; i < sizeof(mount_flags) / sizeof(mount_flags[0]); i++)
            if (!strcmp(w, mount_flags[i].word))
                flags |= mount_flags[i].flag;
    return flags;
}

/* The file system's own options, without those that it shows but does not take. */
static char *own_options(const char *text)
{
    CLEANUP_FREE char *copy = molt_xstrdup(text);
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    char *save = NULL;
    for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save))
        if (strcmp(w, "rw") != 0 && strcmp(w, "ro") != 0 && strcmp(w, "seclabel") != 0)
            molt_strbuf_addf(&b, "%s%s", b.len ? "," : "", w);
    return molt_strbuf_steal(&b);
}

/* Nobody in the clone, nor its kernel, holds the device any more: a mount or a mapping claims it for itself. */
static int wait_unclaimed(const char *disk, int timeout_ms, struct molt_error **err)
{
    CLEANUP_FREE char *dev = molt_xasprintf("/dev/%s", disk);
    int64_t end = molt_mono_ms() + timeout_ms;
    for (;;) {
        CLEANUP_CLOSE int fd = open(dev, O_RDONLY | O_EXCL | O_CLOEXEC);
        if (fd >= 0)
            return 0;
        if (errno != EBUSY || molt_mono_ms() > end)
            return molt_error_errno(err, "the clone does not let go of %s, which is to be handed over", dev);
        molt_sleep_ms(20);
    }
}

static int release_disk(const char *disk, struct molt_json *list, struct molt_json *dirs, struct molt_error **err)
{
    CLEANUP_FREE struct volume_mount *m = molt_xcalloc(MAX_VOLUMES, sizeof(*m));
    size_t n = 0;
    int r = mounts_of(disk, m, MAX_VOLUMES, &n, err);
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct molt_json *v = molt_json_object();
        molt_json_set_string(v, "source", m[i].source);
        CLEANUP_FREE char *shown = disks_escape(m[i].dir);
        molt_json_set_string(v, "dir", shown);
        molt_json_set_string(v, "type", m[i].type);
        molt_json_set_string(v, "flags", m[i].flags);
        molt_json_set_string(v, "options", m[i].options);
        molt_json_append(list, v);
        molt_json_append(dirs, molt_json_string(shown));
    }
    for (size_t i = n; r == 0 && i-- > 0;) {
        CLEANUP_FREE char *dir = disks_unescape(m[i].dir);
        if (umount2(dir, UMOUNT_NOFOLLOW) < 0)
            r = molt_error_errno(err, "unmount %s in the clone, to be handed over", dir);
    }
    return r < 0 ? r : wait_unclaimed(disk, RELEASE_MS, err);
}

/* {"disks": ["xvdb"]} -> {"dirs": what was mounted from them}: unmounts them, until volumes-mount. */
int h_volumes_release(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const struct molt_json *disks = molt_json_get(rq->args, "disks");
    CLEANUP_JSON struct molt_json *list = molt_json_array();
    struct molt_json *dirs = molt_json_array();
    int r = 0;
    molt_json_set(reply, "dirs", dirs);
    for (size_t i = 0; r == 0 && i < molt_json_size(disks); i++) {
        const char *disk = molt_json_str(molt_json_at(disks, i));
        if (!disks_is_name(disk))
            return molt_error_set(err, MOLT_E_PROTOCOL, "volumes-release: bad arguments");
        r = release_disk(disk, list, dirs, err);
    }
    if (r < 0)
        return r;
    CLEANUP_FREE char *text = molt_json_print(list, false);
    return molt_write_file(RELEASED, text, strlen(text), 0600, err);
}

/* {"disks": ["xvdb"]}: nobody has taken them meanwhile; the host is about to change what is on them. */
int h_volumes_check(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const struct molt_json *disks = molt_json_get(rq->args, "disks");
    int r = 0;
    (void)reply;
    for (size_t i = 0; r == 0 && i < molt_json_size(disks); i++) {
        const char *disk = molt_json_str(molt_json_at(disks, i));
        r = disks_is_name(disk) ? wait_unclaimed(disk, CHECK_MS, err) : molt_error_set(err, MOLT_E_PROTOCOL, "volumes-check: bad arguments");
    }
    return r;
}

static int read_released(struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    int r = molt_read_file(RELEASED, MAX_RELEASED, &text, NULL, err);
    return r < 0 ? r : molt_json_parse(text, strlen(text), ret, err);
}

char **volumes_dirs(void)
{
    CLEANUP_JSON struct molt_json *list = NULL;
    if (molt_exists(RELEASED))
        (void)read_released(&list, NULL);
    char **v = molt_xcalloc(molt_json_size(list) + 1, sizeof(*v));
    for (size_t i = 0, n = 0; i < molt_json_size(list); i++) {
        char *dir = disks_unescape(molt_json_get_string(molt_json_at(list, i), "dir"));
        if (*dir)
            v[n++] = dir;
        else
            free(dir);
    }
    return v;
}

bool volumes_cover(const char *path)
{
    char **dirs = volumes_dirs();
    bool covered = false;
    for (size_t i = 0; dirs[i]; i++) {
        size_t n = strlen(dirs[i]);
        covered = covered || (!strncmp(path, dirs[i], n) && (path[n] == '/' || path[n] == '\0'));
        free(dirs[i]);
    }
    free(dirs);
    return covered;
}

/* A disk that was taken away and is there again: its device, and those of its partitions, may come a moment later. */
static int mount_one(const char *source, const char *dir, const char *type, unsigned long flags, const char *options, struct molt_error **err)
{
    int64_t end = molt_mono_ms() + DEVICE_MS;
    while (mount(source, dir, type, flags, options) < 0) {
        if ((errno != ENOENT && errno != ENXIO) || molt_mono_ms() > end)
            return molt_error_errno(err, "mount %s, which was handed over, at %s", source, dir);
        molt_sleep_ms(5);
    }
    return 0;
}

/* {}: the disks have the active's content now: mounts what was unmounted, at the same places. */
int h_volumes_mount(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *list = NULL;
    int64_t t0 = molt_mono_us();
    (void)rq;
    int r = read_released(&list, err);
    for (size_t i = 0; r == 0 && i < molt_json_size(list); i++) {
        const struct molt_json *v = molt_json_at(list, i);
        const char *source = molt_json_get_string(v, "source");
        CLEANUP_FREE char *dir = disks_unescape(molt_json_get_string(v, "dir"));
        CLEANUP_FREE char *flags = molt_xstrdup(molt_json_get_string(v, "flags")), *options = own_options(molt_json_get_string(v, "options"));
        r = mount_one(source, dir, molt_json_get_string(v, "type"), flags_of(flags), options, err);
    }
    if (r == 0)
        unlink(RELEASED);
    molt_json_set_double(reply, "ms", (double)(molt_mono_us() - t0) / 1000);
    return r;
}

/* ---- in the active ---- */

static int each_dir(const struct molt_json *dirs, unsigned long request, bool reverse, struct molt_error **err)
{
    size_t n = molt_json_size(dirs);
    int r = 0;
    for (size_t i = 0; i < n; i++) {
        CLEANUP_FREE char *dir = disks_unescape(molt_json_str(molt_json_at(dirs, reverse ? n - 1 - i : i)));
        CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (r == 0 && (fd < 0 || ioctl(fd, request, 0) < 0))
            r = molt_error_errno(err, "%s %s", request == FIFREEZE ? "freeze" : "thaw", dir);
    }
    return r;
}

void volumes_thaw(struct session *s)
{
    if (!s->volumes)
        return;
    each_dir(s->volumes, FITHAW, false, NULL);
    molt_json_free(s->volumes);
    s->volumes = NULL;
    if (s->volumes_guard > 0) {
        close(s->volumes_pipe);
        kill(s->volumes_guard, SIGKILL);
        waitpid(s->volumes_guard, NULL, 0);
    }
    s->volumes_guard = 0;
}

/* A child that thaws when we die without having done it: its pipe ends then. */
static int start_guard(struct session *s, struct molt_error **err)
{
    int p[2];
    char byte;
    if (pipe2(p, O_CLOEXEC) < 0)
        return molt_error_errno(err, "pipe");
    s->volumes_guard = fork();
    if (s->volumes_guard == 0) {
        close(p[1]);
        while (read(p[0], &byte, 1) < 0 && errno == EINTR)
            ;
        each_dir(s->volumes, FITHAW, false, NULL);
        _exit(0);
    }
    close(p[0]);
    s->volumes_pipe = p[1];
    if (s->volumes_guard > 0)
        return 0;
    close(p[1]);
    s->volumes_guard = 0;
    return molt_error_errno(err, "fork");
}

/* {"dirs": [..]}: all that was written there is on the disks, and nothing more is, until the thaw or the session's end. */
int h_volumes_freeze(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const struct molt_json *dirs = molt_json_get(rq->args, "dirs");
    if (s->volumes || molt_json_size(dirs) > MAX_VOLUMES)
        return molt_error_set(err, MOLT_E_STATE, "volumes-freeze: %s", s->volumes ? "the volumes are frozen already" : "too many directories");
    int64_t t0 = molt_mono_us();
    s->volumes = molt_json_copy(dirs);
    int r = start_guard(s, err);
    if (r == 0)
        r = each_dir(s->volumes, FIFREEZE, true, err);
    if (r < 0)
        volumes_thaw(s);
    molt_json_set_double(reply, "ms", (double)(molt_mono_us() - t0) / 1000);
    return r;
}

/* Idempotent. */
int h_volumes_thaw(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)reply;
    (void)err;
    volumes_thaw(rq->ctx);
    return 0;
}
