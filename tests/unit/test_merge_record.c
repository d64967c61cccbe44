/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Recording: what it tells must make the same manifest as a scan. On an ext4 image of its own; needs root. */
#include "test_merge_record.h"

#include <sys/prctl.h>

#include "base/clock.h"
#include "base/fsio.h"

/* A few files and directories, the same at each test's start. */
static void fill_tree(void)
{
    empty_tree();
    assert_int_equal(mkdirat(tree, "d", 0755), 0);
    assert_int_equal(mkdirat(tree, "d/e", 0755), 0);
    put(tree, "f", "f", 1000);
    put(tree, "d/f", "df", 1000);
    put(tree, "d/g", "dg", 1000);
    put(tree, "d/e/f", "def", 1000);
    put(tree, "two", "linked", 1000);
    assert_int_equal(linkat(tree, "two", tree, "d/two", 0), 0);
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof(name), "d/e/n%d", i);
        put(tree, name, "n", 1000);
    }
}

/* --- each kind of change --- */

static int fd_kept = -1;
static void c_create(void) { put(tree, "d/new", "x", 2000); }
static void c_delete(void) { unlinkat(tree, "d/f", 0); }
static void c_append(void)
{
    int fd = openat(tree, "d/g", O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "more", 4), 4);
    fd_kept = fd; /* no close yet */
}
static void c_append_again(void)
{
    assert_int_equal(write(fd_kept, "more", 4), 4);
    close(fd_kept);
}
static void c_truncate(void)
{
    int fd = openat(tree, "d/g", O_WRONLY | O_TRUNC);
    close(fd);
}
static void c_mode(void) { fchmodat(tree, "d/e/f", 0600, 0); }
static void c_dir_mode(void) { fchmodat(tree, "d/e", 0700, 0); }
static void c_root_mode(void) { fchmodat(tree, ".", 0711, 0); }
static void c_owner(void) { fchownat(tree, "d/e/f", 5, 6, 0); }
static void c_time(void) { set_time(tree, "d/e/f", 77); }
static void c_xattr(void)
{
    int fd = openat(tree, "d/e/f", O_RDONLY);
    assert_int_equal(fsetxattr(fd, "user.x", "1", 1, 0), 0);
    close(fd);
}
static void c_mkdir(void)
{
    mkdirat(tree, "d/h", 0755);
    mkdirat(tree, "d/h/i", 0755);
    put(tree, "d/h/i/j", "x", 1);
}
static void c_symlink(void) { assert_int_equal(symlinkat("target", tree, "d/h/sym"), 0); }
static void c_fifo(void) { assert_int_equal(mkfifoat(tree, "d/h/fifo", 0600), 0); }
static void c_rename(void) { assert_int_equal(renameat(tree, "d/h/i/j", tree, "d/k"), 0); }
static void c_rename_over(void) { assert_int_equal(renameat(tree, "d/k", tree, "f"), 0); }
static void c_rename_dir(void) { assert_int_equal(renameat(tree, "d/e", tree, "e2"), 0); }
static void c_write_in_moved(void) { put(tree, "e2/n7", "again", 3); }
static void c_dir_back_and_again(void)
{
    assert_int_equal(renameat(tree, "e2", tree, "d/e"), 0);
    put(tree, "d/e/n8", "again", 3);
    assert_int_equal(renameat(tree, "d/e", tree, "d/h/e3"), 0);
    put(tree, "d/h/e3/n9", "again", 3);
    assert_int_equal(mkdirat(tree, "d/e", 0700), 0);
    put(tree, "d/e/only", "x", 3);
}
static void c_exchange(void) { assert_int_equal(renameat2(tree, "d/e", tree, "d/h/e3", RENAME_EXCHANGE), 0); }
static void c_remove_tree(void)
{
    CLEANUP_FREE char *p = at("a/d/e");
    assert_ok(molt_remove_tree(p, err));
}
static void c_same_name_other_type(void)
{
    CLEANUP_FREE char *p = at("a/d/h");
    assert_ok(molt_remove_tree(p, err));
    put(tree, "d/h", "a file now", 4);
}
static void c_link(void) { assert_int_equal(linkat(tree, "two", tree, "three", 0), 0); }
static void c_write_link(void)
{
    int fd = openat(tree, "three", O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
}
static void c_unlink_link(void) { unlinkat(tree, "two", 0); }
static void c_link_made_and_unmade(void)
{
    assert_int_equal(linkat(tree, "d/two", tree, "four", 0), 0);
    fd_kept = openat(tree, "four", O_WRONLY | O_APPEND);
    unlinkat(tree, "four", 0);
}
static void c_write_by_unlinked_name(void)
{
    assert_int_equal(write(fd_kept, "x", 1), 1);
    close(fd_kept);
}
static void c_tmpfile(void)
{
    char link[64];
    fd_kept = openat(tree, "d", O_TMPFILE | O_RDWR, 0600);
    assert_true(fd_kept >= 0);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd_kept);
    assert_int_equal(linkat(AT_FDCWD, link, tree, "d/linked", AT_SYMLINK_FOLLOW), 0);
}
static char *map;
static void c_map(void)
{
    int fd = openat(tree, "d/g", O_RDWR | O_TRUNC);
    assert_int_equal(ftruncate(fd, 4096), 0);
    map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(madvise(map, 4096, MADV_DONTFORK), 0); /* the recorder is our child */
    close(fd);
}
static void c_store(void) { map[5]++; }
static void c_store_and_unmap(void)
{
    map[6]++;
    munmap(map, 4096);
}
static void c_odd_names(void)
{
    put(tree, "d/odd \n\xff\\ (deleted)", "x", 1);
    assert_int_equal(mkdirat(tree, "d/dir (deleted)", 0755), 0);
    put(tree, "d/dir (deleted)/f\n", "x", 1);
}
static void c_ours(void)
{
    put(tree, "journal/x", "x", 1);
    put(tree, ".xenmolt-tmp-1-2", "x", 1);
    unlinkat(tree, "journal/x", 0);
}
static void c_nothing(void) {}

