/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Snapshot, commit and hand-over of images with a real QEMU block layer: qemu-storage-daemon has the same QMP as a domain's
 * device model. A "guest" writes and reads through NBD exports (qemu-io). Skipped where qemu-utils are not installed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "disk.h"

#define DAEMON "/usr/bin/qemu-storage-daemon"
#define QEMU_IMG "/usr/bin/qemu-img"
#define QEMU_IO "/usr/bin/qemu-io"
#define START_MS 10000

static char dir[] = "/tmp/test-disk-XXXXXX";

static char *file(const char *name)
{
    return molt_xasprintf("%s/%s", dir, name);
}

static void run(char *const argv[])
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    if (molt_run_ok(argv, NULL, NULL, &err) < 0)
        fail_msg("%s: %s", argv[0], molt_error_text(err));
}

#define must(call, err)                               \
    do {                                              \
        if ((call) < 0)                               \
            fail_msg("%s", molt_error_text(err));     \
    } while (0)

static void make_raw(const char *name)
{
    CLEANUP_FREE char *path = file(name);
    char *argv[] = {QEMU_IMG, "create", "-q", "-f", "raw", path, "4M", NULL};
    run(argv);
}

static void make_overlay(const char *name, const char *base, const char *format)
{
    CLEANUP_FREE char *path = file(name), *below = file(base);
    CLEANUP_ERROR struct molt_error *err = NULL;
    must(molt_disk_overlay_create(path, below, format, &err), err);
}

/* qemu-io on an image at rest, or (export: "d0", or "d0@c" of the daemon "c") on what a daemon serves. */
static void io(const char *image, const char *export, const char *command)
{
    CLEANUP_FREE char *path = image ? file(image) : NULL;
    const char *at = export ? strchr(export, '@') : NULL;
    CLEANUP_FREE char *uri = export ? molt_xasprintf("nbd+unix:///%.2s?socket=%s/nbd%s", export, dir, at ? at + 1 : "") : NULL;
    bool reads = !strncmp(command, "read", 4); /* another may stand on it */
    char *at_rest[] = {QEMU_IO, "-c", (char *)command, path, reads ? "-r" : NULL, NULL};
    char *served[] = {QEMU_IO, "-f", "raw", "-c", (char *)command, uri, NULL};
    CLEANUP_FREE char *out = NULL;
    CLEANUP_ERROR struct molt_error *err = NULL;
    if (molt_run_ok(image ? at_rest : served, NULL, &out, &err) < 0 || strstr(out, "failed"))
        fail_msg("%s on %s: %s %s", command, image ? image : export, out ? out : "", err ? molt_error_text(err) : "");
}

/* The daemon `name` serves disks "d0", "d1", ... of these images (qcow2), each as an export of that name. */
struct daemon {
    pid_t pid;
    struct molt_qmp *q;
};

static void start_as(const char *name, struct daemon *d, const char *const *images, size_t n)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/qmp%s", dir, name), *sock = molt_xasprintf("%s/nbd%s", dir, name);
    CLEANUP_FREE char *chardev = molt_xasprintf("socket,path=%s,server=on,wait=off,id=c", path);
    CLEANUP_FREE char *nbd = molt_xasprintf("addr.type=unix,addr.path=%s", sock);
    char *argv[32] = {DAEMON, "--chardev", chardev, "--monitor", "chardev=c", "--nbd-server", nbd};
    char text[8][600];
    size_t k = 7, t = 0;
    assert_true(n <= 2);
    unlink(path);
    unlink(sock);
    for (size_t i = 0; i < n; i++) {
        snprintf(text[t], sizeof(text[t]), "driver=qcow2,node-name=d%zu,discard=unmap,file.driver=file,file.filename=%s/%s", i, dir, images[i]);
        argv[k++] = "--blockdev";
        argv[k++] = text[t++];
        snprintf(text[t], sizeof(text[t]), "type=nbd,id=e%zu,node-name=d%zu,name=d%zu,writable=on", i, i, i);
        argv[k++] = "--export";
        argv[k++] = text[t++];
    }
    d->pid = fork();
    assert_true(d->pid >= 0);
    if (d->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(DAEMON, argv);
        _exit(127);
    }
    int64_t end = molt_mono_ms() + START_MS;
    CLEANUP_ERROR struct molt_error *err = NULL;
    while (molt_qmp_open_path(path, &d->q, &err) < 0) {
        if (molt_mono_ms() > end)
            fail_msg("the daemon does not answer: %s", molt_error_text(err));
        molt_error_clear(&err);
        molt_sleep_ms(20);
    }
}

