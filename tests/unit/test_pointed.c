/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which pages threads point to, and how that travels. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/lazy.h"
#include "procmig/pointed.h"

#define HEAP_PAGES 1024u
#define PID        77

static char dir[32];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/molt-pointed.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    return molt_remove_tree(dir, NULL);
}

static void the_stack_pointer_is_the_last_but_one(void **state)
{
    uint64_t sp = 0;

    (void)state;
    assert_true(molt__stack_pointer("0 0x6 0x7ffd1 0x400 0x0 0x0 0x0 0x7ffd12345678 0x7f0011223344\n", &sp));
    assert_int_equal(sp, 0x7ffd12345678);
    assert_true(molt__stack_pointer("-1 0x7ffd00000010 0x55d0\n", &sp));
    assert_int_equal(sp, 0x7ffd00000010);
    assert_false(molt__stack_pointer("running\n", &sp));
    assert_false(molt__stack_pointer("", &sp));
    assert_false(molt__stack_pointer("0 stack 0x7f\n", &sp));
    assert_false(molt__stack_pointer("-1 0x0 0x0\n", &sp)); /* a kernel's own */
}

/* In page 100 a pointer, a reference of 32 bits (an eighth of an address), and behind them, too far away, one more pointer. */
__attribute__((noinline)) static void fill(unsigned char *heap)
{
    unsigned char *const object = heap + 100 * MOLT_PAGE + 1000, *const there = heap + 201 * MOLT_PAGE - 8, *const late = heap + 300 * MOLT_PAGE;
    const uint32_t eighth = (uint32_t)((uintptr_t)(heap + 250 * MOLT_PAGE) >> 3);

    memcpy(object + 8, &there, sizeof(there));
    memcpy(object + 20, &eighth, sizeof(eighth));
    memcpy(object + 1024, &late, sizeof(late));
}

/* None of what fill() knew is left on the stack. */
__attribute__((noinline)) static void scrub(void)
{
    volatile unsigned char room[8192];

    for (size_t i = 0; i < sizeof(room); i++)
        room[i] = 0;
}

static void wait_pointing(unsigned char *heap)
{
    unsigned char *volatile object = heap + 100 * MOLT_PAGE + 1000;

    for (;;) {
        object[0]++; /* so that it stays there */
        pause();
    }
}

static bool stands(pid_t pid)
{
    CLEANUP_FREE char *path = molt_xasprintf("/proc/%d/syscall", (int)pid), *text = NULL;
    uint64_t sp;

    return molt_read_file(path, 4096, &text, NULL, NULL) == 0 && molt__stack_pointer(text, &sp);
}

static bool found(const struct molt__pointed *p, const unsigned char *heap, unsigned page)
{
    uint64_t n = 1;

    return molt__pointed_has(p, (uint64_t)(uintptr_t)heap + page * MOLT_PAGE, &n);
}

