/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host's word that something is about to happen, or has happened, for the guest's hooks. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/hooks.h"
#include "agent/units.h"
#include "base/cleanup.h"
#include "base/strbuf.h"

static bool is_event(const char *event)
{
    static const char *const known[] = {"before-freeze", "after-thaw", "on-error"};
    for (size_t i = 0; event && i < sizeof(known) / sizeof(known[0]); i++)
        if (!strcmp(event, known[i]))
            return true;
    return false;
}

/* {"event", "operation", "domain", "units": [{"unit", "main_pid"}]} -> {"hooks": [...]} as hooks_run tells them; those of a failure are in the
 * answer as well, with "failed": why, since an error's answer has no room for them. */
int h_hooks(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *event = molt_json_get_string(rq->args, "event"), *op = molt_json_get_string(rq->args, "operation"), *domain = molt_json_get_string(rq->args, "domain");
    CLEANUP_STRBUF struct molt_strbuf units = MOLT_STRBUF_INIT, pids = MOLT_STRBUF_INIT;
    CLEANUP_ERROR struct molt_error *why = NULL;
    const struct molt_json *moving = molt_json_get(rq->args, "units");
    if (!is_event(event) || !op || !domain)
        return molt_error_set(err, MOLT_E_PROTOCOL, "hooks: bad arguments");
    for (size_t i = 0; i < molt_json_size(moving) && i < MOLT_MAX_UNITS; i++) {
        const char *unit = molt_json_get_string(molt_json_at(moving, i), "unit");
        molt_strbuf_addf(&units, "%s%s", i ? " " : "", unit ? unit : "?");
        molt_strbuf_addf(&pids, "%s%" PRId64, i ? " " : "", molt_json_get_int(molt_json_at(moving, i), "main_pid", 0));
    }
    CLEANUP_FREE char *e_event = molt_xasprintf("XENMOLT_EVENT=%s", event), *e_op = molt_xasprintf("XENMOLT_OPERATION=%s", op),
                      *e_domain = molt_xasprintf("XENMOLT_DOMAIN=%s", domain), *e_units = molt_xasprintf("XENMOLT_UNITS=%s", molt_strbuf_str(&units)),
                      *e_pids = molt_xasprintf("XENMOLT_PIDS=%s", molt_strbuf_str(&pids));
    char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", e_event, e_op, e_domain, e_units, e_pids, NULL};
    struct molt_json *list = molt_json_array();
    molt_json_set(reply, "hooks", list);
    if (hooks_run(MOLT_HOOKS_DIR, event, env, MOLT_HOOK_S, !strcmp(event, "before-freeze"), list, &why) < 0) {
        molt_warn(s->log, "%s", molt_error_text(why));
        molt_json_set_string(reply, "failed", molt_error_text(why));
    }
    return 0;
}
