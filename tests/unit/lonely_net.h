/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A network in which nobody else is, for tests that count what there is. */
#ifndef MOLT_TEST_LONELY_NET_H
#define MOLT_TEST_LONELY_NET_H

#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* This process's own network namespace, with a loopback device that is up. false: not to be had here (not as root). */
static inline bool lonely_net(void)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = unshare(CLONE_NEWNET) < 0 ? -1 : socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool up = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &r) == 0;
    if (fd >= 0)
        close(fd);
    return up;
}

#endif
