/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* app-migrate: a service moves from one running guest to another; on the parts of guest-upgrade (upgrade.h), where the one it comes from is the
 * active, and the one it goes to the clone. */
#ifndef MOLT_LIBXL_MIGRATE_H
#define MOLT_LIBXL_MIGRATE_H

#include "upgrade.h"

/* Everything that can be known before anything is changed. *ret_params: the operation's. *ret_result: {"ok", "checks" [{name, ok, code, detail,
 * remedy}], "compare"}; also on failure. */
int molt_migrate_preflight(struct xenmolt *x, const xenmolt_migrate_params *p, struct molt_json **ret_result, struct molt_json **ret_params, struct molt_error **err);

#endif
