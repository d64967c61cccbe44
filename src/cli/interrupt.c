/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SIGINT and SIGTERM while an operation runs. The handler only writes a byte into a pipe; a thread reads it
 * and asks the library for an abort, by a handle of its own. Further signals change nothing: the way back is
 * not to be cut.
 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"

#define TICK_MS 500

struct cli_interrupt {
    struct cli *cli;
    struct cli_progress *progress;
    pthread_t thread;
    struct sigaction old_int, old_term;
    bool wanted, asked;
};

static int pipe_fds[2] = {-1, -1};

static void on_signal(int sig)
{
    int saved = errno;
    char c = (char)sig;

    if (write(pipe_fds[1], &c, 1) < 0)
        errno = saved; /* full: the thread has enough to read */
    errno = saved;
}

static void ask(struct cli_interrupt *i, const char *id)
{
    xenmolt_config config = {.size = sizeof(config), .state_dir = i->cli->state_dir};
    xenmolt_error *err = NULL;
    xenmolt *x = NULL;
    int r = xenmolt_open(&config, &x, &err);

    if (r == 0)
        r = xenmolt_op_abort(x, id, 0, &err);
    if (r < 0)
        cli_progress_say(i->progress, "no abort: %s", xenmolt_error_text(err));
    else
        cli_progress_say(i->progress, "abort asked for; operation %s goes back, the guest runs on", id);
    xenmolt_error_free(err);
    if (x)
        xenmolt_close(x);
    i->asked = true;
}

/* The thread: ends when a byte 0 comes. */
static void *listen(void *arg)
{
    struct cli_interrupt *i = arg;
    struct pollfd pfd = {.fd = pipe_fds[0], .events = POLLIN};

    for (;;) {
        char c = 1;

        if (poll(&pfd, 1, TICK_MS) > 0) {
            if (read(pipe_fds[0], &c, 1) == 1 && c == 0)
                return NULL;
            if (!i->wanted)
                cli_progress_say(i->progress, "interrupted: the operation is to be aborted");
            else
                cli_progress_say(i->progress, "the operation is already asked to stop; wait for its end");
            i->wanted = true;
        }
        if (i->wanted && !i->asked) {
            /* Not known during the first moments: the next tick looks again. */
            CLEANUP_FREE char *id = cli_progress_operation(i->progress);

            if (id)
                ask(i, id);
        }
        cli_progress_tick(i->progress);
    }
}

struct cli_interrupt *cli_interrupt_start(struct cli *cli, struct cli_progress *p)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct cli_interrupt *i = molt_xcalloc(1, sizeof(*i));
    sigset_t all, old;

    i->cli = cli;
    i->progress = p;
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0) {
        free(i);
        return NULL; /* then signals end the command, and op-recover undoes */
    }
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old); /* signals go to the main thread only */
    if (pthread_create(&i->thread, NULL, listen, i) != 0) {
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        free(i);
        return NULL;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    sigaction(SIGINT, &sa, &i->old_int);
    sigaction(SIGTERM, &sa, &i->old_term);
    return i;
}

void cli_interrupt_stop(struct cli_interrupt *i)
{
    char end = 0;

    if (!i)
        return;
    sigaction(SIGINT, &i->old_int, NULL);
    sigaction(SIGTERM, &i->old_term, NULL);
    while (write(pipe_fds[1], &end, 1) < 0 && (errno == EINTR || errno == EAGAIN))
        ;
    pthread_join(i->thread, NULL);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    free(i);
}
