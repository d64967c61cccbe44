/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenstore/identity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"

static char *epoch_path(const char *op)
{
    return molt_xasprintf("/xenmolt/epoch/%s", op);
}

int molt_identity_begin(struct molt_store *s, const struct molt_identity *id, struct molt_error **err)
{
    CLEANUP_FREE char *path = epoch_path(id->op);
    return molt_store_write(s, path, "active", err);
}

static int expect_name(struct molt_store *s, xs_transaction_t t, uint32_t domid, const char *want, struct molt_error **err)
{
    unsigned len;
    CLEANUP_FREE char *path = molt_xasprintf("/local/domain/%u/name", domid);
    CLEANUP_FREE char *have = xs_read(s->xs, t, path, &len);
    if (!molt_streq(have, want))
        return molt_error_set(err, MOLT_E_STATE, "domain %u is named %s, not %s: somebody else renamed or replaced it", domid, have ? have : "(gone)", want);
    return 0;
}

static int put(struct molt_store *s, xs_transaction_t t, struct molt_error **err, const char *value, const char *fmt, ...)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    molt_strbuf_vaddf(&b, fmt, ap);
    va_end(ap);
    bool ok = value ? xs_write(s->xs, t, b.s, value, (unsigned)strlen(value)) : (xs_rm(s->xs, t, b.s), true);
    return ok ? 0 : molt_error_errno(err, "xenstore: write %s", b.s);
}

static int rename_in(struct molt_store *s, xs_transaction_t t, uint32_t domid, const char *uuid, const char *name, struct molt_error **err)
{
    int r = put(s, t, err, name, "/local/domain/%u/name", domid);
    return r < 0 ? r : put(s, t, err, name, "/vm/%s/name", uuid);
}

/* The clone has it from here on, whatever they are named. */
static int give(struct molt_store *s, xs_transaction_t t, const struct molt_identity *id, struct molt_error **err)
{
    int r = put(s, t, err, id->op, "/local/domain/%u/xenmolt/replaced", id->active);
    if (r == 0)
        r = put(s, t, err, id->op, "/local/domain/%u/xenmolt/owner", id->clone);
    return r < 0 ? r : put(s, t, err, "clone", "/xenmolt/epoch/%s", id->op);
}

static int do_pivot(struct molt_store *s, xs_transaction_t t, void *ctx, struct molt_error **err)
{
    const struct molt_identity *id = ctx;
    int r = expect_name(s, t, id->active, id->name, err);
    if (r == 0)
        r = expect_name(s, t, id->clone, id->clone_name, err);
    if (r == 0)
        r = rename_in(s, t, id->active, id->active_uuid, id->replaced_name, err);
    if (r == 0)
        r = rename_in(s, t, id->clone, id->clone_uuid, id->name, err);
    return r < 0 ? r : give(s, t, id, err);
}

int molt_identity_prepare_pivot(struct molt_store *s, const struct molt_identity *id, xs_transaction_t *ret, struct molt_error **err)
{
    return molt_store_prepare(s, do_pivot, (void *)id, ret, err);
}

int molt_identity_pivot(struct molt_store *s, const struct molt_identity *id, xs_transaction_t *prepared, struct molt_error **err)
{
    return molt_store_end(s, prepared, true) ? 0 : molt_store_transaction(s, do_pivot, (void *)id, err);
}

/* Neither domain says any more that it gave, or has taken over, anything. */
static int forget(struct molt_store *s, xs_transaction_t t, const struct molt_identity *id, struct molt_error **err)
{
    int r = put(s, t, err, NULL, "/local/domain/%u/xenmolt/replaced", id->active);
    return r < 0 ? r : put(s, t, err, NULL, "/local/domain/%u/xenmolt/owner", id->clone);
}

static int do_return(struct molt_store *s, xs_transaction_t t, void *ctx, struct molt_error **err)
{
    const struct molt_identity *id = ctx;
    int r = expect_name(s, t, id->active, id->replaced_name, err);
    if (r == 0)
        r = expect_name(s, t, id->clone, id->name, err);
    if (r == 0)
        r = rename_in(s, t, id->clone, id->clone_uuid, id->clone_name, err);
    if (r == 0)
        r = rename_in(s, t, id->active, id->active_uuid, id->name, err);
    if (r == 0)
        r = forget(s, t, id, err);
    return r < 0 ? r : put(s, t, err, "active", "/xenmolt/epoch/%s", id->op);
}

int molt_identity_return(struct molt_store *s, const struct molt_identity *id, struct molt_error **err)
{
    return molt_store_transaction(s, do_return, (void *)id, err);
}

static int do_move(struct molt_store *s, xs_transaction_t t, void *ctx, struct molt_error **err)
{
    const struct molt_identity *id = ctx;
    int r = expect_name(s, t, id->active, id->name, err);
    if (r == 0)
        r = expect_name(s, t, id->clone, id->clone_name, err);
    return r < 0 ? r : give(s, t, id, err);
}

int molt_identity_prepare_move(struct molt_store *s, const struct molt_identity *id, xs_transaction_t *ret, struct molt_error **err)
{
    return molt_store_prepare(s, do_move, (void *)id, ret, err);
}

int molt_identity_move(struct molt_store *s, const struct molt_identity *id, xs_transaction_t *prepared, struct molt_error **err)
{
    return molt_store_end(s, prepared, true) ? 0 : molt_store_transaction(s, do_move, (void *)id, err);
}

static int do_moved(struct molt_store *s, xs_transaction_t t, void *ctx, struct molt_error **err)
{
    return forget(s, t, ctx, err);
}

int molt_identity_moved(struct molt_store *s, const struct molt_identity *id, struct molt_error **err)
{
    int r = molt_store_transaction(s, do_moved, (void *)id, err);
    return r < 0 ? r : molt_identity_end(s, id, err);
}

int molt_identity_owner(struct molt_store *s, const char *op, struct molt_error **err)
{
    CLEANUP_FREE char *path = epoch_path(op);
    CLEANUP_FREE char *v = molt_store_read(s, path);
    if (!v && errno != ENOENT)
        return molt_error_errno(err, "xenstore: read %s", path);
    if (!v)
        return 0; /* never begun, or the host rebooted, which ends xenstore and all domains with it */
    if (!strcmp(v, "active"))
        return 0;
    if (!strcmp(v, "clone"))
        return 1;
    return molt_error_set(err, MOLT_E_STATE, "xenstore: %s is neither active nor clone", path);
}

int molt_identity_end(struct molt_store *s, const struct molt_identity *id, struct molt_error **err)
{
    CLEANUP_FREE char *path = epoch_path(id->op);
    int r = molt_store_remove(s, path, err);
    /* Nothing of ours behind: the directory goes with the last operation. */
    unsigned n = 0;
    CLEANUP_FREE char **left = xs_directory(s->xs, XBT_NULL, "/xenmolt/epoch", &n);
    if (r == 0 && left && n == 0)
        r = molt_store_remove(s, "/xenmolt", err);
    return r;
}
