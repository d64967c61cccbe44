/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Decisions of an admin, package awareness, and what a plan tells: attributes, owners, differences. */
#include "test_merge_util.h"

#include "merge/packages.h"
#include "merge/report.h"

/* ---- the policy ---- */

static enum molt_policy_action action_for(const struct molt_policy *p, const char *path)
{
    return molt_policy_match(p, path)->action;
}

static void decisions_come_first(void **s)
{
    (void)s;
    const char *text = "identity active /id/**\ndata refuse /**\n";
    CLEANUP_POLICY struct molt_policy *p = NULL;
    assert_ok(molt_policy_parse(text, strlen(text), "p", &p, err));
    const struct molt_decision v[] = {{"srv/*", MOLT_POLICY_ACTIVE, 3}, {"id/x", MOLT_POLICY_UPGRADE, 1}, {"b", MOLT_POLICY_MERGE, 9}};
    CLEANUP_POLICY struct molt_policy *one = molt_policy_decide(p, v, 3);
    assert_int_equal(action_for(one, "srv/*"), MOLT_POLICY_ACTIVE);
    assert_int_equal(action_for(one, "srv/x"), MOLT_POLICY_REFUSE); /* exact, no glob */
    assert_int_equal(action_for(one, "id/x"), MOLT_POLICY_UPGRADE);
    assert_int_equal(action_for(one, "id/y"), MOLT_POLICY_ACTIVE);
    assert_int_equal(molt_policy_match(one, "id/x")->class, MOLT_CLASS_IDENTITY);
    assert_true(molt_policy_match(one, "id/x")->decided);
    assert_string_equal(molt_policy_match(one, "b")->reason, "decided in the resolve file, line 9");
    assert_int_equal(action_for(p, "id/x"), MOLT_POLICY_ACTIVE); /* the one below is as it was */
    const struct molt_decision w[] = {{"b", MOLT_POLICY_DROP, 2}};
    CLEANUP_POLICY struct molt_policy *two = molt_policy_decide(one, w, 1);
    assert_int_equal(action_for(two, "b"), MOLT_POLICY_DROP);
    assert_int_equal(action_for(two, "id/x"), MOLT_POLICY_UPGRADE);
    assert_int_equal(molt_policy_action_of("drop"), MOLT_POLICY_DROP);
    assert_int_equal(molt_policy_action_of("win"), -1);
}

static void conffiles_outside_etc(void **s)
{
    (void)s;
    const char *text = "data active /a/**\nrefuse refuse /never/**\ndata refuse /**\n";
    CLEANUP_POLICY struct molt_policy *p = NULL;
    assert_ok(molt_policy_parse(text, strlen(text), "p", &p, err));
    struct molt_conffile v[] = {{(char *)"opt/shop.conf", (char *)"shop"}, {(char *)"a/x", (char *)"shop"}, {(char *)"never/x", (char *)"shop"}};
    const struct molt_conffiles c = {v, 3, 3};
    molt_policy_add_conffiles(p, &c);
    assert_int_equal(action_for(p, "opt/shop.conf"), MOLT_POLICY_MERGE);
    assert_string_equal(molt_policy_match(p, "opt/shop.conf")->reason, "conffile of shop: as dpkg treats it");
    assert_int_equal(action_for(p, "opt/other"), MOLT_POLICY_REFUSE);
    assert_int_equal(action_for(p, "a/x"), MOLT_POLICY_ACTIVE);   /* a rule says something else */
    assert_int_equal(action_for(p, "never/x"), MOLT_POLICY_REFUSE); /* paths that must never differ */
    assert_true(molt_policy_is_conffile(p, "a/x"));
    assert_false(molt_policy_is_conffile(p, "opt/other"));
}

