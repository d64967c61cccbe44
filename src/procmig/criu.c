/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The toolbox's CRIU as a program: started, waited for, and what its log says when it fails. */
#include "procmig/criu.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"

#define LOG_MAX      (64u << 20)
#define KERNDAT      "/run/criu.kdat" /* KERNDAT_CACHE_FILE in criu/kerndat.c */
#define NO_NAMESPACE 126 /* exit status */

/* The first error of a log of CRIU, which names the cause, and the last one, which names what failed; or
 * NULL. */
static char *error_lines(const char *log_path)
{
    CLEANUP_FREE char *text = NULL;
    const char *first = NULL, *last = NULL;
    char *save = NULL;

    if (molt_read_file(log_path, LOG_MAX, &text, NULL, NULL) < 0)
        return NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *at = strstr(line, "Error (");

        if (!at || strstr(at, "rlimit:") || strstr(at, "ing FAILED"))
            continue;
        first = first ? first : at;
        last = at;
    }
    if (!first)
        return NULL;
    return first == last ? molt_xstrndup(first, 300) : molt_xasprintf("%.300s; %.300s", first, last);
}

static bool enter_ns(pid_t like, const char *name)
{
    char path[64], own[64] = "", theirs[64] = "";
    int fd, r;

    snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)like, name);
    if (readlink(path, theirs, sizeof(theirs) - 1) < 0)
        return errno == ENOENT; /* a kernel without that kind */
    fd = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
    if (fd >= 0 && readlink(path, own, sizeof(own) - 1) >= 0 && !strcmp(own, theirs)) {
        close(fd);
        return true;
    }
    r = fd >= 0 ? setns(fd, 0) : -1;
    if (fd >= 0)
        close(fd);
    return r == 0;
}

__attribute__((noreturn)) static void criu_child(char *argv[], pid_t like)
{
    int null = open("/dev/null", O_RDWR);
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < 3; i++)
        dup2(null, i);
    if (null > 2)
        close(null);
    /* The mount namespace last: /proc stays the same, but open what is needed first. */
    if (like > 0 && (!enter_ns(like, "time") || !enter_ns(like, "mnt")))
        _exit(NO_NAMESPACE);
    execv(argv[0], argv);
    _exit(127);
}

/* 0 ended, 1 killed at the end of its time, -1 errno. Sleeps on a pidfd (5.3): no timer wakes the machine meanwhile. */
static int wait_child(pid_t pid, int timeout_ms, int *ret_status)
{
    CLEANUP_CLOSE int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    int64_t end = molt_mono_ms() + timeout_ms;
    int r = 0;

    if (fd < 0)
        return -1;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = timeout_ms > 0 ? end - molt_mono_ms() : -1;
        int n = poll(&p, 1, timeout_ms > 0 && left < 0 ? 0 : (int)left);

        if (n > 0)
            break;
        if (n < 0 && errno != EINTR)
            return -1;
        if (timeout_ms > 0 && molt_mono_ms() >= end) {
            kill(pid, SIGKILL);
            r = 1;
            break;
        }
    }
    while (waitpid(pid, ret_status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return r;
}

int molt__criu_start(const char *toolbox, char *argv[], pid_t like, pid_t *ret_pid, struct molt_error **err)
{
    CLEANUP_FREE char *bin = molt_xasprintf("%s/criu", toolbox ? toolbox : MOLT_TOOLBOX_DIR);
    pid_t pid;

    if (access(bin, X_OK) < 0)
        return molt_error_errno(err, "the toolbox's %s", bin);
    argv[0] = bin;
    pid = fork();
    if (pid < 0)
        return molt_error_errno(err, "fork for criu");
    if (pid == 0)
        criu_child(argv, like);
    *ret_pid = pid;
    return 0;
}

int molt__criu_wait(pid_t pid, const char *what, int timeout_ms, const char *log_path, struct molt_error **err)
{
    CLEANUP_FREE char *line = NULL;
    int status = 0, r = wait_child(pid, timeout_ms, &status);

    if (r < 0)
        return molt_error_errno(err, "wait for criu");
    if (r > 0)
        return molt_error_set(err, MOLT_E_TIMEOUT, "criu %s did not end within %d ms", what, timeout_ms);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_NAMESPACE)
        return molt_error_set(err, MOLT_E_INTERNAL, "cannot enter the namespaces of the workload");
    if (log_path)
        line = error_lines(log_path);
    return molt_error_set(err, MOLT_E_CANNOT_MOVE, "criu %s failed (%s %d)%s%s", what,
                          WIFSIGNALED(status) ? "signal" : "status",
                          WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), line ? ": " : "",
                          line ? line : "");
}

int molt__criu_run(const char *toolbox, char *argv[], pid_t like, int timeout_ms, const char *log_path,
                   struct molt_error **err)
{
    pid_t pid;
    int r = molt__criu_start(toolbox, argv, like, &pid, err);

    return r < 0 ? r : molt__criu_wait(pid, argv[1], timeout_ms, log_path, err);
}

int molt_criu_check(const char *toolbox, struct molt_error **err)
{
    char *argv[] = {NULL, "check", "-v0", NULL};

    return molt__criu_run(toolbox, argv, 0, 120000, NULL, err);
}

int molt_criu_version(const char *toolbox, char **ret_version, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/VERSION", toolbox ? toolbox : MOLT_TOOLBOX_DIR),
                      *text = NULL;
    int r = molt_read_file(path, 256, &text, NULL, err);

    if (r < 0)
        return r;
    text[strcspn(text, "\n")] = '\0';
    *ret_version = MOLT_STEAL_PTR(text);
    return 0;
}

int molt_criu_warm(const char *toolbox, struct molt_error **err)
{
    return access(KERNDAT, F_OK) == 0 ? 0 : molt_criu_check(toolbox, err);
}
