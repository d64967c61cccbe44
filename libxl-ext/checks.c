/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "checks.h"

#include "base/cleanup.h"
#include "base/strbuf.h"

void molt_checks_add(struct molt_json *list, const char *name, int code, const struct molt_error *e)
{
    struct molt_json *c = molt_json_object();
    molt_json_set_string(c, "name", name);
    molt_json_set_bool(c, "ok", code == 0);
    molt_json_set_string(c, "code", molt_code_name(code));
    if (code < 0)
        molt_json_set_string(c, "detail", molt_error_text(e));
    molt_json_append(list, c);
}

int molt_checks_idle(struct xenmolt *x, const char *domain, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *list = NULL;
    int r = molt_op_list(x->engine, &list, err);
    for (size_t i = 0; r == 0 && i < molt_json_size(list); i++) {
        const struct molt_json *o = molt_json_at(list, i);
        const char *state = molt_json_get_string(o, "state"), *id = molt_json_get_string(o, "id");
        if (!molt_streq(molt_json_get_string(o, "subject"), domain))
            continue;
        if (!molt_streq(state, "failed") && !molt_streq(state, "aborted") && !molt_streq(state, "done") && !molt_streq(state, "committed") && !molt_streq(state, "rolled-back"))
            return molt_error_set(err, MOLT_E_BUSY, "operation %s on %s is %s; wait for it, or end it: xenmolt op-abort %s, or xenmolt op-recover %s if its command died", id, domain, state, id, id);
    }
    return r;
}
