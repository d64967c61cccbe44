/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A criu that waits ready, and a dump in three parts. The criu is this program under that name: it speaks images/rpc.proto with an encoder and a
 * decoder of its own, so that both ends cannot agree on the same mistake. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/dump.h"
#include "procmig/pb.h"
#include "procmig/worker.h"

#define LONG_MS 20000

static char dir[32];
static char self[4096];

/* ---- the criu ---- */

struct heard {
    unsigned char b[4096];
    size_t len;
};

static void hear(int fd, struct heard *h)
{
    ssize_t n = recv(fd, h->b, sizeof(h->b), 0);
    if (n <= 0)
        exit(7); /* who asks is gone */
    h->len = (size_t)n;
}

static unsigned long number(const unsigned char **p)
{
    unsigned long v = 0;
    for (int shift = 0;; shift += 7) {
        v |= (unsigned long)(**p & 0x7f) << shift;
        if (!(*(*p)++ & 0x80))
            return v;
    }
}

/* Field `want` of a message, the n-th of its name: a number, or where bytes stand, with their length. */
static bool field(const unsigned char *p, size_t len, unsigned want, int nth, unsigned long *ret, const unsigned char **ret_data)
{
    const unsigned char *end = p + len;
    while (p < end) {
        unsigned long tag = number(&p), v = number(&p);
        if (tag >> 3 == want && nth-- == 0) {
            *ret = v;
            if (ret_data)
                *ret_data = (tag & 7) == 2 ? p : NULL;
            return true;
        }
        if ((tag & 7) == 2)
            p += v;
    }
    return false;
}

static unsigned long type_of(const struct heard *h)
{
    unsigned long v = 0;
    return field(h->b, h->len, 1, 0, &v, NULL) ? v : 0;
}

/* {type, success} and the like: short messages, byte by byte. */
static void say(int fd, const char *bytes, size_t len)
{
    if (send(fd, bytes, len, MSG_NOSIGNAL) < 0)
        exit(8);
}

static void step(int fd, const char *name, struct heard *answer)
{
    char b[64];
    size_t n = strlen(name);
    int len = snprintf(b, sizeof(b), "\x08\x06\x10\x01\x2a%c\x0a%c%s", (char)(n + 2), (char)n, name);
    unsigned long ok = 0;
    say(fd, b, (size_t)len);
    hear(fd, answer);
    if (type_of(answer) != 6 || !field(answer->b, answer->len, 3, 0, &ok, NULL) || ok != 1)
        exit(9);
}

/* What it was asked with goes to DIR/asked, what the second answer had to DIR/told; by its peer's descriptor, as CRIU does it. */
static void keep(const char *name, const struct heard *h)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", getenv("FAKE_DIR"), name);
    (void)molt_write_file(path, (const char *)h->b, h->len, 0600, NULL);
}

static int fake_dump(int fd, const struct heard *request, const char *mode)
{
    struct heard h;
    keep("asked", request);
    if (!strcmp(mode, "fails-early")) {
        say(fd, "\x08\x01\x10\x00\x4a\x0b" "no such pid", 17);
        return 1;
    }
    step(fd, "pre-dump", &h);
    step(fd, "network-lock", &h); /* only for a network namespace of its own */
    step(fd, "query-ext-files", &h);
    keep("told", &h);
    if (!strcmp(mode, "slow"))
        usleep(300000);
    step(fd, "post-dump", &h);
    CLEANUP_FREE char *done = molt_xasprintf("%s/done", getenv("FAKE_DIR"));
    close(open(done, O_WRONLY | O_CREAT, 0600));
    say(fd, "\x08\x01\x10\x01", 4);
    return 0;
}

static int fake_criu(int fd)
{
    const char *mode = getenv("FAKE");
    struct heard h;
    if (!strcmp(mode, "ends"))
        return 1;
    hear(fd, &h);
    if (!strcmp(mode, "silent"))
        for (;;)
            pause();
    if (type_of(&h) != 10)
        return 2;
    if (!strcmp(mode, "babbles"))
        say(fd, "\x08\x0a\x10", 3);
    else
        say(fd, "\x08\x0a\x10\x01", 4);
    hear(fd, &h);
    return fake_dump(fd, &h, mode);
}

/* ---- around it ---- */

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/molt-worker.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    CLEANUP_FREE char *link = molt_xasprintf("%s/criu", dir);
    setenv("FAKE_DIR", dir, 1);
    return symlink(self, link);
}

