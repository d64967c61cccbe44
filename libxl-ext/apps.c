/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the agents of running domains say of their services: xenmolt-app(8). Nothing is changed. */
#include <stdlib.h>
#include <string.h>

#include "apps.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "context.h"
#include "domain.h"
#include "guest.h"
#include "proto/resolve.h"
#include "xenmolt.h"

#define ASK_MS (5 * 60 * 1000)
#define ANSWER_MAX (16u << 20) /* bytes of what an agent tells of its system */

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

/* ---- app-compare ---- */

struct passed { /* one agent's words, opaque here, on their way to the other */
    struct molt_strbuf b;
    size_t off;
};

static int take(void *ctx, const void *buf, size_t len, struct molt_error **err)
{
    struct passed *p = ctx;
    if (p->b.len + len > ANSWER_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "the guest tells more of its system than it may");
    molt_strbuf_add(&p->b, buf, len);
    return 0;
}

static long give(void *ctx, void *buf, size_t len, struct molt_error **err)
{
    struct passed *p = ctx;
    size_t n = p->b.len - p->off < len ? p->b.len - p->off : len;
    (void)err;
    memcpy(buf, p->b.s + p->off, n);
    p->off += n;
    return (long)n;
}

/* Both directions of one call go through the same context. */
struct compared {
    struct passed up, down;
};

static int take_down(void *ctx, const void *buf, size_t len, struct molt_error **err) { return take(&((struct compared *)ctx)->down, buf, len, err); }
static long give_up(void *ctx, void *buf, size_t len, struct molt_error **err) { return give(&((struct compared *)ctx)->up, buf, len, err); }

static int compare(struct molt_chan *from, struct molt_chan *to, const char *workload, enum molt_app_depth depth, struct compared *c, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    const struct molt_call ask = {.data = take, .ctx = &c->up, .timeout_ms = ASK_MS};
    const struct molt_call pass = {.data = take_down, .upload = give_up, .ctx = c, .timeout_ms = ASK_MS};
    if (workload)
        molt_json_set_string(args, "workload", workload);
    if (depth == MOLT_APP_PACKAGES)
        molt_json_set_bool(args, "no_units", true);
    if (depth == MOLT_APP_USERS)
        molt_json_set_bool(args, "no_files", true);
    int r = molt_call(from, "fileset", args, &ask, NULL, err);
    return r < 0 ? r : molt_call(to, "fileset-compare", NULL, &pass, NULL, err);
}

static int parse_answer(const struct passed *p, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = molt_json_parse(p->b.len ? p->b.s : "", p->b.len, &v, err);
    if (r == 0 && molt_json_type(v) != MOLT_JSON_OBJECT)
        r = molt_error_set(err, MOLT_E_PROTOCOL, "the guest's answer is no object");
    if (r == 0)
        *ret = molt_json_clean(v, NULL);
    return r;
}

int molt_app_compare(struct molt_chan *from, struct molt_chan *to, const char *workload, enum molt_app_depth depth, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *there = NULL, *v = NULL;
    struct compared c = {0};
    int r = compare(from, to, workload, depth, &c, err);
    if (r == 0)
        r = parse_answer(&c.up, &there, err);
    if (r == 0)
        r = parse_answer(&c.down, &v, err);
    molt_strbuf_free(&c.up.b);
    molt_strbuf_free(&c.down.b);
    if (r < 0)
        return r;
    molt_json_set(v, "os_from", molt_json_copy(molt_json_get(there, "os")));
    molt_json_set(v, "os_to", molt_json_copy(molt_json_get(v, "os")));
    molt_json_set(v, "os", NULL);
    *ret = MOLT_STEAL_PTR(v);
    return 0;
}

int xenmolt_app_compare(xenmolt *x, const char *from, const char *to, const char *workload, char **ret_json, xenmolt_error **err)
{
    CLEANUP_CHAN struct molt_chan *a = NULL, *b = NULL;
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = connect_to(x, from, &a, err);
    if (r == 0)
        r = connect_to(x, to, &b, err);
    if (r == 0)
        r = molt_app_compare(a, b, workload, MOLT_APP_FILES, &v, err);
    if (r < 0)
        return r;
    molt_json_set_string(v, "from", from);
    molt_json_set_string(v, "to", to);
    *ret_json = molt_json_print(v, true);
    return 0;
}
