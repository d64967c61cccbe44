/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The users and groups that a workload's processes run as, by name and number. A moved process keeps its numbers; in a guest where
 * they are another's, its files would be that other's (credentials(7)). */
#ifndef MOLT_PROCMIG_OWNERS_H
#define MOLT_PROCMIG_OWNERS_H

#include "base/json.h"
#include "procmig/check.h"
#include "procmig/workload.h"

/* *ret: [{"kind": "passwd" | "group", "id": n, "name": text, only where this system has one}], root left out; the caller's. */
int molt_owners_list(const struct molt_workload *w, struct molt_json **ret, struct molt_error **err);
/* What another system said of its own, held against this one: a reason for each name that is missing or has another number here,
 * and for each nameless number that has a name here. owners NULL: the other side does not tell. MOLT_E_PROTOCOL: not such a list. */
int molt_owners_check(const struct molt_json *owners, struct molt_reasons *r, struct molt_error **err);

#endif