static int drop(void **state)
{
    (void)state;
    return molt_remove_tree(dir, NULL);
}

static bool there(const char *name)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void start_as(const char *mode, struct molt_worker *w)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    setenv("FAKE", mode, 1);
    if (molt_worker_start(dir, 0, LONG_MS, 0, w, &err) < 0)
        fail_msg("%s", molt_error_text(err));
}

static void a_worker_that_does_not_answer_is_none(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_worker w = MOLT_WORKER_NONE;
    (void)state;
    setenv("FAKE", "ends", 1);
    assert_int_equal(molt_worker_start(dir, 0, LONG_MS, 0, &w, &err), MOLT_E_STATE);
    setenv("FAKE", "babbles", 1);
    assert_int_equal(molt_worker_start(dir, 0, LONG_MS, 0, &w, &err), MOLT_E_PROTOCOL);
    setenv("FAKE", "silent", 1);
    assert_int_equal(molt_worker_start(dir, 0, 100, 0, &w, &err), MOLT_E_TIMEOUT);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* none is left */
    assert_int_equal(errno, ECHILD);
}

static void it_goes_on_when_it_is_answered(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_STRBUF struct molt_strbuf opts = MOLT_STRBUF_INIT;
    struct molt_worker w;
    char *at = NULL;
    (void)state;
    start_as("", &w);
    molt__pb_int(&opts, MOLT_CRIU_PID, 4711);
    assert_int_equal(molt_worker_ask(&w, MOLT_CRIU_DUMP, &opts, &err), 0);
    assert_int_equal(molt_worker_next(&w, LONG_MS, &at, &err), 0);
    assert_string_equal(at, "pre-dump");
    free(at);
    assert_int_equal(molt_worker_next(&w, 50, &at, &err), MOLT_E_TIMEOUT); /* it waits */
    assert_int_equal(molt_worker_go_on(&w, NULL, &err), 0);
    assert_int_equal(molt_worker_next(&w, LONG_MS, &at, &err), 0);
    assert_string_equal(at, "network-lock");
    free(at);
    assert_false(there("done"));
    assert_int_equal(molt_worker_go_on(&w, NULL, &err), 0);
    assert_int_equal(molt_worker_end(&w, "dump", LONG_MS, NULL, &err), 0); /* it answers what comes */
    assert_true(there("done"));
    assert_int_equal(w.pid, 0);
}

/* Behind whoever wants the processor, until it is wanted itself, or has been waited for long enough. */
static void it_stands_back_until_it_is_wanted(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_worker w;
    char *at = NULL;
    (void)state;
    setenv("FAKE", "", 1);
    const int own = getpriority(PRIO_PROCESS, 0), back = own > 10 ? own : 10;
    assert_int_equal(molt_worker_start(dir, 0, LONG_MS, LONG_MS, &w, &err), 0);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)w.pid), back);
    if (setpriority(PRIO_PROCESS, (id_t)w.pid, own) < 0) {
        molt_worker_kill(&w);
        print_message("a nice value cannot be lowered here\n");
        skip();
    }
    setpriority(PRIO_PROCESS, (id_t)w.pid, 19);
    molt_worker_hurry(&w);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)w.pid), own);
    molt_worker_kill(&w);
    assert_int_equal(molt_worker_start(dir, 0, LONG_MS, 300, &w, &err), 0);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)w.pid), back);
    assert_int_equal(molt_worker_next(&w, 600, &at, &err), MOLT_E_TIMEOUT); /* nothing was asked */
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)w.pid), own);
    setpriority(PRIO_PROCESS, (id_t)w.pid, 19); /* ours was another one then */
    molt_worker_hurry(&w);
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)w.pid), own);
    molt_worker_kill(&w);
}

static void its_words_are_in_the_error(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_STRBUF struct molt_strbuf opts = MOLT_STRBUF_INIT;
    struct molt_worker w;
    (void)state;
    start_as("fails-early", &w);
    molt__pb_int(&opts, MOLT_CRIU_PID, 4711);
    assert_int_equal(molt_worker_ask(&w, MOLT_CRIU_DUMP, &opts, &err), 0);
    assert_int_equal(molt_worker_end(&w, "dump", LONG_MS, NULL, &err), MOLT_E_CANNOT_MOVE);
    assert_non_null(strstr(molt_error_text(err), "no such pid"));
}

