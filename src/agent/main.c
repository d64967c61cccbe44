/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* xenmolt-agent: one static program. PID 1 of a clone, systemd's ExecStart, or the restore helper. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/clonerecord.h"
#include "agent/overlays.h"
#include "procmig/restore.h"

static void log_stderr(void *ctx, enum molt_log_level level, const char *line)
{
    (void)ctx;
    /* "<N>" is systemd's priority prefix (sd-daemon(3)). */
    static const int priority[] = {3, 4, 6, 7};
    fprintf(stderr, "<%d>%s\n", priority[level], line);
}

int main(int argc, char *argv[])
{
    struct molt_log log = {MOLT_LOG_INFO, log_stderr, NULL};
    if (getpid() == 1)
        return agent_init_main(argv, &log);
    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && !strcmp(argv[1], "restore-exec"))
        return molt_restore_exec(argv[2]);
    if (argc == 2 && !strcmp(argv[1], "record-save"))
        return clonerecord_save(&log);
    if (argc == 3 && !strcmp(argv[1], "overlay-drop"))
        return overlays_drop(argv[2], &log);
    if (argc == 2 && !strcmp(argv[1], "--version")) {
        printf("xenmolt-agent %s (protocol %d)\n", PACKAGE_VERSION, MOLT_PROTO_VERSION);
        return 0;
    }
    if (argc == 1 || (argc == 2 && !strcmp(argv[1], "serve")))
        return agent_supervise(&log) < 0 ? 1 : 0;
    fprintf(stderr, "usage: xenmolt-agent [serve | --version | restore-exec SPEC | overlay-drop UNIT | record-save]\n");
    return 2;
}
