/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guard.h"

#include <errno.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "xenstore/identity.h"

__attribute__((noreturn)) static void guard(const char *op_id, void (*give_back)(const char *op_id, const void *ctx), const void *ctx, int fd)
{
    struct molt_store store;
    char byte;
    ssize_t got;
    setsid();
    /* Everything else must go: an inherited ring would keep the agent from seeing that the command died. */
    dup2(fd, 3);
    close_range(4, ~0u, 0);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    while ((got = read(3, &byte, 1)) < 0 && errno == EINTR)
        ;
    if (got == 1 || molt_store_open(&store, NULL) < 0)
        _exit(0); /* told to go */
    if (molt_identity_owner(&store, op_id, NULL) == 0)
        give_back(op_id, ctx);
    _exit(0);
}

int molt_guard_start(const char *op_id, void (*give_back)(const char *op_id, const void *ctx), const void *ctx, int *ret_fd, struct molt_error **err)
{
    int p[2];
    /* A socket rather than a pipe: telling a guard that is gone must not raise SIGPIPE in the caller's program. */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
        return molt_error_errno(err, "socketpair");
    pid_t pid = fork();
    if (pid < 0) {
        close(p[0]);
        close(p[1]);
        return molt_error_errno(err, "fork");
    }
    if (pid == 0) {
        close(p[1]);
        if (fork() == 0) /* nobody's child: the command need not wait for it */
            guard(op_id, give_back, ctx, p[0]);
        _exit(0);
    }
    close(p[0]);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    *ret_fd = p[1];
    return 0;
}

void molt_guard_stop(int fd)
{
    if (fd < 0)
        return;
    send(fd, "x", 1, MSG_NOSIGNAL);
    close(fd);
}
