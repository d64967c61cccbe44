/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Subject locks. Open-file-description locks: they end with the holder's last descriptor as flock's do (also
 * on SIGKILL), and unlike those can be asked about without being taken for a moment.
 */
#include "engine/internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"

static char *lock_path(const char *state_dir, const char *key)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;

    molt_strbuf_addf(&b, "%s/locks/", state_dir);
    for (const unsigned char *p = (const unsigned char *)key; *p; p++) {
        if (isalnum(*p) || *p == '-' || *p == '_')
            molt_strbuf_addf(&b, "%c", *p);
        else
            molt_strbuf_addf(&b, "%%%02x", *p);
    }
    return molt_strbuf_steal(&b);
}

int molt__lock_take(const char *state_dir, const char *key, const char *op_id, int *ret_fd,
                    struct molt_error **err)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    CLEANUP_FREE char *path = lock_path(state_dir, key);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char who[128];
    int n;

    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    if (fcntl(fd, F_OFD_SETLK, &fl) < 0) {
        if (errno == EAGAIN || errno == EACCES)
            return molt_error_set(err, MOLT_E_BUSY, "locked by another operation");
        return molt_error_errno(err, "lock %s", path);
    }
    n = snprintf(who, sizeof(who), "%ld %s\n", (long)getpid(), op_id);
    if (ftruncate(fd, 0) < 0 || pwrite(fd, who, (size_t)n, 0) != n)
        return molt_error_errno(err, "write %s", path);
    *ret_fd = MOLT_STEAL_FD(fd);
    return 0;
}

pid_t molt__lock_holder(const char *state_dir, const char *key, const char *op_id)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    CLEANUP_FREE char *path = lock_path(state_dir, key);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    char who[128] = "", id[100] = "";
    long pid = 0;

    if (fd < 0 || fcntl(fd, F_OFD_GETLK, &fl) < 0 || fl.l_type == F_UNLCK)
        return 0;
    if (pread(fd, who, sizeof(who) - 1, 0) <= 0 || sscanf(who, "%ld %99s", &pid, id) != 2 ||
        strcmp(id, op_id) != 0)
        return 0;
    return (pid_t)pid;
}
