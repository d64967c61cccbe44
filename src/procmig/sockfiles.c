/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/sockfiles.h"

#include <errno.h>
#include <linux/un.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"

#define DELETED " (deleted)"

/* bind_unix_sk leaves out what was accepted or is connected: it has its listener's name. */
static bool criu_binds(const struct molt__unix_sk *sk)
{
    return sk->name[0] == '/' && (sk->type == SOCK_DGRAM || sk->state != TCP_ESTABLISHED);
}

/* What the socket's file is called now (SIOCUNIXFILE, Linux 4.10); NULL: it is gone. malloc'd. */
static char *file_now(pid_t pid, int fd, struct stat *st)
{
    CLEANUP_CLOSE int sk = molt__steal_fd(pid, fd), file = sk < 0 ? -1 : ioctl(sk, SIOCUNIXFILE);
    char link[48], path[PATH_MAX];
    ssize_t n;

    if (file < 0 || fstat(file, st) < 0)
        return NULL;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
    n = readlink(link, path, sizeof(path) - 1);
    if (n <= 0 || path[0] != '/')
        return NULL;
    path[n] = '\0';
    return (size_t)n > strlen(DELETED) && !strcmp(path + n - strlen(DELETED), DELETED) ? NULL : molt_xstrdup(path);
}

/* Through whatever links: /var/run/x is /run/x. */
static bool is_there(pid_t pid, const char *name, const struct stat *st)
{
    CLEANUP_FREE char *seen = molt_xasprintf("/proc/%d/root%s", (int)pid, name);
    struct stat now;

    return stat(seen, &now) == 0 && now.st_dev == st->st_dev && now.st_ino == st->st_ino;
}

int molt__sockfiles_note(struct molt_json *list, pid_t pid, int fd, const struct molt__unix_sk *sk, struct molt_error **err)
{
    CLEANUP_FREE char *now = NULL, *name = NULL, *path = NULL;
    struct molt_json *o;
    struct stat st;

    if (!criu_binds(sk))
        return 0;
    name = molt__path_encode(sk->name);
    for (size_t i = 0; i < molt_json_size(list); i++)
        if (molt_streq(molt_json_get_string(molt_json_at(list, i), "name"), name))
            return 0; /* of many processes that share it the file is looked for once */
    if (!(now = file_now(pid, fd, &st)))
        return 0;
    path = molt__path_encode(is_there(pid, sk->name, &st) ? sk->name : now);
    if (molt_json_size(list) >= MOLT__SOCKFILES_MAX)
        return molt_error_set(err, MOLT_E_CANNOT_MOVE, "the workload has more than %d unix sockets with files", MOLT__SOCKFILES_MAX);
    o = molt_json_object();
    molt_json_set_string(o, "name", name);
    molt_json_set_string(o, "path", path);
    molt_json_append(list, o);
    return 0;
}

static int parse(const struct molt_json *list, size_t i, char **ret_name, char **ret_path, struct molt_error **err)
{
    const struct molt_json *o = molt_json_at(list, i);

    *ret_name = molt__path_decode(molt_json_get_string(o, "name"));
    *ret_path = molt__path_decode(molt_json_get_string(o, "path"));
    return *ret_name && *ret_path ? 0 : molt_error_set(err, MOLT_E_PROTOCOL, "malformed name of a unix socket in the images");
}

static int check_size(const struct molt_json *list, struct molt_error **err)
{
    return molt_json_size(list) <= MOLT__SOCKFILES_MAX ? 0 : molt_error_set(err, MOLT_E_PROTOCOL, "too many names of unix sockets in the images");
}

int molt__sockfiles_untaken(const struct molt_json *list, struct molt_error **err)
{
    struct molt__unix_table t = {NULL, 0, 0};
    int r = check_size(list, err);

    if (r == 0 && molt_json_size(list) > 0)
        r = molt__unix_table_read(&t, err);
    for (size_t i = 0; r == 0 && i < molt_json_size(list); i++) {
        CLEANUP_FREE char *name = NULL, *path = NULL;

        r = parse(list, i, &name, &path, err);
        for (size_t k = 0; r == 0 && k < t.n; k++)
            if (criu_binds(&t.v[k]) && !strcmp(t.v[k].name, name) && molt_exists(name))
                r = molt_error_set(err, MOLT_E_CANNOT_MOVE, "another process here has the unix socket %s", name);
    }
    molt__unix_table_free(&t);
    return r;
}

/* One of the two steps of a rename: the second names may be first names of others. */
static int step(const struct molt_json *list, bool aside, struct molt_error **err)
{
    for (size_t i = 0; i < molt_json_size(list); i++) {
        CLEANUP_FREE char *name = NULL, *path = NULL, *between = NULL;
        int r = parse(list, i, &name, &path, err);
        struct stat st;

        if (r < 0)
            return r;
        if (!strcmp(name, path))
            continue;
        between = molt_xasprintf("%s.xenmolt", name);
        if (lstat(aside ? name : between, &st) < 0 || !S_ISSOCK(st.st_mode))
            return molt_error_set(err, MOLT_E_CANNOT_MOVE, "the unix socket %s is not there behind the restore", name);
        if (rename(aside ? name : between, aside ? between : path) < 0)
            return molt_error_errno(err, "rename the unix socket %s to %s", name, path);
    }
    return 0;
}

int molt__sockfiles_rename(const struct molt_json *list, struct molt_error **err)
{
    int r = check_size(list, err);

    if (r == 0)
        r = step(list, true, err);
    return r < 0 ? r : step(list, false, err);
}