static void each_kind_of_change(void **state)
{
    (void)state;
    NEED_RECORDING();
    static const struct {
        const char *name;
        void (*act)(void);
    } v[] = {
#define A(f) {#f, f}
        A(c_nothing), A(c_create), A(c_delete), A(c_append), A(c_append_again), A(c_truncate), A(c_mode),
        A(c_dir_mode), A(c_root_mode), A(c_owner), A(c_time), A(c_xattr), A(c_mkdir), A(c_symlink), A(c_fifo),
        A(c_rename), A(c_rename_over), A(c_rename_dir), A(c_write_in_moved), A(c_dir_back_and_again),
        A(c_exchange), A(c_remove_tree), A(c_same_name_other_type), A(c_link), A(c_write_link), A(c_unlink_link),
        A(c_link_made_and_unmade), A(c_write_by_unlinked_name), A(c_tmpfile), A(c_write_by_unlinked_name),
        A(c_map), A(c_store), A(c_nothing), A(c_store), A(c_store_and_unmap), A(c_odd_names), A(c_ours),
#undef A
    };
    struct side s;
    fill_tree();
    side_start(&s, 0, 0);
    for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        v[i].act();
        if (i % 5 == 4)
            usleep(150000); /* the recorder reads by itself */
        pull(&s);
        CLEANUP_MANIFEST struct molt_manifest *want = scan();
        if (!s.recorded || compare(s.m, want))
            fail_msg("%s: recorded %d %s", v[i].name, s.recorded, s.reason);
        if (v[i].act == c_nothing && i == 0)
            assert_true(s.bytes < 400);
    }
    side_end(&s);
    assert_int_equal(faccessat(tree, "journal", F_OK, 0), -1);
}

/* A store through a mapping that was dirty already leaves all times as they were. */
static void stores_are_told_without_times(void **state)
{
    (void)state;
    NEED_RECORDING();
    struct side s;
    fill_tree();
    c_map();
    c_store();
    side_start(&s, 0, 0);
    pull_and_compare(&s, true);
    usleep(60000);
    c_store();
    pull_and_compare(&s, true);
    const struct molt_entry *e = molt_manifest_find(s.m, "d/g");
    assert_true(e && (e->flags & MOLT_EF_RACY));
    c_store_and_unmap();
    pull_and_compare(&s, true);
    e = molt_manifest_find(s.m, "d/g");
    assert_true(e && (e->flags & MOLT_EF_RACY));
    pull_and_compare(&s, true);
    e = molt_manifest_find(s.m, "d/g");
    assert_true(e && !(e->flags & MOLT_EF_RACY)); /* proven by now */
    side_end(&s);
}

