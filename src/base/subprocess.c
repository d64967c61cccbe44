/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/subprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"

#define DEFAULT_MAX_OUTPUT (64 * 1024)
#define MAX_LINE 4096
#define POLL_MS 200

struct run {
    const struct molt_run_opts *opts;
    struct molt_strbuf out;   /* the tail */
    struct molt_strbuf line;  /* the line begun */
    size_t max_output;
};

static void flush_line(struct run *run)
{
    if (run->opts->line)
        run->opts->line(run->opts->line_ctx, molt_strbuf_str(&run->line));
    run->line.len = 0;
    if (run->line.s)
        run->line.s[0] = 0;
}

static void take_output(struct run *run, const char *buf, size_t n)
{
    molt_strbuf_add(&run->out, buf, n);
    if (run->out.len > 2 * run->max_output) {
        size_t cut = run->out.len - run->max_output;
        memmove(run->out.s, run->out.s + cut, run->max_output + 1);
        run->out.len = run->max_output;
    }
    for (size_t i = 0; i < n; i++) {
        if (buf[i] == '\n' || run->line.len >= MAX_LINE)
            flush_line(run);
        if (buf[i] != '\n')
            molt_strbuf_add(&run->line, buf + i, 1);
    }
}

__attribute__((noreturn)) static void child(char *const argv[], const struct molt_run_opts *opts, int out)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(out, 1);
    dup2(out, 2);
    if (opts->new_session)
        setsid();
    else
        setpgid(0, 0);
    if (opts->dir && chdir(opts->dir) < 0)
        _exit(127);
    if (opts->env)
        execvpe(argv[0], argv, opts->env);
    else
        execvp(argv[0], argv);
    dprintf(2, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* Reads until end of file (or the child is gone and the pipe is quiet), a time-out or a cancellation. */
static int pump(struct run *run, int fd, pid_t pid, int *status, struct molt_error **err, const char *name)
{
    int64_t end = run->opts->timeout_ms > 0 ? molt_mono_ms() + run->opts->timeout_ms : 0;
    char buf[8192];
    bool eof = false, reaped = false;
    while (!eof) {
        struct pollfd p = {fd, POLLIN, 0};
        int n = poll(&p, 1, POLL_MS);
        if (n > 0) {
            ssize_t got = read(fd, buf, sizeof(buf));
            if (got > 0)
                take_output(run, buf, (size_t)got);
            else if (got == 0 || errno != EINTR)
                eof = true;
        }
        /* A daemonised grandchild may hold the pipe for ever: the end of the child is the end. */
        if (n == 0 && !reaped && waitpid(pid, status, WNOHANG) == pid)
            reaped = true;
        if (reaped && n == 0)
            break;
        const char *why = NULL;
        int code = 0;
        if (end && molt_mono_ms() >= end) {
            why = "did not end within its time limit";
            code = MOLT_E_TIMEOUT;
        } else if (run->opts->cancelled && run->opts->cancelled(run->opts->cancel_ctx)) {
            why = "cancelled";
            code = MOLT_E_ABORTED;
        }
        if (why) {
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
            if (!reaped)
                while (waitpid(pid, status, 0) < 0 && errno == EINTR)
                    ;
            return molt_error_set(err, code, "%s: %s", name, why);
        }
    }
    if (!reaped)
        while (waitpid(pid, status, 0) < 0)
            if (errno != EINTR)
                return molt_error_errno(err, "wait for %s", name);
    return 0;
}

int molt_run(char *const argv[], const struct molt_run_opts *opts, int *ret_status, char **ret_output, struct molt_error **err)
{
    static const struct molt_run_opts defaults;
    struct run run = {.opts = opts ? opts : &defaults};
    run.max_output = run.opts->max_output ? run.opts->max_output : DEFAULT_MAX_OUTPUT;
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return molt_error_errno(err, "pipe");
    CLEANUP_CLOSE int rd = fds[0];
    pid_t pid = fork();
    if (pid < 0) {
        close(fds[1]);
        return molt_error_errno(err, "fork for %s", argv[0]);
    }
    if (pid == 0)
        child(argv, run.opts, fds[1]);
    close(fds[1]);
    int status = 0;
    int r = pump(&run, rd, pid, &status, err, argv[0]);
    if (run.line.len)
        flush_line(&run);
    molt_strbuf_free(&run.line);
    if (ret_output && run.out.len > run.max_output)
        memmove(run.out.s, run.out.s + run.out.len - run.max_output, run.max_output + 1);
    if (ret_output)
        *ret_output = molt_strbuf_steal(&run.out);
    molt_strbuf_free(&run.out);
    if (r < 0)
        return r;
    if (ret_status)
        *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return 0;
}

int molt_run_ok(char *const argv[], const struct molt_run_opts *opts, char **ret_output, struct molt_error **err)
{
    CLEANUP_FREE char *out = NULL;
    int status = 0;
    int r = molt_run(argv, opts, &status, &out, err);
    if (r < 0)
        return r;
    if (status != 0) {
        size_t n = strlen(out);
        while (n && (out[n - 1] == '\n' || out[n - 1] == ' '))
            out[--n] = 0;
        const char *last = strrchr(out, '\n');
        return molt_error_set(err, MOLT_E_INTERNAL, "%s: exit status %d%s%s", argv[0], status, n ? ": " : "", last ? last + 1 : out);
    }
    if (ret_output)
        *ret_output = MOLT_STEAL_PTR(out);
    return 0;
}
