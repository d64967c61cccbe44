/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What dpkg's database says: which packages are installed, which files are conffiles, which package owns a path. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/fileset.h"
#include "merge/packages.h"

#define INFO_DIR   "var/lib/dpkg/info"
#define LIST_MAX   (32u << 20) /* bytes of one package's list of files */
#define LISTS_MAX  100000      /* packages */

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

/* ---- conffiles ---- */

void molt_dpkg_versions(const char *status_text, const char *const *names, size_t n, char **ret)
{
    struct packages l = parse(status_text);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(names[i]);
        ret[i] = NULL;
        for (size_t k = 0; k < l.n && !ret[i]; k++)
            if (strncmp(l.v[k].name, names[i], len) == 0 && l.v[k].name[len] == ':')
                ret[i] = molt_xstrdup(l.v[k].version);
    }
    packages_free(&l);
}

struct molt_json *molt_fileset_packages(const char *status_text)
{
    struct packages l = parse(status_text);
    struct molt_json *v = molt_json_object();
    for (size_t i = 0; i < l.n; i++)
        molt_json_set_string(v, l.v[i].name, l.v[i].version);
    packages_free(&l);
    return v;
}

void molt_conffiles_clear(struct molt_conffiles *c)
{
    for (size_t i = 0; i < c->n; i++) {
        free(c->v[i].path);
        free(c->v[i].package);
    }
    free(c->v);
    *c = (struct molt_conffiles){0};
}

/* " /etc/name 0123...cdef" with " obsolete" or " remove-on-upgrade" behind it; the name may hold blanks. */
static void add_conffile(struct molt_conffiles *c, const char *line, size_t n, const char *package)
{
    static const char *const marks[] = {" obsolete", " remove-on-upgrade"};
    for (size_t i = 0; i < 2; i++) {
        size_t m = strlen(marks[i]);
        if (n > m && strncmp(line + n - m, marks[i], m) == 0)
            n -= m;
    }
    const char *hash = memrchr(line, ' ', n);
    if (!hash || hash - line < 3 || line[0] != ' ' || line[1] != '/' ||
        !molt_path_valid(line + 2, (size_t)(hash - line) - 2, false))
        return;
    MOLT_GROW(c->v, c->n, c->cap);
    c->v[c->n++] = (struct molt_conffile){molt_xstrndup(line + 2, (size_t)(hash - line) - 2), molt_xstrdup(package)};
}

void molt_dpkg_conffiles(const char *text, struct molt_conffiles *ret)
{
    CLEANUP_FREE char *package = NULL;
    bool inside = false;
    for (const char *l = text; *l;) {
        size_t n = strcspn(l, "\n");
        char *name = field(l, "Package:");
        if (n == 0) {
            free(package);
            package = NULL;
        }
        if (name) {
            free(package);
            package = name;
        }
        if (inside && *l == ' ' && package)
            add_conffile(ret, l, n, package);
        else
            inside = strncmp(l, "Conffiles:", 10) == 0;
        l += n + (l[n] == '\n');
    }
}

/* ---- owners ---- */

struct wanted {
    const char *path;
    size_t index;
};

static int by_wanted(const void *a, const void *b)
{
    return strcmp(((const struct wanted *)a)->path, ((const struct wanted *)b)->path);
}

struct owners {
    struct wanted *v;
    size_t n;
    char **ret;
};

static void found(struct owners *o, const char *path, const char *package)
{
    const struct wanted key = {.path = path};
    struct wanted *w = o->n ? bsearch(&key, o->v, o->n, sizeof(*o->v), by_wanted) : NULL;
    if (w && !o->ret[w->index])
        o->ret[w->index] = molt_xstrdup(package);
}

/* With a merged /usr, packages may still say /lib/x for what is /usr/lib/x. */
static void line_of_list(struct owners *o, const char *path, const char *package)
{
    static const char *const merged[] = {"lib", "bin/", "sbin/"};
    found(o, path, package);
    for (size_t i = 0; i < 3; i++) {
        if (strncmp(path, merged[i], strlen(merged[i])) != 0)
            continue;
        CLEANUP_FREE char *usr = molt_xasprintf("usr/%s", path);
        found(o, usr, package);
        return;
    }
}

static void read_list(struct owners *o, int dirfd, const char *name, size_t stem)
{
    CLEANUP_FREE char *text = NULL, *package = molt_xstrndup(name, stem);
    if (molt_read_file_at(dirfd, name, LIST_MAX, &text, NULL, NULL) < 0)
        return;
    package[strcspn(package, ":")] = '\0'; /* NAME:ARCHITECTURE */
    char *save = NULL;
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
        if (l[0] == '/' && l[1] && l[1] != '.')
            line_of_list(o, l + 1, package);
}

void molt_dpkg_owners(int rootfd, const char *const *paths, size_t n, char **ret)
{
    int fd = molt_open_beneath(rootfd, INFO_DIR, O_RDONLY | O_DIRECTORY);
    CLEANUP_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct owners o = {molt_xcalloc(n + 1, sizeof(*o.v)), 0, ret};
    if (!d && fd >= 0)
        close(fd);
    for (size_t i = 0; i < n; i++)
        if (!ret[i])
            o.v[o.n++] = (struct wanted){paths[i], i};
    qsort(o.v, o.n, sizeof(*o.v), by_wanted);
    const struct dirent *e;
    for (int i = 0; d && o.n && i < LISTS_MAX && (e = readdir(d)); i++) {
        size_t len = strlen(e->d_name);
        if (len > 5 && strcmp(e->d_name + len - 5, ".list") == 0)
            read_list(&o, fd, e->d_name, len - 5);
    }
    free(o.v);
}