static void start(struct daemon *d, const char *const *images, size_t n)
{
    start_as("", d, images, n);
}

static void stop(struct daemon *d)
{
    int status;
    molt_qmp_close(d->q);
    kill(d->pid, SIGTERM);
    assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
}

static bool is_overlay_of(const char *name, const char *base)
{
    CLEANUP_FREE char *path = file(name), *below = file(base), *out = NULL;
    char *argv[] = {QEMU_IMG, "info", "--output=json", path, NULL};
    CLEANUP_JSON struct molt_json *v = NULL;
    if (molt_run_ok(argv, NULL, &out, NULL) < 0 || molt_json_parse(out, strlen(out), &v, NULL) < 0)
        return false;
    return molt_streq(molt_json_get_string(v, "full-backing-filename"), below);
}

static void told(void *ctx, int percent)
{
    int *last = ctx;
    assert_true(percent > *last && percent <= 100);
    *last = percent;
}

static int setup(void **state)
{
    (void)state;
    if (access(DAEMON, X_OK) < 0 || access(QEMU_IO, X_OK) < 0 || access(QEMU_IMG, X_OK) < 0)
        return 0;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return strstr(dir, "XXXXXX") ? 0 : molt_remove_tree(dir, NULL);
}

static void need_qemu(void)
{
    if (strstr(dir, "XXXXXX")) {
        print_message("no " DAEMON " (Debian: qemu-utils)\n");
        skip();
    }
}

/* Two disks d0, d1, each an overlay on a raw base. */
static void two_disks(struct daemon *d)
{
    static const char *const images[] = {"a0", "a1"};
    make_raw("base0");
    make_raw("base1");
    make_overlay("a0", "base0", "raw");
    make_overlay("a1", "base1", "raw");
    make_overlay("o0", "a0", "qcow2");
    make_overlay("o1", "a1", "qcow2");
    start(d, images, 2);
}

static void test_snapshot_of_two(void **state)
{
    struct daemon d;
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *o0 = file("o0"), *o1 = file("o1");
    (void)state;
    need_qemu();
    two_disks(&d);
    io(NULL, "d0", "write -P 1 0 1M");
    io(NULL, "d1", "write -P 2 0 1M");
    const struct molt_disk_snapshot v[] = {{"d0", o0, "s0"}, {"d1", o1, "s1"}};
    must(molt_disk_snapshot(d.q, v, 2, &err), err);
    io(NULL, "d0", "write -P 3 0 1M");
    io(NULL, "d1", "write -P 4 0 1M");
    stop(&d);
    io("a0", NULL, "read -P 1 0 1M");
    io("a1", NULL, "read -P 2 0 1M");
    io("o0", NULL, "read -P 3 0 1M");
    io("o1", NULL, "read -P 4 0 1M");
}

static void test_snapshot_all_or_none(void **state)
{
    struct daemon d;
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *o0 = file("o0"), *missing = file("missing");
    (void)state;
    need_qemu();
    two_disks(&d);
    const struct molt_disk_snapshot v[] = {{"d0", o0, "s0"}, {"d1", missing, "s1"}};
    assert_true(molt_disk_snapshot(d.q, v, 2, &err) < 0);
    io(NULL, "d0", "write -P 7 0 1M");
    stop(&d);
    io("a0", NULL, "read -P 7 0 1M"); /* still written itself */
}

