/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "merge/fileset.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/debversion.h"

struct item {
    const char *name, *version;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct item *)a)->name, ((const struct item *)b)->name);
}

static struct item *sorted(const struct molt_json *packages, size_t *ret_n)
{
    size_t size = molt_json_type(packages) == MOLT_JSON_OBJECT ? molt_json_size(packages) : 0, n = 0;
    struct item *v = molt_xcalloc(size + 1, sizeof(*v));

    for (size_t i = 0; i < size; i++) {
        const char *version = molt_json_str(molt_json_at(packages, i));

        if (version)
            v[n++] = (struct item){molt_json_key_at(packages, i), version};
    }
    qsort(v, n, sizeof(*v), by_name);
    *ret_n = n;
    return v;
}

enum { EQUAL, NEWER, OLDER, GONE, ADDED, ORDERS };
static const char *const order_names[ORDERS] = {"equal", "newer", "older", "gone", "added"};

static void note(struct molt_json *list, size_t *omitted, int order, const struct item *from, const struct item *to)
{
    struct molt_json *o;

    if (order == EQUAL)
        return;
    if (molt_json_size(list) >= MOLT_FILESET_LIST) {
        ++*omitted;
        return;
    }
    o = molt_json_object();
    molt_json_set_string(o, "package", from ? from->name : to->name);
    if (from)
        molt_json_set_string(o, "from", from->version);
    if (to)
        molt_json_set_string(o, "to", to->version);
    molt_json_set_string(o, "order", order_names[order]);
    molt_json_append(list, o);
}

struct molt_json *molt_fileset_compare(const struct molt_json *from, const struct molt_json *to)
{
    struct molt_json *v = molt_json_object(), *list = molt_json_array();
    size_t count[ORDERS] = {0}, omitted = 0, n, m, i = 0, k = 0;
    CLEANUP_FREE struct item *a = sorted(from, &n), *b = sorted(to, &m);

    while (i < n || k < m) {
        int c = i == n ? 1 : k == m ? -1 : strcmp(a[i].name, b[k].name), order;

        if (c == 0) {
            int d = molt_deb_version_compare(b[k].version, a[i].version);

            order = d > 0 ? NEWER : d < 0 ? OLDER : EQUAL;
        } else {
            order = c < 0 ? GONE : ADDED;
        }
        note(list, &omitted, order, c <= 0 ? &a[i] : NULL, c >= 0 ? &b[k] : NULL);
        count[order]++;
        i += c <= 0;
        k += c >= 0;
    }
    molt_json_set_string(v, "level", count[NEWER] && count[OLDER] ? "mixed" : count[NEWER] ? "newer" : count[OLDER] ? "older" : "equal");
    for (int o = 0; o < ORDERS; o++)
        molt_json_set_int(v, order_names[o], (int64_t)count[o]);
    molt_json_set(v, "list", list);
    molt_json_set_int(v, "omitted", (int64_t)omitted);
    return v;
}
