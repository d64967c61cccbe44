/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A trial of the restore, before anything stands still for good: a dump of the workload, which goes on, is restored in the clone in a network
 * of its own, looked at, and killed. What cannot move is found here and not in the blackout.
 */
#ifndef MOLT_PROCMIG_REHEARSE_H
#define MOLT_PROCMIG_REHEARSE_H

#include "base/json.h"
#include "base/strbuf.h"
#include "procmig/dump.h"
#include "procmig/firststep.h"

struct molt_trial {
    struct molt_dump_stats stats; /* of the restore */
    struct molt_first_step step;
};

/* In the clone, where restore-prepare was. dir: the images of molt_dump_end with opts.trial, and of the rounds that its "parent" leads to. The
 * trees stand restored and stopped in the unit's overlay, and in a network namespace where nothing answers; each process and thread must be
 * there, and runs its first step (firststep.h); then they are killed, and what was laid out for them in /tmp, /run and /dev/shm is removed. The sizes of files are not compared: the
 * merge still goes on. absent: directories whose files are not there yet, NULL-terminated (standins.h), or NULL. MOLT_E_CANNOT_MOVE with CRIU's words
 * when it cannot be restored. */
int molt_rehearse(const char *unit, const char *dir, const char *toolbox, const char *const *absent, int timeout_ms, struct molt_trial *ret,
                  struct molt_error **err);

/* CRIU's files.img without the sizes of regular files: by them it checks each file that it opens (validate_file in criu/files-reg.c). *ret:
 * what is to be written in its place. MOLT_E_PROTOCOL: it is no such image. */
int molt__files_without_sizes(const void *data, size_t len, struct molt_strbuf *ret, struct molt_error **err);

/* The calling process gets a network namespace of its own, in which every address is its own (a local route for all, "AnyIP"): each can be bound, and a
 * connection in repair mode (tcp(7), TCP_REPAIR) finds a way to every peer. Needs ip(8). */
int molt__isolate_network(struct molt_error **err);

#endif
