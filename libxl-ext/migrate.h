/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* app-migrate: a service moves from one running guest to another; on the parts of guest-upgrade (upgrade.h), where the one it comes from is the
 * active, and the one it goes to the clone. */
#ifndef MOLT_LIBXL_MIGRATE_H
#define MOLT_LIBXL_MIGRATE_H

#include "upgrade.h"

/* Everything that can be known before anything is changed. *ret_params: the operation's. *ret_result: {"ok", "checks" [{name, ok, code, detail,
 * remedy}], "compare"}; also on failure. */
int molt_migrate_preflight(struct xenmolt *x, const xenmolt_migrate_params *p, struct molt_json **ret_result, struct molt_json **ret_params, struct molt_error **err);

/* migrate_hold.c: each does nothing where the service has no address of its own, or where its packets cannot be held (which is a warning). */
int mig_hold_prepare(struct molt_op *op, struct molt_error **err); /* while the service serves */
int mig_hold_guard(struct molt_op *op, struct molt_error **err);   /* from here on the death of this program gives back what is held (guard.h) */
int mig_hold_requests(struct molt_op *op, struct molt_error **err); /* before engage: hold.h, molt_hold_requests */
int mig_hold_engage(struct molt_op *op, struct molt_error **err);
int mig_hold_release(struct molt_op *op, struct molt_error **err); /* to the other guest */
int mig_hold_return(struct molt_op *op, struct molt_error **err);  /* to the first; ours is gone, the guard too */
int mig_hold_remove(struct molt_op *op, struct molt_error **err);  /* when the neighbours know the new place */

#endif
