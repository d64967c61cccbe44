/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The corner cases that the documents of other tools name, each by name and under the default policy: the merge of /etc of
 * ostree's deployments, HP-UX drd sync, Solaris Live Upgrade's synclist. Where ours differs from theirs, the test says how.
 */
#include <sys/sysmacros.h>

#include "test_merge_util.h"

static struct trees t;
static struct session ss;

static int begin_in(const char *tmp)
{
    static const char *const dirs[] = {"etc", "usr", "usr/bin", "var", "var/log", "var/tmp", "tmp", "srv", "opt"};
    umask(022);
    trees_make_in(&t, tmp);
    for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++)
        mkdir3(&t, dirs[i]);
    return 0;
}

static int begin(void **s)
{
    (void)s;
    return begin_in(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
}

static int begin_in_memory(void **s)
{
    (void)s;
    return begin_in(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
}

static int end(void **s)
{
    (void)s;
    trees_remove(&t);
    return 0;
}

static void merge_with(const char *policy, enum molt_on_conflict oc)
{
    session_start(&ss, &t, policy, oc);
    session_pass(&ss);
    session_pass(&ss); /* and nothing is done twice */
}

static void merge_all(void)
{
    merge_with(NULL, MOLT_ON_CONFLICT_REFUSE);
}

/* "PATH KIND DECISION" of what a human should see, in order, and forgets the merge. */
static char *listed(void)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    CLEANUP_JSON struct molt_json *r = molt_merge_report(ss.m);
    const struct molt_json *list = molt_json_get(r, "conflicts");
    for (size_t i = 0; i < molt_json_size(list); i++) {
        const struct molt_json *c = molt_json_at(list, i);
        molt_strbuf_addf(&b, "%s%s %s %s", i ? ", " : "", molt_json_get_string(c, "path"), molt_json_get_string(c, "kind"),
                         molt_json_get_string(c, "decision"));
    }
    session_end(&ss);
    return molt_strbuf_steal(&b);
}

#define assert_listed(want)                                 \
    do {                                                    \
        CLEANUP_FREE char *got_ = listed();                 \
        assert_string_equal(got_ ? got_ : "", want);        \
    } while (0)

static mode_t mode_of(const char *path)
{
    struct stat st;
    return fstatat(t.u, path, &st, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : st.st_mode;
}

static void mode(int at, const char *path, mode_t m)
{
    assert_int_equal(fchmodat(at, path, m, 0), 0);
}

static bool set_note(int at, const char *path, const char *v)
{
    CLEANUP_CLOSE int fd = openat(at, path, O_RDONLY);
    return fsetxattr(fd, "user.note", v, strlen(v), 0) == 0;
}

static void assert_note(const char *path, const char *want)
{
    char v[16] = "";
    CLEANUP_CLOSE int fd = openat(t.u, path, O_RDONLY);
    assert_true(fgetxattr(fd, "user.note", v, sizeof(v) - 1) > 0);
    assert_string_equal(v, want);
}

/* --- ostree: /etc of the old deployment against its defaults, onto the new defaults --- */

static void ostree_changed_upstream_alone_is_the_new_default(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n");
    put(t.u, "etc/conf", "2\n", 3000);
    merge_all();
    assert_file(t.u, "etc/conf", "2\n");
    assert_listed("");
}

static void ostree_modified_locally_and_unchanged_upstream_is_kept(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n");
    put(t.a, "etc/conf", "a\n", 2000);
    merge_all();
    assert_file(t.u, "etc/conf", "a\n");
    assert_listed("");
}

/* ostree keeps it in silence. */
static void ostree_modified_locally_and_removed_upstream_is_kept_and_listed(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n");
    put(t.a, "etc/conf", "a\n", 2000);
    unlinkat(t.u, "etc/conf", 0);
    merge_all();
    assert_file(t.u, "etc/conf", "a\n");
    assert_listed("/etc/conf deleted-vs-changed active");
}

static void ostree_unmodified_and_removed_upstream_goes(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n");
    unlinkat(t.u, "etc/conf", 0);
    merge_all();
    assert_file(t.u, "etc/conf", NULL);
    assert_listed("");
}

static void ostree_deleted_locally_stays_deleted(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n");
    unlinkat(t.a, "etc/conf", 0);
    merge_all();
    assert_file(t.u, "etc/conf", NULL);
    assert_listed("");
}

/* ostree deletes the new version; ours is laid beside. */
static void ostree_deleted_locally_and_changed_upstream_stays_deleted_the_new_one_beside(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n");
    unlinkat(t.a, "etc/conf", 0);
    put(t.u, "etc/conf", "2\n", 3000);
    merge_all();
    assert_file(t.u, "etc/conf", NULL);
    assert_file(t.u, "etc/conf.xenmolt-upgrade", "2\n");
    assert_listed("/etc/conf deleted-vs-changed active");
}

static void ostree_new_local_file_in_a_directory_removed_upstream_keeps_the_directory(void **s)
{
    (void)s;
    mkdir3(&t, "etc/conf.d");
    put3(&t, "etc/conf.d/theirs", "1\n");
    mode(t.a, "etc/conf.d", 0750);
    mode(t.b, "etc/conf.d", 0750);
    put(t.a, "etc/conf.d/mine", "a\n", 2000);
    unlinkat(t.u, "etc/conf.d/theirs", 0);
    unlinkat(t.u, "etc/conf.d", AT_REMOVEDIR);
    merge_all();
    assert_file(t.u, "etc/conf.d/mine", "a\n");
    assert_file(t.u, "etc/conf.d/theirs", NULL);
    assert_int_equal(mode_of("etc/conf.d") & 07777, 0750);
    assert_listed("");
}

/* ostree gives up: "newly defaults to directory". */
static void ostree_modified_file_that_becomes_a_directory_upstream_is_a_conflict(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n");
    put(t.a, "etc/conf", "a\n", 2000);
    unlinkat(t.u, "etc/conf", 0);
    assert_int_equal(mkdirat(t.u, "etc/conf", 0755), 0);
    put(t.u, "etc/conf/part", "2\n", 3000);
    merge_all();
    assert_file(t.u, "etc/conf", "a\n");
    assert_listed("/etc/conf file-vs-directory active");
}

static void ostree_unmodified_file_becomes_a_directory_upstream(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n");
    unlinkat(t.u, "etc/conf", 0);
    assert_int_equal(mkdirat(t.u, "etc/conf", 0755), 0);
    put(t.u, "etc/conf/part", "2\n", 3000);
    merge_all();
    assert_file(t.u, "etc/conf/part", "2\n");
    assert_listed("");
}

static void ostree_directory_becomes_a_file_locally(void **s)
{
    (void)s;
    mkdir3(&t, "etc/conf.d");
    put3(&t, "etc/conf.d/part", "1\n");
    unlinkat(t.a, "etc/conf.d/part", 0);
    unlinkat(t.a, "etc/conf.d", AT_REMOVEDIR);
    put(t.a, "etc/conf.d", "a\n", 2000);
    merge_all();
    assert_file(t.u, "etc/conf.d", "a\n");
    assert_listed("");
}

static void ostree_symlink_becomes_a_directory_locally(void **s)
{
    (void)s;
    symlinkat("../usr", t.b, "etc/link");
    symlinkat("../usr", t.a, "etc/link");
    symlinkat("../usr", t.u, "etc/link");
    unlinkat(t.a, "etc/link", 0);
    assert_int_equal(mkdirat(t.a, "etc/link", 0755), 0);
    put(t.a, "etc/link/mine", "a\n", 2000);
    merge_all();
    assert_file(t.u, "etc/link/mine", "a\n");
    assert_file(t.u, "usr/mine", NULL); /* nothing went through the link */
    assert_listed("");
}

static void ostree_directory_becomes_a_symlink_locally_and_upstream_adds_to_it(void **s)
{
    (void)s;
    mkdir3(&t, "etc/conf.d");
    unlinkat(t.a, "etc/conf.d", AT_REMOVEDIR);
    symlinkat("../srv", t.a, "etc/conf.d");
    put(t.u, "etc/conf.d/new", "2\n", 3000);
    merge_all();
    assert_true(S_ISLNK(mode_of("etc/conf.d")));
    assert_file(t.u, "srv/new", NULL);
    assert_listed("/etc/conf.d file-vs-directory active");
}

/* ostree takes the whole local file, and the new default is lost. */
static void ostree_mode_alone_changed_locally_and_content_upstream_gives_both(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n");
    mode(t.a, "etc/conf", 0600);
    put(t.u, "etc/conf", "2\n", 3000);
    merge_all();
    assert_file(t.u, "etc/conf", "2\n");
    assert_int_equal(mode_of("etc/conf") & 07777, 0600);
    assert_listed("");
}

static void ostree_xattr_alone_changed_locally_and_content_upstream_gives_both(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n");
    if (!set_note(t.a, "etc/conf", "mine")) {
        print_message("no user xattrs here: skipped\n");
        skip();
    }
    put(t.u, "etc/conf", "2\n", 3000);
    merge_all();
    assert_file(t.u, "etc/conf", "2\n");
    assert_note("etc/conf", "mine");
    assert_listed("");
}

static void ostree_texts_of_both_sides_are_merged_with_the_xattrs_of_the_one_that_set_them(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n2\n3\n4\n5\n");
    put(t.a, "etc/conf", "1\n2\n3\n4\n5a\n", 2000);
    put(t.u, "etc/conf", "1u\n2\n3\n4\n5\n", 3000);
    bool xattrs = set_note(t.u, "etc/conf", "theirs");
    merge_all();
    assert_file(t.u, "etc/conf", "1u\n2\n3\n4\n5a\n");
    if (xattrs)
        assert_note("etc/conf", "theirs");
    assert_listed("");
}

static void ostree_mode_of_a_directory_changed_locally(void **s)
{
    (void)s;
    mkdir3(&t, "etc/conf.d");
    mode(t.a, "etc/conf.d", 0700);
    put(t.u, "etc/conf.d/new", "2\n", 3000);
    merge_all();
    assert_int_equal(mode_of("etc/conf.d") & 07777, 0700);
    assert_file(t.u, "etc/conf.d/new", "2\n");
    assert_listed("");
}

static void ostree_added_on_both_sides_keeps_the_local_one_and_lays_the_other_beside(void **s)
{
    (void)s;
    put(t.a, "etc/conf", "a\n", 2000);
    put(t.u, "etc/conf", "u\n", 3000);
    merge_all();
    assert_file(t.u, "etc/conf", "a\n");
    assert_file(t.u, "etc/conf.xenmolt-upgrade", "u\n");
    assert_listed("/etc/conf text-overlap active");
}

static void ostree_the_same_change_on_both_sides_is_no_conflict(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n2\n3\n4\n5\n");
    put(t.a, "etc/conf", "1\n2\nx\n4\n5a\n", 2000);
    put(t.u, "etc/conf", "1u\n2\nx\n4\n5\n", 3000);
    put3(&t, "etc/same", "1\n");
    put(t.a, "etc/same", "2\n", 2000);
    put(t.u, "etc/same", "2\n", 3000);
    merge_all();
    assert_file(t.u, "etc/conf", "1u\n2\nx\n4\n5a\n");
    assert_file(t.u, "etc/conf.xenmolt-upgrade", NULL);
    assert_listed("");
}

static void ostree_a_conflict_that_is_taken_back_leaves_nothing_beside(void **s)
{
    (void)s;
    put3(&t, "etc/conf", "1\n");
    put(t.a, "etc/conf", "a\n", 2000);
    put(t.u, "etc/conf", "u\n", 3000);
    merge_all();
    assert_file(t.u, "etc/conf.xenmolt-upgrade", "u\n");
    put(t.a, "etc/conf", "1\n", 1000);
    session_pass(&ss);
    assert_file(t.u, "etc/conf", "u\n");
    assert_file(t.u, "etc/conf.xenmolt-upgrade", NULL);
    assert_listed("");
}

/* --- HP-UX drd sync: what changed on the booted system, to the clone --- */

/* drd leaves out logs that grew on both. */
static void drd_log_that_grew_on_both_sides_loses_no_line(void **s)
{
    (void)s;
    put3(&t, "var/log/syslog", "1\n");
    put(t.a, "var/log/syslog", "1\na\n", 2000);
    put(t.u, "var/log/syslog", "1\nu\n", 3000);
    merge_all();
    assert_file(t.u, "var/log/syslog", "1\na\nu\n");
    put(t.a, "var/log/syslog", "1\na\na2\n", 2001);
    session_pass(&ss);
    assert_file(t.u, "var/log/syslog", "1\na\na2\nu\n");
    assert_listed("");
}

static void drd_log_that_was_rotated_on_the_booted_system(void **s)
{
    (void)s;
    put3(&t, "var/log/syslog", "1\n");
    assert_int_equal(renameat(t.a, "var/log/syslog", t.a, "var/log/syslog.1"), 0);
    put(t.a, "var/log/syslog", "a\n", 2000);
    put(t.u, "var/log/syslog", "1\nu\n", 3000);
    merge_all();
    assert_file(t.u, "var/log/syslog.1", "1\n");
    assert_file(t.u, "var/log/syslog", "a\nu\n");
    assert_listed("");
}

/* drd never copies what a package delivered. */
static void drd_package_file_changed_on_the_booted_system_alone_comes_over(void **s)
{
    (void)s;
    put3(&t, "usr/bin/tool", "1\n");
    put(t.a, "usr/bin/tool", "a\n", 2000);
    merge_all();
    assert_file(t.u, "usr/bin/tool", "a\n");
    assert_listed("");
}

/* drd keeps the clone's and writes a line into its log. */
static void drd_package_file_changed_on_both_sides_is_refused(void **s)
{
    (void)s;
    put3(&t, "usr/bin/tool", "1\n");
    put(t.a, "usr/bin/tool", "a\n", 2000);
    put(t.u, "usr/bin/tool", "u\n", 3000);
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    assert_code(MOLT_E_CONFLICT, molt_merge_pass(ss.m, &ss.vt, 0, &ss.stats, err));
    assert_file(t.u, "usr/bin/tool", "u\n");
    assert_listed("/usr/bin/tool changed-both refuse");
}

static void drd_file_changed_on_the_clone_alone_stays(void **s)
{
    (void)s;
    put3(&t, "usr/bin/tool", "1\n");
    put(t.u, "usr/bin/tool", "u\n", 3000);
    merge_all();
    assert_file(t.u, "usr/bin/tool", "u\n");
    assert_listed("");
}

static void drd_volatile_files_are_left(void **s)
{
    (void)s;
    put3(&t, "tmp/x", "1\n");
    put(t.a, "tmp/x", "a\n", 2000);
    put(t.u, "tmp/x", "u\n", 3000);
    put3(&t, "var/tmp/x", "1\n");
    put(t.a, "var/tmp/x", "a\n", 2000);
    put(t.u, "var/tmp/x", "u\n", 3000);
    merge_all();
    assert_file(t.u, "tmp/x", "u\n");
    assert_file(t.u, "var/tmp/x", "u\n");
    assert_listed("");
}

static void drd_file_deleted_on_the_booted_system_goes(void **s)
{
    (void)s;
    mkdir3(&t, "srv/old");
    put3(&t, "srv/old/x", "1\n");
    unlinkat(t.a, "srv/old/x", 0);
    unlinkat(t.a, "srv/old", AT_REMOVEDIR);
    merge_all();
    assert_int_equal(mode_of("srv/old"), 0);
    assert_listed("");
}

static void drd_non_regular_files_come_over(void **s)
{
    struct stat st;
    (void)s;
    assert_int_equal(mkfifoat(t.a, "srv/pipe", 0622), 0);
    assert_int_equal(mknodat(t.a, "srv/socket", S_IFSOCK | 0600, 0), 0);
    symlinkat("nowhere", t.a, "srv/link");
    bool root = geteuid() == 0;
    if (root)
        assert_int_equal(mknodat(t.a, "srv/disk", S_IFBLK | 0640, makedev(8, 300)), 0);
    merge_all();
    assert_int_equal(mode_of("srv/pipe"), S_IFIFO | (0622 & ~022));
    assert_int_equal(mode_of("srv/socket"), S_IFSOCK | 0600);
    assert_true(S_ISLNK(mode_of("srv/link")));
    if (root) {
        assert_int_equal(fstatat(t.u, "srv/disk", &st, AT_SYMLINK_NOFOLLOW), 0);
        assert_true(S_ISBLK(st.st_mode) && st.st_rdev == makedev(8, 300));
    }
    assert_listed("");
}

static void drd_hard_links_stay_linked(void **s)
{
    struct stat x, y;
    (void)s;
    mkdir3(&t, "srv/d");
    put3(&t, "srv/a", "1\n");
    assert_int_equal(linkat(t.a, "srv/a", t.a, "srv/d/b", 0), 0);
    put(t.a, "srv/new", "2\n", 2000);
    assert_int_equal(linkat(t.a, "srv/new", t.a, "srv/d/new", 0), 0);
    merge_all();
    assert_true(fstatat(t.u, "srv/a", &x, 0) == 0 && fstatat(t.u, "srv/d/b", &y, 0) == 0 && x.st_ino == y.st_ino);
    assert_true(fstatat(t.u, "srv/new", &x, 0) == 0 && fstatat(t.u, "srv/d/new", &y, 0) == 0 && x.st_ino == y.st_ino);
    assert_listed("");
}

/* --- Solaris Live Upgrade: /etc/lu/synclist at the first boot of the new environment --- */

static void synclist_overwrite_is_the_action_active(void **s)
{
    (void)s;
    put3(&t, "opt/f", "1\n");
    put(t.a, "opt/f", "a\n", 2000);
    put(t.u, "opt/f", "u\n", 3000);
    merge_with("data active /opt/f\n", MOLT_ON_CONFLICT_REFUSE);
    assert_file(t.u, "opt/f", "a\n");
    assert_listed("");
}

/* The synclist appends the old environment's whole file to the new one, with all that both had; ours has each line once. */
static void synclist_append_has_no_line_twice(void **s)
{
    (void)s;
    put3(&t, "opt/f", "1\n2\n");
    put(t.a, "opt/f", "1\n2\na\n", 2000);
    put(t.u, "opt/f", "1\n2\nu\n", 3000);
    merge_with("log append /opt/**\n", MOLT_ON_CONFLICT_REFUSE);
    assert_file(t.u, "opt/f", "1\n2\na\nu\n");
    assert_listed("");
}

/* The old environment's in front of the new: the order that append has, where the new file is another one altogether. */
static void synclist_prepend_is_append_to_a_file_that_was_begun_anew(void **s)
{
    (void)s;
    put3(&t, "opt/f", "1\n");
    put(t.a, "opt/f", "1\na\n", 2000);
    put(t.u, "opt/f", "u\n", 3000);
    merge_with("log append /opt/**\n", MOLT_ON_CONFLICT_REFUSE);
    assert_file(t.u, "opt/f", "1\na\nu\n");
    assert_listed("");
}

static void synclist_of_a_file_that_only_one_environment_has(void **s)
{
    (void)s;
    put(t.a, "opt/mine", "a\n", 2000);
    put(t.u, "opt/theirs", "u\n", 3000);
    merge_with("log append /opt/**\n", MOLT_ON_CONFLICT_REFUSE);
    assert_file(t.u, "opt/mine", "a\n");
    assert_file(t.u, "opt/theirs", "u\n");
    assert_listed("");
}

/* The synclist overwrites passwd: accounts that the upgrade made are lost. */
static void synclist_passwd_keeps_the_accounts_of_both(void **s)
{
    (void)s;
    put3(&t, "etc/passwd", "root:x:0:0\n");
    put(t.a, "etc/passwd", "root:x:0:0\nanna:x:1000:1000\n", 2000);
    put(t.u, "etc/passwd", "root:x:0:0\n_new:x:105:105\n", 3000);
    merge_all();
    assert_file(t.u, "etc/passwd", "root:x:0:0\n_new:x:105:105\nanna:x:1000:1000\n");
    assert_listed("");
}

/* A name of the list that is a directory stands for all below it. */
static void synclist_directory_stands_for_all_below_it(void **s)
{
    (void)s;
    mkdir3(&t, "opt/d");
    mkdir3(&t, "opt/d/e");
    put3(&t, "opt/d/e/f", "1\n");
    put(t.a, "opt/d/e/f", "a\n", 2000);
    put(t.u, "opt/d/e/f", "u\n", 3000);
    merge_with("data active /opt/d/**\n", MOLT_ON_CONFLICT_REFUSE);
    assert_file(t.u, "opt/d/e/f", "a\n");
    assert_listed("");
}

/* --- size --- */

static void a_directory_of_100000_entries(void **s)
{
    enum { N = 100000 };
    const int sides[] = {t.b, t.a, t.u};
    char name[40];
    (void)s;
    mkdir3(&t, "srv/many");
    for (int k = 0; k < 3; k++) {
        int d = open_dir(sides[k], "srv/many");
        for (int i = 0; i < N; i++) {
            snprintf(name, sizeof(name), "%05d", i);
            close(openat(d, name, O_WRONLY | O_CREAT, 0644));
        }
        close(d);
    }
    put(t.a, "srv/many/00007", "a\n", 2000);
    put(t.u, "srv/many/99999", "u\n", 3000);
    unlinkat(t.a, "srv/many/50000", 0);
    unlinkat(t.u, "srv/many/50001", 0);
    put(t.a, "srv/many/new", "n\n", 2000);
    merge_all();
    assert_file(t.u, "srv/many/00007", "a\n");
    assert_file(t.u, "srv/many/99999", "u\n");
    assert_file(t.u, "srv/many/50000", NULL);
    assert_file(t.u, "srv/many/50001", NULL);
    assert_file(t.u, "srv/many/new", "n\n");
    assert_listed("");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(ostree_changed_upstream_alone_is_the_new_default),
        CASE(ostree_modified_locally_and_unchanged_upstream_is_kept),
        CASE(ostree_modified_locally_and_removed_upstream_is_kept_and_listed),
        CASE(ostree_unmodified_and_removed_upstream_goes),
        CASE(ostree_deleted_locally_stays_deleted),
        CASE(ostree_deleted_locally_and_changed_upstream_stays_deleted_the_new_one_beside),
        CASE(ostree_new_local_file_in_a_directory_removed_upstream_keeps_the_directory),
        CASE(ostree_modified_file_that_becomes_a_directory_upstream_is_a_conflict),
        CASE(ostree_unmodified_file_becomes_a_directory_upstream),
        CASE(ostree_directory_becomes_a_file_locally),
        CASE(ostree_symlink_becomes_a_directory_locally),
        CASE(ostree_directory_becomes_a_symlink_locally_and_upstream_adds_to_it),
        CASE(ostree_mode_alone_changed_locally_and_content_upstream_gives_both),
        CASE(ostree_xattr_alone_changed_locally_and_content_upstream_gives_both),
        CASE(ostree_texts_of_both_sides_are_merged_with_the_xattrs_of_the_one_that_set_them),
        CASE(ostree_mode_of_a_directory_changed_locally),
        CASE(ostree_added_on_both_sides_keeps_the_local_one_and_lays_the_other_beside),
        CASE(ostree_the_same_change_on_both_sides_is_no_conflict),
        CASE(ostree_a_conflict_that_is_taken_back_leaves_nothing_beside),
        CASE(drd_log_that_grew_on_both_sides_loses_no_line),
        CASE(drd_log_that_was_rotated_on_the_booted_system),
        CASE(drd_package_file_changed_on_the_booted_system_alone_comes_over),
        CASE(drd_package_file_changed_on_both_sides_is_refused),
        CASE(drd_file_changed_on_the_clone_alone_stays),
        CASE(drd_volatile_files_are_left),
        CASE(drd_file_deleted_on_the_booted_system_goes),
        CASE(drd_non_regular_files_come_over),
        CASE(drd_hard_links_stay_linked),
        CASE(synclist_overwrite_is_the_action_active),
        CASE(synclist_append_has_no_line_twice),
        CASE(synclist_prepend_is_append_to_a_file_that_was_begun_anew),
        CASE(synclist_of_a_file_that_only_one_environment_has),
        CASE(synclist_passwd_keeps_the_accounts_of_both),
        CASE(synclist_directory_stands_for_all_below_it),
        cmocka_unit_test_setup_teardown(a_directory_of_100000_entries, begin_in_memory, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