/* What an undo after a hand-over has to fold: two overlays on the disk. */
static void test_commit_of_a_chain(void **state)
{
    struct daemon d;
    static const char *const images[] = {"o0"};
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *base = file("base0"), *node = NULL, *a0 = file("a0"), *o0 = file("o0");
    int percent = -1;
    (void)state;
    need_qemu();
    make_raw("base0");
    make_overlay("a0", "base0", "raw");
    io("a0", NULL, "write -P 1 0 1M");
    io("a0", NULL, "write -P 2 1M 1M");
    make_overlay("o0", "a0", "qcow2");
    start(&d, images, 1);
    io(NULL, "d0", "write -P 3 1M 1M");
    must(molt_disk_find_node(d.q, base, &node, &err), err);
    must(molt_disk_commit_live(d.q, "d0", node, told, &percent, &err), err);
    assert_int_equal(percent, 100);
    io(NULL, "d0", "write -P 4 2M 1M"); /* goes to the base now */
    molt_disk_forget(d.q, o0);
    molt_disk_forget(d.q, a0);
    stop(&d);
    io("base0", NULL, "read -P 1 0 1M");
    io("base0", NULL, "read -P 3 1M 1M");
    io("base0", NULL, "read -P 4 2M 1M");
}

/* What op-commit does with an overlay on a classic snapshot: all of it to a block device, which takes its place. */
static void test_copy_to_a_device(void **state)
{
    struct daemon d;
    static const char *const images[] = {"a0"};
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *target = file("target"), *a0 = file("a0"), *device = NULL;
    int percent = -1;
    (void)state;
    need_qemu();
    make_raw("target");
    io("target", NULL, "write -P 9 0 4M");
    char *attach[] = {"losetup", "-f", "--show", target, NULL};
    if (molt_run_ok(attach, NULL, &device, NULL) < 0) {
        print_message("no loop device here\n");
        skip();
    }
    device[strcspn(device, "\n")] = '\0';
    make_raw("base0");
    io("base0", NULL, "write -P 1 0 2M");
    make_overlay("a0", "base0", "raw");
    start(&d, images, 1);
    io(NULL, "d0", "write -P 2 1M 1M");
    must(molt_disk_mirror_live(d.q, "d0", device, "copy", told, &percent, &err), err);
    assert_int_equal(percent, 100);
    io(NULL, "d0", "write -P 3 3M 1M"); /* goes to the device now */
    molt_disk_forget(d.q, a0);
    stop(&d);
    char *detach[] = {"losetup", "-d", device, NULL};
    run(detach);
    io("target", NULL, "read -P 1 0 1M");
    io("target", NULL, "read -P 2 1M 1M");
    io("target", NULL, "read -P 0 2M 1M");
    io("target", NULL, "read -P 3 3M 1M");
    make_raw("target");
    must(molt_disk_copy_offline(a0, target, &err), err);
    io("target", NULL, "read -P 2 1M 1M");
}

static void test_commit_of_a_chain_at_rest(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *top = file("o0"), *base = file("base0");
    (void)state;
    need_qemu();
    make_raw("base0");
    make_overlay("a0", "base0", "raw");
    io("a0", NULL, "write -P 1 0 2M");
    make_overlay("o0", "a0", "qcow2");
    io("o0", NULL, "write -P 3 1M 1M");
    must(molt_disk_commit_offline(top, base, &err), err);
    io("base0", NULL, "read -P 1 0 1M");
    io("base0", NULL, "read -P 3 1M 1M");
}

