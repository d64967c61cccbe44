/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Scan, pack, apply and whole passes on scratch trees. */
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "test_merge_util.h"

static void stat_of(int at, const char *path, struct stat *st)
{
    assert_int_equal(fstatat(at, path, st, AT_SYMLINK_NOFOLLOW), 0);
}

static void everything_that_a_file_is(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    struct stat st, su;
    char target[32] = "";
    trees_make(&t);
    put(t.a, "plain", "text", 12345);
    assert_int_equal(fchmodat(t.a, "plain", 06751, 0), 0);
    assert_int_equal(symlinkat("/nowhere/\xff", t.a, "link"), 0);
    assert_int_equal(mkfifoat(t.a, "fifo", 0620), 0);
    assert_int_equal(mkdirat(t.a, "dir", 01777), 0);
    put(t.a, "dir/odd \n\xff\\name", "odd", 77);
    put(t.a, "dir/empty", "", 78);
    put(t.a, "one", "linked", 79);
    assert_int_equal(linkat(t.a, "one", t.a, "dir/two", 0), 0);
    bool root = geteuid() == 0;
    if (root) {
        assert_int_equal(mknodat(t.a, "null", S_IFCHR | 0666, makedev(1, 3)), 0);
        assert_int_equal(fchownat(t.a, "plain", 12, 34, 0), 0);
        assert_int_equal(fchmodat(t.a, "plain", 06751, 0), 0);
    } else {
        print_message("not root: owners and devices are not checked\n");
    }
    int fd = openat(t.a, "plain", O_RDWR);
    bool xattrs = fsetxattr(fd, "user.note", "v\0w", 3, 0) == 0;
    close(fd);
    set_time(t.a, "plain", 12345);
    set_time(t.a, "dir", 4242);
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    session_pass(&ss);
    stat_of(t.u, "plain", &st);
    assert_int_equal(st.st_mode & 07777, 06751);
    assert_int_equal(st.st_mtim.tv_sec, 12345);
    assert_int_equal(st.st_mtim.tv_nsec, 7);
    if (root)
        assert_int_equal(st.st_uid * 100 + st.st_gid, 1234);
    if (xattrs) {
        char v[8];
        fd = openat(t.u, "plain", O_RDONLY);
        assert_int_equal(fgetxattr(fd, "user.note", v, sizeof(v)), 3);
        assert_memory_equal(v, "v\0w", 3);
        close(fd);
    } else {
        print_message("no user xattrs here: not checked\n");
    }
    assert_int_equal(readlinkat(t.u, "link", target, sizeof(target) - 1), 10);
    assert_string_equal(target, "/nowhere/\xff");
    stat_of(t.u, "fifo", &st);
    assert_true(S_ISFIFO(st.st_mode));
    assert_file(t.u, "dir/odd \n\xff\\name", "odd");
    assert_file(t.u, "dir/empty", "");
    stat_of(t.u, "one", &st);
    stat_of(t.u, "dir/two", &su);
    assert_int_equal(st.st_ino, su.st_ino);
    stat_of(t.u, "dir", &st);
    assert_int_equal(st.st_mtim.tv_sec, 4242);
    assert_int_equal(st.st_mode & 07777, 01777 & ~022);
    if (root) {
        stat_of(t.u, "null", &st);
        assert_true(S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3));
    }
    session_end(&ss);
    trees_remove(&t);
}

static void holes_stay_holes(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    struct stat st;
    trees_make(&t);
    int fd = openat(t.a, "sparse", O_RDWR | O_CREAT, 0600);
    assert_int_equal(pwrite(fd, "x", 1, 8 << 20), 1);
    assert_int_equal(ftruncate(fd, 64 << 20), 0);
    close(fd);
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    session_pass(&ss);
    stat_of(t.u, "sparse", &st);
    assert_int_equal(st.st_size, 64 << 20);
    assert_true(st.st_blocks * 512 < 1 << 20);
    assert_true(ss.stats.bytes < 1 << 20);
    session_end(&ss);
    trees_remove(&t);
}

