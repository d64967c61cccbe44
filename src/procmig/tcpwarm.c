/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/tcpwarm.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define ROUNDS  32
#define WAIT_MS 200

static bool ready(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, WAIT_MS) == 1 && (p.revents & POLLIN);
}

static bool pass(int from, int to)
{
    char line[64] = {0};
    return send(from, line, sizeof(line), MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(line) && ready(to) && recv(to, line, sizeof(line), MSG_DONTWAIT) > 0;
}

static unsigned warm(const struct sockaddr *loopback, socklen_t len)
{
    const struct linger at_once = {.l_onoff = 1}; /* a close is a reset: no TIME_WAIT holds a port that the workload may need (socket(7)) */
    struct sockaddr_storage at;
    unsigned n = 0;
    CLEANUP_CLOSE int listener = socket(loopback->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CLEANUP_CLOSE int near = socket(loopback->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CLEANUP_CLOSE int far = -1;
    if (listener < 0 || near < 0 || bind(listener, loopback, len) < 0 || listen(listener, 1) < 0 || getsockname(listener, (struct sockaddr *)&at, &len) < 0 ||
        setsockopt(near, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) < 0)
        return 0;
    (void)connect(near, (struct sockaddr *)&at, len); /* goes on by itself */
    if (!ready(listener) || (far = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) < 0 || setsockopt(far, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) < 0)
        return 0;
    while (n < ROUNDS && pass(near, far) && pass(far, near))
        n++;
    return n;
}

unsigned molt_tcp_warm(void)
{
    const struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    return warm((const struct sockaddr *)&v4, sizeof(v4)) + warm((const struct sockaddr *)&v6, sizeof(v6));
}