static void what_a_waiting_thread_points_to_is_found(void **state)
{
    /* Where a reference of 32 bits leads to. */
    unsigned char *heap = mmap((void *)UINT64_C(0x300000000), HEAP_PAGES * MOLT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    struct molt__pointed p = {NULL, 0};

    (void)state;
    if (geteuid() != 0)
        skip(); /* another process's stack is root's to read */
    assert_true(heap != MAP_FAILED);
    fill(heap);
    scrub();
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        wait_pointing(heap);
    for (int i = 0; i < 500 && !stands(pid); i++)
        molt_sleep_ms(10);
    struct molt_proc proc = {.pid = pid, .first_tid = 0, .tids = 1};
    struct molt_workload w = {.main_pid = pid, .proc = &proc, .procs = 1, .tid = &pid, .tids = 1};

    assert_int_equal(molt_pointed_write(&w, dir, NULL), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(molt__pointed_load(dir, pid, &p, NULL), 0);
    assert_true(found(&p, heap, 100));
    assert_false(found(&p, heap, 101));
    assert_true(found(&p, heap, 200));
    assert_true(found(&p, heap, 201)); /* it goes on there */
    assert_false(found(&p, heap, 202));
    assert_true(found(&p, heap, 250));
    assert_false(found(&p, heap, 300));
    molt__pointed_free(&p);
    munmap(heap, HEAP_PAGES * MOLT_PAGE);
}

static void a_process_that_has_ended_is_passed_over(void **state)
{
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    struct molt_proc proc = {.pid = pid, .first_tid = 0, .tids = 1};
    struct molt_workload w = {.main_pid = pid, .proc = &proc, .procs = 1, .tid = &pid, .tids = 1};
    struct molt__pointed p = {NULL, 0};

    assert_int_equal(molt_pointed_write(&w, dir, NULL), 0);
    assert_int_equal(molt__pointed_load(dir, pid, &p, NULL), 0);
    assert_int_equal(p.n, 0);
}

static int load(const void *data, size_t len)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pointed-%d.img", dir, PID);
    struct molt__pointed p = {NULL, 0};

    assert_int_equal(molt_write_file(path, data, len, 0600, NULL), 0);
    int r = molt__pointed_load(dir, PID, &p, NULL);

    molt__pointed_free(&p);
    return r;
}

static void what_is_no_list_of_pages_is_refused(void **state)
{
    struct {
        char magic[8];
        uint64_t v[2];
    } f = {.magic = "MOLTPTR", .v = {0x10000, 0x20000}};
    CLEANUP_FREE unsigned char *long_one = molt_xcalloc(MOLT_POINTED_MAX + 2, sizeof(uint64_t));

    (void)state;
    memcpy(f.magic, MOLT__POINTED_MAGIC, sizeof(f.magic));
    assert_int_equal(load(&f, sizeof(f)), 0);
    assert_int_equal(load(&f, sizeof(f.magic)), 0); /* none */
    assert_int_equal(load(&f, sizeof(f) - 1), MOLT_E_PROTOCOL);
    assert_int_equal(load(&f, 4), MOLT_E_PROTOCOL);
    f.v[1] = 0x10000;
    assert_int_equal(load(&f, sizeof(f)), MOLT_E_PROTOCOL);
    f.v[1] = 0x20001;
    assert_int_equal(load(&f, sizeof(f)), MOLT_E_PROTOCOL);
    f.v[1] = 0x20000;
    f.magic[7] = '9';
    assert_int_equal(load(&f, sizeof(f)), MOLT_E_PROTOCOL);
    assert_true(load(long_one, (MOLT_POINTED_MAX + 2) * sizeof(uint64_t)) < 0);
}

static void pages_that_are_alike_go_together(void **state)
{
    uint64_t v[] = {0x10000, 0x11000, 0x12000, 0x20000}, n = 100;
    const struct molt__pointed p = {v, 4};

    (void)state;
    assert_true(molt__pointed_has(&p, 0x10000, &n));
    assert_int_equal(n, 3);
    n = 2;
    assert_true(molt__pointed_has(&p, 0x11000, &n));
    assert_int_equal(n, 2);
    n = 100;
    assert_false(molt__pointed_has(&p, 0x13000, &n));
    assert_int_equal(n, 13);
    n = 100;
    assert_false(molt__pointed_has(&p, 0x21000, &n));
    assert_int_equal(n, 100);
    n = 4;
    assert_false(molt__pointed_has(&p, 0x1000, &n));
    assert_int_equal(n, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_stack_pointer_is_the_last_but_one),
        cmocka_unit_test_setup_teardown(what_a_waiting_thread_points_to_is_found, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(a_process_that_has_ended_is_passed_over, make_dir, drop_dir),
        cmocka_unit_test_setup_teardown(what_is_no_list_of_pages_is_refused, make_dir, drop_dir),
        cmocka_unit_test(pages_that_are_alike_go_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