static void text_logs_and_beside(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    trees_make(&t);
    mkdir3(&t, "etc");
    mkdir3(&t, "var");
    mkdir3(&t, "var/log");
    mkdir3(&t, "var/log/journal");
    put3(&t, "etc/conf", "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    put(t.a, "etc/conf", "1a\n2\n3\n4\n5\n6\n7\n8\n9\n", 2000);
    put(t.u, "etc/conf", "1\n2\n3\n4\n5\n6\n7\n8\n9u\n", 3000);
    put3(&t, "etc/clash", "1\n");
    put(t.a, "etc/clash", "a\n", 2000);
    put(t.u, "etc/clash", "u\n", 3000);
    put3(&t, "etc/gone", "1\n");
    unlinkat(t.a, "etc/gone", 0);
    put(t.u, "etc/gone", "2\n", 3000);
    put3(&t, "etc/passwd", "root:x:0:0\n");
    put(t.a, "etc/passwd", "root:x:0:0\nanna:x:1000:1000\n", 2000);
    put(t.u, "etc/passwd", "root:x:0:0\n_apt:x:42:65534\n", 3000);
    put3(&t, "var/log/dpkg.log", "base\n");
    put(t.a, "var/log/dpkg.log", "base\nactive\n", 2000);
    put(t.u, "var/log/dpkg.log", "base\nupgrade\n", 3000);
    put3(&t, "var/log/journal/system.journal", "b");
    put(t.a, "var/log/journal/system.journal", "a", 2000);
    put(t.u, "var/log/journal/system.journal", "u", 3000);
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    for (int pass = 0; pass < 2; pass++) {
        session_pass(&ss);
        assert_file(t.u, "etc/conf", "1a\n2\n3\n4\n5\n6\n7\n8\n9u\n");
        assert_file(t.u, "etc/clash", "a\n");
        assert_file(t.u, "etc/clash.xenmolt-upgrade", "u\n");
        assert_file(t.u, "etc/gone", NULL);
        assert_file(t.u, "etc/gone.xenmolt-upgrade", "2\n");
        assert_file(t.u, "etc/passwd", "root:x:0:0\n_apt:x:42:65534\nanna:x:1000:1000\n");
        assert_file(t.u, "var/log/dpkg.log",
                    pass ? "base\nactive\nmore\nupgrade\n" : "base\nactive\nupgrade\n");
        assert_file(t.u, "var/log/journal/system.journal", "u");
        assert_file(t.u, "var/log/journal/system@xenmolt-active.journal", "a");
        put(t.a, "var/log/dpkg.log", "base\nactive\nmore\n",
            2001); /* recomputed from the originals, not appended twice */
    }
    CLEANUP_JSON struct molt_json *r = molt_merge_report(ss.m);
    const struct molt_json *list = molt_json_get(r, "conflicts");
    assert_int_equal(molt_json_size(list), 2);
    assert_string_equal(molt_json_get_string(molt_json_at(list, 0), "path"), "/etc/clash");
    assert_string_equal(molt_json_get_string(molt_json_at(list, 0), "kind"), "text-overlap");
    assert_string_equal(molt_json_get_string(molt_json_at(list, 0), "decision"), "active");
    assert_int_equal(molt_json_size(molt_json_get(r, "settled")), 4);
    session_end(&ss);
    trees_remove(&t);
}

static void open_conflict_changes_nothing(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    trees_make(&t);
    put3(&t, "data", "1");
    put(t.a, "data", "a", 2000);
    put(t.u, "data", "u", 3000);
    put(t.a, "other", "new", 2000);
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    assert_code(MOLT_E_CONFLICT, molt_merge_pass(ss.m, &ss.vt, 0, &ss.stats, err));
    assert_int_equal(ss.stats.conflicts_open, 1);
    assert_file(t.u, "data", "u");
    assert_file(t.u, "other", NULL);
    /* settled by hand on the active: the next pass goes through */
    put(t.a, "data", "u", 2000);
    session_pass(&ss);
    assert_file(t.u, "other", "new");
    session_end(&ss);
    trees_remove(&t);
}

static void dry_pass_changes_nothing(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    trees_make(&t);
    put(t.a, "new", "1", 2000);
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    assert_ok(molt_merge_pass(ss.m, &ss.vt, MOLT_PASS_DRY, &ss.stats, err));
    assert_int_equal(ss.stats.actions, 2);
    assert_file(t.u, "new", NULL);
    session_pass(&ss);
    assert_file(t.u, "new", "1");
    session_end(&ss);
    trees_remove(&t);
}

struct hook {
    struct trees *t;
    int step;
};

static void vanish_before_pack(void *ctx, enum molt_merge_question q)
{
    struct hook *h = ctx;
    if (q == MOLT_MERGE_Q_PACK && h->step++ == 0) {
        unlinkat(h->t->a, "going", 0);
        put(h->t->a, "changing", "longer than it was when it was scanned", 2001);
    }
}

static void what_vanishes_or_changes_meanwhile_is_seen_next_time(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    trees_make(&t);
    put(t.a, "going", "1", 2000);
    put(t.a, "changing", "1", 2000);
    put(t.a, "staying", "1", 2000);
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    struct hook h = {&t, 0};
    ss.peer.before = vanish_before_pack;
    ss.peer.ctx = &h;
    session_pass(&ss);
    assert_int_equal(ss.stats.vanished, 1);
    session_pass(&ss);
    assert_int_equal(ss.stats.vanished, 0);
    assert_file(t.u, "going", NULL);
    assert_file(t.u, "changing", "longer than it was when it was scanned");
    assert_file(t.u, "staying", "1");
    session_end(&ss);
    trees_remove(&t);
}

static void symlink_in_the_clone_is_not_followed(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    trees_make(&t);
    assert_int_equal(mkdirat(t.fd, "outside", 0755), 0);
    mkdir3(&t, "d");
    put3(&t, "d/x", "1");
    put(t.a, "d/x", "2", 2000);
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    /* after the scan, the directory becomes a link that leads out of the tree */
    unlinkat(t.u, "d/x", 0);
    unlinkat(t.u, "d", AT_REMOVEDIR);
    assert_int_equal(symlinkat("../outside", t.u, "d"), 0);
    struct molt_error *e = NULL;
    assert_true(molt_merge_pass(ss.m, &ss.vt, 0, &ss.stats, &e) < 0);
    molt_error_free(e);
    assert_file(t.fd, "outside/x", NULL);
    assert_true(molt_open_beneath(t.u, "d", O_RDONLY) < 0);
    assert_true(molt_open_beneath(t.u, "../a", O_RDONLY) < 0);
    session_end(&ss);
    trees_remove(&t);
}

static void deep_and_long_paths(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    char name[201];
    CLEANUP_STRBUF struct molt_strbuf path = MOLT_STRBUF_INIT;
    trees_make(&t);
    memset(name, 'n', 200);
    name[200] = '\0';
    int at = dup(t.a);
    for (int i = 0; i < 40; i++) { /* 8,000 bytes: more than one system call takes */
        assert_int_equal(mkdirat(at, name, 0755), 0);
        int next = open_dir(at, name);
        close(at);
        at = next;
        molt_strbuf_addf(&path, "%s%s", i ? "/" : "", name);
    }
    put(at, "leaf", "deep", 1);
    close(at);
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    session_pass(&ss);
    int dir = molt_open_beneath(t.u, path.s, O_RDONLY | O_DIRECTORY);
    assert_true(dir >= 0);
    assert_file(dir, "leaf", "deep");
    close(dir);
    session_end(&ss);
    trees_remove(&t);
}

static void excluded_paths_are_not_seen(void **s)
{
    (void)s;
    struct trees t;
    struct molt_manifest *m = NULL;
    trees_make(&t);
    mkdir3(&t, "skip");
    mkdir3(&t, "skipper");
    put3(&t, "skip/x", "1");
    put3(&t, ".xenmolt-tmp-1-1", "1");
    const char *const ex[] = {"skip", NULL};
    const struct molt_scan_opts o = {.exclude = ex};
    assert_ok(molt_manifest_scan(t.b, &o, &m, err));
    assert_int_equal(m->n, 2);
    assert_string_equal(m->v[1].path, "skipper");
    molt_manifest_free(m);
    trees_remove(&t);
}

static void deltas_carry_only_what_changed(void **s)
{
    (void)s;
    struct trees t;
    struct molt_manifest *m1 = NULL, *m2 = NULL, *got = NULL;
    CLEANUP_STRBUF struct molt_strbuf all = MOLT_STRBUF_INIT, delta = MOLT_STRBUF_INIT;
    char name[16];
    trees_make(&t);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        put(t.a, name, "x", 1);
    }
    usleep(60000); /* out of the racy time */
    assert_ok(molt_manifest_scan(t.a, NULL, &m1, err));
    put(t.a, "f7", "y", 2);
    unlinkat(t.a, "f8", 0);
    put(t.a, "new", "z", 2);
    const struct molt_scan_opts o = {.ref = m1};
    assert_ok(molt_manifest_scan(t.a, &o, &m2, err));
    struct molt_sink sa = molt_sink_strbuf(&all), sd = molt_sink_strbuf(&delta);
    assert_ok(molt_manifest_write(m2, &sa, err));
    assert_ok(molt_manifest_delta_write(m1, m2, &sd, err));
    assert_true(delta.len * 20 < all.len);
    struct molt_mem mem = {(unsigned char *)delta.s, delta.len, 0};
    struct molt_source src = molt_source_mem(&mem);
    assert_ok(molt_manifest_delta_read(m1, &src, &got, err));
    assert_int_equal(got->n, m2->n);
    for (size_t i = 0; i < got->n; i++) {
        assert_string_equal(got->v[i].path, m2->v[i].path);
        assert_true(got->v[i].ino == m2->v[i].ino && got->v[i].ctime_ns == m2->v[i].ctime_ns);
    }
    molt_manifest_free(m1);
    molt_manifest_free(m2);
    molt_manifest_free(got);
    trees_remove(&t);
}

