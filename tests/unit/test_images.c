/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The dump's images on their way: while others are still written, over a socket between two processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/peer.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/dump.h"

#define LONG_MS 20000
#define BIG (3u << 20) /* more than one message */

static char dir[32], from[48], to[48];
static struct molt_chan *chan;
static pid_t server;

static int h_images(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    (void)reply;
    return images_send(rq, from, molt_json_get_bool(rq->args, "follow", false), err);
}

static int setup(void **state)
{
    static const struct molt_handler handlers[] = {{"images", h_images}, {NULL, NULL}};
    int sk[2];
    (void)state;
    strcpy(dir, "/tmp/molt-images.XXXXXX");
    if (!mkdtemp(dir) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sk) < 0)
        return -1;
    snprintf(from, sizeof(from), "%s/from", dir);
    snprintf(to, sizeof(to), "%s/to", dir);
    if (mkdir(from, 0700) < 0 || mkdir(to, 0700) < 0)
        return -1;
    server = fork();
    if (server == 0) {
        close(sk[0]);
        struct molt_chan *c = molt_chan_from_fd(sk[1]);
        while (molt_serve_one(c, handlers, NULL, -1, NULL) == 0)
            ;
        _exit(0);
    }
    close(sk[1]);
    chan = molt_chan_from_fd(sk[0]);
    chan->timeout_ms = LONG_MS;
    return server < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    molt_chan_close(chan);
    waitpid(server, NULL, 0);
    return molt_remove_tree(dir, NULL);
}

static char *path_of(const char *in, const char *name)
{
    return molt_xasprintf("%s/%s", in, name);
}

static int open_image(const char *name, int flags)
{
    CLEANUP_FREE char *p = path_of(from, name);
    return open(p, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
}

static void put_image(const char *name, int flags, const char *text)
{
    CLEANUP_CLOSE int fd = open_image(name, flags);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        abort();
}

static bool arrived(const char *name)
{
    CLEANUP_FREE char *p = path_of(to, name);
    return access(p, F_OK) == 0;
}

static void put_end(const char *name)
{
    CLEANUP_FREE char *part = path_of(from, ".part"), *p = path_of(from, name);
    close(open(part, O_WRONLY | O_CREAT, 0600));
    if (rename(part, p) < 0)
        abort();
}

static void same(const char *name)
{
    CLEANUP_FREE char *a = path_of(from, name), *b = path_of(to, name), *x = NULL, *y = NULL;
    size_t n, m;
    assert_int_equal(molt_read_file(a, 16u << 20, &x, &n, NULL), 0);
    assert_int_equal(molt_read_file(b, 16u << 20, &y, &m, NULL), 0);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
}

/* Beside the fetch. Its exit status: 0, or the number of what did not hold. */
static int writer(void)
{
    char *big = molt_xcalloc(1, BIG);
    int64_t end = molt_mono_ms() + LONG_MS;
    int open_one = open_image("pages-1.img", 0);
    put_image("early.img", 0, "closed before anybody looked");
    memset(big, 'x', BIG);
    if (write(open_one, big, BIG / 2) != BIG / 2)
        return 1;
    put_image("core-1.img", 0, "one that is closed at once");
    while ((!arrived("core-1.img") || !arrived("early.img")) && molt_mono_ms() < end)
        molt_sleep_ms(5);
    if (!arrived("core-1.img") || !arrived("early.img"))
        return 2; /* it waits for the end */
    if (arrived("pages-1.img"))
        return 3; /* it was sent while it was written */
    if (write(open_one, big, BIG / 2) != BIG / 2)
        return 1;
    close(open_one);
    while (!arrived("pages-1.img") && molt_mono_ms() < end)
        molt_sleep_ms(5);
    put_image("core-1.img", O_APPEND, ", and written again");
    put_image("late.img", 0, "");
    put_end(MOLT_DUMP_WHOLE);
    free(big);
    return 0;
}

static int beside(int (*fn)(void))
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(fn());
    return pid;
}

static int end_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static void images_come_while_others_are_written(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    uint64_t bytes = 0;
    (void)state;
    pid_t pid = beside(writer);
    if (images_fetch(chan, "a.service", to, 0, true, &bytes, &err) < 0)
        fail_msg("%s (writer: %d)", molt_error_text(err), end_of(pid));
    assert_int_equal(end_of(pid), 0);
    same("early.img");
    same("core-1.img");
    same("pages-1.img");
    same("late.img");
    assert_false(arrived(MOLT_DUMP_WHOLE)); /* a word between those two processes */
    assert_true(bytes > BIG);
}

static int failing(void)
{
    put_image("core-1.img", 0, "half a dump");
    molt_sleep_ms(50);
    put_end(MOLT_DUMP_FAILED);
    return 0;
}

static void a_dump_that_failed_ends_it(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    uint64_t bytes;
    (void)state;
    pid_t pid = beside(failing);
    assert_int_equal(images_fetch(chan, "a.service", to, 0, true, &bytes, &err), MOLT_E_STATE);
    assert_int_equal(end_of(pid), 0);
    assert_false(chan->broken);
}

/* The end was there before: as after a dump that did not tell early. */
static void what_is_complete_comes_at_once(void **state)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_FREE char *link = path_of(from, "parent");
    uint64_t bytes;
    (void)state;
    put_image("core-1.img", 0, "all of it");
    assert_int_equal(symlink("pre1", link), 0);
    put_end(MOLT_DUMP_WHOLE);
    assert_int_equal(images_fetch(chan, "a.service", to, 0, true, &bytes, &err), 0);
    same("core-1.img");
    assert_false(arrived("parent")); /* each side makes its own */
    assert_int_equal(images_fetch(chan, "a.service", to, 0, false, &bytes, &err), 0); /* over what is there */
    same("core-1.img");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(images_come_while_others_are_written, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dump_that_failed_ends_it, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_complete_comes_at_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
