/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "merge/policy.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/manifest.h"

#define POLICY_MAX (1u << 20)

const char molt_policy_debian_text[] =
#include "merge/policy_debian.inc"
    ;

const char molt_policy_rpm_text[] =
#include "merge/policy_rpm.inc"
    ;

/* Rules for exact paths, found by search once they are sorted. */
struct exact {
    struct molt_rule *v;
    size_t n, cap;
};

struct molt_policy {
    struct molt_rule *v;
    size_t n, cap;
    const struct molt_policy *under; /* asked when no decision is made here; NULL: the rules above are */
    struct exact decisions, conffiles;
    const struct molt_policy *of; /* with prefix: nothing but another name for each path */
    char *prefix;
};

static const struct molt_rule last_resort = {
    .class = MOLT_CLASS_DATA,
    .action = MOLT_POLICY_REFUSE,
    .pattern = "**",
    .reason = "no rule of the policy matches",
};

#define MOLT_X(name, text) text,
static const char *const class_names[] = {MOLT_CLASSES(MOLT_X)};
static const char *const action_names[] = {MOLT_POLICY_ACTIONS(MOLT_X)};
#undef MOLT_X
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

const char *molt_class_name(enum molt_class c)
{
    return class_names[c];
}
const char *molt_policy_action_name(enum molt_policy_action a)
{
    return action_names[a];
}

static int lookup(const char *const *names, size_t n, const char *word)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], word) == 0)
            return (int)i;
    return -1;
}

/* Next blank-separated word of *p, NULL at the end. Cuts the text up. */
static char *next_word(char **p)
{
    char *s = *p + strspn(*p, " \t");
    if (!*s)
        return NULL;
    char *end = s + strcspn(s, " \t");
    *p = *end ? end + 1 : end;
    *end = '\0';
    return s;
}

static const char *reason_of(char *line)
{
    /* A '#' starts the reason at the start of the line or behind a blank, so that names may hold it. */
    for (char *p = line; (p = strchr(p, '#')); p++) {
        if (p != line && p[-1] != ' ' && p[-1] != '\t')
            continue;
        *p++ = '\0';
        p += strspn(p, " \t");
        size_t n = strlen(p);
        while (n && (p[n - 1] == ' ' || p[n - 1] == '\t' || p[n - 1] == '\r'))
            p[--n] = '\0';
        return p;
    }
    return "";
}

/* 1: a rule, 0: nothing on the line, negative: error. */
static int parse_line(char *line, struct molt_rule *r, const char *name, struct molt_error **err)
{
    const char *reason = reason_of(line);
    char *class = next_word(&line), *action = next_word(&line), *pattern = next_word(&line);
    if (!class)
        return 0;
    int c = lookup(class_names, COUNT(class_names), class);
    if (c < 0)
        return molt_error_set(err, MOLT_E_USAGE, "%s:%d: unknown class '%s'", name, r->line, class);
    int a = action ? lookup(action_names, COUNT(action_names), action) : -1;
    if (a < 0)
        return molt_error_set(err, MOLT_E_USAGE, "%s:%d: unknown action '%s'", name, r->line,
                              action ? action : "");
    if (!pattern || pattern[0] != '/' || next_word(&line))
        return molt_error_set(err, MOLT_E_USAGE,
                              "%s:%d: want one pattern that begins with '/' (and '# reason')", name, r->line);
    r->class = (enum molt_class)c;
    r->action = (enum molt_policy_action)a;
    r->pattern = molt_xstrdup(pattern + 1);
    r->reason = molt_xstrdup(reason);
    return 1;
}

int molt_policy_parse(const char *text, size_t len, const char *name, struct molt_policy **ret,
                      struct molt_error **err)
{
    CLEANUP_POLICY struct molt_policy *p = molt_xcalloc(1, sizeof(*p));
    if (memchr(text, '\0', len))
        return molt_error_set(err, MOLT_E_USAGE, "%s: not a text", name);
    int line = 0;
    for (size_t off = 0; off < len;) {
        const char *nl = memchr(text + off, '\n', len - off);
        size_t n = nl ? (size_t)(nl - text) - off : len - off;
        CLEANUP_FREE char *copy = molt_xstrndup(text + off, n);
        struct molt_rule r = {.line = ++line};
        int rc = parse_line(copy, &r, name, err);
        if (rc < 0)
            return rc;
        if (rc > 0) {
            MOLT_GROW(p->v, p->n, p->cap);
            p->v[p->n++] = r;
        }
        off += n + 1;
    }
    *ret = MOLT_STEAL_PTR(p);
    return 0;
}

