/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stand-ins for files that are not there yet, in a mount namespace of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "procmig/image.h"
#include "procmig/pb.h"
#include "procmig/standins.h"

#define BIG 5000000000u

static char dir[64] = "/tmp/standins.XXXXXX";

struct open_file {
    unsigned id;
    const char *name; /* below dir */
    uint64_t size;
    mode_t mode;
};

static void put_image(const char *name, const struct molt_strbuf *b)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/images/%s", dir, name);
    assert_int_equal(molt_write_file(path, b->s, b->len, 0600, NULL), 0);
}

static void put_files(const struct open_file *v, size_t n)
{
    CLEANUP_STRBUF struct molt_strbuf image = MOLT_STRBUF_INIT, other = MOLT_STRBUF_INIT;
    molt__image_begin(&image, MOLT_IMAGE_FILES);
    for (size_t i = 0; i < n; i++) {
        CLEANUP_STRBUF struct molt_strbuf reg = MOLT_STRBUF_INIT, entry = MOLT_STRBUF_INIT;
        CLEANUP_FREE char *name = molt_xasprintf("%s/%s", dir, v[i].name);
        molt__pb_int(&reg, 1, v[i].id);
        molt__pb_string(&reg, 6, name);
        molt__pb_int(&reg, 8, v[i].size);
        molt__pb_int(&reg, 10, v[i].mode);
        molt__pb_int(&entry, 1, 1);
        molt__pb_int(&entry, 2, v[i].id);
        molt__pb_bytes(&entry, 3, reg.s, reg.len);
        molt__image_put(&image, entry.s, entry.len);
    }
    molt__pb_int(&other, 1, 2);
    molt__image_put(&image, other.s, other.len);
    put_image("files.img", &image);
}

/* The file with this id was deleted while it was open. */
static void put_remap(unsigned id)
{
    CLEANUP_STRBUF struct molt_strbuf image = MOLT_STRBUF_INIT, entry = MOLT_STRBUF_INIT;
    molt__image_begin(&image, MOLT_IMAGE_REMAP_FPATH);
    molt__pb_int(&entry, 1, id);
    molt__pb_int(&entry, 2, 77);
    molt__image_put(&image, entry.s, entry.len);
    put_image("remap-fpath.img", &image);
}

static bool is(const char *name, mode_t mode, uint64_t size)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, name);
    struct stat st;
    if (lstat(path, &st) < 0)
        return mode == 0;
    return st.st_mode == mode && (!S_ISREG(mode) || ((uint64_t)st.st_size == size && st.st_blocks == 0));
}

/* The number of the first that is not as it should be, 0: all are. */
static int in_namespace(void)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *images = molt_xasprintf("%s/images", dir), *data = molt_xasprintf("%s/data", dir), *inner = molt_xasprintf("%s/data/inner", dir);
    const char *const dirs[] = {data, inner, NULL};
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return 77;
    if (molt__standins_lay(images, dirs, &err) < 0) {
        print_error("%s\n", molt_error_text(err));
        return 1;
    }
    if (!is("data/there", 0, 0))
        return 2; /* what the mount point itself has */
    if (!is("data/log", S_IFREG | 0640, 4711) || !is("data/sub/dir/big", S_IFREG | 0600, BIG))
        return 3;
    if (!is("data/inner/db", S_IFREG | 0644, 1) || !is("data/work", S_IFDIR | 0750, 0) || !is("data/pipe", S_IFIFO | 0600, 0))
        return 4;
    if (!is("data/gone/deleted", 0, 0) || !is("data/gone", S_IFDIR | 0755, 0))
        return 5;
    if (!is("elsewhere", 0, 0) || !is("database", 0, 0) || !is("out", 0, 0))
        return 6;
    return 0;
}

static void they_are_laid(void **state)
{
    static const struct open_file v[] = {
        {1, "data/log", 4711, S_IFREG | 0640}, {2, "data/sub/dir/big", BIG, S_IFREG | 0600}, {3, "data/inner/db", 1, S_IFREG | 0644},
        {4, "data/work", 0, S_IFDIR | 0750}, {5, "data/pipe", 0, S_IFIFO | 0600}, {6, "data/gone/deleted", 9, S_IFREG | 0600},
        {7, "elsewhere", 3, S_IFREG | 0600}, {8, "database", 3, S_IFREG | 0600}, {9, "data/../out", 3, S_IFREG | 0600}, {10, "data/dev", 0, S_IFCHR | 0600},
    };
    int status;
    (void)state;
    put_files(v, sizeof(v) / sizeof(v[0]));
    put_remap(6);
    umask(0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(in_namespace());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WEXITSTATUS(status) == 77) {
        print_message("          skipped: not root, or no mount namespaces\n");
        skip();
    }
    assert_int_equal(status, 0);
    assert_true(is("data/there", S_IFREG | 0600, 0) && is("data/log", 0, 0)); /* nothing of it is seen outside */
}

static void bad_images_are_refused(void **state)
{
    CLEANUP_FREE char *images = molt_xasprintf("%s/images", dir);
    const char *const none[] = {NULL};
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    (void)state;
    molt__image_begin(&b, MOLT_IMAGE_FILES);
    molt__image_put(&b, "\x1a\xff\x01", 3); /* a message that is longer than what is there */
    put_image("files.img", &b);
    assert_int_equal(molt__standins_lay(images, none, NULL), MOLT_E_PROTOCOL);
    b.len = 0;
    molt__image_begin(&b, MOLT_IMAGE_MM);
    put_image("files.img", &b);
    assert_int_equal(molt__standins_lay(images, none, NULL), MOLT_E_PROTOCOL);
}

static int make_dirs(void **state)
{
    (void)state;
    CLEANUP_FREE char *there = NULL;
    if (!mkdtemp(dir))
        return -1;
    for (const char *const *d = (const char *const[]){"images", "data", NULL}; *d; d++) {
        CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, *d);
        if (mkdir(path, 0755) < 0)
            return -1;
    }
    there = molt_xasprintf("%s/data/there", dir);
    return molt_write_file(there, "", 0, 0600, NULL);
}

static int remove_dirs(void **state)
{
    (void)state;
    return molt_remove_tree(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_are_laid),
        cmocka_unit_test(bad_images_are_refused),
    };
    return cmocka_run_group_tests(tests, make_dirs, remove_dirs);
}