static void rpm_policy(void **s)
{
    (void)s;
    static const struct {
        const char *path, *class, *action;
    } want[] = {
        {"var/lib/rpm/rpmdb.sqlite", "package-db", "upgrade"},
        {"usr/lib/sysimage/rpm/Packages.db", "package-db", "upgrade"},
        {"var/lib/dnf/history.sqlite", "package-db", "upgrade"},
        {"var/cache/dnf/x.solv", "cache", "drop"},
        {"var/cache/zypp/raw/x", "cache", "drop"},
        {"etc/my.cnf.rpmnew", "etc-text", "upgrade"},
        {"etc/my.cnf.rpmsave", "etc-text", "beside"},
        {"opt/x.conf.rpmsave", "etc-text", "beside"},
        {"etc/my.cnf", "etc-text", "merge"},
        {"etc/redhat-release", "etc-text", "upgrade"},
        {"etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "package-db", "upgrade"},
        {"etc/pki/tls/private/web.key", "identity", "active"},
        {"etc/machine-id", "identity", "active"},
        {"var/log/audit/audit.log", "log", "append"},
        {"var/log/journal/0/system.journal", "log", "beside"},
        {"var/log/dnf.rpm.log", "log", "append"},
        {"boot/grub2/grub.cfg", "package-db", "upgrade"},
        {"etc/passwd", "etc-text", "merge"},
        {"etc/passwd-", "volatile", "drop"},
        {"usr/local/bin/x", "data", "refuse"},
        {"srv/www/x", "data", "refuse"},
    };
    CLEANUP_POLICY struct molt_policy *p = NULL;
    assert_ok(molt_policy_parse(molt_policy_rpm_text, strlen(molt_policy_rpm_text), "rpm.policy", &p, err));
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        const struct molt_rule *r = molt_policy_match(p, want[i].path);
        if (strcmp(molt_class_name(r->class), want[i].class) || strcmp(molt_policy_action_name(r->action), want[i].action))
            fail_msg("%s: %s %s (line %d)", want[i].path, molt_class_name(r->class), molt_policy_action_name(r->action), r->line);
        assert_true(*r->reason != '\0');
    }
}

static void make_path(int at, const char *path)
{
    for (const char *p = path; (p = strchr(p, '/')); p++) {
        CLEANUP_FREE char *dir = molt_xstrndup(path, (size_t)(p - path));
        mkdirat(at, dir, 0755);
    }
}

static void put_deep(int at, const char *path, const char *text)
{
    make_path(at, path);
    put(at, path, text, 1000);
}

static const char *chosen(int rootfd)
{
    CLEANUP_POLICY struct molt_policy *p = NULL;
    const char *name = NULL;
    assert_ok(molt_policy_choose(rootfd, &p, &name, err));
    return name;
}

static void policy_by_system(void **s)
{
    (void)s;
    struct trees t;
    trees_make(&t);
    assert_string_equal(chosen(t.b), "debian.policy"); /* nothing known */
    put_deep(t.b, "usr/lib/os-release", "NAME=x\nID=rocky\nID_LIKE=\"rhel centos fedora\"\n");
    assert_string_equal(chosen(t.b), "rpm.policy");
    put_deep(t.b, "var/lib/dpkg/status", "");
    assert_string_equal(chosen(t.b), "debian.policy");
    put_deep(t.a, "var/lib/rpm/rpmdb.sqlite", "");
    assert_string_equal(chosen(t.a), "rpm.policy");
    put_deep(t.a, "var/lib/dpkg/status", ""); /* rpm as a tool on Debian */
    assert_string_equal(chosen(t.a), "debian.policy");
    put_deep(t.u, "etc/os-release", "ID=debian\nHOME_URL=fedora\n");
    assert_string_equal(chosen(t.u), "debian.policy");
    trees_remove(&t);
}

/* ---- dpkg's database ---- */

static void conffiles_of_a_status_file(void **s)
{
    (void)s;
    struct molt_conffiles c = {0};
    molt_dpkg_conffiles("Package: a\nStatus: install ok installed\nConffiles:\n /etc/a 0123\n /etc/b c 45 obsolete\n"
                        " /opt/r 67 remove-on-upgrade\n /../x 1\n relative 1\n /nohash\nDescription: x\n /no 1\n\n"
                        "Package: b\nConffiles:\n /etc/d newconffile\n\nConffiles:\n /orphan 1\n",
                        &c);
    assert_int_equal(c.n, 4);
    static const char *const want[][2] = {{"etc/a", "a"}, {"etc/b c", "a"}, {"opt/r", "a"}, {"etc/d", "b"}};
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(c.v[i].path, want[i][0]);
        assert_string_equal(c.v[i].package, want[i][1]);
    }
    molt_conffiles_clear(&c);
}

