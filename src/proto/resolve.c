/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proto/resolve.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"

static const char *const actions[] = {"active", "upgrade", "append", "merge", "drop"};

void molt_resolve_free(struct molt_resolve *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++)
        free(r->v[i].path);
    free(r->v);
    free(r);
}

static const char *find_action(const char *s, size_t n)
{
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
        if (strlen(actions[i]) == n && strncmp(actions[i], s, n) == 0)
            return actions[i];
    return NULL;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Undoes the \xNN of a path's text. NULL with *ret_why: what is wrong with it. */
static char *decode(const char *s, size_t n, const char **ret_why)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '\\') {
            bool good = n - i >= 4 && s[i + 1] == 'x' && hex(s[i + 2]) >= 0 && hex(s[i + 3]) >= 0;
            c = (char)(good ? hex(s[i + 2]) << 4 | hex(s[i + 3]) : 0);
            if (!c) {
                *ret_why = "a backslash wants two digits behind it (\\xNN, not \\x00), as reports print paths";
                return NULL;
            }
            i += 3;
        }
        molt_strbuf_add(&b, &c, 1);
    }
    if (b.len > MOLT_RESOLVE_PATH_MAX) {
        *ret_why = "the path is too long";
        return NULL;
    }
    return molt_strbuf_steal(&b);
}

/* No empty component, no "." or "..": such a path can be in no report, and would only look as if it decided something. */
static bool is_exact(const char *path)
{
    for (const char *p = path;; p++) {
        size_t n = strcspn(p, "/");
        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        p += n;
        if (!*p)
            return true;
    }
}

/* Where the comment begins: a '#' at the start or behind a blank. */
static size_t without_comment(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '#' && (i == 0 || s[i - 1] == ' ' || s[i - 1] == '\t')) {
            n = i;
            break;
        }
    }
    while (n && strchr(" \t\r", s[n - 1]))
        n--;
    return n;
}

/* 1: a decision, 0: nothing on the line. */
static int parse_line(const char *s, size_t n, struct molt_resolve_line *l, const char *name, struct molt_error **err)
{
    const char *why = NULL;
    n = without_comment(s, n);
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)s[i] < ' ' && s[i] != '\t') || s[i] == 0x7f)
            return molt_error_set(err, MOLT_E_USAGE, "%s:%d: not a text (a control character)", name, l->line);
    while (n && (*s == ' ' || *s == '\t'))
        s++, n--;
    if (n == 0)
        return 0;
    size_t word = 0;
    while (word < n && s[word] != ' ' && s[word] != '\t')
        word++;
    l->action = find_action(s, word);
    if (!l->action)
        return molt_error_set(err, MOLT_E_USAGE, "%s:%d: unknown action '%.*s' (active, upgrade, append, merge or drop)", name,
                              l->line, (int)(word < 40 ? word : 40), s);
    while (word < n && (s[word] == ' ' || s[word] == '\t'))
        word++;
    if (word == n || s[word] != '/')
        return molt_error_set(err, MOLT_E_USAGE, "%s:%d: want a path that begins with '/' behind the action, as the report prints it",
                              name, l->line);
    CLEANUP_FREE char *path = decode(s + word + 1, n - word - 1, &why);
    if (path && !is_exact(path))
        why = "not an exact path (no empty component, no '.' or '..', no '/' at its end)";
    if (why)
        return molt_error_set(err, MOLT_E_USAGE, "%s:%d: %s", name, l->line, why);
    l->path = MOLT_STEAL_PTR(path);
    return 1;
}

static int by_path(const void *a, const void *b)
{
    const struct molt_resolve_line *x = *(struct molt_resolve_line *const *)a, *y = *(struct molt_resolve_line *const *)b;
    int c = strcmp(x->path, y->path);
    return c ? c : (x->line > y->line) - (x->line < y->line);
}

