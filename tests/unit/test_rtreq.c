/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests to rtnetlink, in a network namespace of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <string.h>

#include <cmocka.h>

#include "base/rtreq.h"

#define LOOPBACK 1 /* index of the first device of any namespace */

static const unsigned char address[4] = {10, 9, 9, 9};

static int ask(unsigned short type, unsigned short flags, unsigned index)
{
    const struct ifaddrmsg body = {.ifa_family = AF_INET, .ifa_prefixlen = 24, .ifa_index = index};
    struct molt_rtreq m;

    molt_rtreq_begin(&m, type, flags, &body, sizeof(body));
    molt_rtreq_put(&m, IFA_LOCAL, address, sizeof(address));
    molt_rtreq_put(&m, IFA_ADDRESS, address, sizeof(address));
    return molt_rtreq_send(&m);
}

static bool is_there(void)
{
    struct ifaddrs *list;
    bool found = false;

    assert_int_equal(getifaddrs(&list), 0);
    for (struct ifaddrs *i = list; i; i = i->ifa_next)
        found = found || (i->ifa_addr && i->ifa_addr->sa_family == AF_INET && !memcmp(&((struct sockaddr_in *)i->ifa_addr)->sin_addr, address, sizeof(address)));
    freeifaddrs(list);
    return found;
}

static void an_address_comes_and_goes(void **state)
{
    (void)state;
    if (unshare(CLONE_NEWNET) < 0)
        skip(); /* needs root */
    assert_int_equal(ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, LOOPBACK), 0);
    assert_true(is_there());
    assert_int_equal(ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, LOOPBACK), -EEXIST);
    assert_int_equal(ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, 4711), -ENODEV);
    assert_int_equal(ask(RTM_DELADDR, 0, LOOPBACK), 0);
    assert_false(is_there());
    assert_int_equal(ask(RTM_DELADDR, 0, LOOPBACK), -EADDRNOTAVAIL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_address_comes_and_goes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