static void package_set_of_the_active(void **s)
{
    (void)s;
    struct trees t;
    struct session ss;
    trees_make(&t);
    mkdir3(&t, "var");
    mkdir3(&t, "var/lib");
    mkdir3(&t, "var/lib/dpkg");
    put3(&t, "var/lib/dpkg/status",
         "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n");
    session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_REFUSE);
    assert_ok(molt_merge_check_packages(ss.m, &ss.vt, err));
    put(t.a, "var/lib/dpkg/status",
        "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 2\n", 5);
    assert_code(MOLT_E_CONFLICT, molt_merge_check_packages(ss.m, &ss.vt, err));
    session_end(&ss);
    trees_remove(&t);
}

static void immutable_files(void **s)
{
    (void)s;
    if (geteuid() != 0) {
        print_message("not root: skipped\n");
        return;
    }
    struct trees t;
    struct session ss;
    struct molt_manifest *m = NULL;
    trees_make(&t);
    put3(&t, "x", "1");
    put(t.a, "x", "2", 2000);
    CLEANUP_FREE char *cmd = molt_xasprintf("chattr +i %s/a/x %s/u/x 2>/dev/null", t.dir, t.dir);
    CLEANUP_FREE char *undo =
        molt_xasprintf("chattr -i %s/a/x %s/u/x %s/u/stash/* 2>/dev/null", t.dir, t.dir, t.dir);
    if (system(cmd) != 0) {
        print_message("no immutable flag here: skipped\n");
    } else {
        session_start(&ss, &t, NULL, MOLT_ON_CONFLICT_ACTIVE);
        session_pass(&ss);
        assert_file(t.u, "x", "2");
        assert_ok(molt_manifest_scan(t.u, NULL, &m, err));
        assert_true(molt_manifest_find(m, "x")->flags & MOLT_EF_IMMUTABLE);
        molt_manifest_free(m);
        session_end(&ss);
    }
    if (system(undo) != 0)
        print_message("(nothing to undo)\n");
    trees_remove(&t);
}