/* The agent is killed: its descriptors close. */
static void it_ends_with_us(void **state)
{
    int told[2], status;
    pid_t criu = 0;
    (void)state;
    assert_int_equal(pipe2(told, O_CLOEXEC), 0);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct molt_worker w;
        start_as("", &w);
        if (write(told[1], &w.pid, sizeof(w.pid)) < 0)
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(read(told[0], &criu, sizeof(criu)), sizeof(criu));
    assert_int_equal(waitpid(criu, &status, 0), criu); /* we inherit it */
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    close(told[0]);
    close(told[1]);
}

/* ---- the dump ---- */

struct subject {
    struct molt_proc proc;
    struct molt_workload w;
    struct molt_dump_opts opts;
    char images[64];
};

static void make_subject(struct subject *s, unsigned rounds)
{
    *s = (struct subject){0};
    pid_t pid = fork();
    if (pid == 0) {
        for (;;)
            pause();
    }
    s->proc.pid = pid;
    s->w = (struct molt_workload){.unit = "test.service", .main_pid = pid, .proc = &s->proc, .procs = 1, .tid = &s->proc.pid, .tids = 1};
    snprintf(s->images, sizeof(s->images), "%s/images", dir);
    s->opts = (struct molt_dump_opts){.toolbox = dir, .dir = s->images, .rounds = rounds};
}

static void drop_subject(struct subject *s)
{
    kill(s->proc.pid, SIGKILL);
    waitpid(s->proc.pid, NULL, 0);
}

static void arm(struct subject *s, const char *mode, struct molt_dump **ret)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    setenv("FAKE", mode, 1);
    if (molt_dump_arm(&s->w, &s->opts, ret, &err) < 0)
        fail_msg("%s", molt_error_text(err));
}

static unsigned long asked(const char *file, unsigned want, const unsigned char **data)
{
    static struct heard h; /* data lies in it */
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, file), *text = NULL;
    const unsigned char *opts;
    unsigned long len, v = 0;
    size_t n;
    assert_int_equal(molt_read_file(path, sizeof(h.b), &text, &n, NULL), 0);
    memcpy(h.b, text, n);
    h.len = n;
    assert_true(field(h.b, h.len, 2, 0, &len, &opts));
    if (!field(opts, len, want, 0, &v, data))
        return ~0ul;
    return v;
}

static void a_dump_waits_stands_still_and_ends(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_dump_stats stats;
    struct molt_dump *d = NULL;
    const unsigned char *text;
    struct subject s;
    (void)state;
    make_subject(&s, 3);
    arm(&s, "slow", &d);
    assert_false(there("told"));
    assert_int_equal(asked("asked", MOLT_CRIU_PID, NULL), s.proc.pid);
    assert_int_equal(asked("asked", MOLT_CRIU_NETWORK_LOCK, NULL), 3);
    assert_int_equal(asked("asked", MOLT_CRIU_MANAGE_CGROUPS, NULL), 0);
    assert_int_equal(asked("asked", MOLT_CRIU_TRACK_MEM, NULL), 1);
    assert_int_equal(asked("asked", MOLT_CRIU_PARENT_IMG, &text), 4);
    assert_memory_equal(text, "pre3", 4);
    assert_true(molt_dump_fits(d, &s.w, &s.opts));
    assert_int_equal(molt_dump_begin(d, &err), 0);
    assert_false(there("told"));
    assert_int_equal(molt_dump_go_on(d, &s.w, &err), 0);
    assert_false(there("done")); /* it is at it: this came back before */
    assert_int_equal(molt_dump_end(d, &s.w, &stats, &err), 0);
    assert_true(there("done") && there("images/" MOLT_DUMP_META) && there("images/" MOLT_DUMP_WHOLE));
    assert_true(stats.wall_us >= 300000);
    assert_int_equal(kill(s.proc.pid, 0), 0);
    drop_subject(&s);
}

static void one_that_waits_is_dropped_and_one_at_work_is_not(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_dump *d = NULL;
    struct subject s;
    (void)state;
    make_subject(&s, 0);
    arm(&s, "", &d);
    assert_int_equal(asked("asked", MOLT_CRIU_TRACK_MEM, NULL), ~0ul);
    molt_dump_disarm(d);
    assert_false(there("done"));
    arm(&s, "slow", &d);
    assert_int_equal(molt_dump_begin(d, &err), 0);
    assert_int_equal(molt_dump_go_on(d, &s.w, &err), 0);
    molt_dump_disarm(d);
    assert_true(there("done"));
    drop_subject(&s);
    molt_dump_disarm(NULL);
}

