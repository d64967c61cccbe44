/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal: the files of unix sockets. A socket keeps the name that it was bound to (unix(7)); its file may have been renamed since, as the JVM's
 * attach socket is. CRIU binds it to the first name again (bind_unix_sk in criu/sk-unix.c), so what the file is called now travels beside the images.
 */
#ifndef MOLT_PROCMIG_SOCKFILES_H
#define MOLT_PROCMIG_SOCKFILES_H

#include "base/json.h"
#include "procmig/procfs.h"

#define MOLT__SOCKFILES_MAX 4096

/* Adds {name, path} of process pid's socket fd to the list, when CRIU will bind it to a file: the name that it was bound to and what its file is
 * called now, as that process sees them, each once. Nothing is added for an abstract or relative name (CRIU refuses a renamed one of these), or when
 * the file is gone. */
int molt__sockfiles_note(struct molt_json *list, pid_t pid, int fd, const struct molt__unix_sk *sk, struct molt_error **err);
/* MOLT_E_CANNOT_MOVE when a process here has a socket at one of those names: CRIU would take its file away. */
int molt__sockfiles_untaken(const struct molt_json *list, struct molt_error **err);
/* Behind a restore, in the mount namespace of what was restored: gives the files the names that they had. */
int molt__sockfiles_rename(const struct molt_json *list, struct molt_error **err);

#endif
