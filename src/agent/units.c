/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/units.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"

char *units_images(const char *unit)
{
    return molt_xasprintf(MOLT_AGENT_DUMP "/%s", unit);
}

int units_fresh_images(const struct unit_move *m, struct molt_error **err)
{
    int r = molt_images_mount(MOLT_AGENT_DUMP, err);
    if (r == 0)
        r = molt_remove_tree(m->images, err);
    return r < 0 ? r : molt_mkdir_p(m->images, 0700, err);
}

/* "counter.service", as it was told when it was found: never "counter", never a path. */
static int check_name(const char *name, struct molt_error **err)
{
    CLEANUP_FREE char *full = NULL;
    if (!name)
        return molt_error_set(err, MOLT_E_PROTOCOL, "no unit is named");
    int r = molt_unit_name(name, &full, err);
    return r == 0 && strcmp(full, name) != 0 ? molt_error_set(err, MOLT_E_PROTOCOL, "not a unit's whole name: %s", name) : r;
}

int units_name(struct molt_request *rq, const char **ret, struct molt_error **err)
{
    *ret = molt_json_get_string(rq->args, "unit");
    return check_name(*ret, err);
}

struct unit_move *units_find(const struct session *s, const char *unit)
{
    for (size_t i = 0; i < s->units->n; i++)
        if (!strcmp(s->units->v[i]->unit, unit))
            return s->units->v[i];
    return NULL;
}

static int find_or_make(struct session *s, const char *unit, struct unit_move **ret, struct molt_error **err)
{
    int r = check_name(unit, err);
    if (r < 0 || (*ret = units_find(s, unit)))
        return r;
    if (s->units->n == MOLT_MAX_UNITS)
        return molt_error_set(err, MOLT_E_PROTOCOL, "more than %d units", MOLT_MAX_UNITS);
    struct unit_move *m = molt_xcalloc(1, sizeof(*m));
    m->unit = molt_xstrdup(unit);
    m->images = units_images(unit);
    s->units->v[s->units->n++] = *ret = m;
    return 0;
}

int units_of_request(struct molt_request *rq, struct unit_move **ret, struct molt_error **err)
{
    return find_or_make(rq->ctx, molt_json_get_string(rq->args, "unit"), ret, err);
}

int units_each(struct molt_request *rq, int (*fn)(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err),
               struct molt_error **err)
{
    const struct molt_json *list = molt_json_get(rq->args, "units");
    size_t n = molt_json_type(list) == MOLT_JSON_ARRAY ? molt_json_size(list) : 0;
    if (n == 0 || n > MOLT_MAX_UNITS)
        return molt_error_set(err, MOLT_E_PROTOCOL, "no list of 1 to %d units", MOLT_MAX_UNITS);
    for (size_t i = 0; i < n; i++) {
        const struct molt_json *o = molt_json_at(list, i);
        struct unit_move *m;
        int r = find_or_make(rq->ctx, molt_json_get_string(o, "unit"), &m, err);
        if (r == 0)
            r = fn(rq, m, o, err);
        if (r < 0)
            return r;
    }
    return 0;
}

bool units_frozen(const struct session *s)
{
    for (size_t i = 0; i < s->units->n; i++)
        if (s->units->v[i]->frozen)
            return true;
    return false;
}

void units_free(struct session *s)
{
    for (size_t i = 0; i < s->units->n; i++) {
        struct unit_move *m = s->units->v[i];
        molt_workload_free(m->workload);
        free(m->unit);
        molt_json_free(m->paged);
        free(m->images);
        free(m);
    }
    s->units->n = 0;
}