static void owners_of_paths(void **s)
{
    (void)s;
    struct trees t;
    trees_make(&t);
    put_deep(t.u, "var/lib/dpkg/info/shop.list", "/.\n/opt\n/opt/shop\n/lib/shop.so\n");
    put_deep(t.u, "var/lib/dpkg/info/libc6:amd64.list", "/.\n/usr/lib/libc.so\n");
    put_deep(t.u, "var/lib/dpkg/info/shop.md5sums", "/opt/not\n");
    const char *paths[] = {"usr/lib/shop.so", "opt/shop", "usr/lib/libc.so", "opt/not", "opt/kept"};
    char *owner[5] = {NULL, NULL, NULL, NULL, molt_xstrdup("known")};
    molt_dpkg_owners(t.u, paths, 5, owner);
    assert_string_equal(owner[0], "shop"); /* merged /usr */
    assert_string_equal(owner[1], "shop");
    assert_string_equal(owner[2], "libc6");
    assert_null(owner[3]);
    assert_string_equal(owner[4], "known");
    for (int i = 0; i < 5; i++)
        free(owner[i]);
    molt_dpkg_owners(t.b, paths, 0, NULL); /* no database at all */
    trees_remove(&t);
}

#define PKG(n, v) "Package: " n "\nStatus: install ok installed\nArchitecture: all\nVersion: " v "\n\n"

static size_t questions;
static void count(void *ctx, enum molt_merge_question q)
{
    (void)ctx;
    questions += q != MOLT_MERGE_Q_DELTA;
}

