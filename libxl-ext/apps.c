/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the agents of running domains say of their services: xenmolt-app(8). Nothing is changed. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "context.h"
#include "domain.h"
#include "guest.h"
#include "proto/resolve.h"
#include "xenmolt.h"

#define ASK_MS (5 * 60 * 1000)

static int connect_to(struct xenmolt *x, const char *name, struct molt_chan **ret, struct molt_error **err)
{
    struct molt_domain d;
    int r = molt_context_need_xen(x, err);
    if (r == 0)
        r = molt_domain_find(x, name, &d, err);
    if (r == 0)
        r = molt_guest_connect(x, d.domid, ret, NULL, err);
    return r < 0 ? molt_error_prefix(err, "%s", name) : 0;
}

int xenmolt_app_overlays(xenmolt *x, const char *domain, char **ret_json, xenmolt_error **err)
{
    CLEANUP_CHAN struct molt_chan *c = NULL;
    CLEANUP_JSON struct molt_json *answer = NULL, *v = NULL;
    const struct molt_call call = {.timeout_ms = ASK_MS};
    int r = connect_to(x, domain, &c, err);
    if (r == 0)
        r = molt_call(c, "overlays", NULL, &call, &answer, err);
    if (r < 0)
        return r;
    v = molt_json_clean(answer, NULL);
    molt_json_set_string(v, "domain", domain);
    *ret_json = molt_json_print(v, true);
    return 0;
}
