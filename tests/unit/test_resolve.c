/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The resolve file: parsing, bounds, hostile bytes; the template that is made of a guest's report; cleaning. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "proto/msg.h"
#include "proto/resolve.h"

static struct molt_resolve *parse(const char *text)
{
    struct molt_resolve *r = NULL;
    struct molt_error *e = NULL;
    if (molt_resolve_parse(text, strlen(text), "f", &r, &e) < 0)
        fail_msg("%s", molt_error_text(e));
    return r;
}

static void decisions_are_read(void **s)
{
    (void)s;
    CLEANUP_RESOLVE struct molt_resolve *r = parse("# head\n\nactive /etc/x\n  upgrade\t/a b  # two words\r\n"
                                                   "append /log/#1\nmerge /\\xff\\x0A\\x5c\ndrop /a\\x20 #c");
    assert_int_equal(r->n, 5);
    static const struct {
        const char *action, *path;
        int line;
    } want[] = {{"active", "etc/x", 3}, {"upgrade", "a b", 4}, {"append", "log/#1", 5}, {"merge", "\xff\n\\", 6}, {"drop", "a ", 7}};
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(r->v[i].action, want[i].action);
        assert_string_equal(r->v[i].path, want[i].path);
        assert_int_equal(r->v[i].line, want[i].line);
    }
    CLEANUP_RESOLVE struct molt_resolve *none = parse("# nothing\n");
    assert_int_equal(none->n, 0);
}

static void errors_name_file_and_line(void **s)
{
    (void)s;
    static const char *const bad[][2] = {
        {"# x\nwin /a\n", "f:2: unknown action 'win'"},
        {"active\n", "f:1: want a path"},
        {"active etc/x\n", "f:1: want a path that begins with '/'"},
        {"active /\n", "f:1: not an exact path"},
        {"active /a/\n", "f:1: not an exact path"},
        {"active /a//b\n", "f:1: not an exact path"},
        {"active /a/../b\n", "f:1: not an exact path"},
        {"active /.\n", "f:1: not an exact path"},
        {"active /a\\x2e\\x2e/../b\n", "f:1: not an exact path"},
        {"active /\\x2e\\x2e\n", "f:1: not an exact path"},
        {"active /a\\\n", "f:1: a backslash"},
        {"active /a\\n\n", "f:1: a backslash"},
        {"active /a\\xg0\n", "f:1: a backslash"},
        {"active /a\\x0\n", "f:1: a backslash"},
        {"active /a\\x00b\n", "f:1: a backslash"},
        {"active /a\033[2J\n", "f:1: not a text"},
        {"active /a\nupgrade /b\ndrop /a\n", "f:3: the path of line 1 again"},
        {"active /a\ndrop /\\x61\n", "f:2: the path of line 1 again"},
        {"refuse /a\n", "f:1: unknown action 'refuse'"},
        {"beside /a\n", "f:1: unknown action 'beside'"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct molt_resolve *r = NULL;
        struct molt_error *e = NULL;
        assert_int_equal(molt_resolve_parse(bad[i][0], strlen(bad[i][0]), "f", &r, &e), MOLT_E_USAGE);
        assert_null(r);
        if (strncmp(molt_error_text(e), bad[i][1], strlen(bad[i][1])) != 0)
            fail_msg("%zu: %s", i, molt_error_text(e));
        molt_error_free(e);
    }
}

static void bounds(void **s)
{
    (void)s;
    struct molt_resolve *r = NULL;
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    molt_strbuf_addf(&b, "active ");
    for (unsigned i = 0; i < MOLT_RESOLVE_PATH_MAX / 2; i++)
        molt_strbuf_addf(&b, "/a");
    assert_int_equal(molt_resolve_parse(b.s, b.len, "f", &r, NULL), 0);
    molt_resolve_free(r);
    r = NULL;
    molt_strbuf_addf(&b, "/aa");
    assert_int_equal(molt_resolve_parse(b.s, b.len, "f", &r, NULL), MOLT_E_USAGE);
    b.len = 0;
    while (b.len <= MOLT_RESOLVE_MAX)
        molt_strbuf_addf(&b, "# and on\n");
    assert_int_equal(molt_resolve_parse(b.s, b.len, "f", &r, NULL), MOLT_E_USAGE);
    assert_int_equal(molt_resolve_parse("a\0b", 3, "f", &r, NULL), MOLT_E_USAGE);
    /* What is allowed fits a request, also when every byte of it is escaped there. */
    assert_true((uint64_t)MOLT_RESOLVE_MAX * 2 + 4096 < MOLT_MSG_MAX);
}

/* Any byte anywhere: an answer without harm, and no control character in an error's text. */
static void hostile_bytes(void **s)
{
    (void)s;
    const char *text = "active /a\\x41b # c\nupgrade /x y\n";
    CLEANUP_FREE char *copy = molt_xstrdup(text);
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        for (int c = 0; c < 256; c++) {
            struct molt_resolve *r = NULL;
            CLEANUP_ERROR struct molt_error *e = NULL;
            copy[i] = (char)c;
            if (molt_resolve_parse(copy, n, "f", &r, &e) == 0)
                for (size_t k = 0; k < r->n; k++)
                    assert_true(r->v[k].path[0] != '/' && r->v[k].path[0]);
            for (const char *p = molt_error_text(e); *p; p++)
                assert_true((unsigned char)*p >= ' ');
            molt_resolve_free(r);
        }
        copy[i] = text[i];
    }
}

