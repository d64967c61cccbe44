/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* procmig: pins compared with a tree, fetched, checked; overlay manifests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/execs.h"
#include "procmig/overlay.h"

static char *in(const char *dir, const char *path)
{
    return molt_xasprintf("%s%s", dir, path);
}

static void put(const char *dir, const char *path, const char *text)
{
    CLEANUP_FREE char *full = in(dir, path), *parent = molt_xstrdup(full);

    *strrchr(parent, '/') = '\0';
    assert_int_equal(molt_mkdir_p(parent, 0755, NULL), 0);
    assert_int_equal(molt_write_file(full, text, strlen(text), 0644, NULL), 0);
}

static void add_pin(struct molt_pins *p, const char *dir, const char *path, bool deleted)
{
    CLEANUP_FREE char *full = in(dir, path);
    struct molt_pin pin = {.path = molt_xstrdup(path),
                           .mode = 0640,
                           .uid = getuid(),
                           .gid = getgid(),
                           .use = MOLT_PIN_MAP,
                           .deleted = deleted,
                           .mtime_ns = 1000000000123456789};

    pin.source = in("/proc/7/root", path);
    assert_int_equal(molt_file_hash(full, &pin.hash, &pin.size, NULL), 0);
    pin.hashed = true;
    MOLT_GROW(p->v, p->n, p->cap);
    p->v[p->n++] = pin;
}

static int setup(void **state)
{
    char dir[] = "/tmp/molt-pins-XXXXXX";

    *state = mkdtemp(dir) ? molt_xstrdup(dir) : NULL;
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    int r = molt_remove_tree(*state, NULL);

    free(*state);
    return r;
}

static struct molt_pins *make(const char *top)
{
    CLEANUP_FREE char *old = in(top, "/old"), *new = in(top, "/new");
    struct molt_pins *p = molt_xcalloc(1, sizeof(*p));
    static const char *const path[] = {"/lib/same", "/lib/size", "/lib/text", "/lib/gone", "/lib/deleted"};

    for (size_t i = 0; i < 5; i++) {
        put(old, path[i], "old text");
        add_pin(p, old, path[i], i == 4);
    }
    put(new, "/lib/same", "old text");
    put(new, "/lib/size", "new text, longer");
    put(new, "/lib/text", "new text");
    return p;
}

