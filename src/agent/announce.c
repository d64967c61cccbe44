/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xenstore.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/strbuf.h"

static int put(struct xs_handle *xs, const char *key, const char *value)
{
    CLEANUP_FREE char *path = molt_xasprintf("data/xenmolt/%s", key);
    return xs_write(xs, XBT_NULL, path, value, (unsigned)strlen(value)) ? 0 : -1;
}

int agent_announce(struct molt_error **err)
{
    struct xs_handle *xs = xs_open(0);
    if (!xs)
        return molt_error_errno(err, "xenstore");
    char proto[16], pid[16];
    snprintf(proto, sizeof(proto), "%d", MOLT_PROTO_VERSION);
    snprintf(pid, sizeof(pid), "%d", getpid());
    int r = put(xs, "proto", proto) | put(xs, "pid", pid) | put(xs, "version", PACKAGE_VERSION);
    if (r < 0)
        molt_error_errno(err, "xenstore: data/xenmolt");
    xs_close(xs);
    return r < 0 ? MOLT_E_INTERNAL : 0;
}

static bool key_is_set(const char *path)
{
    struct xs_handle *xs = xs_open(0);
    if (!xs)
        return true; /* not known: kill nothing, resume nothing; op-recover does it by a call */
    unsigned len;
    CLEANUP_FREE char *v = xs_read(xs, XBT_NULL, path, &len);
    bool unknown = !v && errno != ENOENT;
    xs_close(xs);
    return unknown || (v && len > 0);
}

bool agent_was_replaced(void)
{
    return key_is_set("xenmolt/replaced");
}

bool agent_took_over(void)
{
    return key_is_set("xenmolt/owner");
}

void agent_forget(const char *path)
{
    struct xs_handle *xs = xs_open(0);
    if (!xs)
        return;
    xs_rm(xs, XBT_NULL, path);
    xs_close(xs);
}