static int refuse_twice(const struct molt_resolve *r, const char *name, struct molt_error **err)
{
    CLEANUP_FREE struct molt_resolve_line **v = molt_xcalloc(r->n + 1, sizeof(struct molt_resolve_line *));
    for (size_t i = 0; i < r->n; i++)
        v[i] = &r->v[i];
    qsort(v, r->n, sizeof(struct molt_resolve_line *), by_path);
    for (size_t i = 1; i < r->n; i++)
        if (strcmp(v[i - 1]->path, v[i]->path) == 0)
            return molt_error_set(err, MOLT_E_USAGE, "%s:%d: the path of line %d again (/%.200s)", name, v[i]->line, v[i - 1]->line,
                                  v[i]->path);
    return 0;
}

int molt_resolve_parse(const char *text, size_t len, const char *name, struct molt_resolve **ret, struct molt_error **err)
{
    CLEANUP_RESOLVE struct molt_resolve *r = molt_xcalloc(1, sizeof(*r));
    int line = 0, rc;
    if (len > MOLT_RESOLVE_MAX)
        return molt_error_set(err, MOLT_E_USAGE, "%s: longer than %u KiB", name, MOLT_RESOLVE_MAX >> 10);
    for (size_t off = 0; off < len;) {
        const char *nl = memchr(text + off, '\n', len - off);
        size_t n = nl ? (size_t)(nl - text) - off : len - off;
        struct molt_resolve_line l = {.line = ++line};
        if ((rc = parse_line(text + off, n, &l, name, err)) < 0)
            return rc;
        if (rc > 0) {
            MOLT_GROW(r->v, r->n, r->cap);
            r->v[r->n++] = l;
        }
        off += n + 1;
    }
    if ((rc = refuse_twice(r, name, err)) < 0)
        return rc;
    *ret = MOLT_STEAL_PTR(r);
    return 0;
}

int molt_resolve_load(const char *path, char **ret_text, size_t *ret_n, struct molt_error **err)
{
    CLEANUP_RESOLVE struct molt_resolve *r = NULL;
    CLEANUP_FREE char *text = NULL;
    CLEANUP_ERROR struct molt_error *why = NULL;
    size_t len;
    /* One byte more than the most: what is too long is told so by the parser. */
    if (molt_read_file(path, MOLT_RESOLVE_MAX + 1, &text, &len, &why) < 0)
        return molt_error_set(err, MOLT_E_USAGE, "resolve file: %s", molt_error_text(why));
    int rc = molt_resolve_parse(text, len, path, &r, err);
    if (rc < 0)
        return rc;
    if (ret_n)
        *ret_n = r->n;
    if (ret_text)
        *ret_text = MOLT_STEAL_PTR(text);
    return 0;
}

/* ---- what is made of an agent's report ---- */

/* A terminal takes C1 controls (U+0080 to U+009F) for its own, too. */
static char *clean_text(const char *s, bool multiline)
{
    char *out = molt_xstrdup(s);
    for (unsigned char *p = (unsigned char *)out; *p; p++) {
        bool keep = multiline && (*p == '\n' || *p == '\t');
        if ((*p < ' ' && !keep) || *p == 0x7f)
            *p = '?';
        else if (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
            p[0] = p[1] = '?';
    }
    return out;
}

static struct molt_json *clean(const struct molt_json *v, const char *key, const char *multiline)
{
    struct molt_json *out;
    switch (molt_json_type(v)) {
    case MOLT_JSON_STRING: {
        CLEANUP_FREE char *s = clean_text(molt_json_str(v), molt_streq(key, multiline));
        return molt_json_string(s);
    }
    case MOLT_JSON_ARRAY:
        out = molt_json_array();
        for (size_t i = 0; i < molt_json_size(v); i++)
            molt_json_append(out, clean(molt_json_at(v, i), NULL, multiline));
        return out;
    case MOLT_JSON_OBJECT:
        out = molt_json_object();
        for (size_t i = 0; i < molt_json_size(v); i++) {
            CLEANUP_FREE char *k = clean_text(molt_json_key_at(v, i), false);
            molt_json_set(out, k, clean(molt_json_at(v, i), k, multiline));
        }
        return out;
    default:
        return molt_json_copy(v);
    }
}

struct molt_json *molt_json_clean(const struct molt_json *v, const char *multiline)
{
    return clean(v, NULL, multiline ? multiline : "");
}

static const char *text_of(const struct molt_json *v, const char *key, const char *dflt)
{
    const char *s = molt_json_get_string(v, key);
    return s ? s : dflt;
}

char *molt_resolve_side(const struct molt_json *side)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    if (molt_json_type(side) != MOLT_JSON_OBJECT)
        return molt_xstrdup("not there");
    const char *type = text_of(side, "type", "?"), *target = molt_json_get_string(side, "target");
    molt_strbuf_addf(&b, "%.20s", type);
    if (target)
        molt_strbuf_addf(&b, " to %.200s", target);
    if (molt_streq(type, "file"))
        molt_strbuf_addf(&b, ", %lld bytes", (long long)molt_json_get_int(side, "size", 0));
    molt_strbuf_addf(&b, ", mode %.8s, owner %lld:%lld, %.40s", text_of(side, "mode", "?"), (long long)molt_json_get_int(side, "uid", -1),
                     (long long)molt_json_get_int(side, "gid", -1), text_of(side, "mtime", "?"));
    return molt_strbuf_steal(&b);
}