static void compare_and_fetch(void **state)
{
    CLEANUP_PINS struct molt_pins *p = make(*state);
    CLEANUP_FREE char *new = in(*state, "/new"), *pins = in(*state, "/pins"), *gone = in(pins, "/lib/gone");
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct stat st;
    uint64_t bytes;
    size_t n;

    assert_int_equal(molt_pins_compare(p, new, &n, &bytes, NULL), 0);
    assert_int_equal(n, 3);
    assert_int_equal(bytes, 24);
    assert_int_equal(p->v[0].need, MOLT_PIN_SAME);
    assert_int_equal(p->v[1].need, MOLT_PIN_DIFFERENT);
    assert_int_equal(p->v[2].need, MOLT_PIN_DIFFERENT);
    assert_int_equal(p->v[3].need, MOLT_PIN_MISSING);
    assert_int_equal(p->v[4].need, MOLT_PIN_SAME);
    assert_int_equal(molt_pins_make_dirs(p, pins, NULL), 0);
    assert_int_not_equal(molt_pins_check_fetched(p, pins, NULL), 0);
    put(pins, "/lib/size", "old text");
    put(pins, "/lib/text", "old text");
    put(pins, "/lib/gone", "bad text");
    assert_int_equal(molt_pins_check_fetched(p, pins, &err), MOLT_E_PROTOCOL);
    assert_non_null(strstr(molt_error_text(err), "/lib/gone"));
    put(pins, "/lib/gone", "old text");
    assert_int_equal(molt_pins_check_fetched(p, pins, NULL), 0);
    assert_int_equal(stat(gone, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(st.st_mtim.tv_nsec, 123456789);
}

/* What was one inode on both sides of a snapshot needs no hash; what is no more does. */
static void untouched_inodes(void **state)
{
    CLEANUP_PINS struct molt_pins *p = make(*state);
    CLEANUP_FREE char *new = in(*state, "/new"), *same = in(new, "/lib/same");
    struct stat st;
    size_t n;

    assert_int_equal(stat(same, &st), 0);
    for (size_t i = 0; i < p->n; i++) {
        p->v[i].hashed = false;
        p->v[i].ino = st.st_ino;
        p->v[i].mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
        p->v[i].ctime_ns = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
    }
    assert_int_equal(molt_pins_compare(p, new, &n, NULL, NULL), 0);
    assert_int_equal(p->v[0].need, MOLT_PIN_SAME);
    assert_int_equal(p->v[1].need, MOLT_PIN_DIFFERENT); /* by its size */
    assert_int_equal(p->v[2].need, MOLT_PIN_UNKNOWN);   /* the same size, another inode */
    assert_int_equal(p->v[3].need, MOLT_PIN_MISSING);
    assert_int_equal(n, 2);
    p->v[0].ctime_ns++;
    p->v[2].hashed = true;
    assert_int_equal(molt_pins_compare(p, new, &n, NULL, NULL), 0);
    assert_int_equal(p->v[0].need, MOLT_PIN_UNKNOWN);
    assert_int_equal(p->v[2].need, MOLT_PIN_DIFFERENT);
}

static void json_round_trip(void **state)
{
    CLEANUP_PINS struct molt_pins *p = make(*state), *back = NULL;
    CLEANUP_JSON struct molt_json *v = molt_pins_json(p);

    assert_int_equal(molt_pins_parse(v, &back, NULL), 0);
    assert_int_equal(back->n, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(back->v[i].path, p->v[i].path);
        assert_string_equal(back->v[i].source, p->v[i].source);
        assert_true(back->v[i].hash == p->v[i].hash && back->v[i].size == p->v[i].size);
        assert_int_equal(back->v[i].mode, p->v[i].mode);
        assert_int_equal(back->v[i].deleted, p->v[i].deleted);
    }
}

static void hostile_pins(void **state)
{
    static const char *const keys[][2] = {{"path", "\"/a/../b\""},
                                          {"path", "7"},
                                          {"source", "\"/etc/shadow\""},
                                          {"hash", "\"xyz\""},
                                          {"hash", "null"},
                                          {"size", "-1"},
                                          {"mode", "99999"},
                                          {"uid", "-5"},
                                          {"use", "0"},
                                          {"need", "9"}};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        CLEANUP_PINS struct molt_pins *p = make(*state), *back = NULL;
        CLEANUP_JSON struct molt_json *v = molt_pins_json(p), *bad = NULL, *first = NULL;
        struct molt_json *top = molt_json_object(), *list = molt_json_array();

        assert_int_equal(molt_json_parse(keys[i][1], strlen(keys[i][1]), &bad, NULL), 0);
        first = molt_json_copy(molt_json_at(molt_json_get(v, "pins"), 0));
        molt_json_set(first, keys[i][0], MOLT_STEAL_PTR(bad));
        molt_json_append(list, MOLT_STEAL_PTR(first));
        molt_json_set_int(top, "schema", 1);
        molt_json_set(top, "pins", list);
        assert_int_equal(molt_pins_parse(top, &back, NULL), MOLT_E_PROTOCOL);
        molt_json_free(top);
    }
}

static void overlay_manifest(void **state)
{
    CLEANUP_PINS struct molt_pins *p = make(*state);
    CLEANUP_OVERLAY struct molt_overlay *o = NULL, *back = NULL;
    CLEANUP_FREE char *new = in(*state, "/new");
    CLEANUP_JSON struct molt_json *v = NULL, *bad = NULL;

    assert_int_equal(molt_pins_compare(p, new, NULL, NULL, NULL), 0);
    o = molt_overlay_new("a.service", "/var/lib/xenmolt/pins/1", p);
    assert_int_equal(o->n, 3);
    o->v[2].placeholder = true;
    o->v[2].made_dir = molt_xstrdup("/lib");
    v = molt_overlay_json(o);
    assert_int_equal(molt_overlay_parse(v, &back, NULL), 0);
    assert_int_equal(back->n, 3);
    assert_string_equal(back->v[2].pin, "/var/lib/xenmolt/pins/1/lib/gone");
    assert_true(back->v[2].placeholder);
    assert_string_equal(back->v[2].made_dir, "/lib");
    free(o->v[2].made_dir);
    o->v[2].made_dir = molt_xstrdup("/usr");
    bad = molt_overlay_json(o);
    molt_overlay_free(MOLT_STEAL_PTR(back));
    assert_int_equal(molt_overlay_parse(bad, &back, NULL), MOLT_E_PROTOCOL);
}

static void same_and_free(char *got, const char *want)
{
    if (want)
        assert_string_equal(got, want);
    else
        assert_null(got);
    free(got);
}

static void programs_by_their_texts(void **state)
{
    const char *list = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f2e)\n"
                       "\tlibno.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f2f)\n";

    (void)state;
    same_and_free(molt__exec_prefix("/usr/lib/jvm/java-17-openjdk-amd64/bin/java"), "/usr/lib/jvm/java-17-openjdk-amd64");
    same_and_free(molt__exec_prefix("/opt/shop/sbin/shopd"), "/opt/shop");
    same_and_free(molt__exec_prefix("/usr/bin/python3.11"), NULL);
    same_and_free(molt__exec_prefix("/usr/local/bin/shopd"), NULL);
    same_and_free(molt__exec_prefix("/bin/sh"), NULL);
    same_and_free(molt__exec_prefix("/opt/shop/shopd"), NULL);
    same_and_free(molt__list_next(&list), "/lib/x86_64-linux-gnu/libz.so.1");
    same_and_free(molt__list_next(&list), "/lib64/ld-linux-x86-64.so.2");
    same_and_free(molt__list_next(&list), NULL);
    same_and_free(molt__script_interpreter("#! /usr/bin/perl -w\nprint", 26), "/usr/bin/perl");
    same_and_free(molt__script_interpreter("#!/bin/sh", 9), NULL); /* a line that does not end may go on */
    same_and_free(molt__script_interpreter("#!sh\nexit", 10), NULL);
}

