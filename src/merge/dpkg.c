/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which packages two dpkg status files list as installed. */
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "merge/plan.h"

struct package {
    char *name; /* name:arch */
    char *version;
};

struct packages {
    struct package *v;
    size_t n, cap;
};

static char *field(const char *line, const char *name)
{
    size_t n = strlen(name);
    if (strncmp(line, name, n) != 0)
        return NULL;
    line += n + strspn(line + n, " \t");
    return molt_xstrndup(line, strcspn(line, "\n"));
}

static void add_stanza(struct packages *l, char *name, char *arch, char *version, const char *status)
{
    /* "want flag status"; what is half-installed differs from installed, what has only config files is not
     * there */
    const char *state = status ? strrchr(status, ' ') : NULL;
    if (!name || !version || !state || strcmp(state, " not-installed") == 0 ||
        strcmp(state, " config-files") == 0)
        return;
    MOLT_GROW(l->v, l->n, l->cap);
    l->v[l->n++] = (struct package){
        .name = molt_xasprintf("%s:%s", name, arch ? arch : "all"),
        .version = strcmp(state, " installed") == 0 ? molt_xstrdup(version)
                                                    : molt_xasprintf("%s (%s)", version, state + 1),
    };
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct package *)a)->name, ((const struct package *)b)->name);
}

static struct packages parse(const char *text)
{
    struct packages l = {0};
    while (*text) {
        char *f[4] = {NULL};
        static const char *const names[4] = {"Package:", "Architecture:", "Version:", "Status:"};
        while (*text && *text != '\n') {
            for (int i = 0; i < 4; i++)
                if (!f[i])
                    f[i] = field(text, names[i]);
            text += strcspn(text, "\n");
            text += *text == '\n';
        }
        text += strspn(text, "\n");
        add_stanza(&l, f[0], f[1], f[2], f[3]);
        for (int i = 0; i < 4; i++)
            free(f[i]);
    }
    if (l.n)
        qsort(l.v, l.n, sizeof(*l.v), by_name);
    return l;
}

static void packages_free(struct packages *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->v[i].name);
        free(l->v[i].version);
    }
    free(l->v);
}

size_t molt_dpkg_status_changed(const char *base_text, const char *active_text, char **ret_list)
{
    struct packages b = parse(base_text), a = parse(active_text);
    struct molt_strbuf out = MOLT_STRBUF_INIT;
    size_t n = 0, i = 0, j = 0;
    while (i < b.n || j < a.n) {
        int c = i == b.n ? 1 : j == a.n ? -1 : strcmp(b.v[i].name, a.v[j].name);
        bool differ = c != 0 || strcmp(b.v[i].version, a.v[j].version) != 0;
        if (c < 0)
            molt_strbuf_addf(&out, "-%s %s\n", b.v[i].name, b.v[i].version);
        else if (c > 0)
            molt_strbuf_addf(&out, "+%s %s\n", a.v[j].name, a.v[j].version);
        else if (differ)
            molt_strbuf_addf(&out, "%s %s -> %s\n", a.v[j].name, b.v[i].version, a.v[j].version);
        n += differ;
        i += c <= 0;
        j += c >= 0;
    }
    packages_free(&b);
    packages_free(&a);
    if (ret_list)
        *ret_list = molt_strbuf_steal(&out);
    molt_strbuf_free(&out);
    return n;
}