int molt_policy_load(const char *path, struct molt_policy **ret, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int rc = molt_read_file(path, POLICY_MAX, &text, &len, err);
    return rc < 0 ? rc : molt_policy_parse(text, len, path, ret, err);
}

int molt_policy_default(struct molt_policy **ret, struct molt_error **err)
{
    return molt_policy_parse(molt_policy_debian_text, sizeof(molt_policy_debian_text) - 1, "debian.policy",
                             ret, err);
}

static bool below_has(int rootfd, const char *path)
{
    CLEANUP_CLOSE int fd = molt_open_beneath(rootfd, path, O_PATH);
    return fd >= 0;
}

/* The words of ID and ID_LIKE. */
static bool os_is_rpm(int rootfd)
{
    static const char *const like[] = {"rhel", "fedora", "suse", "opensuse", "centos", "sles", "mageia"};
    CLEANUP_CLOSE int etc = molt_open_beneath(rootfd, "etc/os-release", O_RDONLY | O_NONBLOCK);
    CLEANUP_CLOSE int usr = molt_open_beneath(rootfd, "usr/lib/os-release", O_RDONLY | O_NONBLOCK);
    char text[4096];
    ssize_t n = usr >= 0 || etc >= 0 ? molt_pread_all(usr >= 0 ? usr : etc, text, sizeof(text) - 1, 0) : -1;
    if (n <= 0)
        return false;
    text[n] = '\0';
    char *save = NULL;
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        if (strncmp(l, "ID=", 3) != 0 && strncmp(l, "ID_LIKE=", 8) != 0)
            continue;
        char *words = NULL;
        for (char *w = strtok_r(strchr(l, '=') + 1, " \"'", &words); w; w = strtok_r(NULL, " \"'", &words))
            for (size_t i = 0; i < COUNT(like); i++)
                if (strcmp(w, like[i]) == 0)
                    return true;
    }
    return false;
}

int molt_policy_choose(int rootfd, struct molt_policy **ret, const char **ret_name, struct molt_error **err)
{
    bool rpm = !below_has(rootfd, "var/lib/dpkg/status") &&
               (below_has(rootfd, "var/lib/rpm") || below_has(rootfd, "usr/lib/sysimage/rpm") || os_is_rpm(rootfd));
    if (ret_name)
        *ret_name = rpm ? "rpm.policy" : "debian.policy";
    return rpm ? molt_policy_parse(molt_policy_rpm_text, sizeof(molt_policy_rpm_text) - 1, "rpm.policy", ret, err)
               : molt_policy_default(ret, err);
}

static void free_rules(struct molt_rule *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free((char *)v[i].pattern);
        free((char *)v[i].reason);
    }
    free(v);
}

void molt_policy_free(struct molt_policy *p)
{
    if (!p)
        return;
    free_rules(p->v, p->n);
    free_rules(p->decisions.v, p->decisions.n);
    free_rules(p->conffiles.v, p->conffiles.n);
    free(p->prefix);
    free(p);
}

int molt_policy_action_of(const char *name)
{
    return name ? lookup(action_names, COUNT(action_names), name) : -1;
}

/* ---- rules for exact paths ---- */

static int by_pattern(const void *a, const void *b)
{
    return strcmp(((const struct molt_rule *)a)->pattern, ((const struct molt_rule *)b)->pattern);
}

static void exact_add(struct exact *x, const struct molt_rule *r)
{
    MOLT_GROW(x->v, x->n, x->cap);
    x->v[x->n++] = *r;
}

static void exact_sort(struct exact *x)
{
    if (x->n)
        qsort(x->v, x->n, sizeof(*x->v), by_pattern);
}

static const struct molt_rule *exact_find(const struct exact *x, const char *path)
{
    const struct molt_rule key = {.pattern = path};
    return x->n ? bsearch(&key, x->v, x->n, sizeof(*x->v), by_pattern) : NULL;
}

struct molt_policy *molt_policy_decide(const struct molt_policy *under, const struct molt_decision *v, size_t n)
{
    struct molt_policy *p = molt_xcalloc(1, sizeof(*p));
    p->under = under;
    for (size_t i = 0; i < n; i++) {
        /* The class still tells what kind of path it is. */
        const struct molt_rule r = {.class = molt_policy_match(under, v[i].path)->class,
                                    .action = v[i].action,
                                    .pattern = molt_xstrdup(v[i].path),
                                    .reason = molt_xasprintf("decided in the resolve file, line %d", v[i].line),
                                    .line = v[i].line,
                                    .decided = true};
        exact_add(&p->decisions, &r);
    }
    exact_sort(&p->decisions);
    return p;
}

