/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The files of a directory that somebody else writes, each as soon as it is closed. */
#ifndef MOLT_AGENT_FOLLOW_H
#define MOLT_AGENT_FOLLOW_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct follow {
    int fd;    /* inotify */
    int dirfd;
    const char *end, *failed;
    char buf[4096] __attribute__((aligned(8)));
    size_t have, at;
};

/* end: the file that appears last; failed: the one that appears instead when there will be no end. Both appear by rename and are only
 * referred to. From now on nothing that is closed is missed; what was closed before is for the caller to look for. dirfd: of dir,
 * the caller's. */
int follow_begin(struct follow *f, const char *dir, int dirfd, const char *end, const char *failed, struct molt_error **err);
/* 1: *ret_name, valid until the next call, was closed by a writer; 0: the end is there. MOLT_E_TIMEOUT: neither for timeout_ms;
 * MOLT_E_STATE: it failed. */
int follow_next(struct follow *f, int timeout_ms, const char **ret_name, struct molt_error **err);
void follow_end(struct follow *f);

#endif
