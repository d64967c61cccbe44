/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The process that stays: forks one child per host connection and forks the next when it ends. The child offers the
 * ring itself, so all memory of an operation (manifests, images) goes with it and the idle agent stays small.
 */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/overlays.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "procmig/dump.h"
#include "proto/vchan.h"

#define RETRY_MS 1000

static void serve_one_connection(struct molt_log *log)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_chan *chan = NULL;
    if (molt_vchan_listen(0, "data/xenmolt/ctl", MOLT_CONTROL_RING, &chan, &err) < 0 || agent_announce(&err) < 0) {
        molt_err(log, "%s", molt_error_text(err));
        molt_chan_close(chan);
        _exit(1);
    }
    if (molt_vchan_accept(chan, -1, &err) < 0) {
        molt_err(log, "%s", molt_error_text(err));
        molt_chan_close(chan);
        _exit(1);
    }
    agent_session(chan, log);
    _exit(0);
}

/* The first criu call after a boot fills CRIU's feature cache, which takes long: done here, in the background. */
static void warm_up(struct molt_log *log)
{
    if (fork() != 0)
        return;
    struct molt_error *err = NULL;
    if (molt_criu_check(NULL, &err) < 0)
        molt_warn(log, "criu: %s", molt_error_text(err));
    _exit(0);
}

int agent_supervise(struct molt_log *log)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    if (molt_mkdir_p(MOLT_AGENT_RUN, 0755, &err) < 0 || molt_mkdir_p(MOLT_AGENT_LIB, 0755, &err) < 0)
        molt_warn(log, "%s", molt_error_text(err));
    warm_up(log);
    overlays_tidy(log);
    pid_t child = 0;
    bool died = true; /* maybe an agent before this one */
    for (;;) {
        /* Who dies over a freeze must not leave the guest without its shells. */
        if (died && !agent_was_replaced())
            departure_thaw_bystanders(log);
        if (died)
            arrival_usual_turns();
        died = false;
        if (child == 0) {
            child = fork();
            if (child < 0)
                return molt_error_errno(&err, "fork");
            if (child == 0) {
                prctl(PR_SET_PDEATHSIG, SIGTERM);
                serve_one_connection(log);
            }
        }
        int status;
        pid_t pid = wait(&status);
        if (pid == child) {
            child = 0;
            died = WIFSIGNALED(status);
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                molt_sleep_ms(RETRY_MS); /* xenbus or the modules are not there yet: no busy loop */
        }
        if (pid < 0 && errno != EINTR && errno != ECHILD)
            return -1;
    }
}
