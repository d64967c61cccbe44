/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/residue.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/carry.h"
#include "procmig/procfs.h"
#include "procmig/sockfiles.h"

static void note(struct molt__residue *rs, const struct molt_json *o, const char *key, bool carried)
{
    CLEANUP_FREE char *path = molt__path_decode(molt_json_get_string(o, key));

    if (!path || (carried && !molt__carry_wanted(path)) || molt_exists(path))
        return;
    MOLT_GROW(rs->v, rs->n, rs->cap);
    rs->v[rs->n++] = MOLT_STEAL_PTR(path);
}

void molt__residue_note(struct molt__residue *rs, const struct molt_json *meta)
{
    const struct molt_json *carry = molt_json_get(meta, "carry"), *socks = molt_json_get(meta, "sockfiles");

    for (size_t i = 0; i < molt_json_size(carry) && i < MOLT__CARRY_MAX; i++) {
        const struct molt_json *o = molt_json_at(carry, i), *dirs = molt_json_get(o, "dirs");

        for (size_t k = 0; k < molt_json_size(dirs); k++)
            note(rs, molt_json_at(dirs, k), "path", true);
        note(rs, o, "path", true);
    }
    for (size_t i = 0; i < molt_json_size(socks) && i < MOLT__SOCKFILES_MAX; i++) {
        note(rs, molt_json_at(socks, i), "name", false);
        note(rs, molt_json_at(socks, i), "path", false);
    }
}

int molt__residue_save(const struct molt__residue *rs, const char *file, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *list = molt_json_array();
    CLEANUP_FREE char *text = NULL;

    for (size_t i = 0; i < rs->n; i++) {
        CLEANUP_FREE char *coded = molt__path_encode(rs->v[i]);
        struct molt_json *o = molt_json_object();

        molt_json_set_string(o, "path", coded);
        molt_json_append(list, o);
    }
    text = molt_json_print(list, false);
    return molt_write_file(file, text, strlen(text), 0600, err);
}

int molt__residue_load(struct molt__residue *rs, const char *file, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *list = NULL;
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int r;

    if (!molt_exists(file))
        return 0;
    r = molt_read_file(file, 16u << 20, &text, &len, err);
    if (r == 0)
        r = molt_json_parse(text, len, &list, err);
    for (size_t i = 0; r == 0 && i < molt_json_size(list); i++) {
        char *path = molt__path_decode(molt_json_get_string(molt_json_at(list, i), "path"));

        if (!path)
            return molt_error_set(err, MOLT_E_PROTOCOL, "%s is malformed", file);
        MOLT_GROW(rs->v, rs->n, rs->cap);
        rs->v[rs->n++] = path;
    }
    return r;
}

void molt__residue_clear(struct molt__residue *rs)
{
    for (size_t i = rs->n; i-- > 0;)
        if (unlink(rs->v[i]) < 0 && errno == EISDIR)
            (void)rmdir(rs->v[i]);
    molt__residue_free(rs);
}

void molt__residue_free(struct molt__residue *rs)
{
    for (size_t i = 0; i < rs->n; i++)
        free(rs->v[i]);
    free(rs->v);
    *rs = (struct molt__residue){NULL, 0, 0};
}