/* A busy file's writes are not heard until the next sync; nothing of that may be seen. */
static void busy_files_are_told_again(void **state)
{
    (void)state;
    NEED_RECORDING();
    struct side s;
    fill_tree();
    side_start(&s, 0, 0);
    int fd = openat(tree, "d/g", O_WRONLY | O_APPEND);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 6; i++) {
            assert_int_equal(write(fd, "x", 1), 1);
            usleep(120000);
        }
        pull_and_compare(&s, true);
        assert_int_equal(write(fd, "x", 1), 1);
        pull_and_compare(&s, true);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(write(fd, "x", 1), 1);
            usleep(120000);
        }
        assert_int_equal(renameat(tree, "d/g", tree, "d/e/g"), 0);
        assert_int_equal(renameat(tree, "d/e", tree, "d/i"), 0);
        assert_int_equal(linkat(tree, "d/i/g", tree, "g", 0), 0);
        assert_int_equal(write(fd, "x", 1), 1);
        pull_and_compare(&s, true);
        assert_int_equal(write(fd, "x", 1), 1);
        pull_and_compare(&s, true);
        unlinkat(tree, "g", 0);
        assert_int_equal(renameat(tree, "d/i", tree, "d/e"), 0);
        assert_int_equal(renameat(tree, "d/e/g", tree, "d/g"), 0);
    }
    close(fd);
    side_end(&s);
}

/* --- losses --- */

static void overflow_falls_back(void **state)
{
    (void)state;
    NEED_RECORDING();
    struct side s;
    fill_tree();
    side_start(&s, 0, 0);
    c_create();
    pull_and_compare(&s, true);
    kill(molt_recorder_pid(s.r), SIGSTOP);
    assert_int_equal(mkdirat(tree, "many", 0755), 0);
    for (int i = 0; i < 20000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "many/%d", i);
        assert_int_equal(mknodat(tree, name, S_IFREG | 0600, 0), 0);
    }
    kill(molt_recorder_pid(s.r), SIGCONT);
    pull_and_compare(&s, false);
    assert_non_null(strstr(s.reason, "overflow"));
    c_delete();
    pull_and_compare(&s, true); /* recording goes on from the scan */
    side_end(&s);
}

static void bounds_fall_back(void **state)
{
    (void)state;
    NEED_RECORDING();
    struct side s;
    for (int by_journal = 0; by_journal < 2; by_journal++) {
        fill_tree();
        side_start(&s, by_journal ? 0 : 30, by_journal ? 600 : 0);
        c_create();
        pull_and_compare(&s, true);
        for (int i = 0; i < 100; i++) {
            char name[32];
            snprintf(name, sizeof(name), "d/e/n%d", i);
            put(tree, name, "changed", 5);
        }
        pull_and_compare(&s, false);
        assert_non_null(strstr(s.reason, by_journal ? "too long" : "too many"));
        pull(&s); /* the journal is cut */
        c_delete();
        pull_and_compare(&s, true);
        side_end(&s);
    }
}

static void dead_recorder_falls_back(void **state)
{
    (void)state;
    NEED_RECORDING();
    struct side s;
    for (int early = 0; early < 2; early++) {
        fill_tree();
        side_start(&s, 0, 0);
        if (!early)
            pull_and_compare(&s, true);
        c_create();
        kill(molt_recorder_pid(s.r), SIGKILL);
        usleep(60000); /* out of the racy time */
        pull_and_compare(&s, false);
        assert_string_equal(s.reason, "the recorder is gone");
        c_delete();
        pull_and_compare(&s, false);
        assert_true(s.bytes < 1000); /* against the scan before */
        side_end(&s);
    }
}

