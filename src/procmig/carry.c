/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/carry.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/pins.h"
#include "procmig/procfs.h"

static const char *const PLACES[] = {"/tmp/", "/var/tmp/", "/run/", "/dev/shm/", NULL};

bool molt__carry_wanted(const char *path)
{
    for (size_t i = 0; PLACES[i]; i++)
        if (!strncmp(path, PLACES[i], strlen(PLACES[i])))
            return true;
    return false;
}

struct carry {
    struct molt_json *list;
    const char *dir;
    pid_t pid;
    uint64_t sum;
};

static void add_owner(struct molt_json *o, const struct stat *st)
{
    molt_json_set_int(o, "mode", st->st_mode & 07777);
    molt_json_set_int(o, "uid", st->st_uid);
    molt_json_set_int(o, "gid", st->st_gid);
}

/* The directories between the place and the file, top first. */
static struct molt_json *parents(pid_t pid, const char *path)
{
    struct molt_json *dirs = molt_json_array();

    for (const char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
        CLEANUP_FREE char *dir = molt_xstrndup(path, (size_t)(p - path));
        CLEANUP_FREE char *seen = molt_xasprintf("/proc/%d/root%s", (int)pid, dir);
        CLEANUP_FREE char *coded = molt__path_encode(dir);
        struct molt_json *o;
        struct stat st;

        if (!molt__carry_wanted(dir) || lstat(seen, &st) < 0 || !S_ISDIR(st.st_mode))
            continue;
        o = molt_json_object();
        molt_json_set_string(o, "path", coded);
        add_owner(o, &st);
        molt_json_append(dirs, o);
    }
    return dirs;
}

static int copy_bytes(int from, int to, const char *name, struct molt_error **err)
{
    char buf[65536];
    ssize_t got;

    while ((got = read(from, buf, sizeof(buf))) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 || molt_write_all(to, buf, (size_t)got) < 0)
            return molt_error_errno(err, "copy %s", name);
    }
    return 0;
}

