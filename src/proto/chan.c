/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proto/chan.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/strbuf.h"

#define SLICE_MS 200

static int lost(struct molt_error **err)
{
    return molt_error_set(err, MOLT_E_PROTOCOL, "the other side closed the channel");
}

/* Waits for progress since `since`; 0 go on, negative: give up. */
static int wait_progress(struct molt_chan *c, bool for_write, int64_t since, int timeout_ms, struct molt_error **err)
{
    if (c->cancelled && c->cancelled(c->cancel_ctx))
        return molt_error_set(err, MOLT_E_ABORTED, "cancelled");
    int64_t waited = molt_mono_ms() - since;
    if (timeout_ms >= 0 && waited >= timeout_ms)
        return molt_error_set(err, MOLT_E_TIMEOUT, "no answer for %d ms", timeout_ms);
    int slice = SLICE_MS;
    if (timeout_ms >= 0 && timeout_ms - waited < slice)
        slice = (int)(timeout_ms - waited);
    return c->ops->wait(c, for_write, slice) < 0 ? lost(err) : 0;
}

int molt_chan_read(struct molt_chan *c, void *buf, size_t len, int timeout_ms, struct molt_error **err)
{
    char *p = buf;
    int64_t since = molt_mono_ms();
    while (len > 0) {
        long n = c->ops->read(c, p, len);
        if (n < 0)
            return lost(err);
        if (n == 0) {
            int r = wait_progress(c, false, since, timeout_ms, err);
            if (r < 0)
                return r;
            continue;
        }
        p += n;
        len -= (size_t)n;
        c->bytes_in += (size_t)n;
        since = molt_mono_ms();
    }
    return 0;
}

int molt_chan_write(struct molt_chan *c, const void *buf, size_t len, int timeout_ms, struct molt_error **err)
{
    const char *p = buf;
    int64_t since = molt_mono_ms();
    while (len > 0) {
        long n = c->ops->write(c, p, len);
        if (n < 0)
            return lost(err);
        if (n == 0) {
            int r = wait_progress(c, true, since, timeout_ms, err);
            if (r < 0)
                return r;
            continue;
        }
        p += n;
        len -= (size_t)n;
        c->bytes_out += (size_t)n;
        since = molt_mono_ms();
    }
    return 0;
}

void molt_chan_close(struct molt_chan *c)
{
    if (c)
        c->ops->close(c);
}

struct fd_chan {
    struct molt_chan chan; /* first */
    int fd;
};

static long fd_read(struct molt_chan *c, void *buf, size_t len)
{
    ssize_t n = recv(((struct fd_chan *)c)->fd, buf, len, MSG_DONTWAIT);
    if (n == 0)
        return -1;
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    return n;
}

static long fd_write(struct molt_chan *c, const void *buf, size_t len)
{
    ssize_t n = send(((struct fd_chan *)c)->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    return n;
}

static int fd_wait(struct molt_chan *c, bool for_write, int wait_ms)
{
    struct pollfd p = {((struct fd_chan *)c)->fd, for_write ? POLLOUT : POLLIN, 0};
    return poll(&p, 1, wait_ms) < 0 && errno != EINTR ? -1 : 0;
}

static void fd_close(struct molt_chan *c)
{
    close(((struct fd_chan *)c)->fd);
    free(c);
}

struct molt_chan *molt_chan_from_fd(int fd)
{
    static const struct molt_chan_ops ops = {fd_read, fd_write, fd_wait, fd_close};
    struct fd_chan *c = molt_xcalloc(1, sizeof(*c));
    c->chan.ops = &ops;
    c->chan.timeout_ms = -1;
    c->fd = fd;
    return &c->chan;
}
