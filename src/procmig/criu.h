/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_PROCMIG_CRIU_H
#define MOLT_PROCMIG_CRIU_H

#include <sys/types.h>

#include "base/error.h"

#define MOLT_TOOLBOX_DIR "/usr/lib/xenmolt/toolbox"

/* `criu check`, and its feature cache warmed (call it when the agent starts). */
int molt_criu_check(const char *toolbox, struct molt_error **err);
/* The same where the cache is not there yet: the check takes some seconds under emulation. */
int molt_criu_warm(const char *toolbox, struct molt_error **err);
/* "4.1.1"; malloc'd. */
int molt_criu_version(const char *toolbox, char **ret_version, struct molt_error **err);
/* Runs criu (argv[0] is replaced by the toolbox's) in the mount and time namespaces of process `like` (0:
 * ours), its outcome judged by exit status; the error quotes the last error line of log_path. */
int molt__criu_run(const char *toolbox, char *argv[], pid_t like, int timeout_ms, const char *log_path,
                   struct molt_error **err);
/* The same in two parts. `what`: the command, for the message. A timeout of 0 waits for ever; at its end the program is killed. */
int molt__criu_start(const char *toolbox, char *argv[], pid_t like, pid_t *ret_pid, struct molt_error **err);
int molt__criu_wait(pid_t pid, const char *what, int timeout_ms, const char *log_path, struct molt_error **err);

#endif
