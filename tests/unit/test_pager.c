/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory that comes later, by the kernel's userfaultfd; the process that gets it plays CRIU's part too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/json.h"
#include "lazy_util.h"
#include "procmig/pager.h"
#include "procmig/predump.h"

#define A     UINT64_C(0x100000000000)
#define PAGES 1024
#define FIRST 5000
#define FINISHED 0x52535446

static char dir[32], result[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/molt-pager.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(result, sizeof(result), "%s/paged", dir);
    return 0;
}

static int drop_dir(void **state)
{
    (void)state;
    return molt_remove_tree(dir, NULL);
}

/* ---- the process ---- */

static int say(int sk, int32_t word, int fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char byte = '*';
    struct iovec iov = {&byte, 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

    if (send(sk, &word, sizeof(word), 0) != sizeof(word) || fd < 0)
        return fd < 0 ? 0 : -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);

    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    return sendmsg(sk, &m, 0) == 1 ? 0 : -1;
}

static volatile uint64_t *page(unsigned i)
{
    return (volatile uint64_t *)(uintptr_t)(A + (uint64_t)i * MOLT_PAGE);
}

/* Its memory stands there, without content, and somebody has been told. 0, or a reason to fail. */
static int be_restored(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), sk = socket(AF_UNIX, SOCK_STREAM, 0);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP};
    struct uffdio_register reg = {.range = {A, 2 * PAGES * MOLT_PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (mmap((void *)(uintptr_t)A, 2 * PAGES * MOLT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
        return 10;
    *page(3) = FIRST + 3; /* one that was restored at once; its end is zero */
    if (ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
        return 11;
    snprintf(a.sun_path, sizeof(a.sun_path), "%s/lazy-pages.socket", dir);
    if (connect(sk, (struct sockaddr *)&a, sizeof(a)) < 0 || say(sk, getpid(), fd) < 0)
        return 12;
    close(fd);
    if (*page(9) != FIRST + 9) /* asked for before the restore is finished */
        return 13;
    return say(sk, FINISHED, -1) < 0 ? 14 : 0;
}

static bool holds(unsigned i, uint64_t want)
{
    return page(i)[0] == want && page(i)[MOLT_PAGE / 8 - 1] == (i == 3 ? 0 : want);
}

static int look_at_all(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        if (!holds(i, FIRST + i))
            return 20;
    return 0;
}

/* All that a program can do to memory that it waits for. */
static int live(void)
{
    int status;
    pid_t child = fork();

    if (child == 0)
        _exit(look_at_all(0, PAGES));
    if (madvise((void *)page(100), 50 * MOLT_PAGE, MADV_DONTNEED) < 0 || munmap((void *)page(200), 50 * MOLT_PAGE) < 0)
        return 21;
    if (mremap((void *)page(300), 50 * MOLT_PAGE, 50 * MOLT_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)page(1500)) != (void *)page(1500))
        return 22;
    if (mmap((void *)page(200), 50 * MOLT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        return 23;
    mprotect((void *)page(700), 3 * MOLT_PAGE, PROT_READ);
    for (unsigned i = 0; i < 50; i++)
        if (*page(100 + i) || *page(200 + i) || page(1500 + i)[0] != FIRST + 300 + i || *page(1100 + i))
            return 24;
    if (look_at_all(0, 100) || look_at_all(150, 200) || look_at_all(250, 300) || look_at_all(350, PAGES))
        return 25;
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : 26;
}

enum { LIVE, LIVE_LATER, HANG, LEAVE };

/* Waits for its images, whose names hold its number. */
static pid_t start(int what, int *ret_go)
{
    int go[2];

    assert_int_equal(pipe(go), 0);
    pid_t pid = fork();

    if (pid == 0) {
        char word;
        int r;

        close(go[1]);
        if (read(go[0], &word, 1) != 1)
            _exit(9);
        if (what == LEAVE) {
            int sk = socket(AF_UNIX, SOCK_STREAM, 0);
            struct sockaddr_un a = {.sun_family = AF_UNIX};

            snprintf(a.sun_path, sizeof(a.sun_path), "%s/lazy-pages.socket", dir);
            _exit(connect(sk, (struct sockaddr *)&a, sizeof(a)) < 0);
        }
        r = be_restored();
        if (r == 0 && what == HANG)
            for (;;)
                pause();
        if (r == 0 && what == LIVE_LATER)
            raise(SIGSTOP);
        _exit(r ? r : live());
    }
    close(go[0]);
    *ret_go = go[1];
    return pid;
}

static void lay_images(pid_t pid, unsigned prot)
{
    const struct pe all[] = {{A, PAGES, PRESENT | LAZY}};

    const struct vma vma[] = {{A, A + PAGES * MOLT_PAGE, MAP_ANONYMOUS | MAP_PRIVATE, prot}};

    put_mm(dir, pid, vma, 1);
    put_pagemap(dir, pid, all, 1);
    put_pages(dir, FIRST, PAGES);
}

#define EVERY 3 /* page that the last round has; the others are of the one before */

static void lay_images_of_two_rounds(pid_t pid, unsigned prot)
{
    CLEANUP_FREE char *before = molt_xasprintf("%s/" MOLT_PREDUMP_PARENT, dir);
    struct pe last[2 * (PAGES / EVERY + 1)];
    size_t n = 0;

    lay_images(pid, prot);
    for (unsigned i = 0; i < PAGES; i += EVERY) {
        last[n++] = (struct pe){A + (uint64_t)i * MOLT_PAGE, 1, PRESENT | LAZY};
        if (i + 1 < PAGES)
            last[n++] = (struct pe){A + (uint64_t)(i + 1) * MOLT_PAGE, i + EVERY <= PAGES ? EVERY - 1 : PAGES - i - 1, PARENT | LAZY};
    }
    const struct pe all[] = {{A, PAGES, PRESENT}};

    assert_int_equal(mkdir(before, 0700), 0);
    put_pagemap(before, pid, all, 1);
    put_pages(before, FIRST, PAGES);
    put_pagemap(dir, pid, last, n);
    put_pages_every(dir, FIRST, EVERY, (PAGES + EVERY - 1) / EVERY);
}

static struct molt_json *wait_result(void)
{
    CLEANUP_FREE char *text = NULL;
    struct molt_json *v = NULL;
    size_t len;

    for (int i = 0; i < 2000 && !molt_exists(result); i++)
        molt_sleep_ms(10);
    assert_int_equal(molt_read_file(result, 65536, &text, &len, NULL), 0);
    assert_int_equal(molt_json_parse(text, len, &v, NULL), 0);
    return v;
}

static struct molt_pager serve_with(int what, void (*lay)(pid_t pid, unsigned prot), unsigned prot, uint64_t at_once, pid_t *ret_pid)
{
    const struct molt_pager_opts o = {.dir = dir, .result = result, .at_once = at_once};
    struct molt_pager p = MOLT_PAGER_NONE;
    int go;

    if (molt_pager_possible(NULL) < 0)
        skip(); /* this kernel, or its container, has no userfaultfd */
    *ret_pid = start(what, &go);
    lay(*ret_pid, prot);
    assert_int_equal(molt_pager_start(&o, &p, NULL), 0);
    assert_int_equal(write(go, "g", 1), 1);
    close(go);
    return p;
}

static struct molt_pager serve(int what, pid_t *ret_pid)
{
    return serve_with(what, lay_images, PROT_READ | PROT_WRITE, 0, ret_pid);
}

/* It lives well, asking for pages before they are pushed and meanwhile; the pager's result. */
static struct molt_json *live_through(struct molt_pager *p, pid_t pid)
{
    int status;

    molt_sleep_ms(50); /* some of it is asked for before it is pushed */
    assert_int_equal(molt_pager_push(p, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    struct molt_json *v = wait_result();

    assert_true(molt_json_get_bool(v, "ok", false));
    return v;
}

static void all_of_it_arrives(void **state)
{
    struct molt_pager p;
    pid_t pid;

    (void)state;
    p = serve(LIVE, &pid);
    CLEANUP_JSON struct molt_json *v = live_through(&p, pid);

    assert_true(molt_json_get_int(v, "faults", 0) > 0);
    assert_true(molt_json_get_int(v, "pages", 0) >= PAGES - 1 - 100); /* those that were thrown away need not come */
    molt_pager_end(&p);
}

/* What lies side by side comes from two files, by turns. */
static void two_rounds_are_put_together(void **state)
{
    struct molt_pager p;
    pid_t pid;

    (void)state;
    p = serve_with(LIVE, lay_images_of_two_rounds, PROT_READ | PROT_WRITE, 0, &pid);
    CLEANUP_JSON struct molt_json *v = live_through(&p, pid);

    assert_true(molt_json_get_int(v, "pages", 0) >= PAGES - 1 - 100);
    molt_pager_end(&p);
}

static void two_rounds_come_without_being_asked_for(void **state)
{
    struct molt_pager p;
    int status;
    pid_t pid;

    (void)state;
    p = serve_with(LIVE_LATER, lay_images_of_two_rounds, PROT_READ | PROT_WRITE, PAGES * MOLT_PAGE, &pid);
    assert_int_equal(molt_pager_push(&p, NULL), 0);
    CLEANUP_JSON struct molt_json *v = wait_result();

    assert_true(molt_json_get_bool(v, "ok", false));
    assert_int_equal(molt_json_get_int(v, "pages", 0), PAGES - 1);
    kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    molt_pager_end(&p);
}

/* Nobody asks for anything: it comes all the same, and its place in the images is free. */
static void it_is_brought_without_being_asked_for(void **state)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pages-1.img", dir);
    struct molt_pager p;
    struct stat st;
    pid_t pid;

    (void)state;
    p = serve(HANG, &pid);
    assert_int_equal(molt_pager_push(&p, NULL), 0);
    CLEANUP_JSON struct molt_json *v = wait_result();

    assert_true(molt_json_get_bool(v, "ok", false));
    assert_int_equal(molt_json_get_int(v, "pages", 0), PAGES - 1);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_blocks * 512 < PAGES * MOLT_PAGE / 4);
    assert_int_equal(kill(pid, 0), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    molt_pager_end(&p);
}

/* A mapping with a program; the process asks for its pages all the while. What has gone at once is still in the images, and is so much. */
static void what_is_likely_does_not_wait_for_calm(void **state)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pages-1.img", dir);
    const uint64_t at_once = PAGES / 2 * MOLT_PAGE;
    struct molt_pager p;
    struct stat st;
    pid_t pid;

    (void)state;
    p = serve_with(LIVE, lay_images, PROT_READ | PROT_WRITE | PROT_EXEC, at_once, &pid);
    CLEANUP_JSON struct molt_json *v = live_through(&p, pid);

    assert_int_equal(stat(path, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 >= at_once / 2);
    molt_pager_end(&p);
}

static pid_t server_of(const struct molt_pager *p)
{
    CLEANUP_FREE char *path = molt_xasprintf("/proc/%d/task/%d/children", (int)p->pid, (int)p->pid), *text = NULL;
    size_t len;

    assert_int_equal(molt_read_file(path, 4096, &text, &len, NULL), 0);
    pid_t pid = (pid_t)atoi(text);

    assert_true(pid > 1); /* 0 would be all of us */
    return pid;
}

/* Until the policy is (or is not) SCHED_IDLE; false: the server has ended, or it never is. */
static bool until_idle(pid_t server, bool idle)
{
    const int64_t end = molt_mono_ms() + 5000;
    int policy;

    do
        policy = sched_getscheduler(server);
    while (policy >= 0 && !molt_exists(result) && (policy == SCHED_IDLE) != idle && molt_mono_ms() < end);
    return policy >= 0 && (policy == SCHED_IDLE) == idle;
}

/* It is stopped in the middle of what it does while nobody else wants the processor; that is so little that it may be done before: false then. */
static bool raised_by(bool fault)
{
    struct molt_pager p;
    int status;
    pid_t pid;

    p = serve_with(LIVE_LATER, lay_images_of_two_rounds, PROT_READ | PROT_WRITE, 0, &pid);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    const pid_t server = server_of(&p);

    assert_int_equal(molt_pager_push(&p, NULL), 0);
    const bool caught = until_idle(server, true) && kill(server, SIGSTOP) == 0 && !molt_exists(result);

    if (fault)
        kill(pid, SIGCONT);
    if (caught)
        assert_true(until_idle(server, false)); /* some of what it asks for was never written, so it does not go without an answer */
    kill(server, SIGCONT);
    kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    CLEANUP_JSON struct molt_json *v = wait_result();

    assert_true(molt_json_get_bool(v, "ok", false));
    molt_pager_end(&p);
    return caught;
}

static void look_until_raised_by(bool fault)
{
    if (!molt_pager_realtime(1))
        skip(); /* without the right to, it does not stand back */
    (void)molt_pager_realtime(0);
    for (int tries = 0; tries < 100; tries++) {
        if (raised_by(fault))
            return;
        assert_int_equal(unlink(result), 0);
    }
    fail_msg("the server was never seen standing back");
}

static void until_a_page_is_asked_for_it_stands_back(void **state)
{
    (void)state;
    look_until_raised_by(true);
}

static void it_does_not_stand_back_for_ever(void **state)
{
    (void)state;
    look_until_raised_by(false);
}

/* Zeroes in the place of its memory would be worse than its end. */
static void a_server_that_dies_takes_it_along(void **state)
{
    struct molt_pager p;
    int status;
    pid_t pid;

    (void)state;
    p = serve(HANG, &pid);
    molt_sleep_ms(200);
    kill(server_of(&p), SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CLEANUP_JSON struct molt_json *v = wait_result();

    assert_false(molt_json_get_bool(v, "ok", true));
    molt_pager_end(&p);
}

static void a_restore_that_is_given_up_leaves_nothing(void **state)
{
    struct molt_pager p;
    int status;
    pid_t pid;

    (void)state;
    p = serve(HANG, &pid);
    molt_sleep_ms(200);
    molt_pager_end(&p);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* But not by itself: it would take along who knows why. */
static void a_criu_that_leaves_early_ends_it(void **state)
{
    struct molt_pager p;
    pid_t pid;

    (void)state;
    p = serve(LEAVE, &pid);
    waitpid(pid, NULL, 0);
    molt_sleep_ms(200);
    assert_false(molt_exists(result));
    molt_pager_end(&p);
    CLEANUP_JSON struct molt_json *v = wait_result();

    assert_false(molt_json_get_bool(v, "ok", true));
    assert_non_null(strstr(molt_json_get_string(v, "error"), "criu"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_of_it_arrives),
        TEST(two_rounds_are_put_together),
        TEST(two_rounds_come_without_being_asked_for),
        TEST(it_is_brought_without_being_asked_for),
        TEST(what_is_likely_does_not_wait_for_calm),
        TEST(until_a_page_is_asked_for_it_stands_back),
        TEST(it_does_not_stand_back_for_ever),
        TEST(a_server_that_dies_takes_it_along),
        TEST(a_restore_that_is_given_up_leaves_nothing),
        TEST(a_criu_that_leaves_early_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