/* Early, and again before the freeze: then it costs nothing where the database did not change. */
static void changed_packages_are_refused(void **s)
{
    (void)s;
    struct trees t;
    struct session x;
    trees_make(&t);
    static const char *const dirs[] = {"var", "var/lib", "var/lib/dpkg", "var/lib/rpm"};
    for (int i = 0; i < 4; i++)
        mkdir3(&t, dirs[i]);
    put3(&t, "var/lib/dpkg/status", PKG("a", "1"));
    put3(&t, "var/lib/rpm/rpmdb.sqlite", "db");
    session_start(&x, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    assert_ok(molt_merge_check_packages(x.m, &x.vt, err));
    session_pass(&x);
    put(t.a, "var/lib/rpm/rpmdb.sqlite-wal", "", 1001); /* left by a reader */
    assert_ok(molt_merge_check_packages(x.m, &x.vt, err));
    put(t.a, "var/lib/dpkg/status", PKG("a", "2") PKG("b", "1"), 2000);
    session_pass(&x);
    struct molt_error *e = NULL;
    assert_int_equal(molt_merge_check_packages(x.m, &x.vt, &e), MOLT_E_CONFLICT);
    assert_non_null(strstr(molt_error_text(e), "a:all 1 -> 2,+b:all 1"));
    put(t.a, "var/lib/dpkg/status", PKG("a", "1"), 3000);
    put(t.a, "var/lib/rpm/rpmdb.sqlite", "dB", 3000);
    session_pass(&x);
    assert_int_equal(molt_merge_check_packages(x.m, &x.vt, &e), MOLT_E_CONFLICT);
    assert_non_null(strstr(molt_error_text(e), "rpm database /var/lib/rpm/rpmdb.sqlite"));
    put(t.a, "var/lib/rpm/rpmdb.sqlite", "db", 1000);
    put(t.a, "var/lib/rpm/rpmdb.sqlite-wal", "written", 4000);
    assert_int_equal(molt_merge_check_packages(x.m, &x.vt, &e), MOLT_E_CONFLICT);
    assert_non_null(strstr(molt_error_text(e), "rpmdb.sqlite-wal"));
    molt_error_free(e);
    session_end(&x);
    trees_remove(&t);
}

/* base, active and upgrade share inodes: a copy of the base's, as a snapshot is. */
static void unchanged_databases_are_not_asked_for(void **s)
{
    (void)s;
    struct trees t;
    struct session x;
    trees_make(&t);
    put_deep(t.b, "var/lib/dpkg/status", PKG("a", "1"));
    for (int i = 0; i < 2; i++) {
        int to = i ? t.u : t.a;
        make_path(to, "var/lib/dpkg/status");
        assert_int_equal(linkat(t.b, "var/lib/dpkg/status", to, "var/lib/dpkg/status", 0), 0);
    }
    usleep(50000); /* past the ticks in which an equal ctime proves nothing */
    session_start(&x, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    session_pass(&x);
    x.peer.before = count;
    questions = 0;
    assert_ok(molt_merge_check_packages(x.m, &x.vt, err));
    assert_int_equal(questions, 0);
    session_end(&x);
    trees_remove(&t);
}

/* ---- the plan and its report ---- */

static const struct molt_json *conflict(const struct molt_json *report, const char *list, const char *path)
{
    const struct molt_json *v = molt_json_get(report, list);
    for (size_t i = 0; i < molt_json_size(v); i++)
        if (molt_streq(molt_json_get_string(molt_json_at(v, i), "path"), path))
            return molt_json_at(v, i);
    fail_msg("%s is not among the %s", path, list);
    return NULL;
}

static struct molt_policy *decide(struct session *x, const struct molt_policy *under, const char *path, enum molt_policy_action a)
{
    const struct molt_decision d = {path, a, 1};
    struct molt_policy *p = molt_policy_decide(under, &d, 1);
    molt_merge_set_policy(x->m, p);
    return p;
}

static void plan_tells_all(void **s)
{
    (void)s;
    struct trees t;
    struct session x;
    trees_make(&t);
    put_deep(t.u, "var/lib/dpkg/info/shop.list", "/opt/prices\n");
    mkdir3(&t, "opt");
    put3(&t, "opt/prices", "one\ntwo\nthree\n");
    put3(&t, "opt/blob", "b");
    put3(&t, "opt/gone", "g");
    put3(&t, "opt/mine", "m");
    put(t.a, "opt/prices", "one\n2\nthree\n", 2000);
    put(t.u, "opt/prices", "one\nzwei\t\033[2J\nthree\n", 3000);
    put(t.a, "opt/blob", "x", 2000);
    int fd = openat(t.u, "opt/blob", O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "\0\1", 2), 2);
    close(fd);
    assert_int_equal(unlinkat(t.a, "opt/gone", 0), 0);
    put(t.u, "opt/gone", "changed", 3000);
    put(t.a, "opt/mine", "mine!", 2000);
    session_start(&x, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    CLEANUP_JSON struct molt_json *v = NULL;
    assert_ok(molt_merge_plan(x.m, &x.vt, &x.stats, &v, err));
    assert_int_equal(x.stats.conflicts_open, 3);
    assert_int_equal(molt_json_get_int(v, "conflicts_open", 0), 3);
    assert_int_equal(molt_json_get_int(v, "active_only", 0), 1);
    assert_int_equal(molt_json_get_int(molt_json_get(v, "actions"), "put", 0), 1);
    assert_int_equal(molt_json_get_int(v, "bytes_to_move", 0), 5);
    const struct molt_json *c = conflict(v, "conflicts", "/opt/prices");
    assert_string_equal(molt_json_get_string(c, "package"), "shop");
    assert_false(molt_json_get_bool(c, "conffile", true));
    assert_true(molt_json_get_bool(c, "open", false));
    assert_string_equal(molt_json_get_string(molt_json_get(c, "active"), "type"), "file");
    assert_string_equal(molt_json_get_string(molt_json_get(c, "active"), "mode"), "0644");
    assert_int_equal(molt_json_get_int(molt_json_get(c, "active"), "size", 0), 12);
    assert_string_equal(molt_json_get_string(molt_json_get(c, "upgrade"), "mtime"), "1970-01-01T00:50:00.000000Z");
    assert_string_equal(molt_json_get_string(c, "diff"),
                        "--- active\n+++ upgrade\n@@ -1,3 +1,3 @@\n one\n-2\n+zwei\t\\x1b[2J\n three\n");
    assert_string_equal(molt_json_get_string(conflict(v, "conflicts", "/opt/blob"), "no_diff"), "binary");
    c = conflict(v, "conflicts", "/opt/gone");
    assert_string_equal(molt_json_get_string(c, "no_diff"), "not two files");
    assert_int_equal(molt_json_type(molt_json_get(c, "active")), MOLT_JSON_NULL);
    assert_file(t.u, "opt/mine", "m"); /* nothing was done */
    session_end(&x);
    trees_remove(&t);
}

/* Texts that will not merge are listed before a pass has tried, and by the same means: account files by their keys. */
static void overlaps_are_foreseen(void **s)
{
    (void)s;
    struct trees t;
    struct session x;
    trees_make(&t);
    mkdir3(&t, "etc");
    put3(&t, "etc/a", "1\n2\n3\n4\n5\n");
    put3(&t, "etc/b", "1\n2\n3\n4\n5\n");
    put3(&t, "etc/passwd", "r:x:0\n");
    put3(&t, "open", "base");
    put(t.a, "etc/a", "1\n2\n3\n4\nactive\n", 2000);
    put(t.u, "etc/a", "upgrade\n2\n3\n4\n5\n", 2000);
    put(t.a, "etc/b", "1\n2\n3\n4\nactive\n", 2000);
    put(t.u, "etc/b", "1\n2\n3\n4\nupgrade\n", 2000);
    put(t.a, "etc/passwd", "r:x:0\na:x:9\n", 2000);
    put(t.u, "etc/passwd", "r:x:0\nu:x:8\n", 2000);
    put(t.a, "open", "active", 2000);
    put(t.u, "open", "upgrade", 2000);
    session_start(&x, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    CLEANUP_JSON struct molt_json *v = NULL, *w = NULL;
    assert_ok(molt_merge_plan(x.m, &x.vt, &x.stats, &v, err));
    assert_int_equal(molt_json_size(molt_json_get(v, "conflicts")), 2);
    const struct molt_json *c = conflict(v, "conflicts", "/etc/b");
    assert_string_equal(molt_json_get_string(c, "kind"), "text-overlap");
    assert_string_equal(molt_json_get_string(c, "decision"), "active");
    assert_false(molt_json_get_bool(c, "open", true));
    assert_non_null(strstr(molt_json_get_string(c, "diff"), "-active\n+upgrade\n"));
    assert_string_equal(molt_json_get_string(conflict(v, "settled", "/etc/a"), "decision"), "merge");
    /* The active gives way: the pass merges after all. */
    put(t.a, "etc/b", "active\n2\n3\n4\n5\n", 3000);
    CLEANUP_POLICY struct molt_policy *p = decide(&x, x.policy, "open", MOLT_POLICY_DROP);
    session_pass(&x);
    assert_file(t.u, "etc/b", "active\n2\n3\n4\nupgrade\n");
    assert_file(t.u, "etc/a", "upgrade\n2\n3\n4\nactive\n");
    assert_ok(molt_merge_plan(x.m, &x.vt, &x.stats, &w, err));
    assert_string_equal(molt_json_get_string(conflict(w, "settled", "/etc/b"), "decision"), "merge");
    session_end(&x);
    trees_remove(&t);
}

static void long_differences_are_cut(void **s)
{
    (void)s;
    struct trees t;
    struct session x;
    CLEANUP_STRBUF struct molt_strbuf a = MOLT_STRBUF_INIT, u = MOLT_STRBUF_INIT, huge = MOLT_STRBUF_INIT;
    trees_make(&t);
    for (int i = 0; i < 5000; i++) {
        molt_strbuf_addf(&a, "active %d\n", i);
        molt_strbuf_addf(&u, "upgrade %d\n", i);
    }
    while (huge.len <= MOLT_DIFF_FILE_MAX)
        molt_strbuf_addf(&huge, "%s", molt_strbuf_str(&a));
    put3(&t, "long", "x");
    put3(&t, "huge", "x");
    put(t.a, "long", a.s, 2000);
    put(t.u, "long", u.s, 2000);
    put(t.a, "huge", huge.s, 2000);
    put(t.u, "huge", "y", 2000);
    session_start(&x, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    CLEANUP_JSON struct molt_json *v = NULL;
    assert_ok(molt_merge_plan(x.m, &x.vt, &x.stats, &v, err));
    const char *d = molt_json_get_string(conflict(v, "conflicts", "/long"), "diff");
    assert_non_null(d);
    assert_true(strlen(d) <= MOLT_DIFF_MAX + 64);
    assert_non_null(strstr(d, " bytes more)\n"));
    assert_string_equal(molt_json_get_string(conflict(v, "conflicts", "/huge"), "no_diff"), "too large");
    session_end(&x);
    trees_remove(&t);
}

/* However many conflicts there are, the report stays within its bounds, and the open ones are not crowded out. */
static void reports_are_bounded(void **s)
{
    (void)s;
    struct trees t;
    struct session x;
    trees_make(&t);
    mkdir3(&t, "log");
    mkdir3(&t, "z");
    for (int i = 0; i < (int)MOLT_REPORT_SETTLED + 500; i++) {
        char name[64];
        snprintf(name, sizeof(name), "log/%05d", i);
        put(t.a, name, "a", 2000);
        put(t.u, name, "u!", 2000);
    }
    for (int i = 0; i < (int)MOLT_REPORT_CONFLICTS + 7; i++) {
        char name[64];
        snprintf(name, sizeof(name), "z/%05d", i);
        put(t.a, name, "a", 2000);
        put(t.u, name, "u!", 2000);
    }
    session_start(&x, &t, "log append /log/**\ndata refuse /**\n", MOLT_ON_CONFLICT_REFUSE);
    CLEANUP_JSON struct molt_json *v = NULL;
    assert_ok(molt_merge_plan(x.m, &x.vt, &x.stats, &v, err));
    assert_int_equal(molt_json_get_int(v, "conflicts_open", 0), MOLT_REPORT_CONFLICTS + 7);
    size_t n = molt_json_size(molt_json_get(v, "conflicts")), k = molt_json_size(molt_json_get(v, "settled"));
    assert_true(n > 1000 && n <= MOLT_REPORT_CONFLICTS);
    assert_int_equal(molt_json_get_int(v, "conflicts_omitted", 0), MOLT_REPORT_CONFLICTS + 7 - n);
    assert_int_equal(molt_json_get_int(v, "settled_omitted", 0), MOLT_REPORT_SETTLED + 500 - k);
    const struct molt_json *last = molt_json_at(molt_json_get(v, "conflicts"), n - 1);
    assert_string_equal(molt_json_get_string(last, "no_diff"), "too many conflicts");
    assert_non_null(molt_json_get_string(conflict(v, "conflicts", "/z/00000"), "diff"));
    CLEANUP_FREE char *text = molt_json_print(v, false);
    assert_true(strlen(text) < (8u << 20));
    session_end(&x);
    trees_remove(&t);
}

/* Decisions that come between passes, and that change after they were carried out. */
static void decisions_between_passes(void **s)
{
    (void)s;
    struct trees t;
    struct session x;
    trees_make(&t);
    put3(&t, "prices", "base\n");
    put3(&t, "other", "base\n");
    put(t.a, "prices", "active\n", 2000);
    put(t.u, "prices", "upgrade\n", 2500);
    put(t.a, "other", "other\n", 2000);
    session_start(&x, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    assert_code(MOLT_E_CONFLICT, molt_merge_pass(x.m, &x.vt, MOLT_PASS_NO_SYNC, &x.stats, err));
    assert_file(t.u, "other", "base\n");
    CLEANUP_POLICY struct molt_policy *p1 = decide(&x, x.policy, "prices", MOLT_POLICY_ACTIVE);
    session_pass(&x);
    assert_file(t.u, "prices", "active\n");
    assert_file(t.u, "other", "other\n");
    CLEANUP_POLICY struct molt_policy *p2 = decide(&x, p1, "prices", MOLT_POLICY_UPGRADE);
    session_pass(&x);
    assert_file(t.u, "prices", "upgrade\n");
    CLEANUP_POLICY struct molt_policy *p3 = decide(&x, p2, "prices", MOLT_POLICY_APPEND);
    session_pass(&x);
    assert_file(t.u, "prices", "active\nupgrade\n");
    CLEANUP_POLICY struct molt_policy *p4 = decide(&x, p3, "prices", MOLT_POLICY_MERGE);
    session_pass(&x);
    assert_file(t.u, "prices", "active\n");
    assert_file(t.u, "prices.xenmolt-upgrade", "upgrade\n");
    CLEANUP_JSON struct molt_json *v = molt_merge_report(x.m);
    assert_string_equal(molt_json_get_string(conflict(v, "conflicts", "/prices"), "kind"), "text-overlap");
    CLEANUP_JSON struct molt_json *plan = NULL;
    assert_ok(molt_merge_plan(x.m, &x.vt, &x.stats, &plan, err));
    const struct molt_json *overlap = conflict(plan, "conflicts", "/prices");
    assert_string_equal(molt_json_get_string(overlap, "decision"), "active");
    assert_string_equal(molt_json_get_string(overlap, "diff"), "--- active\n+++ upgrade\n@@ -1 +1 @@\n-active\n+upgrade\n");
    CLEANUP_POLICY struct molt_policy *p5 = decide(&x, p4, "prices", MOLT_POLICY_ACTIVE);
    CLEANUP_POLICY struct molt_policy *p6 = decide(&x, p5, "no/such", MOLT_POLICY_DROP);
    usleep(50000); /* past the ticks in which an equal ctime proves nothing */
    session_pass(&x);
    session_pass(&x);
    assert_int_equal(x.stats.actions, 0);
    assert_file(t.u, "prices", "active\n");
    CLEANUP_JSON struct molt_json *w = molt_merge_report(x.m);
    const struct molt_json *c = conflict(w, "conflicts", "/prices");
    assert_string_equal(molt_json_get_string(c, "decision"), "active");
    assert_false(molt_json_get_bool(c, "open", true));
    assert_int_equal(molt_json_size(molt_json_get(w, "unused_decisions")), 1);
    assert_string_equal(molt_json_get_string(conflict(w, "unused_decisions", "/no/such"), "action"), "drop");
    session_end(&x);
    trees_remove(&t);
}

/* A directory cannot be appended to, nor can a link: such a decision settles nothing. */
static void decisions_that_cannot_be(void **s)
{
    (void)s;
    struct trees t;
    struct session x;
    trees_make(&t);
    mkdir3(&t, "d");
    assert_int_equal(fchmodat(t.a, "d", 0700, 0), 0);
    assert_int_equal(fchmodat(t.u, "d", 0711, 0), 0);
    put3(&t, "f", "base");
    put(t.a, "f", "a", 2000);
    unlinkat(t.u, "f", 0);
    assert_int_equal(symlinkat("to", t.u, "f"), 0);
    session_start(&x, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    CLEANUP_POLICY struct molt_policy *p1 = decide(&x, x.policy, "d", MOLT_POLICY_APPEND);
    CLEANUP_POLICY struct molt_policy *p2 = decide(&x, p1, "f", MOLT_POLICY_APPEND);
    assert_code(MOLT_E_CONFLICT, molt_merge_pass(x.m, &x.vt, MOLT_PASS_NO_SYNC, &x.stats, err));
    assert_int_equal(x.stats.conflicts_open, 2);
    CLEANUP_POLICY struct molt_policy *p3 = decide(&x, p2, "d", MOLT_POLICY_ACTIVE);
    CLEANUP_POLICY struct molt_policy *p4 = decide(&x, p3, "f", MOLT_POLICY_UPGRADE);
    session_pass(&x);
    struct stat st;
    assert_int_equal(fstatat(t.u, "d", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(fstatat(t.u, "f", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISLNK(st.st_mode));
    session_end(&x);
    trees_remove(&t);
}

static void bytes_are_made_printable(void **s)
{
    (void)s;
    const char raw[] = "a\\b\t\xff\n\xc3\xa4\x1b\n";
    CLEANUP_FREE char *text = molt__printable(raw, sizeof(raw) - 1);
    assert_string_equal(text, "a\\b\t\\xff\n\xc3\xa4\\x1b\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decisions_come_first),
        cmocka_unit_test(conffiles_outside_etc),
        cmocka_unit_test(rpm_policy),
        cmocka_unit_test(policy_by_system),
        cmocka_unit_test(conffiles_of_a_status_file),
        cmocka_unit_test(owners_of_paths),
        cmocka_unit_test(changed_packages_are_refused),
        cmocka_unit_test(unchanged_databases_are_not_asked_for),
        cmocka_unit_test(plan_tells_all),
        cmocka_unit_test(overlaps_are_foreseen),
        cmocka_unit_test(long_differences_are_cut),
        cmocka_unit_test(reports_are_bounded),
        cmocka_unit_test(decisions_between_passes),
        cmocka_unit_test(decisions_that_cannot_be),
        cmocka_unit_test(bytes_are_made_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
