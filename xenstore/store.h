/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Xenstore: small reads and writes, checked transactions, and the keys that are ours. */
#ifndef MOLT_XENSTORE_STORE_H
#define MOLT_XENSTORE_STORE_H

#include <stdint.h>
#include <xenstore.h>

#include "base/error.h"

/* Ours, all below these:
 *   /local/domain/<id>/data/xenmolt/{version,proto,pid,ctl/}   written by the agent (guest-writable: not trusted)
 *   /local/domain/<id>/xenmolt/replaced = <op>                 written by dom0 in the pivot: this domain gave its name away
 *   /local/domain/<id>/xenmolt/owner = <op>                    written by dom0 in the pivot: this domain took over
 *   /xenmolt/epoch/<op> = "active" | "clone"                   which side owns the guest
 */
struct molt_store {
    struct xs_handle *xs;
};
int molt_store_open(struct molt_store *s, struct molt_error **err);
void molt_store_close(struct molt_store *s);

/* malloc'd text, NULL when the key is not there (or, being a guest's, longer than max). */
char *molt_store_read(struct molt_store *s, const char *path);
__attribute__((format(printf, 2, 3))) char *molt_store_readf(struct molt_store *s, const char *fmt, ...);
int molt_store_write(struct molt_store *s, const char *path, const char *value, struct molt_error **err);
int molt_store_remove(struct molt_store *s, const char *path, struct molt_error **err); /* missing: success */

/* Runs fn in a transaction until it commits; fn returning < 0 ends it without effect. */
int molt_store_transaction(struct molt_store *s, int (*fn)(struct molt_store *s, xs_transaction_t t, void *ctx, struct molt_error **err),
                           void *ctx, struct molt_error **err);
/* The same in two halves: fn in a transaction that nobody sees anything of yet, *ret (XBT_NULL on failure); then it is committed, or not. False: it
 * did not happen, because another writer came between, say, or there was none. *t is XBT_NULL then in any case. */
int molt_store_prepare(struct molt_store *s, int (*fn)(struct molt_store *s, xs_transaction_t t, void *ctx, struct molt_error **err), void *ctx,
                       xs_transaction_t *ret, struct molt_error **err);
bool molt_store_end(struct molt_store *s, xs_transaction_t *t, bool commit);

#endif