/* It waits for what stands still, and is told nothing. */
static void one_that_waits_in_the_middle_gives_up(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_dump *d = NULL;
    struct subject s;
    int64_t begun = molt_mono_ms();
    (void)state;
    make_subject(&s, 0);
    arm(&s, "", &d);
    assert_int_equal(molt_dump_begin(d, &err), 0);
    molt_dump_disarm(d);
    assert_false(there("done"));
    assert_true(molt_mono_ms() - begun < LONG_MS / 2);
    drop_subject(&s);
}

static void one_that_is_asked_for_something_else_does_not_fit(void **state)
{
    struct molt_dump *d = NULL;
    struct subject s;
    (void)state;
    make_subject(&s, 1);
    arm(&s, "", &d);
    s.opts.rounds = 2;
    assert_false(molt_dump_fits(d, &s.w, &s.opts));
    s.opts.rounds = 1;
    assert_true(molt_dump_fits(d, &s.w, &s.opts));
    molt_dump_disarm(d);
    drop_subject(&s);
}

static void a_dump_that_cannot_begin_says_why(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_dump *d = NULL;
    struct subject s;
    (void)state;
    make_subject(&s, 0);
    setenv("FAKE", "fails-early", 1);
    assert_int_equal(molt_dump_arm(&s.w, &s.opts, &d, &err), MOLT_E_CANNOT_MOVE);
    assert_non_null(strstr(molt_error_text(err), "no such pid"));
    drop_subject(&s);
}

/* ---- protobuf ---- */

static void what_is_encoded_is_decoded(void **state)
{
    static const uint64_t v[] = {0, 1, 127, 128, 300, 1ull << 32, UINT64_MAX};
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    struct molt__pb_field f;
    (void)state;
    for (size_t i = 0; i < 7; i++)
        molt__pb_int(&b, (unsigned)i + 1, v[i]);
    molt__pb_bytes(&b, 500, "a\0b", 3);
    assert_memory_equal(b.s, "\x08\x00\x10\x01\x18\x7f\x20\x80\x01\x28\xac\x02", 12); /* as protobuf's documentation has it */
    struct molt__pb m = molt__pb_over(b.s, b.len);
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(molt__pb_next(&m, &f), 1);
        assert_true(f.number == i + 1 && !f.is_bytes && f.value == v[i]);
    }
    assert_int_equal(molt__pb_next(&m, &f), 1);
    assert_true(f.number == 500 && f.is_bytes && f.len == 3 && !memcmp(f.data, "a\0b", 3));
    assert_int_equal(molt__pb_next(&m, &f), 0);
}

static void what_is_cut_is_malformed(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {{"\x08", 1}, {"\x08\x80", 2}, {"\x0a\x02" "a", 3}, {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11}, {"\x0d\x01\x02\x03\x04", 5},
               {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}};
    struct molt__pb_field f;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct molt__pb m = molt__pb_over(bad[i].bytes, bad[i].len);
        assert_int_equal(molt__pb_next(&m, &f), -1);
    }
}

int main(int argc, char *argv[])
{
    if (argc == 3 && !strcmp(argv[1], "swrk"))
        return fake_criu(atoi(argv[2]));
    if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_worker_that_does_not_answer_is_none, setup, drop),
        cmocka_unit_test_setup_teardown(it_goes_on_when_it_is_answered, setup, drop),
        cmocka_unit_test_setup_teardown(it_stands_back_until_it_is_wanted, setup, drop),
        cmocka_unit_test_setup_teardown(its_words_are_in_the_error, setup, drop),
        cmocka_unit_test_setup_teardown(it_ends_with_us, setup, drop),
        cmocka_unit_test_setup_teardown(a_dump_waits_stands_still_and_ends, setup, drop),
        cmocka_unit_test_setup_teardown(one_that_waits_is_dropped_and_one_at_work_is_not, setup, drop),
        cmocka_unit_test_setup_teardown(one_that_waits_in_the_middle_gives_up, setup, drop),
        cmocka_unit_test_setup_teardown(one_that_is_asked_for_something_else_does_not_fit, setup, drop),
        cmocka_unit_test_setup_teardown(a_dump_that_cannot_begin_says_why, setup, drop),
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(what_is_cut_is_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