static void files(void **s)
{
    (void)s;
    char path[] = "/tmp/xenmolt-resolve-XXXXXX";
    int fd = mkstemp(path);
    struct molt_error *e = NULL;
    CLEANUP_FREE char *text = NULL;
    size_t n = 0;
    assert_true(fd >= 0);
    assert_int_equal(molt_write_all(fd, "active /a\n", 10), 0);
    assert_int_equal(molt_resolve_load(path, &text, &n, &e), 0);
    assert_string_equal(text, "active /a\n");
    assert_int_equal(n, 1);
    assert_int_equal(molt_write_all(fd, "no\n", 3), 0);
    assert_int_equal(molt_resolve_load(path, NULL, NULL, &e), MOLT_E_USAGE);
    assert_non_null(strstr(molt_error_text(e), path));
    assert_non_null(strstr(molt_error_text(e), ":2: "));
    close(fd);
    unlink(path);
    assert_int_equal(molt_resolve_load(path, NULL, NULL, &e), MOLT_E_USAGE);
    molt_error_free(e);
}

static struct molt_json *json(const char *text)
{
    struct molt_json *v = NULL;
    assert_int_equal(molt_json_parse(text, strlen(text), &v, NULL), 0);
    return v;
}

/* The commented lines of a template, with their '#' removed, are a resolve file. */
static char *uncomment(const char *template)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    for (const char *l = template; *l;) {
        size_t n = strcspn(l, "\n");
        if (strncmp(l, "#active ", 8) == 0)
            molt_strbuf_addf(&b, "%.*s\n", (int)n - 1, l + 1);
        l += n + (l[n] == '\n');
    }
    return molt_strbuf_steal(&b);
}

static void template_of_conflicts(void **s)
{
    (void)s;
    CLEANUP_JSON struct molt_json *list = json(
        "[{\"path\":\"/opt/a b#c\",\"kind\":\"changed-both\",\"class\":\"data\",\"open\":true,\"package\":\"shop\",\"conffile\":true,"
        "\"active\":{\"type\":\"file\",\"size\":7,\"mode\":\"0644\",\"uid\":0,\"gid\":1,\"mtime\":\"2026-01-01T00:00:00.000000Z\"},"
        "\"upgrade\":null},"
        "{\"path\":\"/x\\\\xff\",\"active\":{\"type\":\"symlink\",\"target\":\"to\"}},"
        "{\"path\":\"relative\"},{\"path\":\"/../up\"},{\"nothing\":1},5,{\"path\":7}]");
    CLEANUP_FREE char *t = molt_resolve_template("gu-1", "web1", list), *plain = uncomment(t);
    assert_non_null(strstr(t, "changed-both, class data, conffile of package shop, open\n"));
    assert_non_null(strstr(t, "#   active   file, 7 bytes, mode 0644, owner 0:1, 2026-01-01T00:00:00.000000Z\n"));
    assert_non_null(strstr(t, "#   upgrade  not there\n"));
    assert_non_null(strstr(t, "#active /opt/a\\x20b\\x23c\n"));
    CLEANUP_RESOLVE struct molt_resolve *none = parse(t), *all = parse(plain);
    assert_int_equal(none->n, 0);
    assert_int_equal(all->n, 2);
    assert_string_equal(all->v[0].path, "opt/a b#c");
    assert_string_equal(all->v[1].path, "x\xff");
}

/* A guest that lies cannot put a decision of its own into the file. */
static void template_of_lies(void **s)
{
    (void)s;
    CLEANUP_JSON struct molt_json *list =
        json("[{\"path\":\"/a\\nupgrade /etc/shadow\",\"kind\":\"k\\nupgrade /b\",\"class\":\"\\u001b[2J\",\"package\":\"p\\nupgrade /c\","
             "\"active\":{\"type\":\"f\\nupgrade /d\",\"target\":\"\\r\\nupgrade /e\",\"mode\":\"\\n\",\"mtime\":\"\\nupgrade /f\"}}]");
    CLEANUP_FREE char *t = molt_resolve_template("gu-1", "web1", list);
    CLEANUP_RESOLVE struct molt_resolve *r = parse(t);
    assert_int_equal(r->n, 0);
    assert_null(strchr(t, '\033'));
    CLEANUP_FREE char *plain = uncomment(t);
    CLEANUP_RESOLVE struct molt_resolve *all = parse(plain);
    for (size_t i = 0; i < all->n; i++)
        assert_string_equal(all->v[i].action, "active");
}

static void cleaning(void **s)
{
    (void)s;
    CLEANUP_JSON struct molt_json *v = json("{\"a\\u0007\":[\"\\u001b]0;x\\u0007\",\"\xc2\x9b"
                                            "1m\"],\"diff\":\"-a\\n+\\tb\\rc\",\"n\":5,\"deep\":{\"diff\":\"\\n\"}}");
    CLEANUP_JSON struct molt_json *c = molt_json_clean(v, "diff");
    CLEANUP_FREE char *text = molt_json_print(c, false);
    assert_non_null(strstr(text, "\"a?\":[\"?]0;x?\",\"??1m\"]"));
    assert_non_null(strstr(text, "\"-a\\n+\\tb?"));
    assert_non_null(strstr(text, "\"n\":5"));
    CLEANUP_JSON struct molt_json *strict = molt_json_clean(v, NULL);
    assert_string_equal(molt_json_get_string(molt_json_get(strict, "deep"), "diff"), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decisions_are_read), cmocka_unit_test(errors_name_file_and_line), cmocka_unit_test(bounds),
        cmocka_unit_test(hostile_bytes),      cmocka_unit_test(files),                     cmocka_unit_test(template_of_conflicts),
        cmocka_unit_test(template_of_lies),   cmocka_unit_test(cleaning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