static bool decided_above(const struct molt_policy *top, const struct molt_policy *p, const char *path)
{
    for (; top != p; top = top->under)
        if (exact_find(&top->decisions, path))
            return true;
    return false;
}

void molt_policy_each_decision(const struct molt_policy *p, void (*fn)(void *ctx, const struct molt_rule *r), void *ctx)
{
    if (p && p->of)
        p = p->of;
    for (const struct molt_policy *q = p; q; q = q->under)
        for (size_t i = 0; i < q->decisions.n; i++)
            if (!decided_above(p, q, q->decisions.v[i].pattern))
                fn(ctx, &q->decisions.v[i]);
}

void molt_policy_add_conffiles(struct molt_policy *p, const struct molt_conffiles *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct molt_rule r = {.class = MOLT_CLASS_ETC_TEXT,
                                    .action = MOLT_POLICY_MERGE,
                                    .pattern = molt_xstrdup(c->v[i].path),
                                    .reason = molt_xasprintf("conffile of %s: as dpkg treats it", c->v[i].package)};
        exact_add(&p->conffiles, &r);
    }
    exact_sort(&p->conffiles);
}

struct molt_policy *molt_policy_below(const struct molt_policy *of, const char *prefix)
{
    struct molt_policy *p = molt_xcalloc(1, sizeof(*p));
    p->of = of;
    p->prefix = molt_xstrdup(prefix);
    return p;
}

static char *outer_path(const struct molt_policy *p, const char *path)
{
    return molt_xasprintf("%s%s%s", p->prefix, *path ? "/" : "", path);
}

bool molt_policy_is_conffile(const struct molt_policy *p, const char *path)
{
    CLEANUP_FREE char *outer = p && p->of ? outer_path(p, path) : NULL;
    if (outer)
        return molt_policy_is_conffile(p->of, outer);
    while (p && p->under)
        p = p->under;
    return p && exact_find(&p->conffiles, path);
}

static const struct molt_rule *first_rule(const struct molt_policy *p, const char *path)
{
    for (size_t i = 0; p && i < p->n; i++)
        if (molt_glob_match(p->v[i].pattern, path))
            return &p->v[i];
    return &last_resort;
}

const struct molt_rule *molt_policy_match(const struct molt_policy *p, const char *path)
{
    const struct molt_rule *r;
    CLEANUP_FREE char *outer = p && p->of ? outer_path(p, path) : NULL;
    if (outer)
        return molt_policy_match(p->of, outer);
    for (; p && p->under; p = p->under)
        if ((r = exact_find(&p->decisions, path)))
            return r;
    r = first_rule(p, path);
    if (p && r->action == MOLT_POLICY_REFUSE && r->class != MOLT_CLASS_REFUSE) {
        const struct molt_rule *c = exact_find(&p->conffiles, path);
        return c ? c : r;
    }
    return r;
}

/* Matches one "[...]" set; *pattern moves behind it. An unclosed set is a plain '['. */
static bool match_set(const char **pattern, char c)
{
    const char *p = *pattern + 1;
    bool invert = *p == '!' || *p == '^', hit = false;
    p += invert;
    const char *first = p;
    for (; *p && (*p != ']' || p == first); p++) {
        if (p[1] == '-' && p[2] && p[2] != ']') {
            hit |= (unsigned char)*p <= (unsigned char)c && (unsigned char)c <= (unsigned char)p[2];
            p += 2;
        } else {
            hit |= *p == c;
        }
    }
    if (!*p) {
        ++*pattern;
        return c == '[';
    }
    *pattern = p + 1;
    return hit != invert && c != '/';
}

bool molt_glob_match(const char *pattern, const char *path)
{
    for (;;) {
        if (!*pattern)
            return !*path;
        if (pattern[0] == '/' && strcmp(pattern, "/**") == 0 && !*path)
            return true;
        if (pattern[0] == '*') {
            bool deep = pattern[1] == '*';
            const char *rest = pattern + (deep ? 2 : 1);
            if (!*rest && deep)
                return true;
            /* A leading or inner "**" + "/" also stands for no component at all. */
            if (deep && *rest == '/' && molt_glob_match(rest + 1, path))
                return true;
            for (;; path++) {
                if (molt_glob_match(rest, path))
                    return true;
                if (!*path || (!deep && *path == '/'))
                    return false;
            }
        }
        if (!*path)
            return false;
        if (pattern[0] == '[') {
            if (!match_set(&pattern, *path))
                return false;
        } else if (*pattern == '?' ? *path == '/' : *pattern != *path) {
            return false;
        } else {
            pattern++;
        }
        path++;
    }
}