/* A path of a report in a form that the parser reads back: blanks and '#' as \xNN. NULL: no such path. */
static char *path_word(const char *path)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    const char *why;
    for (const char *p = path; *p; p++) {
        if (*p == ' ' || *p == '#')
            molt_strbuf_addf(&b, "\\x%02x", (unsigned char)*p);
        else
            molt_strbuf_add(&b, p, 1);
    }
    CLEANUP_FREE char *bytes = path[0] == '/' ? decode(b.s + 1, b.len - 1, &why) : NULL;
    return bytes && is_exact(bytes) ? molt_strbuf_steal(&b) : NULL;
}

static void template_entry(struct molt_strbuf *b, const struct molt_json *c)
{
    static const char *const sides[] = {"active", "upgrade"};
    CLEANUP_FREE char *word = path_word(text_of(c, "path", ""));
    const char *package = molt_json_get_string(c, "package");
    if (!word)
        return;
    molt_strbuf_addf(b, "\n# %.40s, class %.40s", text_of(c, "kind", "?"), text_of(c, "class", "?"));
    if (package)
        molt_strbuf_addf(b, ", %s package %.200s", molt_json_get_bool(c, "conffile", false) ? "conffile of" : "of", package);
    molt_strbuf_addf(b, ", %s\n", molt_json_get_bool(c, "open", false) ? "open" : "settled");
    for (size_t i = 0; i < 2; i++) {
        CLEANUP_FREE char *side = molt_resolve_side(molt_json_get(c, sides[i]));
        molt_strbuf_addf(b, "#   %-8s %s\n", sides[i], side);
    }
    molt_strbuf_addf(b, "#active %s\n", word);
}

char *molt_resolve_template(const char *operation, const char *domain, const struct molt_json *conflicts)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    CLEANUP_JSON struct molt_json *list = molt_json_clean(conflicts, NULL);
    molt_strbuf_addf(&b,
                     "# Conflicts of operation %s on %s. Below each, a decision that is still a comment: remove its '#',\n"
                     "# and put another word where active shall not win:\n"
                     "#   active   the running guest's version     append   the guest's, then what the upgrade appended\n"
                     "#   upgrade  the upgrade's                   merge    line by line, the guest's where they overlap\n"
                     "#   drop     the upgrade's, nobody will miss the guest's\n"
                     "# Then: xenmolt guest-upgrade --resolve THIS-FILE ... %s   (or, while the operation waits,\n"
                     "# xenmolt delta-merge --resolve THIS-FILE %s)\n",
                     operation, domain, domain, domain);
    for (size_t i = 0; i < molt_json_size(list); i++)
        template_entry(&b, molt_json_at(list, i));
    return molt_strbuf_steal(&b);
}
