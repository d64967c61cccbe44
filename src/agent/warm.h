/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_AGENT_WARM_H
#define MOLT_AGENT_WARM_H

#include <stddef.h>
#include <sys/types.h>

#define WARM_WORKERS 4

struct warm {
    pid_t pid[WARM_WORKERS]; /* 0: none */
};
/* Begins to read the directories below n trees (borrowed until warm_end) into the cache, ahead of a scan. That is a help
 * only: it has no result, and no error. */
void warm_start(struct warm *w, const int *trees, size_t n);
void warm_end(struct warm *w);

#endif
