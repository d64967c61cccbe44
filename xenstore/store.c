/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenstore/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"

#define MAX_RETRIES 100

int molt_store_open(struct molt_store *s, struct molt_error **err)
{
    s->xs = xs_open(0);
    return s->xs ? 0 : molt_error_errno(err, "xenstore: not reachable (is this a Xen dom0, and are you root?)");
}

void molt_store_close(struct molt_store *s)
{
    if (s->xs)
        xs_close(s->xs);
    s->xs = NULL;
}

char *molt_store_read(struct molt_store *s, const char *path)
{
    unsigned len;
    return xs_read(s->xs, XBT_NULL, path, &len);
}

char *molt_store_readf(struct molt_store *s, const char *fmt, ...)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    molt_strbuf_vaddf(&b, fmt, ap);
    va_end(ap);
    return molt_store_read(s, molt_strbuf_str(&b));
}

int molt_store_write(struct molt_store *s, const char *path, const char *value, struct molt_error **err)
{
    if (!xs_write(s->xs, XBT_NULL, path, value, (unsigned)strlen(value)))
        return molt_error_errno(err, "xenstore: write %s", path);
    return 0;
}

int molt_store_remove(struct molt_store *s, const char *path, struct molt_error **err)
{
    if (!xs_rm(s->xs, XBT_NULL, path) && errno != ENOENT)
        return molt_error_errno(err, "xenstore: remove %s", path);
    return 0;
}

int molt_store_prepare(struct molt_store *s, int (*fn)(struct molt_store *s, xs_transaction_t t, void *ctx, struct molt_error **err), void *ctx,
                       xs_transaction_t *ret, struct molt_error **err)
{
    xs_transaction_t t = xs_transaction_start(s->xs);
    *ret = XBT_NULL;
    if (t == XBT_NULL)
        return molt_error_errno(err, "xenstore: begin a transaction");
    int r = fn(s, t, ctx, err);
    if (r < 0)
        xs_transaction_end(s->xs, t, true);
    else
        *ret = t;
    return r;
}

bool molt_store_end(struct molt_store *s, xs_transaction_t *t, bool commit)
{
    bool done = *t != XBT_NULL && xs_transaction_end(s->xs, *t, !commit);
    *t = XBT_NULL;
    return done;
}

/* The retry rule of libxl__xs_transaction_commit (tools/libs/light/libxl_xshelp.c): EAGAIN means another writer came
 * between; everything read must be read again. */
int molt_store_transaction(struct molt_store *s, int (*fn)(struct molt_store *s, xs_transaction_t t, void *ctx, struct molt_error **err),
                           void *ctx, struct molt_error **err)
{
    for (int i = 0; i < MAX_RETRIES; i++) {
        xs_transaction_t t;
        int r = molt_store_prepare(s, fn, ctx, &t, err);
        if (r < 0)
            return r;
        if (xs_transaction_end(s->xs, t, false))
            return 0;
        if (errno != EAGAIN)
            return molt_error_errno(err, "xenstore: commit");
    }
    return molt_error_set(err, MOLT_E_INTERNAL, "xenstore: transaction did not commit in %d tries", MAX_RETRIES);
}
