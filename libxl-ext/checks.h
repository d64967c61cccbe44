/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the preflights of all operations share. */
#ifndef MOLT_LIBXL_CHECKS_H
#define MOLT_LIBXL_CHECKS_H

#include "context.h"

/* Appends {"name", "ok", "code", "detail"} of a check that ended with code (0: well) and, if not, e. */
void molt_checks_add(struct molt_json *list, const char *name, int code, const struct molt_error *e);
/* MOLT_E_BUSY: an operation on that domain has not ended. The engine's lock, where there is one, decides again later. */
int molt_checks_idle(struct xenmolt *x, const char *domain, struct molt_error **err);

#endif