static int take(struct carry *c, const char *path, struct molt_error **err)
{
    CLEANUP_FREE char *seen = molt_xasprintf("/proc/%d/root%s", (int)c->pid, path);
    CLEANUP_FREE char *coded = molt__path_encode(path), *file = NULL, *copy = NULL;
    CLEANUP_CLOSE int from = -1, to = -1;
    struct molt_json *o;
    struct stat st;
    int r;

    for (size_t i = 0; i < molt_json_size(c->list); i++)
        if (molt_streq(molt_json_get_string(molt_json_at(c->list, i), "path"), coded))
            return 0;
    from = open(seen, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (from < 0 || fstat(from, &st) < 0 || !S_ISREG(st.st_mode))
        return 0; /* gone, or not by this name: CRIU has its own way with it */
    c->sum += (uint64_t)st.st_size;
    if (st.st_size > MOLT__CARRY_FILE_MAX || c->sum > MOLT__CARRY_SUM_MAX ||
        molt_json_size(c->list) >= MOLT__CARRY_MAX)
        return molt_error_set(
            err, MOLT_E_CANNOT_MOVE,
            "the files that %s has open below /tmp, /run and /dev/shm are too many or too big",
            "the workload");
    file = molt_xasprintf("carry-%zu", molt_json_size(c->list));
    copy = molt_xasprintf("%s/%s", c->dir, file);
    to = open(copy, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (to < 0)
        return molt_error_errno(err, "make %s", copy);
    r = copy_bytes(from, to, path, err);
    if (r < 0)
        return r;
    o = molt_json_object();
    molt_json_set_string(o, "path", coded);
    molt_json_set_string(o, "file", file);
    add_owner(o, &st);
    molt_json_set(o, "dirs", parents(c->pid, path));
    molt_json_append(c->list, o);
    return 0;
}

static int take_fd(void *ctx, const struct molt__fd *f, struct molt_error **err)
{
    if (!S_ISREG(f->st.st_mode) || f->st.st_nlink == 0 || !molt__carry_wanted(f->target))
        return 0;
    return take(ctx, f->target, err);
}

int molt__carry_collect(const struct molt_workload *w, const char *dir, struct molt_json **ret_list,
                        struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *list = molt_json_array();
    struct carry c = {.list = list, .dir = dir};
    int r = 0;

    for (size_t i = 0; i < w->procs && r == 0; i++) {
        CLEANUP_FREE char *text = NULL;
        char *save = NULL;

        c.pid = w->proc[i].pid;
        if (molt__proc_text(c.pid, "maps", &text, NULL) < 0)
            continue;
        for (char *line = strtok_r(text, "\n", &save); line && r == 0; line = strtok_r(NULL, "\n", &save)) {
            struct molt__map m;

            if (molt__map_parse(line, &m) && !m.deleted && molt__carry_wanted(m.path))
                r = take(&c, m.path, err);
        }
        if (r == 0)
            r = molt__each_fd(c.pid, false, take_fd, &c, err);
    }
    if (r == 0)
        *ret_list = MOLT_STEAL_PTR(list);
    return r;
}

static bool owner_of(const struct molt_json *o, mode_t *mode, uid_t *uid, gid_t *gid)
{
    int64_t m = molt_json_get_int(o, "mode", -1), u = molt_json_get_int(o, "uid", -1);
    int64_t g = molt_json_get_int(o, "gid", -1);

    *mode = (mode_t)m;
    *uid = (uid_t)u;
    *gid = (gid_t)g;
    return m >= 0 && m <= 07777 && u >= 0 && u < UINT32_MAX && g >= 0 && g < UINT32_MAX;
}

static int place_dir(const struct molt_json *o, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt__path_decode(molt_json_get_string(o, "path"));
    mode_t mode;
    uid_t uid;
    gid_t gid;

    if (!path || !molt__carry_wanted(path) || !owner_of(o, &mode, &uid, &gid))
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed directory to carry");
    if (mkdir(path, 0700) < 0)
        return errno == EEXIST ? 0 : molt_error_errno(err, "make %s", path);
    return lchown(path, uid, gid) < 0 || chmod(path, mode) < 0
               ? molt_error_errno(err, "set owner of %s", path)
               : 0;
}

static int place_file(const struct molt_json *o, const char *dir, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt__path_decode(molt_json_get_string(o, "path")), *copy = NULL;
    const char *file = molt_json_get_string(o, "file");
    CLEANUP_CLOSE int from = -1, to = -1;
    mode_t mode;
    uid_t uid;
    gid_t gid;

    if (!path || !molt__carry_wanted(path) || !file || strncmp(file, "carry-", 6) || strchr(file, '/') ||
        !owner_of(o, &mode, &uid, &gid))
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed file to carry");
    copy = molt_xasprintf("%s/%s", dir, file);
    from = open(copy, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (from < 0)
        return molt_error_errno(err, "open %s", copy);
    if (unlink(path) < 0 && errno != ENOENT)
        return molt_error_errno(err, "replace %s", path);
    to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (to < 0)
        return molt_error_errno(err, "make %s", path);
    if (copy_bytes(from, to, path, err) < 0)
        return MOLT_E_INTERNAL;
    return fchown(to, uid, gid) < 0 || fchmod(to, mode) < 0 ? molt_error_errno(err, "set owner of %s", path)
                                                            : 0;
}

int molt__carry_place(const struct molt_json *list, const char *dir, struct molt_error **err)
{
    size_t n = molt_json_size(list);

    if (molt_json_type(list) != MOLT_JSON_ARRAY || n > MOLT__CARRY_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed list of files to carry");
    for (size_t i = 0; i < n; i++) {
        const struct molt_json *o = molt_json_at(list, i), *dirs = molt_json_get(o, "dirs");
        int r = 0;

        for (size_t k = 0; k < molt_json_size(dirs) && r == 0; k++)
            r = place_dir(molt_json_at(dirs, k), err);
        if (r == 0)
            r = place_file(o, dir, err);
        if (r < 0)
            return r;
    }
    return 0;
}