static size_t pins_of(const struct molt_pins *p, const char *path)
{
    CLEANUP_FREE char *real = realpath(path, NULL);
    size_t n = 0;

    for (size_t i = 0; i < p->n; i++)
        n += real && !strcmp(p->v[i].path, real) && (p->v[i].use & MOLT_PIN_EXEC);
    return n;
}

/* What this process may start: the shell with its libraries, a script of the list with its interpreter, not a file that is no program. */
static void programs_with_all_they_need(void **state)
{
    const char *dir = *state;
    CLEANUP_PINS struct molt_pins *p = molt_xcalloc(1, sizeof(*p));
    CLEANUP_FREE char *list = in(dir, "/list"), *script = in(dir, "/bin/one"), *plain = in(dir, "/bin/two"), *text = molt_xasprintf("# ours\n  %s/bin  # all\n\n", dir);
    const struct molt_workload w = {.main_pid = getpid()};

    if (getuid() != 0)
        skip(); /* it looks through another process's mounts */
    put(dir, "/bin/one", "#!/usr/bin/env python3\n");
    put(dir, "/bin/two", "#!/bin/false\n");
    chmod(script, 0755);
    put(dir, "/list", text);
    assert_int_equal(molt_pins_add_execs(p, &w, list, NULL), 0);
    assert_int_equal(pins_of(p, "/bin/sh"), 1);
    assert_int_equal(pins_of(p, "/lib64/ld-linux-x86-64.so.2"), 1);
    assert_int_equal(pins_of(p, "/lib/x86_64-linux-gnu/libc.so.6"), 1);
    assert_int_equal(pins_of(p, script), 1);
    assert_int_equal(pins_of(p, "/usr/bin/env"), 1);
    assert_int_equal(pins_of(p, plain), 0);
    assert_int_equal(molt_pins_add_execs(p, &w, "/nonexistent", NULL), 0);
    put(dir, "/list", "bin/one\n");
    assert_int_equal(molt_pins_add_execs(p, &w, list, NULL) < 0, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(compare_and_fetch, setup, teardown),
        cmocka_unit_test_setup_teardown(untouched_inodes, setup, teardown),
        cmocka_unit_test_setup_teardown(json_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(hostile_pins, setup, teardown),
        cmocka_unit_test_setup_teardown(overlay_manifest, setup, teardown),
        cmocka_unit_test(programs_by_their_texts),
        cmocka_unit_test_setup_teardown(programs_with_all_they_need, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
