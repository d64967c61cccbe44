/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "merge/policy.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"

#define POLICY_MAX (1u << 20)

const char molt_policy_debian_text[] =
#include "merge/policy_debian.inc"
    ;

struct molt_policy {
    struct molt_rule *v;
    size_t n, cap;
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

void molt_policy_free(struct molt_policy *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++) {
        free((char *)p->v[i].pattern);
        free((char *)p->v[i].reason);
    }
    free(p->v);
    free(p);
}

const struct molt_rule *molt_policy_match(const struct molt_policy *p, const char *path)
{
    for (size_t i = 0; p && i < p->n; i++)
        if (molt_glob_match(p->v[i].pattern, path))
            return &p->v[i];
    return &last_resort;
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
