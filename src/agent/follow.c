/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/follow.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_there(const struct follow *f, const char *name)
{
    struct stat st;
    return fstatat(f->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int follow_begin(struct follow *f, const char *dir, int dirfd, const char *end, const char *failed, struct molt_error **err)
{
    f->dirfd = dirfd;
    f->end = end;
    f->failed = failed;
    f->have = f->at = 0;
    f->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (f->fd >= 0 && inotify_add_watch(f->fd, dir, IN_CLOSE_WRITE | IN_MOVED_TO | IN_ONLYDIR) >= 0)
        return 0;
    int r = molt_error_errno(err, "watch %s", dir);
    follow_end(f);
    return r;
}

void follow_end(struct follow *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

static int wait_events(struct follow *f, int timeout_ms, struct molt_error **err)
{
    struct pollfd p = {.fd = f->fd, .events = POLLIN};
    int n = poll(&p, 1, timeout_ms);
    if (n == 0)
        return molt_error_set(err, MOLT_E_TIMEOUT, "no image was written for %d ms", timeout_ms);
    ssize_t got = n < 0 ? n : read(f->fd, f->buf, sizeof(f->buf));
    if (got < 0 && errno != EINTR && errno != EAGAIN)
        return molt_error_errno(err, "watch the images");
    f->have = got > 0 ? (size_t)got : 0;
    f->at = 0;
    return 0;
}

int follow_next(struct follow *f, int timeout_ms, const char **ret_name, struct molt_error **err)
{
    for (;;) {
        if (f->at < f->have) {
            const struct inotify_event *e = (const void *)(f->buf + f->at);
            f->at += sizeof(*e) + e->len;
            if (!(e->mask & IN_CLOSE_WRITE) || e->len == 0)
                continue;
            *ret_name = e->name;
            return 1;
        }
        if (is_there(f, f->end))
            return 0;
        if (is_there(f, f->failed))
            return molt_error_set(err, MOLT_E_STATE, "there will be no images");
        int r = wait_events(f, timeout_ms, err);
        if (r < 0)
            return r;
    }
}
