/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_LIBXL_APPS_H
#define MOLT_LIBXL_APPS_H

#include "base/json.h"
#include "proto/chan.h"

/* What services of one guest would find on another one's system, by both agents: {"packages", "units", "os_from", "os_to"}, strings made harmless;
 * see xenmolt_app_compare. units false: the packages alone, without a look at any service. Owned by the caller. */
int molt_app_compare(struct molt_chan *from, struct molt_chan *to, const char *workload, bool units, struct molt_json **ret, struct molt_error **err);

#endif
