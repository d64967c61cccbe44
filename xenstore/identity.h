/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who owns the guest: names and the epoch key, changed in one transaction (the pivot), and back (rollback). */
#ifndef MOLT_XENSTORE_IDENTITY_H
#define MOLT_XENSTORE_IDENTITY_H

#include <stdbool.h>

#include "xenstore/store.h"

struct molt_identity {
    const char *op;        /* operation id */
    const char *name;      /* "web1" */
    const char *clone_name;    /* "web1--clone" */
    const char *replaced_name; /* "web1--replaced" */
    uint32_t active, clone;    /* domids */
    const char *active_uuid, *clone_uuid;
};

/* Before anything: the epoch key says "active". */
int molt_identity_begin(struct molt_store *s, const struct molt_identity *id, struct molt_error **err);
/* One transaction: checks that both domains still have the names that we gave or found, then swaps. prepared: all of that but the commit, done by
 * prepare_pivot while the workload was restored (a dozen round trips to xenstored); where it does not hold any more, or was not done (XBT_NULL), it
 * is made anew. */
int molt_identity_pivot(struct molt_store *s, const struct molt_identity *id, xs_transaction_t *prepared, struct molt_error **err);
int molt_identity_prepare_pivot(struct molt_store *s, const struct molt_identity *id, xs_transaction_t *ret, struct molt_error **err);
/* The reverse: active is `name` again, the clone "--clone". */
int molt_identity_return(struct molt_store *s, const struct molt_identity *id, struct molt_error **err);
/* Instead, where both domains stay what they are and a service moves from the one named `name` to the one named `clone_name`: the same keys, no name
 * changes. And their removal, once both have settled. */
int molt_identity_move(struct molt_store *s, const struct molt_identity *id, xs_transaction_t *prepared, struct molt_error **err);
int molt_identity_prepare_move(struct molt_store *s, const struct molt_identity *id, xs_transaction_t *ret, struct molt_error **err);
int molt_identity_moved(struct molt_store *s, const struct molt_identity *id, struct molt_error **err);
/* 1: the clone owns the guest; 0: the active; negative: error. */
int molt_identity_owner(struct molt_store *s, const char *op, struct molt_error **err);
/* Removes our keys of the operation (the names stay). */
int molt_identity_end(struct molt_store *s, const struct molt_identity *id, struct molt_error **err);

#endif
