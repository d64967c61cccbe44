/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_LIBXL_APPS_H
#define MOLT_LIBXL_APPS_H

#include "base/json.h"
#include "proto/chan.h"

/* What services of one guest would find on another one's system, by both agents: {"packages", "units", "os_from", "os_to"}, strings made harmless;
 * see xenmolt_app_compare. Owned by the caller. */
enum molt_app_depth {
    MOLT_APP_PACKAGES, /* without a look at any service */
    MOLT_APP_USERS,    /* services, but none of their files: "units" tells whether the other system has their unit and their users */
    MOLT_APP_FILES,
};
int molt_app_compare(struct molt_chan *from, struct molt_chan *to, const char *workload, enum molt_app_depth depth, struct molt_json **ret, struct molt_error **err);

#endif
