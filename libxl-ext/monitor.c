/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What xl's background process does for domains that `xl create` made: wait for the domain's death and act as its
 * configuration says. A domain that we created needs one too, or its reboot would end in a dead domain.
 */
#include <errno.h>
#include <fcntl.h>
#include <libxl_utils.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "context.h"
#include "disk.h"
#include "domain.h"
#include "upgrade.h"

#define LOG_DIR "/var/log/xen" /* xl's (XEN_LOG_DIR of Debian and of a plain build) */

static libxl_action_on_shutdown action_for(const libxl_domain_config *cfg, libxl_shutdown_reason reason)
{
    switch (reason) {
    case LIBXL_SHUTDOWN_REASON_POWEROFF: return cfg->on_poweroff;
    case LIBXL_SHUTDOWN_REASON_REBOOT: return cfg->on_reboot;
    case LIBXL_SHUTDOWN_REASON_CRASH: return cfg->on_crash;
    case LIBXL_SHUTDOWN_REASON_WATCHDOG: return cfg->on_watchdog;
    case LIBXL_SHUTDOWN_REASON_SOFT_RESET: return cfg->on_soft_reset;
    case LIBXL_SHUTDOWN_REASON_SUSPEND:
    case LIBXL_SHUTDOWN_REASON_UNKNOWN: break;
    }
    return LIBXL_ACTION_ON_SHUTDOWN_PRESERVE;
}

/* No answer (its QEMU has crashed, say) must not keep the domain down. */
static void follow_disk(struct xenmolt *x, uint32_t domid, libxl_domain_config *cfg)
{
    CLEANUP_ERROR struct molt_error *e = NULL;
    if (molt_disk_follow(domid, cfg, &e) < 0)
        molt_warn(&x->log, "domain %u: which image its disk stands on is not known, the configuration's is taken: %s", domid, molt_error_text(e));
}

/* 1: the domain lives on under *domid; 0: it is gone or preserved. */
static int act(struct xenmolt *x, uint32_t *domid, libxl_shutdown_reason reason, struct molt_error **err)
{
    libxl_domain_config cfg;
    int r = molt_domain_config(x, *domid, &cfg, err);
    if (r < 0)
        return r;
    switch (action_for(&cfg, reason)) {
    case LIBXL_ACTION_ON_SHUTDOWN_RESTART:
    case LIBXL_ACTION_ON_SHUTDOWN_COREDUMP_RESTART:
    case LIBXL_ACTION_ON_SHUTDOWN_SOFT_RESET:
        follow_disk(x, *domid, &cfg);
        r = molt_domain_destroy(x, *domid, err);
        if (r == 0)
            r = molt_domain_create(x, &cfg, true, domid, err);
        r = r < 0 ? r : 1;
        break;
    case LIBXL_ACTION_ON_SHUTDOWN_DESTROY:
    case LIBXL_ACTION_ON_SHUTDOWN_COREDUMP_DESTROY:
        r = molt_domain_destroy(x, *domid, err);
        break;
    case LIBXL_ACTION_ON_SHUTDOWN_PRESERVE:
    case LIBXL_ACTION_ON_SHUTDOWN_RESTART_RENAME:
        r = 0;
        break;
    }
    libxl_domain_config_dispose(&cfg);
    return r;
}

/* One life of the domain: 1 restarted, 0 ended. */
static int watch(struct xenmolt *x, uint32_t *domid, struct molt_error **err)
{
    libxl_evgen_domain_death *gen = NULL;
    if (libxl_evenable_domain_death(x->xl, *domid, 0, &gen))
        return molt_error_set(err, MOLT_E_INTERNAL, "libxl: cannot watch domain %u", *domid);
    for (;;) {
        libxl_event *ev;
        if (libxl_event_wait(x->xl, &ev, LIBXL_EVENTMASK_ALL, 0, 0))
            return molt_error_set(err, MOLT_E_INTERNAL, "libxl: waiting for events failed");
        bool shutdown = ev->type == LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN && ev->domid == *domid;
        bool death = ev->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH && ev->domid == *domid;
        libxl_shutdown_reason reason = shutdown ? ev->u.domain_shutdown.shutdown_reason : LIBXL_SHUTDOWN_REASON_UNKNOWN;
        libxl_event_free(x->xl, ev);
        if (!shutdown && !death)
            continue;
        if (shutdown && reason == LIBXL_SHUTDOWN_REASON_SUSPEND)
            continue;
        libxl_evdisable_domain_death(x->xl, gen);
        return death ? 0 : act(x, domid, reason, err);
    }
}

/* One monitor a domain: recovery may start a second one, and two would both restart it. 1: ours, 0: another's. */
static int take_watch(struct xenmolt *x, const char *uuid, int *ret_fd, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/locks/monitor-%s", x->state_dir, uuid);
    *ret_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*ret_fd < 0)
        return molt_error_errno(err, "open %s", path);
    return flock(*ret_fd, LOCK_EX | LOCK_NB) == 0;
}

int xenmolt_monitor(xenmolt *x, uint32_t domid, xenmolt_error **err)
{
    struct molt_domain d;
    CLEANUP_CLOSE int lock = -1;
    int r = molt_context_need_xen(x, err);
    if (r == 0)
        r = molt_domain_info(x, domid, &d, err);
    if (r == 0) {
        r = take_watch(x, d.uuid, &lock, err);
        if (r == 0)
            return 0;
        r = r < 0 ? r : 0;
    }
    while (r == 0 && (r = watch(x, &domid, err)) == 1)
        r = 0;
    return r;
}

/* Detached: two forks, own session, so that it outlives the command and is nobody's child. */
int molt_monitor_spawn(struct xenmolt *x, uint32_t domid, struct molt_error **err)
{
    char id[16];
    struct molt_domain d;
    int r = molt_domain_info(x, domid, &d, err);
    if (r < 0)
        return r;
    /* Beside xl's own, where log rotation looks. */
    CLEANUP_FREE char *log = molt_xasprintf(LOG_DIR "/xenmolt-%s.log", d.name);
    snprintf(id, sizeof(id), "%u", domid);
    pid_t pid = fork();
    if (pid < 0)
        return molt_error_errno(err, "fork");
    if (pid == 0) {
        if (setsid() < 0 || fork() != 0)
            _exit(0);
        int null = open("/dev/null", O_RDWR), out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(null, 0);
        dup2(out >= 0 ? out : null, 1);
        dup2(out >= 0 ? out : null, 2);
        for (int fd = 3; fd < 1024; fd++)
            close(fd);
        if (chdir("/") < 0)
            _exit(1);
        execl(MOLT_SBINDIR "/xenmolt", "xenmolt", "domain-monitor", id, (char *)NULL);
        _exit(127);
    }
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return 0;
}
