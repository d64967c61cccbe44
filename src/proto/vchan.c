/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proto/vchan.h"

#include <errno.h>
#include <libxenvchan.h>
#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/strbuf.h"

#define RETRY_MS 100

struct vchan {
    struct molt_chan chan; /* first */
    struct libxenvchan *ctrl;
};

static long v_read(struct molt_chan *c, void *buf, size_t len)
{
    struct libxenvchan *v = ((struct vchan *)c)->ctrl;
    int n = libxenvchan_read(v, buf, len);
    /* 0 on a closed channel would wait for ever; data left by a peer that closed is read first. */
    if (n == 0 && libxenvchan_is_open(v) == 0)
        return -1;
    return n;
}

static long v_write(struct molt_chan *c, const void *buf, size_t len)
{
    struct libxenvchan *v = ((struct vchan *)c)->ctrl;
    if (libxenvchan_is_open(v) == 0)
        return -1;
    return libxenvchan_write(v, buf, len);
}

static int v_wait(struct molt_chan *c, bool for_write, int wait_ms)
{
    struct libxenvchan *v = ((struct vchan *)c)->ctrl;
    (void)for_write; /* one event channel tells both */
    struct pollfd p = {libxenvchan_fd_for_select(v), POLLIN, 0};
    int n = poll(&p, 1, wait_ms);
    if (n < 0)
        return errno == EINTR ? 0 : -1;
    if (n > 0)
        return libxenvchan_wait(v) < 0 ? -1 : 0;
    return 0;
}

static void v_close(struct molt_chan *c)
{
    struct vchan *v = (struct vchan *)c;
    libxenvchan_close(v->ctrl);
    free(v);
}

static struct molt_chan *wrap(struct libxenvchan *ctrl)
{
    static const struct molt_chan_ops ops = {v_read, v_write, v_wait, v_close};
    struct vchan *v = molt_xcalloc(1, sizeof(*v));
    ctrl->blocking = 0;
    v->chan.ops = &ops;
    v->chan.timeout_ms = 60000;
    v->ctrl = ctrl;
    return &v->chan;
}

int molt_vchan_listen(uint32_t domid, const char *path, size_t ring, struct molt_chan **ret, struct molt_error **err)
{
    struct libxenvchan *ctrl = libxenvchan_server_init(NULL, (int)domid, path, ring, ring);
    if (!ctrl)
        return molt_error_errno(err, "vchan: offer %s to domain %u", path, domid);
    *ret = wrap(ctrl);
    return 0;
}

int molt_vchan_accept(struct molt_chan *c, int timeout_ms, struct molt_error **err)
{
    struct libxenvchan *v = ((struct vchan *)c)->ctrl;
    int64_t since = molt_mono_ms();
    while (libxenvchan_is_open(v) == 2) {
        if (timeout_ms >= 0 && molt_mono_ms() - since >= timeout_ms)
            return molt_error_set(err, MOLT_E_TIMEOUT, "vchan: nobody connected within %d ms", timeout_ms);
        /* Blocking for ever costs an idle agent nothing; a bounded wait looks at the clock now and then. */
        if (v_wait(c, false, timeout_ms < 0 ? -1 : RETRY_MS) < 0)
            return molt_error_errno(err, "vchan: wait");
    }
    return 0;
}

int molt_vchan_connect(uint32_t domid, const char *path, int timeout_ms, struct molt_chan **ret, struct molt_error **err)
{
    int64_t since = molt_mono_ms();
    for (;;) {
        struct libxenvchan *ctrl = libxenvchan_client_init(NULL, (int)domid, path);
        if (ctrl) {
            *ret = wrap(ctrl);
            return 0;
        }
        if (molt_mono_ms() - since >= timeout_ms)
            return molt_error_errno(err, "vchan: connect to domain %u at %s", domid, path);
        molt_sleep_ms(RETRY_MS);
    }
}
