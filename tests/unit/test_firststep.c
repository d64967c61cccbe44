/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What stands still runs its own code up to a system call, which is not made; what cannot go on is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "procmig/firststep.h"
#include "procmig/procfs.h"

struct seen { /* by parent and child */
    pid_t thread;
    int uffd; /* the child's descriptor */
    volatile int stored;
};

struct child {
    pid_t pid;
    int heard; /* the reading end of a pipe that it writes to in its next system call */
    struct seen *seen;
};

typedef void (*body)(struct seen *seen, int pipe);

/* Stopped, about to go on in `run`. */
static struct child begin(body run)
{
    struct child c = {.seen = mmap(NULL, sizeof(*c.seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)};
    int fd[2], status;

    assert_ptr_not_equal(c.seen, MAP_FAILED);
    assert_int_equal(pipe(fd), 0);
    c.pid = fork();
    assert_true(c.pid >= 0);
    if (c.pid == 0) {
        close(fd[0]);
        signal(SIGSEGV, SIG_DFL); /* cmocka catches it */
        run(c.seen, fd[1]);
        _exit(0);
    }
    close(fd[1]);
    c.heard = fd[0];
    assert_int_equal(waitpid(c.pid, &status, WUNTRACED), c.pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); /* not as root */
    assert_true(WIFSTOPPED(status));
    return c;
}

static void wait_for(pid_t id)
{
    int status;

    while (waitpid(id, &status, __WALL) == id && WIFSTOPPED(status))
        ;
}

/* It ends without having said a word. */
static void end(struct child *c)
{
    char byte;

    kill(c->pid, SIGKILL);
    if (c->seen->thread)
        wait_for(c->seen->thread); /* who traces a thread is told of its end first */
    wait_for(c->pid);
    assert_int_equal(read(c->heard, &byte, 1), 0);
    close(c->heard);
    munmap(c->seen, sizeof(*c->seen));
}

static void say(int pipe)
{
    (void)!write(pipe, "x", 1);
}

static const char *const *absent;

static int step(const struct child *c, size_t n, struct molt_first_step *ret, struct molt_error **err)
{
    const pid_t id[] = {c->pid, c->seen->thread};

    return molt_first_step(id, n, absent, 3000, ret, err);
}

static void goes_on(struct seen *seen, int pipe)
{
    raise(SIGSTOP);
    seen->stored = 1;
    say(pipe);
}

static void a_system_call_is_not_made(void **state)
{
    struct child c = begin(goes_on);
    struct molt_first_step s;

    (void)state;
    assert_int_equal(step(&c, 1, &s, NULL), 0);
    assert_int_equal(s.reached, 1);
    assert_int_equal(s.busy + s.left, 0);
    end(&c);
}

static void its_own_code_runs(void **state)
{
    struct child c = begin(goes_on);
    struct molt_first_step s;

    (void)state;
    assert_int_equal(step(&c, 1, &s, NULL), 0);
    assert_true(c.seen->stored); /* nobody but raise() may have made another call before */
    end(&c);
}

static void *stores(void *arg)
{
    struct seen *seen = arg;

    seen->thread = (pid_t)syscall(SYS_gettid);
    while (!seen->stored)
        ;
    pause();
    return NULL;
}

static void has_a_thread(struct seen *seen, int pipe)
{
    pthread_t t;

    if (pthread_create(&t, NULL, stores, seen))
        _exit(1);
    while (!*(volatile pid_t *)&seen->thread)
        usleep(1000);
    raise(SIGSTOP);
    seen->stored = 1;
    say(pipe);
}

static void each_thread_runs(void **state)
{
    struct child c = begin(has_a_thread);
    struct molt_first_step s;

    (void)state;
    assert_int_equal(step(&c, 2, &s, NULL), 0);
    assert_int_equal(s.reached, 2);
    end(&c);
}

static void works(struct seen *seen, int pipe)
{
    (void)pipe;
    raise(SIGSTOP);
    for (;;)
        seen->stored++;
}

static void one_that_works_is_waited_for_no_longer_than_that(void **state)
{
    struct child c = begin(works);
    struct molt_first_step s;
    int64_t begun = molt_mono_ms();

    (void)state;
    assert_int_equal(step(&c, 1, &s, NULL), 0);
    assert_int_equal(s.busy, 1);
    assert_true(molt_mono_ms() - begun < 3000);
    end(&c);
}

static void meets_an_illegal_instruction(struct seen *seen, int pipe)
{
    (void)seen;
    (void)pipe;
    raise(SIGSTOP);
    __builtin_trap();
}

static void an_instruction_that_is_not_there_is_told(void **state)
{
    struct child c = begin(meets_an_illegal_instruction);
    CLEANUP_ERROR struct molt_error *e = NULL;
    struct molt_first_step s;

    (void)state;
    assert_int_equal(step(&c, 1, &s, &e), MOLT_E_CANNOT_MOVE);
    assert_non_null(strstr(molt_error_text(e), "Illegal instruction"));
    end(&c);
}

static void reads_nothing(struct seen *seen, int pipe)
{
    (void)pipe;
    raise(SIGSTOP);
    seen->stored = *(volatile int *)(uintptr_t)4096;
}

static void memory_that_is_not_there_is_told(void **state)
{
    struct child c = begin(reads_nothing);
    CLEANUP_ERROR struct molt_error *e = NULL;
    struct molt_first_step s;

    (void)state;
    assert_int_equal(step(&c, 1, &s, &e), MOLT_E_CANNOT_MOVE);
    assert_non_null(strstr(molt_error_text(e), "Segmentation fault at 0x1000"));
    end(&c);
}

#define PAGES 64

/* Memory that comes when somebody brings it, as a move's does (userfaultfd(2)). */
static void asks_for_its_memory(struct seen *seen, int pipe)
{
    struct uffdio_api api = {.api = UFFD_API};
    char *memory = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register area = {.range = {.start = (uintptr_t)memory, .len = PAGES * 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};

    seen->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (seen->uffd < 0)
        _exit(77);
    if (ioctl(seen->uffd, UFFDIO_API, &api) < 0 || ioctl(seen->uffd, UFFDIO_REGISTER, &area) < 0)
        _exit(1);
    raise(SIGSTOP);
    for (int i = 0; i < PAGES; i++)
        seen->stored += *(volatile char *)(memory + i * 4096) + 1;
    say(pipe);
}

static void memory_that_does_not_come_is_told(void **state)
{
    struct child c = begin(asks_for_its_memory);
    CLEANUP_ERROR struct molt_error *e = NULL;
    struct molt_first_step s;

    (void)state;
    assert_int_equal(step(&c, 1, &s, &e), MOLT_E_CANNOT_MOVE);
    assert_non_null(strstr(molt_error_text(e), "waited for its memory"));
    end(&c);
}

/* A page each tenth of a second. */
static void serve_slowly(const struct child *c)
{
    int fd = molt__steal_fd(c->pid, c->seen->uffd);
    struct uffd_msg m;

    while (fd >= 0 && read(fd, &m, sizeof(m)) == sizeof(m)) {
        struct uffdio_zeropage z = {.range = {.start = m.arg.pagefault.address & ~4095ull, .len = 4096}};

        molt_sleep_ms(100);
        if (ioctl(fd, UFFDIO_ZEROPAGE, &z) < 0)
            break;
    }
    _exit(1);
}

static void memory_that_comes_slowly_is_not_waited_for(void **state)
{
    struct child c = begin(asks_for_its_memory);
    struct molt_first_step s;
    int64_t begun = molt_mono_ms();
    pid_t server = fork();

    (void)state;
    if (server == 0)
        serve_slowly(&c);
    assert_int_equal(step(&c, 1, &s, NULL), 0);
    assert_int_equal(s.busy, 1);
    assert_true(molt_mono_ms() - begun < 2500);
    kill(server, SIGKILL);
    wait_for(server);
    end(&c);
}

static int its_pipe;
static void on_fault(int sig)
{
    (void)sig;
    say(its_pipe);
    _exit(1);
}

static void catches_its_faults(struct seen *seen, int pipe)
{
    its_pipe = pipe;
    signal(SIGSEGV, on_fault);
    reads_nothing(seen, pipe);
}

static void a_fault_that_is_caught_is_its_own_matter(void **state)
{
    struct child c = begin(catches_its_faults);
    struct molt_first_step s;

    (void)state;
    assert_int_equal(step(&c, 1, &s, NULL), 0);
    assert_int_equal(s.reached, 1);
    end(&c);
}

static void what_others_have_sent_waits(void **state)
{
    struct child c = begin(goes_on);
    struct molt_first_step s;

    (void)state;
    kill(c.pid, SIGTERM); /* would end it */
    assert_int_equal(step(&c, 1, &s, NULL), 0);
    assert_int_equal(s.reached, 1);
    assert_true(c.seen->stored);
    end(&c);
}

static void maps(const char *path, struct seen *seen, int pipe)
{
    FILE *f = fopen(path, "w+");

    if (!f && geteuid() != 0)
        _exit(77);
    if (!f || ftruncate(fileno(f), 4096) < 0 || mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0) == MAP_FAILED)
        _exit(1);
    unlink(path);
    raise(SIGSTOP);
    seen->stored = 1;
    say(pipe);
}

static void maps_a_lasting_file(struct seen *seen, int pipe)
{
    CLEANUP_FREE char *path = molt_xasprintf("/var/lib/firststep-%d", (int)getpid());

    maps(path, seen, pipe);
}

static void maps_a_passing_file(struct seen *seen, int pipe)
{
    CLEANUP_FREE char *path = molt_xasprintf("/dev/shm/firststep-%d", (int)getpid());

    maps(path, seen, pipe);
}

static void who_could_write_to_a_file_is_left_alone(void **state)
{
    struct child c = begin(maps_a_lasting_file);
    struct molt_first_step s;

    (void)state;
    assert_int_equal(step(&c, 1, &s, NULL), 0);
    assert_int_equal(s.left, 1);
    assert_false(c.seen->stored);
    end(&c);
}

static void but_not_for_a_file_that_goes_with_the_trial(void **state)
{
    struct child c = begin(maps_a_passing_file);
    struct molt_first_step s;

    (void)state;
    assert_int_equal(step(&c, 1, &s, NULL), 0);
    assert_int_equal(s.reached, 1);
    end(&c);
}

static void nor_is_who_reads_what_is_not_there_yet(void **state)
{
    const char *const dirs[] = {"/nowhere", "/dev/shm", NULL}, *const other[] = {"/dev/sh", NULL};
    struct child c = begin(maps_a_passing_file);
    struct molt_first_step s;

    (void)state;
    absent = dirs;
    assert_int_equal(step(&c, 1, &s, NULL), 0);
    assert_int_equal(s.left, 1);
    absent = other;
    assert_int_equal(step(&c, 1, &s, NULL), 0);
    assert_int_equal(s.reached, 1);
    absent = NULL;
    end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_system_call_is_not_made),
        cmocka_unit_test(its_own_code_runs),
        cmocka_unit_test(each_thread_runs),
        cmocka_unit_test(one_that_works_is_waited_for_no_longer_than_that),
        cmocka_unit_test(an_instruction_that_is_not_there_is_told),
        cmocka_unit_test(memory_that_is_not_there_is_told),
        cmocka_unit_test(memory_that_does_not_come_is_told),
        cmocka_unit_test(memory_that_comes_slowly_is_not_waited_for),
        cmocka_unit_test(a_fault_that_is_caught_is_its_own_matter),
        cmocka_unit_test(what_others_have_sent_waits),
        cmocka_unit_test(who_could_write_to_a_file_is_left_alone),
        cmocka_unit_test(nor_is_who_reads_what_is_not_there_yet),
        cmocka_unit_test(but_not_for_a_file_that_goes_with_the_trial),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
