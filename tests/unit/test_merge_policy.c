/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Policy files, globs, text merges and the package database. */
#include "test_merge_util.h"

#include "merge/packages.h"

static void globs(void **s)
{
    (void)s;
    static const struct {
        const char *pattern, *path;
        bool match;
    } cases[] = {
        {"etc/**", "etc/a/b", true},
        {"etc/**", "etc", true},
        {"etc/**", "etcetera", false},
        {"etc/*", "etc/a", true},
        {"etc/*", "etc/a/b", false},
        {"**", "", true},
        {"**/x", "x", true},
        {"**/x", "a/b/x", true},
        {"usr/**/p/**", "usr/p/x", true},
        {"usr/**/p/**", "usr/a/b/p", true},
        {"a?c", "abc", true},
        {"a?c", "a/c", false},
        {"[a-c]x", "bx", true},
        {"[!a-c]x", "bx", false},
        {"[", "[", true},
        {"a[/]b", "a/b", false},
        {"var/log/*.log*", "var/log/d.log.1.gz", true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (molt_glob_match(cases[i].pattern, cases[i].path) != cases[i].match)
            fail_msg("%s on %s", cases[i].pattern, cases[i].path);
}

static void errors_name_the_line(void **s)
{
    (void)s;
    static const char *const bad[][2] = {
        {"# ok\n\nlogs append /x\n", "p:3: unknown class 'logs'"},
        {"log add /x\n", "p:1: unknown action 'add'"},
        {"log\n", "p:1: unknown action ''"},
        {"log append x\n", "p:1: want one pattern"},
        {"log append /x /y\n", "p:1: want one pattern"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct molt_policy *p = NULL;
        struct molt_error *e = NULL;
        assert_int_equal(molt_policy_parse(bad[i][0], strlen(bad[i][0]), "p", &p, &e), MOLT_E_USAGE);
        assert_null(p);
        if (strncmp(molt_error_text(e), bad[i][1], strlen(bad[i][1])) != 0)
            fail_msg("%s", molt_error_text(e));
        molt_error_free(e);
    }
}

static void first_match_wins(void **s)
{
    (void)s;
    CLEANUP_POLICY struct molt_policy *p = NULL;
    const char *text = "log append /a/#x  # two # signs \ndata active /a/**";
    assert_ok(molt_policy_parse(text, strlen(text), "p", &p, err));
    const struct molt_rule *r = molt_policy_match(p, "a/#x");
    assert_int_equal(r->action, MOLT_POLICY_APPEND);
    assert_string_equal(r->reason, "two # signs");
    assert_int_equal(molt_policy_match(p, "a/y")->line, 2);
    assert_int_equal(molt_policy_match(p, "b")->action, MOLT_POLICY_REFUSE);
    assert_int_equal(molt_policy_match(p, "b")->line, 0);
}

static void debian_policy(void **s)
{
    (void)s;
    static const struct {
        const char *path, *class, *action;
    } want[] = {
        {"var/lib/dpkg/status", "package-db", "upgrade"},
        {"var/lib/apt/extended_states", "package-db", "upgrade"},
        {"var/cache/debconf/config.dat", "package-db", "upgrade"},
        {"var/cache/apt/pkgcache.bin", "cache", "drop"},
        {"etc/machine-id", "identity", "active"},
        {"etc/ssh/ssh_host_rsa_key", "identity", "active"},
        {"etc/ssh/sshd_config", "etc-text", "merge"},
        {"etc/resolv.conf", "identity", "active"},
        {"etc/ld.so.cache", "package-db", "upgrade"},
        {"etc/ssl/certs/ca-certificates.crt", "package-db", "upgrade"},
        {"var/log/journal/0123/system.journal", "log", "beside"},
        {"var/log/dpkg.log", "log", "append"},
        {"var/log/apt/eipp.log.xz", "log", "upgrade"},
        {"var/log/wtmp", "log", "append"},
        {"var/log/lastlog", "log", "active"},
        {"var/lib/systemd/random-seed", "identity", "active"},
        {"var/lib/systemd/timers/stamp-fstrim.timer", "volatile", "active"},
        {"var/lib/systemd/catalog/database", "package-db", "upgrade"},
        {"var/lib/systemd/deb-systemd-helper-enabled/a/b", "package-db", "upgrade"},
        {"boot/initrd.img-6.1", "package-db", "upgrade"},
        {"usr/lib/modules/6.1/modules.dep", "package-db", "upgrade"},
        {"usr/lib/python3/dist-packages/__pycache__/x.pyc", "cache", "drop"},
        {"etc/passwd", "etc-text", "merge"},
        {"etc/passwd-", "volatile", "drop"},
        {"etc/.pwd.lock", "volatile", "drop"},
        {"tmp/x", "volatile", "drop"},
        {"var/tmp/x", "volatile", "drop"},
        {"var/lib/counter/requests.log", "data", "refuse"},
        {"usr/local/bin/x", "data", "refuse"},
        {"home/anna/x", "data", "refuse"},
    };
    CLEANUP_POLICY struct molt_policy *p = NULL;
    assert_ok(molt_policy_default(&p, err));
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        const struct molt_rule *r = molt_policy_match(p, want[i].path);
        if (strcmp(molt_class_name(r->class), want[i].class) ||
            strcmp(molt_policy_action_name(r->action), want[i].action))
            fail_msg("%s: %s %s (line %d)", want[i].path, molt_class_name(r->class),
                     molt_policy_action_name(r->action), r->line);
        assert_true(*r->reason != '\0');
    }
}

static void account_files_merge_by_key(void **s)
{
    (void)s;
    char *out = NULL;
    assert_true(molt_merge_keyed("r:x:0\nd:x:1\n", "r:y:0\nd:x:1\na:x:9\n", "r:x:0\nu:x:8\n", true, &out));
    assert_string_equal(out, "r:y:0\nu:x:8\na:x:9\n");
    free(out);
    assert_false(molt_merge_keyed("", "a:x:9\n", "u:x:9\n", true, &out)); /* one number, two accounts */
    assert_false(molt_merge_keyed("r:x:0\n", "r:a:0\n", "r:u:0\n", true, &out));
    assert_false(molt_merge_keyed("r:x:0\n", "r:a:0\n", "", true, &out));
    assert_false(molt_merge_keyed("", "no key\n", "", true, &out));
}

static void texts_merge_or_overlap(void **s)
{
    (void)s;
    char *out = NULL;
    size_t len;
    struct molt_error *e = NULL;
    const char *b = "1\n2\n3\n4\n5\n", *a = "0\n1\n2\n3\n4\n5\n", *u = "1\n2\n3\n4\n5\n6\n";
    int rc = molt_merge_text(b, strlen(b), a, strlen(a), u, strlen(u), &out, &len, &e);
    if (rc == 0) {
        print_message("no diff3 here: skipped\n");
        return;
    }
    assert_int_equal(rc, 1);
    assert_string_equal(out, "0\n1\n2\n3\n4\n5\n6\n");
    free(out);
    assert_int_equal(molt_merge_text("1\n", 2, "2\n", 2, "3\n", 2, &out, &len, &e), 0);
    assert_int_equal(molt_merge_text("\0", 1, "2\n", 2, "\0", 1, &out, &len, &e), 0);
    /* no newline at the end, on either side */
    assert_int_equal(molt_merge_text("1\n2\n3\n4", 7, "0\n2\n3\n4", 7, "1\n2\n3\n4", 7, &out, &len, &e), 1);
    assert_string_equal(out, "0\n2\n3\n4");
    free(out);
}

static void package_sets(void **s)
{
    (void)s;
#define PKG(n, v, st)                                                                                        \
    "Package: " n "\nStatus: install ok " st "\nArchitecture: amd64\nVersion: " v                            \
    "\nDescription: x\n Version: no\n\n"
    char *list = NULL;
    assert_int_equal(molt_dpkg_status_changed(PKG("a", "1", "installed") PKG("b", "1", "installed"),
                                              PKG("b", "1", "installed") PKG("a", "1", "installed"), NULL),
                     0);
    assert_int_equal(molt_dpkg_status_changed(PKG("a", "1", "installed") PKG("b", "1", "installed")
                                                  PKG("d", "1", "config-files"),
                                              PKG("a", "2", "installed") PKG("c", "3", "installed"), &list),
                     3);
    assert_string_equal(list, "a:amd64 1 -> 2\n-b:amd64 1\n+c:amd64 3\n");
    free(list);
}

static void paths_as_text(void **s)
{
    (void)s;
    CLEANUP_FREE char *x = molt_path_text("a\\b\xff\n\xc3\xa4\xed\xa0\x80");
    assert_string_equal(x, "/a\\x5cb\\xff\\x0a\xc3\xa4\\xed\\xa0\\x80");
    assert_true(molt_path_cmp("a/x", "a-b") < 0);
    assert_true(molt_path_cmp("a", "a/x") < 0);
    assert_true(molt_path_cmp("a\x01", "a/x") > 0);
}

/* Rules are about paths as the guest sees them, also for a file system that is mounted somewhere. */
static void below_a_mount_point(void **state)
{
    (void)state;
    static const char rules[] = "log append /var/log/**\ndata active /var\nidentity upgrade /var/log/a/b\n";
    CLEANUP_POLICY struct molt_policy *p = NULL, *log = NULL, *var = NULL;
    assert_ok(molt_policy_parse(rules, sizeof(rules) - 1, "rules", &p, err));
    log = molt_policy_below(p, "var/log");
    var = molt_policy_below(p, "var");
    assert_int_equal(molt_policy_match(log, "syslog")->class, MOLT_CLASS_LOG);
    assert_int_equal(molt_policy_match(log, "")->class, MOLT_CLASS_LOG);
    assert_int_equal(molt_policy_match(var, "")->action, MOLT_POLICY_ACTIVE);
    assert_int_equal(molt_policy_match(var, "lib/x")->line, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(globs),
        cmocka_unit_test(errors_name_the_line),
        cmocka_unit_test(first_match_wins),
        cmocka_unit_test(debian_policy),
        cmocka_unit_test(account_files_merge_by_key),
        cmocka_unit_test(texts_merge_or_overlap),
        cmocka_unit_test(package_sets),
        cmocka_unit_test(paths_as_text),
        cmocka_unit_test(below_a_mount_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
