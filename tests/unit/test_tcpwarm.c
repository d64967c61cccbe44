/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Segments there and back over the loopback device, and what is left of their sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "procmig/tcpwarm.h"

/* Lines behind the first, in a network namespace with nothing else in it. */
static int sockets(const char *path)
{
    CLEANUP_FREE char *text = NULL;
    int n = -1;
    if (molt_read_file(path, 65536, &text, NULL, NULL) < 0)
        return 0; /* no IPv6 */
    for (const char *p = text; (p = strchr(p, '\n')); p++)
        n++;
    return n;
}

static void bring_up_loopback(void)
{
    struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
}

static void test_there_and_back(void **state)
{
    (void)state;
    if (unshare(CLONE_NEWNET) < 0) {
        print_message("          skipped: not root, or no network namespaces\n");
        skip();
    }
    int64_t t0 = molt_mono_ms();
    assert_int_equal(molt_tcp_warm(), 0); /* its loopback device is down: no error, and no long wait */
    assert_true(molt_mono_ms() - t0 < 1000);
    bring_up_loopback();
    assert_true(molt_tcp_warm() >= 32);
    assert_int_equal(sockets("/proc/thread-self/net/tcp"), 0);
    assert_int_equal(sockets("/proc/thread-self/net/tcp6"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_there_and_back)};
    return cmocka_run_group_tests_name("tcpwarm", tests, NULL, NULL);
}