/* In a mount namespace of our own, where dir is a shared mount whose tree is kept open; then in one that is made from it, and to
 * which mounts travel. Whether it sees one that comes after it: 0 yes, 1 no, 2 it cannot be tried here. */
static int mounts_travel(const char *dir)
{
    char sub[300];
    int fd, ready[2], go[2], status;
    char byte = 0;
    struct stat above, below;
    snprintf(sub, sizeof(sub), "%s/sub", dir);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("none", dir, "tmpfs", 0, NULL) < 0 ||
        mkdir(sub, 0700) < 0 || mount(NULL, dir, NULL, MS_SHARED, NULL) < 0 || pipe(ready) < 0 || pipe(go) < 0)
        return 2;
    if (molt_tree_open(dir, &fd, NULL) < 0)
        return 2;
    pid_t pid = fork();
    if (pid == 0) {
        bool ok = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) == 0 && write(ready[1], "", 1) == 1 && read(go[0], &byte, 1) == 1;
        _exit(!ok ? 2 : stat(dir, &above) == 0 && stat(sub, &below) == 0 && above.st_dev != below.st_dev ? 0 : 1);
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1 || mount("none", sub, "tmpfs", 0, NULL) < 0 || write(go[1], "", 1) != 1)
        kill(pid, SIGKILL);
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

/* A service that gets a namespace of its own while a merge goes on sees what is mounted later (6.1; 6.18 needs no help for it). */
static void a_kept_tree_does_not_stop_mounts(void **s)
{
    char dir[] = "/tmp/molt-mounts-XXXXXX";
    int status;
    (void)s;
    assert_non_null(mkdtemp(dir));
    pid_t pid = fork();
    if (pid == 0)
        _exit(mounts_travel(dir));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    rmdir(dir);
    if (WEXITSTATUS(status) == 2) {
        print_message("no mount namespaces here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    umask(022);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_that_a_file_is),
        cmocka_unit_test(a_kept_tree_does_not_stop_mounts),
        cmocka_unit_test(holes_stay_holes),
        cmocka_unit_test(text_logs_and_beside),
        cmocka_unit_test(open_conflict_changes_nothing),
        cmocka_unit_test(dry_pass_changes_nothing),
        cmocka_unit_test(what_vanishes_or_changes_meanwhile_is_seen_next_time),
        cmocka_unit_test(symlink_in_the_clone_is_not_followed),
        cmocka_unit_test(deep_and_long_paths),
        cmocka_unit_test(excluded_paths_are_not_seen),
        cmocka_unit_test(deltas_carry_only_what_changed),
        cmocka_unit_test(package_set_of_the_active),
        cmocka_unit_test(immutable_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