/* The hand-over of upgrade_volumes.c, between two device models; then the commit, when the active is gone. */
static void test_hand_over(void **state)
{
    struct daemon act, clone;
    static const char *const active_images[] = {"a0"}, *const clone_images[] = {"b0"};
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *a0 = file("a0"), *b0 = file("b0"), *ha = file("ha"), *hb = file("hb"), *base = file("base0"), *node = NULL;
    (void)state;
    need_qemu();
    make_raw("base0");
    io("base0", NULL, "write -P 1 0 4M");
    make_overlay("a0", "base0", "raw");
    make_overlay("b0", "base0", "raw");
    start_as("a", &act, active_images, 1);
    start_as("c", &clone, clone_images, 1);
    io(NULL, "d0@a", "write -P 2 1M 1M");
    io(NULL, "d0@c", "write -P 9 2M 1M"); /* by the upgrade: thrown away */
    make_overlay("ha", "a0", "qcow2");
    make_overlay("hb", "b0", "qcow2");
    const struct molt_disk_snapshot of_clone = {"d0", hb, "hb"}, of_active = {"d0", ha, "ha"};
    must(molt_disk_snapshot(clone.q, &of_clone, 1, &err), err);
    io(NULL, "d0@a", "write -P 3 3M 1M");
    must(molt_disk_snapshot(act.q, &of_active, 1, &err), err);
    must(molt_disk_set_backing(clone.q, "hb", hb, a0, "below", &err), err);
    io(NULL, "d0@c", "read -P 1 0 1M");
    io(NULL, "d0@c", "read -P 2 1M 1M");
    io(NULL, "d0@c", "read -P 1 2M 1M");
    io(NULL, "d0@c", "read -P 3 3M 1M");
    io(NULL, "d0@c", "write -P 5 0 1M");
    io(NULL, "d0@a", "write -P 6 0 1M");
    io(NULL, "d0@c", "read -P 5 0 1M");
    stop(&act);
    assert_true(is_overlay_of("ha", "a0"));
    io("a0", NULL, "read -P 1 0 1M");
    io("ha", NULL, "read -P 6 0 1M");
    unlink(ha);

    /* The clone's old image stands on the disk as well: two nodes of one name. */
    molt_disk_forget(clone.q, b0);
    must(molt_disk_find_node(clone.q, base, &node, &err), err);
    must(molt_disk_commit_live(clone.q, "hb", node, NULL, NULL, &err), err);
    molt_disk_forget(clone.q, hb);
    molt_disk_forget(clone.q, a0);
    io(NULL, "d0@c", "write -P 7 1M 1M");
    stop(&clone);
    io("base0", NULL, "read -P 5 0 1M");
    io("base0", NULL, "read -P 7 1M 1M");
    io("base0", NULL, "read -P 1 2M 1M");
    io("base0", NULL, "read -P 3 3M 1M");
}

/* And the way back: the clone is gone, and the active's two overlays go down. */
static void test_hand_over_undone(void **state)
{
    struct daemon act, clone;
    static const char *const active_images[] = {"a0"}, *const clone_images[] = {"b0"};
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *a0 = file("a0"), *ha = file("ha"), *hb = file("hb"), *base = file("base0"), *node = NULL;
    (void)state;
    need_qemu();
    make_raw("base0");
    make_overlay("a0", "base0", "raw");
    make_overlay("b0", "base0", "raw");
    start_as("a", &act, active_images, 1);
    start_as("c", &clone, clone_images, 1);
    io(NULL, "d0@a", "write -P 2 1M 1M");
    make_overlay("ha", "a0", "qcow2");
    make_overlay("hb", "b0", "qcow2");
    const struct molt_disk_snapshot of_clone = {"d0", hb, "hb"}, of_active = {"d0", ha, "ha"};
    must(molt_disk_snapshot(clone.q, &of_clone, 1, &err), err);
    must(molt_disk_snapshot(act.q, &of_active, 1, &err), err);
    must(molt_disk_set_backing(clone.q, "hb", hb, a0, "below", &err), err);
    io(NULL, "d0@c", "write -P 5 0 1M");
    stop(&clone);
    io(NULL, "d0@a", "write -P 6 2M 1M");
    must(molt_disk_find_node(act.q, base, &node, &err), err);
    must(molt_disk_commit_live(act.q, "ha", node, NULL, NULL, &err), err);
    stop(&act);
    io("base0", NULL, "read -P 0 0 1M");
    io("base0", NULL, "read -P 2 1M 1M");
    io("base0", NULL, "read -P 6 2M 1M");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot_of_two),      cmocka_unit_test(test_snapshot_all_or_none),
        cmocka_unit_test(test_commit_of_a_chain),    cmocka_unit_test(test_copy_to_a_device),
        cmocka_unit_test(test_commit_of_a_chain_at_rest),
        cmocka_unit_test(test_hand_over),            cmocka_unit_test(test_hand_over_undone),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
