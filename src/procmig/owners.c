/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/owners.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "procmig/procfs.h"

#define MAX_OWNERS 64
#define GETENT_MS  20000
#define GETENT_NOT 2 /* getent(1): one or more keys could not be found */

static const char *const kinds[] = {"passwd", "group"};

/* The line of getent(1) for a name or number, from whichever source nsswitch.conf(5) names (the agent, linked statically, cannot
 * ask those itself). *ret_name and *ret_id of it; NULL and -1: there is none. */
static int look_up(const char *kind, const char *key, char **ret_name, int64_t *ret_id, struct molt_error **err)
{
    char *argv[] = {"getent", "--", (char *)kind, (char *)key, NULL};
    struct molt_run_opts opts = {.timeout_ms = GETENT_MS};
    CLEANUP_FREE char *out = NULL;
    int status;
    int r = molt_run(argv, &opts, &status, &out, err);
    *ret_name = NULL;
    *ret_id = -1;
    if (r < 0 || status == GETENT_NOT)
        return r;
    char *save = NULL, *name = out ? strtok_r(out, ":", &save) : NULL, *password = name ? strtok_r(NULL, ":", &save) : NULL,
         *id = password ? strtok_r(NULL, ":\n", &save) : NULL;
    if (status != 0 || !id || !isdigit((unsigned char)*id))
        return molt_error_set(err, MOLT_E_INTERNAL, "getent %s %s said nothing of use (status %d)", kind, key, status);
    *ret_id = strtoll(id, NULL, 10);
    *ret_name = molt_xstrdup(name);
    return 0;
}

static bool listed(const struct molt_json *list, const char *kind, int64_t id)
{
    for (size_t i = 0; i < molt_json_size(list); i++) {
        const struct molt_json *o = molt_json_at(list, i);
        if (molt_streq(molt_json_get_string(o, "kind"), kind) && molt_json_get_int(o, "id", -1) == id)
            return true;
    }
    return false;
}

static int add(struct molt_json *list, const char *kind, int64_t id, struct molt_error **err)
{
    CLEANUP_FREE char *key = molt_xasprintf("%lld", (long long)id), *name = NULL;
    int64_t found;
    if (id <= 0 || listed(list, kind, id))
        return 0;
    if (molt_json_size(list) == MAX_OWNERS)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "the workload runs as more than %d users and groups", MAX_OWNERS);
    int r = look_up(kind, key, &name, &found, err);
    if (r < 0)
        return r;
    struct molt_json *o = molt_json_object();
    molt_json_set_string(o, "kind", kind);
    molt_json_set_int(o, "id", id);
    if (name)
        molt_json_set_string(o, "name", name);
    molt_json_append(list, o);
    return 0;
}

int molt_owners_list(const struct molt_workload *w, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *list = molt_json_array();
    *ret = NULL;
    for (size_t i = 0; i < w->procs; i++) {
        CLEANUP_FREE char *status = NULL;
        if (molt__proc_text(w->proc[i].pid, "status", &status, NULL) < 0)
            continue; /* ended meanwhile */
        int r = add(list, kinds[0], molt__status_num(status, "Uid", 0), err);
        if (r == 0)
            r = add(list, kinds[1], molt__status_num(status, "Gid", 0), err);
        if (r < 0)
            return r;
    }
    *ret = MOLT_STEAL_PTR(list);
    return 0;
}

/* A name that getent takes for a name: no option, no number. */
static bool plain_name(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > 256 || name[0] == '-' || strspn(name, "0123456789") == len)
        return false;
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 127 || *p == ':')
            return false;
    return true;
}

static int check_one(const char *kind, const char *name, int64_t id, struct molt_reasons *r, struct molt_error **err)
{
    const char *word = !strcmp(kind, kinds[0]) ? "user" : "group";
    CLEANUP_FREE char *key = molt_xasprintf("%lld", (long long)id), *here = NULL;
    int64_t number;
    int rc = look_up(kind, name ? name : key, &here, &number, err);
    if (rc < 0)
        return rc;
    if (!name && here)
        molt_reasons_add(r, "number given away", "give that one another number", "it runs as %s %lld, which is %s here", word, (long long)id, here);
    else if (name && !here)
        molt_reasons_add(r, "no such owner here", "make it there, with the same number", "it runs as %s %s (%lld), whom this system does not have", word, name, (long long)id);
    else if (name && number != id)
        molt_reasons_add(r, "another number here", "give it the same number on both systems (usermod -u, groupmod -g)", "it runs as %s %s (%lld), who is %lld here", word, name,
                         (long long)id, (long long)number);
    return 0;
}

int molt_owners_check(const struct molt_json *owners, struct molt_reasons *r, struct molt_error **err)
{
    if (molt_json_size(owners) > MAX_OWNERS)
        return molt_error_set(err, MOLT_E_PROTOCOL, "more than %d users and groups", MAX_OWNERS);
    for (size_t i = 0; i < molt_json_size(owners); i++) {
        const struct molt_json *o = molt_json_at(owners, i);
        const char *kind = molt_json_get_string(o, "kind"), *name = molt_json_get_string(o, "name");
        int64_t id = molt_json_get_int(o, "id", -1);
        if (!kind || (strcmp(kind, kinds[0]) && strcmp(kind, kinds[1])) || (name && !plain_name(name)) || id <= 0 || id >= UINT32_MAX)
            return molt_error_set(err, MOLT_E_PROTOCOL, "not a user or group of a workload");
        int rc = check_one(kind, name, id, r, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