/* The one who asks again from the base on gets all of it, also in another process. */
static void from_the_base_again(void **state)
{
    (void)state;
    NEED_RECORDING();
    struct side s;
    fill_tree();
    side_start(&s, 0, 0);
    c_create();
    pull_and_compare(&s, true);
    c_delete();
    pull_and_compare(&s, true);
    c_mkdir();
    pid_t pid = fork();
    if (pid == 0) {
        struct molt_merge_server *other = molt_merge_server_new(tree, exclude);
        molt_merge_server_record(other, s.r, 0, NULL);
        struct side t = {.r = s.r, .server = other, .base = s.base};
        pull_and_compare(&t, true);
        molt_recorder_stop(s.r);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    c_symlink();
    pull_and_compare(&s, true);
    side_end(&s);
}

static void no_recording_says_why(void **state)
{
    (void)state;
    NEED_RECORDING();
    fill_tree();
    struct side s = {.base = scan(), .server = molt_merge_server_new(tree, exclude)};
    molt_merge_server_record(s.server, NULL, 0, "nobody asked");
    pull_and_compare(&s, false);
    assert_string_equal(s.reason, "nobody asked");
    c_create();
    pull_and_compare(&s, false);
    side_end(&s);
}

/* --- a recorder that outlives the process that started it --- */

static void spawned(struct molt_recorder_opts *o, const struct molt_record_root *root, const struct molt_record_follow *follow, char *journal, char *sock)
{
    *o = (struct molt_recorder_opts){.roots = root, .n_roots = 1, .follow = follow, .journal_dir = journal, .socket = sock};
    pid_t pid = fork();
    if (pid == 0) {
        struct molt_error *e = NULL;
        _exit(molt_recorder_spawn(o, &e) < 0);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static bool has(const struct molt_dirty_set *d, unsigned root, const char *path, unsigned flags)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->v[i].root == root && strcmp(d->v[i].path, path) == 0 && (d->v[i].flags & flags) == flags)
            return true;
    return false;
}

static void touch_file(const char *name)
{
    int fd = openat(tree, name, O_CREAT | O_WRONLY, 0644);
    assert_true(fd >= 0);
    close(fd);
}

static void a_spawned_one_waits_to_be_asked(void **state)
{
    (void)state;
    NEED_RECORDING();
    CLEANUP_FREE char *root = at("a"), *journal = at("spawned"), *sock = at("sock"), *saved = at("saved");
    const struct molt_record_root roots[] = {{root, exclude}};
    struct molt_recorder_opts o;
    struct molt_recorder *r = NULL;
    uint64_t pos = 0;
    fill_tree();
    spawned(&o, roots, NULL, journal, sock);
    touch_file("one");
    assert_ok(molt_recorder_attach(&o, &r, err));
    CLEANUP_DIRTY_SET struct molt_dirty_set *first = molt_recorder_sync(r, &pos);
    assert_null(first->lost);
    assert_true(has(first, 0, "one", 0) && !has(first, 0, "two", 0));
    molt_recorder_detach(r);
    touch_file("two");
    assert_ok(molt_recorder_attach(&o, &r, err)); /* it went on, and the next one who asks gets all of it */
    assert_ok(molt_recorder_save(r, saved, err));
    CLEANUP_DIRTY_SET struct molt_dirty_set *all = molt_dirty_set_load(saved);
    assert_null(all->lost);
    assert_true(has(all, 0, "one", 0) && has(all, 0, "two", 0));
    molt_recorder_stop(r);
    struct molt_error *e = NULL;
    assert_int_equal(molt_recorder_attach(&o, &r, &e), MOLT_E_UNSUPPORTED);
    molt_error_free(e);
    /* What was saved and is not whole is no help. */
    int fd = open(saved, O_WRONLY);
    assert_true(fd >= 0 && pwrite(fd, "?", 1, 12) == 1);
    close(fd);
    CLEANUP_DIRTY_SET struct molt_dirty_set *damaged = molt_dirty_set_load(saved);
    assert_non_null(damaged->lost);
    unlink(saved);
    CLEANUP_DIRTY_SET struct molt_dirty_set *none = molt_dirty_set_load(saved);
    assert_non_null(none->lost);
}

/* --- several file systems --- */

/* Another one, at "b", with the directories d and q, files d/f, d/g, q/alone in them. */
static void make_second(void)
{
    CLEANUP_FREE char *image = at("image2"), *where = at("b");
    assert_true(run((const char *const[]){"truncate", "-s", "16M", image, NULL}) && run((const char *const[]){"mkfs.ext4", "-q", image, NULL}));
    assert_true(mount_image("image2", "b", "noatime"));
    int b = open_dir(AT_FDCWD, where);
    assert_true(mkdirat(b, "d", 0755) == 0 && mkdirat(b, "q", 0755) == 0 && mkdirat(b, "stash", 0755) == 0);
    put(b, "d/f", "f", 1);
    put(b, "d/g", "g", 1);
    put(b, "q/alone", "x", 1);
    put(b, "q/same", "x", 1);
    close(b);
    assert_int_equal(umount(where), 0);
}

/* What is excluded below one is not below another: a home directory may be called "dev". */
static void each_root_has_its_own_exclusions(void **state)
{
    (void)state;
    NEED_RECORDING();
    CLEANUP_FREE char *root = at("a"), *other = at("b"), *journal = at("a/journal");
    const struct molt_record_root roots[] = {{root, exclude}, {other, NULL}};
    const struct molt_recorder_opts o = {.roots = roots, .n_roots = 2, .journal_dir = journal};
    struct molt_recorder *r = NULL;
    uint64_t pos = 0;
    fill_tree();
    make_second();
    assert_true(mount_image("image2", "b", "noatime"));
    int b = open_dir(AT_FDCWD, other);
    assert_ok(molt_recorder_start(&o, &r, err));
    assert_int_equal(mkdirat(tree, "stash", 0755), 0);
    put(tree, "stash/x", "x", 1);
    put(b, "stash/x", "x", 1);
    CLEANUP_DIRTY_SET struct molt_dirty_set *d = molt_recorder_sync(r, &pos);
    assert_null(d->lost);
    assert_true(has(d, 1, "stash/x", 0));
    assert_false(has(d, 0, "stash/x", 0) || has(d, 0, "stash", 0));
    molt_recorder_stop(r);
    close(b);
    assert_int_equal(umount(other), 0);
}

/* Where the second one is mounted, if it is. */
static char **list_second(void)
{
    CLEANUP_FREE char *where = at("b");
    struct stat st, up;
    char **v = molt_xcalloc(3, sizeof(*v));
    v[0] = at("a"); /* known, and to be left alone */
    if (stat(where, &st) == 0 && stat(dir, &up) == 0 && st.st_dev != up.st_dev)
        v[1] = MOLT_STEAL_PTR(where);
    return v;
}

static const char **exclude_nothing(const char *prefix)
{
    (void)prefix;
    return molt_xcalloc(1, sizeof(char *));
}

/* Our one child, which the recorder's parent has left us. */
static pid_t only_child(void)
{
    CLEANUP_FREE char *path = molt_xasprintf("/proc/self/task/%d/children", (int)getpid()), *text = NULL;
    assert_ok(molt_read_file(path, 4096, &text, NULL, err));
    assert_int_equal(strspn(text, "0123456789 "), strlen(text));
    return (pid_t)atoi(text);
}

/* The recorder does not run between the mount and what is changed: what was changed unseen is found all the same. */
static void a_mount_is_followed_without_a_gap(void **state)
{
    (void)state;
    NEED_RECORDING();
    CLEANUP_FREE char *root = at("a"), *other = at("b"), *journal = at("spawned"), *sock = at("sock"), *saved = at("saved");
    const struct molt_record_root roots[] = {{root, exclude}};
    const struct molt_record_follow follow = {list_second, exclude_nothing};
    struct molt_recorder_opts o;
    struct molt_recorder *r = NULL;
    unsigned index;
    fill_tree();
    make_second();
    molt_sleep_ms(100);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    spawned(&o, roots, &follow, journal, sock);
    pid_t pid = only_child();
    assert_true(pid > 0);
    assert_ok(molt_recorder_attach(&o, &r, err)); /* it runs by now */
    molt_recorder_detach(r);
    kill(pid, SIGSTOP);
    assert_true(mount_image("image2", "b", "noatime"));
    int b = open_dir(AT_FDCWD, other);
    put(b, "d/f", "changed", 2);
    unlinkat(b, "d/g", 0);
    assert_int_equal(fchmodat(b, "q/alone", 0600, 0), 0);
    kill(pid, SIGCONT);
    assert_ok(molt_recorder_attach(&o, &r, err));
    assert_ok(molt_recorder_save(r, saved, err)); /* the walk and the mark are there by now */
    put(b, "q/later", "x", 1);
    assert_ok(molt_recorder_save(r, saved, err));
    CLEANUP_DIRTY_SET struct molt_dirty_set *d = molt_dirty_set_load(saved);
    assert_null(d->lost);
    assert_int_equal(molt_dirty_root_of(d, "/", &index), 1);
    assert_int_equal(molt_dirty_root_of(d, "/nowhere", &index), 0);
    assert_int_equal(molt_dirty_root_of(d, other, &index), 1);
    assert_true(has(d, index, "d", MOLT_DIRTY_SUBTREE));
    assert_true(has(d, index, "q/alone", 0));
    assert_true(has(d, index, "q/later", 0));
    assert_false(has(d, index, "q/same", 0) || has(d, index, "", MOLT_DIRTY_SUBTREE));
    molt_recorder_stop(r);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(b);
    assert_int_equal(umount(other), 0);
    unlink(saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_root_has_its_own_exclusions), cmocka_unit_test(a_mount_is_followed_without_a_gap),
        cmocka_unit_test(each_kind_of_change),      cmocka_unit_test(stores_are_told_without_times),
        cmocka_unit_test(busy_files_are_told_again),
        cmocka_unit_test(overflow_falls_back),      cmocka_unit_test(bounds_fall_back),
        cmocka_unit_test(dead_recorder_falls_back), cmocka_unit_test(from_the_base_again),
        cmocka_unit_test(no_recording_says_why),    cmocka_unit_test(a_spawned_one_waits_to_be_asked),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
